"""The Python client: its results are the contract's, leaving it frees the server, it tries again when
that helps, and its wheel runs the examples of its README with the oldest and the newest libraries."""

import asyncio
import contextlib
import gc
import io
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent import futures

import contract
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
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from hanmo.v1 import generation_pb2, generation_pb2_grpc
from hanmo_server import Server, clean_environment
from observe import PATIENCE, until
from PIL import Image

import hanmo

PROMPT = POEM + "\n"
SMALL = {"width": 64, "height": 64, "steps": 4}
ENDLESS = {"width": 256, "height": 256, "steps": 900, "seed": 1}
NEVER = hanmo.RetryPolicy(max_attempts=1)


@pytest.fixture(scope="module")
def client(server):
    with hanmo.Client(server.address, timeout=PATIENCE) as one:
        yield one


@pytest.fixture(scope="module")
def tiny(demo_repository, tmp_path_factory):
    """One picture is painted, one waits, and no more."""
    one = Server(
        demo_repository,
        "--max-running-samples=1",
        "--max-queued-requests=1",
        "--policy=fcfs",
        log=tmp_path_factory.mktemp("tiny") / "server.log",
    ).wait_serving()
    yield one
    one.close()


def run(main, patience=PATIENCE):
    """Runs a coroutine; one that hangs is a failure."""
    return asyncio.run(asyncio.wait_for(main, patience))


def cancelled(server):
    return server.metrics().sum("hanmo_cancelled_total", model=PAINTER)


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
    assert len(steps) >= 4  # the sampler may need more calls of the model
    assert [(e.step, e.steps) for e in steps] == [(i + 1, len(steps)) for i in range(len(steps))]
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


# Leaving.


def begin(stream):
    """Reads until the picture has a step behind it."""
    assert any(isinstance(event, hanmo.StepDone) for event in stream)
    return stream


def leave_block(client):
    with client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS) as stream:
        begin(stream)
    assert list(stream) == []
    with pytest.raises(RuntimeError, match="closed before its end"):
        stream.result()


def drop(client):
    begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    gc.collect()


def cancel_by_id(client):
    stream = begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    assert client.cancel(stream.request_id) == 1
    with pytest.raises(hanmo.RequestCancelledError, match="by its request id"):
        stream.result()


def close_in_another_thread(client):
    stream = begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    closer = threading.Thread(target=stream.close)
    closer.start()
    with contextlib.suppress(hanmo.RequestCancelledError):  # unless it was closed before the read
        for _ in stream:
            pass
    closer.join()


@pytest.mark.parametrize("leave", [leave_block, drop, cancel_by_id, close_in_another_thread])
def test_leaving_cancels_on_the_server(tiny, leave):
    before = cancelled(tiny)
    with hanmo.Client(tiny.address, timeout=PATIENCE) as client:
        leave(client)
        tiny.wait_idle()
        assert cancelled(tiny) == before + 1


async def async_leave_block(client):
    async with client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS) as stream:
        await async_begin(stream)
    assert [event async for event in stream] == []


async def async_drop(client):
    await async_begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    gc.collect()


async def async_cancel_by_id(client):
    stream = await async_begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    assert await client.cancel(stream.request_id) == 1
    with pytest.raises(hanmo.RequestCancelledError, match="by its request id"):
        await stream.result()


async def async_cancel_reader(client):
    stream = await async_begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    reader = asyncio.create_task(stream.result())
    await asyncio.sleep(0)  # it waits for the next event
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader


async def async_close_while_reading(client):
    stream = await async_begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    reader = asyncio.create_task(stream.result())
    await asyncio.sleep(0)
    stream.close()
    with pytest.raises((hanmo.RequestCancelledError, RuntimeError)):
        await reader


async def async_begin(stream):
    async for event in stream:
        if isinstance(event, hanmo.StepDone):
            return stream
    raise AssertionError("the stream ended")


@pytest.mark.parametrize(
    "leave",
    [
        async_leave_block,
        async_drop,
        async_cancel_by_id,
        async_cancel_reader,
        async_close_while_reading,
    ],
)
def test_leaving_cancels_on_the_server_with_asyncio(tiny, leave):
    before = cancelled(tiny)

    async def main():
        async with hanmo.AsyncClient(tiny.address, timeout=PATIENCE) as client:
            await leave(client)
            await asyncio.to_thread(tiny.wait_idle)
            assert cancelled(tiny) == before + 1

    run(main())


def test_a_cancelled_task_cancels_its_request(tiny):
    before = cancelled(tiny)

    async def main():
        async with hanmo.AsyncClient(tiny.address, timeout=PATIENCE) as client:
            task = asyncio.create_task(client.generate_picture(PAINTER, LANDSCAPE, **ENDLESS))
            running = lambda: tiny.metrics().sum("hanmo_requests_running") == 1  # noqa: E731
            await asyncio.to_thread(until, running, "it runs")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(tiny.wait_idle)
            assert cancelled(tiny) == before + 1

    run(main())


