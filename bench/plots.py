#!/usr/bin/env python3
"""Draws what bench/serve --json printed, one SVG per scenario.

    bench/plots.py FILE... [--out docs/plots]

A scenario gets the panels that its lines have figures for: slowdown by percentile, attainment and
p99 over the offered rate (several --loads), answers in time over time (overload), token gaps.
Python's own library is all it needs.
"""

import argparse
import html
import json
import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from load_generator.figures import QUANTILES  # noqa: E402

COLOURS = ("#1b6ca8", "#d1495b", "#edae49", "#66a182", "#8d6a9f", "#555555")
WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 38, 46
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600;font-size:13px}"
    ".tick{fill:#666;font-size:11px}.grid{stroke:#e4e4e4}.line{fill:none;stroke-width:2}"
)


class Axis:
    """Maps values to pixels; `ticks` are (value, label)."""

    def __init__(self, low, high, ticks, scale=lambda x: x):
        self.scale, self.ticks = scale, ticks
        self.low, self.high = scale(low), max(scale(high), scale(low) + 1e-9)

    def place(self, value, start, end):
        share = (self.scale(value) - self.low) / (self.high - self.low)
        return start + (end - start) * min(max(share, 0), 1)


def linear(values, least=0.0):
    high = max([*values, least]) * 1.05 or 1.0
    step = 10 ** math.floor(math.log10(high / 4))
    step *= next(m for m in (1, 2, 5, 10) if high / (m * step) <= 6)
    return Axis(0, high, [(i * step, f"{i * step:g}") for i in range(int(high / step) + 1)])


def logarithmic(values):
    low, high = min(values), max(values)
    marks = [m * 10**e for e in range(-4, 5) for m in (1, 2, 5)]
    below = max([m for m in marks if m <= low], default=low)
    above = min([m for m in marks if m >= high], default=high)
    shown = [m for m in marks if below <= m <= above]
    if len(shown) > 8:
        shown = [m for m in shown if math.log10(m) % 1 == 0]
    return Axis(below, above, [(m, f"{m:g}") for m in shown], math.log10)


def percentiles():
    scale = lambda q: -math.log10(1 - min(q, 99.95) / 100)
    return Axis(1, 99.9, [(q, f"p{q:g}") for q in (50, 90, 99, 99.9)], scale)


class Panel:
    """One chart as SVG elements, of WIDTH x HEIGHT."""

    def __init__(self, title, x, y):
        self._x, self._y = x, y
        self._parts = [f'<text class="title" x="{LEFT}" y="20">{html.escape(title)}</text>']
        for value, label in y.ticks:
            at = self._down(value)
            self._parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>'
                f'<text class="tick" x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{label}</text>'
            )
        for value, label in x.ticks:
            at = self._across(value)
            self._parts.append(
                f'<text class="tick" x="{at}" y="{HEIGHT - BOTTOM + 16}"'
                f' text-anchor="middle">{label}</text>'
            )

    def _across(self, value):
        return round(self._x.place(value, LEFT, WIDTH - RIGHT), 1)

    def _down(self, value):
        return round(self._y.place(value, HEIGHT - BOTTOM, TOP), 1)

    def label(self, words):
        self._parts.append(
            f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}"'
            f' text-anchor="middle">{html.escape(words)}</text>'
        )

    def line(self, points, colour, dashed=False):
        path = " ".join(f"{self._across(x)},{self._down(y)}" for x, y in points)
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self._parts.append(f'<polyline class="line" stroke="{colour}"{dash} points="{path}"/>')

    def bar(self, place, value, colour):
        left, right = self._across(place - 0.35), self._across(place + 0.35)
        top, words = self._down(value), f"{value:.3g}"
        self._parts.append(
            f'<rect x="{left}" width="{right - left:.1f}" y="{top}"'
            f' height="{HEIGHT - BOTTOM - top:.1f}" fill="{colour}"/>'
            f'<text x="{(left + right) / 2:.1f}" y="{top - 4}" text-anchor="middle">{words}</text>'
        )

    def svg(self):
        return "".join(self._parts)


