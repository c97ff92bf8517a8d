#!/usr/bin/env python3
"""What scoring adds to pictures: the demo model with a reranker of the published shape of
chinese-clip-vit-base-patch16 (random weights, 188 million parameters).

    bench/rerank.py [--bin build/release/bin] [--dtype bfloat16] [--px 512] [--rounds 5]

Paints 8 pictures without and with `best_of` in turns, each round with a prompt of its own, and
compares the device time that the server reports. Prints one line of JSON.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEMO = ROOT / "models/taiyi-sd-tiny"
COUNT = 8


def make_folder(folder: pathlib.Path) -> None:
    """A repository with the one model "scored"."""
    model = folder / "scored"
    model.mkdir(parents=True)
    for part in DEMO.iterdir():
        if part.is_dir():
            (model / part.name).symlink_to(part)
    index = json.loads((DEMO / "model_index.json").read_text())
    index["reranker"] = ["transformers", "ChineseCLIPModel"]
    (model / "model_index.json").write_text(json.dumps(index))
    torch.manual_seed(0)
    config = transformers.ChineseCLIPConfig(
        text_config=dict(vocab_size=21128), vision_config=dict(patch_size=16)
    )
    transformers.ChineseCLIPModel(config).save_pretrained(model / "reranker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/release/bin")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--px", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_folder(pathlib.Path(folder))
        print(json.dumps(measure(args, folder)))


def measure(args: argparse.Namespace, folder: str) -> dict:
    command = [args.bin / "hanmo-server", "--listen=127.0.0.1:0", "--metrics-listen="]
    command += [f"--model-repository={folder}", f"--dtype={args.dtype}", "--log-level=error"]
    load_before = os.getloadavg()[0]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split()[-1]

            def hanmo(*arguments: str) -> str:
                line = [args.bin / "hanmo", *arguments, "--server", address]
                return subprocess.run(line, check=True, capture_output=True, text=True).stdout

            def seconds(words: str, *more: str) -> float:
                size = ["--width", str(args.px), "--height", str(args.px), "--steps", "1"]
                flags = ["--guidance", "1", "-n", str(COUNT), "-o", f"{folder}/x.png", "--json"]
                answer = json.loads(hanmo("image", "-p", words, *size, *flags, *more))
                return answer["usage"]["device_seconds"]

            hanmo("health", "scored", "--wait", "600s")
            weights = json.loads(hanmo("models", "scored", "--json"))["weight_bytes"]
            best_of = ["--best-of", str(COUNT)]
            for _ in range(3):  # until batches are at their knee
                seconds("一座青山", *best_of)
            plain, scored, known = [], [], []
            for i in range(args.rounds):
                words = f"一幅水墨画，江上孤舟，远处青山{i}座"
                plain.append(seconds(words))
                scored.append(seconds(words, *best_of))
                known.append(seconds(words, *best_of))
        finally:
            server.terminate()
    picture = statistics.median((b - a) / COUNT for a, b in zip(plain, known, strict=True))
    text = statistics.median(b - a for a, b in zip(known, scored, strict=True))
    return {
        "benchmark": "rerank",
        "reranker": "chinese-clip-vit-base-patch16 shape, random weights",
        "dtype": args.dtype,
        "px": args.px,
        "load_before": load_before,
        "weight_bytes": weights,
        "device_seconds_per_scored_picture": round(picture, 4),
        "device_seconds_per_new_prompt": round(text, 4),
        "device_seconds_plain": round(statistics.median(plain), 3),
        "device_seconds_scored": round(statistics.median(scored), 3),
    }


if __name__ == "__main__":
    main()
