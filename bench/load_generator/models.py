"""The checkpoints that the scenarios ask for."""

import json
import os
import pathlib
import random
import struct

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEMO_PICTURE_MODEL = ROOT / "models/taiyi-sd-tiny"
# Paints by tokens and describes.
DEMO_PAINTER = ROOT / "models/ernie-vilg-tiny"
DEMO_PICTURE = ROOT / "docs/pictures/14.png"
DEFAULT_TEXT_MODEL = ROOT / "build/bench-models/gpt2-102m"

LAYERS, WIDTH, CONTEXT, VOCABULARY = 12, 768, 1024, 21128


def gpt2_shapes(vocabulary):
    yield "transformer.wte.weight", (vocabulary, WIDTH)
    yield "transformer.wpe.weight", (CONTEXT, WIDTH)
    for layer in range(LAYERS):
        block = f"transformer.h.{layer}"
        for name, rows, columns in (
            ("attn.c_attn", WIDTH, 3 * WIDTH),
            ("attn.c_proj", WIDTH, WIDTH),
            ("mlp.c_fc", WIDTH, 4 * WIDTH),
            ("mlp.c_proj", 4 * WIDTH, WIDTH),
        ):
            yield f"{block}.{name}.weight", (rows, columns)
            yield f"{block}.{name}.bias", (columns,)
        for norm in ("ln_1", "ln_2"):
            yield f"{block}.{norm}.weight", (WIDTH,)
            yield f"{block}.{norm}.bias", (WIDTH,)
    yield "transformer.ln_f.weight", (WIDTH,)
    yield "transformer.ln_f.bias", (WIDTH,)


def float16_values(name, count, draw):
    """Little-endian float16: norms 1, biases 0, the others of size 1/64 to 1/32 and either sign,
    which is about what GPT-2 starts its training from."""
    if name.endswith("bias"):
        return bytes(2 * count)
    if ".ln_" in name:
        return b"\x00\x3c" * count
    drawn = int.from_bytes(draw.randbytes(2 * count), "little")
    sign_and_fraction = int.from_bytes(b"\xff\x83" * count, "little")
    exponent = int.from_bytes(b"\x00\x24" * count, "little")
    return (drawn & sign_and_fraction | exponent).to_bytes(2 * count, "little")


def make_gpt2(folder, vocabulary=VOCABULARY):
    """A GPT-2 of 102 M parameters (with this vocabulary) with random weights and no tokenizer, unless
    it is there."""
    weights = folder / "model.safetensors"
    if weights.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    header, offset = {}, 0
    for name, shape in gpt2_shapes(vocabulary):
        end = offset + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": (offset, end)}
        offset = end
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_layer": LAYERS,
        "n_head": WIDTH // 64,
        "n_embd": WIDTH,
        "n_positions": CONTEXT,
        "vocab_size": vocabulary,
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    draw = random.Random(0)
    head = json.dumps(header).encode()
    unfinished = folder / f"unfinished.{os.getpid()}"
    with unfinished.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            file.write(float16_values(name, (end - begin) // 2, draw))
    unfinished.rename(weights)
    return folder


def default_side(folder):
    """Width and height that a picture model was trained for, in pixels."""
    latent = json.loads((folder / "unet/config.json").read_text())["sample_size"]
    blocks = json.loads((folder / "vae/config.json").read_text())["block_out_channels"]
    return latent * 2 ** (len(blocks) - 1)


def context_tokens(folder):
    return json.loads((folder / "config.json").read_text())["n_positions"]
