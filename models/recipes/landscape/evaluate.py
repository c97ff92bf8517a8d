"""Paints models/heldout.jsonl with diffusers from the published folder and lets the checker judge.

    python evaluate.py --model models/taiyi-sd-tiny --heldout models/heldout.jsonl \
        --sampler pndm --steps 20 --guidance 4 --images DIR --output evaluation.json

Line i is painted with seed i into DIR/i.png; pictures that are there are kept, so a broken run
continues, and --first/--count let several processes share the work (the last one, without --first,
judges all). The record is merged into --output under the setting's name.
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
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from PIL import Image
from transformers import BertModel, BertTokenizer

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


def paint(pipeline, prompts, seeds, args):
    return pipeline(
        prompts,
        height=128,
        width=128,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    ).images


def load_pipeline(folder):
    """The folder as a StableDiffusionPipeline; of several experts each is called at its timesteps."""
    index = json.loads((folder / "model_index.json").read_text())
    if "experts" not in index:
        return StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)

    def part(kind, name):
        return kind.from_pretrained(folder / name, torch_dtype=torch.float32)

    experts = [(e, part(UNet2DConditionModel, e["subfolder"])) for e in index["experts"]]
    calls = [(e["t_min"], e["t_max"], unet.forward) for e, unet in experts]

    def forward(sample, timestep, *args, **named):
        (call,) = [call for t_min, t_max, call in calls if t_min <= timestep < t_max]
        return call(sample, timestep, *args, **named)

    unet = experts[0][1]
    unet.forward = forward
    return StableDiffusionPipeline(
        vae=part(AutoencoderKL, "vae"),
        text_encoder=part(BertModel, "text_encoder"),
        tokenizer=BertTokenizer.from_pretrained(folder / "tokenizer"),
        unet=unet,
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def grid(pictures, columns):
    rows = [
        np.concatenate(pictures[i : i + columns], 1)
        for i in range(0, len(pictures) // columns * columns, columns)
    ]
    return Image.fromarray(np.concatenate(rows))


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--model", type=pathlib.Path, required=True)
    args.add_argument("--heldout", type=pathlib.Path, required=True)
    args.add_argument("--images", type=pathlib.Path, required=True)
    args.add_argument(
        "--output", type=pathlib.Path, help="without it the pictures are painted, not judged"
    )
    args.add_argument("--sampler", choices=SAMPLERS, default="pndm")
    args.add_argument("--steps", type=int, default=20)
    args.add_argument("--guidance", type=float, default=4.0)
    args.add_argument("--first", type=int, default=0, help="first line")
    args.add_argument("--count", type=int, default=10**9, help="number of lines")
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--grid", type=pathlib.Path, help="write the first 16 pictures as one")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    entries = check.read_heldout(args.heldout)
    lines = range(len(entries))[args.first : args.first + args.count]
    pipeline = load_pipeline(args.model)
    pipeline.scheduler = SAMPLERS[args.sampler].from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    args.images.mkdir(parents=True, exist_ok=True)
    missing = [i for i in lines if not (args.images / f"{i}.png").exists()]
    for start in range(0, len(missing), BATCH):
        part = missing[start : start + BATCH]
        for i, picture in zip(
            part, paint(pipeline, [entries[i]["prompt"] for i in part], part, args)
        ):
            picture.save(args.images / f"{i}.png")
        print(f"{start + len(part)}/{len(missing)}", flush=True)
    if not args.output:
        return
    pictures = [np.asarray(Image.open(args.images / f"{i}.png")) for i in lines]
    record = {
        "sampler": args.sampler,
        "steps": args.steps,
        "guidance": args.guidance,
        "seeds": "line number",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
        },
        **check.score([entries[i] for i in lines], check.judge(check.load(), np.stack(pictures))),
    }
    kept = json.loads(args.output.read_text()) if args.output.exists() else {}
    kept[f"{args.sampler}-{args.steps}-g{args.guidance:g}"] = record
    part = args.output.with_suffix(".part")
    part.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(part, args.output)
    print(json.dumps(record, ensure_ascii=False))
    if args.grid:
        grid(pictures[:16], 4).save(args.grid, optimize=True)


if __name__ == "__main__":
    main()
