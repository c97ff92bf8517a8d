"""Tests of the training batches and of the prompts that they are made of."""

import argparse
import dataclasses
import itertools
import json
import pathlib

import jinja2
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import GPT2TokenizerFast

import poem
import prompts
import train
import verse

POEMS = [
    poem.Poem("春晓", "孟浩然", "tang", ("春眠不觉晓", "处处闻啼鸟", "夜来风雨声", "花落知多少")),
    poem.Poem("", "王之涣", "tang", ("白日依山尽", "黄河入海流", "欲穷千里目", "更上一层楼")),
    poem.Poem("吴门", "某", "song", ("一叶轻舟去", "千山落日低", "故人何处是", "春草绿萋萋")),
]
THEMES = ["风雨", "千里", "轻舟"]


@pytest.fixture(name="tokenizer", scope="module")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> GPT2TokenizerFast:
    """One token a byte: enough to follow a text through packing."""
    folder = tmp_path_factory.mktemp("tokenizer")
    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), prompts.END]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return GPT2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))


def first_batches(tokenizer: GPT2TokenizerFast, count: int, seed: int = 0) -> list[train.Batch]:
    args = argparse.Namespace(batch_tokens=512, seed=seed, rhyme_weight=3.0, asked_weight=4.0)
    corpus = train.Corpus(POEMS, THEMES, tokenizer, args)
    return list(itertools.islice(corpus.batches(), count))


def test_rows_hold_whole_texts_and_predict_every_poem(tokenizer: GPT2TokenizerFast) -> None:
    end = tokenizer.convert_tokens_to_ids(prompts.END)
    for ids, targets, weights in first_batches(tokenizer, 8):
        assert ids.shape == targets.shape == weights.shape
        predicted = targets != train.IGNORED
        assert torch.equal(ids[predicted], targets[predicted])
        for row, wanted in zip(ids, predicted, strict=True):
            length = int(torch.nonzero(wanted).max()) + 1
            for text in tokenizer.decode(row[:length]).removesuffix(prompts.END).split(prompts.END):
                written = text if verse.parse(text).lines else text.split("\n", 1)[1]
                assert written in {each.text for each in POEMS}
            assert int(row[length - 1]) == end


def flat(batches: list[train.Batch]) -> list[torch.Tensor]:
    return list(itertools.chain.from_iterable(batches))


def test_the_same_seed_gives_the_same_batches(tokenizer: GPT2TokenizerFast) -> None:
    one, again, other = (first_batches(tokenizer, 4, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(flat(one), flat(again), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))


def test_prompts_are_of_every_kind_and_belong_to_their_poem() -> None:
    writer = prompts.PromptWriter(THEMES, seed=3)
    written = [writer.write(POEMS[0]) for _ in range(300)]
    assert {None, "春晓", "风雨", "春眠不觉晓", "五绝：春晓"} <= set(written)
    assert all(
        "五" in text or "诗" in text or "绝句" in text for text in written if text and len(text) > 8
    )
    assert not any("七" in text or "律" in text for text in written if text)


def test_the_chat_template_renders_training_prompts() -> None:
    template = jinja2.Environment().from_string(prompts.CHAT_TEMPLATE)
    asked = {"role": "user", "content": " 春晓\n"}
    answer = {"role": "assistant", "content": POEMS[0].text}
    assert template.render(messages=[asked]) == "春晓\n"
    expected = f"春晓\n{POEMS[0].text}{prompts.END}春晓\n"
    assert template.render(messages=[asked, answer, asked]) == expected


def test_learning_rate_rises_stays_and_falls_to_zero() -> None:
    schedule = train.Schedule(steps=900, warmup=100, peak=0.01)
    rates = [schedule.rate(step) for step in range(900)]
    assert rates[0] == pytest.approx(0.0001)
    assert rates[100:600] == [0.01] * 500
    assert rates[-1] == pytest.approx(0.01 / 300)
    assert all(a > b for a, b in itertools.pairwise(rates[600:]))


def test_a_resumed_run_goes_on_as_if_never_stopped(
    tokenizer: GPT2TokenizerFast, tmp_path: pathlib.Path
) -> None:
    args = argparse.Namespace(
        steps=6, learning_rate=0.003, width=32, layers=1, output=tmp_path, seed=0, processes=1
    )
    batches = first_batches(tokenizer, 4)

    def new_run() -> train.Run:
        torch.manual_seed(args.seed)
        return train.Run(train.new_model(tokenizer, args), args)

    whole = new_run()
    losses = [whole.advance(batch) for batch in batches]
    stopped = new_run()
    assert [stopped.advance(batch) for batch in batches[:2]] == losses[:2]
    stopped.save()
    resumed = new_run()
    resumed.resume()
    assert resumed.step == 2
    assert [resumed.advance(batch) for batch in batches[2:]] == losses[2:]


def test_weights_make_a_target_count_more(tokenizer: GPT2TokenizerFast) -> None:
    args = argparse.Namespace(width=32, layers=1)
    torch.manual_seed(0)
    model = train.new_model(tokenizer, args)
    ids = torch.tensor([[1, 2, 3, 9, 4]])
    one_by_one = [
        train.loss_of(model, ids, torch.where(torch.arange(5) == place, ids, train.IGNORED))
        for place in range(1, 5)
    ]
    plain = train.loss_of(model, ids, ids)
    weighted = train.loss_of(model, ids, ids, torch.tensor([[1.0, 1.0, 3.0, 1.0, 1.0]]))
    assert plain.item() == pytest.approx(sum(one_by_one).item() / 4)
    assert weighted.item() == pytest.approx((sum(one_by_one) + 2 * one_by_one[1]).item() / 6)


def test_the_rhyme_and_what_is_asked_weigh_more(tokenizer: GPT2TokenizerFast) -> None:
    args = argparse.Namespace(batch_tokens=512, seed=0, rhyme_weight=3.0, asked_weight=4.0)
    corpus = train.Corpus(POEMS, THEMES, tokenizer, args)
    rhyme = len(tokenizer("春眠不觉晓，处处闻啼鸟。").input_ids) - 2
    alone = corpus._text(None, POEMS[0])
    assert next(place for place, w in enumerate(alone.weights) if w != 1) == rhyme
    assert set(alone.weights) == {1.0, 3.0}
    prompted = corpus._text("x", dataclasses.replace(POEMS[0], lines=("xxxxx",) * 4))
    assert prompted.given == 1
    assert prompted.weights.count(4.0) == 1 + 20
    assert prompted.weights[1] == 1.0
