"""Workers that run by themselves: hanmo-server --worker=ADDRESS starts none and attaches."""

import os
import signal

from calls import generate, outputs, picture_request, text_request
from hanmo_server import NOT_SERVING, SERVING
from observe import until


def test_a_worker_on_a_unix_socket(start_server, start_worker, tmp_path):
    socket = tmp_path / "worker.sock"
    requests = [picture_request(seed=1), text_request(seed=1, max_tokens=20)]
    own = start_server("--worker-threads=1")
    expected = [outputs(generate(own, request)) for request in requests]
    server = start_server(f"--worker=unix:{socket}", serving=False)
    states = server.watch()
    assert next(states) == NOT_SERVING
    assert not server.worker_pids()
    worker = start_worker(socket)
    assert next(states) == SERVING  # it is looked for until it is there
    assert [outputs(generate(server, request)) for request in requests] == expected

    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert next(states) == NOT_SERVING
    start_worker(socket)
    assert next(states) == SERVING
    assert [outputs(generate(server, request)) for request in requests] == expected


def test_an_attached_worker_outlives_its_server(start_server, start_worker, tmp_path):
    socket = tmp_path / "worker.sock"
    worker = start_worker(socket)
    first = start_server(f"--worker=unix:{socket}")
    expected = outputs(generate(first, picture_request(seed=2)))
    first.terminate()
    assert first.wait_exit() == 0
    assert worker.poll() is None
    second = start_server(f"--worker=unix:{socket}")
    assert outputs(generate(second, picture_request(seed=2))) == expected


def test_requests_go_on_when_an_attached_worker_is_replaced(start_server, start_worker, tmp_path):
    sockets = [tmp_path / f"{i}.sock" for i in range(2)]
    workers = [start_worker(socket) for socket in sockets]
    server = start_server(*[f"--worker=unix:{socket}" for socket in sockets])
    until(lambda: server.metrics().sum("hanmo_worker_up") == 2, "both workers")
    requests = [picture_request(seed=i, steps=30, width=128, height=128) for i in range(4)]
    expected = [outputs(generate(server, request)) for request in requests]
    calls = [server.generation.Generate.future(request, timeout=60) for request in requests]
    until(lambda: server.metrics().sum("hanmo_requests_running") >= 2, "requests aboard")
    os.kill(workers[0].pid, signal.SIGKILL)
    assert [outputs(call.result()) for call in calls] == expected
