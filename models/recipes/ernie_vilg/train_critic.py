"""Trains the critic, whose features the VQModel's decoder learns to keep (train_vq.py --critic), and the
reader, who tells what the transformer has painted (paint_own.py).

    python train_critic.py --data DIR --run RUN --minutes M
    python train_critic.py --data DIR --run RUN --minutes M --reader

Mean errors alone make a decoder blur what a code leaves open: blossom and snow go first, and with them
the season. The critic learns to tell a scene's attributes and deliberate faults; what it looks at on the
way is what a reconstruction must not lose. It is not the checker that judges in the end: it has the same
lessons, but other layers, other scales and its own weights. RUN/critic.safetensors holds the newest EMA
weights.

The reader goes on from the critic once there is a decoder (RUN/vqvae): half of what it learns from are
reconstructions, as the transformer's paintings come from that decoder, too. A critic must not learn from
those: it would no longer mind what they lack. RUN/reader.safetensors.
"""

import argparse
import pathlib

import torch
import torch.nn.functional as functional
from diffusers import VQModel
from safetensors.torch import load_file, save_file
from torch import nn

import check
import dataset
import sampling
from train_checker import augment, labels, load_split, loss_of
from training import Ema, Optimiser, Run, learning_rate, to_tensor

WIDTHS = (24, 48, 96)


class Stage(nn.Module):
    """Half the side, then one residual convolution."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, outputs, 4, 2, 1)
        self.norm = nn.GroupNorm(8, outputs)
        self.inner = nn.Conv2d(outputs, outputs, 3, 1, 1)

    def forward(self, x):
        x = functional.silu(self.norm(self.conv_in(x)))
        return x + functional.silu(self.inner(x))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(Stage(i, o) for i, o in zip((3, *WIDTHS), WIDTHS))
        self.hidden = nn.Linear(WIDTHS[-1] * 2 * 4, 160)  # means and peaks of the four quarters
        self.heads = nn.ModuleDict(
            {name: nn.Linear(160, len(values)) for name, values in check.HEADS.items()}
        )

    def features(self, x):
        """Of pictures [n, 3, h, w] in [-1, 1]: [n, c, h / s, w / s] with s = 2, 4, 8."""
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, x):
        """A head's name -> its logits, of pictures [n, 3, 128, 128]."""
        x = self.features(x)[-1]
        x = torch.cat(
            [functional.adaptive_avg_pool2d(x, 2), functional.adaptive_max_pool2d(x, 2)], 1
        )
        x = functional.silu(self.hidden(x.flatten(1)))
        return {name: head(x) for name, head in self.heads.items()}


def load(run, name="critic"):
    """The critic, or the "reader"."""
    critic = Critic()
    critic.load_state_dict(load_file(run / f"{name}.safetensors"))
    return critic.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def feature_loss(critic, decoded, truth):
    """Mean relative error of the critic's features, over its three scales."""
    with torch.no_grad():
        wanted = critic.features(truth)
    return sum(
        (a - b).abs().mean() / b.abs().mean() for a, b in zip(critic.features(decoded), wanted)
    ) / len(WIDTHS)


def batch(parts, size):
    """(pictures, labels): as many of each part, half of them mirrored."""
    x, truth = [], []
    for pictures, own, mirrored in parts:
        picks = torch.randint(0, len(pictures), (size // len(parts),))
        flip = torch.rand(len(picks)) < 0.5
        x.append(torch.where(flip[:, None, None, None], pictures[picks].flip(2), pictures[picks]))
        truth.append(torch.where(flip[:, None], mirrored[picks], own[picks]))
    return augment(to_tensor(torch.cat(x))), torch.cat(truth)


def load_parts(data, vqvae, reconstructions):
    """Sound and faulty pictures with their labels and those of their mirrored selves; with a VQModel also
    the first ones of each as it reconstructs them."""
    parts = [part[:3] for part in load_split(data, "train", None, 0)]
    if vqvae:
        decoded = [sampling.reconstruct(vqvae, p[:reconstructions]) for p, *_ in parts]
        parts += [(d, *(of[: len(d)] for of in part[1:])) for d, part in zip(decoded, parts)]
    return parts


@torch.no_grad()
def measure(critic, pictures, truth):
    """Share of held-out sound pictures with every head right."""
    logits = [critic(to_tensor(p)) for p in pictures.split(100)]
    picks = torch.stack([torch.cat([l[n] for l in logits]).argmax(1) for n in check.HEADS], 1)
    return ((picks == truth) | (truth < 0)).all(1).float().mean().item()


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--minutes", type=float, required=True)
    args.add_argument("--reader", action="store_true", help="go on from the critic to the reader")
    args.add_argument(
        "--reconstructions", type=int, default=2000, help="for the reader, of each kind"
    )
    args.add_argument("--batch", type=int, default=32)
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(15)
    name, critic, vqvae = "critic", Critic().to(memory_format=torch.channels_last), None
    if args.reader:
        name, vqvae = "reader", VQModel.from_pretrained(args.run / "vqvae").eval()
        critic.load_state_dict(load_file(args.run / "critic.safetensors"))
    named = list(critic.named_parameters())
    optimiser = Optimiser(named, 2e-3, 0.01, weight_decay=1e-3)
    ema = Ema([p for _, p in named], 0.99)
    parts = load_parts(args.data, vqvae, args.reconstructions)
    pictures, scenes, _ = dataset.load(args.data, "held")
    pictures = torch.from_numpy(pictures[:400])
    if vqvae:
        pictures = sampling.reconstruct(vqvae, pictures)
    run = Run(args.run, name, [critic], optimiser, ema)
    held = pictures, torch.tensor([labels(s, None) for s in scenes[:400]])
    done, trace = 0.0, []
    while done < 1:
        x, truth = batch(parts, args.batch)
        loss = loss_of(critic(x), truth)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(ema.live, 1.0)
        done = run.done(None, args.minutes)
        optimiser.schedule(learning_rate(run.step, done, 1.0, warm_up=50, decay_from=0.3))
        optimiser.step()
        ema.update()
        run.step += 1
        trace.append(loss.item())
        if run.step % 100 == 0:
            run.log(f"loss {sum(trace) / len(trace):.4f}")
            trace.clear()
        if run.save(force=done >= 1):
            ema.swap()
            run.log(f"held-out: all attributes {measure(critic, *held):.3f}")
            save_file(
                {k: v.contiguous() for k, v in critic.state_dict().items()},
                args.run / f"{name}.safetensors",
            )
            ema.swap()


if __name__ == "__main__":
    main()
