"""Trains the UNet on cached latents and the frozen text encoder's states.

    python train_unet.py --data DIR --run RUN --steps N
    torchrun --nproc-per-node 2 -- train_unet.py --data DIR --run RUN --steps N --threads 1

Needs RUN/latents.pt (linear_encoder.py) and RUN/text_encoder (train_text.py). v-prediction,
10 % empty prompts; captions are drawn afresh every step. RUN/unet holds the newest EMA weights, RUN/grid.png held-out
samples, RUN/unet.log the share of held-out pictures that the checker accepts. Under torchrun the
batch is split over the processes: on a crowded machine two single threads beat two in one process.
"""

import argparse
import os
import pathlib
import random

import torch
import torch.distributed as distributed
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import BertModel

import check
import dataset
import grammar
from train_text import WIDTH, token_ids, training_prompt
from training import Ema, Optimiser, Run, learning_rate, to_pictures

CHANNELS = (64, 64, 96)
BATCH = 24
# Weight (min(SNR, cap) + 1) / (SNR + 1) of the v error: as min-SNR where noise is low, but 1 where it
# is high, because there the layout is decided (one sun, on one side).
SNR_CAP = 5.0
EMPTY = 0.1  # share of empty prompts, for classifier-free guidance
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
}


def build_unet(latent_channels):
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(2, 2, 3),  # the number of heads, as in every SD 1.x configuration
        cross_attention_dim=WIDTH,
        norm_num_groups=16,
    )
    return unet.to(memory_format=torch.channels_last)


@torch.no_grad()
def sample(unet, text_encoder, vae, prompts, seed, guidance=4.0, steps=20):
    """Pictures (uint8) by DDIM with classifier-free guidance."""
    scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False)
    scheduler.set_timesteps(steps)
    ids = torch.tensor([token_ids("")] * len(prompts) + [token_ids(p) for p in prompts])
    context = text_encoder(ids).last_hidden_state
    shape = (len(prompts), unet.config.in_channels, 16, 16)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    for t in scheduler.timesteps:
        empty, asked = unet(torch.cat([x, x]), t, context).sample.chunk(2)
        x = scheduler.step(empty + guidance * (asked - empty), t, x).prev_sample
    return to_pictures(vae.decode(x / vae.config.scaling_factor).sample)


class Examples:
    """Training rows: a latent (mirrored half of the time) and a fresh prompt for its scene."""

    def __init__(self, latents, scenes, seed):
        self.latents, self.scenes, self.rng = latents, scenes, random.Random(seed)

    def draw(self, size):
        rows, ids = [], []
        for _ in range(size):
            i, mirrored = self.rng.randrange(len(self.scenes)), self.rng.randrange(2)
            scene = self.scenes[i].mirrored() if mirrored else self.scenes[i]
            rows.append(self.latents[mirrored, i])
            empty = self.rng.random() < EMPTY
            ids.append(token_ids("" if empty else training_prompt(scene, self.rng)[0]))
        return torch.stack(rows).float().contiguous(
            memory_format=torch.channels_last
        ), torch.tensor(ids)


def trial(unet, text_encoder, vae, checker, count):
    """Held-out prompts painted and judged: (share with every attribute right, misses, a grid)."""
    rng = random.Random(99)
    scenes = [s for s in grammar.all_scenes() if grammar.held_out(s)]
    chosen = [rng.choice(scenes) for _ in range(count)]
    requests = [grammar.describe(s, rng) for s in chosen]
    parts = [
        sample(unet, text_encoder, vae, [r.prompt for r in requests[i : i + 24]], i)
        for i in range(0, count, 24)
    ]
    pictures = torch.cat(parts)
    rows = [torch.cat(list(pictures[i : i + 8]), 1) for i in range(0, count // 8 * 8, 8)]
    grid = Image.fromarray(torch.cat(rows).numpy())
    misses, right = {}, 0
    for scene, request, seen in zip(chosen, requests, check.judge(checker, pictures)):
        wrong = [
            k
            for k, ok in check.compare(grammar.asked_attributes(scene, request), seen).items()
            if not ok
        ]
        right += not wrong
        for name in wrong:
            misses[name] = misses.get(name, 0) + 1
    return right / count, misses, grid


def average_gradients(parameters):
    """One all-reduce over all gradients; without torchrun nothing to do."""
    if not distributed.is_initialized():
        return
    flat = torch.cat([p.grad.reshape(-1) for p in parameters])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.grad.copy_(part.view_as(p))


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--steps", type=int, required=True)
    args.add_argument("--rate", type=float, default=1.5e-3)
    args.add_argument("--muon-rate", type=float, default=0.015)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument(
        "--trial-every", type=int, default=600, help="steps between looks at held-out samples"
    )
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.manual_seed(4)
    scenes = dataset.load_scenes(args.data, "train")
    latents = torch.load(args.run / "latents.pt", weights_only=True)
    unet = build_unet(latents.shape[2])
    text_encoder = BertModel.from_pretrained(args.run / "text_encoder").eval().requires_grad_(False)
    optimiser = Optimiser(unet.named_parameters(), args.rate, args.muon_rate, weight_decay=1e-3)
    ema = Ema(unet.parameters(), 0.999)
    run = Run(args.run, "unet", [unet], optimiser, ema)
    examples = Examples(latents, scenes, f"{run.step} {rank}")
    torch.manual_seed(1000 * run.step + rank)
    batch = BATCH // ranks
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod
    run.log(
        f"latents {tuple(latents.shape)} std {latents[0, :500].float().std((0, 2, 3)).tolist()}"
    )
    trace = []
    while run.step < args.steps:
        z, ids = examples.draw(batch)
        t = torch.randint(0, len(alphas), (batch,))
        a = alphas[t].sqrt()[:, None, None, None]
        s = (1 - alphas[t]).sqrt()[:, None, None, None]
        noise = torch.randn_like(z)
        v = unet(a * z + s * noise, t, text_encoder(ids).last_hidden_state).sample
        snr = alphas[t] / (1 - alphas[t])
        error = (v - (a * noise - s * z)).square().mean((1, 2, 3))
        loss = (error * (snr.clamp(max=SNR_CAP) + 1) / (snr + 1)).mean()
        loss.backward()
        average_gradients(ema.live)
        torch.nn.utils.clip_grad_norm_(ema.live, 1.0)
        optimiser.step(learning_rate(run.step, args.steps, 1.0, warm_up=100, decay_from=0.6))
        ema.update()
        run.step += 1
        if rank:
            continue
        trace.append(error.mean().item())
        if run.step % 100 == 0:
            run.log(f"v error {sum(trace) / len(trace):.4f}")
            trace.clear()
        last = run.step == args.steps
        run.save(force=last)
        if last or run.step % args.trial_every == 0:
            ema.swap()
            unet.save_pretrained(args.run / "unet")
            vae = AutoencoderKL.from_pretrained(
                args.run / "vae"
            ).eval()  # its decoder may have improved
            checker = check.load()
            share, misses, grid = trial(unet, text_encoder, vae, checker, 48)
            ema.swap()
            grid.save(args.run / "grid.png")
            run.log(f"held-out: all attributes {share:.3f} misses {misses}")


if __name__ == "__main__":
    main()
