"""Sixteen different pictures and eight sampled texts, alone and together."""

import time

from calls import generate, outputs, picture_request, text_request
from observe import PATIENCE

PROMPTS = (
    "江上孤舟，远处青山两座",
    "岸边一株古松，天上圆月",
    "秋山，飞鸟，黄昏",
    "春天，杨柳，一座山",
)
VERSES = (
    "春山未有日，秋水又逢秋。\n万里秋山远，孤云绕水浮。\n江上孤舟去，天边一雁飞。\n"
    "明月照高楼，清风满客衣。\n"
)
SAMPLERS = ("ddim", "pndm", "euler", "euler_a", "dpmpp_2m", "lcm", "unipc")


def mixed_requests():
    """Everything that may differ within a batch does; the sizes are equal, as a batch needs."""
    pictures = [
        picture_request(
            PROMPTS[i % 4],
            negative_prompt="",
            seed=100 + i,
            steps=6 + (5 * i) % 13,
            sampler=SAMPLERS[i % 7],
            guidance=(4.0, 1.0, 7.5)[i % 3],
            width=128,
            height=128,
            request_id=f"picture-{i}",
        )
        for i in range(16)
    ]
    texts = [
        text_request(
            f"{PROMPTS[i % 4]}\n",
            seed=200 + i,
            max_tokens=40 + 10 * i,
            temperature=0.7 + 0.1 * i,
            ignore_eos=True,
            request_id=f"text-{i}",
        )
        for i in range(8)
    ]
    return pictures + texts


def texts_that_repeat():
    """Some begin alike, some repeat themselves, some do both."""
    drawn = [
        text_request(
            VERSES + ending,
            seed=i,
            n=1 + i % 3,
            max_tokens=30 + 7 * i,
            temperature=(0.0, 0.4, 1.0)[i % 3],
            repetition_penalty=(1.0, 1.2)[i % 2],
            logprobs=2,
            ignore_eos=i % 4 == 0,
        )
        for i, ending in enumerate(("", "春", "春山", "江上", "江上孤", "明月照高"))
    ]
    # Copies what it has read.
    biased = text_request(VERSES * 2 + "春山", seed=9, max_tokens=60, temperature=0.2, logprobs=0)
    return [*drawn, biased, text_request("一", seed=3, max_tokens=120, ignore_eos=True)]


def run_alone(server, requests):
    """Responses one after another, and the seconds they took."""
    start = time.monotonic()
    responses = [generate(server, request) for request in requests]
    return responses, time.monotonic() - start


def start_together(server, requests, timeout=2 * PATIENCE):
    """All at once; futures of the responses, in order."""
    return [server.generation.Generate.future(request, timeout=timeout) for request in requests]


def assert_equal_outputs(requests, responses, alone):
    different = [
        request.request_id
        for request, response, lone in zip(requests, responses, alone, strict=True)
        if outputs(response) != outputs(lone)
    ]
    assert not different
