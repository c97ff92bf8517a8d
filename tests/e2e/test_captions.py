"""A tiny random ERNIE-ViLG checkpoint, over the wire: texts about pictures, pictures by tokens."""

import io
import json
import os
import queue
import re
import signal
import subprocess
import sys

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
from contract import ROOT, models_pb2
from hanmo_server import Server
from observe import PATIENCE, until
from PIL import Image
from repositories import GOLDENS, MODELS, link_models
from safetensors.numpy import load_file
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

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


def bytes_tensor(name, values, shape):
    tensor = triton.InferInput(name, shape, "BYTES")
    tensor.set_data_from_numpy(np.array(values, dtype=np.object_).reshape(shape))
    return tensor


def test_tritons_client_gets_the_same_texts(brush, golden):
    files = [file_of(golden["write.0.rgb"]), file_of(golden["write.1.rgb"], "WEBP")]
    parameters = {"seed": 7, "n": 2, "top_k": 5}
    ours = [
        generate(brush, caption_request(file, begin, **parameters)).outputs
        for file, begin in zip(files, ["", "一丁"], strict=True)
    ]
    with triton.InferenceServerClient(brush.address) as client:
        result = client.infer(
            BRUSH,
            [
                bytes_tensor("image", files, [2, 1]),
                bytes_tensor("text_input", [b"", "一丁"], [2, 1]),
            ],
            parameters=parameters,
        )
        assert [[text.decode() for text in row] for row in result.as_numpy("text_output")] == [
            [output.text.text for output in outputs] for outputs in ours
        ]
        assert result.as_numpy("seed").tolist() == [[7, 8], [7, 8]]
        painted = client.infer(
            BRUSH, [bytes_tensor("prompt", ["一丁七"], [1])], parameters={"seed": 7, "top_k": 5}
        )
        request = painting_request(seed=7, top_k=5)
        assert painted.as_numpy("image")[0] == generate(brush, request).outputs[0].picture.data
        with pytest.raises(InferenceServerException, match=r"image\[1\]: .*PNG, JPEG or WebP"):
            client.infer(BRUSH, [bytes_tensor("image", [files[0], b"GIF89a"], [2])])
        metadata = client.get_model_metadata(BRUSH)
        assert {"prompt", "image", "text_input", "max_tokens", "count", "seed"} <= {
            tensor.name for tensor in metadata.inputs
        }
        assert {"text_output", "finish_reason", "image", "seed"} <= {
            tensor.name for tensor in metadata.outputs
        }


def test_a_caption_is_streamed_to_tritons_client(brush, golden):
    file = file_of(golden["write.0.rgb"])
    answers = queue.Queue()
    with triton.InferenceServerClient(brush.address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer(
            BRUSH, [bytes_tensor("image", [file], [1])], parameters={"seed": 3, "max_tokens": 12}
        )
        text, last = "", False
        while not last:
            result, error = answers.get(timeout=PATIENCE)
            assert error is None
            text += "".join(part.decode() for part in result.as_numpy("text_output").flat)
            last = result.get_response().parameters["triton_final_response"].bool_param
    whole = generate(brush, caption_request(file, seed=3, max_tokens=12)).outputs[0].text
    assert text == whole.text


def test_the_example_of_the_documentation(brush, golden, tmp_path):
    page = (ROOT / "docs/open-inference-protocol.md").read_text()
    _, example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "picture.png").write_bytes(file_of(golden["write.0.rgb"]))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            example.replace("localhost:8001", brush.address).replace("ernie-vilg-tiny", BRUSH),
            tmp_path / "picture.png",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    # The seed is drawn, and a model of random weights may have nothing to say.
    assert done.returncode == 0 and done.stdout.endswith("\n"), done.stderr


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
