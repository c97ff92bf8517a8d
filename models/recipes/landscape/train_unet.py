"""Trains the UNet on cached latents and the frozen text encoder's states.

    python train_unet.py --data DIR --run RUN --steps N
    python train_unet.py --data DIR --run RUN --minutes M --start-from FOLDER
    torchrun --nproc-per-node 2 -- train_unet.py --data DIR --run RUN --steps N --threads 1

Needs RUN/latents.pt (linear_encoder.py) and RUN/text_encoder (train_text.py). v-prediction,
10 % empty prompts; captions are drawn afresh every step. RUN/unet holds the newest EMA weights, RUN/grid.png held-out
samples, RUN/unet.log the share of held-out pictures that the checker accepts. Under torchrun the
batch is split over the processes: on a crowded machine two single threads beat two in one process.
"""

import argparse
import datetime
import itertools
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
from training import Ema, Optimiser, Run, captured, learning_rate, to_pictures

CHANNELS = (64, 64, 96)
# Weight (min(SNR, cap) + 1) / (SNR + 1) of the v error: as min-SNR where noise is low, but 1 where it
# is high, because there the layout is decided (one sun, on one side).
SNR_CAP = 5.0
# Small objects cover few cells of a latent, and which side the sky's take is decided in all of them:
# there the error weighs more, and scenes with boats and birds come more often.
OBJECT_WEIGHT = 4.0
SKY_ROWS, BOAT_ROWS, BOAT_COLUMNS = slice(0, 4), slice(11, 15), slice(4, 12)
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
    context = text_encoder(ids.to(unet.device)).last_hidden_state
    shape = (len(prompts), unet.config.in_channels, 16, 16)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(unet.device)
    for t in scheduler.timesteps:
        empty, asked = unet(torch.cat([x, x]), t, context).sample.chunk(2)
        x = scheduler.step(empty + guidance * (asked - empty), t, x).prev_sample
    return to_pictures(vae.decode(x.cpu() / vae.config.scaling_factor).sample)


def weight_map(scene):
    """How much each cell's error counts, [1, 16, 16]."""
    weights = torch.ones(1, 16, 16)
    if scene.birds or scene.sky != "none":
        weights[:, SKY_ROWS] = OBJECT_WEIGHT
    if scene.boat:
        weights[:, BOAT_ROWS, BOAT_COLUMNS] = OBJECT_WEIGHT
    return weights


class Draws(torch.utils.data.IterableDataset):
    """Endless batches of what a training row is made of: a picture's number, whether it is mirrored
    (half of the time), and a fresh prompt for its scene as token ids."""

    def __init__(self, scenes, batch, seed):
        self.scenes, self.batch, self.seed = scenes, batch, seed
        self.shares = list(itertools.accumulate(1 + s.birds + 0.5 * s.boat for s in scenes))

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        rng = random.Random(f"{self.seed} {worker.id if worker else 0}")
        while True:
            chosen = rng.choices(range(len(self.scenes)), cum_weights=self.shares, k=self.batch)
            mirrored = [rng.randrange(2) for _ in chosen]
            ids = [self._ids(i, side, rng) for i, side in zip(chosen, mirrored)]
            yield torch.tensor(mirrored), torch.tensor(chosen), torch.tensor(ids)

    def _ids(self, i, mirrored, rng):
        scene = self.scenes[i].mirrored() if mirrored else self.scenes[i]
        empty = rng.random() < EMPTY
        return token_ids("" if empty else training_prompt(scene, rng)[0])


def draw_times(size, count, device):
    """Noise levels, the high ones more often: there it is decided where things stand."""
    return (torch.rand(size, device=device) ** 0.75 * count).long().clamp(max=count - 1)


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


