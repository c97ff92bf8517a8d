#!/usr/bin/env python3
"""Draws the dashboards with what their queries returned, for docs/metrics.md; needs matplotlib.

HANMO_SHOWN=shown.json HANMO_OBSERVE_SECONDS=90 pytest tests/e2e/test_dashboards.py
draw.py shown.json docs/pictures
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from dashboards import DASHBOARDS
from matplotlib.ticker import FuncFormatter
from panels import WIDTH

CELL, ROW_HEIGHT = 0.62, 0.42  # inches of a column and a line of Grafana's grid
STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 7,
    "axes.facecolor": "#181b1f",
    "figure.facecolor": "#111217",
    "savefig.facecolor": "#111217",
    "text.color": "#ccccdc",
    "axes.labelcolor": "#ccccdc",
    "axes.edgecolor": "#2c3235",
    "axes.titlesize": 8,
    "axes.grid": True,
    "grid.color": "#2c3235",
    "xtick.color": "#8e8e99",
    "ytick.color": "#8e8e99",
    "legend.frameon": False,
    "legend.fontsize": 5.5,
}


def scaled(value, steps, digits=3):
    """`steps` are (factor, unit) pairs, the largest first."""
    for factor, unit in steps:
        if abs(value) >= factor:
            return f"{value / factor:.{digits}g} {unit}".strip()
    return f"{value:.{digits}g}"


def written(value, unit):
    if unit == "s":
        steps = ((86400, "d"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
        return scaled(value, steps) if value else "0 s"
    if unit == "bytes":
        return scaled(value, ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")))
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    suffix = {"reqps": "req/s", "cps": "/s"}.get(unit, "")
    return f"{scaled(value, ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')))} {suffix}".strip()


def legend_of(template, labels):
    if template == "__auto":
        return ", ".join(value for key, value in labels.items() if key != "__name__")
    for name in set(part.split("}}")[0] for part in template.split("{{")[1:]):
        template = template.replace(f"{{{{{name}}}}}", labels.get(name, ""))
    return template


def curves(results):
    """(legend, times, values) of every series of a panel."""
    for result in results:
        for series in result["series"]:
            times, values = np.array(series["values"], dtype=float).T
            yield legend_of(result["legend"], series["metric"]), times, values


def unit_of(panel):
    return panel["options"].get("yAxis", panel["fieldConfig"]["defaults"])["unit"]


def seconds_axis(axes, start, end):
    axes.set_xlim(0, end - start)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} s"))


def draw_timeseries(axes, panel, results, span):
    custom = panel["fieldConfig"]["defaults"]["custom"]
    shown = list(curves(results))
    if custom["stacking"]["mode"] == "normal":
        grid = np.linspace(*span, 240)
        layers = [np.nan_to_num(np.interp(grid, t, v, 0, 0)) for _, t, v in shown]
        axes.stackplot(grid - span[0], layers, labels=[name for name, _, _ in shown], alpha=0.7)
    else:
        for name, times, values in shown:
            axes.plot(times - span[0], values, linewidth=1, label=name)
    axes.set_ylim(bottom=0)
    unit = unit_of(panel)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: written(y, unit)))
    axes.legend(loc="upper left", ncols=1 + len(shown) // 7, labelspacing=0.2)
    seconds_axis(axes, *span)


def draw_heatmap(axes, panel, results, span):
    rows = [(float(s["metric"]["le"]), s["values"]) for r in results for s in r["series"]]
    rows.sort(key=lambda row: row[0])
    times = sorted({float(t) for _, values in rows for t, _ in values})
    counts = np.zeros((len(rows), len(times)))
    for i, (_, values) in enumerate(rows):
        for t, value in values:
            counts[i, times.index(float(t))] = float(value)
    cells = np.diff(counts, axis=0, prepend=0)  # buckets are cumulative
    filled = np.flatnonzero(cells.max(axis=1) > 1e-9)
    low, high = filled[0], filled[-1] + 1
    mesh = np.ma.masked_less(cells[low:high], 1e-9)
    edges = np.append(times, span[1]) - span[0], np.arange(high - low + 1) - 0.5
    axes.pcolormesh(*edges, mesh, cmap="YlOrBr_r", vmin=0)
    unit = unit_of(panel)
    axes.set_yticks(
        range(high - low),
        [written(le, unit) if np.isfinite(le) else "∞" for le, _ in rows[low:high]],
    )
    axes.tick_params(axis="y", labelsize=5)
    seconds_axis(axes, *span)


def draw_stat(axes, panel, results, span):
    (_, _, values), *_ = curves(results)
    axes.set_axis_off()
    text = written(values[np.isfinite(values)][-1], unit_of(panel))
    axes.text(
        0.5,
        0.45,
        text,
        fontsize=17,
        color="#73bf69",
        ha="center",
        va="center",
        transform=axes.transAxes,
    )


def draw_table(axes, panel, results, span):
    series = [one for result in results for one in result["series"]]
    names = sorted(
        {key for one in series for key in one["metric"]} - {"__name__", "instance", "job"}
    )
    last = sorted(
        [
            *(one["metric"].get(name, "") for name in names),
            written(float(one["values"][-1][1]), unit_of(panel)),
        ]
        for one in series
    )
    axes.set_axis_off()
    shown = axes.table(last[:14], colLabels=[*names, "value"], loc="upper center", cellLoc="left")
    for cell in shown.get_celld().values():
        cell.set(facecolor="#181b1f", edgecolor="#2c3235")
        cell.get_text().set_color("#ccccdc")


def draw_timeline(axes, panel, results, span):
    shown = sorted(curves(results), key=lambda curve: curve[0])
    for i, (_, times, values) in enumerate(shown):
        on = times[values > 0] - span[0]
        axes.scatter(on, np.full(len(on), i), marker="s", s=14, color="#73bf69")
    axes.set_yticks(range(len(shown)), [name for name, _, _ in shown])
    axes.set_ylim(-0.7, len(shown) - 0.3)
    seconds_axis(axes, *span)


DRAW = {
    "timeseries": draw_timeseries,
    "heatmap": draw_heatmap,
    "stat": draw_stat,
    "table": draw_table,
    "state-timeline": draw_timeline,
}


def draw(dashboard, shown, file):
    panels = dashboard["panels"]
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    width, height = WIDTH * CELL, lines * ROW_HEIGHT + 0.4
    figure = plt.figure(figsize=(width, height), dpi=100)
    figure.text(0.01, 1 - 0.28 / height, dashboard["title"], fontsize=12)
    times = [
        float(t) for panel in shown for r in panel for s in r["series"] for t, _ in s["values"]
    ]
    span = min(times), max(times)
    for panel, results in zip(panels, shown):
        place = panel["gridPos"]
        top = 0.4 + place["y"] * ROW_HEIGHT
        if panel["type"] == "row":
            figure.text(0.01, 1 - (top + 0.3) / height, panel["title"], fontsize=9, weight="bold")
            continue
        axes = figure.add_axes(
            (
                (place["x"] * CELL + 0.62) / width,
                1 - (top + place["h"] * ROW_HEIGHT - 0.32) / height,
                (place["w"] * CELL - 0.8) / width,
                (place["h"] * ROW_HEIGHT - 0.72) / height,
            )
        )
        axes.set_title(panel["title"], loc="left")
        DRAW[panel["type"]](axes, panel, results, span)
    figure.savefig(file, pil_kwargs={"optimize": True})
    plt.close(figure)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    shown = json.loads(pathlib.Path(sys.argv[1]).read_text())
    with plt.rc_context(STYLE):
        for name, make in DASHBOARDS.items():
            draw(make(), shown[name], pathlib.Path(sys.argv[2]) / f"dashboard-{name}.png")


if __name__ == "__main__":
    main()
