"""hanmo-gateway: OpenAI's own client, hanmo's calls as JSON, and what HTTP asks for around them."""

import base64
import contextlib
import http.client
import json
import re
import ssl
import subprocess
import threading

import openai
import pytest
import schemathesis
from calls import (
    LANDSCAPE,
    PAINTER,
    POEM,
    POET,
    chat_request,
    paint,
    picture_request,
    pixels,
    text_request,
    write,
)
from certificates import Authority
from contract import ROOT
from grpc import ssl_channel_credentials
from http_gateway import Gateway
from hypothesis import HealthCheck, settings
from observe import PATIENCE, until

QUESTION = [{"role": "user", "content": POEM}]
SMALL = {"size": "64x64", "extra_body": {"steps": 4, "seed": 3}}


@pytest.fixture(scope="module")
def gateway(server, tmp_path_factory):
    """In front of the shared server."""
    log = tmp_path_factory.mktemp("gateway") / "gateway.log"
    one = Gateway(server.address, f"--upstream-metrics={server.metrics_address}", log=log)
    yield one
    one.close()


@pytest.fixture
def start_gateway(tmp_path):
    with contextlib.ExitStack() as stack:

        def start(server, *options, **more):
            one = Gateway(server.address, *options, log=tmp_path / "gateway.log", **more)
            stack.callback(one.close)
            return one

        yield start


def client_of(gateway):
    return openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE
    )


@pytest.fixture(scope="module")
def client(gateway):
    with client_of(gateway) as one:
        yield one


# OpenAI's client.


def test_models(client):
    names = [model.id for model in client.models.list()]
    assert PAINTER in names and POET in names and names == sorted(names)
    assert client.models.retrieve(POET).id == POET
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("nobody")
    assert error.value.code == "model_not_found"


def test_chat_is_what_grpc_gives(client, server):
    answer = client.chat.completions.create(
        model=POET, messages=QUESTION, seed=7, max_completion_tokens=60
    )
    text = write(server, chat_request(("user", POEM), seed=7, max_tokens=60))
    (choice,) = answer.choices
    assert choice.message.content == text.text and choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length") and choice.logprobs is None
    assert answer.usage.completion_tokens == len(text.token_ids)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + len(text.token_ids)
    assert answer.system_fingerprint == f"{POET}:1"


def test_chat_streams_the_same_text(client):
    request = {"model": POET, "messages": QUESTION, "seed": 7, "n": 2, "max_tokens": 40}
    whole = client.chat.completions.create(**request)
    texts, ends, usage = ["", ""], {}, None
    with client.chat.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    ) as chunks:
        for chunk in chunks:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    ends[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert texts[0] != texts[1]


def test_a_conversation_goes_on_from_an_answer(client):
    answer = client.chat.completions.create(model=POET, messages=QUESTION, max_tokens=8)
    turns = [*QUESTION, answer.choices[0].message, *QUESTION]
    assert client.chat.completions.create(model=POET, messages=turns, max_tokens=8).choices


def test_chats_of_a_form(client):
    schema = {
        "type": "object",
        "properties": {"诗": {"type": "string", "maxLength": 8}},
        "required": ["诗"],
        "additionalProperties": False,
    }
    named = {"name": "poem", "strict": True, "schema": schema}
    answer = client.chat.completions.create(
        model=POET,
        messages=QUESTION,
        seed=7,
        response_format={"type": "json_schema", "json_schema": named},
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"诗"}
    assert answer.choices[0].finish_reason == "stop"
    for extra in ({"guided_choice": ["是", "否"]}, {"structured_outputs": {"regex": "是|否"}}):
        answer = client.chat.completions.create(model=POET, messages=QUESTION, extra_body=extra)
        assert answer.choices[0].message.content in ("是", "否")
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=POET, prompt="山", extra_body={"guided_regex": "("})
    assert error.value.param == "guided_regex" and "unclosed" in str(error.value)


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_of_chats_spell_the_text(client, stream):
    answer = client.chat.completions.create(
        model=POET,
        messages=QUESTION,
        seed=7,
        max_tokens=30,
        logprobs=True,
        top_logprobs=2,
        stream=stream,
        extra_body={"ignore_eos": True, "logit_bias": {"4386": -100}},
    )
    choices = [c for chunk in answer for c in chunk.choices] if stream else answer.choices
    tokens = [token for c in choices if c.logprobs for token in c.logprobs.content]
    text = "".join((c.delta if stream else c.message).content or "" for c in choices)
    assert len(tokens) == 30 and all(len(token.top_logprobs) == 2 for token in tokens)
    spelled = bytes(b for token in tokens for b in token.bytes).decode(errors="ignore")
    assert spelled.startswith(text.rstrip("\ufffd")) and text
    for token in tokens:
        assert token.logprob <= 0
        assert token.top_logprobs[0].logprob >= max(token.logprob, token.top_logprobs[1].logprob)


