"""Every panel of every dashboard shows something, in a real Prometheus, of a server under load."""

import contextlib
import functools
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import time

import grpc
import pytest
from calls import POET, error_of, generate, text_request
from certificates import Authority
from contract import ROOT
from hanmo_server import Server
from http_gateway import Gateway
from metrics_reference import reference
from observe import until
from observed_load import (
    OPTIONS,
    add_broken,
    add_experts,
    add_nan_poet,
    flood,
    load,
    miss_deadline,
    provoke,
    web_load,
)
from prometheus import LABELS, OTHERS, RULES, UPDATE, families_in, promtool, recorded_in, scraping

GENERATOR = ROOT / "deploy/grafana/dashboards.py"
FOLDER = ROOT / "deploy/helm/hanmo/dashboards"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
DOCUMENT = ROOT / "docs/metrics.md"
# Seconds of load before the panels are looked at, and a file for what they showed.
SECONDS = float(os.environ.get("HANMO_OBSERVE_SECONDS", "8"))
SHOWN = os.environ.get("HANMO_SHOWN")

PANEL_PATIENCE = 60  # seconds; the load goes on meanwhile

# What no test makes happen: a device that fails without ending its worker, NaN in pictures, and
# anything slow.
MAY_BE_ZERO = {
    ("devices", "hanmo_failed_steps_total"),
    ("errors", "hanmo_failed_steps_total"),
    ("errors", "hanmo:first_token:slow"),
    ("errors", "hanmo:steps:slow"),
    ("pictures", "hanmo_nonfinite_outputs_total"),
}


def targets():
    return [
        pytest.param(
            name, panel["title"], query["expr"], id=f"{name}-{panel['id']}{query['refId']}"
        )
        for name, dashboard in DASHBOARDS.items()
        for panel in dashboard["panels"]
        for query in panel.get("targets", ())
    ]


@pytest.fixture(scope="module")
def watched(demo_repository, tmp_path_factory):
    """(server, gateway, Prometheus) under load until the module's end."""
    folder = tmp_path_factory.mktemp("watched")
    repository = folder / "models"
    repository.mkdir()
    for model in demo_repository.iterdir():
        (repository / model.name).symlink_to(model.resolve())
    add_nan_poet(repository)
    add_broken(repository)
    add_experts(repository)
    authority = Authority(folder / "authority")
    key, certificate = authority.issue("server")
    server = Server(
        repository,
        *OPTIONS,
        f"--tls-cert={certificate}",
        f"--tls-key={key}",
        credentials=grpc.ssl_channel_credentials(authority.certificate.read_bytes()),
        log=folder / "server.log",
    )
    gateway = Gateway(
        server.address,
        "--upstream-tls",
        f"--upstream-tls-ca={authority.certificate}",
        log=folder / "gateway.log",
    )
    with (
        contextlib.closing(server),
        contextlib.closing(gateway),
        scraping(folder, server.metrics_address, gateway.address) as prometheus,
    ):
        server.wait_serving(POET)
        miss_deadline(server)
        with load(server), web_load(gateway):
            provoke(server)
            flood(server)
            end = time.monotonic() + SECONDS
            until(lambda: time.monotonic() > end, "some load", patience=2 * SECONDS + 1)
            yield server, gateway, prometheus
            if SHOWN:
                pathlib.Path(SHOWN).write_text(json.dumps(shown(prometheus)))


def shown(prometheus):
    """What every panel showed in the end, for deploy/grafana/draw.py."""
    seconds = max(SECONDS, 10)
    end = time.time()

    def series(query, name):
        expression = query["expr"].replace("$__rate_interval", "10s")
        expression = filled(prometheus, expression, name)
        return prometheus.query_range(expression, end - seconds, end, seconds / 120)

    return {
        name: [
            [
                {"legend": query["legendFormat"], "series": series(query, name)}
                for query in panel.get("targets", ())
            ]
            for panel in dashboard["panels"]
        ]
        for name, dashboard in DASHBOARDS.items()
    }


