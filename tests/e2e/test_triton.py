"""KServe's and Triton's clients work as they are: every call of theirs, with NVIDIA's own client, and
the same bytes as hanmo.v1.Generation."""

import asyncio
import contextlib
import json
import queue
import random
import re
import shlex
import subprocess
import sys

import grpc
import numpy as np
import pytest
from calls import LANDSCAPE, PAINTER, POEM, POET, generate, picture_request, pixels, text_request
from contract import ROOT
from google.protobuf import json_format
from observe import PATIENCE, until
from tritonclient import grpc as triton
from tritonclient.grpc import aio, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

PROMPT = POEM + "\n"
SMALL = {"width": 64, "height": 64, "steps": 4}
REASONS = ["unspecified", "eos", "stop", "length"]  # as FinishReason counts


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.address) as one:
        yield one


def tensor(name, values, shape=None):
    """Strings become BYTES, the rest what NumPy calls it."""
    array = np.asarray(values)
    if array.dtype.kind in "US":
        array = np.array([str(value).encode() for value in array.flat], dtype=np.object_)
    array = array.reshape(shape or (-1,))
    one = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    one.set_data_from_numpy(array)
    return one


def wanted(*names):
    return [triton.InferRequestedOutput(name) for name in names]


def infer(client, model, inputs, **options):
    return client.infer(model, inputs, client_timeout=PATIENCE, **options)


def texts(result, name="text_output"):
    return [value.decode() for value in result.as_numpy(name).flat]


def token_ids(row):
    return [int(i) for i in row if i >= 0]


def refused(call, *arguments, **options):
    with pytest.raises(InferenceServerException) as error:
        call(*arguments, **options)
    return error.value


# The server and its models.


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


# Streams.


class Stream:
    """A stream of its own, whose responses wait in a queue."""

    def __init__(self, server, **options):
        self.client = triton.InferenceServerClient(server.address)
        self._responses = queue.Queue()
        self.client.start_stream(
            lambda result, error: self._responses.put((result, error)), **options
        )

    def send(self, model, inputs, **options):
        self.client.async_stream_infer(model, inputs, **options)

    def next(self):
        return self._responses.get(timeout=PATIENCE)

    def all(self):
        """The responses to one request; the last says that it is."""
        results = []
        while not results or not is_final(results[-1]):
            result, error = self.next()
            assert error is None, error
            results.append(result)
        return results


def is_final(result):
    return result.get_response().parameters["triton_final_response"].bool_param


def index_of(result):
    return result.get_response().parameters["index"].int64_param


@pytest.fixture
def stream(server):
    with contextlib.ExitStack() as stack:

        def start(**options):
            one = Stream(server, **options)
            stack.callback(one.client.close)
            stack.callback(one.client.stop_stream)
            return one

        yield start


def test_a_stream_of_text_joins_to_the_whole(server, stream):
    options = {"max_tokens": 30, "seed": 5, "n": 2}
    one = stream()
    one.send(POET, [tensor("text_input", [PROMPT])], parameters=options, request_id="s")
    results = one.all()
    response = generate(server, text_request(PROMPT, **options))
    for index, output in enumerate(response.outputs):
        mine = [result for result in results if index_of(result) == index]
        assert "".join(t for r in mine for t in texts(r)) == output.text.text
        ids = [
            i
            for r in mine
            if r.as_numpy("token_ids") is not None
            for i in r.as_numpy("token_ids").flat
        ]
        assert ids == list(output.text.token_ids)
        assert texts(mine[-1], "finish_reason") == [REASONS[output.text.finish_reason]]
    assert len(results) > 4  # it came in parts
    assert {result.get_response().id for result in results} == {"s"}


def test_the_empty_last_response(stream):
    one = stream()
    inputs = [tensor("text_input", [PROMPT]), tensor("max_tokens", [3])]
    one.send(POET, inputs, enable_empty_final_response=True)
    *parts, last = one.all()
    assert parts and not last.get_response().outputs
    one.send(POET, inputs)
    assert one.all()[-1].get_response().outputs
    # All at once: one response, and the empty one where it is asked for.
    one.send(POET, inputs, parameters={"stream": False})
    assert len(one.all()) == 1
    one.send(POET, inputs, parameters={"stream": False}, enable_empty_final_response=True)
    assert len(one.all()) == 2


def test_a_streamed_picture_tells_its_steps(server, stream):
    one = stream()
    one.send(PAINTER, [tensor("prompt", [LANDSCAPE])], parameters=SMALL | {"seed": 3, "steps": 6})
    *progress, last = one.all()
    steps = [int(result.as_numpy("step")[0]) for result in progress]
    assert steps == sorted(steps) and steps[-1] == int(progress[-1].as_numpy("steps")[0])
    ours = generate(server, picture_request(seed=3, **(SMALL | {"steps": 6})))
    assert last.as_numpy("image")[0] == ours.outputs[0].picture.data
    one.send(PAINTER, [tensor("prompt", [LANDSCAPE])], parameters=SMALL, outputs=wanted("image"))
    assert len(one.all()) == 1  # no progress where nobody asks for it


def test_requests_of_a_stream_fail_alone(stream):
    one = stream()
    one.send(POET, [tensor("text_input", [PROMPT]), tensor("temperature", np.float32([-1]))])
    result, error = one.next()
    assert result is None and "temperature: must be in [0, 100], got -1" in error.message()
    one.send(POET, [tensor("text_input", [PROMPT]), tensor("max_tokens", [3])])
    assert one.all()


def test_errors_end_the_stream_for_those_who_ask(stream):
    one = stream(headers={"triton_grpc_error": "true"})
    one.send(POET, [tensor("text_input", [""])])
    result, error = one.next()
    assert result is None and error.status() == "StatusCode.INVALID_ARGUMENT"
    assert "text_input: must not be empty" in error.message()


# Ends.


def endless():
    """A picture that takes far longer than a test."""
    return [tensor("prompt", [LANDSCAPE]), tensor("steps", [900]), tensor("width", [256])]


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


def test_cancelling_a_stream_ends_all_in_it(server, stream):
    one = stream()
    one.send(PAINTER, endless())
    one.send(POET, [tensor("text_input", [PROMPT] * 2)], parameters={"ignore_eos": True})
    result, error = one.next()
    assert error is None and result.get_response().outputs
    one.client.stop_stream(cancel_requests=True)
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


def test_a_server_ends_though_a_stream_is_kept_open(start_server):
    server = start_server()
    one = Stream(server)
    one.send(POET, [tensor("text_input", [PROMPT]), tensor("max_tokens", [2])])
    assert one.all()
    server.terminate()
    result, error = one.next()
    assert result is None and error.status() == "StatusCode.UNAVAILABLE"
    assert server.wait_exit() == 0
    one.client.stop_stream()
    one.client.close()


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


# The documentation.


def blocks(language):
    page = (ROOT / "docs/open-inference-protocol.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_pixels_are_bounded(client):
    inputs = [
        tensor("prompt", [LANDSCAPE] * 64),
        tensor("count", np.array([16], np.uint32)),
        tensor("width", np.array([256], np.uint32)),
        tensor("height", np.array([256], np.uint32)),
    ]
    error = refused(infer, client, PAINTER, inputs, outputs=wanted("pixels"))
    assert error.status() == "StatusCode.INVALID_ARGUMENT" and "pixels" in error.message()


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