def test_completions(client, server):
    request = {"model": POET, "prompt": POEM + "\n", "seed": 5, "max_tokens": 40}
    whole = client.completions.create(**request, logprobs=1)
    text = write(server, text_request(seed=5, max_tokens=40))
    (choice,) = whole.choices
    assert choice.text == text.text
    assert len(choice.logprobs.tokens) == len(text.token_ids)
    assert choice.logprobs.text_offset[0] == 0
    with client.completions.create(**request, stream=True) as chunks:
        assert "".join(chunk.choices[0].text for chunk in chunks) == text.text
    stopped = client.completions.create(**request, stop=[text.text[3]]).choices[0]
    assert stopped.text == text.text[: text.text.index(text.text[3])]
    assert stopped.finish_reason == "stop"
    cut = client.completions.create(**request | {"max_tokens": 2}).choices[0]
    assert cut.finish_reason == "length"


def test_completions_of_token_ids(client, gateway, server):
    ids = gateway.call("/hanmo/v1/tokenize", {"model": POET, "text": POEM + "\n"}).json()["ids"]
    answer = client.completions.create(model=POET, prompt=ids, seed=5, max_tokens=20)
    assert answer.choices[0].text == write(server, text_request(seed=5, max_tokens=20)).text


def test_images_are_what_grpc_paints(client, server):
    answer = client.images.generate(model=PAINTER, prompt=LANDSCAPE, n=2, **SMALL)
    assert answer.size == "64x64" and answer.output_format == "png"
    for i, image in enumerate(answer.data):
        picture = paint(server, picture_request(seed=3 + i))
        assert base64.b64decode(image.b64_json) == picture.data and image.seed == 3 + i
    answer = client.images.generate(
        model=PAINTER, prompt=LANDSCAPE, output_format="webp", output_compression=50, **SMALL
    )
    file = base64.b64decode(answer.data[0].b64_json)
    assert file[8:12] == b"WEBP" and pixels(file).shape == (64, 64, 3)


