"""SIGTERM and Admin.Drain: nothing that was accepted fails, and the process ends with 0."""

import os
import random
import signal

import grpc
import pytest
from calls import error_details, error_of, generate, picture_request, text_request
from contract import admin_pb2, generation_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hanmo_server import NOT_SERVING, SERVING, is_alive
from mixed_load import assert_equal_outputs, mixed_requests, start_together
from observe import PATIENCE, until

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def accepted(server):
    metrics = server.metrics()
    return metrics.sum("hanmo_requests_running") + metrics.sum("hanmo_requests_waiting")


def wait_taken(server, count):
    """Until so many are accepted or have ended already."""
    ended = 0

    def reached():
        nonlocal ended
        # An end is counted a moment before its request is running no more: those that had ended a
        # while ago are not counted twice.
        enough = accepted(server) + ended >= count
        ended = server.metrics().sum("hanmo_requests_total")
        return enough

    until(reached, "the requests accepted")


def test_sigterm_under_load_fails_no_accepted_request(start_server, mixed_alone):
    server = start_server("--max-running-samples=4")  # so that some still wait
    requests = mixed_requests()
    calls = start_together(server, requests)
    streams = [server.generation.GenerateStream(request, timeout=60) for request in requests[:4]]
    wait_taken(server, len(requests) + 4)
    server.terminate()
    assert_equal_outputs(requests, [call.result() for call in calls], mixed_alone)
    for whole, lone in zip(streams, mixed_alone, strict=False):
        data = b"".join(event.picture.data for event in whole if event.HasField("picture"))
        assert data == lone.outputs[0].picture.data
    assert server.wait_exit() == 0


def test_sigterm_at_any_moment_of_the_load_fails_no_accepted_request(
    start_server, mixed_alone, pytestconfig
):
    """The moment is drawn anew in each round; half of the calls are streams."""
    rounds = 100 if pytestconfig.getoption("--long") else 10
    every = range(1, 24, 3)
    requests = [mixed_requests()[i] for i in every]
    alone = [mixed_alone[i] for i in every]
    draw = random.Random(7)
    for _ in range(rounds):
        # On a busy machine some need longer than the default, and would be refused like late ones.
        server = start_server("--shutdown-timeout=10m")
        calls = start_together(server, requests)
        streams = [server.generation.GenerateStream(one, timeout=PATIENCE) for one in requests]
        wait_taken(server, 2 * len(requests) - 4)
        steps = draw.randrange(60)
        until(
            lambda server=server, steps=steps: (
                server.metrics().sum("hanmo_batch_size_count") >= steps or accepted(server) == 0
            ),
            "the drawn moment",
        )
        server.terminate()
        ended = [error_or(call.result) for call in calls]
        for index, response in enumerate(ended):
            # One that came too late was told so, and nothing was begun for it.
            if isinstance(response, grpc.RpcError):
                assert response.code() == UNAVAILABLE and "RetryInfo" in error_details(response)
            else:
                assert_equal_outputs([requests[index]], [response], [alone[index]])
        for stream, lone in zip(streams, alone, strict=True):
            events = []
            ended.append(error_or(lambda stream=stream, events=events: events.extend(stream)))
            if isinstance(ended[-1], grpc.RpcError):
                # The first event says that the request was accepted.
                assert ended[-1].code() == UNAVAILABLE and not events
            elif lone.outputs[0].HasField("text"):
                assert events[-1].final.outputs[0].text.text == lone.outputs[0].text.text
            else:
                data = b"".join(one.picture.data for one in events if one.HasField("picture"))
                assert data == lone.outputs[0].picture.data
        refused = sum(isinstance(one, grpc.RpcError) for one in ended)
        assert refused <= 4
        assert server.wait_exit() == 0
        assert "aborted" not in server.log()


def error_or(result):
    try:
        return result()
    except grpc.RpcError as error:
        return error


