"""The server describes itself: tools need no .proto files."""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess

import pytest
from calls import LANDSCAPE, PAINTER, POET, error_of, pixels
from contract import ROOT
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICES = {
    "hanmo.v1.Generation",
    "hanmo.v1.Models",
    "grpc.health.v1.Health",
    "inference.GRPCInferenceService",
}


def test_services_and_messages_are_reflected(server):
    database = ProtoReflectionDescriptorDatabase(server.channel)
    assert SERVICES <= set(database.get_services())
    pool = descriptor_pool.DescriptorPool(database)
    methods = pool.FindServiceByName("hanmo.v1.Generation").methods_by_name
    assert set(methods) == {"Generate", "GenerateStream", "Tokenize", "Detokenize", "Cancel"}
    fields = pool.FindMessageTypeByName("hanmo.v1.PictureParameters").fields_by_name
    assert {"negative_prompt", "steps", "guidance", "seed", "sampler"} <= set(fields)
    assert not [name for name in database.get_services() if "worker" in name]


def test_reflection_can_be_switched_off(start_server):
    server = start_server("--reflection=false", serving=False)
    database = ProtoReflectionDescriptorDatabase(server.channel)
    assert "unimplemented" in str(error_of(database.get_services)).lower()


@pytest.fixture
def grpcurl(server):
    found = (
        shutil.which("grpcurl")
        or shutil.which("grpcurl", path=ROOT / ".deps/bin")
        or shutil.which("grpcurl", path=os.path.expanduser("~/go/bin"))
    )
    if not found:
        pytest.skip("grpcurl is not installed")

    def call(*arguments):
        done = subprocess.run(
            [found, "-plaintext", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    call.address = server.address
    return call


def test_grpcurl_lists_and_calls(grpcurl):
    assert SERVICES <= set(grpcurl(grpcurl.address, "list").split())
    models = json.loads(grpcurl(grpcurl.address, "hanmo.v1.Models/ListModels"))["models"]
    assert {PAINTER, POET} <= {model["name"] for model in models}
    health = json.loads(grpcurl(grpcurl.address, "grpc.health.v1.Health/Check"))
    assert health == {"status": "SERVING"}
    request = {"model": PAINTER, "prompt": LANDSCAPE, "picture": {"seed": 7, "steps": 4}}
    reply = json.loads(
        grpcurl(
            "-max-msg-sz",
            "10000000",
            "-d",
            json.dumps(request),
            grpcurl.address,
            "hanmo.v1.Generation/Generate",
        )
    )
    picture = reply["outputs"][0]["picture"]
    assert picture["seed"] == "7"
    assert pixels(base64.b64decode(picture["data"])).shape == (128, 128, 3)


@pytest.mark.parametrize("readme", ["README.md", "README.zh.md"])
def test_the_readmes_grpcurl_calls_work(grpcurl, readme):
    if not (ROOT / readme).exists():
        pytest.skip(f"no {readme} yet")
    blocks = re.findall(r"```\w*\n(.*?)```", (ROOT / readme).read_text(), re.DOTALL)
    calls = [block for block in blocks if block.lstrip("$ ").startswith("grpcurl ")]
    assert calls
    for block in calls:
        words = shlex.split(block.replace("\\\n", " "), comments=True)
        words = words[words.index("grpcurl") + 1 :]
        if "|" in words:
            words = words[: words.index("|")]
        words = [
            grpcurl.address if re.fullmatch(r"(localhost|127\.0\.0\.1):\d+", word) else word
            for word in words
            if word != "-plaintext"
        ]
        assert grpcurl(*words)
