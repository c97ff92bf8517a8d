"""Assembles RUN into a Taiyi-layout diffusers folder with float16 safetensors.

python export.py --run RUN --output models/taiyi-sd-tiny
"""

import argparse
import json
import pathlib
import shutil

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import BertModel, BertTokenizer

import grammar
from train_text import MAX_LENGTH, token_ids
from train_unet import SCHEDULE

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "BertModel"],
    "tokenizer": ["transformers", "BertTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SPECIAL = {
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}


def write_json(path, value):
    path.write_text(
        json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def write_tokenizer(folder):
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(grammar.vocabulary()) + "\n", encoding="utf-8")
    write_json(folder / "special_tokens_map.json", SPECIAL)
    write_json(
        folder / "tokenizer_config.json",
        {
            **SPECIAL,
            "do_basic_tokenize": True,
            "do_lower_case": True,
            "model_max_length": MAX_LENGTH,
            "never_split": None,
            "strip_accents": None,
            "tokenize_chinese_chars": True,
            "tokenizer_class": "BertTokenizer",
        },
    )


def check_tokenizer(folder):
    """The written tokenizer must give the ids the model was trained on."""
    tokenizer = BertTokenizer.from_pretrained(folder)
    for prompt in ("", "两座青山，一轮红日，左边有松树。", "一幅画：江上有船,晚霞 雪景"):
        ids = tokenizer(
            prompt, padding="max_length", truncation=True, max_length=tokenizer.model_max_length
        )
        if ids.input_ids != token_ids(prompt):
            raise SystemExit(f"the tokenizer of {folder} disagrees on {prompt!r}")


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--output", type=pathlib.Path, required=True)
    args = args.parse_args()
    part = args.output / ".part"
    shutil.rmtree(part, ignore_errors=True)
    write_tokenizer(part / "tokenizer")
    check_tokenizer(part / "tokenizer")
    for name, kind in (
        ("unet", UNet2DConditionModel),
        ("vae", AutoencoderKL),
        ("text_encoder", BertModel),
    ):
        model = kind.from_pretrained(args.run / name, torch_dtype=torch.float32).to(torch.float16)
        model.save_pretrained(part / name, safe_serialization=True)
        config = json.loads((part / name / "config.json").read_text())
        config.pop("_name_or_path", None)
        write_json(part / name / "config.json", config)
    PNDMScheduler(**SCHEDULE, skip_prk_steps=True).save_pretrained(part / "scheduler")
    write_json(part / "model_index.json", MODEL_INDEX)
    for item in part.iterdir():
        target = args.output / item.name
        if target.is_dir():
            shutil.rmtree(target)
        item.replace(target)
    part.rmdir()
    for path in args.output.rglob("*.safetensors"):
        path.chmod(0o644)
    StableDiffusionPipeline.from_pretrained(args.output, torch_dtype=torch.float32)
    size = sum(p.stat().st_size for p in args.output.rglob("*") if p.is_file())
    print(f"{args.output}: {size} bytes ({size / 2**20:.2f} MiB)")


if __name__ == "__main__":
    main()
