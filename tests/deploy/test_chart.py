"""The chart renders objects that Kubernetes accepts and that fit together."""

import re
import shutil

import pytest
import yaml
from chart import (
    CASES,
    CHART,
    EVERYTHING,
    GPU,
    NEWEST,
    OLDEST,
    arguments_of,
    containers,
    helm,
    kube_score,
    kubeconform,
    of_kind,
    pod_specs,
    render,
    render_case,
    the,
)
from contract import ROOT

cases = pytest.mark.parametrize("case", CASES)


@cases
def test_lint(case):
    files, values = CASES[case]
    done = helm("lint", "--strict", CHART, *arguments_of(*files, **values))
    assert done.returncode == 0, done.stdout + done.stderr


# Image volumes came with 1.31.
@pytest.mark.parametrize(
    ("case", "version"),
    [(case, version) for case in CASES for version in (OLDEST, NEWEST)
     if version != OLDEST or case not in ("everything", "sidecar")],
)  # fmt: skip
def test_kubernetes_accepts_the_objects(case, version, schemas):
    objects = render_case(case, version)
    assert len(objects) >= 7
    assert kubeconform(objects, version, schemas) == []


def test_the_schemas_refuse_what_is_wrong(schemas):
    """The test above can fail: for kinds of Kubernetes and for those of operators."""
    objects = render(EVERYTHING)
    the(objects, "Deployment", "prod-hanmo")["spec"]["template"]["spec"]["containers"][0][
        "stray"
    ] = 1
    the(objects, "ServiceMonitor", "prod-hanmo")["spec"]["endpoints"][0]["stray"] = 1
    the(objects, "ScaledObject")["spec"]["maxReplicaCount"] = "many"
    wrong = {kind for kind, _, _ in kubeconform(objects, NEWEST, schemas)}
    assert wrong == {"Deployment", "ServiceMonitor", "ScaledObject"}


@cases
def test_kube_score_has_no_other_advice(case):
    assert kube_score(render_case(case)) == []


def test_kube_score_finds_what_is_wrong():
    """The test above can fail."""
    objects = render()
    server = next(pod_specs(objects))["containers"][0]
    del server["readinessProbe"], server["resources"]["limits"]["memory"]
    found = {check for _, check, _, _ in kube_score(objects)}
    assert found == {"pod-probes", "container-resources"}


@cases
def test_containers_have_no_more_rights_than_they_need(case):
    for spec in pod_specs(render_case(case)):
        assert spec["automountServiceAccountToken"] is False
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] == 65532
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in containers(spec):
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
    account = the(render_case(case), "ServiceAccount")
    assert account["automountServiceAccountToken"] is False


