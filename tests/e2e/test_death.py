"""Workers die in the middle of the load; requests go on and end as if nothing had happened."""

import os
import random
import signal

import grpc
import pytest
from calls import PAINTER, POET, error_of, outputs, picture_request, text_request, write
from contract import models_pb2
from hanmo_server import NOT_SERVING, SERVING, children_named, is_alive
from mixed_load import assert_equal_outputs, mixed_requests, start_together
from observe import until

SAVE_INTERVAL = 5  # the default of --save-interval-steps


def steps_done(server):
    """Of each picture: most steps of the load are texts', and some of the deaths must cost a
    picture its way from the last save point."""
    return server.metrics().sum("hanmo_batch_size_sum", step="denoise")


def kill_workers(server):
    pids = server.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return pids


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_workers_cost_no_request(start_server, mixed_alone, workers, pytestconfig):
    """The moment is drawn anew in each round, over the whole time in which pictures are painted."""
    server = start_server(f"--workers={workers}", "--worker-threads=1")
    requests = mixed_requests()
    draw = random.Random(2026 + workers)
    before = steps_done(server)
    undisturbed = [call.result() for call in start_together(server, requests)]
    assert_equal_outputs(requests, undisturbed, mixed_alone)
    length = steps_done(server) - before
    redone, rounds = 0, 10 if pytestconfig.getoption("--long") else 2
    for round_number in range(1, rounds + 1):
        moment = steps_done(server) + draw.uniform(0.05, 0.8) * length
        calls = start_together(server, requests)
        until(lambda moment=moment: steps_done(server) >= moment, "the drawn moment")
        assert len(kill_workers(server)) == workers
        responses = [call.result() for call in calls]
        assert_equal_outputs(requests, responses, mixed_alone)
        for request, response in zip(requests, responses, strict=True):
            if request.HasField("picture"):
                # What the first of the dead had may have gone to the next.
                assert response.usage.steps_redone <= SAVE_INTERVAL * workers
                extra = request.picture.sampler == "pndm"  # as in diffusers
                assert response.usage.steps == request.picture.steps + extra
            redone += response.usage.steps_redone
        server.wait_idle()
        until(
            lambda n=round_number: (
                server.metrics().sum("hanmo_worker_restarts_total") == n * workers
            ),
            "every worker restarted",
        )
        server.wait_serving(PAINTER)
    assert redone > 0
    assert server.metrics().sum("hanmo_steps_redone_total") == redone


def test_a_worker_that_hangs_up_costs_no_request(start_server, mixed_alone):
    """SIGTERM to the worker instead of SIGKILL: it ends by its own will."""
    server = start_server()
    requests = mixed_requests()
    before = steps_done(server)
    calls = start_together(server, requests)
    until(lambda: steps_done(server) > before + 3, "some steps")
    (pid,) = server.worker_pids()
    os.kill(pid, signal.SIGTERM)
    assert_equal_outputs(requests, [call.result() for call in calls], mixed_alone)


@pytest.mark.parametrize("kind", ["picture", "text"])
def test_poison_ends_alone(start_server, mixed_alone, kind):
    """A request that kills its worker each time ends INTERNAL after the second death; the others
    finish with the bytes of their lone runs."""
    server = start_server("--worker-arg=--fault=abort-on-seed:666@step:3")
    requests = mixed_requests()
    poison = (
        picture_request(seed=666, steps=12, width=128, height=128, guidance=4)
        if kind == "picture"
        else text_request(seed=666, max_tokens=50, ignore_eos=True)
    )
    calls = start_together(server, [*requests[:8], poison, *requests[8:]])
    error = error_of(calls[8].result)
    assert error.code() == grpc.StatusCode.INTERNAL
    survivors = [call.result() for call in calls[:8] + calls[9:]]
    assert_equal_outputs(requests, survivors, mixed_alone)
    server.wait_serving(PAINTER)
    server.wait_idle()
    metrics = server.metrics()
    assert metrics.sum("hanmo_worker_restarts_total") == 2  # it was not tried a third time
    assert metrics.sum("hanmo_requests_total", code="INTERNAL") == 1


