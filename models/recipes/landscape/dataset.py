"""Renders the picture sets as .npz shards (uint8 pictures, scene and fault as JSON lines).

python dataset.py --output DIR --split train --shards 0 1 2 3 4 5     # 1500 pictures a shard
python dataset.py --output DIR --split held --shards 0                # held-out combinations
python dataset.py --output DIR --split train --kind faults --shards 0 1 2   # the checker's negatives
python dataset.py --output DIR --split train --kind doubles --shards 0 1    # of them, only doubled objects
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


KINDS = ("sound", "faults", "doubles")


def name(split, kind, shard):
    """A shard's file name; `shard` is a number or a glob pattern."""
    part = "" if kind == "sound" else f"-{kind}"
    return f"{split}{part}-{shard if isinstance(shard, str) else f'{shard:02d}'}.npz"


def render(split, kind, shard, count=SHARD):
    """One shard; every (split, kind, shard) has a seed of its own."""
    seed = [("train", "held").index(split), KINDS.index(kind), shard]
    rng = np.random.default_rng(seed)
    pick = random.Random(repr(seed))
    scenes = [s for s in grammar.all_scenes() if grammar.held_out(s) == (split == "held")]
    pictures, lines = [], []
    for _ in range(count):
        scene = pick.choice(scenes)
        fault = faults.draw(rng, scene, kind == "doubles") if kind != "sound" else None
        pictures.append(painter.paint(scene, rng, fault))
        lines.append(json.dumps({"scene": dataclasses.astuple(scene), "fault": fault}))
    return np.stack(pictures), lines


def _shards(folder, split, kind):
    return sorted(pathlib.Path(folder).glob(name(split, kind, "[0-9][0-9]")))


def load(folder, split, faulty=False):
    """All shards present: pictures [n, 128, 128, 3] uint8, scenes, faults (None or (object, kind))."""
    pictures, scenes, found = [], [], []
    kinds = KINDS[1:] if faulty else KINDS[:1]
    for path in (p for kind in kinds for p in _shards(folder, split, kind)):
        with np.load(path) as shard:
            pictures.append(shard["pictures"])
            for line in map(json.loads, shard["lines"]):
                scenes.append(grammar.Scene(*line["scene"]))
                found.append(tuple(line["fault"]) if line["fault"] else None)
    return np.concatenate(pictures), scenes, found


def load_scenes(folder, split):
    """The scenes of `load` alone, without reading pictures."""
    scenes = []
    for path in _shards(folder, split, "sound"):
        with np.load(path) as shard:
            scenes += [grammar.Scene(*json.loads(line)["scene"]) for line in shard["lines"]]
    return scenes


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--output", type=pathlib.Path, required=True)
    args.add_argument("--split", choices=("train", "held"), required=True)
    args.add_argument("--kind", choices=KINDS, default="sound")
    args.add_argument("--shards", type=int, nargs="+", required=True)
    args.add_argument("--count", type=int, default=SHARD)
    args = args.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for shard in args.shards:
        path = args.output / name(args.split, args.kind, shard)
        if path.exists():
            continue
        pictures, lines = render(args.split, args.kind, shard, args.count)
        part = path.with_suffix(".part")
        with open(part, "wb") as file:
            np.savez(file, pictures=pictures, lines=np.array(lines))
        os.replace(part, path)
        print(path.name, flush=True)


if __name__ == "__main__":
    main()
