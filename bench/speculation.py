#!/usr/bin/env python3
"""Decodes texts that repeat themselves, and texts that don't, with and without guessed tokens.

    bench/speculation.py [--program build/release/bin/bench_text_reuse] [--drafts 8] [--rounds 5]

On the worker's text pipeline, with a GPT-2 of the 124M shape. Its weights are random but for the
position embeddings: position p holds the embedding of the text's token p + 1, many times over, so
that the model writes the text, whatever came before. Every step computes what a trained model of
that size would; only what it says is chosen:

    copy    a passage of this project's documentation as the prompt, written again with one word in
            twenty changed
    prose   another passage, going on from its first hundred words
    random  tokens of which none comes twice

Both sides must write the text token for token. They alternate; figures are medians, tokens per
second of all streams together. Prints one line of JSON.
"""

import argparse
import json
import os
import pathlib
import random
import re
import statistics
import tempfile

import decode
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
VOCABULARY = 50258


class Words:
    """Gives each word, Chinese character or sign an id."""

    def __init__(self):
        self._ids = {}

    def ids(self, text: str) -> list[int]:
        words = re.findall(r"[a-zA-Z_]+|[0-9]|[^\sa-zA-Z_0-9]", text)
        return [self._ids.setdefault(word, 1 + len(self._ids)) for word in words]


def texts(tokens: int) -> dict[str, tuple[list[int], list[int]]]:
    """Prompt and continuation of each scenario."""
    draw = random.Random(1)
    words = Words()
    architecture = words.ids((ROOT / "ARCHITECTURE.md").read_text())
    readme = words.ids((ROOT / "README.md").read_text())
    passage = architecture[600 : 600 + tokens]
    edited = [draw.randrange(VOCABULARY) if draw.random() < 0.05 else word for word in passage]
    fresh = draw.sample(range(VOCABULARY), 100 + tokens)
    return {
        "copy": (passage, edited),
        "prose": (readme[200:300], readme[300 : 300 + tokens]),
        "random": (fresh[:100], fresh[100:]),
    }


def make_folder(folder: str, dtype: torch.dtype, text: list[int]) -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, activation_function="gelu_fast", bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    embeddings = model.transformer.wte.weight.data
    model.transformer.wpe.weight.data[: len(text) - 1] = 50 * embeddings[text[1:]]
    model.to(dtype).save_pretrained(folder)


def compare(worker: decode.Hanmo, args: argparse.Namespace, batch: int, text: tuple) -> dict:
    prompt, target = text
    ids = " ".join(map(str, prompt))
    runs = {"without": [], "with": []}
    for turn in range(args.rounds + 1):
        for side, samples in runs.items():
            # The first round warms up.
            tokens = len(target) if turn > 0 else 8
            drafts = args.drafts if side == "with" else 0
            run = worker.ask(f"write {batch} {tokens} {drafts} {ids}")
            assert run["tokens"] == target[:tokens], "the model does not write the text"
            if turn > 0:
                samples.append(run)
    pairs = list(zip(runs["without"], runs["with"]))
    ratios = [a["seconds"] / b["seconds"] for a, b in pairs]
    cpu_ratios = [a["cpu_seconds"] / b["cpu_seconds"] for a, b in pairs]
    one = runs["with"][0]
    return {side: decode.side(samples, batch * len(target)) for side, samples in runs.items()} | {
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "cpu_ratio": round(statistics.median(cpu_ratios), 3),
        "tokens_per_step": round(len(target) / one["steps"], 2),
        "drafted": one["drafted"],
    }


def measure(args: argparse.Namespace, text: tuple[list[int], list[int]]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        make_folder(folder, getattr(torch, args.dtype), text[0] + text[1])
        worker = decode.Hanmo(args.program, folder, args.dtype, args.threads)
        return {
            f"batch_{batch}": compare(worker, args, batch, text)
            for batch in map(int, args.batches.split(","))
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(ROOT / "build/release/bin/bench_text_reuse"))
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--drafts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=300)
    args = parser.parse_args()

    transformers.logging.set_verbosity_error()
    result = {"benchmark": "speculation", "model": "gpt2 12x768, vocab 50258", **vars(args)}
    del result["program"]
    result["load_before"] = os.getloadavg()[0]
    for name, text in texts(args.tokens).items():
        result[name] = measure(args, text)
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
