"""Writes the published folder: a GPT2LMHeadModel in float16 with the files of a GPT-2 tokenizer."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import prompts


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_tokenizer(source: Path, output: Path, max_length: int) -> None:
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(source / name, output / name)
    special = {f"{role}_token": prompts.END for role in ("bos", "eos", "unk")}
    write_json(output / "special_tokens_map.json", special)
    write_json(
        output / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            **special,
            "chat_template": prompts.CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "model_max_length": max_length,
            "tokenizer_class": "GPT2Tokenizer",
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="state.pt of train.py")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()

    state = torch.load(args.state, weights_only=True, map_location="cpu")
    config = GPT2Config(**state["config"])
    # The published Wenzhong models name this function so; training used its fused form.
    config.activation_function = "gelu_fast"
    model = GPT2LMHeadModel(config)
    model.load_state_dict(state["model"])
    model.generation_config.update(
        do_sample=True,
        temperature=0.8,
        top_p=0.9,
        max_new_tokens=96,
        pad_token_id=config.eos_token_id,
    )
    args.output.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(args.output)
    write_tokenizer(args.tokenizer, args.output, config.n_positions)
    (args.output / "model.safetensors").chmod(0o644)
    size = sum(path.stat().st_size for path in args.output.iterdir())
    print(f"step {state['step']}, {model.num_parameters()} parameters, {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
