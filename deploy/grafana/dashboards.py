#!/usr/bin/env python3
"""Writes the six dashboards into the chart, which installs them; nobody edits the JSON.

dashboards.py          writes them
dashboards.py --check  fails when they are not those that would be written
"""

import json
import pathlib
import sys

from devices import devices
from errors import errors
from overview import overview
from pictures import pictures
from scheduler import scheduler
from text import text

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "helm/hanmo/dashboards"

DASHBOARDS = {
    "overview": overview,
    "text": text,
    "pictures": pictures,
    "scheduler": scheduler,
    "devices": devices,
    "errors": errors,
}


def files():
    """Path -> content of every dashboard."""
    return {
        FOLDER / f"{name}.json": json.dumps(make(), indent=2, ensure_ascii=False) + "\n"
        for name, make in DASHBOARDS.items()
    }


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    made = files()
    others = sorted(set(FOLDER.glob("*.json")) - set(made))
    stale = [path for path in made if not path.exists() or path.read_text() != made[path]]
    if check:
        if stale or others:
            names = ", ".join(path.name for path in [*stale, *others])
            sys.exit(f"not what deploy/grafana/dashboards.py writes: {names}")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(made[path])
    for path in others:
        path.unlink()


if __name__ == "__main__":
    main()
