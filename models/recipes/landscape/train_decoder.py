"""Trains the decoder of the AutoencoderKL whose encoder linear_encoder.py has solved.

    python train_decoder.py --data DIR --run RUN --steps N

The encoder and so the latents are fixed: the UNet trains at the same time. RUN/vae always holds the
newest EMA weights as a diffusers folder; RUN/vae.json the PSNR on held-out pictures at the end.
"""

import argparse
import json
import pathlib

import torch
from diffusers import AutoencoderKL

import dataset
from training import Ema, Optimiser, Run, learning_rate, psnr, to_pictures, to_tensor

NOISE = 0.03  # of the latents: what the UNet paints is never exact
WHOLE_FROM = 0.8  # crops of 64 pixels first, whole pictures for the last part of the steps


def open_branches(decoder):
    """Residual branches start at zero, so the first gradients reach every layer undistorted."""
    for name, parameter in decoder.named_parameters():
        if ".conv2." in name or ".to_out." in name:
            torch.nn.init.zeros_(parameter)


def difference_loss(error):
    """L1 on neighbour differences: keeps strokes sharp where plain L2 would smooth them."""
    return (error[:, :, 1:] - error[:, :, :-1]).abs().mean() + (
        error[..., 1:] - error[..., :-1]
    ).abs().mean()


def batch(pictures, latents, size, crop):
    """Latent crops of `crop` / 8 cells, half of the rows mirrored, and the pixels below them."""
    cells = crop // 8
    z, x = [], []
    for _ in range(size):
        i, mirrored = int(torch.randint(0, len(pictures), ())), int(torch.randint(0, 2, ()))
        top, left = torch.randint(0, 16 - cells + 1, (2,)).tolist()
        picture = pictures[i].flip(1) if mirrored else pictures[i]
        z.append(latents[mirrored, i, :, top : top + cells, left : left + cells])
        x.append(picture[8 * top : 8 * top + crop, 8 * left : 8 * left + crop])
    z = torch.stack(z).float()
    return (z + NOISE * torch.randn_like(z)).contiguous(
        memory_format=torch.channels_last
    ), to_tensor(torch.stack(x))


@torch.no_grad()
def measure(vae, pictures):
    """PSNR in dB of encoding and decoding, over all pixels after 8-bit rounding."""
    out = [
        to_pictures(vae.decode(vae.encode(to_tensor(p)).latent_dist.mean).sample)
        for p in pictures.split(16)
    ]
    return psnr((torch.cat(out).float() - pictures.float()).square().mean().item(), 255)


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    length = args.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int)
    length.add_argument("--minutes", type=float, help="train for a time, not a number of steps")
    args.add_argument("--rate", type=float, default=2e-3)
    args.add_argument("--muon-rate", type=float, default=0.02)
    args.add_argument("--batch", type=int, default=4, help="crops of a step")
    args.add_argument("--device", default="cpu")
    args.add_argument("--threads", type=int, default=2)
    args.add_argument(
        "--start-from", action="store_true", help="RUN/vae holds a trained decoder: go on from it"
    )
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(2)
    device = torch.device(args.device)
    pictures = torch.from_numpy(dataset.load(args.data, "train")[0]).to(device)
    held = torch.from_numpy(dataset.load(args.data, "held")[0]).to(device)
    latents = torch.load(args.run / "latents.pt", weights_only=True).to(device)
    vae = AutoencoderKL.from_pretrained(args.run / "vae").to(memory_format=torch.channels_last)
    vae = vae.to(device)
    learned = torch.nn.ModuleDict({"post_quant_conv": vae.post_quant_conv, "decoder": vae.decoder})
    optimiser = Optimiser(learned.named_parameters(), args.rate, args.muon_rate)
    if not args.start_from and not (args.run / "decoder.pt").exists():
        open_branches(vae.decoder)
    ema = Ema(learned.parameters(), 0.998)
    run = Run(args.run, "decoder", [learned], optimiser, ema)
    trace = []
    while (done := run.done(args.steps, args.minutes)) < 1:
        crops = (args.batch, 64) if done < WHOLE_FROM else (args.batch // 4, 128)
        z, x = batch(pictures, latents, *crops)
        error = vae.decode(z).sample - x
        mse = error.square().mean()
        loss = error.abs().mean() + 3 * mse + 0.5 * difference_loss(error)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
        optimiser.schedule(learning_rate(run.step, done, 1.0, warm_up=40, decay_from=0.3))
        optimiser.step()
        ema.update()
        run.step += 1
        trace.append(mse.detach())
        if run.step % 50 == 0:
            run.log(f"train psnr {psnr(sum(trace).item() / len(trace)):.2f}")
            trace.clear()
        last = run.done(args.steps, args.minutes) >= 1
        if run.save(force=last):
            ema.swap()
            decibels = measure(vae, held[:400] if last else held[:8])
            run.log(f"held-out psnr {decibels:.2f} dB")
            vae.save_pretrained(args.run / "vae")
            ema.swap()
            if last:
                record = {"pictures": 400, "psnr_db": round(decibels, 2), "steps": run.step}
                (args.run / "vae.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
