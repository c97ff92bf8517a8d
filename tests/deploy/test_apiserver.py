"""A real kube-apiserver takes every object of the chart, and refuses those that are wrong.

`scripts/setup --apiserver` builds it; only with --long.
"""

import apiserver
import pytest
import yaml
from apiserver import ApiServer, Refused
from chart import CASES, EVERYTHING, NAMESPACE, custom_definitions, render, render_case, the
from contract import ROOT


@pytest.fixture(scope="module")
def server(tmp_path_factory, pytestconfig):
    if not pytestconfig.getoption("--long"):
        pytest.skip("only with --long")
    if apiserver.missing():
        pytest.skip(f"{apiserver.PROGRAMS} lacks {', '.join(apiserver.missing())}")
    one = ApiServer(tmp_path_factory.mktemp("apiserver"))
    try:
        one.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        one.create(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": "high"},
                "value": 1,
            }
        )
        one.create(
            {
                "apiVersion": "node.k8s.io/v1",
                "kind": "RuntimeClass",
                "metadata": {"name": "nvidia"},
                "handler": "nvidia",
            }
        )
        for definition in custom_definitions():
            one.define(definition)
        yield one
    finally:
        one.close()


def assert_kept(sent, stored, path):
    """Nothing is dropped in silence: what was stored has all that was sent."""
    if isinstance(sent, dict):
        for key, value in sent.items():
            assert key in (stored or {}) or value in (None, {}, []), f"{path}.{key}"
            if key in (stored or {}):
                assert_kept(value, stored[key], f"{path}.{key}")
    elif isinstance(sent, list):
        assert len(sent) == len(stored), path
        for index, pair in enumerate(zip(sent, stored, strict=True)):
            assert_kept(*pair, f"{path}[{index}]")


@pytest.mark.parametrize("case", CASES)
def test_it_takes_every_object(server, case):
    objects = render_case(case)
    made = [server.create(one, NAMESPACE) for one in objects]
    assert [one["metadata"]["name"] for one in made] == [one["metadata"]["name"] for one in objects]
    for one in objects:
        server.delete(one, NAMESPACE)


def test_it_keeps_what_the_chart_says(server):
    for one in render(EVERYTHING):
        assert_kept(one, server.create(one, NAMESPACE), one["kind"])
        server.delete(one, NAMESPACE)


def test_it_refuses_what_is_wrong(server):
    objects = render(EVERYTHING)
    name = "prod-hanmo"
    wrong = []
    for kind in ("Deployment", "ServiceMonitor", "ScaledObject", "NetworkPolicy"):
        one = the(objects, kind, name)
        one["spec"]["stray"] = 1
        wrong.append((one, "stray"))
    service = the(objects, "Service", name)
    service["spec"]["ports"][0]["port"] = 70000
    wrong.append((service, "70000"))
    budget = the(objects, "PodDisruptionBudget", name)
    budget["spec"]["maxUnavailable"] = "many"
    wrong.append((budget, "many"))
    for one, word in wrong:
        with pytest.raises(Refused, match=word):
            server.create(one, NAMESPACE)


@pytest.mark.parametrize(
    "file", ["gateway/inference-pool.yaml", "kserve/cluster-serving-runtime.yaml"]
)
def test_it_keeps_what_the_examples_say(server, file):
    for one in yaml.safe_load_all((ROOT / "deploy" / file).read_text()):
        assert_kept(one, server.create(one), one["kind"])
