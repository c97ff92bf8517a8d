"""Trains the GPT-2 model on packed rows of poems; a stopped run resumes from its last save.

Started by `torchrun`, each process takes its own batches and the gradients are averaged.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

import poem
import prompts

IGNORED = -100  # cross entropy skips these targets
OPEN_ROWS = 32  # rows that packing tries before it opens another
ROW_LENGTHS = (128, 256)  # alternate batch by batch: early positions often, late ones too


@dataclasses.dataclass(frozen=True)
class Schedule:
    steps: int
    warmup: int
    peak: float

    def rate(self, step: int) -> float:
        """Linear rise, level, then a linear fall to zero over the last third of `steps`."""
        return self.peak * min((step + 1) / self.warmup, 3 * (1 - step / self.steps), 1.0)


Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # ids, targets, weights: [rows, length]


@dataclasses.dataclass(frozen=True)
class Text:
    """A prompt and its poem; the first `given` ids are not to be predicted."""

    ids: list[int]
    given: int
    weights: list[float]


@dataclasses.dataclass
class Row:
    ids: list[int] = dataclasses.field(default_factory=list)
    targets: list[int] = dataclasses.field(default_factory=list)
    weights: list[float] = dataclasses.field(default_factory=list)

    def add(self, text: Text) -> None:
        self.ids += text.ids
        self.targets += [IGNORED] * text.given + text.ids[text.given :]
        self.weights += text.weights


def copies(each: poem.Poem) -> int:
    """Tang poems count twice, and so do the rare five-character quatrains."""
    short = len(each.lines) == 4 and len(each.lines[0]) == 5
    return (2 if each.era == "tang" else 1) * (2 if short else 1)


class Corpus:
    """Endless training batches, a pure function of the seed."""

    def __init__(
        self,
        poems: list[poem.Poem],
        themes: list[str],
        tokenizer: GPT2TokenizerFast,
        args: argparse.Namespace,
    ):
        self._poems = poems
        self._themes = themes
        self._tokenizer = tokenizer
        self._end = tokenizer.convert_tokens_to_ids(prompts.END)
        self._full_stop = tokenizer("。").input_ids[-1]
        self._wording = frozenset(tokenizer(prompts.WORDING_CHARACTERS).input_ids)
        self._rhyme_weight = args.rhyme_weight
        self._asked_weight = args.asked_weight
        self._batch_tokens = args.batch_tokens
        self._seed = args.seed

    def _text(self, prompt: str | None, each: poem.Poem) -> Text:
        ids = [*self._tokenizer(each.text).input_ids, self._end]
        if prompt is None:
            return Text(ids, 0, self._weights(ids, frozenset()))
        # The line feed is predicted, so that a bare title is answered on the next line.
        head = self._tokenizer(prompt).input_ids
        ids = head + self._tokenizer("\n").input_ids + ids
        return Text(ids, len(head), self._weights(ids, frozenset(head) - self._wording))

    def _weights(self, ids: list[int], asked: frozenset[int]) -> list[float]:
        """How much each id counts: more for what the prompt asks and for the rhyme, before `。`."""
        weights = [self._asked_weight if i in asked else 1.0 for i in ids]
        for place, following in enumerate(ids[1:]):
            if following == self._full_stop:
                weights[place] = max(weights[place], self._rhyme_weight)
        return weights

    def _texts(self) -> Iterator[Text]:
        for epoch in itertools.count():
            order = random.Random(f"{self._seed} {epoch}")
            writer = prompts.PromptWriter(self._themes, seed=order.getrandbits(32))
            for each in order.sample(self._poems, len(self._poems)):
                yield self._text(writer.write(each), each)

    def _rows(self, texts: Iterator[Text], length: int) -> Iterator[Row]:
        rows: list[Row] = []
        for text in texts:
            if len(text.ids) > min(ROW_LENGTHS):
                continue
            row = next((r for r in rows if len(r.ids) + len(text.ids) <= length), None)
            if row is None:
                if len(rows) == OPEN_ROWS:
                    fullest = max(rows, key=lambda r: len(r.ids))
                    rows.remove(fullest)
                    yield fullest
                row = Row()
                rows.append(row)
            row.add(text)

    def batches(self) -> Iterator[Batch]:
        """A target is the id at the same place, or IGNORED."""
        texts = self._texts()
        sources = [(length, self._rows(texts, length)) for length in ROW_LENGTHS]
        for length, rows in itertools.cycle(sources):
            taken = list(itertools.islice(rows, self._batch_tokens // length))
            ids = torch.full((len(taken), length), self._end)
            targets = torch.full((len(taken), length), IGNORED)
            weights = torch.ones(len(taken), length)
            for number, row in enumerate(taken):
                ids[number, : len(row.ids)] = torch.tensor(row.ids)
                targets[number, : len(row.ids)] = torch.tensor(row.targets)
                weights[number, : len(row.ids)] = torch.tensor(row.weights)
            yield ids, targets, weights


def loss_of(
    model: GPT2LMHeadModel,
    ids: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean cross entropy; the vocabulary projection runs only where a target counts."""
    hidden = model.transformer(ids).last_hidden_state[:, :-1]
    wanted = targets[:, 1:]
    counts = wanted != IGNORED
    losses = torch.nn.functional.cross_entropy(
        model.lm_head(hidden[counts]), wanted[counts], reduction="none"
    )
    if weights is None:
        return losses.mean()
    chosen = weights[:, 1:][counts]
    return (losses * chosen).sum() / chosen.sum()


