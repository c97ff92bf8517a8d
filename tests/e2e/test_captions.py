"""A tiny random ERNIE-ViLG checkpoint, over the wire: texts about pictures, pictures by tokens."""

import io
import json
import os
import signal

import grpc
import numpy as np
import pytest
from calls import (
    BRUSH,
    POET,
    caption_request,
    error_of,
    file_of,
    generate,
    outputs,
    painting_request,
    picture_request,
    pixels,
    stream,
    text_request,
    violations,
)
from contract import models_pb2
from hanmo_server import Server
from observe import until
from PIL import Image
from repositories import GOLDENS, MODELS, link_models
from safetensors.numpy import load_file

PICTURES = GOLDENS / "pictures"
FIELD = "parts.parts[0].picture.data"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDENS / "ernie_vilg/whole/golden.safetensors")


@pytest.fixture(scope="module")
def brush(tmp_path_factory):
    """One server for the tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("brush")
    repository = link_models(
        folder / "repository",
        ernie_vilg=GOLDENS / "ernie_vilg/whole",
        wenzhong_gpt2_tiny=MODELS / POET,
    )
    one = Server(repository, log=folder / "server.log").wait_serving()
    yield one
    print(one.log())
    one.close()


def rounds(golden, what):
    return range(sum(name.startswith(f"{what}.") and name.endswith(".codes") for name in golden))


def test_the_model_says_what_it_does(brush):
    model = brush.models.DescribeModel(models_pb2.DescribeModelRequest(name=BRUSH))
    assert list(model.tasks) == [models_pb2.TASK_TEXT_TO_PICTURE, models_pb2.TASK_PICTURE_TO_TEXT]
    assert model.architecture == "ErnieViLGPipeline"
    assert (model.picture.default_width, model.picture.default_height) == (40, 24)
    assert model.picture.paints_by_tokens and model.picture.default_top_k == 20
    assert model.text.context_tokens == 20


def test_greedy_texts_are_those_of_the_reference(brush, golden):
    for i in rounds(golden, "write"):
        request = caption_request(file_of(golden[f"write.{i}.rgb"]), temperature=0)
        (output,) = generate(brush, request).outputs
        expected = golden[f"write.{i}.ids"].tolist()
        assert list(output.text.token_ids) == expected[: len(output.text.token_ids)]
        assert len(output.text.token_ids) >= min(len(expected), 15)


def test_greedy_pictures_are_those_of_the_reference(brush, golden):
    for i in rounds(golden, "paint"):
        request = painting_request(temperature=0)
        request.token_ids.ids.extend(golden[f"paint.{i}.source"].tolist())
        (output,) = generate(brush, request).outputs
        difference = pixels(output.picture.data).astype(int) - golden[f"paint.{i}.rgb"]
        assert np.abs(difference).max() <= 1


def test_a_text_is_streamed_and_goes_on_from_its_beginning(brush, golden):
    file = file_of(golden["write.0.rgb"])
    whole = generate(brush, caption_request(file, "一丁", seed=3, logprobs=2))
    streamed = stream(brush, caption_request(file, "一丁", seed=3, logprobs=2))
    text = whole.outputs[0].text
    assert streamed.text() == text.text and streamed.token_ids() == list(text.token_ids)
    assert len(text.logprobs) == len(text.token_ids) <= 18
    assert " " not in text.text and "##" not in text.text
    assert whole.usage.prompt_tokens == 15 + 1 + 2
    other = generate(brush, caption_request(file, "七", seed=3)).outputs[0].text
    assert other.token_ids != text.token_ids


def test_a_seed_says_all(brush, golden):
    file = file_of(golden["write.0.rgb"])
    together = outputs(generate(brush, caption_request(file, n=4, seed=7)))
    alone = [outputs(generate(brush, caption_request(file, seed=7 + i)))[0] for i in range(4)]
    assert together == alone
    assert len({text for text, *_ in together}) > 1
    painted = outputs(generate(brush, painting_request(count=4, seed=7)))
    assert painted == [outputs(generate(brush, painting_request(seed=7 + i)))[0] for i in range(4)]
    assert len({data for data, _ in painted}) == 4


def test_the_same_picture_in_every_format_gives_the_same_text(brush, golden):
    rgb = golden["write.0.rgb"]
    webp = io.BytesIO()
    Image.fromarray(rgb).save(webp, "WEBP", lossless=True)
    # On its side, with the word to turn it back.
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).rotate(90, expand=True).save(turned, "PNG", exif=exif)
    files = [file_of(rgb), webp.getvalue(), turned.getvalue()]
    texts = {outputs(generate(brush, caption_request(f, seed=1)))[0] for f in files}
    assert len(texts) == 1


def test_bad_pictures_of_every_kind_lose_nothing(brush, golden):
    """Others paint and write meanwhile."""
    cases = json.loads((PICTURES / "cases.json").read_text())
    file = file_of(golden["write.0.rgb"])
    requests = [caption_request(file, seed=5), painting_request(seed=5), text_request(seed=5)]
    expected = [outputs(generate(brush, request)) for request in requests]
    calls = [brush.generation.Generate.future(r, timeout=60) for r in requests * 4]
    for case in cases["bad"]:
        error = error_of(
            generate, brush, caption_request((PICTURES / "files" / case["file"]).read_bytes())
        )
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, case
        assert case["error"] in violations(error)[FIELD], case
    for case in cases["good"]:
        request = caption_request((PICTURES / "files" / case["file"]).read_bytes(), max_tokens=2)
        assert len(generate(brush, request).outputs[0].text.token_ids) >= 1
    assert [outputs(call.result()) for call in calls] == expected * 4
    large = error_of(generate, brush, caption_request(b"\xff\xd8\xff" * (6 << 20)))
    assert "at most 16777216 bytes" in violations(large)[FIELD]


def test_what_the_model_cannot_do_is_refused(brush, golden):
    file = file_of(golden["write.0.rgb"])
    for request, field in [
        (painting_request(steps=3), "picture.steps"),
        (painting_request(guidance=2), "picture.guidance"),
        (painting_request(negative_prompt="丁"), "picture.negative_prompt"),
        (painting_request(width=64), "picture.width"),
        (painting_request("一" * 19), "prompt"),
        (painting_request(top_p=0), "picture.top_p"),
        (caption_request(file, max_tokens=21), "text.max_tokens"),
        (caption_request(file, "一" * 20), "parts.parts[1].text"),
        (picture_request(model=BRUSH), "picture.width"),
    ]:
        error = error_of(generate, brush, request)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert field in violations(error), (field, error.details())


def test_a_worker_killed_while_it_paints_changes_no_byte(start_server, links, tmp_path, golden):
    repository = links(tmp_path / "repository", ernie_vilg=GOLDENS / "ernie_vilg/whole")
    server = start_server(repository=repository)
    file = file_of(golden["write.0.rgb"])
    requests = [painting_request(count=16, seed=3), caption_request(file, n=16, seed=3)]
    expected = [outputs(generate(server, request)) for request in requests]
    for _ in range(3):
        before = server.metrics().sum("hanmo_batch_size_sum", step="text")
        calls = [server.generation.Generate.future(r, timeout=60) for r in requests]
        until(
            lambda before=before: (
                server.metrics().sum("hanmo_batch_size_sum", step="text") > before + 8
            ),
            "some tokens",
        )
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        assert [outputs(call.result()) for call in calls] == expected
        server.wait_idle()
        server.wait_serving(BRUSH)
