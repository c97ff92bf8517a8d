"""Records tiny random CLIPTextModel encoders as published, and what transformers answers.

    python generate.py            # writes the folders beside this file

Each folder holds config.json, the weights, and golden.safetensors: `ids` (int64) and `hidden`
(float32, the last hidden state, computed in float32 from the stored weights). `versions.json`
names the versions that made them.
"""

import pathlib
import sys

import torch
import transformers

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from text_encoders import record  # noqa: E402

# name: (config, storage type, layout, tokens)
CASES = {
    # As in Stable Diffusion 1.x: under "text_model.", with the old position_ids buffer.
    "sd1": (
        dict(
            vocab_size=99,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=20,
            hidden_act="quick_gelu",
        ),
        torch.float16,
        dict(prefix=True, position_ids=True),
        20,
    ),
    # Without the prefix, a .bin, erf gelu, odd widths, fewer tokens than positions.
    "bare": (
        dict(
            vocab_size=70,
            hidden_size=27,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=41,
            max_position_embeddings=33,
            hidden_act="gelu",
            layer_norm_eps=1e-6,
        ),
        torch.float32,
        dict(binary=True),
        9,
    ),
}


def make(config):
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(initializer_factor=5.0, **config))


def spelled(weights, layout):
    prefix = "text_model." if layout.get("prefix") else ""
    state = {prefix + name.removeprefix("text_model."): w for name, w in weights.items()}
    if layout.get("position_ids"):
        (table,) = (w for name, w in weights.items() if name.endswith("position_embedding.weight"))
        state["text_model.embeddings.position_ids"] = torch.arange(len(table))[None]
    return state


if __name__ == "__main__":
    record(HERE, CASES, make, spelled)