def test_a_deadline_passes(tiny):
    with hanmo.Client(tiny.address) as client:
        with pytest.raises(hanmo.DeadlineExceededError):
            client.generate_picture(PAINTER, LANDSCAPE, timeout=0.3, **ENDLESS)
        with pytest.raises(hanmo.DeadlineExceededError):
            client.stream_picture(PAINTER, LANDSCAPE, timeout=0.3, **ENDLESS).result()
    tiny.wait_idle()


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


# Trying again.


@contextlib.contextmanager
def full(server, steps):
    """One is painted and one waits; whoever comes is refused, and told to come back when these would
    be done."""
    options = ENDLESS | {"steps": steps}
    with hanmo.Client(server.address, timeout=PATIENCE) as client, contextlib.ExitStack() as stack:
        begin(stack.enter_context(client.stream_picture(PAINTER, LANDSCAPE, **options)))
        waiting = stack.enter_context(client.stream_picture(PAINTER, LANDSCAPE, **options))
        assert isinstance(next(waiting), hanmo.Queued)
        yield
    server.wait_idle()


def rejected(server):
    return server.metrics().sum("hanmo_rejected_total", reason="queue_full")


@pytest.mark.parametrize("kind", ["sync", "stream", "asyncio"])
def test_a_full_server_is_tried_again_when_it_says(tiny, kind):
    def call():
        options = {"seed": 1, **SMALL}
        if kind == "asyncio":

            async def main():
                async with hanmo.AsyncClient(tiny.address, timeout=PATIENCE) as client:
                    return await client.generate_picture(PAINTER, LANDSCAPE, **options)

            return run(main())
        with hanmo.Client(tiny.address, timeout=PATIENCE) as client:
            if kind == "stream":
                return client.stream_picture(PAINTER, LANDSCAPE, **options).result()
            return client.generate_picture(PAINTER, LANDSCAPE, **options)

    with futures.ThreadPoolExecutor() as pool:
        with full(tiny, steps=40):
            with hanmo.Client(tiny.address, timeout=PATIENCE, retry=NEVER) as client:
                with pytest.raises(hanmo.ResourceExhaustedError) as error:
                    client.generate_picture(PAINTER, LANDSCAPE, **SMALL)
            before, begun = rejected(tiny), time.monotonic()
            result = pool.submit(call)
            until(lambda: rejected(tiny) > before, "a refusal")
        data = result.result(PATIENCE).picture.data
        waited = time.monotonic() - begun
    assert rejected(tiny) == before + 1
    # It could have been served at once, and came when it was told to: a little later, the wait is
    # predicted a little shorter.
    assert waited > error.value.retry_delay.total_seconds() / 2
    assert data == paint(tiny, picture_request(seed=1)).data


def test_a_wait_that_would_pass_the_deadline_is_not_begun(tiny):
    with full(tiny, steps=900), hanmo.Client(tiny.address) as client:
        before = rejected(tiny)
        begun = time.monotonic()
        with pytest.raises(hanmo.ResourceExhaustedError) as error:
            client.generate_picture(PAINTER, LANDSCAPE, timeout=0.9, **SMALL)
        assert error.value.retry_delay.total_seconds() >= 1 and error.value.attempts == 1
        assert time.monotonic() - begun < 0.9
        assert rejected(tiny) == before + 1


def test_nobody_there():
    policy = hanmo.RetryPolicy(max_attempts=3, initial_backoff=0.01)
    with hanmo.Client("localhost:1", timeout=PATIENCE, retry=policy) as client:
        with pytest.raises(hanmo.UnavailableError) as error:
            client.list_models()
        assert error.value.attempts == 3


class Scripted(generation_pb2_grpc.GenerationServicer):
    """Ends calls as told, one after the other, and then answers."""

    def __init__(self):
        self.script = []
        self.calls = 0

    def _act(self, context):
        self.calls += 1
        if self.script:
            code, trailers = self.script.pop(0)
            context.set_trailing_metadata(trailers)
            context.abort(code, "as told")

    def Generate(self, request, context):
        self._act(context)
        output = generation_pb2.Output(text=generation_pb2.Text(text=request.request_id))
        return generation_pb2.GenerateResponse(outputs=[output])

    def GenerateStream(self, request, context):
        if request.prompt == "begin":
            yield generation_pb2.GenerateStreamResponse(queued={"request_id": request.request_id})
        self._act(context)
        yield generation_pb2.GenerateStreamResponse(final=self.Generate(request, context))


