"""grpc.health.v1 tells the truth: while loading, per service and model, and under load."""

import time

import grpc
from calls import PAINTER, POET, error_of, generate, picture_request, text_request
from contract import models_pb2
from hanmo_server import NOT_SERVING, SERVICE_UNKNOWN, SERVING
from mixed_load import mixed_requests, start_together
from observe import PATIENCE, until

GENERATION, MODELS = "hanmo.v1.Generation", "hanmo.v1.Models"


def test_every_service_and_model_has_its_own_state(server):
    names = [
        model.name
        for model in server.models.ListModels(models_pb2.ListModelsRequest(), timeout=60).models
    ]
    assert PAINTER in names and POET in names and len(names) >= 10
    for service in ("", GENERATION, MODELS, *names):
        assert server.check(service) == SERVING


def test_unknown_services(server):
    error = error_of(server.check, "nothing")
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert next(server.watch("nothing")) == SERVICE_UNKNOWN


def test_not_serving_until_the_model_is_loaded(start_server, start_worker, tmp_path):
    """The ports answer at once; each state turns exactly when the model is there."""
    server = start_server(f"--worker=unix:{tmp_path / 'worker.sock'}", serving=False)
    assert server.check(MODELS) == SERVING
    watches = {service: server.watch(service) for service in ("", GENERATION, PAINTER, POET)}
    for service, states in watches.items():
        assert next(states) == NOT_SERVING, service
    assert server.describe(PAINTER).state == models_pb2.MODEL_STATE_LOADING
    start_worker(tmp_path / "worker.sock")
    for states in watches.values():
        assert next(states) == SERVING
    assert server.describe(PAINTER).state == models_pb2.MODEL_STATE_READY
    assert server.metrics().sum("hanmo_model_state", model=PAINTER, state="ready") == 1


def test_requests_that_come_while_the_model_loads(start_server):
    """They wait for it, or are told to come back: nothing else."""
    server = start_server(serving=False)
    calls = [
        server.generation.Generate.future(text_request(max_tokens=3, seed=i), timeout=60)
        for i in range(4)
    ]
    for call in calls:
        error = call.exception()
        if error is not None:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
    server.wait_serving()
    assert generate(server, text_request(max_tokens=3)).outputs


def test_an_empty_repository_is_not_ready(start_server, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    server = start_server(repository=folder, serving=False)
    assert server.check(MODELS) == SERVING
    assert not server.models.ListModels(models_pb2.ListModelsRequest(), timeout=60).models


def test_health_is_quick_under_load(start_server):
    """Kubernetes gives a probe one second."""
    server = start_server()
    calls = start_together(server, mixed_requests())
    seconds = []
    while any(not call.done() for call in calls):
        begin = time.monotonic()
        assert server.check(PAINTER, timeout=PATIENCE) == SERVING
        seconds.append(time.monotonic() - begin)
    for call in calls:
        call.result()
    seconds.sort()
    print(f"{len(seconds)} checks, p99 {seconds[int(len(seconds) * 0.99)] * 1e3:.1f} ms")
    assert len(seconds) > 50
    assert seconds[int(len(seconds) * 0.99)] < 0.5
    assert sum(one > 1 for one in seconds) <= 1


def test_descriptions(server):
    poet, painter = server.describe(POET), server.describe(PAINTER)
    assert list(poet.tasks) == [models_pb2.TASK_TEXT_TO_TEXT]
    assert list(painter.tasks) == [models_pb2.TASK_TEXT_TO_PICTURE]
    assert poet.architecture == "GPT2LMHeadModel"
    assert painter.architecture == "StableDiffusionPipeline"
    assert poet.dtype == painter.dtype == "float32"
    assert poet.workers == painter.workers == 1
    # 2,289,600 parameters, see the model's README.
    assert 4 * 2_289_600 <= poet.weight_bytes <= 1.2 * 4 * 2_289_600
    text = poet.text
    assert (text.context_tokens, text.vocabulary_size) == (256, 4387)
    assert list(text.eos_token_ids) == [4386] and text.has_chat_template
    assert round(text.default_temperature, 4) == 0.8 and round(text.default_top_p, 4) == 0.9
    assert text.default_max_tokens == 96
    picture = painter.picture
    assert (picture.size_multiple, picture.min_size) == (8, 8)
    assert picture.max_size >= 1024 and picture.max_steps == 1000
    assert picture.default_sampler == "pndm" and picture.prompt_tokens > 0
    assert not painter.HasField("text") and not poet.HasField("picture")
    # What Describe calls the limit is the limit.
    generate(server, picture_request(width=picture.min_size, height=picture.min_size, steps=1))


def test_a_full_queue_is_not_ready(start_server):
    server = start_server("--max-queued-requests=2", "--max-running-samples=1", admin=True)
    calls = [
        server.generation.Generate.future(
            picture_request(steps=100, width=128, height=128), timeout=PATIENCE
        )
        for _ in range(3)
    ]
    until(lambda: server.check("readiness") == NOT_SERVING, "a full queue")
    assert server.check() == SERVING
    assert server.metrics().sum("hanmo_overloaded") == 1
    for call in calls:
        call.cancel()
    until(lambda: server.check("readiness") == SERVING, "a queue with room")
