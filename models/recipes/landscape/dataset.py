"""Renders the picture sets as .npz shards (uint8 pictures, scene and fault as JSON lines).

    python dataset.py --output DIR --split train --shards 0 1 2 3 4 5     # 1500 pictures a shard
    python dataset.py --output DIR --split held --shards 0                # held-out combinations
    python dataset.py --output DIR --split train --faults --shards 0 1    # the checker's negatives
"""

import argparse
import dataclasses
import json
import os
import pathlib
import random

import numpy as np

import faults
import grammar
import painter

SHARD = 1500


def name(split, faulty, shard):
    return f"{split}{'-faults' if faulty else ''}-{shard:02d}.npz"


def render(split, faulty, shard, count=SHARD):
    """One shard; every (split, faulty, shard) has a seed of its own."""
    seed = [("train", "held").index(split), int(faulty), shard]
    rng = np.random.default_rng(seed)
    pick = random.Random(repr(seed))
    scenes = [s for s in grammar.all_scenes() if grammar.held_out(s) == (split == "held")]
    pictures, lines = [], []
    for _ in range(count):
        scene = pick.choice(scenes)
        fault = faults.draw(rng, scene) if faulty else None
        pictures.append(painter.paint(scene, rng, fault))
        lines.append(json.dumps({"scene": dataclasses.astuple(scene), "fault": fault}))
    return np.stack(pictures), lines


def load(folder, split, faulty=False):
    """All shards present: pictures [n, 128, 128, 3] uint8, scenes, faults (None or (object, kind))."""
    pictures, scenes, found = [], [], []
    for path in sorted(pathlib.Path(folder).glob(name(split, faulty, 0).replace("-00", "-[0-9][0-9]"))):
        with np.load(path) as shard:
            pictures.append(shard["pictures"])
            for line in map(json.loads, shard["lines"]):
                scenes.append(grammar.Scene(*line["scene"]))
                found.append(tuple(line["fault"]) if line["fault"] else None)
    return np.concatenate(pictures), scenes, found


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--output", type=pathlib.Path, required=True)
    args.add_argument("--split", choices=("train", "held"), required=True)
    args.add_argument("--faults", action="store_true")
    args.add_argument("--shards", type=int, nargs="+", required=True)
    args.add_argument("--count", type=int, default=SHARD)
    args = args.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for shard in args.shards:
        path = args.output / name(args.split, args.faults, shard)
        if path.exists():
            continue
        pictures, lines = render(args.split, args.faults, shard, args.count)
        part = path.with_suffix(".part")
        with open(part, "wb") as file:
            np.savez(file, pictures=pictures, lines=np.array(lines))
        os.replace(part, path)
        print(path.name, flush=True)


if __name__ == "__main__":
    main()
