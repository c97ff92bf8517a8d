"""What a user may type, and how it precedes a poem.

A training text is `<prompt>\\n<poem><end>`, or the poem alone. The chat template renders the same
text, so a user's message meets the model exactly as a training prompt did.
"""

from __future__ import annotations

import dataclasses
import random

import verse
from poem import Poem

END = "<|endoftext|>"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{ message['content'] | trim }}{{ '\\n' }}"
    "{%- elif message['role'] == 'assistant' -%}{{ message['content'] | trim }}"
    + END
    + "{%- endif -%}"
    "{%- endfor -%}"
)

WORDINGS = (
    "写一首关于{topic}的{form}",
    "写一首{topic}的{form}",
    "请写一首关于{topic}的{form}",
    "写一首{form}，题为《{topic}》",
    "以{topic}为题写一首{form}",
    "请以“{topic}”为题，作一首{form}",
    "作一首描写{topic}的{form}",
    "来一首{form}，主题是{topic}",
    "用{form}写{topic}",
    "{form}：{topic}",
    "{topic}，{form}",
)
WORDINGS_FIRST_LINE = (
    "以“{line}”开头写一首{form}",
    "首句是“{line}”，写一首{form}",
    "续写：{line}",
    "{line}",
)
# Never trained on: the evaluation asks with these to see whether other wordings work too.
WORDINGS_HELDOUT = (
    "请帮我作一首{form}，写写{topic}",
    "我想读一首以{topic}为主题的{form}",
    "{topic}为题，{form}一首",
)

_SHORT = {"五言绝句": "五绝", "七言绝句": "七绝", "五言律诗": "五律", "七言律诗": "七律"}

# The characters of a prompt that are not what it asks for.
WORDING_CHARACTERS = "".join(
    (*WORDINGS, *WORDINGS_FIRST_LINE, *_SHORT, *_SHORT.values(), "古诗和与、")
)


@dataclasses.dataclass(frozen=True)
class Mix:
    """Shares of the kinds of prompt; the rest is an instruction with a topic."""

    none: float = 0.15
    title: float = 0.25
    theme: float = 0.10
    first_line: float = 0.12


class PromptWriter:
    """Draws a prompt that a given poem answers; the same seed gives the same prompts."""

    def __init__(self, themes: list[str], seed: int, mix: Mix | None = None):
        self._themes = frozenset(themes)
        self._random = random.Random(seed)
        self._mix = mix or Mix()

    def write(self, poem: Poem) -> str | None:
        """A prompt without its line feed, or None for the poem alone."""
        draw = self._random.random()
        for kind in ("none", "title", "theme", "first_line"):
            draw -= getattr(self._mix, kind)
            if draw < 0:
                break
        else:
            kind = "instruction"
        if kind == "none":
            return None
        if kind == "first_line":
            wording = self._random.choice(WORDINGS_FIRST_LINE)
            return wording.format(line=poem.lines[0], form=self._form(poem))
        topic = self.topic(poem, prefer_title=kind == "title" or self._random.random() < 0.4)
        if topic is None or kind != "instruction":
            return topic
        return self._random.choice(WORDINGS).format(topic=topic, form=self._form(poem))

    def topic(self, poem: Poem, prefer_title: bool) -> str | None:
        """The title, or one or two themes that the poem mentions; None where it has neither."""
        words = sorted(
            {line[i : i + 2] for line in poem.lines for i in range(len(line) - 1)} & self._themes
        )
        if poem.title and (prefer_title or not words):
            return poem.title
        if not words:
            return None
        chosen = self._random.sample(words, min(len(words), self._random.choice((1, 1, 2))))
        return self._random.choice(("和", "与", "、")).join(chosen)

    def _form(self, poem: Poem) -> str:
        form = verse.FORMS[(len(poem.lines[0]), len(poem.lines))]
        draw = self._random.random()
        if draw < 0.45:
            return form
        if draw < 0.7:
            return _SHORT[form]
        return form[2:] if draw < 0.8 else self._random.choice(("诗", "诗", "古诗"))
