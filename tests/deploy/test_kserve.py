"""deploy/kserve: the container that KServe would start serves its one model under the service's name."""

import os
import re

import grpc
import pytest
import yaml
from calls import picture_request
from chart import NEWEST, definitions, kubeconform
from contract import ROOT, generation_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hanmo_server import BIN, SERVING
from observe import PATIENCE
from pod import Container
from tritonclient import grpc as triton

RUNTIME = ROOT / "deploy/kserve/cluster-serving-runtime.yaml"
NAME = "painter"


@pytest.fixture
def container():
    spec = yaml.safe_load(RUNTIME.read_text())["spec"]
    (one,) = spec["containers"]
    assert one["name"] == "kserve-container" and spec["protocolVersions"] == ["grpc-v2"]
    return one


def test_kserve_accepts_it(schemas):
    assert kubeconform([yaml.safe_load(RUNTIME.read_text())], NEWEST, schemas) == []


def test_the_service_waits_for_the_drain(container):
    """The example in the comment, whose fields KServe knows, has a longer grace period than the drain."""
    comment = re.search(r"^#   apiVersion(.*\n#   .*)+", RUNTIME.read_text(), re.MULTILINE)
    predictor = yaml.safe_load(comment[0].replace("#   ", ""))["spec"]["predictor"]
    (definition,) = definitions(
        "github.com/kserve/kserve", "config/crd/full/*_inferenceservices.yaml"
    )
    known = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name in ("spec", "predictor"):
        known = known["properties"][name]
    assert predictor.keys() <= known["properties"].keys()
    assert predictor["model"].keys() <= known["properties"]["model"]["properties"].keys()
    flags = dict(re.findall(r"--(shutdown-\w+)=(\d+)s", container["args"][0]))
    assert flags.keys() == {"shutdown-delay", "shutdown-timeout"}
    drain = sum(map(int, flags.values()))
    assert predictor["terminationGracePeriodSeconds"] == drain + 10


def test_it_serves_the_model_by_the_services_name(container, models, tmp_path):
    paths = {
        "{{.Name}}": NAME,
        "/mnt/models": (models / "taiyi-sd-tiny").resolve(),
        "/tmp/models": tmp_path / "models",
        "--shutdown-delay=15s": "--shutdown-delay=0",
    }
    path = {"name": "PATH", "value": f"{BIN}:{os.environ['PATH']}"}
    running = Container(container | {"env": [path]}, paths, tmp_path / "server.log")
    try:
        address = running.expect("listening on ")
        running.expect("metrics on ")
        health = health_pb2_grpc.HealthStub(grpc.insecure_channel(running.expect("health on ")))
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            request = health_pb2.HealthCheckRequest(service=container[probe]["grpc"]["service"])
            states = health.Watch(request, timeout=PATIENCE)
            assert SERVING in (reply.status for reply in states), probe
        client = triton.InferenceServerClient(address)
        assert client.is_server_ready() and client.is_model_ready(NAME)
        assert client.get_model_metadata(NAME).name == NAME
        stub = generation_pb2_grpc.GenerationStub(grpc.insecure_channel(address))
        made = stub.Generate(picture_request(model=NAME), timeout=PATIENCE)
        assert made.model == NAME and made.outputs[0].picture.data
        assert running.terminate() == 0
    finally:
        running.close()
