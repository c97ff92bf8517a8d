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


def shown(scene):
    """All attributes of a picture, as `read_caption` tells them."""
    told = {name: getattr(scene, name) for name in ("mountains", "colour", *ABSENT)}
    if scene.tree != "none":
        told["tree_side"] = scene.side
    if scene.pavilion:
        told["pavilion_side"] = scene.pavilion_side
    return told
