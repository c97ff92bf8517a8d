"""Teaches the BERT text encoder to read prompts before the UNet sees it.

    python train_text.py --run RUN --steps N

Every output state, padding included, must tell every attribute through one shared linear layer, so
that the UNet's cross-attention finds the whole request wherever it looks. RUN/text_encoder holds the
result, which stays frozen afterwards; RUN/text.json how well it reads held-out combinations and wording.
"""

import argparse
import json
import pathlib
import random

import torch
import torch.nn.functional as functional
from torch import nn
from transformers import BertConfig, BertModel

import grammar
from training import Ema, Optimiser, Run, learning_rate

MAX_LENGTH = 64  # tokens, [CLS] and [SEP] included; the longest prompt of the grammar has 60
WIDTH = 128
BATCH = 48
VOCABULARY = {token: i for i, token in enumerate(grammar.vocabulary())}
VALUES = {
    "sky": grammar.SKY,
    "mountains": (None, *grammar.MOUNTAINS),
    "colour": (None, *grammar.COLOUR),
    "tree": grammar.TREE,
    "season": grammar.SEASON,
    "time": grammar.TIME,
    "boat": (False, True),
    "birds": (False, True),
    "pavilion": (False, True),
    "tree_side": (None, *grammar.SIDE),
    "pavilion_side": (None, *grammar.SIDE),
}
SIZES = [len(v) for v in VALUES.values()]


def build():
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=MAX_LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    return BertModel(config)


def token_ids(prompt):
    """What BertTokenizer yields for Chinese text: one token a character, padded, no mask."""
    inner = [VOCABULARY.get(c, 1) for c in prompt if not c.isspace()][: MAX_LENGTH - 2]
    return [2, *inner, 3] + [0] * (MAX_LENGTH - 2 - len(inner))


def training_prompt(scene, rng):
    """A terse prompt, now and then with a clause of words that the vocabulary lacks, to be ignored."""
    request = grammar.describe(scene, rng, terse=True)
    unknown = "\u3400" * rng.randint(1, 5) + "，" if rng.random() < 0.04 else ""
    return unknown + request.prompt, grammar.asked_attributes(scene, request)


def labels(asked):
    return [values.index(asked.get(name)) for name, values in VALUES.items()]


def rows(scenes, size, rng, held_wording=None):
    ids, truth = [], []
    for _ in range(size):
        scene = rng.choice(scenes)
        if held_wording is None:
            prompt, asked = training_prompt(scene, rng)
        else:
            request = grammar.describe(scene, rng, held_wording)
            prompt, asked = request.prompt, grammar.asked_attributes(scene, request)
        ids.append(token_ids(prompt))
        truth.append(labels(asked))
    return torch.tensor(ids), torch.tensor(truth)


@torch.no_grad()
def measure(bert, reader, held_wording, count=1200):
    """Share of held-out prompts of which the [CLS] state tells every attribute."""
    rng = random.Random(7)
    ids, truth = rows(
        [s for s in grammar.all_scenes() if grammar.held_out(s)], count, rng, held_wording
    )
    right = 0
    for part, wanted in zip(ids.split(100), truth.split(100)):
        parts = reader(bert(part).last_hidden_state[:, 0]).split(SIZES, 1)
        picks = torch.stack([p.argmax(1) for p in parts], 1)
        right += (picks == wanted).all(1).sum().item()
    return right / count


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--steps", type=int, required=True)
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(6)
    bert, reader = build(), nn.Linear(WIDTH, sum(SIZES))
    both = nn.ModuleDict({"bert": bert, "reader": reader})
    named = [(n, p) for n, p in both.named_parameters() if "pooler" not in n]
    optimiser = Optimiser(named, 3e-3, 0.02)
    run = Run(args.run, "text", [both], optimiser, Ema([p for _, p in named], 0.98))
    rng = random.Random(f"text {run.step}")
    scenes = [s for s in grammar.all_scenes() if not grammar.held_out(s)]
    while run.step < args.steps:
        ids, truth = rows(scenes, BATCH, rng)
        states = bert(ids).last_hidden_state[:, torch.randint(0, MAX_LENGTH, (6,))]
        parts = reader(states).flatten(0, 1).split(SIZES, 1)
        wanted = truth.repeat_interleave(6, 0)
        loss = sum(functional.cross_entropy(p, wanted[:, k]) for k, p in enumerate(parts))
        loss.backward()
        share = learning_rate(run.step, run.done(args.steps), 1.0, warm_up=30, decay_from=0.3)
        optimiser.schedule(share)
        optimiser.step()
        run.step += 1
        if run.step % 50 == 0:
            run.log(f"loss {loss.item():.4f}")
        run.save(force=run.step == args.steps)
    record = {
        "seen wording": measure(bert, reader, False),
        "held-out wording": measure(bert, reader, True),
    }
    run.log(json.dumps(record))
    (args.run / "text.json").write_text(json.dumps(record) + "\n")
    bert.save_pretrained(args.run / "text_encoder")


if __name__ == "__main__":
    main()
