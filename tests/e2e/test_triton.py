"""KServe's and Triton's clients work as they are: what NVIDIA's own client infers is what
hanmo.v1.Generation gives, to the byte."""

import asyncio
import json
import queue
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from calls import LANDSCAPE, PAINTER, POET, generate, picture_request, pixels, text_request
from contract import ROOT
from google.protobuf import json_format
from observe import PATIENCE, until
from triton_calls import (
    PROMPT,
    REASONS,
    SMALL,
    endless,
    infer,
    refused,
    tensor,
    texts,
    token_ids,
    wanted,
)
from tritonclient import grpc as triton
from tritonclient.grpc import aio, service_pb2, service_pb2_grpc


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.address) as one:
        yield one


# Texts.


def test_a_text_is_that_of_generate(server, client):
    options = {"max_tokens": 24, "temperature": 0.9, "top_k": 40, "top_p": 0.95, "seed": 7, "n": 2}
    inputs = [
        tensor("text_input", [PROMPT]),
        tensor("max_tokens", np.int32([options["max_tokens"]])),
        tensor("temperature", np.float32([options["temperature"]])),
        tensor("top_k", np.int64([options["top_k"]])),
        tensor("top_p", np.float32([options["top_p"]])),
        tensor("seed", np.uint64([options["seed"]])),
        tensor("n", np.uint8([options["n"]])),
    ]
    result = infer(client, POET, inputs, request_id="mine")
    ours = [output.text for output in generate(server, text_request(PROMPT, **options)).outputs]
    assert result.get_response().id == "mine"
    assert texts(result) == [text.text for text in ours]
    assert [token_ids(row) for row in result.as_numpy("token_ids")] == [
        list(text.token_ids) for text in ours
    ]
    assert texts(result, "finish_reason") == [REASONS[text.finish_reason] for text in ours]
    assert list(result.as_numpy("seed")) == [7, 8]
    # The same as parameters of the request.
    again = infer(client, POET, [tensor("text_input", [PROMPT])], parameters=options)
    assert texts(again) == texts(result)


