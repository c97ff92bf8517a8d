"""Best of N of pictures painted by tokens: tiny random rerankers beside a tiny random ERNIE-ViLG."""

import grpc
import numpy as np
import pytest
from calls import error_of, generate, outputs, stream, violations
from contract import generation_pb2
from hanmo_server import Server
from repositories import GOLDENS, RERANKERS, with_reranker
from transformers_live import chinese_clip_scores, needs_transformers

BRUSH = "ernie-vilg"
PIPELINE = GOLDENS / "ernie_vilg/whole"
TOKENS = 15  # of a picture
WORDS = "一两上"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored") / "repository"
    for name, class_name in RERANKERS.items():
        with_reranker(folder / name, PIPELINE, GOLDENS / "reranker" / name, class_name)
    (folder / BRUSH).symlink_to(PIPELINE)
    return folder


@pytest.fixture(scope="module")
def scored(repository, tmp_path_factory):
    """One server for the tests that leave it as they found it."""
    one = Server(repository, log=tmp_path_factory.mktemp("log") / "server.log").wait_serving()
    yield one
    print(one.log())
    one.close()


def painting(model, prompt=WORDS, **parameters):
    return generation_pb2.GenerateRequest(
        model=model, prompt=prompt, picture=generation_pb2.PictureParameters(**parameters)
    )


def scored_outputs(response):
    """What must not depend on accidents."""
    return [(output.index, output.picture) for output in response.outputs]


@pytest.mark.parametrize("name", RERANKERS)
def test_the_best_are_the_pictures_that_count_paints(scored, name):
    plain = generate(scored, painting(name, count=6, seed=40))
    assert not any(output.picture.HasField("score") for output in plain.outputs)
    ranked = generate(scored, painting(name, count=6, best_of=6, seed=40)).outputs
    scores = [output.picture.score for output in ranked]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 6
    assert all(-1 <= score <= 1 for score in scores)
    for output in ranked:
        assert output.picture.seed == 40 + output.index
        assert output.picture.data == plain.outputs[output.index].picture.data

    best = generate(scored, painting(name, count=2, best_of=6, seed=40))
    assert [output.picture for output in best.outputs] == [o.picture for o in ranked[:2]]
    assert best.usage.pictures == 6 and best.usage.steps == 6 * TOKENS
    streamed = stream(scored, painting(name, count=2, best_of=6, seed=40))
    assert {chunk.index for chunk in streamed.of("picture")} == {o.index for o in best.outputs}
    assert [o.picture.score for o in streamed.final.outputs] == scores[:2]


def test_scores_do_not_depend_on_company(scored):
    request = painting("taiyi", count=3, best_of=3, seed=90)
    alone = scored_outputs(generate(scored, request))
    company = [painting("taiyi", "上", count=4, best_of=4, seed=200 + i) for i in range(3)]
    company.append(painting("taiyi", count=4, seed=300))
    calls = [scored.generation.Generate.future(one, timeout=60) for one in company]
    assert scored_outputs(generate(scored, request)) == alone
    for call in calls:
        call.result()


def test_models_tell_whether_they_score(scored):
    assert not scored.describe(BRUSH).picture.has_reranker
    for name in RERANKERS:
        described = scored.describe(name)
        assert described.picture.has_reranker and described.picture.paints_by_tokens
        assert described.weight_bytes > scored.describe(BRUSH).weight_bytes


def test_refusals_name_the_field_and_reach_no_worker(scored):
    before = scored.metrics().sum("hanmo_batch_size_count")
    ids = painting("taiyi", best_of=2)
    ids.token_ids.ids.extend([2, 7, 3])
    for request, word in [
        (painting(BRUSH, best_of=4), "must be absent: this model has no reranker"),
        (painting("taiyi", best_of=65), "must be in [1, 64], got 65"),
        (painting("taiyi", best_of=2, count=3), "must be in [3, 64], got 2"),
        (ids, "must be absent with token_ids"),
    ]:
        error = error_of(generate, scored, request)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert word in violations(error)["picture.best_of"]
    assert scored.metrics().sum("hanmo_batch_size_count") == before


def test_the_gateway_chooses_the_best(scored, start_gateway):
    gateway = start_gateway(scored)
    body = {"model": "taiyi", "prompt": WORDS, "n": 2, "best_of": 6, "seed": 40}
    found = gateway.call("/v1/images/generations", body).json()["data"]
    expected = generate(scored, painting("taiyi", count=2, best_of=6, seed=40)).outputs
    assert [image["seed"] for image in found] == [output.picture.seed for output in expected]
    scores = [output.picture.score for output in expected]
    assert [image["score"] for image in found] == pytest.approx(scores)
    reply = gateway.call("/v1/images/generations", body | {"model": BRUSH})
    assert reply.status == 400 and reply.json()["error"]["param"] == "best_of"


def test_a_worker_that_dies_in_the_decode_changes_no_score(scored, repository, start_server):
    """All its tokens are painted: the pixels are made again, and scored."""
    request = painting("taiyi", count=3, best_of=8, seed=7)
    lone = generate(scored, request)
    server = start_server(
        f"--worker-arg=--fault=abort-on-seed:9@step:{TOKENS + 1}", repository=repository
    )
    response = generate(server, request)
    assert server.metrics().sum("hanmo_worker_restarts_total") == 1
    assert scored_outputs(response) == scored_outputs(lone)
    assert outputs(response) == outputs(lone)
    assert response.usage.steps == 8 * TOKENS


@needs_transformers
def test_live_scores_of_transformers(scored):
    """The best picture is the argmax of what transformers computes from the files."""
    ranked = generate(scored, painting("chinese_clip", count=8, best_of=8, seed=60)).outputs
    expected = chinese_clip_scores(
        GOLDENS / "reranker/chinese_clip", WORDS, [output.picture.data for output in ranked]
    )
    found = np.array([output.picture.score for output in ranked])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert expected.argmax() == 0
