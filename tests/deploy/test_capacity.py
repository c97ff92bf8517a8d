"""docs/capacity.md: its defaults and figures are those of the chart and of the other documents, and its sums are right."""

import functools
import math
import re

import pytest
import yaml
from chart import CHART
from contract import ROOT

DOCUMENT = (ROOT / "docs/capacity.md").read_text()
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
FIGURES = [(ROOT / f"docs/{name}.md").read_text() for name in ("performance", "ernie-vilg")]
OPTIONS = (ROOT / "docs/configuration.md").read_text()

UNITS = {"": 1, "s": 1, "ms": 0.001, "m": 60, "KiB": 2**10, "MiB": 2**20, "Gi": 2**30, "GB": 10**9}


def number(text):
    value, unit = re.fullmatch(r"([\d.,]+) ?(\w*)", text).groups()
    return float(value.replace(",", "")) * UNITS[unit]


def table(name):
    rows = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", DOCUMENT, re.DOTALL).group(1)
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows.splitlines()]
    return [[cell.strip("| ") for cell in row] for row in cells[2:]]


def default_of(what):
    """Of a value of the chart, or of an option of the server."""
    if what.startswith("--"):
        return re.search(rf"^\| `{what} .*?; default (\S+) \|", OPTIONS, re.MULTILINE).group(1)
    return str(functools.reduce(lambda values, key: values[key], what.split("."), VALUES))


def statements():
    """(name, expression, comment) of all examples, in order."""
    for block in re.findall(r"^```\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            code, _, comment = line.partition("#")
            name, expression = code.split("=", 1)
            yield name.strip(), expression.strip(), comment.strip()


@pytest.mark.parametrize(("name", "default", "what"), table("defaults"))
def test_defaults_are_those_of_the_chart(name, default, what):
    assert default == default_of(what.strip("`"))


@pytest.mark.parametrize(("name", "figure", "what", "row"), table("figures"))
def test_figures_are_those_of_the_documents(name, figure, what, row):
    lines = [line for text in FIGURES for line in text.splitlines() if row in line]
    # Not as a part of another number.
    assert any(re.search(rf"(?<![\d.,]){re.escape(figure)}(?!\.?\d)", line) for line in lines)


def test_results_are_right():
    names = {"ceil": math.ceil, "max": max, "__builtins__": {}}
    for row in table("defaults") + table("figures"):
        names[row[0].strip("`")] = number(row[1])
    inputs, used, checked = set(names), set(), 0
    for name, expression, comment in statements():
        assert name not in names, f"{name} has two meanings"
        used |= set(re.findall(r"[a-z_]\w*", expression))
        names[name] = eval(expression, names)
        found = re.match(r"[\d.]*\d", comment)
        if not found:
            # What is computed has a result beside it.
            assert "chosen" in comment or name in ("KiB", "MiB", "GiB", "GB")
            continue
        shown = found.group()
        assert f"{names[name]:.{len(shown.partition('.')[2])}f}" == shown, f"{name}: {comment}"
        checked += 1
    assert checked > 30
    assert inputs - used == {"__builtins__"}


def test_the_margin_is_that_of_the_chart():
    """What the drain leaves of the grace period."""
    helpers = (CHART / "templates/_helpers.tpl").read_text()
    (margin,) = re.findall(r"add \.preStopSeconds \.delaySeconds \.timeoutSeconds (\d+)", helpers)
    assert dict((name, value) for name, value, _ in statements())["margin"] == margin
