"""Whatever a client sends, it gets a clear answer that names the field, and nothing dies."""

import contextlib
import random
import socket
import threading

import grpc
import pytest
from bad_requests import CASES
from calls import (
    PAINTER,
    POET,
    error_details,
    error_of,
    generate,
    picture_request,
    text_request,
    violations,
)
from contract import generation_pb2, models_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("request_", "field", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_every_bad_field_is_named_with_its_range(server, request_, field, words):
    for method in (server.generation.Generate, server.generation.GenerateStream):
        error = error_of(method, request_, timeout=60)
        assert error.code() == INVALID, error.details()
        found = violations(error)
        assert field in found, found
        assert words in found[field]
        assert f"{field}: {found[field]}" in error.details()


def test_limits_that_only_the_sampler_knows(server):
    """PNDM of this checkpoint has no thousandth step: diffusers fails there, too."""
    request = picture_request(steps=1000, sampler="pndm")
    error = error_of(generate, server, request)
    assert error.code() == INVALID
    assert "ask for fewer" in violations(error)["picture.steps"]


def test_all_faults_of_a_request_are_told_at_once(server):
    error = error_of(
        generate,
        server,
        picture_request("", steps=0, width=3, guidance=-1, sampler="x", request_id="?"),
    )
    assert set(violations(error)) == {
        "request_id",
        "prompt",
        "picture.steps",
        "picture.width",
        "picture.guidance",
        "picture.sampler",
    }


@pytest.mark.parametrize(
    "name",
    ["taiyi", "../taiyi-sd-tiny", "/etc/passwd", "a" * 5000, "山", "\x00", "taiyi-sd-tiny/", "."],
)
def test_unknown_models_are_not_found(server, name):
    for request in (text_request(model=name), picture_request(model=name)):
        error = error_of(generate, server, request)
        assert error.code() == grpc.StatusCode.NOT_FOUND and "model" in error.details()
        assert len(error.details()) < 300
    error = error_of(
        server.models.DescribeModel, models_pb2.DescribeModelRequest(name=name), timeout=60
    )
    assert error.code() == grpc.StatusCode.NOT_FOUND
    error = error_of(
        server.generation.Tokenize, generation_pb2.TokenizeRequest(model=name, text="a"), timeout=60
    )
    assert error.code() == grpc.StatusCode.NOT_FOUND


def test_bad_calls_of_the_other_methods(server):
    calls = [
        (server.models.DescribeModel, models_pb2.DescribeModelRequest(), INVALID, "name"),
        (server.generation.Tokenize, generation_pb2.TokenizeRequest(text="a"), INVALID, "model"),
        (
            server.generation.Tokenize,
            generation_pb2.TokenizeRequest(model=POET, text="a" * ((1 << 20) + 1)),
            INVALID,
            "text",
        ),
        (
            server.generation.Tokenize,
            generation_pb2.TokenizeRequest(model="golden-gpt2-bin", text="a"),
            grpc.StatusCode.UNIMPLEMENTED,
            "no tokenizer",
        ),
        (
            server.generation.Detokenize,
            generation_pb2.DetokenizeRequest(model=POET, ids=[1, 4387]),
            INVALID,
            "ids[1]",
        ),
        (
            server.generation.Detokenize,
            generation_pb2.DetokenizeRequest(model=POET, ids=[1] * ((1 << 20) + 1)),
            INVALID,
            "ids",
        ),
    ]
    for method, request, code, words in calls:
        error = error_of(method, request, timeout=60)
        assert error.code() == code and words in error.details(), error.details()


def field_bytes(number, value):
    """A length-delimited field as the wire has it."""
    length, coded = len(value), b""
    while length > 127:
        coded, length = coded + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + coded + bytes([length]) + value


def raw_call(server, method, data):
    return server.channel.unary_unary(method, bytes, bytes)(data, timeout=60)


GENERATE = "/hanmo.v1.Generation/Generate"
BROKEN_UTF8 = [b"\xff\xfe", b"\xe5\xb1", b"\xc0\xaf", b"\xed\xa0\x80", "山".encode() + b"\x80"]


@pytest.mark.parametrize("text", BROKEN_UTF8)
def test_broken_utf8_is_named(server, text):
    model = field_bytes(1, POET.encode())
    messages = [
        (field_bytes(1, text), "model"),
        (model + field_bytes(2, text), "request_id"),
        (model + field_bytes(3, text), "prompt"),
        (
            model + field_bytes(4, field_bytes(1, field_bytes(1, b"user") + field_bytes(2, text))),
            "chat.messages.content",
        ),
        (model + field_bytes(3, b"a") + field_bytes(7, field_bytes(10, text)), "text.stop"),
        (
            field_bytes(1, PAINTER.encode())
            + field_bytes(3, b"a")
            + field_bytes(8, field_bytes(1, text)),
            "picture.negative_prompt",
        ),
    ]
    for data, field in messages:
        error = error_of(raw_call, server, GENERATE, data)
        assert error.code() == INVALID
        assert field in error.details() and "UTF-8" in error.details(), error.details()
    error = error_of(
        raw_call, server, "/hanmo.v1.Generation/Tokenize", model + field_bytes(2, text)
    )
    assert error.code() == INVALID and "text" in error.details()


def test_bytes_that_are_no_message(server):
    draw = random.Random(1)
    messages = [b"\x0a", b"\xff" * 20, b"\x1a\xff\xff\xff\xff\x0f"]
    messages += [draw.randbytes(draw.randint(1, 200)) for _ in range(200)]
    for data in messages:
        for method in (
            GENERATE,
            "/hanmo.v1.Models/DescribeModel",
            "/hanmo.v1.Generation/Tokenize",
            "/hanmo.v1.Generation/Detokenize",
        ):
            error = error_of(raw_call, server, method, data)
            assert error.code() in (INVALID, grpc.StatusCode.NOT_FOUND), (data, error.details())


def test_mutated_requests_end_clearly(server):
    """Bits of a good request are flipped; it may still be good."""
    draw = random.Random(2)
    good = bytearray(
        text_request(max_tokens=3, stop=["ab"], logit_bias={3: 1.0}, seed=5).SerializeToString()
    )
    allowed = {INVALID, grpc.StatusCode.NOT_FOUND}
    for _ in range(400):
        data = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        try:
            raw_call(server, GENERATE, bytes(data))
        except grpc.RpcError as error:
            assert error.code() in allowed, (bytes(data), error.code(), error.details())


def test_unknown_methods_and_fields(server):
    error = error_of(raw_call, server, "/hanmo.v1.Generation/Nothing", b"")
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    unknown = b"\xfa\x3e\x01x"  # field 1007
    request = text_request(max_tokens=2, seed=1).SerializeToString()
    assert raw_call(server, GENERATE, request + unknown)


def test_oversized_messages_are_refused(start_server):
    server = start_server("--max-message-bytes=256KiB")
    error = error_of(generate, server, text_request("x" * (300 << 10)))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "max-message-bytes" in error.details() or "262144" in error.details()
    assert generate(server, text_request(max_tokens=2)).outputs


def send_and_forget(port, data):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as peer:
        peer.settimeout(5)
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass


def test_noise_on_the_ports_disturbs_nobody(start_server):
    """Random bytes, HTTP/1, TLS and torn HTTP/2 on both ports, beside a good client."""
    server = start_server()
    port = int(server.address.rpartition(":")[2])
    metrics_port = int(server.metrics_address.rpartition(":")[2])
    draw = random.Random(3)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"

    def noise():
        kind = draw.randrange(6)
        data = draw.randbytes(draw.randint(1, 2000))
        if kind == 0:
            return data
        if kind == 1:
            return b"GET / HTTP/1.1\r\nHost: x\r\n" + data
        if kind == 2:
            return b"\x16\x03\x01" + data
        if kind == 3:
            return preface + data
        frame = len(data).to_bytes(3, "big") + bytes([draw.randrange(10), draw.randrange(256)])
        stream = draw.randrange(4).to_bytes(4, "big")
        return preface + settings + frame + stream + (data if kind == 4 else data[:10])

    failures, served, end = [], [], threading.Event()

    def good_client():
        stub = server.new_generation()
        while not end.is_set() or len(served) < 10:
            try:
                served.append(stub.Generate(text_request(max_tokens=3, seed=1), timeout=60))
            except grpc.RpcError as error:
                failures.append(error)
                return

    client = threading.Thread(target=good_client)
    client.start()
    for _ in range(300):
        send_and_forget(port, noise())
        send_and_forget(metrics_port, noise())
    end.set()
    client.join()
    assert not failures
    assert server.process.poll() is None
    assert server.metrics().sum("hanmo_requests_total", code="OK") == len(served)


def test_a_full_queue_refuses_with_a_retry_hint(start_server):
    server = start_server("--max-queued-requests=2", "--max-running-samples=1")
    requests = [picture_request(steps=40, width=128, height=128, seed=i) for i in range(8)]
    calls = [server.generation.Generate.future(request, timeout=60) for request in requests]
    errors = [call.exception() for call in calls]
    refused = [error for error in errors if error is not None]
    assert 0 < len(refused) <= 6
    for error in refused:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error_details(error)["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
    metrics = server.metrics()
    assert metrics.sum("hanmo_rejected_total", reason="queue_full") == len(refused)


def test_nothing_is_lost_afterwards(server):
    """After all of the above on the shared server."""
    server.wait_idle()
    assert server.process.poll() is None
    assert server.metrics().sum("hanmo_worker_restarts_total") == 0
    assert generate(server, text_request(max_tokens=2)).outputs
    assert generate(server, picture_request()).outputs
