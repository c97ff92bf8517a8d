"""Requests with one bad field each, with its name and words of its description."""

import math

from calls import (
    JPEG,
    PAINTER,
    POET,
    WEBP,
    chat_request,
    ids_request,
    picture_request,
    text_request,
)
from contract import generation_pb2

NAN, INF = math.nan, math.inf

# (parameters, field, words of the description)
PICTURES = [
    ({"width": 0}, "picture.width", "multiple of 8 from 8 to"),
    ({"width": 100}, "picture.width", "multiple of 8 from 8 to"),
    ({"width": 1 << 20}, "picture.width", "multiple of 8 from 8 to"),
    ({"width": 2**32 - 1}, "picture.width", "multiple of 8 from 8 to"),
    ({"height": 0}, "picture.height", "multiple of 8 from 8 to"),
    ({"height": 65}, "picture.height", "multiple of 8 from 8 to"),
    ({"height": 1 << 30}, "picture.height", "multiple of 8 from 8 to"),
    ({"steps": 0}, "picture.steps", "[1, 1000]"),
    ({"steps": 1001}, "picture.steps", "[1, 1000]"),
    ({"steps": 2**32 - 1}, "picture.steps", "[1, 1000]"),
    ({"guidance": -0.5}, "picture.guidance", "[0, 100]"),
    ({"guidance": 100.5}, "picture.guidance", "[0, 100]"),
    ({"guidance": NAN}, "picture.guidance", "[0, 100]"),
    ({"guidance": INF}, "picture.guidance", "[0, 100]"),
    ({"guidance": -INF}, "picture.guidance", "[0, 100]"),
    ({"count": 0}, "picture.count", "[1, 16]"),
    ({"count": 17}, "picture.count", "[1, 16]"),
    ({"count": 2**32 - 1}, "picture.count", "[1, 16]"),
    ({"sampler": "heun"}, "picture.sampler", "ddim, pndm, euler, euler_a, dpmpp_2m, lcm, unipc"),
    ({"sampler": "DDIM"}, "picture.sampler", "ddim, pndm"),
    ({"sampler": "\x00"}, "picture.sampler", "ddim, pndm"),
    ({"format": 9}, "picture.format", "PNG, JPEG or WEBP"),
    ({"format": JPEG, "quality": 0}, "picture.quality", "[1, 100]"),
    ({"format": WEBP, "quality": 101}, "picture.quality", "[1, 100]"),
    ({"quality": 50}, "picture.quality", "absent for PNG"),
    ({"preview_every_steps": 1001}, "picture.preview_every_steps", "[0, 1000]"),
    ({"negative_prompt": "山" * 200}, "picture.negative_prompt", "tokens"),
]
TEXTS = [
    ({"max_tokens": 0}, "text.max_tokens", "[1, 256]"),
    ({"max_tokens": 257}, "text.max_tokens", "[1, 256]"),
    ({"max_tokens": 256}, "text.max_tokens", "less the prompt"),
    ({"max_tokens": 2**32 - 1}, "text.max_tokens", "[1, 256]"),
    ({"temperature": -0.1}, "text.temperature", "[0, 100]"),
    ({"temperature": 100.1}, "text.temperature", "[0, 100]"),
    ({"temperature": NAN}, "text.temperature", "[0, 100]"),
    ({"temperature": INF}, "text.temperature", "[0, 100]"),
    ({"top_p": 0.0}, "text.top_p", "(0, 1]"),
    ({"top_p": 1.01}, "text.top_p", "(0, 1]"),
    ({"top_p": NAN}, "text.top_p", "(0, 1]"),
    ({"min_p": -0.1}, "text.min_p", "[0, 1]"),
    ({"min_p": 1.1}, "text.min_p", "[0, 1]"),
    ({"min_p": NAN}, "text.min_p", "[0, 1]"),
    ({"repetition_penalty": 0.0}, "text.repetition_penalty", "[0.001, 10]"),
    ({"repetition_penalty": 10.5}, "text.repetition_penalty", "[0.001, 10]"),
    ({"repetition_penalty": -INF}, "text.repetition_penalty", "[0.001, 10]"),
    ({"presence_penalty": 2.5}, "text.presence_penalty", "[-2, 2]"),
    ({"presence_penalty": NAN}, "text.presence_penalty", "[-2, 2]"),
    ({"frequency_penalty": -2.5}, "text.frequency_penalty", "[-2, 2]"),
    ({"frequency_penalty": INF}, "text.frequency_penalty", "[-2, 2]"),
    ({"logit_bias": {5: 100.5}}, "text.logit_bias[5]", "[-100, 100]"),
    ({"logit_bias": {5: NAN}}, "text.logit_bias[5]", "[-100, 100]"),
    ({"logit_bias": {4387: 1.0}}, "text.logit_bias[4387]", "vocabulary size 4387"),
    ({"logit_bias": dict.fromkeys(range(1025), 1.0)}, "text.logit_bias", "at most 1024"),
    ({"stop": ["a"] * 17}, "text.stop", "at most 16"),
    ({"stop": ["a", ""]}, "text.stop[1]", "1 to 256 bytes"),
    ({"stop": ["山" * 86]}, "text.stop[0]", "1 to 256 bytes"),
    ({"stop_token_ids": [1] * 65}, "text.stop_token_ids", "at most 64"),
    ({"stop_token_ids": [0, 4387]}, "text.stop_token_ids[1]", "vocabulary size 4387"),
    ({"n": 0}, "text.n", "[1, 16]"),
    ({"n": 17}, "text.n", "[1, 16]"),
    ({"logprobs": 21}, "text.logprobs", "[0, 20]"),
    ({"max_tokens": 4, "min_tokens": 5}, "text.min_tokens", "[0, 4]"),
    ({"min_tokens": 2**32 - 1}, "text.min_tokens", "[0, 256]"),
]


