"""Records tiny random Qwen3, ERNIE-4.5 and Llama checkpoints in the published layouts, and what
transformers answers.

    python generate.py            # writes the folders beside this file

Each folder holds config.json, the weights, and golden.safetensors as those of ../gpt2 do.
"""

import json
import pathlib
import shutil
import sys

import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from text_models import answers, make_prompts, save_weights, write_versions  # noqa: E402

QWEN3 = (transformers.Qwen3Config, transformers.Qwen3ForCausalLM)
ERNIE = (transformers.Ernie4_5Config, transformers.Ernie4_5ForCausalLM)
LLAMA = (transformers.LlamaConfig, transformers.LlamaForCausalLM)

# name: (classes, config, storage dtype, layout)
CASES = {
    # As Qwen3-0.6B is shaped: heads wider than their share of the width, tied, old spelling of rope.
    "qwen3_tied": (
        QWEN3,
        dict(
            vocab_size=151,
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            tie_word_embeddings=True,
            rope_theta=1000000,
        ),
        torch.bfloat16,
        dict(old_rope=True),
    ),
    # One key head for all, widths that no vector length divides, biases, an untied head.
    "qwen3_untied": (
        QWEN3,
        dict(
            vocab_size=99,
            hidden_size=42,
            intermediate_size=77,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=1,
            head_dim=10,
            attention_bias=True,
            rms_norm_eps=1e-5,
            rope_theta=5000,
        ),
        torch.float16,
        dict(shards=2),
    ),
    # As many key heads as heads, positions stretched by a factor.
    "qwen3_linear": (
        QWEN3,
        dict(
            vocab_size=64,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=24,
            rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=10000.0),
        ),
        torch.float32,
        dict(),
    ),
    # As ERNIE-4.5-0.3B is shaped: eight heads to a key head, tied.
    "ernie4_5_tied": (
        ERNIE,
        dict(
            vocab_size=131,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=16,
            num_key_value_heads=2,
            head_dim=8,
            rope_theta=500000,
        ),
        torch.bfloat16,
        dict(old_rope=True),
    ),
    # Biases everywhere, an untied head, a head width from the width, no prefix, shards of .bin.
    "ernie4_5_bias": (
        ERNIE,
        dict(
            vocab_size=77,
            hidden_size=30,
            intermediate_size=50,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=3,
            head_dim=None,
            use_bias=True,
            tie_word_embeddings=False,
        ),
        torch.float32,
        dict(binary=True, shards=2, prefix=False),
    ),
    # A .bin file that repeats the tied head and keeps the frequencies of its rotary positions.
    "llama": (
        LLAMA,
        dict(
            vocab_size=89,
            hidden_size=36,
            intermediate_size=61,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            mlp_bias=True,
            attention_bias=True,
            tie_word_embeddings=True,
        ),
        torch.bfloat16,
        dict(binary=True, frequencies=True),
    ),
}


def make_model(classes, config: dict, dtype: torch.dtype, seed: int):
    config_class, model_class = classes
    torch.manual_seed(seed)
    model = model_class(
        config_class(
            max_position_embeddings=96,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            attn_implementation="eager",
            **config,
        )
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Larger than at the start of a training, so that every part of the model is visible.
            centre = 1.0 if "norm" in name else 0.0
            weight.copy_(centre + 0.2 * torch.randn(weight.shape, generator=generator))
            weight.copy_(weight.to(dtype))
    return model.eval()


def state_to_save(model, dtype, layout) -> dict[str, torch.Tensor]:
    state = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            if not layout.get("binary"):
                continue  # safetensors files do not repeat the tied head
        if not layout.get("prefix", True):
            name = name.removeprefix("model.")
        state[name] = weight.to(dtype).clone()
    if layout.get("frequencies"):
        for layer in range(model.config.num_hidden_layers):
            state[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    return state


def config_to_save(model, config: dict, layout: dict) -> dict:
    saved = model.config.to_diff_dict()
    saved["architectures"] = [type(model).__name__]
    saved["model_type"] = model.config.model_type
    if "head_dim" in config:
        saved["head_dim"] = config["head_dim"]
    if layout.get("old_rope"):
        saved["rope_theta"] = saved.pop("rope_parameters")["rope_theta"]
        saved["rope_scaling"] = None
    return saved


def record(name: str) -> None:
    classes, config, dtype, layout = CASES[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    golden = None
    seed = 0
    while golden is None:
        seed += 1
        model = make_model(classes, config, dtype, seed)
        golden = answers(model, make_prompts(config["vocab_size"], seed))
    save_weights(folder, state_to_save(model, dtype, layout), layout)
    text = json.dumps(config_to_save(model, config, layout), indent=2)
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
