"""Measures the published folder and writes evaluation.json and samples.md.

Held-out perplexity; the share of well-formed poems among samples, and whether they have the form,
topic or first line asked for, rhyme and follow the tones; and how far samples repeat the training
set, beside how far held-out poems by people do.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import platform
import random
import re
import statistics
from pathlib import Path

import tokenizers
import torch
import transformers
from transformers import GPT2LMHeadModel, GPT2TokenizerFast

import poem
import prompts
import verse
from corpus import load_rhyme_book
from evaluation_prompts import Request, heldout_requests, newcomer_requests

LONGEST = 28  # characters: half an eight-line poem of seven; longer repeats count as this


class Writer:
    """The model with its tokenizer: scores texts and answers chat messages."""

    def __init__(self, folder: Path):
        self.tokenizer = GPT2TokenizerFast.from_pretrained(folder)
        self.tokenizer.pad_token = prompts.END
        self.model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.end = self.tokenizer.convert_tokens_to_ids(prompts.END)

    @torch.no_grad()
    def answers(
        self, requests: list[Request], seed: int, batch: int = 60
    ) -> list[tuple[str, bool]]:
        """For each message the text, and whether the model ended it."""
        torch.manual_seed(seed)
        found = []
        for start in range(0, len(requests), batch):
            texts = [self._rendered(request) for request in requests[start : start + batch]]
            inputs = self.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
            width = inputs.input_ids.shape[1]
            output = self.model.generate(
                **inputs, do_sample=True, temperature=0.8, top_p=0.9, top_k=0, max_new_tokens=96
            )
            for row in output[:, width:].tolist():
                ended = self.end in row
                ids = row[: row.index(self.end)] if ended else row
                found.append((self.tokenizer.decode(ids), ended))
        return found

    def _rendered(self, request: Request) -> str:
        if request.raw:
            return request.message
        chat = [{"role": "user", "content": request.message}]
        return self.tokenizer.apply_chat_template(chat, tokenize=False)

    @torch.no_grad()
    def scores(self, head: str, text: str) -> list[tuple[str, float]]:
        """Tokens of the text and its end with their negative log likelihoods in nats.

        Without a head the first token is given: in training, too, a row begins with it.
        """
        given = len(self.tokenizer(head).input_ids) or 1
        ids = [*self.tokenizer(head + text).input_ids, self.end]
        logits = self.model(torch.tensor([ids])).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        tokens = [self.tokenizer.decode([i]) for i in ids[given:]]
        return list(zip(tokens, losses[given - 1 :].tolist(), strict=True))


def perplexity(writer: Writer, poems: list[poem.Poem], titled: bool) -> dict:
    scored = [
        score
        for each in poems
        for score in writer.scores(f"{each.title}\n" if titled else "", each.text)
    ]
    total = sum(loss for _, loss in scored)
    characters = sum(len(each.text) for each in poems) - (0 if titled else len(poems))
    han = [loss for token, loss in scored if verse.is_han(token)]
    return {
        "poems": len(poems),
        "tokens": len(scored),
        "per_token": math.exp(total / len(scored)),
        "bits_per_character": total / characters / math.log(2),
        "per_chinese_character": math.exp(sum(han) / len(han)),
    }


def unigram_perplexity(train: list[poem.Poem], heldout: list[poem.Poem]) -> float:
    """What guessing by frequency alone reaches per Chinese character, to compare with."""
    counts = collections.Counter(c for each in train for line in each.lines for c in line)
    total = counts.total()
    characters = [c for each in heldout for line in each.lines for c in line]
    return math.exp(-sum(math.log(max(counts[c], 1) / total) for c in characters) / len(characters))


def mentions(request: Request, text: str) -> dict[str, bool]:
    return {
        "topic_word_present": any(word in text for word in request.topic),
        "topic_character_present": any(c in text for word in request.topic for c in word),
    }


def judge(request: Request, text: str, ended: bool, book: verse.RhymeBook) -> dict:
    """What holds of one sample; a key is absent where the question does not arise."""
    shape = verse.parse(text.removeprefix("\n"))
    if request.raw and not shape.lines:
        shape = verse.parse(request.message + text)
    result: dict[str, float] = {"ended": ended, "well_formed": ended and bool(shape.lines)}
    if request.form:
        result["form_as_asked"] = result["well_formed"] and shape.form.endswith(request.form)
    if request.first_line and not request.raw:
        result["first_line_as_asked"] = text.startswith(f"{request.first_line}，")
    if request.topic:
        result |= mentions(request, text)
    if shape.lines:
        result["rhymes"] = book.rhymes(shape.lines)
        result["tone_rules_kept"] = book.tone_share(shape.lines)
    return result


def shares(judged: list[dict]) -> dict:
    keys = dict.fromkeys(key for result in judged for key in result)
    means = {k: statistics.fmean(r[k] for r in judged if k in r) for k in keys}
    return {"samples": len(judged), **means}


def sampled(
    writer: Writer, kinds: dict[str, list[Request]], book: verse.RhymeBook, seed: int
) -> tuple[dict, list[tuple[str, ...]]]:
    """Samples one answer to each request: the shares by kind, and the lines of every answer."""
    judged: dict[str, list[dict]] = {}
    by_chance: list[dict] = []
    lines = []
    for kind, requests in kinds.items():
        answers = writer.answers(requests, seed)
        for request, (text, ended) in zip(requests, answers, strict=True):
            judged.setdefault(kind, []).append(judge(request, text, ended, book))
            written = tuple(re.findall(r"[\u4e00-\u9fff]{5,}", text))
            # A first line that the prompt gave is not the model's.
            lines.append(written[1:] if request.first_line and not request.raw else written)
        if requests[0].topic:
            # Each text against the topic of another request: what no attention to the topic gives.
            others = [*requests[1:], requests[0]]
            by_chance += [mentions(o, text) for o, (text, _) in zip(others, answers, strict=True)]
    report = {
        "all": shares([result for results in judged.values() for result in results]),
        **{kind: shares(results) for kind, results in judged.items()},
        "topic_of_another_request": shares(by_chance),
    }
    return report, lines


def repeats(texts: list[tuple[str, ...]], train: list[poem.Poem]) -> dict:
    """How texts repeat the training set: whole lines, and the longest run of characters."""
    known = {line for each in train for line in each.lines}
    lines = [line for text in texts for line in text]
    joined = ["".join(text) for text in texts]
    wanted = {
        text[start : start + length]
        for text in joined
        for start in range(len(text))
        for length in range(1, min(LONGEST, len(text) - start) + 1)
    }
    found = set()
    for each in train:
        text = "".join(each.lines)
        for start in range(len(text)):
            length = 1
            while (
                length <= min(LONGEST, len(text) - start) and text[start : start + length] in wanted
            ):
                found.add(text[start : start + length])
                length += 1
    longest = sorted(
        max(
            length
            for start in range(len(text))
            for length in range(0, min(LONGEST, len(text) - start) + 1)
            if length == 0 or text[start : start + length] in found
        )
        for text in joined
    )
    return {
        "texts": len(texts),
        "lines": len(lines),
        "lines_verbatim_in_training": sum(line in known for line in lines) / len(lines),
        "longest_run_median": statistics.median(longest),
        "longest_run_95_percent": longest[int(0.95 * len(longest))],
        "longest_run_max": longest[-1],
    }


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def write_samples(path: Path, requests: list[Request], answers: list[tuple[str, bool]]) -> None:
    blocks = [
        f"**{r.message}**\n\n```text\n{text}\n```\n"
        for r, (text, _) in zip(requests, answers, strict=True)
    ]
    path.write_text("\n".join(blocks), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument(
        "--output", type=Path, required=True, help="evaluation.json, samples.md beside it"
    )
    parser.add_argument("--per-kind", type=int, default=150, help="samples of each kind of prompt")
    parser.add_argument("--poems", type=int, default=1000, help="held-out poems for the perplexity")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2026)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    writer = Writer(args.model)
    book = load_rhyme_book(args.corpus)
    train = poem.read(args.corpus / "train.jsonl")
    heldout = poem.read(args.corpus / "heldout.jsonl")
    themes = (args.corpus / "themes.txt").read_text(encoding="utf-8").split()
    draw = random.Random(args.seed)
    scored = draw.sample(heldout, min(args.poems, len(heldout)))

    kinds = heldout_requests(heldout, themes, args.per_kind, draw)
    samples, generated = sampled(writer, kinds, book, args.seed)
    real = [each.lines for each in draw.sample(heldout, len(generated))]
    report = {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "sampling": {"temperature": 0.8, "top_p": 0.9, "seed": args.seed},
        "heldout_perplexity": {
            "poem_alone": perplexity(writer, scored, titled=False),
            "after_its_title": perplexity(writer, [p for p in scored if p.title], titled=True),
            "unigram_per_chinese_character": unigram_perplexity(train, scored),
        },
        "samples": samples,
        "repeats": {"generated": repeats(generated, train), "heldout_poems": repeats(real, train)},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rounded(report), ensure_ascii=False, indent=2)
    args.output.write_text(f"{text}\n", encoding="utf-8")
    print(text)
    newcomers = newcomer_requests()
    write_samples(args.output.with_name("samples.md"), newcomers, writer.answers(newcomers, seed=0))


if __name__ == "__main__":
    main()
