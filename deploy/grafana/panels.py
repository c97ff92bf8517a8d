"""Grafana's JSON from short Python: panels, their layout, and what all dashboards share."""

import dataclasses

SCHEMA_VERSION = 39  # Grafana 11
WIDTH = 24  # columns of Grafana's grid
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# What the labels of a family let the variables choose.
PODS = 'namespace=~"$namespace", pod=~"$pod"'
MODELS = f'{PODS}, model=~"$model"'


@dataclasses.dataclass
class Query:
    expression: str
    legend: str = ""


@dataclasses.dataclass
class Panel:
    title: str
    kind: str
    queries: list
    width: int
    height: int
    description: str
    field: dict
    options: dict


def of_pods(name, more=""):
    """A family that has no model."""
    return f"{name}{{{PODS}{', ' if more else ''}{more}}}"


def of_gateways(name, more=""):
    """A family of hanmo-gateway, whose pods are others than those that the variables know."""
    return f'{name}{{namespace=~"$namespace"{", " if more else ""}{more}}}'


def of_models(name, more=""):
    return f"{name}{{{MODELS}{', ' if more else ''}{more}}}"


def per_second(series, by=""):
    return f"sum{_by(by)} (rate({series}[$__rate_interval]))"


def increase(series, by):
    return f"sum by ({by}) (increase({series}[$__rate_interval]))"


def _by(labels):
    return f" by ({labels})" if labels else ""


def ratio(part, whole):
    """0 where there is no whole."""
    return f"{part} / ({whole} > 0) or 0 * {whole}"


def mean(family, by="", more="", select=of_models):
    """Of a histogram's observations."""
    total = per_second(select(f"{family}_sum", more), by)
    return f"{total} / {per_second(select(f'{family}_count', more), by)}"


def quantile(share, family, by="", more="", select=of_models):
    buckets = per_second(select(f"{family}_bucket", more), f"le, {by}" if by else "le")
    return f"histogram_quantile({share}, {buckets})"


def quantiles(family, more="", select=of_models):
    return [
        Query(quantile(share, family, more=more, select=select), f"p{100 * share:g}")
        for share in (0.5, 0.95, 0.99)
    ]


def _queries(queries):
    if isinstance(queries, str):
        queries = [Query(queries)]
    return [query if isinstance(query, Query) else Query(*query) for query in queries]


def _thresholds(steps):
    """`steps` are (value, colour) pairs; below the first it is green."""
    return {
        "mode": "absolute",
        "steps": [
            {"color": "green", "value": None},
            *({"color": color, "value": value} for value, color in steps),
        ],
    }


def timeseries(title, queries, unit, description="", width=8, height=8, stack=False, limit=None):
    custom = {
        "drawStyle": "line",
        "fillOpacity": 20 if stack else 0,
        "lineWidth": 1,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
    }
    defaults = {"unit": unit, "min": 0, "custom": custom}
    if limit is not None:
        custom["thresholdsStyle"] = {"mode": "line"}
        defaults["thresholds"] = _thresholds([(limit, "red")])
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    queries = _queries(queries)
    return Panel(title, "timeseries", queries, width, height, description, defaults, options)


def stat(title, query, unit, description="", width=4, height=4, steps=(), decimals=None):
    defaults = {"unit": unit, "thresholds": _thresholds(steps)}
    if decimals is not None:
        defaults["decimals"] = decimals
    options = {
        "colorMode": "value",
        "graphMode": "area",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    queries = _queries(query)
    return Panel(title, "stat", queries, width, height, description, defaults, options)


def heatmap(title, family, unit, description="", more="", select=of_models, width=8, height=8):
    """A histogram as it is: one row a bucket, coloured by how many fell into it."""
    buckets = select(f"{family}_bucket", more)
    queries = [Query(f"sum by (le) (increase({buckets}[$__rate_interval]))", "{{le}}")]
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "filterValues": {"le": 1e-9},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "unit": unit},
    }
    return Panel(title, "heatmap", queries, width, height, description, {}, options)


def table(title, query, unit, description="", width=12, height=8, hide=()):
    """The newest value of each series; its labels are the columns."""
    hidden = dict.fromkeys(("Time", "__name__", "instance", "job", *hide), True)
    options = {"showHeader": True, "hide": hidden}
    queries = _queries(query)
    return Panel(title, "table", queries, width, height, description, {"unit": unit}, options)


def timeline(title, query, description="", width=12, height=8):
    """One bar a series, coloured by its value."""
    options = {"mergeValues": True, "showValue": "never", "rowHeight": 0.9}
    defaults = {"unit": "none", "thresholds": _thresholds([]), "color": {"mode": "thresholds"}}
    queries = _queries(query)
    return Panel(title, "state-timeline", queries, width, height, description, defaults, options)


def _panel_json(panel, number, x, y):
    options = dict(panel.options)
    made = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": panel.field, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": DATASOURCE,
                "expr": query.expression,
                "legendFormat": query.legend or "__auto",
                "format": {"heatmap": "heatmap", "table": "table"}.get(panel.kind, "time_series"),
                "instant": panel.kind == "table",
                "range": panel.kind != "table",
            }
            for i, query in enumerate(panel.queries)
        ],
    }
    if panel.kind == "table":
        hidden = options.pop("hide")
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    if panel.description:
        made["description"] = panel.description
    return made | {"options": options}


def _row_json(title, number, y):
    place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": place,
        "panels": [],
    }


def _variable(name, label, family, chosen):
    series = f"{family}{{{chosen}}}" if chosen else family
    query = f"label_values({series}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # with the time range
        "sort": 1,
        "multi": True,
        "includeAll": True,
        # All is what the list has: ".*" would match every other exporter of a shared Prometheus.
        "allValue": None,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _variables(task):
    within = 'namespace=~"$namespace"'
    if task:
        models = _variable("model", "Model", "hanmo_requests_total", f'{within}, task="{task}"')
    else:
        models = _variable("model", "Model", "hanmo_model_state", within)
        models["allValue"] = ".*"  # and requests for models that do not exist
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        _variable("namespace", "Namespace", "hanmo_build_info", ""),
        models,
        _variable("pod", "Pod", "hanmo_build_info", within),
    ]


def _starts():
    """Of servers, for two minutes each. A new pod is a new time series, in which nothing changes."""
    return f"time() - {of_pods('process_start_time_seconds')} < 120"


def dashboard(uid, title, description, rows, task=""):
    """`rows` are (title, panels) pairs; panels fill lines from the left. `task` is that of the models
    to choose from."""
    panels, y = [], 0
    for row, members in rows:
        panels.append(_row_json(row, len(panels) + 1, y))
        x, y, line = 0, y + 1, 0
        for panel in members:
            if x + panel.width > WIDTH:
                x, y, line = 0, y + line, 0
            panels.append(_panel_json(panel, len(panels) + 1, x, y))
            x, line = x + panel.width, max(line, panel.height)
        y += line
    link = {
        "title": "hanmo",
        "type": "dashboards",
        "tags": ["hanmo"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
    }
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["hanmo"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "links": [link],
        "annotations": {
            "list": [
                {
                    "name": "Server starts",
                    "datasource": DATASOURCE,
                    "enable": True,
                    "iconColor": "blue",
                    "expr": _starts(),
                    "titleFormat": "{{pod}} started",
                }
            ]
        },
        "templating": {"list": _variables(task)},
        "panels": panels,
    }
