"""Records tiny random AutoencoderKL folders as published, and what diffusers makes of them.

    python generate.py            # writes the folders beside this file

Each folder holds config.json, the weights, and golden.safetensors: `latents` as a sampler leaves
them, `pictures` decoded from them, `rgb` (uint8, height x width x 3) as VaeImageProcessor rounds
them, and `moments` (mean and log variance) encoded from `pictures` clamped to [-1, 1]. Computed in
float32 from the stored weights. `versions.json` names the versions that made them.
"""

import functools
import pathlib
import sys

import diffusers
import numpy
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from diffusers_models import autoencoder_config, randomise, save, write_versions  # noqa: E402


# name: (config, storage type, spelling of the attention, config keys left out, latent size)
CASES = {
    # As Stable Diffusion 1.x: four levels.
    "sd1": (
        autoencoder_config(
            [4, 4, 8, 8],
            layers_per_block=2,
            norm_num_groups=4,
            sample_size=32,
            scaling_factor=0.18215,
        ),
        torch.float16,
        "new",
        (),
        (4, 4),
    ),
    # As folders from before diffusers 0.17: .bin, old names, no scaling_factor.
    "old": (
        autoencoder_config([3, 6], layers_per_block=1, norm_num_groups=3, sample_size=16),
        torch.float32,
        "old",
        (
            "scaling_factor",
            "shift_factor",
            "use_quant_conv",
            "use_post_quant_conv",
            "mid_block_add_attention",
            "force_upcast",
            "latents_mean",
            "latents_std",
        ),
        (5, 6),
    ),
    # The names of the first release: old, and as 1x1 convolutions.
    "oldest": (
        autoencoder_config([3, 6, 6], layers_per_block=1, norm_num_groups=3, sample_size=16),
        torch.float16,
        "oldest",
        ("scaling_factor",),
        (3, 3),
    ),
    # As Stable Diffusion 3: sixteen latent channels, a shift, no quantisation convolutions; and
    # without attention, with three layers.
    "bare": (
        autoencoder_config(
            [4, 8],
            layers_per_block=3,
            norm_num_groups=4,
            sample_size=16,
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=False,
        ),
        torch.bfloat16,
        "new",
        (),
        (6, 4),
    ),
    # One level: pictures as large as their latents.
    "flat": (
        autoencoder_config(
            [6], layers_per_block=1, norm_num_groups=3, sample_size=8, latent_channels=3
        ),
        torch.float16,
        "new",
        (),
        (8, 8),
    ),
}

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def spelled(spelling, state):
    if spelling == "new":
        return state
    renamed = {}
    for name, tensor in state.items():
        if ".attentions." in name:
            for new, old in OLD_NAMES.items():
                if f".{new}." in name and spelling == "oldest" and tensor.dim() == 2:
                    tensor = tensor[:, :, None, None].contiguous()
                name = name.replace(f".{new}.", f".{old}.")
        renamed[name] = tensor
    return renamed


@torch.inference_mode()
def main():
    for seed, (name, case) in enumerate(CASES.items()):
        config, dtype, spelling, left_out, (height, width) = case
        generator = torch.Generator().manual_seed(100 + seed)
        model = diffusers.AutoencoderKL(**config).eval()
        randomise(model, generator)
        model.to(dtype).float()
        folder = HERE / name
        names = functools.partial(spelled, spelling)
        save(folder, model, dtype, left_out, binary=spelling == "old", spelled=names)
        latents = torch.randn(2, model.config.latent_channels, height, width, generator=generator)
        shift = model.config.shift_factor or 0
        pictures = model.decode(latents / model.config.scaling_factor + shift).sample
        processor = diffusers.image_processor.VaeImageProcessor()
        rgb = processor.pil_to_numpy(processor.postprocess(pictures, output_type="pil"))
        moments = model.encode(pictures.clamp(-1, 1)).latent_dist.parameters
        safetensors.torch.save_file(
            dict(
                latents=latents,
                pictures=pictures.contiguous(),
                moments=moments.contiguous(),
                rgb=torch.from_numpy((rgb * 255).round().astype(numpy.uint8)),
            ),
            folder / "golden.safetensors",
        )
        print(name, tuple(pictures.shape), float(pictures.std()))
    write_versions(HERE)


if __name__ == "__main__":
    main()
