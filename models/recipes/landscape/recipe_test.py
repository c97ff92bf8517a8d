"""Checks of the grammar, the painter and the published evaluation set: python -m pytest recipe_test.py"""

import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402

import faults  # noqa: E402
import grammar  # noqa: E402
import painter  # noqa: E402

MODELS = HERE.parents[1]
SCENES = grammar.all_scenes()
CONTRADICTIONS = [
    {"sky": "sun", "time": "night"},
    {"sky": "moon", "time": "dawn"},
    {"sky": "moon", "time": "dusk"},
    {"tree": "plum", "season": "summer"},
    {"tree": "plum", "season": "autumn"},
    {"tree": "willow", "season": "winter"},
]


def test_contradictions_are_never_painted():
    for scene in SCENES:
        for pair in CONTRADICTIONS:
            assert any(getattr(scene, k) != v for k, v in pair.items())


def test_hold_out_is_a_tenth_and_closed_under_mirroring():
    held = [s for s in SCENES if grammar.held_out(s)]
    assert 0.08 < len(held) / len(SCENES) < 0.12
    assert all(grammar.held_out(s.mirrored()) for s in held)


def test_held_out_set_holds_no_trained_combination():
    cores = set(grammar.HELD_CORES)
    lines = [
        json.loads(l) for l in (MODELS / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(lines) >= 500
    for line in lines:
        a = line["attributes"]
        assert (a["sky"], a["mountains"], a["colour"], a["tree"], a["season"]) in cores
    share = sum(line["wording"] == "held-out" for line in lines) / len(lines)
    assert 0.15 < share < 0.35


def test_every_character_is_in_the_vocabulary_and_trained():
    known = set(grammar.vocabulary())
    trained = grammar.trained_characters()
    rng = random.Random(0)
    for i in range(3000):
        prompt = grammar.describe(rng.choice(SCENES), rng, held_wording=i % 2 == 1).prompt
        letters = set(prompt) - {" "}
        assert letters <= known
        assert letters <= trained
        assert len(prompt) <= 62


def test_held_out_wording_is_not_trained():
    for key, phrases in grammar.PHRASES_HELD.items():
        assert not set(phrases) & set(grammar.PHRASES[key])
    assert not set(grammar.MOUNTAIN_FRAMES_HELD) & set(grammar.MOUNTAIN_FRAMES)
    assert not set(grammar.SIDE_FRAMES_HELD) & set(grammar.SIDE_FRAMES)


def test_a_prompt_names_exactly_what_the_scene_shows():
    rng = random.Random(1)
    marks = {"boat": "舟船", "birds": "鸟", "pavilion": "亭", "tree": "松柳梅", "sky": "日月"}
    for i in range(2000):
        scene = rng.choice(SCENES)
        prompt = grammar.describe(scene, rng, held_wording=i % 2 == 1).prompt
        for field, letters in marks.items():
            shown = getattr(scene, field) not in ("none", False)
            assert shown == any(c in prompt for c in letters), (scene, prompt)


def test_painting_depends_only_on_scene_seed_and_fault():
    scene = next(
        s
        for s in SCENES
        if s == grammar.Scene("sun", 2, "ink", "willow", "spring", "dusk", True, True, True, "left")
    )
    first = painter.paint(scene, np.random.default_rng(5))
    assert first.shape == (128, 128, 3) and first.dtype == np.uint8
    assert (first == painter.paint(scene, np.random.default_rng(5))).all()
    for name, kinds in faults.KINDS.items():
        for kind in kinds:
            assert (painter.paint(scene, np.random.default_rng(5), (name, kind)) != first).any(), (
                name,
                kind,
            )
