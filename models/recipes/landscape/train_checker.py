"""Trains the attribute checker on painted pictures and deliberate faults, and measures it.

    python train_checker.py --data DIR --run RUN --steps N [--vae RUN/vae]
    python train_checker.py --data DIR --run RUN --measure [--vae RUN/vae]

Training pictures come from training combinations only; half of them are faults. With --vae a share
are reconstructions, so that compression alone does not look like damage.
"""

import argparse
import json
import pathlib

import torch
import torch.nn.functional as functional
from safetensors.torch import save_file

import check
import dataset
from training import Ema, Run, learning_rate, to_pictures, to_tensor

BATCH = 48
RECONSTRUCTED = 0.35  # share of reconstructions, where there are any


def labels(scene, fault):
    """Class index a head; -1 where the picture does not decide it."""
    truth = {
        "sky": scene.sky, "mountains": scene.mountains, "colour": scene.colour, "tree": scene.tree,
        "season": scene.season, "time": scene.time, "boat": scene.boat, "birds": scene.birds,
        "pavilion": scene.pavilion, "tree_side": scene.side, "pavilion_side": scene.pavilion_side,
    }  # fmt: skip
    if fault:
        truth[fault[0]] = "bad"
    undecided = set()
    if truth["tree"] in ("none", "bad"):
        undecided.add("tree_side")
    if truth["pavilion"] in (False, "bad"):
        undecided.add("pavilion_side")
    if fault and fault[0] == "mountains" and fault[1] != "double":
        undecided |= {"sky", "colour"}  # the damage reaches the sky and hides the colour
    return [
        -1 if name in undecided else values.index(truth[name])
        for name, values in check.HEADS.items()
    ]


@torch.no_grad()
def reconstruct(vae, pictures):
    return torch.cat(
        [
            to_pictures(vae.decode(vae.encode(to_tensor(p)).latent_dist.mean).sample)
            for p in pictures.split(32)
        ]
    )


def load_split(data, split, vae, reconstructions):
    """(sound, faulty), each (pictures, labels, mirrored labels, reconstructions of the first ones)."""
    parts = []
    for faulty in (False, True):
        pictures, scenes, found = dataset.load(data, split, faulty)
        pictures = torch.from_numpy(pictures)
        own = torch.tensor([labels(s, f) for s, f in zip(scenes, found)])
        mirrored = torch.tensor([labels(s.mirrored(), f) for s, f in zip(scenes, found)])
        parts.append(
            (pictures, own, mirrored, reconstruct(vae, pictures[:reconstructions]) if vae else None)
        )
    return parts


def augment(x):
    n = len(x)
    x = x * (1 + 0.16 * (torch.rand(n, 1, 1, 1) - 0.5)) + 0.08 * (torch.rand(n, 3, 1, 1) - 0.5)
    kind = torch.randint(0, 4, ())
    if kind == 0:  # slight softness
        soft = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        x = torch.lerp(x, soft, torch.rand(n, 1, 1, 1))
    if kind == 1:
        x = x + torch.randn_like(x) * torch.rand(n, 1, 1, 1) * 0.12
    dy, dx = torch.randint(-2, 3, (2,)).tolist()
    return torch.roll(x, (dy, dx), (2, 3))


def batch(parts):
    pictures, truth = [], []
    for own, label, mirrored, decoded in parts:
        picks = torch.randint(0, len(own), (BATCH // 2,))
        if decoded is not None:
            few = round(BATCH // 2 * RECONSTRUCTED)
            picks[:few] = torch.randint(0, len(decoded), (few,))
        x = own[picks]
        if decoded is not None:
            x[:few] = decoded[picks[:few]]
        flip = torch.rand(len(picks)) < 0.5
        pictures.append(torch.where(flip[:, None, None, None], x.flip(2), x))
        truth.append(torch.where(flip[:, None], mirrored[picks], label[picks]))
    return augment(to_tensor(torch.cat(pictures))), torch.cat(truth)


def loss_of(logits, truth):
    total = 0.0
    for i, values in enumerate(logits.values()):
        if (truth[:, i] >= 0).any():
            total = total + functional.cross_entropy(values, truth[:, i], ignore_index=-1)
    return total


@torch.no_grad()
def measure(model, data, vae):
    """Held-out accuracy on sound pictures and, on faulty ones, the share whose fault is seen."""
    record = {}
    sound, faulty = load_split(data, "held", vae, 300)
    names = list(check.HEADS)
    for title, (own, truth, _, decoded) in (("sound", sound), ("faulty", faulty)):
        for source, pictures in (("painted", own), ("reconstructed", decoded)):
            if pictures is None:
                continue
            label = truth[: len(pictures)]
            logits = [model(to_tensor(p)) for p in pictures.split(64)]
            picks = torch.stack([torch.cat([l[n] for l in logits]).argmax(1) for n in names], 1)
            right = (picks == label) | (label < 0)
            row = {"n": len(pictures), "all_heads": round(right.all(1).float().mean().item(), 4)}
            row["per_head"] = {
                n: round(right[:, i].float().mean().item(), 4) for i, n in enumerate(names)
            }
            if title == "faulty":
                kinds = [
                    f"{f[0]}:{f[1]}" for f in dataset.load(data, "held", True)[2][: len(pictures)]
                ]
                bad = torch.tensor([names.index(k.split(":")[0]) for k in kinds])
                caught = right[torch.arange(len(pictures)), bad]
                row["fault_seen"] = round(caught.float().mean().item(), 4)
                row["fault_seen_by_kind"] = {
                    k: round(
                        caught[[i for i, v in enumerate(kinds) if v == k]].float().mean().item(), 3
                    )
                    for k in sorted(set(kinds))
                }
            else:
                bad = torch.stack(
                    [
                        picks[:, i] == len(check.HEADS[n]) - 1
                        for i, n in enumerate(names)
                        if "bad" in check.HEADS[n]
                    ]
                )
                row["false_alarms"] = round(bad.any(0).float().mean().item(), 4)
            record[f"{title} {source}"] = row
    return record


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--steps", type=int, default=0)
    args.add_argument("--vae", type=pathlib.Path)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--rate", type=float, default=2e-3)
    args.add_argument("--measure", action="store_true")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(3)
    vae = None
    if args.vae:
        from diffusers import AutoencoderKL

        vae = AutoencoderKL.from_pretrained(args.vae).eval().to(memory_format=torch.channels_last)
    if args.measure:
        record = measure(check.load(), args.data, vae)
        (args.run / "checker.json").write_text(json.dumps(record, indent=1))
        print(json.dumps(record))
        return
    model = check.Checker().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), args.rate, weight_decay=1e-2, fused=True)
    run = Run(args.run, "checker", [model], optimiser, Ema(model.parameters(), 0.99))
    parts = load_split(args.data, "train", vae, 600)
    model.train()
    trace = []
    while run.step < args.steps:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(run.step, args.steps, args.rate, decay_from=0.2)
        x, truth = batch(parts)
        loss = loss_of(model(x), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        run.step += 1
        trace.append(loss.item())
        if run.step % 100 == 0:
            run.log(f"loss {sum(trace) / len(trace):.4f}")
            trace.clear()
        if run.save(force=run.step == args.steps):
            weights = {
                k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()
            }
            save_file({k: v.contiguous() for k, v in weights.items()}, check.WEIGHTS)
    model.eval()
    print(json.dumps(measure(check.load(), args.data, vae)))


if __name__ == "__main__":
    main()