def change(request, **fields):
    for name, value in fields.items():
        request.ClearField(name)
        if value is not None:
            setattr(request, name, value)
    return request


def with_parts(*parts):
    request = text_request()
    request.parts.SetInParent()
    request.parts.parts.extend(parts)
    return request


def with_ids(ids, model):
    return (
        ids_request(ids, model)
        if model == POET
        else generation_pb2.GenerateRequest(model=model, token_ids=generation_pb2.TokenIds(ids=ids))
    )


Part = generation_pb2.Part
REQUESTS = [
    ("no-model", change(text_request(), model=""), "model", "required"),
    ("no-input", change(text_request(), prompt=None), "prompt", "one of prompt, chat"),
    ("empty-prompt", text_request(""), "prompt", "must not be empty"),
    ("empty-picture-prompt", picture_request(""), "prompt", "must not be empty"),
    ("long-prompt", text_request("山" * 300), "prompt", "at most 255 tokens"),
    ("long-picture-prompt", picture_request("山" * 200), "prompt", "tokens for this model"),
    ("huge-prompt", text_request("x" * ((1 << 20) + 1)), "prompt", "at most 1048576 bytes"),
    (
        "huge-together",
        picture_request("山", negative_prompt="x" * (1 << 20)),
        "prompt",
        "at most 1048576 bytes together",
    ),
    ("bad-id-characters", text_request(request_id="a b"), "request_id", "at most 128 characters"),
    ("long-id", text_request(request_id="a" * 129), "request_id", "at most 128 characters"),
    ("text-of-painter", change(text_request(), model=PAINTER), "text", "picture"),
    ("picture-of-poet", change(picture_request(), model=POET), "picture", "text"),
    ("no-template", chat_request(("user", "hi"), model="golden-gpt2-bin"), "chat", "template"),
    ("no-messages", chat_request(), "chat.messages", "1 to 1024"),
    ("many-messages", chat_request(*[("user", "a")] * 1025), "chat.messages", "1 to 1024"),
    (
        "unknown-role",
        chat_request(("user", "a"), ("tool", "b")),
        "chat.messages[1].role",
        '"system", "user" or "assistant"',
    ),
    ("no-parts", with_parts(), "parts.parts", "must not be empty"),
    ("empty-part", with_parts(Part(text="a"), Part()), "parts.parts[1]", "text or a picture"),
    (
        "picture-part",
        with_parts(Part(picture=generation_pb2.InputPicture(data=b"x"))),
        "parts.parts[0].picture",
        "does not read pictures",
    ),
    ("no-ids", with_ids([], POET), "token_ids.ids", "must not be empty"),
    ("id-outside", with_ids([0, 4387], POET), "token_ids.ids[1]", "vocabulary size 4387"),
    ("many-ids", with_ids([1] * 256, POET), "prompt", "at most 255 tokens"),
    ("picture-id-outside", with_ids([10**6], PAINTER), "token_ids.ids[0]", "vocabulary size"),
    (
        "prompt-without-tokenizer",
        text_request("x", model="golden-gpt2-bin"),
        "token_ids",
        "no tokenizer",
    ),
    (
        "stop-without-tokenizer",
        ids_request([1], "golden-gpt2-bin", stop=["a"]),
        "text.stop",
        "no tokenizer",
    ),
]
CASES = (
    [
        (f"{k}={v}"[:40], picture_request(**p), f, d)
        for p, f, d in PICTURES
        for k, v in [list(p.items())[-1]]
    ]
    + [
        (f"{k}={v}"[:40], text_request(**p), f, d)
        for p, f, d in TEXTS
        for k, v in [list(p.items())[-1]]
    ]
    + REQUESTS
)
