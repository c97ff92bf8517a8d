"""Clients go away, and deadlines pass: in the queue, between steps, in the middle of a stream. The
place is free within a step, and the figures say what happened."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest
from calls import (
    PAINTER,
    POET,
    error_of,
    generate,
    outputs,
    paint,
    picture_request,
    stream,
    text_request,
)
from contract import ROOT, generation_pb2, models_pb2
from hanmo_server import BIN
from observe import until

CANCELLED, DEADLINE = grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED


def endless(**changes):
    """A picture that takes far longer than a test."""
    return picture_request(**({"steps": 900, "width": 256, "height": 256, "seed": 1} | changes))


def denoised(server):
    return server.metrics().sum("hanmo_batch_size_count", model=PAINTER, step="denoise")


@pytest.fixture(scope="module")
def alone(demo_repository, tmp_path_factory):
    """One place only, and deadlines are not refused: whatever is in it must leave before the next
    can begin."""
    from hanmo_server import Server

    one = Server(
        demo_repository,
        "--max-running-samples=1",
        "--policy=fcfs",
        log=tmp_path_factory.mktemp("alone") / "server.log",
    ).wait_serving()
    yield one
    one.close()


def start_stream(server, request, steps=2, timeout=60):
    """A stream that has done some steps."""
    call = server.generation.GenerateStream(request, timeout=timeout)
    for event in call:
        if event.HasField("step") and event.step.step >= steps:
            return call
        if event.HasField("text"):
            return call
    raise AssertionError("the stream ended")


def assert_slot_is_free_within_a_step(server, steps_when_cancelled):
    """Two steps may be in flight and one more may have been done before the news came."""
    server.wait_idle()
    assert denoised(server) <= steps_when_cancelled + 4
    assert generate(server, picture_request(seed=5)).outputs


def test_cancel_between_steps(alone):
    before = alone.metrics().sum("hanmo_cancelled_total", model=PAINTER)
    call = start_stream(alone, endless())
    call.cancel()
    assert_slot_is_free_within_a_step(alone, denoised(alone))
    assert alone.metrics().sum("hanmo_cancelled_total", model=PAINTER) == before + 1


def test_cancel_of_a_unary_call(alone):
    done = denoised(alone)
    call = alone.generation.Generate.future(endless(), timeout=60)
    until(lambda: denoised(alone) > done + 2, "some steps")
    call.cancel()
    assert_slot_is_free_within_a_step(alone, denoised(alone))


def test_cancel_in_the_queue(alone):
    first = start_stream(alone, endless())
    second = alone.generation.GenerateStream(endless(seed=2), timeout=60)
    position = next(second).queued.position
    assert position == 0  # the next one
    third = alone.generation.GenerateStream(endless(seed=3), timeout=60)
    assert next(third).queued.position == 1
    waiting = lambda: alone.metrics().sum("hanmo_requests_waiting")  # noqa: E731
    until(lambda: waiting() == 2, "two waiting")
    second.cancel()
    until(lambda: waiting() == 1, "one waiting")
    assert next(third).queued.position == 0  # moved up
    third.cancel()
    until(lambda: waiting() == 0, "none waiting")
    assert alone.metrics().sum("hanmo_requests_running") == 1
    assert next(event for event in first if event.HasField("step"))  # undisturbed
    first.cancel()
    alone.wait_idle()


def cancel_by_id(server, request_id):
    return server.generation.Cancel(generation_pb2.CancelRequest(request_id=request_id), timeout=60)


def test_cancel_by_id(alone):
    """From anywhere, waiting or running, and all that bear the id."""
    before = alone.metrics().sum("hanmo_cancelled_total", model=PAINTER)
    running = start_stream(alone, endless(request_id="mine"))
    waiting = alone.generation.Generate.future(endless(seed=2, request_id="mine"), timeout=60)
    other = alone.generation.Generate.future(picture_request(request_id="other"), timeout=60)
    until(lambda: alone.metrics().sum("hanmo_requests_waiting") == 2, "two waiting")
    assert cancel_by_id(alone, "mine").requests == 2
    done = denoised(alone)
    assert error_of(lambda: list(running)).details() == "cancelled by its request id"
    assert waiting.exception().code() == CANCELLED
    assert other.result().outputs  # undisturbed
    assert denoised(alone) <= done + 4 + 4  # those under way, and those of the other
    assert alone.metrics().sum("hanmo_cancelled_total", model=PAINTER) == before + 2
    error = error_of(cancel_by_id, alone, "mine")
    assert error.code() == grpc.StatusCode.NOT_FOUND and "mine" in error.details()
    for bad in ("", "a b", "x" * 129):
        error = error_of(cancel_by_id, alone, bad)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "request_id" in error.details()


def test_cancel_from_the_command_line(alone):
    call = start_stream(alone, endless(request_id="a-long-one"))
    command = [BIN / "hanmo", "cancel", "a-long-one", "--server", alone.address]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "cancelled\n"
    assert error_of(lambda: list(call)).code() == CANCELLED
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode != 0 and "a-long-one" in again.stderr


def test_a_deadline_between_steps(alone):
    before = alone.metrics().sum("hanmo_deadline_missed_total", phase="running")
    call = alone.generation.Generate.future(endless(), timeout=3)
    assert call.exception().code() == DEADLINE
    done = denoised(alone)
    assert_slot_is_free_within_a_step(alone, done)
    until(
        lambda: alone.metrics().sum("hanmo_deadline_missed_total", phase="running") == before + 1,
        "the deadline counted",
    )


def test_a_deadline_in_the_queue(alone):
    before = alone.metrics().sum("hanmo_deadline_missed_total", phase="waiting")
    first = start_stream(alone, endless())
    begin = time.monotonic()
    error = error_of(alone.generation.Generate, picture_request(), timeout=3)
    assert error.code() == DEADLINE and time.monotonic() - begin < 8
    until(
        lambda: alone.metrics().sum("hanmo_deadline_missed_total", phase="waiting") == before + 1,
        "the deadline counted",
    )
    until(lambda: alone.metrics().sum("hanmo_requests_waiting") == 0, "an empty queue")
    first.cancel()
    alone.wait_idle()


def test_fewer_steps_rather_than_no_picture(start_server):
    """Who consents gets what fits the deadline, and is told how much that was."""
    server = start_server()
    big = {"width": 256, "height": 256, "seed": 3}
    for _ in range(2):
        generate(server, picture_request(steps=4, **big))  # now the cost is known
    describe = models_pb2.DescribeModelRequest(name=PAINTER)
    denoise = models_pb2.STEP_KIND_DENOISE

    def costs():
        told = server.models.DescribeModel(describe).step_costs
        return [c for c in told if c.kind == denoise and c.width == 256 and c.steps >= 8]

    (step,) = until(costs, "the costs told")
    patience = 40 * (step.one_row.seconds + 1e-9 * step.one_row.nanos)
    error = error_of(server.generation.Generate, endless(), timeout=patience)
    assert error.code() == DEADLINE and "can't be met" in error.details()
    # The deadline may still pass meanwhile, on a busy machine.
    request = endless(min_steps=2, seed=3)
    with contextlib.suppress(grpc.RpcError):
        response = server.generation.Generate(request, timeout=patience)
        picture = response.outputs[0].picture
        assert 2 <= picture.steps <= 100 and response.usage.steps == picture.steps
        alone = paint(server, picture_request(steps=picture.steps, **big))
        assert alone.data == picture.data


def test_a_deadline_that_cannot_be_met_is_refused_at_once(demo_repository, tmp_path):
    from hanmo_server import Server

    server = Server(demo_repository, log=tmp_path / "server.log").wait_serving()
    try:
        generate(server, picture_request(steps=4, width=256, height=256))  # now the cost is known
        begin = time.monotonic()
        error = error_of(server.generation.Generate, endless(), timeout=2)
        assert error.code() == DEADLINE and "can't be met" in error.details()
        assert time.monotonic() - begin < 1.5
    finally:
        server.close()


def test_a_deadline_that_is_far_does_no_harm(alone):
    request = picture_request(seed=6)
    assert outputs(generate(alone, request, timeout=3600)) == outputs(
        alone.generation.Generate(request)
    )


def test_a_cancel_before_the_message_is_no_bad_request(alone):
    """The server learns of a call and of its end, and of no request between them."""
    before = alone.metrics()
    end = threading.Event()
    send = alone.channel.stream_unary("/hanmo.v1.Generation/Generate")
    call = send.future((b"" for _ in range(1) if not end.wait()), timeout=60)
    alone.describe(PAINTER)  # its answer comes after the headers have gone the same way
    call.cancel()
    end.set()
    ends = lambda metrics: metrics.sum("hanmo_requests_total", model="", code="CANCELLED")  # noqa: E731
    until(lambda: ends(alone.metrics()) == ends(before) + 1, "its end")
    invalid = {"reason": "invalid"}
    refused = alone.metrics().sum("hanmo_rejected_total", **invalid)
    assert refused == before.sum("hanmo_rejected_total", **invalid)


CLIENT = """
import sys; sys.path.insert(0, {folder!r})
import calls, grpc
from contract import generation_pb2_grpc
stub = generation_pb2_grpc.GenerationStub(grpc.insecure_channel({address!r}))
request = calls.picture_request(steps=900, width=256, height=256, seed=1)
for event in stub.GenerateStream(request):
    if event.HasField("step"):
        print(event.step.step, flush=True)
