"""hanmo-gateway answers as openapi.yaml and docs/http.md say."""

import re
import subprocess

import pytest
import schemathesis
from calls import PAINTER, POEM, POET, pixels
from contract import ROOT
from hypothesis import HealthCheck, settings
from observe import PATIENCE

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
