"""hanmo-gateway: hanmo's calls as JSON, and what HTTP asks for around them."""

import base64
import contextlib
import http.client
import json
import re
import ssl

import openai
import pytest
from calls import LANDSCAPE, PAINTER, POEM, POET, text_request, write
from certificates import Authority
from contract import ROOT
from grpc import ssl_channel_credentials
from http_gateway import Gateway, openai_client
from observe import PATIENCE, until


# hanmo's own calls.


def test_own_calls_as_json(gateway, server):
    request = {"model": POET, "prompt": POEM + "\n", "text": {"seed": "5", "maxTokens": 20}}
    reply = gateway.call("/hanmo/v1/generate", request, X_Request_Id="mine")
    text = write(server, text_request(seed=5, max_tokens=20))
    (output,) = reply.json()["outputs"]
    assert output["text"]["text"] == text.text and output["text"]["seed"] == "5"
    assert reply.headers["X-Request-Id"] == reply.json()["requestId"] == "mine"

    stream = gateway.call("/hanmo/v1/generate:stream", request)
    assert stream.headers["Content-Type"] == "text/event-stream"
    events = [data for _, data in stream.events()]
    assert "queued" in events[0] and events[-1]["final"]["outputs"] == [output]
    assert "".join(e["text"]["text"] for e in events if "text" in e) == text.text

    ids = gateway.call("/hanmo/v1/tokenize", {"model": POET, "text": POEM}).json()["ids"]
    back = gateway.call("/hanmo/v1/detokenize", {"model": POET, "ids": ids}).json()
    assert back["text"] == POEM
    assert b"".join(map(base64.b64decode, back["pieces"])).decode() == POEM

    names = [m["name"] for m in gateway.call("/hanmo/v1/models").json()["models"]]
    assert POET in names and PAINTER in names
    assert gateway.call(f"/hanmo/v1/models/{POET}").json()["text"]["contextTokens"] == 256


@pytest.mark.parametrize("path", ["generate", "generate:stream"])
def test_own_errors_carry_the_details_of_grpc(gateway, path):
    reply = gateway.call(f"/hanmo/v1/{path}", {"model": POET, "prompt": POEM, "text": {"topP": 2}})
    assert reply.status == 400 and reply.json()["code"] == 3
    (detail,) = reply.json()["details"]
    assert detail["@type"].endswith("google.rpc.BadRequest")
    assert detail["fieldViolations"][0]["field"] == "text.top_p"
    assert gateway.call("/hanmo/v1/models/nobody").status == 404
    assert gateway.call("/hanmo/v1/requests/nobody:cancel", {}).status == 404


# Load, deadlines, clients that leave.

ENDLESS = {"model": PAINTER, "prompt": LANDSCAPE, "size": "256x256", "steps": 900, "seed": 1}


@pytest.fixture
def full(start_server, start_gateway):
    """A server with one request running and one waiting: there is no room for a third."""
    server = start_server("--max-running-samples=1", "--max-queued-requests=1", "--policy=fcfs")
    gateway = start_gateway(server)
    streams = []
    for running, waiting in ((1, 0), (1, 1)):
        streams.append(gateway.open("/v1/images/generations", ENDLESS | {"stream": True}))

        def there(running=running, waiting=waiting):
            now = server.metrics()
            return (
                now.sum("hanmo_requests_running") == running
                and now.sum("hanmo_requests_waiting") == waiting
            )

        until(there, "a full server")
    yield server, gateway, streams
    for stream in streams:
        stream.close()
    server.wait_idle()


def test_a_full_server_says_when_to_come_back(full):
    _, gateway, _ = full
    for stream in (False, True):
        with openai_client(gateway) as client, pytest.raises(openai.RateLimitError) as error:
            client.images.generate(model=PAINTER, prompt=LANDSCAPE, stream=stream)
        assert error.value.code == "rate_limit_exceeded"
        assert int(error.value.response.headers["retry-after"]) >= 1
    reply = gateway.call("/hanmo/v1/generate", {"model": PAINTER, "prompt": LANDSCAPE})
    assert reply.status == 429 and int(reply.headers["Retry-After"]) >= 1
    assert reply.json()["code"] == 8


def test_a_client_that_leaves_cancels_its_request(full):
    server, gateway, streams = full
    cancelled = lambda: server.metrics().sum("hanmo_cancelled_total", model=PAINTER)  # noqa: E731
    streams[0].close()
    until(lambda: cancelled() == 1, "the stream's end")
    # One that waits for a whole answer, too.
    streams[1].close()
    until(lambda: cancelled() == 2, "the second one's end")
    connection = http.client.HTTPConnection(gateway.address)
    connection.request(
        "POST",
        "/v1/images/generations",
        body=json.dumps(ENDLESS),
        headers={"Content-Type": "application/json"},
    )
    until(lambda: server.metrics().sum("hanmo_requests_running") == 1, "it runs")
    connection.close()
    until(lambda: cancelled() == 3, "its end")