"""


def test_a_client_that_is_killed(alone):
    """kill -9 of another process in the middle of its stream."""
    code = CLIENT.format(folder=str(ROOT / "tests/e2e"), address=alone.address)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as client:
        assert client.stdout.readline().strip()
        os.kill(client.pid, signal.SIGKILL)
        done = denoised(alone)
        assert_slot_is_free_within_a_step(alone, done)


def test_a_cancelled_text_gives_its_pages_back(start_server):
    server = start_server()
    call = start_stream(server, text_request(seed=1, n=16, max_tokens=200, ignore_eos=True))
    assert server.metrics().sum("hanmo_kv_pages_used", model=POET) > 0
    call.cancel()
    server.wait_idle()
    assert server.metrics().sum("hanmo_kv_pages_used") == 0


def test_the_neighbours_of_a_cancelled_request_do_not_notice(start_server):
    server = start_server()
    requests = [picture_request(seed=i, steps=20, width=128, height=128) for i in range(4)]
    alone = [outputs(generate(server, request)) for request in requests]
    calls = [server.generation.Generate.future(request, timeout=60) for request in requests]
    victim = start_stream(server, picture_request(seed=9, steps=200, width=128, height=128))
    victim.cancel()
    assert [outputs(call.result()) for call in calls] == alone


def test_random_cancels_leak_nothing(start_server):
    """At every moment of a request's life; each ends exactly once."""
    server = start_server("--max-running-samples=8", "--workers=1")
    draw = random.Random(7)
    total, started = 150, []
    timers = []
    for i in range(total):
        request = (
            picture_request(seed=i, steps=draw.randint(1, 20), count=draw.randint(1, 3))
            if i % 2
            else text_request(seed=i, max_tokens=draw.randint(1, 150), n=draw.randint(1, 4))
        )
        if i % 3 == 0:
            call = server.generation.Generate.future(request, timeout=draw.uniform(0.001, 1))
        else:
            call = server.generation.Generate.future(request, timeout=60)
            timers.append(threading.Timer(draw.uniform(0, 1.5), call.cancel))
            timers[-1].start()
        started.append(call)
    for timer in timers:
        timer.join()
    for call in started:
        with contextlib.suppress(grpc.FutureCancelledError):
            error = call.exception()
            # Refused at once, some of them: behind the others they would be late.
            late = error is not None and "the deadline can't be met" in error.details()
            assert error is None or late or error.code() in (CANCELLED, DEADLINE)
    server.wait_idle()
    # What was cancelled before it left this machine never reached the server.
    ended = until(lambda: server.metrics().sum("hanmo_requests_total"), "ends")
    assert ended <= total
    codes = {
        labels["code"] for labels, value in server.metrics().series("hanmo_requests_total") if value
    }
    assert codes <= {"OK", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    alone = generate(server, picture_request(seed=1, steps=8))
    assert stream(server, picture_request(seed=1, steps=8)).picture() == (
        alone.outputs[0].picture.data
    )
