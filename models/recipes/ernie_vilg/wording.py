"""Token ids of prompts and captions, and what a caption says.

A prompt is worded as in the landscape recipe. A caption is the one canonical wording of a scene: it
names everything that the picture shows, in a fixed order, so that each attribute can be checked.
"""

import re

import grammar

VOCABULARY = [*grammar.vocabulary(), "[BOI]", "[BOT]"]
IDS = {token: i for i, token in enumerate(VOCABULARY)}
CLS, SEP, BOI, BOT = (IDS[t] for t in ("[CLS]", "[SEP]", "[BOI]", "[BOT]"))
MAX_LENGTH = 64

NAMES = {
    ("sky", "sun"): "红日",
    ("sky", "moon"): "明月",
    ("tree", "pine"): "松树",
    ("tree", "willow"): "柳树",
    ("tree", "plum"): "梅树",
    ("season", "spring"): "春天",
    ("season", "summer"): "夏天",
    ("season", "autumn"): "秋天",
    ("season", "winter"): "冬天",
    ("time", "dawn"): "清晨",
    ("time", "dusk"): "黄昏",
    ("time", "night"): "夜晚",
    ("boat", True): "小舟",
    ("birds", True): "飞鸟",
    ("pavilion", True): "亭子",
}
ABSENT = {
    "sky": "none", "tree": "none", "season": "none", "time": "none",
    "boat": False, "birds": False, "pavilion": False,
}  # fmt: skip
MOUNTAIN = {"blue": "青山", "ink": "墨山", "gold": "金山"}


def source_ids(prompt):
    """[CLS], one token a character, [SEP]."""
    inner = [IDS.get(c, 1) for c in prompt if not c.isspace()][: MAX_LENGTH - 2]
    return [CLS, *inner, SEP]


STAYING = set("一两三左右青墨金山峰")  # numbers, sides and mountains, in worn prompts
CLAUSES = re.compile("([，、,：。 ])")


def telling():
    """Characters that tell an attribute's value in training prompts: those of one value's words alone.
    Of mountains what tells is STAYING anyway."""
    owners = {}
    nouns = {
        ("pavilion", True) if k == "pavilion" else ("tree", k): v for k, v in grammar.NOUN.items()
    }
    frames = {None: (*grammar.MOUNTAIN_FRAMES, *grammar.SIDE_FRAMES, *grammar.PREFIXES)}
    for table in (grammar.PHRASES, nouns, frames):
        for owner, phrases in table.items():
            for c in "".join(phrases):
                owners.setdefault(c, set()).add(owner)
    return {c for c, who in owners.items() if len(who) == 1 and None not in who} | set("山峰")


def worn(prompt, share, tells, rng):
    """The prompt without a share of its characters, as long as every clause still tells what it told: so
    that each character of a word is heeded, and words that are made of them in other ways."""

    def wear(clause):
        left = "".join(c for c in clause if c in STAYING or rng.random() >= share)
        return left if tells.intersection(left) else clause

    return "".join(wear(clause) for clause in CLAUSES.split(prompt))


def caption(scene):
    """For example 两座青山，明月，左边有松树，右边有亭子，小舟，秋天，夜晚。"""
    parts = [f"{grammar.NUMBER[scene.mountains]}座{MOUNTAIN[scene.colour]}"]
    for field in ("sky", "tree", "pavilion", "boat", "birds", "season", "time"):
        name = NAMES.get((field, getattr(scene, field)))
        if name and field in ("tree", "pavilion"):
            side = scene.side if field == "tree" else scene.pavilion_side
            name = f"{grammar.SIDE_WORD[side]}边有{name}"
        if name:
            parts.append(name)
    return "，".join(parts) + "。"


def caption_ids(text):
    """The caption's target tokens: one a character, then [SEP]."""
    return [*(IDS[c] for c in text), SEP]


def read_caption(text):
    """The attributes that a caption names, as models/heldout.jsonl writes them; None if it is not one."""
    found = re.fullmatch(r"([一两三])座(..)((?:，[^，。]+)*)。", text)
    if not found or found[2] not in MOUNTAIN.values():
        return None
    told = dict(ABSENT)
    told["mountains"] = {v: k for k, v in grammar.NUMBER.items()}[found[1]]
    told["colour"] = {v: k for k, v in MOUNTAIN.items()}[found[2]]
    kinds = {name: key for key, name in NAMES.items()}
    for part in filter(None, found[3].split("，")):
        name = part.removeprefix("左边有").removeprefix("右边有")
        if name not in kinds:
            return None
        field, value = kinds[name]
        told[field] = value
        if name != part:
            told[f"{field}_side"] = "left" if part[0] == "左" else "right"
    return told


def told_as_asked(asked, text):
    """Attribute -> whether the caption tells the asked value; one that cannot be read tells nothing."""
    told = read_caption(text) or {}
    return {name: told.get(name) == value for name, value in asked.items()}


def shown(scene):
    """All attributes of a picture, as `read_caption` tells them."""
    told = {name: getattr(scene, name) for name in ("mountains", "colour", *ABSENT)}
    if scene.tree != "none":
        told["tree_side"] = scene.side
    if scene.pavilion:
        told["pavilion_side"] = scene.pavilion_side
    return told