def test_a_stream_goes_on_over_a_death(start_server):
    """The client sees no token twice and none missing."""
    server = start_server()
    request = text_request(seed=4, max_tokens=230, ignore_eos=True)
    lone = write(server, request)
    deltas, ids, killed = [], [], False
    for event in server.generation.GenerateStream(request, timeout=60):
        if event.HasField("text"):
            deltas.append(event.text.text)
            ids += event.text.token_ids
            if len(ids) >= 10 and not killed:
                killed = bool(kill_workers(server))
    assert killed
    assert "".join(deltas) == lone.text == event.final.outputs[0].text.text
    assert ids == list(lone.token_ids)


def test_steps_never_go_back_over_a_death(start_server):
    server = start_server("--save-interval-steps=10")
    seen, killed = [], False
    for event in server.generation.GenerateStream(
        picture_request(seed=1, steps=40, width=128, height=128, sampler="ddim"), timeout=60
    ):
        if event.HasField("step"):
            seen.append(event.step.step)
            if seen[-1] >= 12 and not killed:
                killed = bool(kill_workers(server))
    assert killed and seen == sorted(set(seen)) and seen[-1] == 40
    assert event.final.usage.steps_redone <= 10  # none, if it died right after a save


def test_health_and_state_follow_a_death(start_server):
    server = start_server()
    states = {service: server.watch(service) for service in ("", PAINTER, POET)}
    for watched in states.values():
        assert next(watched) == SERVING
    kill_workers(server)
    for watched in states.values():
        assert next(watched) == NOT_SERVING
        assert next(watched) == SERVING
    assert server.describe(PAINTER).state == models_pb2.MODEL_STATE_READY


def test_requests_wait_for_a_worker_that_comes_back(start_server):
    """A stopped worker takes no step: the request is aboard when it is killed."""
    server = start_server()
    request = picture_request(seed=9)
    lone = server.generation.Generate(request, timeout=60)
    (pid,) = server.worker_pids()
    os.kill(pid, signal.SIGSTOP)
    call = server.generation.Generate.future(request, timeout=60)
    metrics = ("hanmo_requests_running", "hanmo_requests_waiting")
    until(lambda: sum(server.metrics().sum(name) for name in metrics) == 1, "request aboard")
    os.kill(pid, signal.SIGKILL)
    late = server.generation.Generate.future(request, timeout=60)
    assert outputs(call.result()) == outputs(late.result()) == outputs(lone)


def test_restarts_back_off(start_server, tmp_path):
    """A worker that dies at once is started again after 0.1, 0.2, 0.4, 0.8 s."""
    starts = tmp_path / "starts"
    program = tmp_path / "dies-at-once"
    program.write_text(f"#!/bin/sh\ndate +%s.%N >> {starts}\nexit 7\n")
    program.chmod(0o755)
    server = start_server(f"--worker-program={program}", serving=False)

    def times():
        return [float(t) for t in starts.read_text().split()] if starts.exists() else []

    until(lambda: len(times()) >= 5, "five starts")
    gaps = [b - a for a, b in zip(times(), times()[1:], strict=False)][:4]
    print("gaps", gaps)
    for gap, expected in zip(gaps, (0.1, 0.2, 0.4, 0.8), strict=True):
        assert expected <= gap < 2 * expected + 1
    assert server.check() == NOT_SERVING
    assert server.process.poll() is None
    assert "7" in server.log()


def test_workers_die_with_their_server(start_server):
    """Not even kill -9 of the server leaves a worker behind."""
    server = start_server("--workers=2")
    pids = server.worker_pids()
    assert len(pids) == 2
    server.kill()
    for pid in pids:
        until(lambda pid=pid: not is_alive(pid), "the worker's end")
    assert not children_named(server.process.pid, "hanmo-worker")
