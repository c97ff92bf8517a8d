"""Writes a closed-form encoder into an AutoencoderKL: principal components of 8 x 8 pixel patches.

    python linear_encoder.py --data DIR --run RUN    # RUN/vae (decoder untrained) and RUN/latents.pt
    python linear_encoder.py --data DIR --run RUN --start-from FOLDER    # go on from published weights

With hours of training on two cores, learning the encoder would take most of the time, and the UNet
would have to wait for it. The 16 leading components keep the layout of a patch; a trained decoder
then restores strokes from them and their neighbours. So the encoder is not trained but solved:
its residual branches are zero, its strided convolutions gather 2 x 2 neighbours, and the components
are read out at the end. The group norm before the output cannot be skipped, so every signal stands
there together with its negative and large constant channels, which pins the norm's statistics, and a
bias keeps SiLU in its linear range. The deviation from exact components is below one per cent.

Each latent channel is scaled by the component's standard deviation to the power FLATTEN - 1, halfway
between whitening (0) and none (1): strong layout channels stay stronger than faint detail.
"""

import argparse
import pathlib

import torch
from diffusers import AutoencoderKL
from transformers import BertModel

import dataset
from training import psnr, to_tensor

CHANNELS = (16, 32, 48, 64)
LATENTS = 16
FLATTEN = 0.5
PIN, SHIFT = 30.0, 10.0


def build():
    n = len(CHANNELS)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * n,
        up_block_types=("UpDecoderBlock2D",) * n,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=8,
        sample_size=128,
        scaling_factor=1.0,  # the latents are scaled below
    )


