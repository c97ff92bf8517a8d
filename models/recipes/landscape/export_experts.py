"""Assembles experts into an ErnieViLG2Pipeline folder with float16 safetensors; what they share is copied.

python export_experts.py --run RUN --start-from ../../taiyi-sd-tiny --output ../../ernie-vilg2-tiny
"""

import argparse
import json
import pathlib
import re
import shutil

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from export import write_json
from train_unet import SCHEDULE

# What evaluate.py measured, instead of the 50 steps and 7.5 of those who say nothing.
DEFAULTS = {"guidance_scale": 4.0, "num_inference_steps": 20}


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--start-from", type=pathlib.Path, required=True)
    args.add_argument("--output", type=pathlib.Path, required=True)
    args = args.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for part in ("text_encoder", "tokenizer", "vae"):
        shutil.copytree(args.start_from / part, args.output / part, dirs_exist_ok=True)
    DDIMScheduler(**SCHEDULE, clip_sample=False).save_pretrained(args.output / "scheduler")
    experts = []
    folders = [p for p in args.run.iterdir() if re.fullmatch(r"expert_\d+_\d+", p.name)]
    for folder in sorted(folders, key=lambda p: int(p.name.split("_")[1])):
        _, t_min, t_max = folder.name.split("_")
        name = f"unet_{len(experts):02d}"
        experts.append({"subfolder": name, "t_min": int(t_min), "t_max": int(t_max)})
        unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32)
        unet.to(torch.float16).save_pretrained(args.output / name)
        config = json.loads((args.output / name / "config.json").read_text())
        config.pop("_name_or_path", None)
        write_json(args.output / name / "config.json", config)
    index = {
        "_class_name": "ErnieViLG2Pipeline",
        "experts": experts,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "BertModel"],
        "tokenizer": ["transformers", "BertTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(args.output / "model_index.json", index)
    write_json(args.output / "generation_config.json", DEFAULTS)
    for path in args.output.rglob("*.safetensors"):
        path.chmod(0o644)
    size = sum(p.stat().st_size for p in args.output.rglob("*") if p.is_file())
    print(f"{args.output}: {size} bytes ({size / 2**20:.2f} MiB)")


if __name__ == "__main__":
    main()
