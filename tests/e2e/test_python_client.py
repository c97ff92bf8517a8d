"""The Python client: its results are the contract's, its errors name the fields, asyncio gives the
same, and TLS."""

import asyncio
import io

import grpc
import pytest
from calls import (
    LANDSCAPE,
    PAINTER,
    POEM,
    POET,
    generate,
    paint,
    picture_request,
    text_request,
    write,
)
from certificates import Authority
from observe import PATIENCE
from PIL import Image
from python_calls import NEVER, SMALL, run

import hanmo

PROMPT = POEM + "\n"


@pytest.fixture(scope="module")
def client(server):
    with hanmo.Client(server.address, timeout=PATIENCE) as one:
        yield one


# Results.


def test_a_text_and_its_log_probabilities(server, client):
    options = {"seed": 4, "max_tokens": 12, "n": 2, "logprobs": 3}
    raw = generate(server, text_request(prompt=PROMPT, **options))
    result = client.generate_text(POET, PROMPT, request_id="mine", **options)
    assert result.request_id == "mine" and result.model == POET and result.version == 1
    assert result.usage.completion_tokens == raw.usage.completion_tokens
    assert result.timings.total >= result.timings.first_output > result.timings.queue
    assert len(result.texts) == len(raw.outputs) == 2
    for text, output in zip(result.texts, raw.outputs, strict=True):
        expected = output.text
        assert (text.index, text.text, text.seed) == (output.index, expected.text, expected.seed)
        assert text.token_ids == tuple(expected.token_ids)
        assert text.finish_reason.name in ("EOS", "LENGTH")
        assert text.finish_reason == hanmo.FinishReason(text.finish_reason.value)
        assert [p.id for p in text.logprobs] == list(text.token_ids)
        assert [[t.logprob for t in p.top] for p in text.logprobs] == [
            [t.logprob for t in p.top] for p in expected.logprobs
        ]
    assert result.text == str(result) == raw.outputs[0].text.text


def test_every_way_to_ask(server, client):
    chat = client.generate_text(POET, messages=[{"role": "user", "content": POEM}], seed=2)
    assert chat.text == "春山未有日，秋水又逢秋。\n万里秋山远，孤云绕水浮。"
    with pytest.raises(hanmo.InvalidArgumentError, match=r"chat\.thinking"):
        client.generate_text(POET, messages=[{"role": "user", "content": POEM}], thinking=True)
    with pytest.raises(TypeError, match="thinking needs messages"):
        client.generate_text(POET, PROMPT, thinking=False)
    whole = client.generate_text(POET, PROMPT, seed=4)
    ids = client.tokenize(POET, PROMPT)
    assert client.detokenize(POET, ids) == PROMPT
    assert client.generate_text(POET, token_ids=ids, seed=4).text == whole.text
    digits = client.generate_text(POET, PROMPT, seed=4, regex="[0-9]{3}")
    assert len(digits.text) == 3 and digits.text.isdecimal()
    assert client.generate_text(POET, PROMPT, choice=["是", "否"]).text in ("是", "否")
    assert client.generate_text(POET, PROMPT, json_schema={"enum": ["山"]}).text == '"山"'
    assert client.generate_text(POET, PROMPT, grammar='start: "山"').text == "山"
    stopped = client.generate_text(POET, PROMPT, seed=4, stop="，")
    assert stopped.text == whole.text.partition("，")[0]
    assert stopped.texts[0].finish_reason == hanmo.FinishReason.STOP
    assert stopped.texts[0].stop_reason == "，"
    # Neither demo model reads pictures; the server says so, and knows all the forms by then.
    file = io.BytesIO()
    image = Image.new("RGB", (8, 8))
    image.save(file, "PNG")
    for picture in (file.getvalue(), image):
        with pytest.raises(hanmo.InvalidArgumentError) as error:
            client.generate_text(POET, parts=["画里是什么？", picture])
        (violation,) = error.value.violations
        assert violation.field == "parts.parts[1].picture"
        with pytest.raises(hanmo.InvalidArgumentError) as error:
            client.caption(POET, picture, "画里有", n=2)
        (violation,) = error.value.violations
        assert violation.field == "parts.parts[0].picture"
    with pytest.raises(TypeError, match="not str"):
        client.caption(POET, "boat.png")


