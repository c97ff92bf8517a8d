"""Merges the description of the OpenAI-style calls with those generated from proto/ and prints it."""

import json
import sys

import yaml

STREAM = (
    "Events, the data of each a JSON object with one of the fields; errors as an event `error`."
)


class Dumper(yaml.SafeDumper):
    def ignore_aliases(self, _data):
        return True


def text(dumper, value):
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


Dumper.add_representer(str, text)


def fill_in_shared(description):
    """Puts the groups of x-shared in the place of their names."""
    shared = description.pop("x-shared")
    shared["SAMPLING"] |= shared["COMMON"]
    for schema in description["components"]["schemas"].values():
        properties = schema.get("properties", {})
        for name, group in shared.items():
            if properties.pop(name, None) is not None:
                properties |= group
        schema.update({"properties": properties} if properties else {})


def adapt(path, operation):
    """What hanmo-gateway does otherwise than the library: server-sent events."""
    if not path.endswith(":stream"):
        return
    content = operation["responses"]["200"]["content"]
    event = content.pop("application/json")["schema"]["properties"]["result"]
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": event}
    schema = {
        "type": "object",
        "required": ["data"],
        "properties": {"event": {"type": "string"}, "data": data},
    }
    content["text/event-stream"] = {"schema": schema}
    operation["responses"]["200"]["description"] = STREAM


def main(own, *generated):
    with open(own) as file:
        merged = yaml.safe_load(file)
    fill_in_shared(merged)
    for name in generated:
        with open(name) as file:
            other = json.load(file)
        for path, operations in other["paths"].items():
            for operation in operations.values():
                adapt(path, operation)
        merged["paths"] |= other["paths"]
        merged["components"]["schemas"] |= other["components"]["schemas"]
        merged["tags"] += other["tags"]
    yaml.dump(merged, sys.stdout, Dumper, sort_keys=False, allow_unicode=True, width=110)


main(*sys.argv[1:])
