"""hanmo-gateway with OpenAI's own client: the texts and pictures of gRPC, streams, errors."""

import base64
import json
import threading

import openai
import pytest
from calls import (
    LANDSCAPE,
    PAINTER,
    POEM,
    POET,
    chat_request,
    paint,
    picture_request,
    pixels,
    text_request,
    write,
)
from http_gateway import openai_client

QUESTION = [{"role": "user", "content": POEM}]
SMALL = {"size": "64x64", "extra_body": {"steps": 4, "seed": 3}}


@pytest.fixture(scope="module")
def client(gateway):
    with openai_client(gateway) as one:
        yield one


def test_models(client):
    names = [model.id for model in client.models.list()]
    assert PAINTER in names and POET in names and names == sorted(names)
    assert client.models.retrieve(POET).id == POET
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("nobody")
    assert error.value.code == "model_not_found"


def test_chat_is_what_grpc_gives(client, server):
    answer = client.chat.completions.create(
        model=POET, messages=QUESTION, seed=7, max_completion_tokens=60
    )
    text = write(server, chat_request(("user", POEM), seed=7, max_tokens=60))
    (choice,) = answer.choices
    assert choice.message.content == text.text and choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length") and choice.logprobs is None
    assert answer.usage.completion_tokens == len(text.token_ids)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + len(text.token_ids)
    assert answer.system_fingerprint == f"{POET}:1"


def test_chat_streams_the_same_text(client):
    request = {"model": POET, "messages": QUESTION, "seed": 7, "n": 2, "max_tokens": 40}
    whole = client.chat.completions.create(**request)
    texts, ends, usage = ["", ""], {}, None
    with client.chat.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    ) as chunks:
        for chunk in chunks:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    ends[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert texts[0] != texts[1]


def test_a_conversation_goes_on_from_an_answer(client):
    answer = client.chat.completions.create(model=POET, messages=QUESTION, max_tokens=8)
    turns = [*QUESTION, answer.choices[0].message, *QUESTION]
    assert client.chat.completions.create(model=POET, messages=turns, max_tokens=8).choices


def test_chats_of_a_form(client):
    schema = {
        "type": "object",
        "properties": {"诗": {"type": "string", "maxLength": 8}},
        "required": ["诗"],
        "additionalProperties": False,
    }
    named = {"name": "poem", "strict": True, "schema": schema}
    answer = client.chat.completions.create(
        model=POET,
        messages=QUESTION,
        seed=7,
        response_format={"type": "json_schema", "json_schema": named},
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"诗"}
    assert answer.choices[0].finish_reason == "stop"
    for extra in ({"guided_choice": ["是", "否"]}, {"structured_outputs": {"regex": "是|否"}}):
        answer = client.chat.completions.create(model=POET, messages=QUESTION, extra_body=extra)
        assert answer.choices[0].message.content in ("是", "否")
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=POET, prompt="山", extra_body={"guided_regex": "("})
    assert error.value.param == "guided_regex" and "unclosed" in str(error.value)


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_of_chats_spell_the_text(client, stream):
    answer = client.chat.completions.create(
        model=POET,
        messages=QUESTION,
        seed=7,
        max_tokens=30,
        logprobs=True,
        top_logprobs=2,
        stream=stream,
        extra_body={"ignore_eos": True, "logit_bias": {"4386": -100}},
    )
    choices = [c for chunk in answer for c in chunk.choices] if stream else answer.choices
    tokens = [token for c in choices if c.logprobs for token in c.logprobs.content]
    text = "".join((c.delta if stream else c.message).content or "" for c in choices)
    assert len(tokens) == 30 and all(len(token.top_logprobs) == 2 for token in tokens)
    spelled = bytes(b for token in tokens for b in token.bytes).decode(errors="ignore")
    assert spelled.startswith(text.rstrip("\ufffd")) and text
    for token in tokens:
        assert token.logprob <= 0
        assert token.top_logprobs[0].logprob >= max(token.logprob, token.top_logprobs[1].logprob)


