"""Shared by the generators of single networks of diffusers (unet, vae, vqgan)."""

import json
import pathlib
import shutil
from collections.abc import Callable, Collection

import diffusers
import safetensors.torch
import torch

WEIGHTS = "diffusion_pytorch_model"

State = dict[str, torch.Tensor]


def autoencoder_config(channels: list[int], **others) -> dict:
    return dict(
        block_out_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        **others,
    )


def randomise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights of a size that keeps activations near one, norms that are not the identity."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if name == "quantize.embedding.weight":
            weight.copy_(noise)
        elif weight.dim() > 1:
            weight.copy_(noise / weight[0].numel() ** 0.5)
        else:
            weight.copy_(0.1 * noise + (1 if "norm" in name and "weight" in name else 0))


def save(
    folder: pathlib.Path,
    model: diffusers.ModelMixin,
    dtype: torch.dtype,
    left_out: Collection[str] = (),
    binary: bool = False,
    spelled: Callable[[State], State] = lambda state: state,
) -> None:
    """The folder anew, with the configuration but for some keys, and the weights by other names."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config = {"_class_name": type(model).__name__, "_diffusers_version": diffusers.__version__}
    config.update(
        {k: v for k, v in model.config.items() if not k.startswith("_") and k not in left_out}
    )
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    state = spelled({k: v.to(dtype).contiguous() for k, v in model.state_dict().items()})
    if binary:
        torch.save(state, folder / f"{WEIGHTS}.bin")
    else:
        safetensors.torch.save_file(state, folder / f"{WEIGHTS}.safetensors")


def write_versions(here: pathlib.Path) -> None:
    (here / "versions.json").write_text(
        json.dumps(dict(diffusers=diffusers.__version__, torch=torch.__version__)) + "\n"
    )
