#!/usr/bin/env python3
"""What a guide costs a text: time per token and to the first token, guided and free.

    bench/guides.py [--program build/release/bin/bench_text_reuse] [--vocabulary 50257] [--streams 1]

On the worker's text pipeline, with a GPT-2 of 12 layers of 768 (random weights) and a byte-level
vocabulary of made-up words. Free and guided runs alternate; figures are medians over the rounds.
The first token waits for the guide to be compiled; `first_guide_ms` is that of the first guide of
the model, which may wait for the vocabulary, too. Prints one line of JSON.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import tempfile

from load_generator.models import make_gpt2

GUIDES = {
    "json": 'json_schema:{"type": "array", "items": {"type": "object", "properties": {'
    '"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 120}, '
    '"tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}}, '
    '"address": {"type": "object", "properties": {"city": {"type": "string"}, '
    '"zip": {"type": "string", "pattern": "^[0-9]{5}$"}}, "required": ["city", "zip"]}}, '
    '"required": ["name", "age", "tags"], "additionalProperties": false}, "minItems": 1000}',
    "regex": r"regex:([A-Z][a-z]{1,12}( [a-z]{1,12}){2,8}[.!?]\s)+[0-9]{1000}",
}


def byte_characters():
    """How byte-level vocabularies write the bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = iter(range(0x100, 0x200))
    return {byte: chr(byte if byte in printable else next(moved)) for byte in range(256)}


def words(draw):
    """Pieces as tokenizers have them: syllables, with and without a space before, Chinese
    characters in ones to threes, digits and signs."""
    syllables = [
        onset + vowel + coda
        for onset in ("", *"bcdfghjklmnprstvwz", "ch", "sh", "st", "tr")
        for vowel in ("a", "e", "i", "o", "u", "ea", "io")
        for coda in ("", "n", "r", "s", "t", "ng")
    ]
    while True:
        kind = draw.random()
        if kind < 0.75:
            word = "".join(draw.choices(syllables, k=draw.choice((1, 2, 2, 3))))
            word = draw.choice((word, word, word.capitalize()))
            yield draw.choice(("", " ", " ")) + word
        elif kind < 0.95:
            yield "".join(chr(draw.randint(0x4E00, 0x9FA5)) for _ in range(draw.choice((1, 2, 3))))
        else:
            yield "".join(
                draw.choices('0123456789.,:;"{}[]()/\\-_=<> \n', k=draw.choice((2, 3, 4)))
            )


def make_tokenizer(folder, size):
    letters = byte_characters()
    vocabulary = {letters[byte]: byte for byte in range(256)}
    made = words(random.Random(1))
    while len(vocabulary) < size - 1:
        spelled = "".join(letters[byte] for byte in next(made).encode())
        vocabulary.setdefault(spelled, len(vocabulary))
    vocabulary["<|endoftext|>"] = size - 1
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def main() -> None:
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(root / "build/release/bin/bench_text_reuse"))
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    result = {"benchmark": "guides", "model": "gpt2 12x768", **vars(args)}
    del result["program"]
    result["load_before"] = os.getloadavg()[0]
    runs = {name: [] for name in ("free", *GUIDES)}
    first = {name: [] for name in runs}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_gpt2(folder, args.vocabulary)
        make_tokenizer(folder, args.vocabulary)
        worker = subprocess.Popen(
            [args.program, name, args.dtype, str(args.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(args.rounds + 1):
            for side, samples in runs.items():
                print("draw", args.streams, args.tokens, GUIDES.get(side, "free"),
                      file=worker.stdin, flush=True)  # fmt: skip
                run = json.loads(worker.stdout.readline())
                samples.append(1000 * run["seconds"] / run["steps"])
                first[side].append(1000 * run["first_seconds"])
        worker.stdin.close()
        worker.wait()
    result["first_guide_ms"] = round(first[next(iter(GUIDES))][0], 1)
    for side, samples in runs.items():
        del samples[0], first[side][0]  # warms up
        result[f"{side}_ms_per_step"] = round(statistics.median(samples), 3)
        result[f"{side}_first_ms"] = round(statistics.median(first[side]), 1)
    for side in GUIDES:
        ratios = [guided / free for guided, free in zip(runs[side], runs["free"], strict=True)]
        result[f"{side}_over_free"] = round(statistics.median(ratios), 4)
        result[f"{side}_range"] = [round(min(ratios), 4), round(max(ratios), 4)]
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