def test_completions(client, server):
    request = {"model": POET, "prompt": POEM + "\n", "seed": 5, "max_tokens": 40}
    whole = client.completions.create(**request, logprobs=1)
    text = write(server, text_request(seed=5, max_tokens=40))
    (choice,) = whole.choices
    assert choice.text == text.text
    assert len(choice.logprobs.tokens) == len(text.token_ids)
    assert choice.logprobs.text_offset[0] == 0
    with client.completions.create(**request, stream=True) as chunks:
        assert "".join(chunk.choices[0].text for chunk in chunks) == text.text
    stopped = client.completions.create(**request, stop=[text.text[3]]).choices[0]
    assert stopped.text == text.text[: text.text.index(text.text[3])]
    assert stopped.finish_reason == "stop"
    cut = client.completions.create(**request | {"max_tokens": 2}).choices[0]
    assert cut.finish_reason == "length"


def test_completions_of_token_ids(client, gateway, server):
    ids = gateway.call("/hanmo/v1/tokenize", {"model": POET, "text": POEM + "\n"}).json()["ids"]
    answer = client.completions.create(model=POET, prompt=ids, seed=5, max_tokens=20)
    assert answer.choices[0].text == write(server, text_request(seed=5, max_tokens=20)).text


def test_images_are_what_grpc_paints(client, server):
    answer = client.images.generate(model=PAINTER, prompt=LANDSCAPE, n=2, **SMALL)
    assert answer.size == "64x64" and answer.output_format == "png"
    for i, image in enumerate(answer.data):
        picture = paint(server, picture_request(seed=3 + i))
        assert base64.b64decode(image.b64_json) == picture.data and image.seed == 3 + i
    answer = client.images.generate(
        model=PAINTER, prompt=LANDSCAPE, output_format="webp", output_compression=50, **SMALL
    )
    file = base64.b64decode(answer.data[0].b64_json)
    assert file[8:12] == b"WEBP" and pixels(file).shape == (64, 64, 3)


def test_images_stream_with_partial_ones(client, server):
    many = {"size": "64x64", "extra_body": {"steps": 20, "seed": 3}}
    events = list(
        client.images.generate(
            model=PAINTER, prompt=LANDSCAPE, stream=True, partial_images=2, **many
        )
    )
    *partial, whole = events
    assert whole.type == "image_generation.completed"
    assert {event.type for event in partial} == {"image_generation.partial_image"}
    # One that was not sent yet when the next came gave way to it: they are numbered as they are sent.
    assert [event.partial_image_index for event in partial] in ([0, 1], [0])
    assert pixels(base64.b64decode(events[0].b64_json)).size
    assert (
        base64.b64decode(events[-1].b64_json)
        == paint(server, picture_request(seed=3, steps=20)).data
    )


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": 101}, "temperature"),
        ({"n": 17}, "n"),
        ({"max_completion_tokens": 10000}, "max_completion_tokens"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": [""]}, "stop[0]"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
        ({"messages": []}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ],
)
def test_chat_errors_name_the_field(client, change, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**{"model": POET, "messages": QUESTION} | change)
    assert error.value.param == param and param in error.value.message
    assert error.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"size": "65x64"}, "size"),
        ({"size": "large"}, "size"),
        ({"n": 17}, "n"),
        ({"output_compression": 50}, "output_compression"),  # of a PNG
        ({"extra_body": {"steps": 1001}}, "steps"),
        ({"response_format": "url"}, "response_format"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_image_errors_name_the_field(client, change, param, stream):
    request = {"model": PAINTER, "prompt": LANDSCAPE, "stream": stream} | change
    with pytest.raises(openai.BadRequestError) as error:
        client.images.generate(**request)
    assert error.value.param == param


def test_an_unknown_model(client):
    for call, rest in (
        (client.chat.completions.create, {"messages": QUESTION}),
        (client.completions.create, {"prompt": POEM, "stream": True}),
        (client.images.generate, {"prompt": LANDSCAPE}),
    ):
        with pytest.raises(openai.NotFoundError) as error:
            call(model="nobody", **rest)
        assert error.value.code == "model_not_found" and "nobody" in error.value.message


def test_many_streams_at_once(client):
    """Each gets its own text."""
    texts = {}

    def ask(seed):
        request = {"model": POET, "messages": QUESTION, "seed": seed, "max_tokens": 20}
        with client.chat.completions.create(**request, stream=True) as chunks:
            parts = [c.delta.content or "" for chunk in chunks for c in chunk.choices]
        whole = client.chat.completions.create(**request).choices[0].message.content
        texts[seed] = "".join(parts) == whole and whole

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 12 and all(texts.values()) and len(set(texts.values())) > 1
