"""Trains the transformer in both directions on cached picture tokens.

    python train_transformer.py --data DIR --run RUN --minutes M
    python train_transformer.py --data DIR --run RUN --minutes M --start-from FOLDER
    torchrun --nproc-per-node 2 -- train_transformer.py --data DIR --run RUN --minutes M --threads 1

Needs RUN/tokens.pt and RUN/vqvae (codebook.py). Prompts are worded afresh at every visit; of a step's
rows four fifths paint and one describes. With --own a share of them are what the transformer itself has
painted as asked (paint_own.py). RUN/transformer.safetensors holds the newest EMA
weights, RUN/transformer.log what held-out trials show, RUN/grid.png their pictures. A run that was
stopped or killed goes on where it was, also with another --minutes, --batch or other pictures.
"""

import argparse
import datetime
import itertools
import os
import pathlib
import random

import torch
import torch.distributed as distributed
import torch.nn.functional as functional
from diffusers import VQModel
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

import check
import dataset
import grammar
import paint_own
import sampling
from network import Config, Network, build
from train_text import training_prompt
from train_unet import BOAT_COLUMNS, BOAT_ROWS, SKY_ROWS, average_gradients
from training import Ema, Optimiser, Run, learning_rate
from wording import BOI, BOT, caption, caption_ids, read_caption, shown, source_ids, telling, worn

PAINTED = 0.8  # share of a step's rows that paint; the others describe
OBJECT_WEIGHT = 2.0
TREE_ROWS = slice(5, 15)


def token_weights(scene):
    """How much each picture token's error counts, [256]: more where objects are painted."""
    weights = torch.ones(16, 16)
    if scene.birds or scene.sky != "none":
        weights[SKY_ROWS] = OBJECT_WEIGHT
    if scene.boat:
        weights[BOAT_ROWS, BOAT_COLUMNS] = OBJECT_WEIGHT
    if scene.tree != "none":
        half = slice(0, 8) if scene.side == "left" else slice(8, 16)
        weights[TREE_ROWS, half] = OBJECT_WEIGHT
    return weights.flatten()


class Draws:
    """Fresh rows; half of the pictures are mirrored. Scenes with boats and birds are painted more often.

    They are not described more often: a caption in doubt would tell of birds where there are none.
    `own` are (scene, tokens) of the transformer's own paintings, a share `own_share` of the rows that
    paint; they are not mirrored, and not described: what the reader overlooked would be learned."""

    def __init__(self, scenes, tokens, seed, own=(), own_share=0.0, wear=0.0):
        self.scenes, self.tokens, self.rng = scenes, tokens, random.Random(seed)
        self.shares = list(itertools.accumulate(1 + s.birds + 0.5 * s.boat for s in scenes))
        self.own, self.own_share, self.wear = own, own_share, (wear, telling())

    def _picks(self, count, shares=None):
        for i in self.rng.choices(range(len(self.scenes)), cum_weights=shares, k=count):
            mirrored = self.rng.randrange(2)
            scene = self.scenes[i].mirrored() if mirrored else self.scenes[i]
            yield scene, self.tokens[mirrored, i].long()

    def paintings(self, count):
        """(ids with BOI, source lengths, picture tokens, weights of the picture tokens)."""
        ids, lengths, codes, weights = [], [], [], []
        own = sum(self.rng.random() < self.own_share for _ in range(count)) if self.own else 0
        drawn = (self.rng.choice(self.own) for _ in range(own))
        for scene, code in itertools.chain(self._picks(count - own, self.shares), drawn):
            source = source_ids(worn(training_prompt(scene, self.rng)[0], *self.wear, self.rng))
            ids.append(torch.tensor([*source, BOI]))
            lengths.append(len(source))
            codes.append(code)
            weights.append(token_weights(scene))
        ids = pad_sequence(ids, batch_first=True)
        return ids, torch.tensor(lengths), torch.stack(codes), torch.stack(weights)

    def descriptions(self, count):
        """(picture tokens, BOT and words, the words to tell: -1 where there are none)."""
        codes, ids, truth = [], [], []
        for scene, code in self._picks(count):
            words = caption_ids(caption(scene))
            codes.append(code)
            ids.append(torch.tensor([BOT, *words[:-1]]))
            truth.append(torch.tensor(words))
        truth = pad_sequence(truth, batch_first=True, padding_value=-1)
        return torch.stack(codes), pad_sequence(ids, batch_first=True), truth


def own_paintings(run):
    """(scene, tokens) of those that surely show what was asked."""
    _, tokens, scenes, readings = paint_own.load(run)
    return [
        (scene, row)
        for scene, row, reading in zip(scenes, torch.from_numpy(tokens).long(), readings)
        if paint_own.likely(reading, shown(scene)) >= paint_own.SURE
    ]


def losses(network, painting, description):
    """Mean cross entropies of the two directions."""
    ids, lengths, codes, weights = painting
    logits = network.paint(ids, lengths, codes).float().flatten(0, 1)
    errors = functional.cross_entropy(logits, codes.flatten(), reduction="none")
    painted = (errors * weights.flatten()).sum() / weights.sum()
    codes, ids, truth = description
    logits = network.describe(codes, ids).float().flatten(0, 1)
    return painted, functional.cross_entropy(logits, truth.flatten(), ignore_index=-1)


