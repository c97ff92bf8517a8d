"""Trains the AutoencoderKL (f8, 8 latent channels) in two phases.

    python train_vae.py --data DIR --run RUN --phase joint   --steps N   # encoder and decoder, 64 px crops
    python train_vae.py --data DIR --run RUN --phase decoder --steps N   # encoder frozen, whole pictures

After the joint phase the encoder and the latent scale are fixed, so the UNet can start while the
decoder still sharpens. RUN/vae always holds the newest EMA weights as a diffusers folder.
"""

import argparse
import math
import pathlib

import torch
from diffusers import AutoencoderKL

import dataset
from training import Ema, Optimiser, Run, learning_rate, to_pictures, to_tensor

CHANNELS = (16, 32, 48, 64)
LATENT_CHANNELS = 8
KL_WEIGHT = 2e-4


def build():
    n = len(CHANNELS)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * n,
        up_block_types=("UpDecoderBlock2D",) * n,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=128,
    )
    return vae.to(memory_format=torch.channels_last)


def difference_loss(error):
    """L1 on neighbour differences: keeps strokes sharp where plain L2 would smooth them."""
    return (error[:, :, 1:] - error[:, :, :-1]).abs().mean() + (error[..., 1:] - error[..., :-1]).abs().mean()


def batch(pictures, size, crop):
    """Random pictures, cropped at the same size at random places, half of the batches mirrored."""
    limit = pictures.shape[1] - crop + 1
    picks = torch.randint(0, len(pictures), (size,)).tolist()
    tops, lefts = torch.randint(0, limit, (2, size)).tolist()
    x = to_tensor(torch.stack([pictures[i, t : t + crop, l : l + crop] for i, t, l in zip(picks, tops, lefts)]))
    return x.flip(3) if torch.rand(()) < 0.5 else x


@torch.no_grad()
def measure(vae, pictures):
    """PSNR in dB over all pixels of `pictures`, after 8-bit rounding, and the reconstructions."""
    out = torch.cat([to_pictures(vae.decode(vae.encode(to_tensor(p)).latent_dist.mean).sample) for p in pictures.split(32)])
    mse = ((out.float() - pictures.float()) / 255).square().mean().item()
    return -10 * math.log10(mse), out


@torch.no_grad()
def fix_latent_scale(vae, pictures):
    z = torch.cat([vae.encode(to_tensor(p)).latent_dist.mean for p in pictures[:512].split(32)])
    vae.register_to_config(scaling_factor=round(float(1 / z.std()), 5))


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--phase", choices=("joint", "decoder"), required=True)
    args.add_argument("--steps", type=int, required=True)
    args.add_argument("--rate", type=float, default=2e-3)
    args.add_argument("--muon-rate", type=float, default=0.02)
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    joint = args.phase == "joint"
    torch.manual_seed(1 if joint else 2)
    pictures = torch.from_numpy(dataset.load(args.data, "train")[0])
    held = torch.from_numpy(dataset.load(args.data, "held")[0][:96])
    vae = build() if joint else AutoencoderKL.from_pretrained(args.run / "vae").to(memory_format=torch.channels_last)
    learned = vae if joint else torch.nn.ModuleList([vae.post_quant_conv, vae.decoder])
    optimiser = Optimiser(learned.named_parameters(), args.rate, args.muon_rate)
    ema = Ema(learned.parameters(), 0.998)
    run = Run(args.run, f"vae-{args.phase}", [vae], optimiser, ema)
    size, crop = (4, 64) if joint else (2, 128)
    trace = []
    while run.step < args.steps:
        x = batch(pictures, size, crop)
        with torch.set_grad_enabled(joint):
            posterior = vae.encode(x).latent_dist
        error = vae.decode(posterior.sample()).sample - x
        mse = error.square().mean()
        loss = error.abs().mean() + 3 * mse + 0.5 * difference_loss(error)
        if joint:
            loss = loss + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
        optimiser.step(learning_rate(run.step, args.steps, 1.0, warm_up=40, decay_from=0.3))
        ema.update()
        run.step += 1
        trace.append(mse.item())
        if run.step % 50 == 0:
            run.log(f"train psnr {10 * math.log10(4 * len(trace) / sum(trace)):.2f}")
            trace.clear()
        if run.save(force=run.step == args.steps):
            ema.swap()
            vae.eval()
            if joint and run.step == args.steps:
                fix_latent_scale(vae, pictures)
            psnr, _ = measure(vae, held if run.step == args.steps else held[:8])
            run.log(f"held-out psnr {psnr:.2f} dB")
            vae.save_pretrained(args.run / "vae")
            vae.train()
            ema.swap()


if __name__ == "__main__":
    main()
