"""Records tiny random VQModel folders as published, and what diffusers makes of them.

    python generate.py            # writes the folders beside this file

Each folder holds config.json, the weights, and golden.safetensors: `codes` (n x h x w), `pictures`
decoded from them as VQModel.decode(..., force_not_quantize=True) does from the codebook's entries,
`inputs` (pictures in [-1, 1]) and `encoded`, the codes that VQModel gives them. Computed in float32
from the stored weights. `versions.json` names the versions that made them.
"""

import json
import pathlib
import shutil

import diffusers
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent


def config_of(channels, **others):
    return dict(
        block_out_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        **others,
    )


# name: (config, storage type, config keys left out, code grid)
CASES = {
    # As ERNIE-ViLG's tokenizer: f = 8.
    "f8": (
        config_of(
            [4, 4, 8, 8],
            layers_per_block=2,
            norm_num_groups=4,
            sample_size=32,
            latent_channels=8,
            num_vq_embeddings=64,
        ),
        torch.float16,
        ("vq_embed_dim",),
        (4, 4),
    ),
    # Codes narrower than the latents, no attention, a grid that is no square.
    "narrow": (
        config_of(
            [6, 6],
            layers_per_block=1,
            norm_num_groups=3,
            sample_size=16,
            latent_channels=12,
            vq_embed_dim=5,
            num_vq_embeddings=33,
            mid_block_add_attention=False,
        ),
        torch.float32,
        (),
        (3, 5),
    ),
}


def randomise(model, generator):
    """Weights of a size that keeps activations near one, norms that are not the identity."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if name == "quantize.embedding.weight":
            weight.copy_(noise)
        elif weight.dim() > 1:
            weight.copy_(noise / weight[0].numel() ** 0.5)
        else:
            weight.copy_(0.1 * noise + (1 if "norm" in name and "weight" in name else 0))


def save(folder, model, dtype, left_out):
    folder.mkdir()
    config = {"_class_name": type(model).__name__, "_diffusers_version": diffusers.__version__}
    config.update(
        {k: v for k, v in model.config.items() if not k.startswith("_") and k not in left_out}
    )
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    state = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}
    safetensors.torch.save_file(state, folder / "diffusion_pytorch_model.safetensors")


def decode(model, codes):
    shape = (*codes.shape, model.config.vq_embed_dim)
    entries = model.quantize.get_codebook_entry(codes.flatten(), shape)
    return model.decode(entries, force_not_quantize=True).sample


def encode(model, pictures):
    latents = model.encode(pictures).latents
    _, _, (_, _, codes) = model.quantize(latents)
    return codes.view(latents.shape[0], *latents.shape[2:])


@torch.inference_mode()
def main():
    for seed, (name, (config, dtype, left_out, grid)) in enumerate(CASES.items()):
        generator = torch.Generator().manual_seed(300 + seed)
        model = diffusers.VQModel(**config).eval()
        if model.config.vq_embed_dim is None:
            model.register_to_config(vq_embed_dim=model.config.latent_channels)
        randomise(model, generator)
        model.to(dtype).float()
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        save(folder, model, dtype, left_out)
        codes = torch.randint(model.config.num_vq_embeddings, (3, *grid), generator=generator)
        pictures = decode(model, codes)
        inputs = torch.rand(pictures.shape, generator=generator) * 2 - 1
        encoded = encode(model, inputs)
        safetensors.torch.save_file(
            dict(codes=codes, pictures=pictures.contiguous(), inputs=inputs, encoded=encoded),
            folder / "golden.safetensors",
        )
        print(name, tuple(pictures.shape), float(pictures.std()), encoded.unique().numel())
    (HERE / "versions.json").write_text(
        json.dumps(dict(diffusers=diffusers.__version__, torch=torch.__version__)) + "\n"
    )


if __name__ == "__main__":
    main()
