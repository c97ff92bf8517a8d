"""What the chart's values may be: what the programs know, what the README names, and no mistakes."""

import importlib.util
import json
import re
import subprocess

import pytest
import yaml
from chart import (
    CASES,
    CHART,
    GPU,
    LAPTOP,
    NEWEST,
    arguments_of,
    containers,
    helm,
    pod_specs,
    render,
    render_case,
    the,
)
from contract import ROOT
from hanmo_server import BIN, clean_environment


def run(program, *arguments):
    assert (BIN / program).exists()
    return subprocess.run(
        [BIN / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=clean_environment(),
    )


@pytest.mark.parametrize("case", CASES)
def test_the_programs_know_every_flag(case):
    helps = {
        ("hanmo-server",): run("hanmo-server", "--help").stdout,
        ("hanmo-worker",): run("hanmo-worker", "--help").stdout,
        ("hanmo", "health"): run("hanmo", "health", "--help").stdout,
        ("hanmo-gateway",): run("hanmo-gateway", "--help").stderr,
    }
    checked = 0
    for spec in pod_specs(render_case(case)):
        for one in containers(spec):
            text = helps.get(tuple(one.get("command", ())))
            for argument in one.get("args", ()) if text else ():
                flag = argument.split("=")[0]
                assert re.search(rf"^ +{flag}\b", text, re.MULTILINE), argument
                checked += 1
    assert checked >= 12


def config_schema():
    spec = importlib.util.spec_from_file_location(
        "config_schema", ROOT / "deploy/helm/config_schema.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_schema_has_the_options_of_the_server():
    """deploy/helm/config_schema.py writes it anew."""
    ours, shown = config_schema(), run("hanmo-server", "--help").stdout
    assert ours.SCHEMA.read_text() == ours.updated_schema(shown)
    names = {name for name, _, _ in ours.options(shown)}
    effective = run("hanmo-server", "--print-config").stdout
    assert names == set(re.findall(r"^([a-z-]+):", effective, re.MULTILINE))
    assert ours.DECIDED_BY_THE_CHART < names


def test_the_server_reads_the_configuration(tmp_path):
    """Every option, set to something else than its default where it has a range."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    wanted = {}
    for name, option in schema["properties"]["config"]["properties"].items():
        if "enum" in option:
            wanted[name] = option["enum"][-1]
        elif option["type"] == "boolean":
            wanted[name] = False
        elif option["type"] == "integer":
            wanted[name] = option["maximum"]
        elif option["type"] == "array":
            wanted[name] = ["first", "second"]
        elif "pattern" not in option:
            wanted[name] = "http://127.0.0.1:4317"
        elif "KMG" in option["pattern"]:
            wanted[name] = "64MiB"
        else:
            wanted[name] = "30s"
    file = tmp_path / "hanmo.yaml"
    tenants = {"alice": 2.5, "bob": 1}
    config_map = the(render(config=wanted, tenants=tenants), "ConfigMap", "prod-hanmo")
    file.write_text(config_map["data"]["hanmo.yaml"])
    done = run("hanmo-server", f"--config={file}", "--print-config")
    assert done.returncode == 0, done.stderr
    effective = yaml.safe_load(done.stdout)
    assert effective["tenant-weight"] == ["alice=2.5", "bob=1"]
    for name, value in wanted.items():
        assert str(effective[name]).lower() == str(value).lower(), name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replica": 2}, ["replica"]),
        ({"replicas": -1}, ["/replicas", "0"]),
        ({"image_pullPolicy": "Sometimes"}, ["/image/pullPolicy", "IfNotPresent"]),
        ({"image_digest": "sha256:1"}, ["/image/digest"]),
        ({"models_source": "nfs"}, ["/models/source", "hostPath"]),
        ({"models_source": "claim"}, ["/models/claim"]),
        ({"models_source": "image"}, ["/models/image"]),
        ({"models_path": "models"}, ["/models/path"]),
        ({"models_subPath": "/etc"}, ["/models/subPath"]),
        ({"workers_count": 0}, ["/workers/count", "1"]),
        ({"workers_device": "rocm"}, ["/workers/device", "cuda"]),
        ({"config": {"max-queued-request": 1}}, ["/config", "max-queued-request"]),
        ({"config": {"max-queued-requests": 0}}, ["/config/max-queued-requests", "1"]),
        ({"config": {"slice": "fast"}}, ["/config/slice"]),
        ({"config": {"listen": "0.0.0.0:1"}}, ["/config", "listen"]),
        ({"tenants": {"alice": 0}}, ["/tenants/alice", "0.001"]),
        ({"drain_timeoutSeconds": "2m"}, ["/drain/timeoutSeconds", "integer"]),
        ({"tls_enabled": True}, ["/tls/secretName"]),
        (
            {"tls": {"enabled": True, "secretName": "a", "clientCA": True}},
            ["tests.clientCertSecret"],
        ),
        ({"gateway_replicas": "two"}, ["/gateway/replicas", "integer"]),
        ({"gateway": {"enabled": True, "tls": {"enabled": True}}}, ["/gateway/tls/secretName"]),
        (
            {
                "gateway": {"enabled": True},
                "tls": {"enabled": True, "secretName": "a", "clientCA": True},
                "tests_enabled": False,
            },
            ["gateway.upstream.clientCertSecret"],
        ),
        ({"gateway": {"enabled": True, "sidecar": True}}, ["gateway.sidecar"]),
        (
            {"gateway_enabled": True, "networkPolicy_gatewayClients": [{"podSelector": {}}]},
            ["networkPolicy.metrics", "networkPolicy.gatewayClients"],
        ),
        (
            {"config": {"otlp-endpoint": "http://collector:4317"}},
            ["networkPolicy.egress", "config.otlp-endpoint"],
        ),
        ({"admin_expose": True}, ["networkPolicy.admin", "admin.expose", "tls.clientCA"]),
        (
            {
                "admin_expose": True,
                "networkPolicy": {"enabled": False, "admin": [{"podSelector": {}}]},
            },
            ["networkPolicy.admin", "networkPolicy.enabled"],
        ),
        ({"networkPolicy_admin": "all"}, ["/networkPolicy/admin", "array"]),
        (
            {"monitoring_prometheusRule": {"runbookBase": "docs"}},
            ["/monitoring/prometheusRule/runbookBase"],
        ),
        ({"autoscaling": {"enabled": True, "engine": "keda"}}, ["/autoscaling/keda/prometheus"]),
        ({"autoscaling": {"enabled": True, "minReplicas": 9}}, ["autoscaling.minReplicas"]),
        ({"podDisruptionBudget_maxUnavailable": "some"}, ["/podDisruptionBudget/maxUnavailable"]),
        ({"probes_readiness_http": 1}, ["/probes/readiness", "http"]),
    ],
)
def test_mistakes_in_values_are_named(values, words):
    done = helm("template", CHART, f"--kube-version={NEWEST}", *arguments_of(**values))
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr, done.stderr


def leaves(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict) and value and name not in ("requests", "limits", "labels"):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_readme_names_every_value():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    readme = (CHART / "README.md").read_text().partition("| value |")[2]
    table = re.findall(r"^\| `([\w.-]+)` \|", readme, re.MULTILINE)
    assert sorted(table) == sorted(leaves(values))


def test_the_readme_shows_the_smallest_values():
    text = (CHART / "README.md").read_text()
    shown = dict(
        re.findall(r"^```yaml\n# (values-\w+\.yaml)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    )
    assert set(shown) == {LAPTOP.name, GPU.name}
    for file in (LAPTOP, GPU):
        assert yaml.safe_load(shown[file.name]) == yaml.safe_load(file.read_text())
