"""Picture models with several UNets by timestep: the same pictures whichever are in memory."""

import os
import signal

import numpy as np
import pytest
from calls import generate, picture_request, pixels, stream
from mixed_load import start_together
from observe import until
from repositories import GOLDENS, MODELS, link_models, with_reranker

MODEL = "experts"


@pytest.fixture
def start_experts(start_server, tmp_path):
    """Starts servers of one model of three experts."""
    repository = link_models(tmp_path / "repository", experts=GOLDENS / "ernie_vilg2/three")

    def start(*options):
        return start_server(*options, repository=repository)

    return start


def requests():
    """Of several samplers and lengths, so that they are at many places at a time."""
    kinds = [("ddim", 13), ("euler_a", 9), ("ddim", 20), ("dpmpp_2m", 10), ("unipc", 16)]
    return [
        picture_request(
            "古风墨竹", MODEL, seed=seed, sampler=sampler, steps=steps, guidance=4 - 3 * (seed % 2)
        )
        for seed, (sampler, steps) in enumerate(kinds * 2)
    ]


def files(responses):
    return [response.outputs[0].picture.data for response in responses]


def test_a_description_tells_the_experts(start_experts):
    server = start_experts("--expert-memory=1")
    model = server.describe(MODEL)
    assert model.architecture == "ErnieViLG2Pipeline"
    experts = [(expert.name, expert.t_min, expert.t_max) for expert in model.picture.experts]
    assert experts == [("unet_02", 701, 1000), ("unet_01", 120, 701), ("unet_00", 0, 120)]
    assert model.picture.resident_experts == 1
    assert model.picture.default_sampler == "ddim"


def test_no_budget_and_no_company_changes_a_picture(start_experts):
    server = start_experts()
    alone = files(generate(server, request) for request in requests())
    assert len(set(alone)) == len(alone)
    for options in ((), ("--expert-memory=1",), ("--expert-memory=300KiB", "--slice=1ms")):
        server = start_experts(*options)
        together = files(call.result() for call in start_together(server, requests()))
        assert together == alone, options
        metrics = server.metrics()
        labels = {"model": MODEL, "step": "denoise"}
        steps = metrics.sum("hanmo_batch_size_count", **labels)
        rows = metrics.sum("hanmo_batch_size_sum", **labels)
        print(f"{options}: mean batch {rows / steps:.2f}")
        waited = metrics.sum("hanmo_expert_wait_seconds_total", model=MODEL)
        assert waited == 0 or options
        assert waited > 0 or options != ("--expert-memory=1",)
        server.wait_idle()


def test_after_a_death_a_picture_goes_on_with_the_expert_of_its_place(start_experts):
    server = start_experts("--expert-memory=1")
    request = picture_request("古风墨竹", MODEL, seed=5, steps=40, sampler="ddim")
    lone = generate(server, request)
    killed = False
    streamed = []
    for event in server.generation.GenerateStream(request, timeout=60):
        if event.HasField("step"):
            streamed.append(event.step.step)
            # Past the first border, before the second.
            if event.step.step >= 20 and not killed:
                (pid,) = server.worker_pids()
                os.kill(pid, signal.SIGKILL)
                killed = True
    assert killed and streamed == sorted(set(streamed))
    assert event.final.usage.steps_redone <= 5
    again = generate(server, request)
    assert files([again]) == files([lone])
    until(lambda: server.metrics().sum("hanmo_worker_restarts_total") == 1, "the restart")


def test_a_stream_over_a_death_brings_the_same_picture(start_experts):
    server = start_experts("--expert-memory=1")
    request = picture_request("古风墨竹", MODEL, seed=6, steps=40, sampler="ddim")
    lone = generate(server, request)
    assert stream(server, request).picture() == lone.outputs[0].picture.data


def test_the_demo_model_paints_the_same_with_one_expert_in_memory(start_server, tmp_path):
    repository = link_models(tmp_path / "repository", painter=MODELS / "ernie-vilg2-tiny")
    pictures = []
    for options in ((), ("--expert-memory=1",)):
        server = start_server(*options, repository=repository)
        model = server.describe("painter").picture
        assert len(model.experts) == 2
        # The setting that its evaluation recorded.
        assert (model.default_steps, model.default_guidance) == (20, 4)
        request = picture_request(
            model="painter", width=128, height=128, steps=20, guidance=4, seed=1
        )
        for field in ("steps", "guidance"):
            request.picture.ClearField(field)
        pictures.append(generate(server, request).outputs[0].picture)
        assert (pictures[-1].sampler, pictures[-1].steps) == ("ddim", 20)
    image = pixels(pictures[0].data)
    assert image.std() > 20 and len(np.unique(image.reshape(-1, 3), axis=0)) > 100
    assert pictures[0].data == pictures[1].data


def test_the_best_of_four_with_one_expert_in_memory(start_server, tmp_path):
    """All four pass every border, in company, and are then scored; the budget changes no byte."""
    repository = tmp_path / "repository"
    with_reranker(
        repository / MODEL,
        GOLDENS / "ernie_vilg2/three",
        GOLDENS / "reranker/chinese_clip",
        "ChineseCLIPModel",
    )
    request = dict(prompt="古风墨竹", model=MODEL, seed=40, sampler="ddim", steps=12, guidance=3)
    found = []
    for options in ((), ("--expert-memory=1",)):
        server = start_server(*options, repository=repository)
        model = server.describe(MODEL).picture
        assert model.has_reranker and len(model.experts) == 3
        plain = generate(server, picture_request(count=4, **request)).outputs
        four = generate(server, picture_request(count=4, best_of=4, **request)).outputs
        scores = [output.picture.score for output in four]
        assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4
        for output in four:
            assert output.picture.data == plain[output.index].picture.data
        response = generate(server, picture_request(best_of=4, **request))
        (best,) = response.outputs
        assert best == four[0] and response.usage.pictures == 4
        waited = server.metrics().sum("hanmo_expert_wait_seconds_total", model=MODEL)
        assert (waited > 0) == bool(options)
        found.append([(output.index, output.picture.data) for output in four])
    assert found[0] == found[1]


def test_faulty_experts_fail_their_model_with_the_reason(start_server, tmp_path):
    source = GOLDENS / "ernie_vilg2/three"
    folder = tmp_path / "repository/experts"
    folder.mkdir(parents=True)
    for item in source.iterdir():
        if item.name != "unet_00":
            (folder / item.name).symlink_to(item)
    server = start_server(repository=tmp_path / "repository", serving=False)
    until(lambda: "unet_00: not a folder" in server.describe(MODEL).state_detail, "the reason")
