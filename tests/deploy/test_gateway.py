"""deploy/gateway: the pool takes the pods of the chart, and the picker's configuration is one that it knows."""

import json
import re
import urllib.error
import urllib.request

import pytest
import yaml
from calls import POET
from chart import GO, LAPTOP, NEWEST, kubeconform, pod_specs, render, the
from contract import ROOT
from observe import PATIENCE, Metrics, until
from pod import Container, Pod

FILE = ROOT / "deploy/gateway/inference-pool.yaml"
EXTENSION = "sigs.k8s.io/gateway-api-inference-extension"
SIDECAR = {"gateway_sidecar": True, "release": "hanmo"}


@pytest.fixture
def objects():
    return list(yaml.safe_load_all(FILE.read_text()))


def picker(objects):
    return yaml.safe_load(the(objects, "ConfigMap")["data"]["hanmo.yaml"])


def parameters(objects, kind):
    (found,) = [one["parameters"] for one in picker(objects)["plugins"] if one["type"] == kind]
    return found


def test_the_pool_is_the_charts_pods(objects, schemas):
    pool, route = the(objects, "InferencePool"), the(objects, "HTTPRoute")
    assert pool["apiVersion"] == "inference.networking.k8s.io/v1"
    chart = render(**SIDECAR)
    labels = the(chart, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert pool["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (gateway,) = [c for c in next(pod_specs(chart))["containers"] if c["name"] == "gateway"]
    assert pool["spec"]["targetPorts"] == [{"number": gateway["ports"][0]["containerPort"]}]
    assert "appProtocol" not in pool["spec"]  # HTTP/1.1
    assert route["spec"]["rules"][0]["backendRefs"][0]["name"] == pool["metadata"]["name"]
    known = (ROOT / "gateway/openapi.yaml").read_text()
    for match in route["spec"]["rules"][0]["matches"]:
        assert f"\n  {match['path']['value']}" in known
    assert kubeconform(objects, NEWEST, schemas) == []


def test_the_picker_knows_its_configuration(objects):
    """Unknown fields are an error to it, unknown kinds of plugins and feature gates as well."""
    (source,) = (GO / "pkg/mod").glob(f"{EXTENSION}@*")
    extractor = "pkg/epp/framework/plugins/datalayer/extractor/metrics/factories.go"

    def fields(file):
        return set(re.findall(r'json:"(\w+)', (source / file).read_text()))

    config = picker(objects)
    assert fields("apix/config/v1alpha1/endpointpickerconfig_types.go") >= config.keys() - {
        "apiVersion",
        "kind",
    }
    metrics = parameters(objects, "model-server-protocol-metrics")
    assert fields(extractor) >= metrics.keys() | metrics["engineConfigs"][0].keys()
    assert metrics["defaultEngine"] == metrics["engineConfigs"][0]["name"]
    sources = "\n".join(file.read_text() for file in source.glob("pkg/epp/**/*.go"))
    kinds = {one["type"] for one in config["plugins"]}
    for name in kinds | set(config["featureGates"]):
        assert re.search(rf'\w+(Type|FeatureGate) += "{name}"', sources), name
    named = [one["pluginRef"] for one in config["schedulingProfiles"][0]["plugins"]]
    for one in config["data"]["sources"]:
        named += [one["pluginRef"], *(more["pluginRef"] for more in one["extractors"])]
    assert sorted(named) == sorted(kinds)


def test_the_gateway_of_a_pod_serves_it_and_shows_its_metrics(objects, models, tmp_path):
    """Those that the picker reads have one series each."""
    chart = render(LAPTOP, **SIDECAR, drain={"delaySeconds": 0, "timeoutSeconds": 60})
    spec = the(chart, "Deployment")["spec"]["template"]["spec"]
    server, beside = spec["containers"]
    pod = Pod(spec, the(chart, "ConfigMap", "hanmo"), models, tmp_path)
    gateway = None
    try:
        ports = {"127.0.0.1:8001": pod.address, "127.0.0.1:8002": pod.metrics}
        ports = {inside: re.sub(r".*:", "localhost:", outside) for inside, outside in ports.items()}
        gateway = Container(beside, ports, tmp_path / "gateway.log")
        address = gateway.expect("listening on ")

        def ready():
            probe = beside["readinessProbe"]["httpGet"]
            try:
                with urllib.request.urlopen(f"http://{address}{probe['path']}") as reply:
                    return reply.status == 200
            except urllib.error.HTTPError:
                return False

        until(ready, "a ready gateway")
        body = {"model": POET, "prompt": "春", "max_tokens": 2}
        request = urllib.request.Request(f"http://{address}/v1/completions")
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            assert json.load(reply)["choices"][0]["text"]
        shown = Metrics(address)
        engine = parameters(objects, "model-server-protocol-metrics")["engineConfigs"][0]
        specs = [name for field, name in engine.items() if field.endswith("Spec")]
        assert len(specs) == 3
        for name in specs:
            assert [labels for labels, _ in shown.series(name)] == [{}], name
        assert gateway.terminate() == 0
    finally:
        if gateway is not None:
            gateway.close()
        pod.close()
