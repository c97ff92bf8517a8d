"""Checks of network and sampling (with torch and diffusers): python -m pytest network_test.py"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "landscape")]

import torch  # noqa: E402

import grammar  # noqa: E402
import publish  # noqa: E402
import sampling  # noqa: E402
import train_transformer  # noqa: E402
import training  # noqa: E402
from network import Config, Network  # noqa: E402
from wording import BOI, BOT, VOCABULARY, source_ids  # noqa: E402

SCENES = grammar.all_scenes()
PROMPTS = ["两座青山，明月", "一座金山，右边有松树，小舟，飞鸟，秋天", "三座墨山"]


def random_network():
    torch.manual_seed(3)
    network = Network(
        Config(
            len(VOCABULARY), 40, BOI, BOT, hidden_size=32, num_hidden_layers=4, intermediate_size=48
        )
    )
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return network.eval()


def test_training_and_sampling_paint_with_the_same_shares():
    """Line-wise attention over whole pictures against masked attention over a cache, token by token."""
    network = random_network()
    codes = sampling.paint(network, PROMPTS, [1, 2, 3])
    assert (codes == sampling.paint(network, PROMPTS, [1, 2, 3])).all()
    greedy = sampling.paint(network, PROMPTS, [1, 2, 3], temperature=0)
    for prompt, code in zip(PROMPTS, greedy):
        source = source_ids(prompt)
        ids = torch.tensor([[*source, BOI, 0, 0]])  # padding changes nothing
        with torch.no_grad():
            logits = network.paint(ids, torch.tensor([len(source)]), code[None])
        assert (logits.argmax(-1)[0] == code).float().mean() > 0.99


def test_training_and_sampling_describe_with_the_same_shares():
    network = random_network()
    codes = torch.randint(0, 40, (2, 256))
    for code, words in zip(codes, sampling.write(network, codes)):
        assert len(words) > 1
        with torch.no_grad():
            logits = network.describe(code[None], torch.tensor([[BOT, *words[:-1]]]))
        assert logits.argmax(-1)[0].tolist() == words


def test_a_painted_token_depends_on_source_and_earlier_tokens_alone():
    network = random_network()
    rng = torch.Generator().manual_seed(5)
    codes = torch.randint(0, 40, (1, 256), generator=rng)
    other = codes.clone()
    other[:, 100:] = torch.randint(0, 40, (1, 156), generator=rng)
    source = source_ids(PROMPTS[0])
    ids, length = torch.tensor([[*source, BOI]]), torch.tensor([len(source)])
    with torch.no_grad():
        one, two = (network.paint(ids, length, c) for c in (codes, other))
    assert torch.equal(one[:, :101], two[:, :101])
    assert not torch.equal(one[:, 101], two[:, 101])


def test_mirrored_draws_exchange_the_sides():
    scenes = [s for s in SCENES if s.tree != "none"][:50]
    tokens = torch.stack([torch.zeros(50, 256), torch.ones(50, 256)]).short()
    draws = train_transformer.Draws(scenes, tokens, "test")
    for scene, code in draws._picks(200):
        assert code[0].item() in (0, 1)
        assert (scene in scenes) == (code[0].item() == 0) or scene.mirrored() in scenes


def test_the_minutes_of_a_training_do_not_pass_while_it_is_stopped(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(training.time, "time", lambda: now)
    run = training.Run(tmp_path, "transformer", [], None, None)
    for passed in (1, 2, 1800, 1):  # seconds
        now += passed
        run.done(None, minutes=10)
    assert run.elapsed() == 1 + 2 + training.LONGEST_STEP + 1


def test_publishing_without_a_reranker_takes_the_old_one_away(tmp_path):
    (tmp_path / "reranker").mkdir()
    (tmp_path / "reranker/config.json").write_text("{}")
    (tmp_path / "samples.png").write_text("kept")
    for names, left in (
        (["vqvae", "reranker"], {"reranker", "samples.png", "vqvae"}),
        (["vqvae"], {"samples.png", "vqvae"}),
    ):
        for name in names:
            (tmp_path / ".part" / name).mkdir(parents=True)
        publish.install(tmp_path / ".part", tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == left
