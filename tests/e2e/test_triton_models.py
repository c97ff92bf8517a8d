"""The server and its models as KServe's and Triton's clients see them: readiness, metadata,
statistics, the repository."""

import numpy as np
import pytest
from calls import PAINTER, POET
from observe import until
from triton_calls import PROMPT, infer, refused, tensor, texts
from tritonclient import grpc as triton


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.address) as one:
        yield one


def test_live_ready_and_known(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(POET) and client.is_model_ready(PAINTER, "1")
    assert not client.is_model_ready("nobody") and not client.is_model_ready(POET, "2")
    metadata = client.get_server_metadata()
    assert metadata.name == "hanmo" and metadata.version
    assert {"statistics", "schedule_policy", "model_repository"} <= set(metadata.extensions)


@pytest.mark.parametrize("model", [POET, PAINTER])
def test_metadata_and_configuration_agree(client, model):
    metadata = client.get_model_metadata(model)
    config = client.get_model_config(model).config
    assert metadata.name == config.name == model and list(metadata.versions) == ["1"]
    for told, configured in ((metadata.inputs, config.input), (metadata.outputs, config.output)):
        assert [t.name for t in told] == [c.name for c in configured]
        assert [list(t.shape[1:]) for t in told] == [list(c.dims) for c in configured]
    assert config.max_batch_size == 64 and config.model_transaction_policy.decoupled
    names = {t.name for t in metadata.outputs}
    assert names == (
        {"text_output", "token_ids", "finish_reason", "seed"}
        if model == POET
        else {"image", "pixels", "seed", "step", "steps", "score"}
    )


def test_what_is_not_there_is_not_found(client):
    for call in (client.get_model_metadata, client.get_model_config):
        error = refused(call, "nobody")
        assert error.status() == "StatusCode.NOT_FOUND" and "nobody" in error.message()
    error = refused(infer, client, POET, [tensor("text_input", [PROMPT])], model_version="2")
    assert error.status() == "StatusCode.NOT_FOUND" and "model_version" in error.message()


def test_statistics_count_what_is_done(client):
    def read():
        (stats,) = client.get_inference_statistics(POET).model_stats
        return stats

    before = read()
    inputs = [tensor("text_input", [PROMPT] * 3), tensor("max_tokens", [5])]
    infer(client, POET, inputs)
    refused(infer, client, POET, [tensor("text_input", [""])])
    # Phases are counted when the answer has left.
    until(
        lambda: (
            read().inference_stats.compute_output.count
            == before.inference_stats.compute_output.count + 3
        ),
        "the sending counted",
    )
    after = read()
    assert after.inference_count == before.inference_count + 3
    assert after.inference_stats.success.ns > before.inference_stats.success.ns
    assert after.inference_stats.fail.count == before.inference_stats.fail.count + 1
    assert after.inference_stats.queue.count == before.inference_stats.queue.count + 3
    assert after.execution_count > before.execution_count
    assert after.last_inference > before.last_inference
    assert any(batch.batch_size > 1 for batch in after.batch_stats)
    everyone = {stats.name for stats in client.get_inference_statistics().model_stats}
    assert {POET, PAINTER} <= everyone


def test_the_repository_is_listed(client):
    index = {model.name: model for model in client.get_model_repository_index().models}
    assert index[POET].state == index[PAINTER].state == "READY"
    assert index[POET].version == "1"


def test_models_are_not_loaded_by_clients_here(client):
    for call in (client.load_model, client.unload_model):
        assert refused(call, POET).status() == "StatusCode.UNIMPLEMENTED"


def test_models_are_loaded_on_the_port_for_administration(start_server):
    server = start_server(admin=True)
    with triton.InferenceServerClient(server.admin_address) as admin:
        inputs = [tensor("text_input", [PROMPT]), tensor("temperature", [np.float32(0)])]
        before = texts(infer(admin, POET, inputs))
        admin.unload_model(POET)
        assert not admin.is_model_ready(POET)
        assert refused(infer, admin, POET, inputs).status() == "StatusCode.FAILED_PRECONDITION"
        states = {one.name: one.state for one in admin.get_model_repository_index().models}
        assert (states[POET], states[PAINTER]) == ("UNAVAILABLE", "READY")
        admin.load_model(POET)
        assert admin.is_model_ready(POET)
        assert texts(infer(admin, POET, inputs)) == before
        error = refused(admin.load_model, "nobody")
        assert error.status() == "StatusCode.NOT_FOUND" and "nobody" in error.message()
