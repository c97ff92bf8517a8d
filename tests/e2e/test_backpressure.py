"""A client that does not read parks its own request, and nobody else's."""

import contextlib

import grpc
import pytest
from calls import POET, generate, outputs, picture_request, stream, text_request, write
from observe import until

# A window of a few kilobytes and no growth: what the client does not read soon waits in the server.
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1))


def fat_request(**changes):
    """Much to send for each token: 16 texts with 20 candidates at each place."""
    return text_request(
        **({"n": 16, "logprobs": 20, "max_tokens": 230, "ignore_eos": True, "seed": 1} | changes)
    )


def pages(server):
    return server.metrics().sum("hanmo_kv_pages_used", model=POET)


@contextlib.contextmanager
def unread_stream(server, request):
    """A stream whose client reads the first event and then nothing."""
    call = server.new_generation(*SMALL_WINDOW).GenerateStream(request, timeout=120)
    first = next(call)
    assert first.HasField("queued")
    yield call
    call.cancel()


def wait_parked(server):
    """Its steps stop although it is not done, and with --max-parked its pages come back."""
    until(lambda: pages(server) > 0, "the text begun")
    until(lambda: pages(server) == 0, "its pages given back")
    metrics = server.metrics()
    assert metrics.sum("hanmo_requests_running") + metrics.sum("hanmo_requests_waiting") >= 1


def test_others_go_on_and_the_slow_one_loses_nothing(start_server):
    server = start_server("--max-parked=200ms")
    request = fat_request()
    lone = generate(server, request)
    others = [text_request(seed=i, max_tokens=60) for i in range(6)]
    others += [picture_request(seed=i, steps=6) for i in range(3)]
    expected = [outputs(generate(server, other)) for other in others]
    with unread_stream(server, request) as call:
        wait_parked(server)
        calls = [server.generation.Generate.future(other, timeout=60) for other in others]
        assert [outputs(other.result()) for other in calls] == expected
        assert pages(server) == 0  # the slow one is parked still
        events = list(call)  # it reads on
    assert outputs(events[-1].final) == outputs(lone)
    for index in range(16):
        ids = [
            i
            for event in events
            if event.HasField("text") and event.text.index == index
            for i in event.text.token_ids
        ]
        assert ids == list(lone.outputs[index].text.token_ids)
    server.wait_idle()


def test_a_parked_request_can_be_cancelled(start_server):
    server = start_server("--max-parked=100ms")
    with unread_stream(server, fat_request()):
        wait_parked(server)
    server.wait_idle()
    assert server.metrics().sum("hanmo_cancelled_total", model=POET) == 1


def test_the_deadline_of_a_parked_request_passes(start_server):
    server = start_server("--max-parked=100ms")
    call = server.new_generation(*SMALL_WINDOW).GenerateStream(fat_request(), timeout=3)
    assert next(call).HasField("queued")
    server.wait_idle()
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert server.metrics().sum("hanmo_deadline_missed_total", model=POET) == 1


def test_many_unread_streams_hold_little_memory(start_server):
    """Each may hold its bounded queue and gRPC's window, and no more."""
    server = start_server("--max-parked=100ms")
    before = server.metrics().sum("process_resident_memory_bytes")
    with contextlib.ExitStack() as stack:
        calls = [stack.enter_context(unread_stream(server, fat_request(seed=i))) for i in range(12)]
        wait_parked(server)
        until(lambda: pages(server) == 0, "all parked")
        assert write(server, text_request(seed=3, max_tokens=20)).text
        grown = server.metrics().sum("process_resident_memory_bytes") - before
        print(f"{len(calls)} unread streams hold {grown / 2**20:.1f} MiB")
        assert grown < len(calls) * (4 << 20)
    server.wait_idle()


def test_a_drain_waits_for_a_slow_reader_no_longer_than_its_timeout(start_server):
    server = start_server("--max-parked=100ms", "--shutdown-timeout=1s")
    with unread_stream(server, fat_request()):
        wait_parked(server)
        server.terminate()
        assert server.wait_exit(15) == 0


def test_a_quick_reader_is_never_parked(start_server):
    server = start_server("--max-parked=1ms")
    request = text_request(seed=5, max_tokens=200, ignore_eos=True)
    assert outputs(stream(server, request).final) == outputs(generate(server, request))
