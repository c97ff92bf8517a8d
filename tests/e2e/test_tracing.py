"""Requests become traces: W3C trace context in and out, OpenTelemetry spans over OTLP."""

import collections
import json
import queue
import socket
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
from calls import PAINTER, POET, error_of, generate, picture_request, text_request
from hanmo_server import Server
from observe import PATIENCE, until
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2
from tritonclient import grpc as triton

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TEXT_PHASES = ["tokenize", "queue", "prefill", "decode", "send"]
PICTURE_PHASES = ["tokenize", "queue", "denoise", "vae_decode", "picture_encode", "send"]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes OTLP over gRPC, as an OpenTelemetry collector does."""

    def __init__(self):
        self.spans = queue.Queue()
        self.phases = collections.defaultdict(list)  # by their request's span
        self.resource = {}
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def Export(self, request, context):
        for resource in request.resource_spans:
            self.resource = attributes(resource.resource)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.put(span)
        return trace_service_pb2.ExportTraceServiceResponse()

    def request(self):
        """The next request's span and those of its phases, by their start.

        Phases come before their request's span; those of two requests may be mixed."""
        while True:
            span = self.spans.get(timeout=PATIENCE)
            if span.kind == trace_pb2.Span.SPAN_KIND_SERVER:
                phases = self.phases.pop(span.span_id, [])
                assert all(one.trace_id == span.trace_id for one in phases)
                return span, phases
            self.phases[span.parent_span_id].append(span)


def attributes(span):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def traceparent(sampled=True):
    return f"00-{TRACE}-{PARENT}-0{int(sampled)}"


@pytest.fixture(scope="module")
def collector():
    one = Collector()
    yield one
    one.server.stop(None)


@pytest.fixture(scope="module")
def traced(demo_repository, collector, tmp_path_factory):
    log = tmp_path_factory.mktemp("traced") / "server.log"
    endpoint = f"http://127.0.0.1:{collector.port}"
    one = Server(demo_repository, f"--otlp-endpoint={endpoint}", log=log).wait_serving()
    yield one
    one.close()


def call(server, request, **headers):
    rpc = server.generation.Generate.with_call
    return rpc(request, timeout=PATIENCE, metadata=tuple(headers.items()))


