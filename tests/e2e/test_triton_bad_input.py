"""Whatever a client of KServe's or Triton's sends, it gets a clear answer that names the tensor."""

import random

import grpc
import numpy as np
import pytest
from calls import LANDSCAPE, PAINTER, POET
from observe import PATIENCE
from triton_calls import infer, refused, tensor, wanted
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.address) as one:
        yield one


# (model, inputs, parameters, words of the error)
BAD = [
    (POET, [], {}, "text_input: is required"),
    (POET, [tensor("text_input", [1, 2])], {}, "text_input: datatype must be BYTES"),
    (POET, [tensor("text_input", ["a", "b"], (1, 2))], {}, "[prompts] or [prompts,1], got [1,2]"),
    (POET, [tensor("text_input", ["a"] * 65)], {}, "1 to 64 prompts, got 65"),
    (POET, [tensor("text_input", ["a"]), tensor("prompt", ["a"])], {}, "inputs: must be of"),
    (POET, [tensor("text_input", ["a"]), tensor("top_p", np.float32([np.nan]))], {}, "top_p: "),
    (POET, [tensor("text_input", ["a"]), tensor("top_p", np.float16([1]))], {}, "FP32 or FP64"),
    (POET, [tensor("text_input", ["a"])], {"max_tokens": 10**9}, "max_tokens: must be in [1, "),
    (POET, [tensor("text_input", ["a"])], {"max_tokens": "9"}, "max_tokens: must be an int64"),
    (POET, [tensor("text_input", ["a"])], {"nonsense": 1}, "parameters: must be of"),
    (POET, [tensor("input_ids", np.int32([10**6]))], {}, "input_ids.* below the vocabulary"),
    (PAINTER, [tensor("prompt", ["a"])], {"width": 65}, "width: must be a multiple of 8"),
    (
        PAINTER,
        [tensor("prompt", ["a"])],
        {"guidance": float("inf")},
        "guidance: must be in [0, 100]",
    ),
    (PAINTER, [tensor("prompt", ["a"])], {"sampler": "heun"}, "sampler: must be one of ddim"),
    (PAINTER, [tensor("prompt", ["山" * 200])], {}, "prompt: must be at most"),
]


@pytest.mark.parametrize(("model", "inputs", "parameters", "words"), BAD)
def test_bad_input_is_refused_by_name(client, model, inputs, parameters, words):
    error = refused(infer, client, model, inputs, parameters=parameters)
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    for part in words.split(".*"):
        assert part in error.message()


def test_requests_that_are_nearly_right_do_no_harm(server):
    """Bytes changed at random, with both calls; each gets an answer, and the server goes on."""
    draw = random.Random(3)
    request = service_pb2.ModelInferRequest(model_name=POET, id="noise")
    for name, datatype, raw in (
        ("text_input", "BYTES", b"\x06\0\0\0" + "山水".encode()),
        ("max_tokens", "INT32", b"\x02\0\0\0"),
        ("top_p", "FP32", b"\0\0\0\x3f"),
    ):
        request.inputs.add(name=name, datatype=datatype, shape=[1])
        request.raw_input_contents.append(raw)
    valid = request.SerializeToString()
    unary = server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    bidi = server.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    assert unary(valid, timeout=PATIENCE)
    codes = set()
    mutants = []
    for _ in range(400):
        mutant = bytearray(valid)
        for _ in range(draw.randint(1, 3)):
            mutant[draw.randrange(len(mutant))] = draw.randrange(256)
        mutants.append(bytes(mutant[: draw.choice((len(mutant), draw.randrange(len(mutant))))]))
        try:
            unary(mutants[-1], timeout=PATIENCE)
        except grpc.RpcError as error:
            codes.add(error.code().name)
    assert codes == {"INVALID_ARGUMENT", "NOT_FOUND"}
    replies = [
        service_pb2.ModelStreamInferResponse.FromString(reply)
        for reply in bidi(iter(mutants), timeout=PATIENCE)
    ]
    last = [
        reply.infer_response.parameters["triton_final_response"].bool_param for reply in replies
    ]
    assert sum(last) == len(mutants)
    server.wait_idle()


def test_pixels_are_bounded(client):
    inputs = [
        tensor("prompt", [LANDSCAPE] * 64),
        tensor("count", np.array([16], np.uint32)),
        tensor("width", np.array([256], np.uint32)),
        tensor("height", np.array([256], np.uint32)),
    ]
    error = refused(infer, client, PAINTER, inputs, outputs=wanted("pixels"))
    assert error.status() == "StatusCode.INVALID_ARGUMENT" and "pixels" in error.message()
