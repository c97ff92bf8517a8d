"""Trains the UNet together with the Chinese BERT text encoder on cached latents.

    python train_unet.py --data DIR --run RUN --steps N

Needs RUN/vae after the joint phase. v-prediction, min-SNR-5, 10 % empty prompts; captions are drawn
afresh every step. RUN/unet and RUN/text_encoder hold the newest EMA weights, RUN/grid.png held-out
samples, RUN/unet.log the share of held-out pictures that the checker accepts.
"""

import argparse
import pathlib
import random

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import BertConfig, BertModel

import check
import dataset
import grammar
from training import Ema, Optimiser, Run, learning_rate, to_pictures, to_tensor

CHANNELS = (64, 64, 96)
MAX_LENGTH = 64  # tokens, [CLS] and [SEP] included; the longest prompt of the grammar has 60
WIDTH = 128
BATCH = 16
SNR_CAP = 5.0
VOCABULARY = {token: i for i, token in enumerate(grammar.vocabulary())}
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


def build_text_encoder():
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=MAX_LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    return BertModel(config)


def token_ids(prompt):
    """What BertTokenizer yields for Chinese text: one token a character, padded, no mask."""
    inner = [VOCABULARY.get(c, 1) for c in prompt if not c.isspace()][: MAX_LENGTH - 2]
    return [2, *inner, 3] + [0] * (MAX_LENGTH - 2 - len(inner))


@torch.no_grad()
def cache_latents(vae, pictures, path):
    """Scaled latents of the pictures and of their mirror images, [2, n, c, 16, 16]."""
    if path.exists():
        return torch.load(path, weights_only=True)
    found = []
    for part in pictures.split(50):
        x = to_tensor(part)
        found.append(torch.stack([vae.encode(v).latent_dist.mean for v in (x, x.flip(3))]).half())
    latents = torch.cat(found, 1) * vae.config.scaling_factor
    torch.save(latents, path)
    return latents


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

    def prompt(self, scene):
        if self.rng.random() < 0.1:
            return ""
        text = grammar.describe(scene, self.rng, terse=True).prompt
        # now and then a clause of words that the vocabulary lacks, to be ignored
        return "\u3400" * self.rng.randint(1, 5) + "，" + text if self.rng.random() < 0.04 else text

    def draw(self, size):
        rows, ids = [], []
        for _ in range(size):
            i, mirrored = self.rng.randrange(len(self.scenes)), self.rng.randrange(2)
            scene = self.scenes[i].mirrored() if mirrored else self.scenes[i]
            rows.append(self.latents[mirrored, i])
            ids.append(token_ids(self.prompt(scene)))
        return torch.stack(rows).float().contiguous(memory_format=torch.channels_last), torch.tensor(ids)


def trial(unet, text_encoder, vae, checker, count):
    """Held-out prompts painted and judged: (share with every attribute right, misses, a grid)."""
    rng = random.Random(99)
    scenes = [s for s in grammar.all_scenes() if grammar.held_out(s)]
    chosen = [rng.choice(scenes) for _ in range(count)]
    requests = [grammar.describe(s, rng) for s in chosen]
    parts = [sample(unet, text_encoder, vae, [r.prompt for r in requests[i : i + 24]], i) for i in range(0, count, 24)]
    pictures = torch.cat(parts)
    rows = [torch.cat(list(pictures[i : i + 8]), 1) for i in range(0, count // 8 * 8, 8)]
    grid = Image.fromarray(torch.cat(rows).numpy())
    misses, right = {}, 0
    if checker:
        for scene, request, seen in zip(chosen, requests, check.judge(checker, pictures)):
            wrong = [k for k, ok in check.compare(grammar.asked_attributes(scene, request), seen).items() if not ok]
            right += not wrong
            for name in wrong:
                misses[name] = misses.get(name, 0) + 1
    return right / count, misses, grid


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--steps", type=int, required=True)
    args.add_argument("--rate", type=float, default=1.5e-3)
    args.add_argument("--muon-rate", type=float, default=0.015)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--trial-every", type=int, default=600, help="steps between looks at held-out samples")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(4)
    vae = AutoencoderKL.from_pretrained(args.run / "vae").eval().to(memory_format=torch.channels_last)
    pictures, scenes, _ = dataset.load(args.data, "train")
    latents = cache_latents(vae, torch.from_numpy(pictures), args.run / "latents.pt")
    del pictures
    unet, text_encoder = build_unet(latents.shape[2]), build_text_encoder()
    both = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    named = [(n, p) for n, p in both.named_parameters() if "pooler" not in n]
    optimiser = Optimiser(named, args.rate, args.muon_rate, weight_decay=1e-3)
    ema = Ema([p for _, p in named], 0.999)
    run = Run(args.run, "unet", [both], optimiser, ema)
    examples = Examples(latents, scenes, run.step)
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod
    run.log(f"latents {tuple(latents.shape)} std {latents[0, :500].float().std((0, 2, 3)).tolist()}")
    trace = []
    while run.step < args.steps:
        z, ids = examples.draw(BATCH)
        t = torch.randint(0, len(alphas), (BATCH,))
        a = alphas[t].sqrt()[:, None, None, None]
        s = (1 - alphas[t]).sqrt()[:, None, None, None]
        noise = torch.randn_like(z)
        v = unet(a * z + s * noise, t, text_encoder(ids).last_hidden_state).sample
        snr = alphas[t] / (1 - alphas[t])
        error = (v - (a * noise - s * z)).square().mean((1, 2, 3))
        loss = (error * snr.clamp(max=SNR_CAP) / (snr + 1)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(ema.live, 1.0)
        optimiser.step(learning_rate(run.step, args.steps, 1.0, warm_up=100, decay_from=0.4))
        ema.update()
        run.step += 1
        trace.append(error.mean().item())
        if run.step % 100 == 0:
            run.log(f"v error {sum(trace) / len(trace):.4f}")
            trace.clear()
        last = run.step == args.steps
        run.save(force=last)
        if last or run.step % args.trial_every == 0:
            ema.swap()
            unet.save_pretrained(args.run / "unet")
            text_encoder.save_pretrained(args.run / "text_encoder")
            vae = AutoencoderKL.from_pretrained(args.run / "vae").eval()  # its decoder may have improved
            checker = check.load() if check.WEIGHTS.exists() else None
            share, misses, grid = trial(unet, text_encoder, vae, checker, 240 if last else 48)
            ema.swap()
            grid.save(args.run / "grid.png")
            run.log(f"held-out: all attributes {share:.3f} misses {misses}")


if __name__ == "__main__":
    main()