@pytest.fixture(scope="module")
def scripted():
    service = Scripted()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    generation_pb2_grpc.add_GenerationServicer_to_server(service, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    with hanmo.Client(
        f"localhost:{port}",
        timeout=PATIENCE,
        retry=hanmo.RetryPolicy(max_attempts=4, initial_backoff=0.01, jitter=0),
    ) as client:
        yield service, client
    server.stop(None).wait(PATIENCE)


def retry_info(milliseconds):
    info = error_details_pb2.RetryInfo(
        retry_delay=duration_pb2.Duration(nanos=milliseconds * 10**6)
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0])
    status.details.add().Pack(info)
    return ("grpc-status-details-bin", status.SerializeToString())


def pushback(milliseconds):
    return ("grpc-retry-pushback-ms", str(milliseconds))


UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "code, trailers, attempts, seconds",
    [
        (UNAVAILABLE, [], 4, 0.07),  # 10, 20 and 40 ms
        (UNAVAILABLE, [pushback(30)], 4, 0.09),
        (EXHAUSTED, [retry_info(30)], 4, 0.09),
        (EXHAUSTED, [retry_info(10), pushback(30)], 4, 0.09),
        (EXHAUSTED, [], 1, 0),  # nobody said that it helps
        (UNAVAILABLE, [pushback(-1)], 1, 0),
        (UNAVAILABLE, [retry_info(10), pushback("never")], 1, 0),
        (UNAVAILABLE, [("grpc-status-details-bin", b"\xff")], 4, 0.07),
        (grpc.StatusCode.INTERNAL, [retry_info(1)], 1, 0),
        (grpc.StatusCode.ABORTED, [], 1, 0),
        (grpc.StatusCode.DEADLINE_EXCEEDED, [], 1, 0),
    ],
)
def test_what_is_tried_again_and_when(scripted, code, trailers, attempts, seconds):
    service, client = scripted
    for call in (client.generate_text, lambda *a: client.stream_text(*a).result()):
        service.script, service.calls = [(code, trailers)] * 5, 0
        begun = time.monotonic()
        with pytest.raises(hanmo.HanmoError) as error:
            call("any", "prompt")
        assert error.value.code == code and error.value.message == "as told"
        assert service.calls == error.value.attempts == attempts
        assert time.monotonic() - begun >= seconds
    service.script = [(code, trailers)] * 5
    if attempts > 1:
        service.script = service.script[:2]
        assert len(client.generate_text("any", "prompt").text) == 32  # the id that it drew


def test_a_stream_that_began_is_not_tried_again(scripted):
    service, client = scripted
    service.script, service.calls = [(UNAVAILABLE, [])], 0
    with pytest.raises(hanmo.UnavailableError) as error:
        client.stream_text("any", "begin").result()
    assert service.calls == error.value.attempts == 1


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


# The wheel.

SOURCE = contract.ROOT / "clients/python"
README = (SOURCE / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", README, re.M | re.S)


@pytest.fixture(scope="module")
def wheel_python(tmp_path_factory):
    """The interpreter of a fresh environment that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    subprocess.run([*pip, *build, folder / "source"], check=True, timeout=PATIENCE)
    (wheel,) = folder.glob("hanmo_client-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    install = ["--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run([*pip, *install], check=True, timeout=PATIENCE)
    return python


@pytest.mark.parametrize("libraries", ["oldest", "newest"])
def test_the_wheel_runs_the_examples(server, wheel_python, libraries, tmp_path):
    """Those of the README, with both ends of the libraries that pyproject.toml allows."""
    oldest = contract.ROOT / ".deps/client-oldest"
    assert oldest.is_dir(), "scripts/setup installs it"
    newest = os.path.dirname(os.path.dirname(grpc.__file__))
    path = {"oldest": str(oldest), "newest": newest}[libraries]
    environment = clean_environment(PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1")
    assert len(EXAMPLES) == 6

    def python(program):
        done = subprocess.run(
            [wheel_python, "-W", "error", "-c", program],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = python("import hanmo, grpc; print(hanmo.__file__, grpc.__version__)").split()
    assert found[0].startswith(str(wheel_python.parents[1]))
    assert (found[1] == "1.60.0") == (libraries == "oldest")
    said = [python(program.replace("localhost:8001", server.address)) for program, _ in EXAMPLES]
    for (_, expected), output in zip(EXAMPLES, said, strict=True):
        assert output == (expected or output) != ""
    _, form, streams, _, models, errors = said
    assert form.strip()
    assert "春山未有日" in streams and "preview after step 2" in streams
    assert "taiyi-sd-tiny ready text_to_picture" in models and models.endswith("秋山\n")
    assert "picture.width - " in errors and "picture.steps - " in errors
    assert Image.open(tmp_path / "mountain.png").size and Image.open(tmp_path / "boat.png").size
