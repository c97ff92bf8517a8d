"""Records tiny random AutoencoderKL folders as published, and what diffusers makes of them.

    python generate.py            # writes the folders beside this file

Each folder holds config.json, the weights, and golden.safetensors: `latents` as a sampler leaves
them, `pictures` decoded from them, `rgb` (uint8, height x width x 3) as VaeImageProcessor rounds
them, and `moments` (mean and log variance) encoded from `pictures` clamped to [-1, 1]. Computed in
float32 from the stored weights. `versions.json` names the versions that made them.
"""

import json
import pathlib
import shutil

import diffusers
import numpy
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


# name: (config, storage type, spelling of the attention, config keys left out, latent size)
CASES = {
    # As Stable Diffusion 1.x: four levels.
    "sd1": (
        config_of(
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
        config_of([3, 6], layers_per_block=1, norm_num_groups=3, sample_size=16),
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
        config_of([3, 6, 6], layers_per_block=1, norm_num_groups=3, sample_size=16),
        torch.float16,
        "oldest",
        ("scaling_factor",),
        (3, 3),
    ),
    # As Stable Diffusion 3: sixteen latent channels, a shift, no quantisation convolutions; and
    # without attention, with three layers.
    "bare": (
        config_of(
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
        config_of([6], layers_per_block=1, norm_num_groups=3, sample_size=8, latent_channels=3),
        torch.float16,
        "new",
        (),
        (8, 8),
    ),
}

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def randomise(model, generator):
    """Weights of a size that keeps activations near one, norms that are not the identity."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.dim() > 1:
            weight.copy_(noise / weight[0].numel() ** 0.5)
        else:
            weight.copy_(0.1 * noise + (1 if "norm" in name and "weight" in name else 0))


def spelled(state, spelling):
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


def save(folder, model, dtype, spelling, left_out):
    folder.mkdir()
    config = {"_class_name": type(model).__name__, "_diffusers_version": diffusers.__version__}
    config.update(
        {k: v for k, v in model.config.items() if not k.startswith("_") and k not in left_out}
    )
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    state = spelled({k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}, spelling)
    if spelling == "old":
        torch.save(state, folder / "diffusion_pytorch_model.bin")
    else:
        safetensors.torch.save_file(state, folder / "diffusion_pytorch_model.safetensors")


@torch.inference_mode()
def main():
    for seed, (name, case) in enumerate(CASES.items()):
        config, dtype, spelling, left_out, (height, width) = case
        generator = torch.Generator().manual_seed(100 + seed)
        model = diffusers.AutoencoderKL(**config).eval()
        randomise(model, generator)
        model.to(dtype).float()
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        save(folder, model, dtype, spelling, left_out)
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
    (HERE / "versions.json").write_text(
        json.dumps(dict(diffusers=diffusers.__version__, torch=torch.__version__)) + "\n"
    )


if __name__ == "__main__":
    main()
