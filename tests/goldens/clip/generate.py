"""Records tiny random CLIPTextModel encoders as published, and what transformers answers.

    python generate.py            # writes the folders beside this file

Each folder holds config.json, the weights, and golden.safetensors: `ids` (int64) and `hidden`
(float32, the last hidden state, computed in float32 from the stored weights). `versions.json`
names the versions that made them.
"""

import json
import pathlib
import shutil

import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).parent

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


def save(folder, model, dtype, layout):
    folder.mkdir()
    config = dict(model.config.to_dict(), architectures=["CLIPTextModel"])
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    state = {}
    for name, tensor in model.state_dict().items():
        name = name.removeprefix("text_model.")
        state[("text_model." if layout.get("prefix") else "") + name] = tensor.to(
            dtype
        ).contiguous()
    if layout.get("position_ids"):
        state["text_model.embeddings.position_ids"] = torch.arange(
            model.config.max_position_embeddings
        )[None]
    if layout.get("binary"):
        torch.save(state, folder / "pytorch_model.bin")
    else:
        safetensors.torch.save_file(state, folder / "model.safetensors")


@torch.inference_mode()
def main():
    for seed, (name, (config, dtype, layout, tokens)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        model = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(initializer_factor=5.0, **config)
        )
        generator = torch.Generator().manual_seed(seed)
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
        model.to(dtype).float().eval()
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        save(folder, model, dtype, layout)
        ids = torch.randint(config["vocab_size"], (3, tokens), generator=generator)
        hidden = model(ids).last_hidden_state
        safetensors.torch.save_file(
            dict(ids=ids, hidden=hidden.contiguous()), folder / "golden.safetensors"
        )
        print(name, tuple(hidden.shape), float(hidden.std()))
    (HERE / "versions.json").write_text(
        json.dumps(dict(transformers=transformers.__version__, torch=torch.__version__)) + "\n"
    )


if __name__ == "__main__":
    main()
