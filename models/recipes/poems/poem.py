"""A poem of the corpus, and the JSON-lines files that hold poems."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Poem:
    title: str  # may be empty
    author: str
    era: str  # tang or song
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """One couplet a line, `上句，下句。`, without a final line feed."""
        couplets = zip(self.lines[::2], self.lines[1::2], strict=True)
        return "\n".join(f"{above}，{below}。" for above, below in couplets)


def read(path: Path) -> list[Poem]:
    with path.open(encoding="utf-8") as rows:
        poems = [Poem(**json.loads(row)) for row in rows]
    return [dataclasses.replace(poem, lines=tuple(poem.lines)) for poem in poems]


def write(path: Path, poems: list[Poem]) -> None:
    rows = (json.dumps(dataclasses.asdict(poem), ensure_ascii=False) for poem in poems)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
