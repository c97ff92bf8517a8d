"""Records tiny random BertModel text encoders as published, and what transformers answers.

    python generate.py            # writes the folders beside this file

Each folder holds config.json, the weights, and golden.safetensors: `ids` (int64) and `hidden`
(float32, the last hidden state without an attention mask, computed in float32 from the stored
weights). `versions.json` names the versions that made them.
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
    # As in Taiyi-Stable-Diffusion: a bare BertModel with its pooler.
    "taiyi": (
        dict(
            vocab_size=101,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=24,
            hidden_act="gelu",
        ),
        torch.float16,
        dict(),
        24,
    ),
    # Under "bert." beside a head, a .bin with norms named as in TensorFlow, odd widths.
    "masked_lm": (
        dict(
            vocab_size=53,
            hidden_size=30,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=50,
            max_position_embeddings=40,
            hidden_act="gelu_new",
            layer_norm_eps=1e-5,
            type_vocab_size=1,
        ),
        torch.float32,
        dict(prefix=True, binary=True, gamma=True),
        7,
    ),
    # bfloat16 weights, as in Taiyi's Anime variant; a single token.
    "anime": (
        dict(
            vocab_size=64,
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=96,
            max_position_embeddings=16,
            hidden_act="relu",
        ),
        torch.bfloat16,
        dict(),
        1,
    ),
}


def make(config):
    return transformers.BertModel(transformers.BertConfig(initializer_range=0.2, **config))


def spelled(weights, layout):
    state = {}
    for name, weight in weights.items():
        if layout.get("gamma"):
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            name = name.replace("LayerNorm.bias", "LayerNorm.beta")
        state[("bert." if layout.get("prefix") else "") + name] = weight
    return state


if __name__ == "__main__":
    record(HERE, CASES, make, spelled)
