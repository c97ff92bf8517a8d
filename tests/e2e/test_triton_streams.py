"""Triton's streams with NVIDIA's client: many requests in one, each with all its parts or its own
error."""

import contextlib
import queue

import numpy as np
import pytest
from calls import LANDSCAPE, PAINTER, POET, generate, picture_request, text_request
from observe import PATIENCE
from triton_calls import PROMPT, REASONS, SMALL, endless, tensor, texts, wanted
from tritonclient import grpc as triton


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


def test_cancelling_a_stream_ends_all_in_it(server, stream):
    one = stream()
    one.send(PAINTER, endless())
    one.send(POET, [tensor("text_input", [PROMPT] * 2)], parameters={"ignore_eos": True})
    result, error = one.next()
    assert error is None and result.get_response().outputs
    one.client.stop_stream(cancel_requests=True)
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
