"""The table of families in docs/metrics.md, from what a server and a gateway export."""

import re

_UNITS = {
    "seconds": "s",
    "bytes": "bytes",
    "ratio": "0 to 1",
    "tokens": "tokens",
    "pixels": "pixels",
}


def _unit(name):
    last = name.removesuffix("_total").rsplit("_", 1)[-1]
    return _UNITS.get(last, "")


def reference(metrics):
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", metrics.text, re.MULTILINE))
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", metrics.text, re.MULTILINE))
    lines = ["| family | type | unit | labels | meaning |", "|---|---|---|---|---|"]
    for name in sorted(name for name in types if not name.startswith("exposer_")):
        sample = f"{name}_count" if types[name] == "histogram" else name
        labels = sorted({label for has, _ in metrics.series(sample) for label in has})
        shown = ", ".join(f"`{label}`" for label in labels)
        meaning = helps[name].rstrip(".")
        lines.append(f"| `{name}` | {types[name]} | {_unit(name)} | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"