def caption_score(network, tokens, scenes):
    """Share of pictures whose caption tells every attribute rightly, and misses by attribute."""
    misses, right = {}, 0
    captions = [c for part in tokens.split(100) for c in sampling.describe(network, part)]
    for scene, text in zip(scenes, captions):
        told, truth = read_caption(text) or {}, shown(scene)
        wrong = [k for k in truth.keys() | told.keys() if told.get(k) != truth.get(k)]
        right += not wrong
        for name in wrong:
            misses[name] = misses.get(name, 0) + 1
    return right / len(scenes), misses


def trial(network, vqvae, count, **how):
    """Held-out prompts painted and judged: (share with every attribute right, misses, a grid)."""
    rng = random.Random(99)
    scenes = [s for s in grammar.all_scenes() if grammar.held_out(s)]
    chosen = [rng.choice(scenes) for _ in range(count)]
    requests = [grammar.describe(s, rng) for s in chosen]
    codes = sampling.paint(network, [r.prompt for r in requests], range(count), **how)
    pictures = sampling.decode(vqvae, codes)
    misses, right = {}, 0
    for scene, request, seen in zip(chosen, requests, check.judge(check.load(), pictures)):
        verdict = check.compare(grammar.asked_attributes(scene, request), seen)
        right += all(verdict.values())
        for name in (k for k, ok in verdict.items() if not ok):
            misses[name] = misses.get(name, 0) + 1
    rows = [torch.cat(list(pictures[i : i + 8]), 1) for i in range(0, count // 8 * 8, 8)]
    return right / count, misses, Image.fromarray(torch.cat(rows).numpy())


def arguments():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--minutes", type=float, required=True)
    args.add_argument("--start-from", type=pathlib.Path, help="go on from this published folder")
    args.add_argument("--decay-from", type=float, default=0.5, help="when the rates start to fall")
    args.add_argument(
        "--own", type=float, default=0, help="share of the rows that paint from RUN/own"
    )
    args.add_argument("--wear", type=float, default=0, help="share of characters that prompts lose")
    args.add_argument("--ema", type=float, default=0.995)
    args.add_argument("--rate", type=float, default=1.5e-3)
    args.add_argument("--muon-rate", type=float, default=0.01)
    args.add_argument("--caption-weight", type=float, default=0.3)
    args.add_argument("--batch", type=int, default=16, help="rows of a step, over all processes")
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--trial-every", type=int, default=400, help="steps between trials")
    args.add_argument("--trial-count", type=int, default=48, help="prompts of a trial")
    return args.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    if "RANK" in os.environ:
        # A process may be stopped for minutes on a shared machine; that is no reason to give up.
        distributed.init_process_group("gloo", timeout=datetime.timedelta(hours=6))
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.manual_seed(12)
    tokens = torch.load(args.run / "tokens.pt", weights_only=True)
    vqvae = VQModel.from_pretrained(args.run / "vqvae").eval()
    if args.start_from:
        network = Network.load(args.start_from / "transformer", conv_kernel=Config.conv_kernel)
    else:
        network = build(vqvae.config.num_vq_embeddings)
    # The heads belong to the embeddings: AdamW, not Muon.
    named = [
        (f"embeddings.{name}" if "head" in name else name, p)
        for name, p in network.named_parameters()
    ]
    optimiser = Optimiser(named, args.rate, args.muon_rate, weight_decay=1e-3)
    ema = Ema(network.parameters(), args.ema)
    run = Run(args.run, "transformer", [network], optimiser, ema)
    own = own_paintings(args.run) if args.own else ()
    seed = f"{run.step} {rank}"
    scenes = dataset.load_scenes(args.data, "train")
    draws = Draws(scenes, tokens["train"], seed, own, args.own, args.wear)
    held_scenes = dataset.load_scenes(args.data, "held")[:200]
    rows = args.batch // ranks
    painted_rows = round(rows * PAINTED)
    half = torch.autocast("cpu", torch.bfloat16)
    totals = torch.zeros(2)
    done = 0.0
    while done < 1:
        with half:
            both = losses(
                network, draws.paintings(painted_rows), draws.descriptions(rows - painted_rows)
            )
        (both[0] + args.caption_weight * both[1]).backward()
        totals += torch.stack(both).detach()
        done = average_gradients(ema.live, run.done(None, args.minutes))
        torch.nn.utils.clip_grad_norm_(ema.live, 1.0)
        optimiser.schedule(
            learning_rate(run.step, done, 1.0, warm_up=50, decay_from=args.decay_from)
        )
        with half:
            optimiser.step()
        ema.update()
        run.step += 1
        if rank:
            continue
        if run.step % 25 == 0:
            run.log("paint {:.4f} describe {:.4f}".format(*(totals / 25).tolist()))
            totals.zero_()
        last = done >= 1
        if run.save(force=last) or last:
            ema.swap()
            network.save(args.run / "transformer.safetensors")
            ema.swap()
        if last or run.step % args.trial_every == 0:
            ema.swap()
            vqvae = VQModel.from_pretrained(args.run / "vqvae").eval()  # may have improved
            share, misses, grid = trial(network, vqvae, args.trial_count)
            grid.save(args.run / "grid.png")
            run.log(f"held-out prompts: all attributes {share:.3f} misses {misses}")
            told = caption_score(network, tokens["held"][:200].long(), held_scenes)
            run.log(f"held-out captions: all attributes {told[0]:.3f} misses {told[1]}")
            ema.swap()


if __name__ == "__main__":
    main()