@pytest.mark.parametrize(
    ("request_of", "phases"),
    [
        (lambda: text_request(max_tokens=12, ignore_eos=True), TEXT_PHASES),
        (lambda: picture_request(steps=4), PICTURE_PHASES),
    ],
    ids=["text", "picture"],
)
def test_a_request_is_a_span_of_its_callers_trace(traced, collector, request_of, phases):
    request = request_of()
    request.request_id = "traced-1"
    response, rpc = call(traced, request, traceparent=traceparent(), tracestate="vendor=1")
    span, parts = collector.request()
    assert span.name == "hanmo.v1.Generation/Generate"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.trace_state == "vendor=1"
    told = attributes(span)
    assert told["rpc.grpc.status_code"] == 0
    assert told["hanmo.request_id"] == "traced-1"
    assert told["gen_ai.request.model"] == request.model
    assert told["gen_ai.usage.output_tokens"] == response.usage.completion_tokens
    assert told["hanmo.pictures"] == response.usage.pictures
    assert [part.name for part in parts] == phases
    # They follow each other within the request.
    assert parts[0].start_time_unix_nano >= span.start_time_unix_nano - 1_000_000
    for before, after in zip(parts, parts[1:], strict=False):
        assert after.end_time_unix_nano >= before.end_time_unix_nano
    assert parts[-1].end_time_unix_nano <= span.end_time_unix_nano + 1_000_000
    total = response.timings.total.ToTimedelta().total_seconds()
    assert (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 >= total
    answer = dict(rpc.initial_metadata())["traceresponse"]
    assert answer == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert collector.resource["service.name"] == "hanmo"


def test_streams_and_failures_are_traced(traced, collector):
    list(traced.generation.GenerateStream(text_request(max_tokens=3), timeout=PATIENCE))
    span, parts = collector.request()
    assert span.name == "hanmo.v1.Generation/GenerateStream" and not span.parent_span_id
    assert len(parts) == len(TEXT_PHASES)
    assert error_of(generate, traced, text_request(max_tokens=100000))
    span, parts = collector.request()
    assert not parts
    assert attributes(span)["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert span.status.code == trace_pb2.Status.STATUS_CODE_UNSET  # the caller's fault


def test_a_refusal_has_its_trace_in_the_trailers(traced, collector):
    """Headers would be the beginning of an answer, which gRPC's own retries don't repeat."""
    error = error_of(call, traced, text_request(max_tokens=100000), traceparent=traceparent())
    collector.request()
    assert not {key for key, _ in error.initial_metadata()} & {"traceresponse", "x-request-id"}
    assert TRACE in dict(error.trailing_metadata())["traceresponse"]


def test_prompts_of_one_stream_are_traced_each(traced, collector):
    """ModelStreamInfer's calls share their metadata, which is being sent by then."""
    with triton.InferenceServerClient(traced.address) as client:
        answers = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        prompts = triton.InferInput("text_input", [3], "BYTES")
        prompts.set_data_from_numpy(np.array([b"a", b"b", b"c"], dtype=np.object_))
        for _ in range(4):
            client.async_stream_infer(POET, [prompts], parameters={"max_tokens": 3})
        spans, phases = zip(*(collector.request() for _ in range(12)), strict=True)
        client.stop_stream()
    assert all([part.name for part in parts] == TEXT_PHASES for parts in phases)
    assert {span.name for span in spans} == {"inference.GRPCInferenceService/ModelStreamInfer"}


def test_who_never_ran_has_no_phase_of_running(traced, collector):
    """Once the server knows what steps cost, it refuses at once what can't be done in time."""
    generate(traced, picture_request(steps=4, width=256, height=256))
    collector.request()
    error = error_of(
        traced.generation.Generate, picture_request(steps=900, width=256, height=256), timeout=1
    )
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    _, parts = collector.request()
    assert not {part.name for part in parts} & {"prefill", "decode", "denoise", "vae_decode"}


def test_a_collector_that_hangs_does_not_hold_the_end_up(start_server):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        server = start_server(f"--otlp-endpoint=http://127.0.0.1:{deaf.getsockname()[1]}")
        call(server, text_request(max_tokens=2))
        start = time.monotonic()
        server.terminate()
        assert server.wait_exit() == 0
        assert time.monotonic() - start < 6


def test_no_prompt_is_in_a_trace(traced, collector):
    call(traced, text_request("不可外传的话", max_tokens=3))
    span, parts = collector.request()
    assert "不可外传".encode() not in b"".join(one.SerializeToString() for one in (span, *parts))


def test_callers_decide_what_is_traced(traced, collector):
    _, rpc = call(traced, text_request(max_tokens=2), traceparent=traceparent(sampled=False))
    assert dict(rpc.initial_metadata())["traceresponse"].endswith("-00")
    _, rpc = call(traced, text_request(max_tokens=2), traceparent="malformed")
    span, _ = collector.request()
    assert span.trace_id.hex() != TRACE and not span.parent_span_id
    assert collector.spans.empty()


def test_the_log_has_the_trace_id_with_and_without_a_collector(start_server):
    server = start_server("--log-format=json")
    call(server, text_request(max_tokens=2), traceparent=traceparent())
    until(lambda: TRACE in server.log(), "the log")
    (line,) = (line for line in server.log().splitlines() if TRACE in line)
    assert json.loads(line)["trace_id"] == TRACE


def test_a_collector_that_is_away_costs_no_request(start_server):
    server = start_server("--otlp-endpoint=http://127.0.0.1:1", "--trace-one-in=1")
    for model in (POET, PAINTER):
        request = text_request(max_tokens=2) if model == POET else picture_request(steps=2)
        assert call(server, request)[0].outputs
    until(lambda: "traces are not delivered" in server.log(), "the complaint")
    server.terminate()
    assert server.wait_exit() == 0
