"""deploy/gateway: the pool takes the pods of the chart at their gRPC port."""

import yaml
from chart import NEWEST, kubeconform, pod_specs, render, the
from contract import ROOT

FILE = ROOT / "deploy/gateway/inference-pool.yaml"


def test_the_pool_is_the_charts_pods(schemas):
    objects = list(yaml.safe_load_all(FILE.read_text()))
    pool, route = the(objects, "InferencePool"), the(objects, "HTTPRoute")
    assert pool["apiVersion"] == "inference.networking.k8s.io/v1"
    chart = render(release="hanmo")
    labels = the(chart, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert pool["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = next(pod_specs(chart))["containers"][0]["ports"]
    (grpc_port,) = [port["containerPort"] for port in ports if port["name"] == "grpc"]
    assert pool["spec"]["targetPorts"] == [{"number": grpc_port}]
    assert (
        pool["spec"]["appProtocol"]
        == the(chart, "Service", "hanmo")["spec"]["ports"][0]["appProtocol"]
    )
    assert route["spec"]["rules"][0]["backendRefs"][0]["name"] == pool["metadata"]["name"]
    assert kubeconform(objects, NEWEST, schemas) == []
