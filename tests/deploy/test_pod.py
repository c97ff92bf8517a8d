"""The containers of the rendered Deployment, started here: they serve, answer probes and drain."""

import re
import subprocess
import threading

import grpc
import pytest
from calls import PAINTER, POET, picture_request, text_request
from chart import CHART, pod_specs, render, the
from contract import admin_pb2, admin_pb2_grpc, generation_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hanmo_server import BIN, NOT_SERVING, SERVING, clean_environment
from observe import PATIENCE, Metrics, until
from pod import Pod

LAPTOP = CHART / "values-laptop.yaml"
VALUES = {"workers_count": 2, "config": {"max-queued-requests": 200}, "tenants": {"alice": 2}}


@pytest.fixture
def objects():
    return render(LAPTOP, **VALUES, drain={"delaySeconds": 0, "timeoutSeconds": 60})


@pytest.fixture
def pod(objects, models, tmp_path):
    config_map = the(objects, "ConfigMap", "prod-hanmo")
    spec = the(objects, "Deployment")["spec"]["template"]["spec"]
    running = Pod(spec, config_map, models, tmp_path)
    yield running
    running.close()


def watch(address, service):
    """States of a service as they change."""
    stub = health_pb2_grpc.HealthStub(grpc.insecure_channel(address))
    request = health_pb2.HealthCheckRequest(service=service)
    return (reply.status for reply in stub.Watch(request, timeout=PATIENCE, wait_for_ready=True))


def probes(spec):
    return {
        name: spec["containers"][0][f"{name}Probe"]["grpc"]
        for name in ("startup", "liveness", "readiness")
    }


def wait_ready(pod):
    assert SERVING in watch(pod.health, "readiness")


def test_it_serves_and_its_probes_say_so(pod, objects):
    ports = {
        port["name"]: port["containerPort"]
        for port in next(pod_specs(objects))["containers"][0]["ports"]
    }
    for name, probe in probes(next(pod_specs(objects))).items():
        assert probe["port"] == ports["health"]
        assert SERVING in watch(pod.health, probe["service"]), name
    generation = generation_pb2_grpc.GenerationStub(grpc.insecure_channel(pod.address))
    text = generation.Generate(text_request(max_tokens=8, seed=1), timeout=PATIENCE)
    assert text.model == POET and text.outputs[0].text.text
    picture = generation.Generate(picture_request(seed=1), timeout=PATIENCE)
    assert picture.model == PAINTER and picture.outputs[0].picture.data.startswith(b"\x89PNG")
    until(lambda: Metrics(pod.metrics).sum("hanmo_worker_up") == 2, "both workers attached")
    admin = admin_pb2_grpc.AdminStub(grpc.insecure_channel(pod.admin))
    unloaded = admin.UnloadModel(admin_pb2.UnloadModelRequest(name=POET), timeout=PATIENCE)
    assert unloaded is not None


def test_what_scales_it_is_measured(pod):
    """Every metric that the autoscalers ask for exists."""
    families = Metrics(pod.metrics).names()
    hpa = the(render(autoscaling_enabled=True), "HorizontalPodAutoscaler")
    keda = {
        "engine": "keda",
        "enabled": True,
        "keda": {"prometheus": "http://p", "queueSecondsP95": 3},
    }
    scaled = the(render(autoscaling=keda), "ScaledObject")
    asked = [one["pods"]["metric"]["name"] for one in hpa["spec"]["metrics"]]
    for trigger in scaled["spec"]["triggers"]:
        asked += re.findall(r"hanmo_\w+", trigger["metadata"]["query"])
    assert len(asked) == 5
    assert {name.removesuffix("_bucket") for name in asked} <= families


def test_helm_test_passes_when_it_serves(pod, objects):
    (container,) = the(objects, "Pod")["spec"]["containers"]
    program, *rest = [*container["command"], *container["args"]]
    assert "--server=prod-hanmo:8001" in rest
    called = [argument.replace("prod-hanmo:8001", pod.address) for argument in rest]
    done = subprocess.run(
        [BIN / program, *called], capture_output=True, text=True, env=clean_environment()
    )
    assert (done.returncode, done.stdout.strip()) == (0, "SERVING"), done.stderr
    pod.server.terminate()
    called = ["--wait=200ms" if argument.startswith("--wait=") else argument for argument in called]
    done = subprocess.run([BIN / program, *called], capture_output=True, env=clean_environment())
    assert done.returncode != 0


def test_term_drains_and_the_workers_end_last(pod, objects):
    """The stream that runs is whole, probes turn, and every container ends with 0."""
    wait_ready(pod)
    services = probes(next(pod_specs(objects)))
    ready = watch(pod.health, services["readiness"]["service"])
    assert next(ready) == SERVING
    generation = generation_pb2_grpc.GenerationStub(grpc.insecure_channel(pod.address))
    request = picture_request(steps=60, width=128, height=128, preview_every_steps=1)
    events = generation.GenerateStream(request, timeout=PATIENCE)
    next(events)
    codes = []
    ending = threading.Thread(target=lambda: codes.append(pod.terminate()))
    ending.start()
    assert next(ready) == NOT_SERVING
    live = watch(pod.health, services["liveness"]["service"])
    assert next(live) == SERVING
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[-1] == "final" and "picture" in kinds
    ending.join(PATIENCE)
    assert codes == [(0, [0, 0])]
