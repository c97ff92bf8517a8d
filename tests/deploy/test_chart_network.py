"""Who finds the pods, who may reach them, and what reads their metrics."""

import re

import pytest
import yaml
from chart import EVERYTHING, of_kind, pod_specs, render, the

SHOP = [{"podSelector": {"matchLabels": {"team": "shop"}}}]
OPERATORS = [{"podSelector": {"matchLabels": {"team": "operators"}}}]
PROMETHEUS = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]


def server_config(**values):
    text = the(render(**values), "ConfigMap", "prod-hanmo")["data"]["hanmo.yaml"]
    return yaml.safe_load(text)


@pytest.mark.parametrize(
    ("values", "age", "grace"),
    [
        ({}, "5m", "300s"),
        ({"drain_timeoutSeconds": 900}, "5m", "900s"),
        ({"config": {"max-connection-age": "1h", "max-connection-age-grace": "2h"}}, "1h", "2h"),
    ],
)
def test_connections_end_so_that_clients_find_new_pods(values, age, grace):
    """Those of round_robin, too: gRPC asks the DNS again only when a connection ends."""
    config = server_config(**values)
    assert config["max-connection-age"] == age
    assert config["max-connection-age-grace"] == grace


def test_pods_that_are_not_ready_have_a_service_of_their_own():
    """A full queue makes a pod not ready; who checks health itself shall hear when to try again."""
    found = {
        name: service["spec"].get("publishNotReadyAddresses", False)
        for service in of_kind(render(), "Service")
        for name in [service["metadata"]["name"]]
    }
    assert found == {
        "prod-hanmo": False,
        "prod-hanmo-headless": False,
        "prod-hanmo-headless-all": True,
    }


def sources(policy, port):
    """The peers of the rules for this port; None where a rule lets all in."""
    (rule,) = [
        rule for rule in policy["spec"]["ingress"] if port in [one["port"] for one in rule["ports"]]
    ]
    return rule.get("from")


@pytest.mark.parametrize(
    ("values", "peers"),
    [
        ({"networkPolicy_admin": OPERATORS, "networkPolicy_clients": SHOP}, OPERATORS),
        (
            {
                "tls": {"enabled": True, "secretName": "a", "clientCA": True},
                "tests_enabled": False,
                "networkPolicy_clients": SHOP,
            },
            None,
        ),
    ],
)
def test_admin_is_for_its_own_callers(values, peers):
    policy = the(render(admin_expose=True, **values), "NetworkPolicy", "prod-hanmo")
    assert sources(policy, "admin") == peers
    assert SHOP[0] in sources(policy, "grpc") and OPERATORS[0] not in sources(policy, "grpc")


def test_prometheus_reaches_the_gateway():
    peers = {"networkPolicy_gatewayClients": SHOP, "networkPolicy_metrics": PROMETHEUS}
    beside = the(render(gateway_sidecar=True, **peers), "NetworkPolicy", "prod-hanmo")
    apart = the(render(gateway_enabled=True, **peers), "NetworkPolicy", "prod-hanmo-gateway")
    for policy in (beside, apart):
        assert sources(policy, "http") == SHOP + PROMETHEUS


def test_traces_may_leave():
    """A collector on the pod's loopback needs no rule; one elsewhere needs what the values name."""
    egress = [{"ports": [{"port": 4317, "protocol": "TCP"}]}]
    for address, rules in (("http://collector:4317", egress), ("http://127.0.0.1:4317", [])):
        values = {"config": {"otlp-endpoint": address}, "networkPolicy_egress": rules}
        assert the(render(**values), "NetworkPolicy", "prod-hanmo")["spec"]["egress"] == rules


def test_rules_for_egress_have_numbers():
    """Not every network plugin knows the names of ports there."""
    ports = [
        port["port"]
        for policy in of_kind(render(gateway_enabled=True), "NetworkPolicy")
        for rule in policy["spec"]["egress"]
        for port in rule["ports"]
    ]
    assert sorted(ports) == [53, 53, 53, 53, 8001, 8001]