def _patches(pictures, size):
    """uint8 [n, h, w, 3] -> float64 [rows, 4 quadrant levels down to pixels x 3] in [-1, 1]."""
    x = torch.as_tensor(pictures).double() / 127.5 - 1
    n, h, w, c = x.shape
    if size == 1:
        return x.reshape(-1, c), (n, h, w)
    inner, (n, h, w) = _patches(pictures, size // 2)
    d = inner.shape[1]
    y = inner.reshape(n, h // 2, 2, w // 2, 2, d).permute(0, 1, 3, 2, 4, 5)
    return y.reshape(-1, 4 * d), (n, h // 2, w // 2)


def _components(rows, count):
    """Orthonormal leading components as columns, their standard deviations, the mean."""
    mean = rows.mean(0)
    centred = rows - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
    order = torch.arange(len(values) - 1, len(values) - 1 - count, -1)
    return vectors[:, order], values[order].clamp(min=0).sqrt(), mean


def _zero_branches(encoder):
    """Residual branches and the attention add nothing; shortcuts copy channels."""
    for name, parameter in encoder.named_parameters():
        if ".conv2." in name or ".to_out." in name:
            parameter.zero_()
        elif "conv_shortcut" in name:
            parameter.zero_()
            if parameter.ndim == 4:
                k = min(parameter.shape[:2])
                parameter[range(k), range(k), 0, 0] = 1.0


def _gather(conv, matrix):
    """A stride-2 convolution as `matrix` [4 * in, out] on the 2 x 2 pixels (row, column, channel)."""
    conv.weight.zero_()
    conv.bias.zero_()
    used = matrix.shape[0] // 4
    taps = matrix.T.reshape(-1, 2, 2, used).permute(0, 3, 1, 2)
    conv.weight[: len(taps), :used, :2, :2] = taps.to(conv.weight)


@torch.no_grad()
def write(vae, pictures):
    """Solves the encoder of `vae` for these training pictures; returns the exact linear map
    (mean [192], matrix [192, LATENTS]) on `_patches` rows and the PSNR of plain components."""
    encoder = vae.encoder
    sample = pictures[:: max(1, len(pictures) // 700)]
    quarter, _, _ = _components(_patches(sample, 4)[0], 32)
    basis, deviation, mean = _components(_patches(sample, 8)[0], LATENTS)
    _zero_branches(encoder)
    encoder.conv_in.weight.zero_()
    encoder.conv_in.bias.zero_()
    encoder.conv_in.weight[range(3), range(3), 1, 1] = 1.0
    down = [block.downsamplers[0].conv for block in encoder.down_blocks[:3]]
    _gather(down[0], torch.eye(12, dtype=torch.double))
    _gather(down[1], quarter)
    unit = deviation  # signals of unit variance inside the network
    inner = torch.block_diag(*[quarter] * 4).T @ (basis / unit)
    _gather(down[2], inner)
    down[2].bias[:LATENTS] = (-(mean @ basis) / unit).to(down[2].bias)

    groups = encoder.conv_norm_out.num_groups
    width = encoder.conv_norm_out.num_channels // groups
    per_group = LATENTS // groups
    shortcut = encoder.down_blocks[3].resnets[0].conv_shortcut
    shortcut.weight.zero_()
    shortcut.bias.zero_()
    encoder.conv_out.weight.zero_()
    encoder.conv_out.bias.zero_()
    scale = deviation**FLATTEN
    scale = scale / scale.square().mean().sqrt()
    for k in range(LATENTS):
        plus = (k // per_group) * width + 2 * (k % per_group)
        shortcut.weight[plus, k], shortcut.weight[plus + 1, k] = 1.0, -1.0
        encoder.conv_out.weight[k, plus, 1, 1] = scale[k] / 2
        encoder.conv_out.weight[k, plus + 1, 1, 1] = -scale[k] / 2
    pins = width - 2 * per_group
    for g in range(groups):
        first = g * width + 2 * per_group
        shortcut.bias[first : first + pins] = PIN * torch.tensor([1.0, -1.0]).repeat(pins // 2)
    spread = (PIN**2 * pins / width + 2 * per_group / width) ** 0.5
    encoder.conv_norm_out.weight.fill_(spread)
    encoder.conv_norm_out.bias.fill_(SHIFT)
    encoder.conv_out.bias[LATENTS:] = -14.0  # log variance: the posterior is a point
    vae.quant_conv.weight.zero_()
    vae.quant_conv.bias.zero_()
    vae.quant_conv.weight[range(2 * LATENTS), range(2 * LATENTS), 0, 0] = 1.0
    rows = _patches(sample[:64], 8)[0] - mean
    plain = psnr((rows - rows @ basis @ basis.T).square().mean().item())
    return mean, basis / deviation * scale, plain


def project(pictures, mean, matrix):
    """Latents [n, LATENTS, h / 8, w / 8] by the exact linear map, as float16."""
    found = []
    for part in torch.as_tensor(pictures).split(200):
        rows, (n, h, w) = _patches(part, 8)
        found.append(((rows - mean) @ matrix).reshape(n, h, w, -1).permute(0, 3, 1, 2).half())
    return torch.cat(found)


@torch.no_grad()
def recover(vae, pictures):
    """The linear map (mean [192], matrix [192, LATENTS]) that a published encoder holds, read off
    from what it makes of a few pictures: its latents and ours must be the same ones."""
    rows = _patches(pictures, 8)[0]
    latents = vae.encode(to_tensor(pictures)).latent_dist.mean
    targets = latents.permute(0, 2, 3, 1).reshape(len(rows), -1).double()
    mean = rows.mean(0)
    # The darkest components hardly occur in paintings: a little ridge keeps them from running away.
    centred = rows - mean
    gram = centred.T @ centred / len(rows)
    gram += 1e-7 * torch.eye(len(gram), dtype=gram.dtype)
    matrix = torch.linalg.solve(gram, centred.T @ (targets - targets.mean(0)) / len(rows))
    return mean - torch.linalg.lstsq(matrix.T, targets.mean(0)).solution, matrix


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument(
        "--start-from",
        type=pathlib.Path,
        help="keep the encoder, decoder and text encoder of this published folder",
    )
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    pictures = torch.from_numpy(dataset.load(args.data, "train")[0])
    if args.start_from:
        vae = AutoencoderKL.from_pretrained(args.start_from / "vae", torch_dtype=torch.float32)
        mean, matrix = recover(vae, pictures[:: len(pictures) // 64])
        plain = float("nan")
        BertModel.from_pretrained(
            args.start_from / "text_encoder", torch_dtype=torch.float32
        ).save_pretrained(args.run / "text_encoder")
    else:
        vae = build()
        mean, matrix, plain = write(vae, pictures)
    latents = torch.stack([project(x, mean, matrix) for x in (pictures, pictures.flip(2))])
    with torch.no_grad():
        encoded = vae.encode(to_tensor(pictures[:32])).latent_dist.mean
    error = (encoded - latents[0, :32]).norm() / encoded.norm()
    print(
        f"encoder against exact components: {error:.5f} relative; plain components {plain:.2f} dB"
    )
    args.run.mkdir(parents=True, exist_ok=True)
    torch.save(latents, args.run / "latents.pt")
    vae.save_pretrained(args.run / "vae")


if __name__ == "__main__":
    main()
