"""Rendering the chart, and the schemas of the objects that it makes."""

import importlib.util
import json
import pathlib
import re
import subprocess

import yaml
from contract import ROOT

CHART = ROOT / "deploy/helm/hanmo"
GO = ROOT / ".deps/go"
RELEASE, NAMESPACE = "prod", "pictures"
# Of Kubernetes: the oldest that has native sidecars, and the newest whose schemas are at hand.
OLDEST, NEWEST = "1.29.0", "1.37.0"
EVERYTHING = ROOT / "tests/deploy/everything.yaml"
LAPTOP, GPU = CHART / "values-laptop.yaml", CHART / "values-gpu.yaml"
# Sets of values that differ in the objects or volumes that they make.
CASES = {
    "defaults": ((), {}),
    "laptop": ((LAPTOP,), {}),
    "gpu": ((GPU,), {}),
    "hpa": ((), {"autoscaling_enabled": True}),
    "host-path": ((), {"models": {"source": "hostPath", "hostPath": "/srv/models"}}),
    "image-copy": ((), {"models": {"source": "imageCopy", "image": "models:1"}}),
    "tls": ((), {"tls": {"enabled": True, "secretName": "hanmo-tls"}}),
    "gateway": ((), {"gateway_enabled": True, "networkPolicy_clients": [{"podSelector": {}}]}),
    "sidecar": ((EVERYTHING,), {"gateway_enabled": False, "gateway_sidecar": True}),
    "everything": ((EVERYTHING,), {}),
}


def helm(*arguments):
    """A finished call of helm."""
    return subprocess.run(
        [GO / "bin/helm", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def arguments_of(*files, **values):
    """Flags of helm for values files and single values; underscores in names become dots."""
    flags = [f"--values={file}" for file in files]
    flags += [f"--set-json={name.replace('_', '.')}={json.dumps(v)}" for name, v in values.items()]
    return flags


def render(*files, chart=CHART, version=NEWEST, release=RELEASE, **values):
    """The objects of a release, as a list."""
    done = helm(
        "template",
        release,
        chart,
        f"--namespace={NAMESPACE}",
        f"--kube-version={version}",
        *arguments_of(*files, **values),
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def render_case(case, version=NEWEST):
    files, values = CASES[case]
    return render(*files, version=version, **values)


def of_kind(objects, kind, name=None):
    return [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]


def the(objects, kind, name=None):
    (found,) = of_kind(objects, kind, name)
    return found


def pod_specs(objects):
    for one in objects:
        if one["kind"] == "Pod":
            yield one["spec"]
        elif one["kind"] in ("Deployment", "Job"):
            yield one["spec"]["template"]["spec"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def write_native_schemas(folder):
    """Writes the schemas of Kubernetes' own objects to folder/VERSION."""
    package = pathlib.Path(importlib.util.find_spec("kubernetes_validate").origin).parent
    for version in (OLDEST, NEWEST):
        source = package / f"kubernetes-json-schema/v{version}-local-strict"
        (folder / version).mkdir()
        # Besides the definitions, the kinds: their names end with the API's version.
        for file in (source / "_definitions.json", *source.glob("*-v[0-9]*.json")):
            # They refer to each other by addresses; beside each other they find each other by name.
            text = file.read_text().replace('"/api/_definitions.json', '"_definitions.json')
            text = re.sub(r',\s*"\$id": "https://kubernetes.io/[^"]*"', "", text)
            (folder / version / file.name).write_text(text)


def definitions(module, pattern):
    """CustomResourceDefinitions in a Go module that scripts/setup has brought."""
    (folder,) = (GO / "pkg/mod").glob(f"{module}@*")
    for file in sorted(folder.glob(pattern)):
        yield from yaml.load_all(file.read_text(), yaml.CSafeLoader)


def _strict(schema):
    """Fields that the definition lacks are errors, as `kubectl apply` has it."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get(
        "x-kubernetes-preserve-unknown-fields"
    ):
        made.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return made


def custom_definitions():
    """Of the operators' kinds that we have objects of."""
    return [
        *definitions(
            "github.com/prometheus-operator/prometheus-operator",
            "example/prometheus-operator-crd/*_servicemonitors.yaml",
        ),
        *definitions(
            "github.com/prometheus-operator/prometheus-operator",
            "example/prometheus-operator-crd/*_prometheusrules.yaml",
        ),
        *definitions("github.com/kedacore/keda/v2", "config/crd/bases/keda.sh_scaledobjects.yaml"),
        *definitions("sigs.k8s.io/gateway-api", "config/crd/standard/*_httproutes.yaml"),
        *definitions(
            "sigs.k8s.io/gateway-api-inference-extension",
            "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml",
        ),
        *definitions("github.com/kserve/kserve", "config/crd/full/*_clusterservingruntimes.yaml"),
    ]


def write_custom_schemas(folder):
    """Writes the schemas of operators' objects to the folder."""
    for crd in custom_definitions():
        kind = crd["spec"]["names"]["kind"].lower()
        for version in crd["spec"]["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            (folder / f"{kind}-{version['name']}.json").write_text(json.dumps(schema))


def write_schemas(folder):
    """Everything that kubeconform looks for."""
    write_native_schemas(folder)
    (folder / "custom").mkdir()
    write_custom_schemas(folder / "custom")
    return folder


def kubeconform(objects, version, schemas):
    """Reports of what is wrong with the objects; empty when all are valid."""
    done = subprocess.run(
        [
            GO / "bin/kubeconform",
            "-strict",
            "-output=json",
            f"-schema-location={schemas}/{version}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
            f"-schema-location={schemas}/custom/{{{{.ResourceKind}}}}-{{{{.ResourceAPIVersion}}}}.json",
        ],
        input=yaml.safe_dump_all(objects),
        capture_output=True,
        text=True,
    )
    report = json.loads(done.stdout)
    return [(one["kind"], one["name"], one["msg"]) for one in report.get("resources", [])]


# Recommendations of kube-score that the chart does not follow.
SKIPPED = {
    "container-image-pull-policy": "a tag or digest names one image; it need not be asked for each time",
    "deployment-replicas": "how many pods there are is the value replicas",
    "horizontalpodautoscaler-replicas": "likewise, autoscaling.minReplicas",
    "deployment-has-host-podantiaffinity": "topologySpreadConstraints spread the pods",
}


def kube_score(objects, version=OLDEST):
    """What kube-score finds beside SKIPPED and CPU limits, which would stop threads in the middle of a step."""
    done = subprocess.run(
        [
            GO / "bin/kube-score",
            "score",
            "--output-format=json",
            f"--kubernetes-version=v{version.rpartition('.')[0]}",
            "--ignore-container-cpu-limit",
            *(f"--ignore-test={name}" for name in SKIPPED),
            "-",
        ],
        input=yaml.safe_dump_all(objects),
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    return [
        (one["object_name"], check["check"]["id"], comment["path"], comment["summary"])
        for one in json.loads(done.stdout)
        for check in one["checks"]
        if not check["skipped"]
        for comment in check["comments"] or ()
        if check["grade"] < 10
    ]