def test_new_requests_are_told_to_go_elsewhere(start_server):
    server = start_server()
    call = server.generation.Generate.future(
        picture_request(steps=100, width=128, height=128), timeout=60
    )
    until(lambda: accepted(server) == 1, "the request accepted")
    states = server.watch()
    assert next(states) == SERVING
    server.terminate()
    assert next(states) == NOT_SERVING
    error = error_of(generate, server, text_request(max_tokens=2))
    assert error.code() == UNAVAILABLE
    assert "RetryInfo" in error_details(error)
    assert call.result().outputs
    assert server.wait_exit() == 0


def test_the_shutdown_delay_keeps_accepting(start_server):
    """Load balancers need a moment to read NOT_SERVING."""
    server = start_server("--shutdown-delay=3s")
    states = server.watch()
    assert next(states) == SERVING
    server.terminate()
    assert next(states) == NOT_SERVING
    assert generate(server, text_request(max_tokens=2)).outputs
    assert generate(server, picture_request()).outputs
    assert server.wait_exit() == 0


def test_the_shutdown_timeout_ends_what_takes_longer(start_server):
    server = start_server("--shutdown-timeout=500ms")
    calls = [
        server.generation.Generate.future(
            picture_request(steps=900, width=256, height=256, seed=i), timeout=60
        )
        for i in range(2)
    ]
    until(lambda: accepted(server) == 2, "the requests accepted")
    server.terminate()
    for call in calls:
        assert call.exception().code() == UNAVAILABLE
    assert server.wait_exit(10) == 0
    assert "aborted" in server.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(start_server, number):
    server = start_server("--shutdown-timeout=1h")
    pids = server.worker_pids()
    call = server.generation.Generate.future(
        picture_request(steps=900, width=256, height=256), timeout=60
    )
    until(lambda: accepted(server) == 1, "the request accepted")
    states = server.watch()
    assert next(states) == SERVING
    server.terminate()
    assert next(states) == NOT_SERVING
    os.kill(server.process.pid, number)
    assert server.wait_exit(10) == -number
    assert call.exception().code() == UNAVAILABLE
    for pid in pids:
        until(lambda pid=pid: not is_alive(pid), "the worker's end")


def test_an_idle_server_ends_quickly_and_so_do_its_workers(start_server):
    server = start_server("--workers=2")
    pids = server.worker_pids()
    server.terminate()
    assert server.wait_exit(10) == 0
    assert not [pid for pid in pids if is_alive(pid)]


def test_sigterm_while_models_load(start_server):
    server = start_server(serving=False)
    server.terminate()
    assert server.wait_exit(10) == 0


def test_sigterm_while_a_worker_is_dead(start_server):
    server = start_server()
    (pid,) = server.worker_pids()
    os.kill(pid, signal.SIGKILL)
    server.terminate()
    assert server.wait_exit(10) == 0


def test_an_idle_connection_does_not_hold_the_server(start_server):
    """Clients that keep their channels and watches open do not delay the end."""
    server = start_server()
    stubs = [generation_pb2_grpc.GenerationStub(server.new_channel()) for _ in range(3)]
    for stub in stubs:
        assert stub.Generate(text_request(max_tokens=1), timeout=60)
    states = server.watch(timeout=60)
    assert next(states) == SERVING
    server.terminate()
    assert server.wait_exit(10) == 0


def test_drain_tells_how_far_it_is(start_server):
    server = start_server(admin=True)
    call = server.generation.Generate.future(
        picture_request(steps=60, width=128, height=128), timeout=PATIENCE
    )
    until(lambda: server.metrics().sum("hanmo_requests_running") == 1, "a running request")
    plain = health_pb2_grpc.HealthStub(grpc.insecure_channel(server.health_address))

    def check(service):
        request = health_pb2.HealthCheckRequest(service=service)
        return plain.Check(request, timeout=PATIENCE).status

    assert check("readiness") == check("liveness") == SERVING
    progress = list(server.new_admin().Drain(admin_pb2.DrainRequest(), timeout=PATIENCE))
    assert call.result().outputs
    assert progress[0].calls == 1 and not progress[0].refusing
    assert progress[-1].calls == 0 and progress[-1].refusing
    assert check("readiness") == NOT_SERVING and check("liveness") == SERVING
    assert error_of(generate, server, picture_request()).code() == UNAVAILABLE
    server.terminate()
    assert server.wait_exit() == 0
