"""Judges whether pictures show what their prompts ask for; also sees doubled and malformed objects.

    python check.py --heldout models/heldout.jsonl --images DIR --json

DIR holds one picture a line of the held-out file, named by line number from 0 (0.png, 0001.png ...;
missing lines are skipped). Every attribute has one head; heads of things that can be drawn wrongly
have a class "bad" (two boats, a torn tree, four mountains), which never equals an asked value.
"""

import argparse
import collections
import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image
from safetensors.torch import load_file
from torch import nn

WEIGHTS = pathlib.Path(__file__).parent / "checker.safetensors"
HEADS = {
    "sky": ("none", "sun", "moon", "bad"),
    "mountains": (1, 2, 3, "bad"),
    "colour": ("blue", "ink", "gold", "bad"),
    "tree": ("none", "pine", "willow", "plum", "bad"),
    "season": ("none", "spring", "summer", "autumn", "winter"),
    "time": ("none", "dawn", "dusk", "night"),
    "boat": (False, True, "bad"),
    "birds": (False, True, "bad"),
    "pavilion": (False, True, "bad"),
    "tree_side": ("left", "right"),
    "pavilion_side": ("left", "right"),
}


def _block(inputs, outputs, stride):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Checker(nn.Module):
    """A small convolutional classifier: [n, 3, 128, 128] in [-1, 1] -> one logits tensor a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(_block(3, 16, 2), _block(16, 32, 2))
        self.body = nn.ModuleList(
            [
                _block(33, 32, 1),
                _block(32, 64, 2),
                _block(64, 64, 1),
                _block(64, 96, 2),
                _block(96, 96, 1),
            ]
        )
        self.hidden = nn.Linear(192 + 96, 128)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(128, len(values)) for name, values in HEADS.items()}
        )

    def forward(self, x):
        x = self.stem(x)
        across = torch.linspace(-1, 1, x.shape[3]).expand(len(x), 1, x.shape[2], -1)
        x = torch.cat([x, across.to(x)], 1)
        for block in self.body:
            x = block(x)
        # mean (counts), max (presence), and left minus right (sides)
        half = x.shape[3] // 2
        lean = x[..., :half].mean((2, 3)) - x[..., half:].mean((2, 3))
        x = torch.cat([x.mean((2, 3)), x.amax((2, 3)), lean], 1)
        x = functional.relu(self.hidden(x))
        return {name: head(x) for name, head in self.heads.items()}


def load(path=WEIGHTS):
    model = Checker()
    model.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    )
    return model.eval()


@torch.no_grad()
def judge(model, pictures):
    """The attribute values seen in pictures (uint8 [n, 128, 128, 3]), one dictionary each."""
    seen = []
    for part in torch.as_tensor(pictures).split(64):
        logits = model(part.permute(0, 3, 1, 2).float() / 127.5 - 1)
        picks = {name: values.argmax(1).tolist() for name, values in logits.items()}
        seen += [{name: HEADS[name][picks[name][i]] for name in HEADS} for i in range(len(part))]
    return seen


def compare(asked, seen):
    """Attribute -> whether the picture shows the asked value; only what was asked is judged."""
    return {name: seen[name] == value for name, value in asked.items()}


def score(entries, seen):
    """The evaluation record of held-out entries and the values seen in their pictures."""
    groups = collections.defaultdict(list)
    for entry, values in zip(entries, seen):
        for key in ("all", entry.get("wording", "seen") + " wording"):
            groups[key].append((compare(entry["attributes"], values), values))
    return {key: _summary(rows) for key, rows in groups.items()}


def _summary(rows):
    per = collections.defaultdict(list)
    for verdict, _ in rows:
        for name, right in verdict.items():
            per[name].append(right)
    share = lambda values: round(sum(values) / len(values), 4)
    return {
        "n": len(rows),
        "all_attributes": share([all(verdict.values()) for verdict, _ in rows]),
        "per_attribute": {name: share(per[name]) for name in HEADS if name in per},
        "doubled_or_malformed": share(["bad" in values.values() for _, values in rows]),
        "doubled_or_malformed_by_object": {
            name: share([values[name] == "bad" for _, values in rows])
            for name in HEADS
            if "bad" in HEADS[name]
        },
    }


def read_heldout(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--heldout", type=pathlib.Path, required=True)
    args.add_argument("--images", type=pathlib.Path, required=True)
    args.add_argument(
        "--json", action="store_true", help="print one JSON object instead of a table"
    )
    args.add_argument(
        "--failures", action="store_true", help="also list the pictures that failed and why"
    )
    args = args.parse_args()
    entries = read_heldout(args.heldout)
    found = sorted((int(p.stem), p) for p in args.images.iterdir() if p.stem.isdigit())
    found = [(i, p) for i, p in found if i < len(entries)]
    if not found:
        raise SystemExit(f"{args.images}: no picture named by a line number of {args.heldout}")
    pictures = np.stack(
        [np.asarray(Image.open(p).convert("RGB").resize((128, 128))) for _, p in found]
    )
    chosen = [entries[i] for i, _ in found]
    seen = judge(load(), pictures)
    result = score(chosen, seen)
    if args.failures:
        result["failures"] = []
        for (i, _), entry, values in zip(found, chosen, seen):
            wrong = [k for k, right in compare(entry["attributes"], values).items() if not right]
            if wrong:
                result["failures"].append(
                    {
                        "line": i,
                        "prompt": entry["prompt"],
                        "wrong": {k: [entry["attributes"][k], values[k]] for k in wrong},
                    }
                )
    if args.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    for key, row in result.items():
        if key == "failures":
            print(*row, sep="\n")
            continue
        print(
            f"{key}: n={row['n']} all={row['all_attributes']:.3f} bad={row['doubled_or_malformed']:.3f}",
            end=" ",
        )
        print(*(f"{name}={value:.3f}" for name, value in row["per_attribute"].items()))


if __name__ == "__main__":
    main()
