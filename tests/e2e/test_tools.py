"""Tools that know gRPC and nothing of hanmo: grpcurl, grpc-health-probe and ghz."""

import base64
import json
import re
import shlex

import pytest
from calls import LANDSCAPE, PAINTER, POEM, POET, pixels
from contract import ROOT
from go_programs import run, tool
from hanmo_server import SERVING

SERVICES = {
    "hanmo.v1.Generation",
    "hanmo.v1.Models",
    "grpc.health.v1.Health",
    "inference.GRPCInferenceService",
}


@pytest.fixture
def grpcurl(server):
    return lambda *arguments: run(tool("grpcurl"), "-plaintext", *arguments)


def test_grpcurl_lists_and_describes(server, grpcurl):
    assert SERVICES <= set(grpcurl(server.address, "list").split())
    assert "hanmo.v1.Generation.GenerateStream" in grpcurl(
        server.address, "list", "hanmo.v1.Generation"
    )
    described = grpcurl(server.address, "describe", "hanmo.v1.PictureParameters")
    assert re.search(r"optional uint32 steps = 4", described)


def test_grpcurl_calls(server, grpcurl):
    models = json.loads(grpcurl(server.address, "hanmo.v1.Models/ListModels"))["models"]
    assert {PAINTER, POET} <= {model["name"] for model in models}
    health = json.loads(grpcurl(server.address, "grpc.health.v1.Health/Check"))
    assert health == {"status": "SERVING"}
    request = {"model": PAINTER, "prompt": LANDSCAPE, "picture": {"seed": 7, "steps": 4}}
    options = ("-max-msg-sz", "10000000", "-d", json.dumps(request))
    reply = json.loads(grpcurl(*options, server.address, "hanmo.v1.Generation/Generate"))
    picture = reply["outputs"][0]["picture"]
    assert picture["seed"] == "7"
    assert pixels(base64.b64decode(picture["data"])).shape == (128, 128, 3)


def commands(document):
    """Calls of these tools in the document, up to the pipe."""
    for block in re.findall(r"^```sh\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S):
        # Each begins a line; what goes on is within quotes, or follows a backslash.
        for command in re.split(r"^(?=[a-z])", block.replace("\\\n", " "), flags=re.M):
            if command.startswith(("grpcurl ", "grpc-health-probe ", "ghz ")):
                words = shlex.split(command)
                yield words[: words.index("|")] if "|" in words else words


@pytest.mark.parametrize(
    "document", ["README.md", "README.zh.md", "docs/clients.md", "docs/open-inference-protocol.md"]
)
def test_the_commands_of_the_documents_work(server, document):
    calls = list(commands(document))
    assert calls
    address = re.compile(r"(localhost|127\.0\.0\.1):8001")
    for name, *words in calls:
        run(tool(name), *(address.sub(server.address, word) for word in words))


def test_grpc_health_probe(start_server):
    """On the port that Kubernetes asks, and on the public one: its exit code is the answer."""
    server = start_server(admin=True)
    probe = tool("grpc-health-probe")
    for address in (server.health_address, server.address):
        for service in ("", "hanmo.v1.Models", PAINTER):
            assert server.check(service) == SERVING
            run(probe, f"-addr={address}", f"-service={service}")
        run(probe, f"-addr={address}", "-service=nobody", status=3)
    server.terminate()
    server.wait_exit()
    run(probe, f"-addr={server.health_address}", "-connect-timeout=1s", status=2)


def test_ghz(server):
    """50 calls, 5 at a time, each with another seed."""
    request = {"model": POET, "prompt": POEM + "\n", "text": {"seed": "{{.RequestNumber}}"}}
    before = server.metrics().sum("hanmo_requests_total", model=POET, code="OK")
    report = json.loads(
        run(
            tool("ghz"),
            "--insecure",
            "--call=hanmo.v1.Generation/Generate",
            f"--data={json.dumps(request)}",
            "--total=50",
            "--concurrency=5",
            "--format=json",
            server.address,
        )
    )
    assert report["count"] == 50 and report["statusCodeDistribution"] == {"OK": 50}
    assert not report.get("errorDistribution")
    after = server.metrics().sum("hanmo_requests_total", model=POET, code="OK")
    assert after == before + 50
