"""Records tiny random UNet2DConditionModel folders as published, and what diffusers predicts.

    python generate.py            # writes the folders beside this file

Each folder holds config.json, the weights, and golden.safetensors: `latents`, `timesteps`, `text`
and `prediction`, all float32, computed in float32 from the stored weights. `versions.json` names
the versions that made them.
"""

import pathlib
import sys

import diffusers
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from diffusers_models import randomise, save, write_versions  # noqa: E402

CROSS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
PLAIN = ("DownBlock2D", "UpBlock2D")


def blocks(*kinds):
    return dict(
        down_block_types=[down for down, _ in kinds],
        up_block_types=[up for _, up in reversed(kinds)],
    )


# name: (config, storage type, as .bin, latent height and width, prompt length)
CASES = {
    # As Stable Diffusion 1.x: 1x1 convolutions around the transformers, attention except at the
    # smallest level, `attention_head_dim` meaning the number of heads.
    "sd1": (
        dict(
            block_out_channels=[4, 8, 8],
            layers_per_block=2,
            norm_num_groups=2,
            cross_attention_dim=6,
            attention_head_dim=2,
            sample_size=8,
            **blocks(CROSS, CROSS, PLAIN),
        ),
        torch.float16,
        False,
        (8, 8),
        7,
    ),
    # As Stable Diffusion 2.x: linear projections, lists for what may differ by level, a level
    # without attention on top, sizes that do not divide evenly, other channels in and out.
    "lists": (
        dict(
            block_out_channels=[4, 8],
            layers_per_block=[1, 2],
            norm_num_groups=4,
            cross_attention_dim=10,
            attention_head_dim=[2, 4],
            sample_size=16,
            transformer_layers_per_block=[1, 2],
            use_linear_projection=True,
            upcast_attention=True,
            in_channels=5,
            out_channels=3,
            norm_eps=1e-6,
            **blocks(PLAIN, CROSS),
        ),
        torch.bfloat16,
        False,
        (7, 10),
        5,
    ),
    # Odd widths, heads of three channels, a .bin file, the less common switches.
    "switches": (
        dict(
            block_out_channels=[6, 6, 9],
            layers_per_block=1,
            norm_num_groups=3,
            cross_attention_dim=5,
            attention_head_dim=[2, 2, 3],
            sample_size=12,
            center_input_sample=True,
            flip_sin_to_cos=False,
            freq_shift=1,
            downsample_padding=0,
            mid_block_scale_factor=1.5,
            conv_in_kernel=5,
            conv_out_kernel=1,
            mid_block_type="UNetMidBlock2D",
            act_fn="swish",
            **blocks(CROSS, PLAIN, CROSS),
        ),
        torch.float16,
        True,
        (12, 8),
        1,
    ),
    # No middle block, three layers, one level, single pixels.
    "shallow": (
        dict(
            block_out_channels=[6],
            layers_per_block=3,
            norm_num_groups=2,
            cross_attention_dim=8,
            attention_head_dim=1,
            sample_size=4,
            mid_block_type=None,
            **blocks(CROSS),
        ),
        torch.float16,
        False,
        (1, 1),
        3,
    ),
    # Four levels as the real one, down to one pixel, and scaled middle attention.
    "deep": (
        dict(
            block_out_channels=[4, 4, 8, 8],
            layers_per_block=1,
            norm_num_groups=2,
            cross_attention_dim=4,
            attention_head_dim=2,
            sample_size=8,
            mid_block_scale_factor=2.0,
            **blocks(CROSS, CROSS, CROSS, PLAIN),
        ),
        torch.float16,
        False,
        (8, 8),
        77,
    ),
    # ERNIE-ViLG 2.0's at a 128th of its width: three layers, no attention on top, heads of equal width.
    "vilg2": (
        dict(
            block_out_channels=[4, 8, 12, 16],
            layers_per_block=3,
            norm_num_groups=2,
            cross_attention_dim=16,
            attention_head_dim=[1, 2, 3, 4],
            sample_size=16,
            **blocks(PLAIN, CROSS, CROSS, CROSS),
        ),
        torch.float16,
        False,
        (8, 12),
        9,
    ),
}


@torch.inference_mode()
def main():
    for seed, (name, case) in enumerate(CASES.items()):
        config, dtype, as_bin, (height, width), length = case
        generator = torch.Generator().manual_seed(seed)
        model = diffusers.UNet2DConditionModel(**config).eval()
        randomise(model, generator)
        model.to(dtype).float()
        folder = HERE / name
        save(folder, model, dtype, binary=as_bin)
        latents = torch.randn(3, model.config.in_channels, height, width, generator=generator)
        timesteps = torch.tensor([981.0, 0.0, 12.375])
        text = torch.randn(3, length, model.config.cross_attention_dim, generator=generator)
        prediction = model(latents, timesteps, text).sample
        safetensors.torch.save_file(
            dict(
                latents=latents, timesteps=timesteps, text=text, prediction=prediction.contiguous()
            ),
            folder / "golden.safetensors",
        )
        print(name, tuple(prediction.shape), float(prediction.std()))
    write_versions(HERE)


if __name__ == "__main__":
    main()
