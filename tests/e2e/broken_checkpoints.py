"""Checkpoints with one fault each."""

import json
import pathlib
import pickle
import shutil
import struct

import numpy as np
from contract import ROOT
from safetensors.numpy import load_file, save_file

GPT2 = ROOT / "tests/goldens/gpt2/odd"  # bfloat16, in one safetensors file
GPT2_BIN = ROOT / "tests/goldens/gpt2/bin"
PIPELINE = ROOT / "tests/goldens/pipelines/taiyi"
VILG = ROOT / "tests/goldens/ernie_vilg/whole"  # 48 codes, 3 x 5 tokens of 8 x 8 pixels


def edit_json(path, **changes):
    content = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            content.pop(key)
        else:
            content[key] = value
    path.write_text(json.dumps(content))


def edit_header(path, change):
    """Rewrites the JSON header of a safetensors file and leaves the data alone."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def truncate(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


class Malicious:
    """Unpickling it would make the file `marker`."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.marker),)


def _rename(old, new):
    return lambda header: header.update({new: header.pop(old)})


def _overlap(header):
    names = [n for n in header if n != "__metadata__"]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]


def _beyond(header):
    name = next(n for n in header if n != "__metadata__")
    start, end = header[name]["data_offsets"]
    header[name]["data_offsets"] = [start, end + (1 << 40)]


def _wrong_norm(folder):
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["decoder.conv_norm_out.weight"] = np.ones(3, np.float16)
    save_file(tensors, path)


def _fewer_codes(folder):
    """A codebook with fewer rows than the configurations say."""
    path = folder / "vqvae/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = "quantize.embedding.weight"
    tensors[name] = tensors[name][:40].copy()
    save_file(tensors, path)


MODEL = "model.safetensors"
UNET = "unet/diffusion_pytorch_model.safetensors"

# name: (folder to copy, fault, words that the description must have)
FAULTS = {
    "torn": (GPT2, lambda f: truncate(f / MODEL, 0.7), ["model.safetensors"]),
    "empty": (GPT2, lambda f: truncate(f / MODEL, 0), ["model.safetensors"]),
    "huge-header": (GPT2, lambda f: (f / MODEL).write_bytes(b"\xff" * 64), ["model.safetensors"]),
    "no-json": (
        GPT2,
        lambda f: (f / MODEL).write_bytes(struct.pack("<Q", 4) + b"nope"),
        ["model.safetensors"],
    ),
    "overlap": (GPT2, lambda f: edit_header(f / MODEL, _overlap), ["model.safetensors"]),
    "beyond": (GPT2, lambda f: edit_header(f / MODEL, _beyond), ["model.safetensors"]),
    "missing-tensor": (
        GPT2,
        lambda f: edit_header(f / MODEL, _rename("wpe.weight", "wpe.other")),
        ["wpe.weight"],
    ),
    "wrong-width": (
        GPT2,
        lambda f: edit_json(f / "config.json", n_embd=60),
        ["h.0.ln_1.weight", "[48]", "[60]"],
    ),
    "more-layers": (GPT2, lambda f: edit_json(f / "config.json", n_layer=3), ["h.2."]),
    "bad-activation": (
        GPT2,
        lambda f: edit_json(f / "config.json", activation_function="x"),
        ["activation_function"],
    ),
    "no-vocabulary": (
        GPT2,
        lambda f: edit_json(f / "config.json", vocab_size=None),
        ["vocab_size"],
    ),
    "heads-that-do-not-divide": (
        GPT2,
        lambda f: edit_json(f / "config.json", n_head=5),
        ["n_head"],
    ),
    "bad-config": (GPT2, lambda f: (f / "config.json").write_text("{"), ["config.json"]),
    "deep-config": (GPT2, lambda f: (f / "config.json").write_text("[" * 100000), ["config.json"]),
    "other-architecture": (
        GPT2,
        lambda f: edit_json(
            f / "config.json", architectures=["MambaForCausalLM"], model_type="mamba"
        ),
        ["MambaForCausalLM"],
    ),
    "no-weights": (GPT2, lambda f: (f / MODEL).unlink(), ["model.safetensors"]),
    "bad-tokenizer": (GPT2, lambda f: (f / "tokenizer.json").write_text("[]"), ["tokenizer.json"]),
    "no-pickle": (
        GPT2_BIN,
        lambda f: (f / "pytorch_model.bin").write_bytes(b"x" * 999),
        ["pytorch_model.bin"],
    ),
    "torn-pickle": (
        GPT2_BIN,
        lambda f: truncate(f / "pytorch_model.bin", 0.5),
        ["pytorch_model.bin"],
    ),
    "no-unet": (PIPELINE, lambda f: shutil.rmtree(f / "unet"), ["unet"]),
    "torn-unet": (PIPELINE, lambda f: truncate(f / UNET, 0.9), ["unet", ".safetensors"]),
    "no-vocabulary-file": (PIPELINE, lambda f: (f / "tokenizer/vocab.txt").unlink(), ["tokenizer"]),
    "other-pipeline": (
        PIPELINE,
        lambda f: edit_json(f / "model_index.json", _class_name="StableDiffusionXLPipeline"),
        ["StableDiffusionXLPipeline"],
    ),
    "wrong-vae": (PIPELINE, _wrong_norm, ["decoder.conv_norm_out.weight", "[3]"]),
    "unet-of-other-width": (
        PIPELINE,
        lambda f: edit_json(f / "unet/config.json", cross_attention_dim=32),
        ["[", "24", "32"],
    ),
    "bad-scheduler": (
        PIPELINE,
        lambda f: edit_json(f / "scheduler/scheduler_config.json", beta_schedule="x"),
        ["beta_schedule"],
    ),
    "vilg-of-other-codes": (
        VILG,
        lambda f: edit_json(f / "vqvae/config.json", num_vq_embeddings=40),
        ["vqvae/config.json", "num_vq_embeddings 40", "image_vocab_size 48"],
    ),
    "vilg-of-fewer-codes": (VILG, _fewer_codes, ["quantize.embedding.weight", "[40", "[48"]),
    "vilg-of-more-rows": (
        VILG,
        lambda f: edit_json(f / "transformer/config.json", image_grid=[4, 5]),
        ["embeddings.row_embeddings.weight", "[3", "[4"],
    ),
    "vilg-of-no-grid": (
        VILG,
        lambda f: edit_json(f / "transformer/config.json", image_grid=[15]),
        ["transformer/config.json", "image_grid"],
    ),
    "vilg-of-other-size": (
        VILG,
        lambda f: edit_json(f / "vqvae/config.json", sample_size=64),
        ["sample_size 64", "image_grid", "24 x 40"],
    ),
    "vilg-of-attending-levels": (
        VILG,
        lambda f: edit_json(f / "vqvae/config.json", down_block_types=["AttnDownEncoderBlock2D"]),
        ["down_block_types"],
    ),
    "index-only": (
        PIPELINE,
        lambda f: [shutil.rmtree(p) for p in f.iterdir() if p.is_dir()],
        ["unet/config.json"],
    ),
}


def make_broken(folder, marker):
    """A copy with each fault, and a .bin whose pickle wants to make the file `marker`."""
    for name, (source, fault, _) in FAULTS.items():
        shutil.copytree(source, folder / name)
        fault(folder / name)
    shutil.copytree(GPT2_BIN, folder / "malicious")
    with (folder / "malicious/pytorch_model.bin").open("wb") as file:
        pickle.dump({"wte.weight": Malicious(marker)}, file)
    return folder