def average_gradients(parameters, done):
    """One all-reduce over all gradients; without torchrun nothing to do. Returns the mean of `done`:
    clocks differ, and every process must take the same step at the same rate."""
    if not distributed.is_initialized():
        return done
    flat = torch.cat([p.grad.reshape(-1) for p in parameters] + [parameters[0].new_tensor([done])])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for p, part in zip(parameters, flat[:-1].split([p.numel() for p in parameters])):
        p.grad.copy_(part.view_as(p))
    return flat[-1].item()


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    length = args.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int)
    length.add_argument("--minutes", type=float, help="train for a time, not a number of steps")
    args.add_argument(
        "--start-from", type=pathlib.Path, help="begin with the UNet of this published folder"
    )
    args.add_argument(
        "--decay-from", type=float, default=0.6, help="share of the run before the rates fall"
    )
    args.add_argument("--ema", type=float, default=0.999)
    args.add_argument("--rate", type=float, default=1.5e-3)
    args.add_argument("--muon-rate", type=float, default=0.015)
    args.add_argument("--batch", type=int, default=24, help="rows of a step, over all processes")
    args.add_argument("--device", default="cpu", help="cpu or cuda; cuda computes in bfloat16")
    args.add_argument("--loaders", type=int, default=0, help="processes that word prompts")
    args.add_argument("--threads", type=int, default=2)
    args.add_argument(
        "--trial-every", type=int, default=600, help="steps between looks at held-out samples"
    )
    args.add_argument("--trial-count", type=int, default=48, help="prompts of such a look")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    if "RANK" in os.environ:
        # A process may be stopped for minutes on a shared machine; that is no reason to give up.
        distributed.init_process_group("gloo", timeout=datetime.timedelta(hours=6))
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.manual_seed(4)
    scenes = dataset.load_scenes(args.data, "train")
    latents = torch.load(args.run / "latents.pt", weights_only=True)
    device = torch.device(args.device)
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)  # its backward pass gave NaN
    latents = latents.to(device)
    weights = torch.stack([weight_map(scene) for scene in scenes]).to(device)
    unet = build_unet(latents.shape[2]).to(device)
    if args.start_from:
        published = UNet2DConditionModel.from_pretrained(
            args.start_from / "unet", torch_dtype=torch.float32
        )
        unet.load_state_dict(published.state_dict())
    text_encoder = BertModel.from_pretrained(args.run / "text_encoder").eval().requires_grad_(False)
    text_encoder = text_encoder.to(device)
    optimiser = Optimiser(unet.named_parameters(), args.rate, args.muon_rate, weight_decay=1e-3)
    ema = Ema(unet.parameters(), args.ema)
    run = Run(args.run, "unet", [unet], optimiser, ema)
    torch.manual_seed(1000 * run.step + rank)
    batch = args.batch // ranks
    draws = iter(
        torch.utils.data.DataLoader(
            Draws(scenes, batch, f"{run.step} {rank}"),
            batch_size=None,
            num_workers=args.loaders,
            pin_memory=device.type == "cuda",
        )
    )
    half = torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda")
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device)
    run.log(
        f"latents {tuple(latents.shape)} std {latents[0, :500].float().std((0, 2, 3)).tolist()}"
    )
    held = [x.to(device) for x in next(draws)]  # the rows of a step
    total = torch.zeros((), device=device)  # of the errors since they were last logged

    def gradients():
        mirrored, chosen, ids = held
        z = latents[mirrored, chosen].float().contiguous(memory_format=torch.channels_last)
        t = draw_times(batch, len(alphas), device)
        a = alphas[t].sqrt()[:, None, None, None]
        s = (1 - alphas[t]).sqrt()[:, None, None, None]
        noise = torch.randn_like(z)
        with half:
            v = unet(a * z + s * noise, t, text_encoder(ids).last_hidden_state).sample.float()
        snr = alphas[t] / (1 - alphas[t])
        error = (weights[chosen] * (v - (a * noise - s * z)).square()).mean((1, 2, 3))
        loss = (error * (snr.clamp(max=SNR_CAP) + 1) / (snr + 1)).mean()
        loss.backward()
        total.add_(error.detach().mean())

    def update():
        torch.nn.utils.clip_grad_norm_(ema.live, 1.0)
        optimiser.step()

    def both():
        gradients()
        update()

    optimiser.schedule(0.0)
    replay = captured(both) if device.type == "cuda" else None
    total.zero_()
    last = False
    while not last:
        done = run.done(args.steps, args.minutes)
        share = learning_rate(run.step, done, 1.0, warm_up=100, decay_from=args.decay_from)
        for to, drawn in zip(held, next(draws)):
            to.copy_(drawn, non_blocking=True)
        if replay:
            optimiser.schedule(share)
            replay()
        else:
            gradients()
            done = average_gradients(ema.live, done)
            optimiser.schedule(share)
            update()
        ema.update()
        run.step += 1
        last = done >= 1 if args.minutes else run.step >= args.steps
        if rank:
            continue
        if run.step % 100 == 0:
            run.log(f"v error {total.item() / 100:.4f}")
            total.zero_()
        run.save(force=last)
        if last or run.step % args.trial_every == 0:
            ema.swap()
            unet.save_pretrained(args.run / "unet")
            vae = AutoencoderKL.from_pretrained(
                args.run / "vae"
            ).eval()  # its decoder may have improved
            checker = check.load()
            share, misses, grid = trial(unet, text_encoder, vae, checker, args.trial_count)
            ema.swap()
            grid.save(args.run / "grid.png")
            run.log(f"held-out: all attributes {share:.3f} misses {misses}")


if __name__ == "__main__":
    main()
