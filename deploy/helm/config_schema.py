#!/usr/bin/env python3
"""Writes the options of hanmo-server, as its --help lists them, into the chart's values.schema.json.

deploy/helm/config_schema.py [HANMO_SERVER]
"""

import json
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SCHEMA = HERE / "hanmo/values.schema.json"
SERVER = HERE.parents[1] / "build/release/bin/hanmo-server"

# What other values or the layout of the pod decide.
DECIDED_BY_THE_CHART = {
    "listen",
    "metrics-listen",
    "health-listen",
    "admin-listen",
    "tls-cert",
    "tls-key",
    "tls-client-ca",
    "model-repository",
    "workers",
    "worker-threads",
    "devices",
    "worker-program",
    "worker-arg",
    "worker",
    "worker-tls-ca",
    "worker-tls-cert",
    "worker-tls-key",
    "tenant-weight",
    "shutdown-delay",
    "shutdown-timeout",
}

_OPTION = re.compile(r"^  --([a-z0-9-]+) \S+\n      (.*)\n      \[(.*); HANMO_\w+\]$", re.MULTILINE)


def options(help_text):
    """(name, meaning, range and default) of every option in --help."""
    return _OPTION.findall(help_text)


def value_schema(meaning, facts):
    """JSON schema of one option's value."""
    range_of = re.sub(r";? ?(no default|default .*)$", "", facts)
    if "may be repeated" in meaning:
        return {"type": "array", "items": {"type": "string"}}
    if range_of == "true or false":
        return {"type": "boolean"}
    if number := re.fullmatch(r"a number from (\d+) to (\d+)", range_of):
        low, high = map(int, number.groups())
        return {"type": "integer", "minimum": low, "maximum": high}
    if range_of.startswith("bytes"):
        return {"type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+([KMG]iB)?$"}
    if range_of.startswith("a time"):
        unit = "^(0|([0-9.]+(ns|us|ms|s|m|h))+)$"
        return {"type": ["string", "integer"], "pattern": unit, "minimum": 0, "maximum": 0}
    if choices := re.fullmatch(r"one of (.*)", range_of):
        names = choices[1].split(", ")
        bare = [name == "true" for name in names if name in ("true", "false")]  # as YAML reads them
        return {"enum": names + bare}
    return {"type": "string"}


def config_properties(help_text):
    return {
        name: {"description": f"{meaning} [{facts}]", **value_schema(meaning, facts)}
        for name, meaning, facts in options(help_text)
        if name not in DECIDED_BY_THE_CHART
    }


def updated_schema(help_text):
    """The text of values.schema.json with the options of this help."""
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["config"]["properties"] = config_properties(help_text)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    server = sys.argv[1] if len(sys.argv) > 1 else SERVER
    shown = subprocess.run([server, "--help"], check=True, capture_output=True, text=True).stdout
    SCHEMA.write_text(updated_schema(shown))
