"""Trains the reranker: a ChineseCLIP that tells whether a picture shows what a prompt asks.

    python train_reranker.py --data DIR --run RUN --minutes M --text ../../taiyi-sd-tiny/text_encoder

The text side begins as the landscape recipe's text encoder, the picture side is new. Each pair of a
prompt and a picture of a step is one yes-or-no question (sigmoid loss): yes if the picture is sound and
shows all that is asked. Needs RUN/vqvae and RUN/own (train_vq.py, paint_own.py). Its pictures are
paintings, some of them as the VQModel reconstructs them, so that compression alone does not look like damage; paintings with one object doubled or damaged; and what
the transformer has painted itself, where the reader tells how likely the answer is yes (paint_own.py):
half of those as asked, half not, as those are what it has to tell apart. Its prompts are the
pictures' own and those with one attribute changed. Two linear layers that are thrown away afterwards ask
the picture side for the attributes and for damage, which teaches it to see much sooner than the questions
alone. It never sees the checker.
"""

import argparse
import dataclasses
import json
import pathlib
import random

import torch
import torch.nn.functional as functional
from diffusers import VQModel
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, BertModel, ChineseCLIPConfig, ChineseCLIPModel

import check
import dataset
import grammar
import paint_own
import sampling
from train_checker import augment, labels
from training import Ema, Optimiser, Run, learning_rate, to_tensor
from wording import VOCABULARY, shown, source_ids

