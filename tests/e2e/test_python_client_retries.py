"""The Python client tries again when that helps, and when it was told to."""

import contextlib
import time
from concurrent import futures

import grpc
import pytest
from calls import LANDSCAPE, PAINTER, paint, picture_request
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from hanmo.v1 import generation_pb2, generation_pb2_grpc
from observe import PATIENCE, until
from python_calls import ENDLESS, NEVER, SMALL, begin, run

import hanmo


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
def test_a_full_server_is_tried_again_when_it_says(tiny_server, kind):
    def call():
        options = {"seed": 1, **SMALL}
        if kind == "asyncio":

            async def main():
                async with hanmo.AsyncClient(tiny_server.address, timeout=PATIENCE) as client:
                    return await client.generate_picture(PAINTER, LANDSCAPE, **options)

            return run(main())
        with hanmo.Client(tiny_server.address, timeout=PATIENCE) as client:
            if kind == "stream":
                return client.stream_picture(PAINTER, LANDSCAPE, **options).result()
            return client.generate_picture(PAINTER, LANDSCAPE, **options)

    with futures.ThreadPoolExecutor() as pool:
        with full(tiny_server, steps=40):
            with hanmo.Client(tiny_server.address, timeout=PATIENCE, retry=NEVER) as client:
                with pytest.raises(hanmo.ResourceExhaustedError) as error:
                    client.generate_picture(PAINTER, LANDSCAPE, **SMALL)
            before, begun = rejected(tiny_server), time.monotonic()
            result = pool.submit(call)
            until(lambda: rejected(tiny_server) > before, "a refusal")
        data = result.result(PATIENCE).picture.data
        waited = time.monotonic() - begun
    assert rejected(tiny_server) == before + 1
    # It could have been served at once, and came when it was told to: a little later, the wait is
    # predicted a little shorter.
    assert waited > error.value.retry_delay.total_seconds() / 2
    assert data == paint(tiny_server, picture_request(seed=1)).data


def test_a_wait_that_would_pass_the_deadline_is_not_begun(tiny_server):
    with full(tiny_server, steps=900), hanmo.Client(tiny_server.address) as client:
        before = rejected(tiny_server)
        begun = time.monotonic()
        with pytest.raises(hanmo.ResourceExhaustedError) as error:
            client.generate_picture(PAINTER, LANDSCAPE, timeout=4, **SMALL)
        assert error.value.retry_delay.total_seconds() >= 4 and error.value.attempts == 1
        assert time.monotonic() - begun < 4
        assert rejected(tiny_server) == before + 1


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
