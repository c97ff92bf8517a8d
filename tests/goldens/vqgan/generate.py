"""Records tiny random VQModel folders as published, and what diffusers makes of them.

    python generate.py            # writes the folders beside this file

Each folder holds config.json, the weights, and golden.safetensors: `codes` (n x h x w), `pictures`
decoded from them as VQModel.decode(..., force_not_quantize=True) does from the codebook's entries,
`inputs` (pictures in [-1, 1]) and `encoded`, the codes that VQModel gives them. Computed in float32
from the stored weights. `versions.json` names the versions that made them.
"""

import pathlib
import sys

import diffusers
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from diffusers_models import autoencoder_config, randomise, save, write_versions  # noqa: E402


# name: (config, storage type, config keys left out, code grid)
CASES = {
    # As ERNIE-ViLG's tokenizer: f = 8.
    "f8": (
        autoencoder_config(
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
        autoencoder_config(
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
    # Attention at the smallest size, as taming-transformers' VQGANs have it.
    "attentive": (
        autoencoder_config(
            [4, 6],
            layers_per_block=2,
            norm_num_groups=2,
            sample_size=8,
            latent_channels=6,
            num_vq_embeddings=40,
        )
        | dict(
            down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
            up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        ),
        torch.float32,
        ("vq_embed_dim",),
        (3, 4),
    ),
}


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
    write_versions(HERE)


if __name__ == "__main__":
    main()
