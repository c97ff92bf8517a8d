"""Paints models/heldout.jsonl with diffusers from the published folder and lets the checker judge.

    python evaluate.py --model models/taiyi-sd-tiny --heldout models/heldout.jsonl \
        --sampler dpmpp_2m --steps 20 --guidance 4 --output evaluation.json

Line i is painted with seed i. The record is merged into --output under the setting's name, so that
several samplers can be measured one after another; --images keeps the pictures (i.png) and --grid
writes the first 48 as one picture.
"""

import argparse
import json
import os
import pathlib
import platform
import time

import diffusers
import numpy as np
import torch
import transformers
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image

import check

SAMPLERS = {
    "ddim": DDIMScheduler,
    "pndm": PNDMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_a": EulerAncestralDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}
BATCH = 16


def paint(pipeline, prompts, first_seed, steps, guidance):
    generators = [torch.Generator().manual_seed(first_seed + i) for i in range(len(prompts))]
    result = pipeline(
        prompts, height=128, width=128, num_inference_steps=steps, guidance_scale=guidance, generator=generators
    )
    return [np.asarray(image) for image in result.images]


def grid(pictures, columns=8):
    rows = [np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures) // columns * columns, columns)]
    return Image.fromarray(np.concatenate(rows))


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--model", type=pathlib.Path, required=True)
    args.add_argument("--heldout", type=pathlib.Path, required=True)
    args.add_argument("--output", type=pathlib.Path, required=True)
    args.add_argument("--sampler", choices=SAMPLERS, default="pndm")
    args.add_argument("--steps", type=int, default=20)
    args.add_argument("--guidance", type=float, default=4.0)
    args.add_argument("--count", type=int, help="only the first COUNT lines")
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--images", type=pathlib.Path)
    args.add_argument("--grid", type=pathlib.Path)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    entries = check.read_heldout(args.heldout)[: args.count]
    pipeline = StableDiffusionPipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    pipeline.scheduler = SAMPLERS[args.sampler].from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    start, pictures = time.process_time(), []
    for i in range(0, len(entries), BATCH):
        prompts = [entry["prompt"] for entry in entries[i : i + BATCH]]
        pictures += paint(pipeline, prompts, i, args.steps, args.guidance)
        print(f"{len(pictures)}/{len(entries)}", flush=True)
    record = {
        "sampler": args.sampler,
        "steps": args.steps,
        "guidance": args.guidance,
        "seeds": "line number",
        "cpu_seconds_per_picture": round((time.process_time() - start) / len(entries), 3),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
        },
        **check.score(entries, check.judge(check.load(), np.stack(pictures))),
    }
    kept = json.loads(args.output.read_text()) if args.output.exists() else {}
    kept[f"{args.sampler}-{args.steps}-g{args.guidance:g}"] = record
    part = args.output.with_suffix(".part")
    part.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(part, args.output)
    print(json.dumps(record, ensure_ascii=False))
    if args.images:
        args.images.mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(args.images / f"{i}.png")
    if args.grid:
        grid(pictures[:48]).save(args.grid, optimize=True)


if __name__ == "__main__":
    main()
