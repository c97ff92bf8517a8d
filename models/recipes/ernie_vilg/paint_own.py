"""Has the transformer paint prompts of training scenes and the critic read what came of them.

    python paint_own.py --data DIR --run RUN --count N [--model FOLDER]

Paints with RUN/transformer.safetensors, or with a published folder's, and decodes with RUN/vqvae. What the
critic (train_critic.py) reads says which paintings show their scene: from those train_transformer.py --own
goes on learning; train_reranker.py learns from all of them. Writes RUN/own/NNN.npz, 128 paintings each:
pictures, tokens, scenes, readings in the words of check.HEADS, and fits. Those that are there are kept.
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
    """The attribute values that the critic sees, one dictionary a picture; the side of what is not there
    is None."""
    picks = [values.argmax(1).tolist() for values in logits.values()]
    readings = [{name: check.HEADS[name][k] for name, k in zip(logits, row)} for row in zip(*picks)]
    for reading in readings:
        for name in ("tree", "pavilion"):
            if reading[name] in ("none", False, "bad"):
                reading[f"{name}_side"] = None
    return readings


def fits(logits, scenes):
    """How sure the critic is of each picture's scene: the least probability of its attributes."""
    shares = {name: values.softmax(1).tolist() for name, values in logits.items()}
    return [
        min(shares[n][i][check.HEADS[n].index(v)] for n, v in shown(scene).items())
        for i, scene in enumerate(scenes)
    ]


def load(run):
    """All paintings: (pictures, tokens, scenes, readings, whether each surely shows its scene)."""
    pictures, tokens, scenes, readings, sure = [], [], [], [], []
    paths = sorted((run / "own").glob("*.npz"))
    if len(paths) < 2:
        raise SystemExit(f"{run / 'own'}: fewer than {2 * ROWS} paintings; paint_own.py makes them")
    for path in paths:
        with np.load(path) as part:
            pictures.append(part["pictures"])
            tokens.append(part["tokens"])
            for line in map(json.loads, part["lines"]):
                scenes.append(grammar.Scene(*line["scene"]))
                readings.append(line["reading"])
                sure.append(line["fit"] >= SURE)
    return np.concatenate(pictures), np.concatenate(tokens), scenes, readings, sure


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--count", type=int, required=True)
    args.add_argument("--model", type=pathlib.Path, help="a published folder")
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    critic = train_critic.load(args.run)
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
            logits = critic(to_tensor(pictures))
        found = read(logits), fits(logits, chosen)
        lines = [
            json.dumps({"scene": list(vars(s).values()), "prompt": p, "reading": r, "fit": f})
            for s, p, r, f in zip(chosen, prompts, *found)
        ]
        with open(path.with_suffix(".part"), "wb") as file:
            np.savez(
                file,
                pictures=pictures.numpy(),
                tokens=tokens.numpy().astype(np.int16),
                lines=np.array(lines),
            )
        os.replace(path.with_suffix(".part"), path)
        sure = sum(f >= SURE for f in found[1])
        print(f"{path.name}: {sure} of {ROWS} surely as asked", flush=True)


if __name__ == "__main__":
    main()