def test_keda_counts_the_pods_of_this_release_alone():
    keda = {"engine": "keda", "enabled": True, "keda": {"prometheus": "http://p"}}
    release = "a" * 60
    for wanted in (release[:46], "hanmo"):
        scaled = the(
            render(autoscaling=keda, release="hanmo", fullnameOverride=wanted), "ScaledObject"
        )
        for trigger in scaled["spec"]["triggers"]:
            pod = re.search(r'pod=~"([^"]*)"', trigger["metadata"]["query"])[1]
            # A hash has up to ten characters, and names are cut at 58 before the last five.
            assert re.fullmatch(pod, f"{wanted}-7d9c5b6f4d-"[:58] + "x2b4z")
            for other in ("gpu-7d9c5b6f4d-x2b4z", "gateway-7d9c5b6f4d-x2b4z", "test"):
                assert not re.fullmatch(pod, f"{wanted}-{other}")


def test_names_leave_room_for_those_of_pods():
    name = the(render(release="hanmo", fullnameOverride="a" * 60), "Deployment")["metadata"]["name"]
    assert len(f"{name}-7d9c5b6f4d-") <= 58


def test_annotations_for_a_prometheus_without_the_operator():
    objects = render(monitoring_scrapeAnnotations=True, gateway_enabled=True)
    for deployment in of_kind(objects, "Deployment"):
        template = deployment["spec"]["template"]
        ports = {
            one["name"]: one["containerPort"] for one in template["spec"]["containers"][0]["ports"]
        }
        notes = template["metadata"]["annotations"]
        assert notes["prometheus.io/scrape"] == "true"
        assert int(notes["prometheus.io/port"]) == ports.get("metrics", ports.get("http"))
    plain = the(render(), "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert not [name for name in plain if name.startswith("prometheus.io")]


def runbooks(base):
    values = {"monitoring_prometheusRule": {"enabled": True, "runbookBase": base}}
    return [
        rule["annotations"]["runbook_url"]
        for one in of_kind(render(**values), "PrometheusRule")
        for group in one["spec"]["groups"]
        for rule in group["rules"]
        if "runbook_url" in rule.get("annotations", {})
    ]


def test_alerts_lead_to_their_runbooks():
    paths = runbooks("")
    assert len(paths) > 5 and all(path.startswith("docs/metrics.md#") for path in paths)
    for base in ("https://example.org/hanmo", "https://example.org/hanmo/"):
        assert runbooks(base) == [f"https://example.org/hanmo/{path}" for path in paths]


def test_a_gateway_beside_each_server():
    objects = render(EVERYTHING, gateway_enabled=False, gateway_sidecar=True)
    assert not [one for one in objects if "gateway" in one["metadata"]["name"]]
    spec = the(objects, "Deployment")["spec"]["template"]["spec"]
    (server, *_), (gateway,) = (
        spec["containers"],
        [one for one in spec["containers"] if one["name"] == "gateway"],
    )
    ports = {one["name"]: one["containerPort"] for one in server["ports"]}
    assert f"--upstream=127.0.0.1:{ports['grpc']}" in gateway["args"]
    assert f"--upstream-metrics=127.0.0.1:{ports['metrics']}" in gateway["args"]
    mounted = {one["name"]: one["mountPath"] for one in gateway["volumeMounts"]}
    assert mounted.keys() <= {one["name"] for one in spec["volumes"]}
    files = [one.split("=")[1] for one in gateway["args"] if "=/etc/hanmo" in one]
    assert {file.rsplit("/", 1)[0] for file in files} == set(mounted.values())
    service = the(objects, "Service", "prod-hanmo")["spec"]["ports"]
    assert {"name": "http", "port": 8000, "targetPort": "http"} in service
    scraped = the(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert [one["port"] for one in scraped] == ["metrics", "http"]
    # The server's metrics, which the gateway shows as well, count once.
    assert scraped[1]["metricRelabelings"][0]["action"] == "keep"
    assert next(pod_specs(render(gateway_sidecar=False)))["containers"][0]["name"] == "server"
