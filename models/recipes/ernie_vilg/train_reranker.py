"""Trains the reranker: a ChineseCLIP that tells whether a picture shows what a prompt asks.

    python train_reranker.py --data DIR --run RUN --minutes M --text ../../taiyi-sd-tiny/text_encoder

The text side begins as the landscape recipe's text encoder, the picture side is new. Each pair of a
prompt and a picture of a step is one yes-or-no question (sigmoid loss): yes if the picture is sound and
shows all that is asked. Beside the other pictures' prompts there are prompts with one attribute changed
and paintings with one object doubled or damaged; a share of the pictures went through the VQModel, so
that compression alone does not look like damage. Two linear layers that are thrown away afterwards
ask the picture side for the scene's attributes and for damage, which teaches it to see much sooner than
the questions alone. It never sees the checker or a generated picture.
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
from transformers import BertModel, ChineseCLIPConfig, ChineseCLIPModel

import check
import dataset
import grammar
from train_checker import augment
from training import Ema, Optimiser, Run, learning_rate, to_pictures, to_tensor
from wording import VOCABULARY, shown, source_ids

SOUND, FAULTY = 24, 8  # pictures of a step
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
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 128,
        "patch_size": 16,
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
    return functional.normalize(found, dim=-1)


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

    def forward(self, pooled, scenes):
        """The loss of sound pictures of `scenes`, then faulty ones. A side of nothing is not asked."""
        truth = [shown(s) for s in scenes]
        faulty = torch.arange(len(pooled)) >= len(scenes)
        damage = self.damage(pooled)[:, 0]
        loss = functional.binary_cross_entropy_with_logits(damage, faulty.float())
        parts = self.attributes(pooled[: len(scenes)]).split(
            [len(v) for v in self.heads.values()], 1
        )
        for (name, values), logits in zip(self.heads.items(), parts):
            labels = [values.index(t[name]) if name in t else -1 for t in truth]
            errors = functional.cross_entropy(
                logits, torch.tensor(labels), ignore_index=-1, reduction="sum"
            )
            loss = loss + errors / len(scenes)
        return loss


def changed(scene, rng):
    """The scene with one attribute changed to another allowed value."""
    values = {
        "sky": grammar.SKY, "mountains": grammar.MOUNTAINS, "colour": grammar.COLOUR,
        "tree": grammar.TREE, "season": grammar.SEASON, "time": grammar.TIME, "side": grammar.SIDE,
        "boat": (False, True), "birds": (False, True), "pavilion": (False, True),
    }  # fmt: skip
    while True:
        name = rng.choice(list(values))
        other = dataclasses.replace(scene, **{name: rng.choice(values[name])})
        if other != scene and grammar.allowed(other):
            return other


@torch.no_grad()
def reconstruct(vqvae, pictures):
    return torch.cat([to_pictures(vqvae(to_tensor(p)).sample) for p in pictures.split(16)])


class Pictures:
    """Pictures, the first ones also as reconstructions, and their scenes."""

    def __init__(self, data, split, faulty, vqvae, reconstructions):
        pictures, self.scenes, _ = dataset.load(data, split, faulty)
        self.pictures = torch.from_numpy(pictures)
        self.decoded = reconstruct(vqvae, self.pictures[:reconstructions])

    def draw(self, count, rng):
        """(float pictures, scenes), half of them mirrored."""
        x, scenes = [], []
        for _ in range(count):
            of = self.decoded if rng.random() < RECONSTRUCTED else self.pictures
            i, mirrored = rng.randrange(len(of)), rng.randrange(2)
            x.append(of[i].flip(1) if mirrored else of[i])
            scenes.append(self.scenes[i].mirrored() if mirrored else self.scenes[i])
        return to_tensor(torch.stack(x)), scenes


def questions(scenes, faulty_scenes, rng):
    """Prompts, and for each prompt and picture whether the picture shows all that is asked."""
    asked, prompts = [], []
    for scene in [*scenes, *(changed(s, rng) for s in scenes), *faulty_scenes]:
        request = grammar.describe(scene, rng)
        prompts.append(request.prompt)
        asked.append(grammar.asked_attributes(scene, request))
    seen = [{**dict.fromkeys(check.HEADS), **shown(s)} for s in scenes]
    truth = [
        [all(check.compare(a, s).values()) for s in seen] + [False] * len(faulty_scenes)
        for a in asked
    ]
    return prompts, torch.tensor(truth)


def loss_of(scores, truth):
    """Mean over the yes pairs, the near misses (one attribute, one damage) and all other pairs."""
    errors = functional.binary_cross_entropy_with_logits(scores, truth.float(), reduction="none")
    near = torch.zeros_like(truth)
    for i in range(SOUND):
        near[SOUND + i, i] = True
    for i in range(FAULTY):
        near[2 * SOUND + i, SOUND + i] = True
    near &= ~truth
    return sum(errors[part].mean() for part in (truth, near, ~truth & ~near))


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
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(14)
    vqvae = VQModel.from_pretrained(args.run / "vqvae").eval()
    sound, faulty = (
        Pictures(args.data, "train", bad, vqvae, args.reconstructions) for bad in (False, True)
    )
    held, held_scenes, _ = dataset.load(args.data, "held")
    held = reconstruct(vqvae, torch.from_numpy(held[:200]))
    if args.text:
        model = build(BertModel.from_pretrained(args.text, torch_dtype=torch.float32))
    else:
        folder = args.start_from / "reranker"
        model = ChineseCLIPModel.from_pretrained(folder, torch_dtype=torch.float32)
    model.logit_scale.data.fill_(2.3)
    bias = nn.Parameter(torch.tensor(-5.0))  # of the loss alone: ranking does not need it
    lessons = Lessons(model.config.vision_config.hidden_size)
    learned = nn.ModuleDict({"model": model, "bias": nn.ParameterList([bias]), "lessons": lessons})
    named = list(learned.named_parameters())
    optimiser = Optimiser(named, args.rate, args.muon_rate, weight_decay=1e-3)
    ema = Ema([p for _, p in named], 0.995)
    run = Run(args.run, "reranker", [learned], optimiser, ema)
    rng = random.Random(f"reranker {run.step}")
    trace, done = [], 0.0
    while done < 1:
        x, scenes = sound.draw(SOUND, rng)
        y, faulty_scenes = faulty.draw(FAULTY, rng)
        prompts, truth = questions(scenes, faulty_scenes, rng)
        pooled = model.vision_model(pixel_values=augment(torch.cat([x, y]))).pooler_output
        seen = functional.normalize(model.visual_projection(pooled), dim=-1)
        scores = text_features(model, prompts) @ seen.T * model.logit_scale.exp() + bias
        loss = loss_of(scores, truth)
        lesson = lessons(pooled, scenes)
        (loss + 0.3 * lesson).backward()
        torch.nn.utils.clip_grad_norm_(ema.live, 1.0)
        done = run.done(None, args.minutes)
        optimiser.schedule(learning_rate(run.step, done, 1.0, warm_up=50, decay_from=0.4))
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
            run.log(
                f"held-out: own prompt before a near miss {measure(model, held, held_scenes[:200]):.3f}"
            )
            model.save_pretrained(args.run / "reranker")
            ema.swap()
    text = json.dumps(PREPROCESSOR, indent=2) + "\n"
    (args.run / "reranker" / "preprocessor_config.json").write_text(text)


if __name__ == "__main__":
    main()