@cases
def test_selectors_find_the_server_and_not_the_test(case):
    objects = render_case(case)
    pods = the(objects, "Deployment", "prod-hanmo")["spec"]["template"]["metadata"]["labels"]
    test = the(objects, "Pod")["metadata"]["labels"]
    names = ("prod-hanmo", "prod-hanmo-headless", "prod-hanmo-headless-all")
    selectors = [the(objects, "Service", name)["spec"]["selector"] for name in names]
    selectors.append(the(objects, "Deployment", "prod-hanmo")["spec"]["selector"]["matchLabels"])
    budget = the(objects, "PodDisruptionBudget", "prod-hanmo")
    selectors.append(budget["spec"]["selector"]["matchLabels"])
    selectors.append(
        the(objects, "NetworkPolicy", "prod-hanmo")["spec"]["podSelector"]["matchLabels"]
    )
    assert len(selectors) == 6
    for selector in selectors:
        assert selector.items() <= pods.items()
        assert not selector.items() <= test.items()
    if monitors := of_kind(objects, "ServiceMonitor", "prod-hanmo"):
        wanted = monitors[0]["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= the(objects, "Service", "prod-hanmo")["metadata"]["labels"].items()
    peer = the(objects, "NetworkPolicy", "prod-hanmo")["spec"]["ingress"][0].get("from", [])
    assert not peer or peer[0]["podSelector"]["matchLabels"].items() <= test.items()
    calls = the(objects, "NetworkPolicy", "prod-hanmo-test")["spec"]
    assert calls["podSelector"]["matchLabels"].items() <= test.items()
    called = calls["egress"][1]["to"][0]["podSelector"]["matchLabels"]
    assert called.items() <= pods.items()


@pytest.mark.parametrize("case", ["gateway", "everything"])
def test_the_gateway_is_found_and_finds_the_servers(case):
    objects = render_case(case)
    name = "prod-hanmo-gateway"
    pod = the(objects, "Deployment", name)["spec"]["template"]
    labels = pod["metadata"]["labels"]
    server = the(objects, "Deployment", "prod-hanmo")["spec"]["template"]["metadata"]["labels"]
    policy = the(objects, "NetworkPolicy", name)["spec"]
    service = the(objects, "Service", name)
    for selector in (
        service["spec"]["selector"],
        the(objects, "Deployment", name)["spec"]["selector"]["matchLabels"],
        the(objects, "PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"],
        policy["podSelector"]["matchLabels"],
        the(objects, "NetworkPolicy", "prod-hanmo")["spec"]["ingress"][0]["from"][1]["podSelector"][
            "matchLabels"
        ],
    ):
        assert selector.items() <= labels.items()
        assert not selector.items() <= server.items()
    called = policy["egress"][1]
    assert called["to"][0]["podSelector"]["matchLabels"].items() <= server.items()
    assert called["ports"] == [{"port": 8001, "protocol": "TCP"}]

    (gateway,) = pod["spec"]["containers"]
    (port,) = gateway["ports"]
    assert f"--listen=0.0.0.0:{port['containerPort']}" in gateway["args"]
    # It checks health itself, so it gets the addresses of pods that are not ready, too.
    (upstream,) = [one for one in gateway["args"] if one.startswith("--upstream=")]
    name_of, port_of = upstream.removeprefix("--upstream=dns:///").split(":")
    headless = the(objects, "Service", name_of)["spec"]
    assert headless["clusterIP"] == "None" and headless["publishNotReadyAddresses"] is True
    assert headless["ports"][0]["port"] == int(port_of)
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    secure = case == "everything"
    assert service["spec"]["ports"][0]["port"] == (443 if secure else 80)
    for probe, path in (("startup", "/live"), ("liveness", "/live"), ("readiness", "")):
        assert gateway[f"{probe}Probe"]["httpGet"] == {
            "path": f"/health{path}",
            "port": port["name"],
            "scheme": "HTTPS" if secure else "HTTP",
        }
    mounted = {mount["mountPath"] for mount in gateway.get("volumeMounts", ())}
    files = [one.split("=")[1] for one in gateway["args"] if "=/etc/hanmo" in one]
    assert {file.rsplit("/", 1)[0] for file in files} == mounted
    assert len(mounted) == (3 if secure else 0)
    for monitor in of_kind(objects, "ServiceMonitor", name):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        found = [
            one["metadata"]["name"]
            for one in of_kind(objects, "Service")
            if wanted.items() <= one["metadata"]["labels"].items()
        ]
        assert found == [name] and monitor["spec"]["endpoints"][0]["port"] == port["name"]


def test_pods_are_scaled_by_figures_of_the_whole_pod():
    """Of a figure with a label an adapter could take a single model's series."""
    hpa = the(render(autoscaling_enabled=True), "HorizontalPodAutoscaler")
    metrics = [one["pods"]["metric"]["name"] for one in hpa["spec"]["metrics"]]
    triggers = the(render(EVERYTHING), "ScaledObject")["spec"]["triggers"]
    queries = " ".join(one["metadata"]["query"] for one in triggers)
    families = (ROOT / "docs/metrics.md").read_text()
    (adapted,) = re.findall(r'__name__=~"(.*?)"', (CHART / "README.md").read_text())
    assert len(metrics) == 2
    for name in metrics:
        assert f"sum({name}{{" in queries
        assert f"| `{name}` | gauge |  |  |" in families
        assert re.fullmatch(adapted, name)


def test_rules_know_the_jobs_of_every_release():
    """The operator names a job after the Service, unless a jobLabel names a label of it."""
    jobs = {}
    for release in ("prod", "hanmo", "second"):
        objects = render(EVERYTHING, release=release)
        for monitor in of_kind(objects, "ServiceMonitor"):
            wanted = monitor["spec"]["selector"]["matchLabels"]
            (port,) = (endpoint["port"] for endpoint in monitor["spec"]["endpoints"])
            (service,) = (
                one
                for one in of_kind(objects, "Service")
                if wanted.items() <= one["metadata"]["labels"].items()
                and port in [p["name"] for p in one["spec"]["ports"]]
            )
            labels = service["metadata"]["labels"]
            jobs[release, monitor["metadata"]["name"]] = labels.get(
                monitor["spec"].get("jobLabel"), service["metadata"]["name"]
            )
        patterns = re.findall(r'job=~"(.*?)"', yaml.safe_dump(the(objects, "PrometheusRule")))
        assert patterns
        for job in jobs.values():
            assert all(re.fullmatch(pattern, job) for pattern in patterns)
    # Rules add up by job: servers and gateways, and releases of one namespace, are apart.
    assert len(set(jobs.values())) == len(jobs) == 6


@pytest.mark.parametrize(("pre_stop", "delay", "timeout"), [(0, 0, 0), (5, 15, 120), (0, 3, 30)])
def test_the_grace_period_is_longer_than_the_drain(pre_stop, delay, timeout):
    drain = {"preStopSeconds": pre_stop, "delaySeconds": delay, "timeoutSeconds": timeout}
    objects = render(drain=drain, gateway_enabled=True)
    assert {one["kind"] for one in objects if "gateway" in one["metadata"]["name"]} >= {
        "Deployment"
    }
    for deployment in of_kind(objects, "Deployment"):
        drains(deployment["spec"]["template"]["spec"], pre_stop, delay, timeout)


def drains(spec, pre_stop, delay, timeout):
    assert spec["terminationGracePeriodSeconds"] > pre_stop + delay + timeout
    server = spec["containers"][0]
    assert f"--shutdown-delay={delay}s" in server["args"]
    assert f"--shutdown-timeout={timeout}s" in server["args"]
    sleep = server.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert sleep == pre_stop


def test_each_worker_has_a_container_and_a_gpu():
    spec = next(pod_specs(render(GPU, workers_count=3)))
    workers = spec["initContainers"]
    assert [one["name"] for one in workers] == ["worker-0", "worker-1", "worker-2"]
    for one in workers:
        assert one["restartPolicy"] == "Always"  # ends after the server
        limits = one["resources"]["limits"]
        assert (limits["memory"], limits["nvidia.com/gpu"]) == ("16Gi", 1)
        assert "--device=cuda:0" in one["args"]
    sockets = [a.split("=", 1)[1] for one in workers for a in one["args"] if "--listen" in a]
    attached = [
        a.split("=", 1)[1] for a in spec["containers"][0]["args"] if a.startswith("--worker=")
    ]
    assert attached == sockets and len(set(sockets)) == 3
    assert "nvidia.com/gpu" not in spec["containers"][0]["resources"].get("limits", {})


@pytest.mark.parametrize(
    ("threads", "resources", "wanted", "source"),
    [
        (0, {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}, "$(WORKER_CPUS)", "limits.cpu"),
        (0, {"limits": None, "requests": {"cpu": "1"}}, "$(WORKER_CPUS)", "requests.cpu"),
        (0, {"limits": None, "requests": None}, "0", None),
        (5, {"limits": {"cpu": "2"}}, "5", None),
    ],
)
def test_threads_follow_the_share_of_the_cores(threads, resources, wanted, source):
    worker = next(pod_specs(render(workers_threads=threads, workers_resources=resources)))[
        "initContainers"
    ][0]
    assert f"--threads={wanted}" in worker["args"]
    variables = [one["valueFrom"]["resourceFieldRef"] for one in worker.get("env", [])]
    assert variables == ([{"resource": source, "divisor": "1"}] if source else [])


def test_rules_and_dashboards_are_carried_as_they_are(tmp_path, schemas):
    chart = tmp_path / "hanmo"
    shutil.copytree(CHART, chart)
    for folder in ("rules", "dashboards"):
        shutil.rmtree(chart / folder, ignore_errors=True)
    kinds = ("PrometheusRule", "ConfigMap")
    counts = [len(of_kind(render(EVERYTHING, chart=chart), kind)) for kind in kinds]
    assert counts == [0, 1]
    rule = {
        "alert": "Late",
        "expr": 'hanmo_queue_seconds_sum{model=~".+"} > 1',
        "annotations": {"summary": "{{ $labels.model }} is at {{ $value }}"},
    }
    rules = {"groups": [{"name": "g", "rules": [rule]}]}
    board = '{"title": "队列 {{model}}", "panels": []}\n'
    for name, text in (("rules/alerts.yaml", yaml.safe_dump(rules)), ("dashboards/a.json", board)):
        (chart / name).parent.mkdir()
        (chart / name).write_text(text)
    objects = render(EVERYTHING, chart=chart)
    assert the(objects, "PrometheusRule", "prod-hanmo-alerts")["spec"] == rules
    carried = the(objects, "ConfigMap", "prod-hanmo-dashboard-a")
    assert carried["data"] == {"a.json": board}
    assert carried["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert kubeconform(objects, NEWEST, schemas) == []
