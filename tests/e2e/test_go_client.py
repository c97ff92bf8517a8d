"""The Go example lists, streams and paints, and tries again what a full server refused."""

from concurrent import futures

import pytest
from calls import PAINTER, POET, paint, picture_request
from contract import ROOT
from go_programs import build, run
from observe import PATIENCE, until

PROMPT = "一幅水墨画，远处青山一座，秋天"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return build(ROOT / "clients/go", "./example", tmp_path_factory.mktemp("go") / "example")


def test_the_example(server, example, tmp_path):
    file = tmp_path / "picture.png"
    lines = run(example, "-server", server.address, "-steps=4", "-output", file).splitlines()
    assert f"{PAINTER} MODEL_STATE_READY [TASK_TEXT_TO_PICTURE]" in lines
    assert f"{POET} MODEL_STATE_READY [TASK_TEXT_TO_TEXT]" in lines
    assert lines[-3:-1] == ["春山未有日，秋水又逢秋。", "万里秋山远，孤云绕水浮。"]
    assert lines[-1] == f"128 x 128, 4 steps, seed 7: {file}"
    request = picture_request(PROMPT, width=128, height=128, seed=7, guidance=4)
    assert file.read_bytes() == paint(server, request).data


def test_errors_name_the_field(server, example, tmp_path):
    said = run(example, "-server", server.address, "-steps=1001", status=1, cwd=tmp_path)
    assert "InvalidArgument" in said and "\npicture.steps: " in said
    assert not list(tmp_path.iterdir())


def test_a_full_server_is_tried_again(start_server, example, tmp_path):
    """By gRPC itself, which the service config allows to and the server tells when."""
    server = start_server("--max-running-samples=1", "--max-queued-requests=1", "--policy=fcfs")
    calls = []
    for seed in range(2):
        request = picture_request(width=256, height=256, steps=40, seed=seed)
        calls.append(server.generation.GenerateStream(request, timeout=PATIENCE))
        next(event for event in calls[-1] if event.HasField("queued" if seed else "step"))
    with futures.ThreadPoolExecutor() as pool:
        said = pool.submit(run, example, "-server", server.address, "-steps=4", cwd=tmp_path)
        refused = lambda: server.metrics().sum("hanmo_rejected_total", reason="queue_full")  # noqa: E731
        until(refused, "a refusal")
        for call in calls:
            call.cancel()
        assert "春山未有日，秋水又逢秋。" in said.result(PATIENCE)
    assert refused() == 1
