"""Has the transformer paint prompts of training scenes and the reader read what came of them.

    python paint_own.py --data DIR --run RUN --count N [--model FOLDER]

Paints with RUN/transformer.safetensors, or with a published folder's, and decodes with RUN/vqvae. What the
reader (train_critic.py) reads says which paintings show their scene: from those train_transformer.py --own
goes on learning; train_reranker.py learns from all of them. Writes RUN/own/NNN.npz, 128 paintings each:
pictures, tokens, scenes, and how likely the reader finds each value of check.HEADS. Those that are there
are kept.
"""

import argparse
import json
import os
import pathlib
import random

import numpy as np
import torch
from diffusers import VQModel
from safetensors.torch import load_file

import check
import dataset
import grammar
import sampling
import train_critic
from network import Network, build
from train_text import training_prompt
from training import to_tensor
from wording import shown

ROWS = 128
SURE = 0.95
HOW = {"temperature": 0.9, "top_k": 50, "top_p": 0.9}


def read(logits):
    """What is read of each picture: a head's name -> the probability of each of its values; what
    is not there has no side."""
    shares = {name: values.softmax(1) for name, values in logits.items()}
    for name in ("tree", "pavilion"):
        absent = [
            check.HEADS[name].index(v) for v in ("none", False, "bad") if v in check.HEADS[name]
        ]
        shares[f"{name}_side"] *= 1 - shares[name][:, absent].sum(1, keepdim=True)
    rows = zip(*(values.tolist() for values in shares.values()))
    return [{n: dict(zip(check.HEADS[n], row)) for n, row in zip(shares, each)} for each in rows]


def likely(reading, wanted):
    """How likely a picture shows `wanted` (attribute -> value): as its least likely attribute."""
    return min(reading[name].get(value, 0.0) for name, value in wanted.items())


def load(run):
    """All paintings: (pictures, tokens, scenes, readings). Prompts need not tell a side: the scene is the
    one of its two mirrored selves that is likelier."""
    pictures, tokens, scenes, readings = [], [], [], []
    paths = sorted((run / "own").glob("*.npz"))
    if len(paths) < 3:
        raise SystemExit(f"{run / 'own'}: fewer than {3 * ROWS} paintings; paint_own.py makes them")
    for path in paths:
        with np.load(path) as part:
            pictures.append(part["pictures"])
            tokens.append(part["tokens"])
            for line in map(json.loads, part["lines"]):
                reading = {n: dict(zip(check.HEADS[n], row)) for n, row in line["reading"].items()}
                scene = grammar.Scene(*line["scene"])
                sides = (scene, scene.mirrored())
                scenes.append(max(sides, key=lambda side: likely(reading, shown(side))))
                readings.append(reading)
    return np.concatenate(pictures), np.concatenate(tokens), scenes, readings


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--count", type=int, required=True)
    args.add_argument("--model", type=pathlib.Path, help="a published folder")
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    reader = train_critic.load(args.run, "reader")
    scenes = sorted(set(dataset.load_scenes(args.data, "train")), key=repr)
    folder = args.run / "own"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(-(-args.count // ROWS)):
        path = folder / f"{number:03}.npz"
        if path.exists():
            continue
        # Both may have learned since the last part.
        vqvae = VQModel.from_pretrained(args.run / "vqvae").eval()
        if args.model:
            network = Network.load(args.model / "transformer")
        else:
            network = build(vqvae.config.num_vq_embeddings)
            network.read(load_file(args.run / "transformer.safetensors"))
        rng = random.Random(f"own {number}")
        chosen = rng.choices(scenes, [1 + s.birds + 0.5 * s.boat for s in scenes], k=ROWS)
        prompts = [training_prompt(scene, rng)[0] for scene in chosen]
        seeds = range(number * ROWS, (number + 1) * ROWS)
        tokens = sampling.paint(network.eval(), prompts, seeds, **HOW)
        pictures = sampling.decode(vqvae, tokens)
        with torch.no_grad():
            readings = read(reader(to_tensor(pictures)))
        lines = [
            json.dumps(
                {
                    "scene": list(vars(scene).values()),
                    "prompt": prompt,
                    "reading": {
                        n: [round(v, 4) for v in row.values()] for n, row in reading.items()
                    },
                }
            )
            for scene, prompt, reading in zip(chosen, prompts, readings)
        ]
        with open(path.with_suffix(".part"), "wb") as file:
            np.savez(
                file,
                pictures=pictures.numpy(),
                tokens=tokens.numpy().astype(np.int16),
                lines=np.array(lines),
            )
        os.replace(path.with_suffix(".part"), path)
        sure = sum(likely(r, shown(s)) >= SURE for s, r in zip(chosen, readings))
        print(f"{path.name}: {sure} of {ROWS} surely as asked", flush=True)


if __name__ == "__main__":
    main()
