"""Assembles RUN into an `ernie_vilg` folder with float16 weights.

python publish.py --run RUN --output ../../ernie-vilg-tiny
"""

import argparse
import json
import pathlib
import shutil

import torch
from diffusers import VQModel
from safetensors.torch import load_file
from transformers import ChineseCLIPModel

from export import check_tokenizer, write_json, write_tokenizer
from network import Network, build, write_config
from wording import VOCABULARY

MODEL_INDEX = {
    "_class_name": "ErnieViLGPipeline",
    "tokenizer": ["transformers", "BertTokenizer"],
    "transformer": ["hanmo", "ErnieViLGModel"],
    "vqvae": ["diffusers", "VQModel"],
}
# Chosen on prompts of their own (README.md).
SAMPLING = {"temperature": 0.95, "top_k": 50, "top_p": 0.95, "num_candidates": 1}


def write_part(model, folder):
    model.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    config.pop("_name_or_path", None)
    write_json(folder / "config.json", config)


def install(part, output):
    """Moves what is in `part` to its place; a reranker of an earlier run goes if there is no new one."""
    if not (part / "reranker").exists():
        shutil.rmtree(output / "reranker", ignore_errors=True)
    for item in part.iterdir():
        target = output / item.name
        if target.is_dir():
            shutil.rmtree(target)
        item.replace(target)
    part.rmdir()


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--output", type=pathlib.Path, required=True)
    args = args.parse_args()
    part = args.output / ".part"
    shutil.rmtree(part, ignore_errors=True)
    write_tokenizer(part / "tokenizer")
    check_tokenizer(part / "tokenizer")
    (part / "tokenizer" / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    vqvae = VQModel.from_pretrained(args.run / "vqvae", torch_dtype=torch.float32)
    network = build(vqvae.config.num_vq_embeddings)
    network.read(load_file(args.run / "transformer.safetensors"))
    write_part(vqvae, part / "vqvae")
    (part / "transformer").mkdir()
    network.save(part / "transformer" / "model.safetensors", torch.float16)
    write_json(part / "transformer" / "config.json", write_config(network.config))
    index = dict(MODEL_INDEX)
    if (args.run / "reranker").exists():
        index["reranker"] = ["transformers", "ChineseCLIPModel"]
        reranker = ChineseCLIPModel.from_pretrained(
            args.run / "reranker", torch_dtype=torch.float32
        )
        write_part(reranker, part / "reranker")
        shutil.copy(args.run / "reranker" / "preprocessor_config.json", part / "reranker")
    write_json(part / "generation_config.json", SAMPLING)
    write_json(part / "model_index.json", index)
    install(part, args.output)
    for path in args.output.rglob("*.safetensors"):
        path.chmod(0o644)
    Network.load(args.output / "transformer")
    VQModel.from_pretrained(args.output / "vqvae")
    size = sum(p.stat().st_size for p in args.output.rglob("*") if p.is_file())
    print(f"{args.output}: {size} bytes ({size / 2**20:.2f} MiB)")


if __name__ == "__main__":
    main()