@functools.cache
def choices(prometheus, name):
    """What Grafana puts in place of each variable of a dashboard while all are at "All"."""
    chosen = {"$__rate_interval": "5m"}
    for variable in DASHBOARDS[name]["templating"]["list"][1:]:
        query = replaced(variable["query"]["query"], chosen)
        # A scrape that comes late on a busy machine leaves nothing to be seen until the next one.
        labels = until(lambda query=query: label_values(prometheus, query), query)
        chosen[f"${variable['name']}"] = variable["allValue"] or "|".join(labels)
    return chosen


def label_values(prometheus, query):
    series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()
    return [one["metric"][label] for one in prometheus.query(f"group by ({label}) ({series})")]


def replaced(expression, chosen):
    for variable, value in chosen.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


def filled(prometheus, expression, name):
    """The expression as Grafana sends it with every variable at its default."""
    return replaced(expression, choices(prometheus, name))


def values_of(series):
    return [float(one["value"][1]) for one in series]


@pytest.mark.parametrize(("name", "title", "expression"), targets())
def test_every_panel_has_data(watched, name, title, expression):
    *_, prometheus = watched
    query = filled(prometheus, expression, name)
    may_be_zero = any(name == board and part in query for board, part in MAY_BE_ZERO)

    def shown():
        values = [value for value in values_of(prometheus.query(query)) if math.isfinite(value)]
        return values if may_be_zero else any(values) and values

    assert until(shown, f"{title}: {query}", patience=PANEL_PATIENCE)


def test_variables_have_values(watched):
    *_, prometheus = watched
    for name, dashboard in DASHBOARDS.items():
        variables = dashboard["templating"]["list"]
        assert [v["name"] for v in variables] == ["datasource", "namespace", "model", "pod"]
        chosen = choices(prometheus, name)
        assert chosen["$namespace"] == LABELS["namespace"]
        assert chosen["$pod"] == LABELS["pod"]


def test_panels_show_nothing_of_other_programs(watched):
    """Of a shared Prometheus, while every variable is at "All"."""
    *_, prometheus = watched
    others = 'process_open_fds{job="other"}'
    until(lambda: len(prometheus.query(others)) == len(OTHERS), "other programs")
    selectors = {
        selector
        for name, dashboard in DASHBOARDS.items()
        for panel in dashboard["panels"]
        for query in panel.get("targets", ())
        for selector in re.findall(r"[\w:]+\{.*?\}", filled(prometheus, query["expr"], name))
    }
    assert any(selector.startswith("process_open_fds{") for selector in selectors)
    for selector in selectors:
        jobs = {one["metric"]["job"] for one in prometheus.query(selector)}
        assert jobs <= {"hanmo", "hanmo-gateway"}, selector


def test_starts_of_servers_are_marked(watched):
    """Those of new time series, too, and of servers alone."""
    *_, prometheus = watched
    start = 'process_start_time_seconds{job="hanmo"}'
    (started,) = values_of(until(lambda: prometheus.query(start), start))
    for name, dashboard in DASHBOARDS.items():
        (annotation,) = dashboard["annotations"]["list"]
        expression = filled(prometheus, annotation["expr"], name)
        marks = prometheus.query_range(expression, started - 60, started + 240, 5)
        assert [one["metric"]["pod"] for one in marks] == [LABELS["pod"]]
        times = [time for time, _ in marks[0]["values"]]
        assert started < times[0] and times[-1] < started + 120


def test_rules_are_evaluated(watched):
    *_, prometheus = watched

    def healthy():
        groups = prometheus.get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert all(rule["health"] in ("ok", "unknown") for rule in rules), rules
        return all(rule["health"] == "ok" for rule in rules) and rules

    rules = until(healthy, "all rules evaluated")
    assert len(rules) == RULES.read_text().count("expr:")
    for rule in rules:
        if rule["type"] == "recording":
            until(lambda rule=rule: prometheus.query(rule["name"]), rule["name"])
    # What the load provokes for certain.
    firing = {"HanmoModelLoadFailed", "HanmoNonFiniteOutputs", "HanmoCertificateExpires"}

    def fire():
        alerts = prometheus.get("alerts")["alerts"]
        names = {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}
        assert "HanmoDeviceError" not in names  # no cancel and no death is one
        return firing <= names

    until(fire, f"{firing} firing")


