"""Teaches the VQModel's decoder what the codes stand for; encoder and codebook stay as they are.

    python train_vq.py --data DIR --run RUN --minutes M

Goes on from RUN/vqvae (codebook.py), whose decoder comes from continuous latents: a code is a coarse
latent, so the decoder has to learn to restore strokes and shades from a cell's neighbours. With --critic
it must also keep what RUN/critic.safetensors (train_critic.py) looks at, instead of blurring it. RUN/vqvae
always holds the newest EMA weights; RUN/vqvae.json what held-out reconstructions keep, at the end.
"""

import argparse
import json
import pathlib

import torch
from diffusers import VQModel

import check
import dataset
import sampling
import train_critic
from train_decoder import difference_loss
from train_unet import weight_map
from training import Ema, Optimiser, Run, learning_rate, psnr, to_tensor
from wording import shown

CELLS = 8  # crops of 64 x 64 pixels


def batch(pictures, tokens, weights, size):
    """(codes [size, 8, 8], pixels below them, weights of the cells), half of the rows mirrored."""
    codes, x, w = [], [], []
    for _ in range(size):
        i, mirrored = int(torch.randint(0, len(pictures), ())), int(torch.randint(0, 2, ()))
        top, left = torch.randint(0, 16 - CELLS + 1, (2,)).tolist()
        rows, columns = slice(top, top + CELLS), slice(left, left + CELLS)
        picture = pictures[i].flip(1) if mirrored else pictures[i]
        codes.append(tokens[mirrored, i].view(16, 16)[rows, columns])
        x.append(picture[8 * top : 8 * (top + CELLS), 8 * left : 8 * (left + CELLS)])
        w.append(weights[i][:, rows, columns])
    return torch.stack(codes).long(), to_tensor(torch.stack(x)), torch.stack(w)


@torch.no_grad()
def measure(vqvae, tokens, pictures, scenes):
    """What reconstructions keep: PSNR in dB after 8-bit rounding, and what the checker still sees."""
    out = sampling.decode(vqvae, tokens)
    mse = (out.float() - pictures.float()).square().mean().item()
    verdicts = [
        check.compare(shown(scene), seen)
        for scene, seen in zip(scenes, check.judge(check.load(), out))
    ]
    share = lambda values: round(sum(values) / len(values), 4)
    return {
        "pictures": len(pictures),
        "psnr_db": round(psnr(mse, 255), 2),
        "all_attributes": share([all(v.values()) for v in verdicts]),
        "per_attribute": {
            name: share([v[name] for v in verdicts if name in v]) for name in check.HEADS
        },
    }


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--minutes", type=float, required=True)
    args.add_argument("--rate", type=float, default=1e-3)
    args.add_argument("--muon-rate", type=float, default=0.01)
    args.add_argument("--batch", type=int, default=8, help="crops of a step")
    args.add_argument("--critic", type=float, default=0, help="weight of the critic's features")
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(13)
    pictures, scenes, _ = dataset.load(args.data, "train")
    pictures, weights = torch.from_numpy(pictures), [weight_map(scene) for scene in scenes]
    held, held_scenes, _ = dataset.load(args.data, "held")
    held = torch.from_numpy(held)
    tokens = torch.load(args.run / "tokens.pt", weights_only=True)
    vqvae = VQModel.from_pretrained(args.run / "vqvae").to(memory_format=torch.channels_last)
    learned = torch.nn.ModuleDict(
        {"post_quant_conv": vqvae.post_quant_conv, "decoder": vqvae.decoder}
    )
    optimiser = Optimiser(learned.named_parameters(), args.rate, args.muon_rate)
    ema = Ema(learned.parameters(), 0.995)
    run = Run(args.run, "vq", [learned], optimiser, ema)
    critic = train_critic.load(args.run) if args.critic else None
    trace, done = [], 0.0
    while done < 1:
        codes, x, weight = batch(pictures, tokens["train"], weights, args.batch)
        z = vqvae.quantize.embedding(codes).detach().permute(0, 3, 1, 2)
        decoded = vqvae.decode(z, True).sample
        error = decoded - x
        weight = weight.repeat_interleave(8, 2).repeat_interleave(8, 3)
        weight = weight / weight.mean()
        loss = (weight * (error.abs() + 3 * error.square())).mean() + 0.5 * difference_loss(error)
        if critic:
            loss = loss + args.critic * train_critic.feature_loss(critic, decoded, x)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
        done = run.done(None, args.minutes)
        optimiser.schedule(learning_rate(run.step, done, 1.0, warm_up=40, decay_from=0.3))
        optimiser.step()
        ema.update()
        run.step += 1
        trace.append(error.detach().square().mean())
        if run.step % 50 == 0:
            run.log(f"train psnr {psnr(sum(trace).item() / len(trace)):.2f}")
            trace.clear()
        last = done >= 1
        if run.save(force=last):
            ema.swap()
            count = 400 if last else 40
            record = measure(
                vqvae, tokens["held"][:count].long(), held[:count], held_scenes[:count]
            )
            run.log(json.dumps(record))
            vqvae.save_pretrained(args.run / "vqvae")
            ema.swap()
            if last:
                (args.run / "vqvae.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
