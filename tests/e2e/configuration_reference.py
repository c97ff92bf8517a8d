"""The tables of docs/configuration.md, from what the programs' --help says."""

import re
import subprocess

from hanmo_server import BIN, clean_environment

_GROUP = re.compile(r"^(\w[^\n:]*):$", re.MULTILINE)
# As hanmo-server and hanmo-gateway write an option: name, value, meaning, facts.
_OPTION = re.compile(
    r"^  --([a-z0-9-]+) (\S+)\n      (.*)\n      \[(.*); HANMO_\w+\]$", re.MULTILINE
)
# As hanmo-worker's library writes one: name, value, range, default, meaning.
_FLAG = re.compile(
    r"^  --([a-z0-9-]+) ([A-Z]+)(?::(.*?))?(?:=(\S+))?(?: Excludes: \S+)?(?: {2,}|\n +)(\S.*)$",
    re.MULTILINE,
)


def help_of(program):
    done = subprocess.run(
        [BIN / program, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(),
        check=True,
    )
    return done.stdout


def _table(options):
    rows = [
        (f"`--{name} {value}`", facts, meaning.replace("|", "\\|"))
        for name, value, meaning, facts in options
    ]
    head = [("option", "range and default", "meaning"), ("---", "---", "---")]
    return "\n".join("| " + " | ".join(row) + " |" for row in head + rows) + "\n"


def _server():
    text = help_of("hanmo-server")
    groups = list(_GROUP.finditer(text))
    ends = [group.start() for group in groups[1:]] + [len(text)]
    return "\n".join(
        f"### {group[1]}\n\n{_table(_OPTION.findall(text[group.end() : end]))}"
        for group, end in zip(groups, ends, strict=True)
    )


def _worker():
    def facts(check, default):
        named = check.replace("INT in ", "").replace("FILE", "a file that exists")
        return "; ".join(filter(None, (named, f"default {default}" if default else "no default")))

    return _table(
        (name, value, meaning, facts(check, default))
        for name, value, check, default, meaning in _FLAG.findall(help_of("hanmo-worker"))
    )


def _gateway():
    return _table(_OPTION.findall(help_of("hanmo-gateway")))


def tables():
    """Marker of docs/configuration.md -> what stands there."""
    return {"server": _server(), "worker": _worker(), "gateway": _gateway()}