def test_pictures(server, client, tmp_path):
    parameters = {"seed": 7, "count": 2, **SMALL}
    raw = generate(server, picture_request(prompt=LANDSCAPE, **parameters))
    result = client.generate_picture(PAINTER, LANDSCAPE, **parameters)
    assert [p.data for p in result.pictures] == [o.picture.data for o in raw.outputs]
    assert [(p.index, p.seed, p.steps) for p in result.pictures] == [(0, 7, 4), (1, 8, 4)]
    assert result.usage.pictures == 2 and result.usage.device_time.total_seconds() > 0
    result.picture.save(tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes() == raw.outputs[0].picture.data
    assert result.picture.image().size == (64, 64)
    jpeg = client.generate_picture(PAINTER, LANDSCAPE, format="jpeg", quality=80, **SMALL)
    assert jpeg.picture.format == hanmo.PictureFormat.JPEG
    assert jpeg.picture.image().format == "JPEG"


def test_streams(server, client):
    with client.stream_text(POET, PROMPT, seed=4, n=2, logprobs=0) as stream:
        events = list(stream)
    assert isinstance(events[0], hanmo.Queued) and events[0].request_id == stream.request_id
    result = stream.result()
    assert events[-1] is result
    assert result.text == write(server, text_request(prompt=PROMPT, seed=4)).text
    for text in result.texts:
        deltas = [e for e in events if isinstance(e, hanmo.TextDelta) and e.index == text.index]
        assert "".join(delta.text for delta in deltas) == text.text
        assert tuple(i for delta in deltas for i in delta.token_ids) == text.token_ids
        assert tuple(p for delta in deltas for p in delta.logprobs) == text.logprobs

    options = {"seed": 7, **SMALL}
    with client.stream_picture(PAINTER, LANDSCAPE, preview_every_steps=2, **options) as stream:
        events = list(stream)
    steps = [e for e in events if isinstance(e, hanmo.StepDone)]
    # The sampler may need more calls of the model; a step may be overtaken by the next.
    assert {e.steps for e in steps} == {steps[-1].step} and steps[-1].step >= 4
    assert [e.step for e in steps] == sorted({e.step for e in steps})
    assert any(e.image().format == "JPEG" for e in events if isinstance(e, hanmo.Preview))
    (file,) = (e for e in events if isinstance(e, hanmo.PictureFile))
    assert file.data == stream.result().picture.data
    assert file.data == paint(server, picture_request(prompt=LANDSCAPE, seed=7)).data


def test_models(client):
    models = {model.name: model for model in client.list_models()}
    assert models[PAINTER].tasks == (hanmo.Task.TEXT_TO_PICTURE,)
    assert models[POET].state == hanmo.ModelState.READY
    assert [(v.version, v.is_default) for v in models[POET].versions] == [(1, True)]
    painter, poet = client.describe_model(PAINTER), client.describe_model(POET, version=1)
    assert painter.picture.default_sampler in painter.picture.samplers and painter.text is None
    assert poet.text.has_chat_template and poet.text.eos_token_ids and poet.picture is None
    assert client.generate_text(POET, PROMPT, version=1, max_tokens=1).version == 1
    for version in (2, "canary"):
        with pytest.raises(hanmo.NotFoundError):
            client.generate_text(POET, PROMPT, version=version)
    with pytest.raises(hanmo.NotFoundError) as error:
        client.describe_model("nobody")
    assert error.value.code == grpc.StatusCode.NOT_FOUND and "nobody" in error.value.message
    assert isinstance(error.value.__cause__, grpc.RpcError)


def test_whose_request_it_is(start_server):
    """Tenant, priority and metadata of the client hold where the call has none of its own."""
    server = start_server("--tenant-weight=tang=2")
    with hanmo.Client(server.address, timeout=PATIENCE, tenant="tang", priority=101) as client:
        with pytest.raises(hanmo.InvalidArgumentError) as error:
            client.generate_text(POET, PROMPT)
        assert [v.field for v in error.value.violations] == ["priority"]
        with pytest.raises(hanmo.InvalidArgumentError) as error:
            client.generate_text(POET, PROMPT, priority=100, tenant="no tenant")
        assert [v.field for v in error.value.violations] == ["tenant"]
        assert client.generate_text(POET, PROMPT, priority=100, max_tokens=1).texts


def test_asyncio_gives_the_same(server, client):
    seeds = range(4)
    alone = [client.generate_text(POET, PROMPT, seed=seed) for seed in seeds]
    picture = client.generate_picture(PAINTER, LANDSCAPE, seed=3, **SMALL)

    async def main():
        async with hanmo.AsyncClient(server.address, timeout=PATIENCE) as one:
            *texts, painted, models, described, ids = await asyncio.gather(
                *(one.generate_text(POET, PROMPT, seed=seed) for seed in seeds),
                one.generate_picture(PAINTER, LANDSCAPE, seed=3, **SMALL),
                one.list_models(),
                one.describe_model(POET),
                one.tokenize(POET, PROMPT),
            )
            assert [text.texts for text in texts] == [text.texts for text in alone]
            assert painted.pictures == picture.pictures
            assert models == client.list_models() and described.text.context_tokens > 0
            assert await one.detokenize(POET, ids) == PROMPT
            async with one.stream_picture(PAINTER, LANDSCAPE, seed=3, **SMALL) as stream:
                kinds = [type(event) async for event in stream]
            assert kinds[0] is hanmo.Queued and kinds[-1] is hanmo.PictureResult
            assert (await stream.result()).pictures == picture.pictures
            with pytest.raises(hanmo.InvalidArgumentError) as error:
                await one.generate_picture(PAINTER, LANDSCAPE, width=63)
            assert [v.field for v in error.value.violations] == ["picture.width"]

    run(main())


# Errors of the caller.


def test_violations_name_the_fields(client):
    with pytest.raises(hanmo.InvalidArgumentError) as error:
        client.generate_picture(PAINTER, LANDSCAPE, width=63, steps=0)
    found = {v.field: v.description for v in error.value.violations}
    assert set(found) == {"picture.width", "picture.steps"}
    assert "63" in str(error.value) or "63" in found["picture.width"]
    assert error.value.attempts == 1 and error.value.retry_delay is None


@pytest.mark.parametrize(
    "options, said",
    [
        ({}, "exactly one of"),
        ({"prompt": "a", "token_ids": [1]}, "exactly one of"),
        ({"prompt": "a", "max_token": 3}, "max_token"),
        ({"prompt": "a", "width": 64}, "width"),
        ({"prompt": "a", "max_tokens": "3"}, "str"),
    ],
)
def test_wrong_arguments_are_type_errors(client, options, said):
    with pytest.raises(TypeError, match=said):
        client.generate_text(POET, **options)


def test_half_a_pair_of_key_and_certificate_is_refused():
    with pytest.raises(ValueError, match="together"):
        hanmo.Tls(certificate="client.pem")


# TLS.


def test_tls_and_mutual_tls(start_server, tmp_path):
    authority = Authority(tmp_path / "authority")
    (key, certificate), (client_key, client_certificate) = map(
        authority.issue, ("server", "client")
    )
    root = authority.certificate
    server = start_server(
        f"--tls-cert={certificate}",
        f"--tls-key={key}",
        f"--tls-client-ca={root}",
        credentials=grpc.ssl_channel_credentials(
            root.read_bytes(), client_key.read_bytes(), client_certificate.read_bytes()
        ),
    )
    tls = hanmo.Tls(ca=root, certificate=client_certificate, key=client_key)
    with hanmo.Client(server.address, tls=tls, timeout=PATIENCE) as client:
        assert client.generate_text(POET, PROMPT, max_tokens=2).texts

    async def main():
        async with hanmo.AsyncClient(server.address, tls=tls, timeout=PATIENCE) as client:
            assert (await client.generate_text(POET, PROMPT, max_tokens=2)).texts

    run(main())
    for stranger in (False, True, hanmo.Tls(ca=root)):
        with hanmo.Client(server.address, tls=stranger, timeout=20, retry=NEVER) as client:
            with pytest.raises(hanmo.UnavailableError):
                client.list_models()