def new_model(tokenizer: GPT2TokenizerFast, args: argparse.Namespace) -> GPT2LMHeadModel:
    end = tokenizer.convert_tokens_to_ids(prompts.END)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=max(ROW_LENGTHS),
        n_embd=args.width,
        n_layer=args.layers,
        n_head=args.width // 32,
        # The fused form of gelu_fast: the same function, faster to train with.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    return GPT2LMHeadModel(config)


def optimizers_of(model: GPT2LMHeadModel) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings, norms and biases."""
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(
        matrices, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]


@torch.no_grad()
def heldout_loss(model: GPT2LMHeadModel, batches: list[Batch]) -> float:
    model.eval()
    losses = [loss_of(model, ids, targets).item() for ids, targets, _ in batches]
    model.train()
    return sum(losses) / len(losses)


def average_gradients(model: GPT2LMHeadModel, processes: int) -> None:
    """Sums all gradients over the processes in one exchange, and divides."""
    gradients = [parameter.grad for parameter in model.parameters()]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= processes
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


class Run:
    """A model, its optimizers and how far they are; saved to and resumed from one file."""

    def __init__(self, model: GPT2LMHeadModel, args: argparse.Namespace):
        self.model = model
        self.step = 0
        self.cpu_seconds = 0.0
        self._optimizers = optimizers_of(model)
        self._schedule = Schedule(args.steps, warmup=100, peak=args.learning_rate)
        self._arguments = {name: str(value) for name, value in vars(args).items()}
        self._path = args.output / "state.pt"
        self._processes = args.processes

    def resume(self) -> None:
        if not self._path.exists():
            return
        state = torch.load(self._path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.cpu_seconds = state["step"], state["seconds"]

    def save(self) -> None:
        partial = self._path.with_suffix(".partial")
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "config": self.model.config.to_dict(),
            "step": self.step,
            "seconds": self.cpu_seconds,
            "arguments": self._arguments,
        }
        torch.save(state, partial)
        partial.replace(self._path)

    def advance(self, batch: Batch) -> float:
        """One step of the optimizers; returns the weighted loss before it."""
        started = time.process_time()
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._schedule.rate(self.step)
        loss = loss_of(self.model, *batch)
        loss.backward()
        if self._processes > 1:
            average_gradients(self.model, self._processes)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.cpu_seconds += time.process_time() - started
        return loss.item()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder: state.pt, log.jsonl")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--rhyme-weight", type=float, default=3.0)
    parser.add_argument("--asked-weight", type=float, default=4.0)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.processes = int(os.environ.get("WORLD_SIZE", "1"))
    args.rank = int(os.environ.get("RANK", "0"))
    return args


def main() -> None:
    args = parse_arguments()
    if args.processes > 1:
        torch.distributed.init_process_group("gloo")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer = GPT2TokenizerFast.from_pretrained(args.tokenizer)
    themes = (args.corpus / "themes.txt").read_text(encoding="utf-8").split()
    heldout = poem.read(args.corpus / "heldout.jsonl")
    watched = list(itertools.islice(Corpus(heldout, themes, tokenizer, args).batches(), 8))
    train = [p for p in poem.read(args.corpus / "train.jsonl") for _ in range(copies(p))]
    batches = Corpus(train, themes, tokenizer, args).batches()

    run = Run(new_model(tokenizer, args), args)
    run.resume()
    saved_at = time.monotonic()
    print(f"{run.model.num_parameters()} parameters, from step {run.step}", flush=True)
    begin, end = (step * args.processes + args.rank for step in (run.step, args.steps))
    for batch in itertools.islice(batches, begin, end, args.processes):
        loss = run.advance(batch)
        if args.rank != 0:
            continue
        last = run.step == args.steps
        if run.step % 20 == 0 or last:
            row = {"step": run.step, "cpu_seconds": round(run.cpu_seconds), "loss": round(loss, 4)}
            if run.step % 200 == 0 or last:
                row["heldout"] = round(heldout_loss(run.model, watched), 4)
            with (args.output / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            print(row, flush=True)
        if last or time.monotonic() - saved_at > args.save_seconds:
            run.save()
            saved_at = time.monotonic()


if __name__ == "__main__":
    main()