def test_cancel_by_id(full):
    server, gateway, streams = full
    request_id = streams[0].headers["X-Request-Id"]
    reply = gateway.call(f"/hanmo/v1/requests/{request_id}:cancel", {})
    assert reply.json() == {"requests": 1}
    assert b'"code":"cancelled"' in streams[0].read()
    # What waited runs now.
    until(lambda: server.metrics().sum("hanmo_requests_waiting") == 0, "the next one's turn")


def test_a_deadline_in_a_header(gateway, server):
    reply = gateway.call("/v1/images/generations", ENDLESS, X_Request_Timeout="0.2")
    assert reply.status in (429, 504), reply.text
    server.wait_idle()


def test_headers_reach_the_server(start_server, start_gateway):
    """The tenant is whom the prefix cache serves: another one's text is computed anew."""
    server = start_server()
    gateway = start_gateway(server, environment={"HANMO_GATEWAY_REQUEST_TIMEOUT": "1m"})
    request = {"model": POET, "messages": [{"role": "user", "content": POEM * 4}], "max_tokens": 2}

    def cached(tenant):
        reply = gateway.call("/v1/chat/completions", request, X_Tenant=tenant)
        return reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached("a") == 0
    assert cached("a") > 0
    assert cached("b") == 0
    assert gateway.call("/v1/chat/completions", request, X_Tenant="no tenant").status == 400


# Operation.


def test_health_and_metrics(start_server, start_gateway):
    server = start_server()
    gateway = start_gateway(server, f"--upstream-metrics={server.metrics_address}")
    assert gateway.call("/health").status == gateway.call("/health/live").status == 200
    metrics = gateway.metrics()
    assert metrics.sum("hanmo_gateway_requests_total", route="GET /health", code="200") == 1
    assert metrics.sum("hanmo_gateway_upstream_metrics_up") == 1
    assert server.metrics().names() <= metrics.names()
    own = {name for name in metrics.names() if name.startswith("hanmo_gateway_")}
    assert own == set(re.findall(r"hanmo_gateway_\w+", (ROOT / "docs/http.md").read_text()))
    server.terminate()
    server.wait_exit()
    assert gateway.call("/health").status == 503
    assert gateway.call("/health/live").status == 200
    assert gateway.metrics().sum("hanmo_gateway_upstream_metrics_up") == 0
    reply = gateway.call("/v1/completions", {"model": POET, "prompt": POEM})
    assert reply.status == 503 and reply.headers["Retry-After"]


def test_term_lets_streams_finish(server, start_gateway):
    gateway = start_gateway(server, "--shutdown-delay=300ms")

    def draining():
        try:
            return gateway.call("/health").status == 503
        except OSError:
            return True  # further on: it takes no more connections

    request = {"model": POET, "prompt": POEM, "max_tokens": 200, "ignore_eos": True}
    with gateway.open("/v1/completions", request | {"stream": True}) as stream:
        head = stream.readline()
        gateway.terminate()
        until(draining, "the drain")
        rest = stream.read()
    assert head and rest.endswith(b"data: [DONE]\n\n")
    assert gateway.process.wait(PATIENCE) == 0


def test_a_second_term_ends_at_once(full):
    _, gateway, streams = full
    gateway.terminate()
    until(lambda: "draining" in gateway.log(), "the drain")
    gateway.terminate()
    assert gateway.process.wait(PATIENCE) == 0
    with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
        assert b"[DONE]" not in streams[0].read()


def test_tls_on_both_sides(start_server, start_gateway, tmp_path):
    authority = Authority(tmp_path / "authority")
    (key, certificate), (client_key, client_certificate) = map(authority.issue, ("one", "two"))
    ca = authority.certificate
    server = start_server(
        f"--tls-cert={certificate}",
        f"--tls-key={key}",
        f"--tls-client-ca={ca}",
        credentials=ssl_channel_credentials(
            ca.read_bytes(), client_key.read_bytes(), client_certificate.read_bytes()
        ),
    )
    context = ssl.create_default_context(cafile=ca)
    gateway = start_gateway(
        server,
        f"--tls-cert={certificate}",
        f"--tls-key={key}",
        f"--tls-client-ca={ca}",
        "--upstream-tls",
        f"--upstream-tls-ca={ca}",
        f"--upstream-tls-cert={client_certificate}",
        f"--upstream-tls-key={client_key}",
        scheme="https",
        context=context,
    )
    with pytest.raises((ssl.SSLError, OSError)):
        gateway.call("/health/live")  # shows no certificate
    context.load_cert_chain(client_certificate, client_key)
    assert gateway.call("/health").status == 200
    assert gateway.call("/v1/completions", {"model": POET, "prompt": POEM}).json()["choices"]


def test_what_cannot_be_used_is_named(tmp_path):
    for option, word in (
        ("--tls-cert=/nowhere", "--tls-key"),
        ("--listen=nowhere:x", "--listen"),
        ("--colour=red", "colour"),
    ):
        with pytest.raises(RuntimeError, match=re.escape(word)):
            Gateway("127.0.0.1:1", option, log=tmp_path / "log")
