"""Goes on with a published UNet on one range of timesteps: an expert, as ERNIE-ViLG 2.0's second stage.

    python train_expert.py --data DIR --run RUN --start-from FOLDER --range 0 500 --minutes M

Writes RUN/expert_0_500. Needs RUN/latents.pt and RUN/text_encoder (linear_encoder.py --start-from). The
objective is train_unet.py's, but timesteps are drawn evenly from the range alone. RUN/expert_0_500.log
has the weighted error of held-out pictures in the range, before and after, with the same noise.
"""

import argparse
import pathlib
import random

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import BertModel

import dataset
import grammar
from train_text import token_ids
from train_unet import SCHEDULE, SNR_CAP, Draws, build_unet, weight_map
from training import Ema, Optimiser, Run, learning_rate, to_tensor

HELD = 256  # held-out pictures of a measurement


class Objective:
    """What train_unet.py minimises, at given timesteps."""

    def __init__(self, text_encoder):
        self.text_encoder = text_encoder
        self.alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod

    def __call__(self, unet, latents, ids, weights, t, noise):
        a = self.alphas[t].sqrt()[:, None, None, None]
        s = (1 - self.alphas[t]).sqrt()[:, None, None, None]
        with torch.no_grad():
            context = self.text_encoder(ids).last_hidden_state
        v = unet(a * latents + s * noise, t, context).sample
        snr = self.alphas[t] / (1 - self.alphas[t])
        error = (weights * (v - (a * noise - s * latents)).square()).mean((1, 2, 3))
        return (error * (snr.clamp(max=SNR_CAP) + 1) / (snr + 1)).mean()


class HeldOut:
    """The same held-out latents, prompts, timesteps and noise for every measurement."""

    @torch.no_grad()
    def __init__(self, args):
        pictures, scenes, _ = dataset.load(args.data, "held")
        vae = AutoencoderKL.from_pretrained(args.start_from / "vae", torch_dtype=torch.float32)
        self.latents = vae.encode(to_tensor(pictures[:HELD])).latent_dist.mean
        rng = random.Random(7)
        prompts = [grammar.describe(scene, rng).prompt for scene in scenes[:HELD]]
        self.ids = torch.tensor([token_ids(prompt) for prompt in prompts])
        self.weights = torch.stack([weight_map(scene) for scene in scenes[:HELD]])
        draw = torch.Generator().manual_seed(7)
        self.times = torch.randint(*args.range, (len(self.latents),), generator=draw)
        self.noise = torch.randn(self.latents.shape, generator=draw)

    @torch.no_grad()
    def error(self, unet, objective):
        rows = [self.latents, self.ids, self.weights, self.times, self.noise]
        parts = zip(*(x.split(32) for x in rows))
        return sum(objective(unet, *part).item() * len(part[0]) for part in parts) / len(rows[0])


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--start-from", type=pathlib.Path, required=True)
    args.add_argument("--range", type=int, nargs=2, required=True, metavar=("LOW", "HIGH"))
    args.add_argument("--minutes", type=float, required=True)
    args.add_argument("--rate", type=float, default=3e-4)
    args.add_argument("--muon-rate", type=float, default=2e-3)
    args.add_argument("--ema", type=float, default=0.998)
    args.add_argument("--batch", type=int, default=24)
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    scenes = dataset.load_scenes(args.data, "train")
    latents = torch.load(args.run / "latents.pt", weights_only=True, mmap=True)
    unet = build_unet(latents.shape[2])
    published = UNet2DConditionModel.from_pretrained(
        args.start_from / "unet", torch_dtype=torch.float32
    )
    unet.load_state_dict(published.state_dict())
    text_encoder = BertModel.from_pretrained(args.run / "text_encoder").eval().requires_grad_(False)
    objective, held = Objective(text_encoder), HeldOut(args)
    optimiser = Optimiser(unet.named_parameters(), args.rate, args.muon_rate, weight_decay=1e-3)
    ema = Ema(unet.parameters(), args.ema)
    name = f"expert_{args.range[0]}_{args.range[1]}"
    run = Run(args.run, name, [unet], optimiser, ema)
    torch.manual_seed(run.step)
    draws = iter(Draws(scenes, args.batch, f"{name} {run.step}"))
    if run.step == 0:
        run.log(f"held-out error {held.error(unet, objective):.5f} before")
    total = 0.0
    while (done := run.done(None, args.minutes)) < 1:
        optimiser.schedule(learning_rate(run.step, done, 1.0, warm_up=100, decay_from=0.3))
        mirrored, chosen, ids = next(draws)
        z = latents[mirrored, chosen].float().contiguous(memory_format=torch.channels_last)
        weights = torch.stack([weight_map(scenes[i]) for i in chosen])
        loss = objective(
            unet, z, ids, weights, torch.randint(*args.range, (len(z),)), torch.randn_like(z)
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(ema.live, 1.0)
        optimiser.step()
        ema.update()
        run.step += 1
        total += loss.item()
        if run.step % 100 == 0:
            run.log(f"error {total / 100:.5f}")
            total = 0.0
        run.save()
    run.save(force=True)
    ema.swap()
    unet.save_pretrained(args.run / name)
    run.log(f"held-out error {held.error(unet, objective):.5f} after")


if __name__ == "__main__":
    main()
