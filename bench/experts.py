"""How much of the experts' loading is hidden: a random mixture in ERNIE-ViLG 2.0's shape, painted with
all experts in memory, with two, and with one.

    python bench/experts.py [--width 128] [--experts 5] [--size 256] [--steps 15] [--dtype bfloat16]

Writes the checkpoint into a temporary folder (needs diffusers, see scripts/setup --reference), runs
bench_experts on it and prints one JSON line: its lines, and the share of the loading time that two
experts in memory hide. With one in memory every change waits for a whole load, which is the measure.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile

import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

ROOT = pathlib.Path(__file__).parents[1]


def unet(width):
    """512 is ERNIE-ViLG 2.0's."""
    cross = ["CrossAttnDownBlock2D"] * 3, ["CrossAttnUpBlock2D"] * 3
    return UNet2DConditionModel(
        sample_size=128,
        block_out_channels=[width, 2 * width, 3 * width, 4 * width],
        layers_per_block=3,
        attention_head_dim=[width * level // 64 for level in (1, 2, 3, 4)],
        cross_attention_dim=4 * width,
        down_block_types=["DownBlock2D", *cross[0]],
        up_block_types=[*cross[1], "UpBlock2D"],
    )


def write(folder, args):
    torch.manual_seed(0)
    text = transformers.BertConfig(
        vocab_size=100,
        hidden_size=4 * args.width,
        num_hidden_layers=2,
        num_attention_heads=4 * args.width // 64,
        intermediate_size=4 * args.width,
        max_position_embeddings=77,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    transformers.BertModel(text).half().save_pretrained(folder / "text_encoder")
    vae.half().save_pretrained(folder / "vae")
    DDIMScheduler(beta_schedule="linear", clip_sample=False, steps_offset=1).save_pretrained(
        folder / "scheduler"
    )
    borders = [1000 * i // args.experts for i in range(args.experts + 1)]
    experts = []
    for i in range(args.experts):
        unet(args.width).half().save_pretrained(folder / f"unet_{i:02d}")
        experts.append({"subfolder": f"unet_{i:02d}", "t_min": borders[i], "t_max": borders[i + 1]})
    index = {
        "_class_name": "ErnieViLG2Pipeline",
        "text_encoder": ["transformers", "BertModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "experts": experts,
    }
    (folder / "model_index.json").write_text(json.dumps(index))


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--width", type=int, default=128, help="of the first level; 512 is true size")
    args.add_argument("--experts", type=int, default=5)
    args.add_argument("--size", type=int, default=256, help="pixels")
    args.add_argument("--steps", type=int, default=15)
    args.add_argument("--pictures", type=int, default=1)
    args.add_argument("--dtype", default="bfloat16")
    args.add_argument("--threads", type=int, default=os.cpu_count())
    args.add_argument("--program", default=ROOT / "build/release/bin/bench_experts")
    args = args.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write(folder, args)
        elements = sum(p.numel() for p in unet(args.width).parameters())
        each = elements * (4 if args.dtype == "float32" else 2)
        budgets = [0, int(2.5 * each), each]
        command = [args.program, folder, args.dtype, args.threads, args.size, args.steps]
        output = subprocess.run(
            [*map(str, [*command, args.pictures, *budgets])], check=True, stdout=subprocess.PIPE
        ).stdout
    lines = [json.loads(line) for line in output.splitlines()]
    assert len({line["picture"] for line in lines}) == 1, "budgets change the picture"
    whole = lines[2]["waited_seconds"]
    hidden = 1 - lines[1]["waited_seconds"] / whole
    print(json.dumps({**vars(args), "hidden": hidden, "runs": lines}, default=str))


if __name__ == "__main__":
    main()