def test_prompts_of_a_batch_are_as_alone(server, client):
    prompts = [f"写一首关于{topic}的五言绝句\n" for topic in ("秋山", "江上", "明月")]
    seeds = [3, 4, 5]
    inputs = [
        tensor("text_input", prompts, (3, 1)),
        tensor("seed", seeds, (3, 1)),
        tensor("max_tokens", [16]),
    ]
    result = infer(client, POET, inputs, outputs=wanted("token_ids", "text_output"))
    alone = [
        generate(server, text_request(prompt, seed=seed, max_tokens=16)).outputs[0].text
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    assert result.as_numpy("text_output").shape == (3, 1)
    assert texts(result) == [text.text for text in alone]
    ids = result.as_numpy("token_ids").reshape(3, -1)
    assert [token_ids(row) for row in ids] == [list(text.token_ids) for text in alone]
    assert result.as_numpy("seed") is None  # nobody asked for it


def test_stop_strings_and_token_ids(server, client):
    inputs = [tensor("text_input", [PROMPT]), tensor("stop", ["，", "。"]), tensor("seed", [2])]
    result = infer(client, POET, inputs)
    ours = generate(server, text_request(PROMPT, stop=["，", "。"], seed=2)).outputs[0].text
    assert texts(result) == [ours.text] and texts(result, "finish_reason") == ["stop"]

    ids = list(ours.token_ids)
    rows = np.full((2, len(ids)), -1, np.int32)
    rows[0], rows[1, :2] = ids, ids[:2]
    result = infer(
        client, POET, [tensor("input_ids", rows, rows.shape)], parameters={"max_tokens": 3}
    )
    assert result.as_numpy("text_output").shape == (2, 1)


def test_asynchronous_calls(client):
    answers = queue.Queue()
    inputs = [tensor("text_input", [PROMPT]), tensor("max_tokens", [4])]
    for seed in range(4):
        client.async_infer(
            POET,
            [*inputs, tensor("seed", [seed])],
            callback=lambda result, error: answers.put((result, error)),
            request_id=f"a{seed}",
        )
    got = [answers.get(timeout=PATIENCE) for _ in range(4)]
    assert all(error is None for _, error in got)
    assert {result.get_response().id for result, _ in got} == {"a0", "a1", "a2", "a3"}


def test_asyncio(server):
    async def calls():
        async with aio.InferenceServerClient(server.address) as one:
            assert await one.is_model_ready(POET)
            inputs = [tensor("text_input", [PROMPT]), tensor("max_tokens", [4])]
            return await asyncio.gather(*(one.infer(POET, inputs) for _ in range(3)))

    assert all(texts(result) for result in asyncio.run(calls()))


# Pictures.


def test_a_picture_is_that_of_generate(server, client):
    inputs = [tensor("prompt", [LANDSCAPE]), tensor("negative_prompt", ["红日"])]
    options = SMALL | {"seed": 11, "guidance": 3.0, "sampler": "ddim", "count": 2}
    result = infer(
        client, PAINTER, inputs, parameters=options, outputs=wanted("image", "pixels", "seed")
    )
    response = generate(server, picture_request(negative_prompt="红日", **options))
    ours = [output.picture for output in response.outputs]
    assert list(result.as_numpy("image")) == [picture.data for picture in ours]
    assert list(result.as_numpy("seed")) == [11, 12]
    assert result.as_numpy("pixels").shape == (2, 64, 64, 3)
    for painted, picture in zip(result.as_numpy("pixels"), ours, strict=True):
        assert np.array_equal(painted, pixels(picture.data))


def test_pictures_of_a_batch_have_their_own_parameters(server, client):
    inputs = [
        tensor("prompt", [LANDSCAPE, "山水"], (2, 1)),
        tensor("seed", [1, 2], (2, 1)),
        tensor("steps", [3, 5], (2, 1)),
        tensor("format", ["webp", "png"], (2, 1)),
        tensor("width", [64]),
        tensor("height", [64]),
    ]
    result = infer(client, PAINTER, inputs)
    ours = [
        generate(server, request).outputs[0].picture.data
        for request in (
            picture_request(seed=1, steps=3, width=64, height=64, format="PICTURE_FORMAT_WEBP"),
            picture_request("山水", seed=2, steps=5, width=64, height=64),
        )
    ]
    assert [bytes(data) for data in result.as_numpy("image").flat] == ours
    assert result.as_numpy("steps").tolist() == [[3], [5]]
    assert result.as_numpy("pixels") is None  # only when asked for


# Ends.


def running(server):
    return server.metrics().sum("hanmo_requests_running")


def test_cancelling(server):
    answers = queue.Queue()
    with triton.InferenceServerClient(server.address) as one:
        call = one.async_infer(
            PAINTER, endless(), callback=lambda result, error: answers.put((result, error))
        )
        until(lambda: running(server) > 0, "a running request")
        call.cancel()
        result, error = answers.get(timeout=PATIENCE)
        assert result is None and error.status() == "StatusCode.CANCELLED"
        server.wait_idle()


def test_timeout_and_deadline(server, client):
    # As microseconds of the protocol, and as gRPC's deadline.
    error = refused(client.infer, PAINTER, endless(), timeout=200_000)
    assert error.status() == "StatusCode.DEADLINE_EXCEEDED"
    error = refused(client.infer, PAINTER, endless(), client_timeout=0.2)
    assert error.status() == "StatusCode.DEADLINE_EXCEEDED"
    server.wait_idle()


def test_priority_is_tritons(client):
    inputs = [tensor("text_input", [PROMPT]), tensor("max_tokens", [2])]
    assert infer(client, POET, inputs, priority=1).as_numpy("text_output") is not None
    error = refused(infer, client, POET, inputs, priority=500)
    assert "priority" in error.message() and "201" in error.message()


# The documentation.


def blocks(language):
    page = (ROOT / "docs/open-inference-protocol.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_example_of_the_documentation(server, tmp_path):
    (example, _), (printed,) = blocks("python"), blocks("text")
    done = subprocess.run(
        [sys.executable, "-c", example.replace("localhost:8001", server.address)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == printed.strip()
    request = picture_request("一幅水墨画，远处青山一座，秋天", steps=20, guidance=4, seed=7)
    request.picture.ClearField("width")
    request.picture.ClearField("height")
    (output,) = generate(server, request).outputs
    assert (tmp_path / "picture.png").read_bytes() == output.picture.data


def test_the_grpcurl_call_of_the_documentation(server):
    """What grpcurl would send and print: it reads and writes JSON as protobuf does."""
    (command,), (printed,) = blocks("sh"), blocks("json")
    request = json_format.Parse(shlex.split(command)[3], service_pb2.ModelInferRequest())
    stub = service_pb2_grpc.GRPCInferenceServiceStub(server.channel)
    response = stub.ModelInfer(request, timeout=PATIENCE)
    told = json_format.MessageToDict(response, preserving_proto_field_name=True)
    assert told == json.loads(printed)