SOUND, FAULTY, OWN = 16, 8, 16  # pictures of a step
RECONSTRUCTED = 0.5  # share of pictures that went through the VQModel
PREPROCESSOR = {
    "image_processor_type": "ChineseCLIPImageProcessor",
    "do_resize": True,
    "size": {"height": 128, "width": 128},
    "resample": 3,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def attend(_, query, key, value, mask, scaling, **__):
    """On a CPU in bfloat16 three times as fast as PyTorch's fused one; for the picture side, no mask."""
    shares = (query @ key.mT * scaling).softmax(-1)
    return (shares.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("plain", attend)


def build(bert):
    """A ChineseCLIPModel whose text side holds the weights of `bert`."""
    c = bert.config
    text = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "max_position_embeddings": c.max_position_embeddings,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    vision = {
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 5,
        "num_attention_heads": 3,
        "image_size": 128,
        "patch_size": 8,  # a bird is smaller than 16 x 16
        "projection_dim": 64,
    }
    model = ChineseCLIPModel(
        ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=64)
    )
    weights = {k: v for k, v in bert.state_dict().items() if not k.startswith("pooler")}
    words = model.text_model.embeddings.word_embeddings.weight.detach().clone()
    name = "embeddings.word_embeddings.weight"
    words[: len(weights[name])] = weights[name]
    model.text_model.load_state_dict(weights | {name: words})
    return model


def text_features(model, prompts):
    """Unit features; padding is masked, which is the same as none."""
    rows = [torch.tensor(source_ids(p)) for p in prompts]
    mask = pad_sequence([torch.ones_like(r) for r in rows], batch_first=True)
    ids = pad_sequence(rows, batch_first=True)
    found = model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
    return functional.normalize(found.float(), dim=-1)


def picture_features(model, x):
    return functional.normalize(model.get_image_features(pixel_values=x).pooler_output, dim=-1)


class Lessons(nn.Module):
    """What the picture side shall see, told from its state before the projection."""

    def __init__(self, width):
        super().__init__()
        self.heads = {
            name: [v for v in values if v != "bad"] for name, values in check.HEADS.items()
        }
        self.attributes = nn.Linear(width, sum(map(len, self.heads.values())))
        self.damage = nn.Linear(width, 1)

    def forward(self, pooled, readings):
        """The loss of pictures with `readings` as paint_own.read tells them. What is damaged or not there
        is not asked."""
        damaged = torch.tensor([max(r.get("bad", 0.0) for r in of.values()) for of in readings])
        damage = self.damage(pooled)[:, 0]
        loss = functional.binary_cross_entropy_with_logits(damage, damaged)
        parts = self.attributes(pooled).split([len(v) for v in self.heads.values()], 1)
        for (name, values), logits in zip(self.heads.items(), parts):
            truth = torch.tensor([[of[name].get(v, 0.0) for v in values] for of in readings])
            loss = loss - (truth * logits.log_softmax(1)).sum() / len(readings)
        return loss


def changed(scene, rng):
    """The scene with one attribute changed to another allowed value; never one that is held out, unless
    the scene is."""
    open_to = grammar.held_out(scene)
    values = {
        "sky": grammar.SKY, "mountains": grammar.MOUNTAINS, "colour": grammar.COLOUR,
        "tree": grammar.TREE, "season": grammar.SEASON, "time": grammar.TIME, "side": grammar.SIDE,
        "boat": (False, True), "birds": (False, True), "pavilion": (False, True),
    }  # fmt: skip
    while True:
        # Birds are the smallest, and the easiest to overlook.
        name = "birds" if rng.random() < 0.25 else rng.choice(list(values))
        other = dataclasses.replace(scene, **{name: rng.choice(values[name])})
        if other != scene and grammar.allowed(other) and grammar.held_out(other) <= open_to:
            return other


class Paintings:
    """Of the training scenes: sound, the first ones also as reconstructions, or faulty."""

    def __init__(self, data, faulty, vqvae, reconstructions):
        pictures, self.scenes, self.faults = dataset.load(data, "train", faulty)
        self.pictures = torch.from_numpy(pictures)
        self.decoded = sampling.reconstruct(vqvae, self.pictures[:reconstructions])

    def draw(self, rng):
        """(picture, scene, its reading), half of them mirrored."""
        of = self.decoded if rng.random() < RECONSTRUCTED else self.pictures
        i, mirrored = rng.randrange(len(of)), rng.randrange(2)
        scene = self.scenes[i].mirrored() if mirrored else self.scenes[i]
        decided = zip(check.HEADS.items(), labels(scene, self.faults[i]))
        reading = {name: {values[k]: 1.0} if k >= 0 else {} for (name, values), k in decided}
        return of[i].flip(1) if mirrored else of[i], scene, reading


class OwnPaintings:
    """What the transformer has painted, with the reader's readings; the last `kept` are for measure()."""

    def __init__(self, run, kept=256):
        pictures, _, self.scenes, self.readings = paint_own.load(run)
        self.pictures = torch.from_numpy(pictures)
        self.count = len(pictures) - kept
        self.sides = [], []
        for i, reading in enumerate(self.readings[: self.count]):
            self.sides[paint_own.likely(reading, shown(self.scenes[i])) > 0.5].append(i)

    def draw(self, rng):
        i, mirrored = rng.choice(self.sides[rng.randrange(2)]), rng.randrange(2)
        picture, scene, reading = self.pictures[i], self.scenes[i], self.readings[i]
        if mirrored:
            picture, scene = picture.flip(1), scene.mirrored()
            other = {"left": "right", "right": "left"}
            reading = reading | {
                name: {other[side]: share for side, share in reading[name].items()}
                for name in ("tree_side", "pavilion_side")
            }
        return picture, scene, reading


def asks(scene, rng):
    request = grammar.describe(scene, rng)
    return request.prompt, grammar.asked_attributes(scene, request)


def questions(scenes, readings, rng):
    """Prompts: each picture's own, then each with one attribute changed. For each prompt and picture:
    how likely the picture shows all that is asked, and whether it is a near miss."""
    prompts, asked = zip(*(asks(s, rng) for s in [*scenes, *(changed(s, rng) for s in scenes)]))
    truth = torch.tensor([[paint_own.likely(r, a) for r in readings] for a in asked])
    near = torch.eye(len(scenes), dtype=bool).repeat(2, 1) & (truth < 0.5)
    return prompts, truth, near


def loss_of(scores, truth, near):
    """Mean over the yes pairs, the near misses (one attribute, one damage) and all other pairs."""
    errors = functional.binary_cross_entropy_with_logits(scores, truth, reduction="none")
    yes = truth >= 0.5
    return sum(errors[part].mean() for part in (yes, near, ~yes & ~near))


@torch.no_grad()
def measure_own(model, own):
    """How often one of its own paintings that is as asked fits its prompt better than one that is not."""
    rng = random.Random(6)
    kept = range(own.count, len(own.scenes))
    prompts, asked = zip(*(asks(own.scenes[i], rng) for i in kept))
    right = torch.tensor([paint_own.likely(own.readings[i], a) >= 0.5 for a, i in zip(asked, kept)])
    seen = picture_features(model, to_tensor(own.pictures[own.count :]))
    fits = (text_features(model, prompts) * seen).sum(1)
    return (fits[right][:, None] > fits[~right]).float().mean().item()


@torch.no_grad()
def measure(model, pictures, scenes):
    """How often a held-out picture fits its own prompt better than one with an attribute changed."""
    rng = random.Random(5)
    asked, others, kept = [], [], []
    for i, scene in enumerate(scenes):
        request, near = grammar.describe(scene, rng), changed(scene, rng)
        other = grammar.describe(near, rng)
        truth = {**dict.fromkeys(check.HEADS), **shown(scene)}
        if not all(check.compare(grammar.asked_attributes(near, other), truth).values()):
            asked.append(request.prompt)
            others.append(other.prompt)
            kept.append(i)
    seen = picture_features(model, to_tensor(pictures[kept]))
    own, near = ((text_features(model, p) * seen).sum(1) for p in (asked, others))
    return (own > near).float().mean().item()


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", required=True)
    args.add_argument("--run", type=pathlib.Path, required=True)
    args.add_argument("--minutes", type=float, required=True)
    begin = args.add_mutually_exclusive_group(required=True)
    begin.add_argument("--text", type=pathlib.Path, help="the landscape recipe's text encoder")
    begin.add_argument("--start-from", type=pathlib.Path, help="go on from this published folder")
    args.add_argument("--rate", type=float, default=1.5e-3)
    args.add_argument("--muon-rate", type=float, default=0.01)
    args.add_argument("--reconstructions", type=int, default=1200)
    args.add_argument(
        "--lessons", type=float, default=1.0, help="weight of what is taught beside it"
    )
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(14)
    vqvae = VQModel.from_pretrained(args.run / "vqvae").eval()
    sound, faulty = (
        Paintings(args.data, bad, vqvae, args.reconstructions) for bad in (False, True)
    )
    own = OwnPaintings(args.run)
    held, held_scenes, _ = dataset.load(args.data, "held")
    held = sampling.reconstruct(vqvae, torch.from_numpy(held[:200]))
    if args.text:
        model = build(BertModel.from_pretrained(args.text, torch_dtype=torch.float32))
    else:
        folder = args.start_from / "reranker"
        model = ChineseCLIPModel.from_pretrained(folder, torch_dtype=torch.float32)
    model.set_attn_implementation({"vision_config": "plain"})
    model.logit_scale.data.fill_(2.3)
    bias = nn.Parameter(torch.tensor(-5.0))  # of the loss alone: ranking does not need it
    lessons = Lessons(model.config.vision_config.hidden_size)
    learned = nn.ModuleDict({"model": model, "bias": nn.ParameterList([bias]), "lessons": lessons})
    named = list(learned.named_parameters())
    optimiser = Optimiser(named, args.rate, args.muon_rate, weight_decay=1e-3)
    ema = Ema([p for _, p in named], 0.995)
    run = Run(args.run, "reranker", [learned], optimiser, ema)
    rng = random.Random(f"reranker {run.step}")
    half = torch.autocast("cpu", torch.bfloat16)
    trace, done = [], 0.0
    while done < 1:
        drawn = [
            of.draw(rng)
            for of, n in ((sound, SOUND), (faulty, FAULTY), (own, OWN))
            for _ in range(n)
        ]
        x, scenes, readings = zip(*drawn)
        prompts, truth, near = questions(scenes, readings, rng)
        with half:
            state = model.vision_model(
                pixel_values=augment(to_tensor(torch.stack(x)))
            ).pooler_output
            asked = text_features(model, prompts)
        pooled = state.float()
        seen = functional.normalize(model.visual_projection(pooled), dim=-1)
        scores = asked.float() @ seen.T * model.logit_scale.exp() + bias
        loss = loss_of(scores, truth, near)
        lesson = lessons(pooled, readings)
        (loss + args.lessons * lesson).backward()
        torch.nn.utils.clip_grad_norm_(ema.live, 1.0)
        done = run.done(None, args.minutes)
        optimiser.schedule(learning_rate(run.step, done, 1.0, warm_up=50, decay_from=0.4))
        with half:
            optimiser.step()
        ema.update()
        run.step += 1
        trace.append((loss.item(), lesson.item()))
        if run.step % 100 == 0:
            means = [sum(part) / len(part) for part in zip(*trace)]
            run.log("loss {:.4f} lessons {:.4f}".format(*means))
            trace.clear()
        if run.save(force=done >= 1):
            ema.swap()
            shares = measure(model, held, held_scenes[:200]), measure_own(model, own)
            run.log("own prompt before a near miss {:.3f}, own paintings {:.3f}".format(*shares))
            model.save_pretrained(args.run / "reranker")
            ema.swap()
    text = json.dumps(PREPROCESSOR, indent=2) + "\n"
    (args.run / "reranker" / "preprocessor_config.json").write_text(text)


if __name__ == "__main__":
    main()
