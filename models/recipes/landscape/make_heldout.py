"""Writes models/heldout.jsonl: prompts of held-out combinations, a quarter in held-out wording too.

python make_heldout.py --output ../../heldout.jsonl
"""

import argparse
import json
import pathlib
import random

import grammar


def lines(count=640, seed=2024):
    rng = random.Random(seed)
    scenes = [s for s in grammar.all_scenes() if grammar.held_out(s)]
    for scene in rng.sample(scenes, count):
        held_wording = rng.random() < 0.25
        request = grammar.describe(scene, rng, held_wording)
        yield {
            "prompt": request.prompt,
            "attributes": grammar.asked_attributes(scene, request),
            "wording": "held-out" if held_wording else "seen",
        }


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--output", type=pathlib.Path, required=True)
    path = args.parse_args().output
    path.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines()), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
