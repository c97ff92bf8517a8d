"""The messages that the evaluation sends: from held-out poems, and what a newcomer may type."""

from __future__ import annotations

import dataclasses
import random

import prompts
import verse
from poem import Poem


@dataclasses.dataclass(frozen=True)
class Request:
    message: str
    form: str = ""  # the end of the asked form's name
    topic: tuple[str, ...] = ()  # words, any of which the poem should mention
    first_line: str = ""
    raw: bool = False  # sent as it is, not through the chat template


def _form(poem: Poem) -> str:
    return verse.FORMS[(len(poem.lines[0]), len(poem.lines))]


def _instruction(wordings: tuple[str, ...], poem: Poem, theme: str, draw: random.Random) -> Request:
    # The form is the poem's, the theme another poem's: together they need not occur in training.
    message = draw.choice(wordings).format(topic=theme, form=_form(poem))
    return Request(message, form=_form(poem), topic=(theme,))


def heldout_requests(
    heldout: list[Poem], themes: list[str], count: int, draw: random.Random
) -> dict[str, list[Request]]:
    titled = draw.sample([p for p in heldout if p.title], count)
    poems = draw.sample(heldout, 3 * count)
    first_lines = [
        Request(
            draw.choice(prompts.WORDINGS_FIRST_LINE[:2]).format(line=p.lines[0], form=_form(p)),
            form=_form(p),
            first_line=p.lines[0],
        )
        for p in poems[:count]
    ]
    return {
        "title": [Request(p.title) for p in titled],
        "instruction": [
            _instruction(prompts.WORDINGS, p, draw.choice(themes), draw)
            for p in poems[count : 2 * count]
        ],
        "instruction_in_unseen_words": [
            _instruction(prompts.WORDINGS_HELDOUT, p, draw.choice(themes), draw)
            for p in poems[2 * count :]
        ],
        "first_line": first_lines,
        "raw_title": [Request(p.title, raw=True) for p in titled],
        "raw_first_line": [
            Request(f"{p.lines[0]}，", first_line=p.lines[0], raw=True) for p in poems[:count]
        ],
    }


def newcomer_requests() -> list[Request]:
    messages = (
        "春晓",
        "江雪",
        "春江花月夜",
        "写一首关于秋山的五言绝句",
        "写一首关于梅花的七言绝句",
        "以明月为题写一首五言律诗",
        "七律：登高",
        "写一首关于思乡的诗",
        "以“春眠不觉晓”开头写一首五言绝句",
        "请帮我写一首描写江南春雨的七绝",
    )
    return [Request(message) for message in messages]
