"""Checks of prompts and captions: python -m pytest wording_test.py"""

import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "landscape")]

import grammar  # noqa: E402
from wording import (  # noqa: E402
    MAX_LENGTH,
    VOCABULARY,
    caption,
    caption_ids,
    read_caption,
    shown,
    source_ids,
    telling,
    told_as_asked,
    worn,
)

SCENES = grammar.all_scenes()


def test_a_caption_tells_every_attribute_of_its_scene():
    for scene in SCENES:
        text = caption(scene)
        assert read_caption(text) == shown(scene)
        assert len(caption_ids(text)) <= MAX_LENGTH


def test_what_is_no_caption_is_not_read():
    assert read_caption("两座青山，明月") is None
    assert read_caption("两座青山，绿灯。") is None
    assert read_caption("四座青山。") is None


def test_a_wrong_attribute_is_noticed():
    rng = random.Random(4)
    for _ in range(500):
        one, two = rng.choice(SCENES), rng.choice(SCENES)
        assert (read_caption(caption(one)) == shown(two)) == (caption(one) == caption(two))


def test_a_round_trip_counts_what_was_asked():
    asked = {"mountains": 2, "sky": "moon", "boat": True, "tree_side": "left"}
    text = "两座青山，明月，右边有松树，秋天。"
    right = {"mountains": True, "sky": True, "boat": False, "tree_side": False}
    assert told_as_asked(asked, text) == right
    assert told_as_asked(asked, "两座青山，明月") == dict.fromkeys(asked, False)
    for scene in SCENES[::500]:
        assert all(told_as_asked(shown(scene), caption(scene)).values())


def test_captions_are_made_of_known_characters():
    assert all(set(caption(scene)) <= set(VOCABULARY) for scene in SCENES)
    assert len(set(VOCABULARY)) == len(VOCABULARY)


def test_prompts_fit():
    rng = random.Random(2)
    lengths = [
        len(source_ids(grammar.describe(rng.choice(SCENES), rng).prompt)) for _ in range(2000)
    ]
    assert max(lengths) <= MAX_LENGTH


def test_worn_prompts_still_tell_every_attribute():
    rng, tells = random.Random(3), telling()
    left = {}
    for told, phrases in grammar.PHRASES.items():
        for phrase in phrases * 40:
            left.setdefault(worn(phrase, 0.5, tells, rng), set()).add(told)
    assert "" not in left and all(len(told) == 1 for told in left.values()), left
    assert {"小舟", "舟", "江上有船", "江船", "船"} < left.keys()
    assert worn("岸边有柳，两座墨山", 0.999, tells, rng) in ("柳，两墨山", "岸边有柳，两墨山")
    assert worn("岸边有柳", 0.0, tells, rng) == "岸边有柳"
