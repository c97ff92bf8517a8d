"""Best of N: a tiny random ChineseCLIP model beside the demo model chooses among its pictures."""

import json
import threading

import grpc
import numpy as np
import pytest
from calls import PAINTER, POEM, POET, error_of, generate, picture_request, stream
from contract import generation_pb2
from hanmo_server import Server
from repositories import GOLDENS, MODELS, RERANKERS, with_reranker
from transformers_live import chinese_clip_scores, needs_transformers

FOLDERS = GOLDENS / "reranker"
SCENE = "水墨山水，两座青山，一叶扁舟"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    repository = tmp_path_factory.mktemp("scored") / "repository"
    for name, class_name in RERANKERS.items():
        with_reranker(repository / name, MODELS / PAINTER, FOLDERS / name, class_name)
    (repository / PAINTER).symlink_to(MODELS / PAINTER)
    (repository / POET).symlink_to(MODELS / POET)
    log = tmp_path_factory.mktemp("log") / "server.log"
    one = Server(repository, log=log).wait_serving()
    yield one
    print(one.log())
    one.close()


def candidates(server, model, count, **parameters):
    """All `count` candidates with their scores, by index."""
    request = picture_request(SCENE, model=model, count=count, best_of=count, **parameters)
    return sorted(generate(server, request).outputs, key=lambda output: output.index)


@pytest.mark.parametrize("name", RERANKERS)
def test_the_best_are_the_pictures_that_count_paints(scored, name):
    parameters = dict(seed=40, guidance=4.0)
    plain = generate(scored, picture_request(SCENE, model=name, count=6, **parameters))
    assert not any(output.picture.HasField("score") for output in plain.outputs)
    all_six = candidates(scored, name, 6, **parameters)
    for index, (scored_one, plain_one) in enumerate(zip(all_six, plain.outputs, strict=True)):
        assert scored_one.index == index and scored_one.picture.seed == 40 + index
        assert scored_one.picture.data == plain_one.picture.data
    scores = [output.picture.score for output in all_six]
    assert len(set(scores)) == 6 and all(-1 <= score <= 1 for score in scores)

    response = generate(
        scored, picture_request(SCENE, model=name, count=2, best_of=6, **parameters)
    )
    best = np.argsort(scores)[::-1][:2].tolist()
    assert [output.index for output in response.outputs] == best
    for output in response.outputs:
        assert output.picture == all_six[output.index].picture
    assert response.usage.pictures == 6
    assert response.usage.steps == plain.usage.steps


def test_a_stream_sends_the_chosen_alone(scored):
    request = picture_request(
        SCENE, model="taiyi", count=2, best_of=5, seed=7, preview_every_steps=2
    )
    unary = generate(scored, request)
    streamed = stream(scored, request)
    assert {step.index for step in streamed.of("step")} == set(range(5))
    assert {preview.index for preview in streamed.of("preview")} <= set(range(5))
    chosen = [output.index for output in unary.outputs]
    assert {chunk.index for chunk in streamed.of("picture")} == set(chosen)
    assert [output.index for output in streamed.final.outputs] == chosen
    for output in unary.outputs:
        assert streamed.picture(output.index) == output.picture.data
    kinds = [event.WhichOneof("event") for event in streamed.events]
    assert "step" not in kinds[kinds.index("picture") :]


def test_scores_do_not_depend_on_company(scored):
    alone = candidates(scored, "chinese_clip", 3, seed=90)
    company = [
        picture_request("寒冬", model="chinese_clip", count=4, best_of=4, seed=200 + i)
        for i in range(3)
    ]
    company.append(picture_request(SCENE, model="chinese_clip", count=4, seed=300))
    threads = [threading.Thread(target=generate, args=(scored, one)) for one in company]
    for thread in threads:
        thread.start()
    together = candidates(scored, "chinese_clip", 3, seed=90)
    for thread in threads:
        thread.join()
    assert together == alone