def slowdown_panel(lines):
    curves = [(c, line["slowdown_quantiles"]) for c, line in lines if line["slowdown_quantiles"]]
    if not curves:
        return None
    y = logarithmic([value for _, values in curves for value in values])
    panel = Panel("slowdown: latency / lone latency", percentiles(), y)
    panel.label("percentile of the requests")
    for colour, values in curves:
        panel.line(zip(QUANTILES, values), colour)
    return panel


def sweep_panel(lines, key, title, make_axis):
    curves = [
        (colour, [(p["offered_rps"], p[key]) for p in line["sweep"] if p[key] is not None])
        for colour, line in lines
        if line.get("sweep")
    ]
    points = [point for _, curve in curves for point in curve]
    if not points:
        return None
    panel = Panel(title, linear([x for x, _ in points]), make_axis([y for _, y in points]))
    panel.label("offered requests per second")
    for colour, curve in curves:
        panel.line(curve, colour)
    return panel


def timeline_panel(lines):
    curves = [(colour, line["timeline"]["good"]) for colour, line in lines if line.get("timeline")]
    if not curves:
        return None
    seconds = len(curves[0][1])
    y = linear([value for _, values in curves for value in values])
    panel = Panel("answers in time per second", linear([seconds]), y)
    panel.label("seconds")
    for colour, values in curves:
        panel.line(enumerate(values), colour)
    capacity = lines[0][1].get("capacity_rps")
    if capacity:
        panel.line([(0, capacity), (seconds, capacity)], "#999", dashed=True)
    return panel


def bar_panel(lines, key, title, factor=1.0):
    values = [(colour, (line.get(key) or 0) * factor) for colour, line in lines]
    if not any(value for _, value in values):
        return None
    panel = Panel(title, Axis(-0.5, len(values) - 0.5, []), linear([v * 1.1 for _, v in values]))
    for place, (colour, value) in enumerate(values):
        panel.bar(place, value, colour)
    return panel


def panels(scenario, lines):
    if scenario in ("text-under-pictures", "everything", "long-prompt"):
        yield bar_panel(lines, "inter_token_p99_s", "p99 between two tokens, ms", 1000)
        yield bar_panel(lines, "tokens_per_s", "tokens per second")
        yield bar_panel(lines, "denoise_rows_per_s", "denoising steps per second")
        if scenario == "everything":
            yield bar_panel(
                lines, "painter_rows_per_s", "tokens of pictures and captions per second"
            )
        if scenario == "long-prompt":
            yield bar_panel(lines, "prefill_tokens_per_s", "prompt tokens per second of waiting")
        return
    yield timeline_panel(lines)
    yield slowdown_panel(lines)
    share = lambda values: linear(values, least=1.0)
    yield sweep_panel(lines, "attainment", "share answered in time", share)
    yield sweep_panel(lines, "p99_s", "p99 latency, seconds", logarithmic)


def draw(scenario, lines):
    """The scenario's panels as one SVG; ValueError where the lines have figures for none."""
    coloured = [(COLOURS[i % len(COLOURS)], line) for i, line in enumerate(lines)]
    shown = [panel for panel in panels(scenario, coloured) if panel]
    if not shown:
        raise ValueError(f"{scenario}: its lines have figures for no panel")
    width, height = WIDTH * len(shown), HEIGHT + 28
    parts = [
        f'<g transform="translate({WIDTH * i},24)">{panel.svg()}</g>'
        for i, panel in enumerate(shown)
    ]
    at = LEFT
    for colour, line in coloured:
        name = html.escape(line["policy"])
        parts.append(
            f'<rect x="{at}" y="8" width="12" height="12" fill="{colour}"/>'
            f'<text x="{at + 18}" y="18">{name}</text>'
        )
        at += 40 + 7 * len(name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        + "".join(parts)
        + "</svg>\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/plots"))
    args = parser.parse_args()
    scenarios = {}
    for file in args.files:
        for line in map(json.loads, file.read_text().splitlines()):
            scenarios.setdefault(line["scenario"], {})[line["policy"]] = line
    args.out.mkdir(parents=True, exist_ok=True)
    for scenario, lines in scenarios.items():
        (args.out / f"{scenario}.svg").write_text(draw(scenario, list(lines.values())))


if __name__ == "__main__":
    main()
