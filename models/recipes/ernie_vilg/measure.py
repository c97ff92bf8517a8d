"""Paints models/heldout.jsonl from a published folder, describes held-out pictures, and has both judged.

    python measure.py --model ../../ernie-vilg-tiny --heldout ../../heldout.jsonl --images DIR \
        --count 513 --output evaluation.json --grid ../../ernie-vilg-tiny/samples.png
    python measure.py ... --best-of 8                # eight pictures a line; the reranker chooses one
    python measure.py ... --data DATA --count 0      # captions of the pictures held out

Candidate j of line i has the seed i + j and stands in DIR/j/i.png; pictures that are there are kept, so
a broken run continues. The records are merged into --output under the setting's name: "prompts" are all
pictures, "prompts, best of N" the chosen ones; their `round_trip` says how much of what was asked the model
itself tells about its pictures.
"""

import argparse
import json
import os
import pathlib
import platform

import diffusers
import numpy as np
import torch
import transformers
from diffusers import VQModel
from PIL import Image
from transformers import ChineseCLIPModel

import check
import codebook
import dataset
import sampling
from evaluate import grid
from network import Network
from train_reranker import picture_features, text_features
from train_transformer import caption_score
from training import to_tensor
from wording import read_caption, told_as_asked

ROWS = 128


def load(folder):
    """(network, VQModel, sampling defaults) of a published folder, in float32."""
    network = Network.load(folder / "transformer").eval()
    vqvae = VQModel.from_pretrained(folder / "vqvae", torch_dtype=torch.float32).eval()
    defaults = json.loads((folder / "generation_config.json").read_text())
    how = {k: defaults[k] for k in ("temperature", "top_k", "top_p")}
    return network, vqvae, how


def paint(network, vqvae, how, entries, lines, candidate, folder):
    """Paints the lines that DIR/candidate lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i in lines if not (folder / f"{i}.png").exists()]
    for start in range(0, len(missing), ROWS):
        part = missing[start : start + ROWS]
        prompts = [entries[i]["prompt"] for i in part]
        codes = sampling.paint(network, prompts, [i + candidate for i in part], **how)
        for i, picture in zip(part, sampling.decode(vqvae, codes)):
            Image.fromarray(picture.numpy()).save(folder / f"{i}.png")
        print(f"candidate {candidate}: {start + len(part)}/{len(missing)}", flush=True)


@torch.no_grad()
def choose(reranker, prompts, candidates):
    """The candidate of each prompt whose cosine is highest: pictures [lines, candidates, ...] -> [lines]."""
    text = text_features(reranker, prompts)
    scores = [
        (picture_features(reranker, to_tensor(pictures)) @ feature)
        for feature, pictures in zip(text, torch.as_tensor(candidates))
    ]
    return torch.stack(scores).argmax(1).tolist()


def captions(network, vqvae, data, count):
    """How many held-out pictures are described with every attribute right."""
    pictures, scenes, _ = dataset.load(data, "held")
    kernel, bias = codebook.linear_map(vqvae, torch.from_numpy(pictures[:64]))
    z = codebook.latents(torch.from_numpy(pictures[:count]), kernel, bias)
    codes = vqvae.quantize.embedding.weight.detach()
    tokens = codebook.nearest(z.flatten(0, 2), codes).view(len(z), -1)
    share, misses = caption_score(network, tokens, scenes[:count])
    return {"n": len(z), "all_attributes": round(share, 4), "misses": misses}


@torch.no_grad()
def describe(network, vqvae, pictures):
    """The greedy caption of each picture (uint8 [n, h, w, 3]), prepared as a server does it."""
    codes, texts = vqvae.quantize.embedding.weight, []
    for part in torch.as_tensor(pictures).split(64):
        z = vqvae.encode(to_tensor(part)).latents.permute(0, 2, 3, 1)
        tokens = codebook.nearest(z.flatten(0, 2), codes).view(len(part), -1)
        texts += sampling.describe(network, tokens)
    return texts


def round_trip(entries, texts):
    """How many of the attributes that prompts ask for are told about their pictures."""
    verdicts = [told_as_asked(e["attributes"], t) for e, t in zip(entries, texts, strict=True)]
    share = lambda values: round(sum(values) / len(values), 4)
    per = {
        name: share([v[name] for v in verdicts if name in v])
        for name in check.HEADS
        if any(name in v for v in verdicts)
    }
    return {
        "asked_attributes": share([right for v in verdicts for right in v.values()]),
        "all_attributes": share([all(v.values()) for v in verdicts]),
        "per_attribute": per,
        "unreadable": sum(read_caption(text) is None for text in texts),
    }


def merge(path, name, record):
    kept = json.loads(path.read_text()) if path.exists() else {}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {"diffusers": diffusers.__version__, "transformers": transformers.__version__}
    kept[name] = record | {"versions": versions}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
    print(name, json.dumps(record, ensure_ascii=False))


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--model", type=pathlib.Path, required=True)
    args.add_argument("--heldout", type=pathlib.Path, required=True)
    args.add_argument("--images", type=pathlib.Path, required=True)
    args.add_argument("--output", type=pathlib.Path, required=True)
    args.add_argument("--count", type=int, default=10**9, help="number of lines")
    args.add_argument("--best-of", type=int, default=1, help="candidates the reranker chooses from")
    args.add_argument("--data", help="also describe the pictures held out of this folder")
    args.add_argument("--described", type=int, default=400, help="number of those")
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--grid", type=pathlib.Path, help="write the first 16 pictures as one")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    network, vqvae, how = load(args.model)
    if args.data:
        merge(args.output, "captions", captions(network, vqvae, args.data, args.described))
    entries = check.read_heldout(args.heldout)[: args.count]
    if not entries:
        return
    lines = range(len(entries))
    for j in range(args.best_of):
        paint(network, vqvae, how, entries, lines, j, args.images / str(j))
    pictures = np.stack(
        [
            [np.asarray(Image.open(args.images / str(j) / f"{i}.png")) for j in range(args.best_of)]
            for i in lines
        ]
    )
    how |= {"seeds": "line number + candidate", "candidates": args.best_of}

    def record(name, entries, pictures):
        score = check.score(entries, check.judge(check.load(), pictures))
        score["round_trip"] = round_trip(entries, describe(network, vqvae, pictures))
        merge(args.output, name, how | score)

    each = [entry for entry in entries for _ in range(args.best_of)]
    record("prompts", each, pictures.reshape(-1, *pictures.shape[2:]))
    if args.best_of > 1:
        reranker = ChineseCLIPModel.from_pretrained(
            args.model / "reranker", torch_dtype=torch.float32
        ).eval()
        picks = choose(reranker, [e["prompt"] for e in entries], pictures)
        chosen = pictures[np.arange(len(entries)), picks]
        record(f"prompts, best of {args.best_of}", entries, chosen)
    if args.grid:
        grid(list(pictures[:16, 0]), 4).save(args.grid, optimize=True)


if __name__ == "__main__":
    main()