def test_the_python_client_has_scores(scored):
    import hanmo

    with hanmo.Client(scored.address) as client:
        assert client.describe_model("taiyi").picture.has_reranker
        result = client.generate_picture(
            "taiyi", SCENE, count=2, best_of=5, width=64, height=64, steps=4, seed=7
        )
        plain = client.generate_picture("taiyi", SCENE, width=64, height=64, steps=1)
    first, second = result.pictures
    assert 1 >= first.score > second.score >= -1
    assert plain.picture.score is None


def test_sixty_four_candidates_and_one_answer(scored):
    request = picture_request(SCENE, model="chinese_clip", best_of=64, steps=1, seed=1)
    response = generate(scored, request)
    (best,) = response.outputs
    assert response.usage.pictures == 64 and best.picture.seed == 1 + best.index
    some = candidates(scored, "chinese_clip", 16, steps=1, seed=1)
    assert best.picture.score >= max(output.picture.score for output in some)


def test_refusals_name_the_field(scored):
    def refused(**parameters):
        request = picture_request(SCENE, **parameters)
        if parameters.get("model") == POET:
            request = generation_pb2.GenerateRequest(model=POET, prompt=POEM)
            request.picture.best_of = 2
        error = error_of(generate, scored, request)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        return error.details()

    assert "picture.best_of: must be absent: this model has no reranker" in refused(best_of=2)
    assert "picture.best_of: must be in [3, 64], got 2" in refused(
        model="taiyi", best_of=2, count=3
    )
    assert "got 65" in refused(model="taiyi", best_of=65)
    assert "picture" in refused(model=POET)
    assert not scored.describe(PAINTER).picture.has_reranker
    assert scored.describe("taiyi_roberta").picture.has_reranker


FAULTS = {
    # name: (class in model_index.json, what becomes of the folder, what the error says)
    "no-folder": ("ChineseCLIPModel", None, "reranker/config.json is missing"),
    "other-class": ("CLIPModel", {}, 'the reranker "CLIPModel"'),
    "other-layout": ("TaiyiCLIPModel", dict(text_pooling="pooler"), "text_model.pooler.dense"),
    "no-pooling": ("ChineseCLIPModel", dict(text_pooling="mean"), "text_pooling"),
    "small-vocabulary": ("ChineseCLIPModel", dict(text_config=dict(vocab_size=9)), "vocab_size 9"),
    "no-weights": ("ChineseCLIPModel", dict(weights=False), "reranker"),
    "other-size": ("ChineseCLIPModel", dict(vision_config=dict(image_size=64)), "position_embed"),
}


def test_broken_rerankers_are_described(start_server, tmp_path):
    repository = tmp_path / "repository"
    for name, (class_name, changes, _) in FAULTS.items():
        source = FOLDERS / "chinese_clip"
        reranker = tmp_path / name
        if changes is not None:
            reranker.mkdir()
            config = json.loads((source / "config.json").read_text())
            for key, value in changes.items():
                config[key] = {**config[key], **value} if isinstance(value, dict) else value
            (reranker / "config.json").write_text(json.dumps(config))
            for file in ("vocab.txt", "preprocessor_config.json", "model.safetensors"):
                if file != "model.safetensors" or changes.get("weights", True):
                    (reranker / file).symlink_to(source / file)
        with_reranker(repository / name, MODELS / PAINTER, reranker, class_name)
    (repository / POET).symlink_to(MODELS / POET)
    server = start_server(repository=repository)
    for name, (_, _, words) in FAULTS.items():
        assert words in server.describe(name).state_detail, server.describe(name)
    assert server.metrics().sum("hanmo_worker_restarts_total") == 0


@needs_transformers
def test_live_scores_of_transformers(scored):
    """The best picture is the argmax of what transformers computes from the files."""
    outputs = candidates(scored, "chinese_clip", 8, seed=60, width=96)
    expected = chinese_clip_scores(
        FOLDERS / "chinese_clip", SCENE, [output.picture.data for output in outputs]
    )
    found = np.array([output.picture.score for output in outputs])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    best = generate(
        scored, picture_request(SCENE, model="chinese_clip", best_of=8, seed=60, width=96)
    )
    assert best.outputs[0].index == int(expected.argmax())
