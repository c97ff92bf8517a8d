"""Records tiny random GPT-2 checkpoints in the published layouts, and what transformers answers.

    python generate.py            # writes the folders beside this file

Each folder holds config.json, the weights, and golden.safetensors with, for prompt i:
`prompt.i` (int32 ids), `logits.i` (float32, last token, computed in float32 from the stored
weights) and `greedy.i` (64 int32 ids of greedy decoding in float32). `versions.json` names the
versions that made them. A greedy run whose best two logits come closer than 1e-3 is drawn again,
so that rounding cannot decide it.
"""

import json
import pathlib
import shutil
import sys

import safetensors
import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from text_models import answers, make_prompts, save_weights, write_versions  # noqa: E402

# name: (config, storage dtype, layout)
CASES = {
    # As Wenzhong-GPT2-110M is published: gelu_fast, n_inner null, old mask buffers, float16.
    "wenzhong": (
        dict(
            vocab_size=258,
            n_positions=96,
            n_embd=28,
            n_layer=2,
            n_head=4,
            activation_function="gelu_fast",
        ),
        torch.float16,
        dict(mask_buffers=True),
    ),
    # A .bin file only, gelu_new, float32.
    "bin": (
        dict(
            vocab_size=61,
            n_positions=96,
            n_embd=20,
            n_layer=2,
            n_head=2,
            activation_function="gelu_new",
        ),
        torch.float32,
        dict(binary=True),
    ),
    # Widths that no vector length divides, n_inner set, no "transformer." prefix, erf gelu.
    "odd": (
        dict(
            vocab_size=99,
            n_positions=96,
            n_embd=48,
            n_layer=2,
            n_head=3,
            n_inner=77,
            activation_function="gelu",
            layer_norm_epsilon=1e-6,
        ),
        torch.bfloat16,
        dict(prefix=False),
    ),
    # Odd head width, scaling by layer, two shards of .bin.
    "sharded": (
        dict(
            vocab_size=131,
            n_positions=96,
            n_embd=30,
            n_layer=2,
            n_head=6,
            scale_attn_by_inverse_layer_idx=True,
            activation_function="gelu_new",
        ),
        torch.bfloat16,
        dict(binary=True, shards=2),
    ),
    # Shards of safetensors, an untied head, relu.
    "untied": (
        dict(
            vocab_size=90,
            n_positions=96,
            n_embd=32,
            n_layer=1,
            n_head=2,
            activation_function="relu",
            tie_word_embeddings=False,
        ),
        torch.float16,
        dict(shards=2),
    ),
}


def make_model(config: dict, dtype: torch.dtype, seed: int) -> transformers.GPT2LMHeadModel:
    torch.manual_seed(seed)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            bos_token_id=0, eos_token_id=0, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **config
        )
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Larger than at the start of a training, so that every part of the model is visible.
            centre = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
            weight.copy_(centre + 0.2 * torch.randn(weight.shape, generator=generator))
            weight.copy_(weight.to(dtype))
    return model.eval()


def state_to_save(model, dtype, layout) -> dict[str, torch.Tensor]:
    state = {}
    tied = model.config.tie_word_embeddings
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and tied and not layout.get("binary"):
            continue  # safetensors files do not repeat the tied head
        if not layout.get("prefix", True):
            name = name.removeprefix("transformer.")
        state[name] = weight.to(dtype).clone()
    if layout.get("mask_buffers"):
        size = model.config.n_positions
        for layer in range(model.config.n_layer):
            mask = torch.tril(torch.ones(size, size, dtype=torch.uint8)).view(1, 1, size, size)
            state[f"transformer.h.{layer}.attn.bias"] = mask
            state[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4, dtype=dtype)
    return state


def record(name: str) -> None:
    config, dtype, layout = CASES[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    golden = None
    seed = 0
    while golden is None:
        seed += 1
        model = make_model(config, dtype, seed)
        golden = answers(model, make_prompts(config["vocab_size"], seed))
    save_weights(folder, state_to_save(model, dtype, layout), layout)
    text = json.dumps(
        model.config.to_diff_dict()
        | {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "n_inner": config.get("n_inner"),
            **config,
        },
        indent=2,
    )
    (folder / "config.json").write_text(text + "\n")
    safetensors.torch.save_file(golden, folder / "golden.safetensors")
    print(name, "seed", seed)


def main() -> None:
    torch.set_num_threads(1)
    for name in CASES:
        record(name)
    write_versions(HERE)


if __name__ == "__main__":
    main()
