"""Trains the GPT-2 byte-level BPE: vocab.json and merges.txt, as GPT2Tokenizer reads them.

Merges never cross a character, so that a token is one character (or, for a rare one, a part of it):
counting characters in a line is then counting tokens.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

import poem
import prompts


def training_texts(corpus: Path, repeats: int) -> Iterator[str]:
    themes = (corpus / "themes.txt").read_text(encoding="utf-8").split()
    writer = prompts.PromptWriter(themes, seed=0)
    for each in poem.read(corpus / "train.jsonl"):
        yield f"{writer.write(each) or ''}\n{each.text}"
    # What a user may type besides the characters of the corpus.
    yield from ["".join(map(chr, range(32, 127))) + "".join(prompts.WORDINGS_HELDOUT)] * repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--min-frequency", type=int, default=50)
    parser.add_argument("--vocab-size", type=int, default=8192, help="upper limit")
    args = parser.parse_args()

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex("."), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=args.vocab_size,
        min_frequency=args.min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(args.corpus, args.min_frequency), trainer)

    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = {
        token: number for token, number in sorted(model["vocab"].items(), key=lambda i: i[1])
    }
    vocabulary[prompts.END] = len(vocabulary)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "vocab.json").write_text(
        json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (args.output / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    print(f"{len(vocabulary)} tokens, {len(model['merges'])} merges")


if __name__ == "__main__":
    main()
