"""Makes the picture tokeniser: a VQModel around the landscape recipe's encoder, and every picture's tokens.

    python codebook.py --data DIR --run RUN --vae ../../taiyi-sd-tiny/vae
    python codebook.py --data DIR --run RUN --start-from FOLDER    # keep a published tokeniser

Nothing is trained here. The landscape encoder is linear (8 x 8 patches to 16 numbers, see
linear_encoder.py); its latents are quantised by k-means. Encoder and codebook are final when this ends,
so the transformer trains on RUN/tokens.pt while train_vq.py still teaches the decoder what codes mean.
"""

import argparse
import pathlib

import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL, VQModel

import dataset
from train_unet import weight_map
from training import to_tensor

CODES = 2048
GRID = 16
ROUNDS = 14
SAMPLES = 200_000


def build(vae):
    """A VQModel with the encoder, the decoder and the shape of an AutoencoderKL; codes still random."""
    c = vae.config
    model = VQModel(
        down_block_types=c.down_block_types,
        up_block_types=c.up_block_types,
        block_out_channels=c.block_out_channels,
        layers_per_block=c.layers_per_block,
        latent_channels=c.latent_channels,
        norm_num_groups=c.norm_num_groups,
        num_vq_embeddings=CODES,
        sample_size=c.sample_size,
    )
    weights = vae.state_dict()
    for name in ("weight", "bias"):  # the mean of the posterior alone
        for part in ("encoder.conv_out.", "quant_conv."):
            weights[part + name] = weights[part + name][: c.latent_channels]
    weights["quant_conv.weight"] = weights["quant_conv.weight"][:, : c.latent_channels]
    model.load_state_dict(weights | {"quantize.embedding.weight": model.quantize.embedding.weight})
    return model


@torch.no_grad()
def linear_map(model, pictures):
    """What the encoder does to a patch, read off from these pictures: (kernel [16, 3, 8, 8], bias)."""
    x = to_tensor(pictures)
    rows = functional.unfold(x, 8, stride=8).mT.reshape(-1, 192).double()
    targets = model.encode(x).latents.permute(0, 2, 3, 1).reshape(len(rows), -1).double()
    mean = rows.mean(0)
    centred = rows - mean
    gram = centred.T @ centred / len(rows)
    gram += 1e-7 * torch.eye(len(gram), dtype=gram.dtype)  # components that hardly occur
    matrix = torch.linalg.solve(gram, centred.T @ (targets - targets.mean(0)) / len(rows))
    bias = targets.mean(0) - mean @ matrix
    return matrix.T.reshape(-1, 3, 8, 8).float(), bias.float()


def latents(pictures, kernel, bias):
    """[n, 16, 16, 16] (channels last) of uint8 pictures."""
    parts = [
        functional.conv2d(to_tensor(p), kernel, bias, stride=8).permute(0, 2, 3, 1).contiguous()
        for p in pictures.split(100)
    ]
    return torch.cat(parts)


def nearest(rows, codes):
    """The index of the nearest code a row; the lowest one of equals."""
    squares = codes.square().sum(1)
    return torch.cat([(squares - 2 * part @ codes.T).argmin(1) for part in rows.split(8192)])


def k_means(rows, count, rounds=ROUNDS):
    """`count` centres; a centre without rows starts again from a random row."""
    centres = rows[torch.randperm(len(rows))[:count]].clone()
    for _ in range(rounds):
        picks = nearest(rows, centres)
        members = torch.bincount(picks, minlength=count).float()
        centres = (
            torch.zeros_like(centres).index_add_(0, picks, rows) / members.clamp(min=1)[:, None]
        )
        empty = members == 0
        centres[empty] = rows[torch.randint(0, len(rows), (int(empty.sum()),))]
    return centres


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    source = args.add_mutually_exclusive_group(required=True)
    source.add_argument("--vae", type=pathlib.Path, help="the landscape recipe's AutoencoderKL")
    source.add_argument("--start-from", type=pathlib.Path, help="keep this folder's tokeniser")
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(11)
    if args.start_from:
        model = VQModel.from_pretrained(args.start_from / "vqvae", torch_dtype=torch.float32)
    else:
        model = build(AutoencoderKL.from_pretrained(args.vae, torch_dtype=torch.float32))
    pictures, scenes, _ = dataset.load(args.data, "train")
    pictures = torch.from_numpy(pictures)
    kernel, bias = linear_map(model, pictures[:: max(1, len(pictures) // 64)])
    z = latents(pictures, kernel, bias)
    if not args.start_from:
        # Small objects cover few cells, so those are drawn more often.
        weights = torch.stack([weight_map(scene) for scene in scenes[::4]]).flatten()
        picks = torch.multinomial(weights, SAMPLES, replacement=True)
        codes = k_means(z[::4].flatten(0, 2)[picks], CODES)
        model.quantize.embedding.weight.data.copy_(codes.half().float())  # as published
    codes = model.quantize.embedding.weight.detach()
    tokens = []
    for part in (z, latents(pictures.flip(2), kernel, bias)):
        tokens.append(nearest(part.flatten(0, 2), codes).reshape(-1, GRID * GRID).short())
    held = torch.from_numpy(dataset.load(args.data, "held")[0])
    held = nearest(latents(held, kernel, bias).flatten(0, 2), codes)
    args.run.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.run / "vqvae")
    torch.save(
        {"train": torch.stack(tokens), "held": held.reshape(-1, GRID * GRID).short()},
        args.run / "tokens.pt",
    )
    share = torch.bincount(tokens[0].flatten().long(), minlength=len(codes)) / tokens[0].numel()
    bits = -(share * (share + 1e-12).log2()).sum().item()
    print(f"{len(codes)} codes, {int((share > 0).sum())} used, {bits:.2f} bits a token")


if __name__ == "__main__":
    main()