def test_dashboards_are_those_of_the_generator():
    done = subprocess.run([sys.executable, GENERATOR, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_dashboards_keep_the_conventions():
    assert set(DASHBOARDS) == {"overview", "text", "pictures", "scheduler", "devices", "errors"}
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)
    for dashboard in DASHBOARDS.values():
        assert dashboard["id"] is None and dashboard["schemaVersion"] >= 39
        assert dashboard["links"][0]["tags"] == ["hanmo"] and "hanmo" in dashboard["tags"]
        taken = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= 24 and not cells & taken
            taken |= cells
            if panel["type"] == "row":
                continue
            shown = panel["options"].get("yAxis", panel["fieldConfig"]["defaults"])
            assert shown["unit"]
            assert panel["datasource"]["uid"] == "${datasource}"
            for query in panel["targets"]:
                expression = query["expr"]
                ranges = re.findall(r"\b(?:rate|increase)\(.*?\[(.*?)\]\)", expression)
                assert all(window == "$__rate_interval" for window in ranges)
                for selector in re.findall(r"\{(.*?)\}", expression):
                    assert 'namespace=~"$namespace"' in selector


def test_expressions_name_what_exists(watched):
    """And every family is in some panel or rule."""
    server, gateway, _ = watched
    names = server.metrics().names() | gateway.metrics().names()
    rules = RULES.read_text()
    panels = json.dumps(DASHBOARDS)
    used = families_in(panels + rules)
    assert used <= names
    assert {name for name in names if not name.startswith("exposer_")} <= used
    assert recorded_in(panels) <= set(re.findall(r"record: (\S+)", rules))


def test_document_is_that_of_the_programs(watched, tmp_path):
    """The table of docs/metrics.md; HANMO_UPDATE=1 writes it."""
    server, *_ = watched
    # It exports the server's families with its own.
    upstream = f"--upstream-metrics={server.metrics_address}"
    with contextlib.closing(Gateway(server.address, upstream, log=tmp_path / "log")) as gateway:
        gateway.call("/health")
        metrics = gateway.metrics()
    table = reference(metrics)
    text = DOCUMENT.read_text()
    begin, end = "<!-- families -->\n", "<!-- /families -->\n"
    before, rest = text.split(begin)
    if UPDATE:
        DOCUMENT.write_text(before + begin + table + end + rest.split(end)[1])
        return
    assert rest.split(end)[0] == table
    assert families_in(text) <= metrics.names()


def test_promtool_finds_no_fault(watched):
    server, *_ = watched
    promtool("check", "metrics", input=server.metrics().text)


def test_clients_cannot_make_time_series(watched):
    server, *_ = watched

    def series():
        return len(server.metrics().text.splitlines())

    def ask(number):
        request = text_request(model=f"model-{number}", request_id=f"id-{number}")
        request.tenant = f"tenant-{number}"
        with contextlib.suppress(grpc.RpcError):
            generate(server, request)
        unknown = server.channel.unary_unary(f"/hanmo.v1.Generation/Method{number}")
        assert error_of(unknown, b"").code() == grpc.StatusCode.UNIMPLEMENTED

    ask(0)
    before = series()
    for number in range(1, 200):
        ask(number)
    metrics = server.metrics()
    methods = {labels["grpc_method"] for labels, _ in metrics.series("grpc_server_started_total")}
    assert "Generate" in methods and not any(name.startswith("Method") for name in methods)
    assert metrics.sum("grpc_server_handled_total", grpc_service="unknown") == 200
    assert {
        labels["tenant"] for labels, _ in metrics.series("hanmo_tenant_device_seconds_total")
    } <= {"", "atelier", "press", "(others)"}
    assert series() - before < 60  # codes of gRPC methods may still occur for the first time