def test_images_stream_with_partial_ones(client, server):
    events = list(
        client.images.generate(
            model=PAINTER, prompt=LANDSCAPE, stream=True, partial_images=2, **SMALL
        )
    )
    assert [event.type for event in events] == [
        *["image_generation.partial_image"] * 2,
        "image_generation.completed",
    ]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert pixels(base64.b64decode(events[0].b64_json)).size
    assert base64.b64decode(events[-1].b64_json) == paint(server, picture_request(seed=3)).data


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": 101}, "temperature"),
        ({"n": 17}, "n"),
        ({"max_completion_tokens": 10000}, "max_completion_tokens"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": [""]}, "stop[0]"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
        ({"messages": []}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ],
)
def test_chat_errors_name_the_field(client, change, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**{"model": POET, "messages": QUESTION} | change)
    assert error.value.param == param and param in error.value.message
    assert error.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"size": "65x64"}, "size"),
        ({"size": "large"}, "size"),
        ({"n": 17}, "n"),
        ({"output_compression": 50}, "output_compression"),  # of a PNG
        ({"extra_body": {"steps": 1001}}, "steps"),
        ({"response_format": "url"}, "response_format"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_image_errors_name_the_field(client, change, param, stream):
    request = {"model": PAINTER, "prompt": LANDSCAPE, "stream": stream} | change
    with pytest.raises(openai.BadRequestError) as error:
        client.images.generate(**request)
    assert error.value.param == param


def test_an_unknown_model(client):
    for call, rest in (
        (client.chat.completions.create, {"messages": QUESTION}),
        (client.completions.create, {"prompt": POEM, "stream": True}),
        (client.images.generate, {"prompt": LANDSCAPE}),
    ):
        with pytest.raises(openai.NotFoundError) as error:
            call(model="nobody", **rest)
        assert error.value.code == "model_not_found" and "nobody" in error.value.message


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
        with client_of(gateway) as client, pytest.raises(openai.RateLimitError) as error:
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
    server.terminate()
    server.wait_exit()
    assert gateway.call("/health").status == 503
    assert gateway.call("/health/live").status == 200
    assert gateway.metrics().sum("hanmo_gateway_upstream_metrics_up") == 0
    reply = gateway.call("/v1/completions", {"model": POET, "prompt": POEM})
    assert reply.status == 503 and reply.headers["Retry-After"]


def test_term_lets_streams_finish(server, start_gateway):
    gateway = start_gateway(server, "--shutdown-delay=300ms")
    request = {"model": POET, "prompt": POEM, "max_tokens": 200, "ignore_eos": True}
    with gateway.open("/v1/completions", request | {"stream": True}) as stream:
        head = stream.readline()
        gateway.terminate()
        until(lambda: gateway.call("/health").status == 503, "the drain")
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


# The description and the documentation.

schema = schemathesis.openapi.from_path(ROOT / "gateway/openapi.yaml")


# What only fits together with other fields, or with the model.
DEPENDENT = (
    *("best_of", "stream_options", "top_logprobs", "logit_bias", "stop_token_ids", "min_tokens"),
    *("min_steps", "partial_images", "output_compression", "version", "sampler"),
    "chat_template_kwargs",
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs"),
    *(
        "max_completion_tokens",
        "chat",
        "parts",
        "tokenIds",
        "text",
        "picture",
        "requestId",
        "tenant",
    ),
)
SMALLEST = {
    "images": {"size": "64x64", "steps": 1, "n": 1},
    "completions": {"max_tokens": 2, "n": 1},
    "hanmo/v1/generate": {"prompt": POEM, "priority": 1, "text": {"maxTokens": 2}},
}


def tame(case):
    """The same request for one of our models, and small enough to be answered."""
    body = case.body
    if not isinstance(body, dict):
        return
    if "model" in body:
        body["model"] = PAINTER if "images" in case.path else POET
    if case.meta and case.meta.generation.mode == schemathesis.GenerationMode.POSITIVE:
        for name in DEPENDENT:
            if name != "text" or "generate" in case.path:
                body.pop(name, None)
        body |= next((small for part, small in SMALLEST.items() if part in case.path), {})
        if isinstance(body.get("prompt"), list):
            body["prompt"] = [1, 2]


@schema.include(path_regex="^/(v1|hanmo|health|openapi)").parametrize()
@settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
def test_answers_are_as_described(gateway, case):
    """Of these and random requests: the status, the type and the fields of the answer."""
    tame(case)
    case.headers["X-Request-Timeout"] = "10"
    reply = case.call(base_url=gateway.url, timeout=PATIENCE)
    # What a model can't do and what takes too long are no faults of ours.
    assert reply.status_code < 500 or reply.status_code in (501, 503, 504), reply.text
    case.validate_response(
        reply,
        checks=[
            schemathesis.checks.CHECKS.get_one(name)
            for name in (
                "status_code_conformance",
                "content_type_conformance",
                "response_schema_conformance",
                "response_headers_conformance",
            )
        ],
    )


def test_the_served_description_is_the_committed_one(gateway):
    assert gateway.call("/openapi.yaml").text == (ROOT / "gateway/openapi.yaml").read_text()


EXAMPLES = re.findall(r"^```sh\n(curl.*?)^```", (ROOT / "docs/http.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_documentation(gateway, example, tmp_path):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.replace("http://127.0.0.1:8000", gateway.url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0 and '"error"' not in done.stdout, done
    for file in re.findall(r">\s*(\S+\.png)", example):
        assert pixels((tmp_path / file).read_bytes()).size


def test_many_streams_at_once(client):
    """Each gets its own text."""
    texts = {}

    def ask(seed):
        request = {"model": POET, "messages": QUESTION, "seed": seed, "max_tokens": 20}
        with client.chat.completions.create(**request, stream=True) as chunks:
            parts = [c.delta.content or "" for chunk in chunks for c in chunk.choices]
        whole = client.chat.completions.create(**request).choices[0].message.content
        texts[seed] = "".join(parts) == whole and whole

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 12 and all(texts.values()) and len(set(texts.values())) > 1
