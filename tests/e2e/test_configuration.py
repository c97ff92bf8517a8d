"""docs/configuration.md is what the programs say of themselves; HANMO_UPDATE=1 writes it."""

import re

import pytest
from configuration_reference import help_of, tables
from contract import ROOT
from prometheus import UPDATE

DOCUMENT = ROOT / "docs/configuration.md"


@pytest.mark.parametrize("program", ["server", "worker", "gateway"])
def test_the_document_has_every_option(program):
    table = tables()[program]
    begin, end = f"<!-- {program} -->\n", f"<!-- /{program} -->\n"
    before, rest = DOCUMENT.read_text().split(begin)
    shown, after = rest.split(end)
    if UPDATE:
        DOCUMENT.write_text(before + begin + table + end + after)
        return
    assert shown == table
    # Nothing that --help lists is left out.
    listed = set(
        re.findall(r"^ +(?:-\w,)?--([a-z0-9-]+)", help_of(f"hanmo-{program}"), re.MULTILINE)
    )
    named = set(re.findall(r"^\| `--([a-z0-9-]+)", table, re.MULTILINE))
    assert (
        listed - named
        == {
            "server": {"config", "print-config", "version", "help"},
            "worker": {"version", "help"},
            "gateway": set(),
        }[program]
    )
