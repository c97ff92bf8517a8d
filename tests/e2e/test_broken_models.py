"""Broken model folders beside a good one: described, refused, and nobody else's trouble."""

import grpc
import pytest
from broken_checkpoints import FAULTS, make_broken
from calls import error_of, generate, ids_request, picture_request, text_request
from contract import ROOT, models_pb2
from hanmo_server import NOT_SERVING, SERVING, Server


@pytest.fixture(scope="module")
def marker(tmp_path_factory):
    return tmp_path_factory.mktemp("marker") / "executed"


@pytest.fixture(scope="module")
def broken_server(tmp_path_factory, marker):
    folder = make_broken(tmp_path_factory.mktemp("broken"), marker)
    (folder / "good").symlink_to(ROOT / "models/wenzhong-gpt2-tiny")
    (folder / "not a model").mkdir()
    (folder / "notes.txt").write_text("x")
    (folder / "broken-link").symlink_to(folder / "nowhere")
    one = Server(folder, log=tmp_path_factory.mktemp("log") / "server.log")
    one.wait_serving()
    yield one
    one.close()


def test_the_good_model_serves(broken_server):
    assert broken_server.check("good") == SERVING
    assert generate(broken_server, text_request(model="good", max_tokens=4)).outputs


def test_all_others_are_listed_as_failed(broken_server):
    reply = broken_server.models.ListModels(models_pb2.ListModelsRequest(), timeout=60)
    states = {model.name: model.state for model in reply.models}
    assert set(states) == {"good", "malicious", *FAULTS}
    wrong = {
        name: state
        for name, state in states.items()
        if (state == models_pb2.MODEL_STATE_READY) != (name == "good")
        or (state == models_pb2.MODEL_STATE_FAILED) != (name != "good")
    }
    assert not wrong
    assert [model.name for model in reply.models] == sorted(states)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_described(broken_server, name):
    """By Describe, by the error of a request, by health, in the log and in the metrics."""
    detail = broken_server.describe(name).state_detail
    for words in FAULTS[name][2]:
        assert words in detail, detail
    request = (
        picture_request(model=name)
        if (FAULTS[name][0] / "model_index.json").exists()
        else ids_request([1], name)
    )
    error = error_of(generate, broken_server, request)
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert detail in error.details()
    assert broken_server.check(name) == NOT_SERVING
    assert f"{name}" in broken_server.log()
    assert broken_server.metrics().sum("hanmo_model_state", model=name, state="failed") == 1


def test_no_pickle_is_executed(broken_server, marker):
    detail = broken_server.describe("malicious").state_detail
    assert "pytorch_model.bin" in detail
    assert not marker.exists()


def test_no_worker_died_of_them(broken_server):
    metrics = broken_server.metrics()
    assert metrics.sum("hanmo_worker_restarts_total") == 0
    assert metrics.sum("hanmo_worker_up") == 1
