"""python -m pytest convert_test.py"""

import io
import json
import pathlib
import pickle

import ml_dtypes
import numpy
import pytest
import safetensors.numpy

import convert
import layouts
import rules
import sources

HERE = pathlib.Path(__file__).parent
CONFIG = {
    "model_type": "ernie_vilg",
    "text_vocab_size": 11,
    "image_vocab_size": 7,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "norm_position": "pre",
    "max_text_length": 5,
    "image_grid": [2, 3],
}


def as_published(tensors, map_file, config=CONFIG):
    """The tensors under the other names and the other way around, by the rules read backwards."""
    found, taken = {}, set()
    for rule in json.loads(map_file.read_text())["rules"]:
        if rule.get("drop") or "split" in rule:
            continue
        for name, tensor in tensors.items():
            match = rules._pattern(rule["to"]).fullmatch(name)
            if not match or name in taken:
                continue
            words = match.groupdict()
            if "mirror" in rule:
                words["n"] = str(len(config[rule["mirror"]]) - 1 - int(words["n"]))
            if rule.get("squeeze"):
                tensor = tensor[:, :, None, None]
            taken.add(name)
            found[rule["from"].format(**words)] = tensor.T if rule.get("transpose") else tensor
    return found


def as_paddle(tensors):
    return as_published(tensors, HERE / "maps/ernie_vilg.json")


def random_tensors(config):
    random = numpy.random.default_rng(1)
    shapes = layouts.expected_tensors(config)
    return {name: random.standard_normal(shape, numpy.float32) for name, shape in shapes.items()}


@pytest.fixture
def expected():
    return random_tensors(CONFIG)


@pytest.fixture
def written(tmp_path):
    return lambda: safetensors.numpy.load_file(tmp_path / "out/model.safetensors")


@pytest.fixture
def run(tmp_path, capsys):
    def run(state, *options, config=CONFIG, map_file=HERE / "maps/ernie_vilg.json"):
        (tmp_path / "weights.pdparams").write_bytes(pickle.dumps(state, protocol=2))
        (tmp_path / "config.json").write_text(json.dumps(config))
        status = convert.main(
            [
                f"--map={map_file}",
                f"--config={tmp_path / 'config.json'}",
                f"--to={tmp_path / 'out'}",
                str(tmp_path / "weights.pdparams"),
                *options,
            ]
        )
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


def test_paddle_becomes_ours(run, expected, tmp_path):
    state = as_paddle(expected)
    assert len(state) == len(expected)
    # Paddle's own entry, and parameters as pairs of name and array.
    state["StructuredToParameterName@@"] = {"a": "b"}
    state["cls.predictions.decoder_bias"] = ("bias_0", state["cls.predictions.decoder_bias"])
    state["ernie.pooler.dense.weight"] = numpy.zeros((8, 8), numpy.float32)
    status, output = run(state, "--dtype=float32")
    assert status == 0, output
    written = safetensors.numpy.load_file(tmp_path / "out/model.safetensors")
    assert written.keys() == expected.keys()
    for name, tensor in expected.items():
        assert numpy.array_equal(written[name], tensor), name
    assert json.loads((tmp_path / "out/config.json").read_text()) == CONFIG
    assert "dropped: ernie.pooler.dense.weight: for sentences as a whole" in output


def test_fused_attention_is_split(run, expected, tmp_path):
    state = as_paddle(expected)
    for layer in range(2):
        at = f"ernie.encoder.layers.{layer}.self_attn"
        for part, axis in (("weight", 1), ("bias", 0)):
            pieces = [state.pop(f"{at}.{one}_proj.{part}") for one in "qkv"]
            state[f"{at}.qkv_proj.{part}"] = numpy.concatenate(pieces, axis)
    status, output = run(state, "--dtype=float32")
    assert status == 0, output
    written = safetensors.numpy.load_file(tmp_path / "out/model.safetensors")
    for name, tensor in expected.items():
        assert numpy.array_equal(written[name], tensor), name


def test_bfloat16_is_read_from_its_bits(run, expected, tmp_path):
    state = {
        name: tensor.astype(ml_dtypes.bfloat16).view(numpy.uint16)
        for name, tensor in as_paddle(expected).items()
    }
    status, output = run(state, "--dtype=float32")
    assert status == 0, output
    written = safetensors.numpy.load_file(tmp_path / "out/model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    rounded = expected[name].astype(ml_dtypes.bfloat16).astype(numpy.float32)
    assert numpy.array_equal(written[name], rounded)


def test_a_dry_run_reports_and_writes_nothing(run, expected, tmp_path):
    state = as_paddle(expected)
    del state["ernie.encoder.layers.1.linear1.bias"]
    state["image_head.bias"] = numpy.zeros(6, numpy.float32)
    state["ernie.encoder.layers.2.norm1.weight"] = numpy.zeros(8, numpy.float32)
    state["discriminator.weight"] = numpy.zeros((2, 2), numpy.float32)
    status, output = run(state, "--dry-run")
    assert status == 1
    assert "missing: encoder.layer.1.intermediate.dense.bias [12]" in output
    assert "shape: image_head.bias is [6] (from image_head.bias), [7] expected" in output
    assert "unexpected: discriminator.weight [2, 2]" in output
    assert "encoder.layer.2.attention.output.LayerNorm.weight" in output
    assert not (tmp_path / "out").exists()


def test_unexpected_tensors_are_left_out_when_allowed(run, expected, tmp_path):
    state = as_paddle(expected) | {"discriminator.weight": numpy.zeros(2, numpy.float32)}
    assert run(state)[0] == 1
    assert not (tmp_path / "out").exists()
    status, output = run(state, "--allow-unexpected")
    assert status == 0, output
    written = safetensors.numpy.load_file(tmp_path / "out/model.safetensors")
    assert written.keys() == expected.keys()
    assert "dropped: cls" not in output


class Harmful:
    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path("touched"),))


def test_a_pickle_runs_nothing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, output = run({"weight": Harmful()})
    assert status == 2
    assert "only numpy arrays are read" in output
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("damage", [b"", b"\x80\x02.", b"\x80\x02}q\x00(X\x01\x00\x00\x00a"])
def test_broken_pickles_are_errors(tmp_path, damage):
    path = tmp_path / "weights.pdparams"
    path.write_bytes(damage)
    with pytest.raises(ValueError, match="weights.pdparams"):
        sources.read_paddle(path)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"from": "a", "to": "b", "turn": 1}, "turn"),
        ({"from": "a"}, "either to or drop"),
        ({"to": "b"}, "from: a name"),
        ({"from": "a", "to": ["b", "c"]}, "split"),
        ({"from": "a.{n}", "to": "b.{m}"}, "words that from lacks"),
        ({"from": "a.{m}", "to": "b.{m}", "mirror": "channels"}, "mirror"),
    ],
)
def test_rules_say_what_is_wrong(tmp_path, rule, message):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"rules": [rule]}))
    with pytest.raises(ValueError, match=message):
        rules.read(path)


def test_two_tensors_of_one_name_are_an_error():
    path = io.StringIO(json.dumps({"rules": [{"from": "{x}", "to": "same"}]}))
    path.read_text = path.read
    with pytest.raises(ValueError, match="comes from"):
        rules.apply(rules.read(path), {"a": numpy.zeros(1), "b": numpy.zeros(1)}, {})


def test_a_config_of_no_layout_is_named(run, expected):
    status, output = run(as_paddle(expected), config={"model_type": "gpt2"})
    assert status == 2
    assert "model_type: 'gpt2'" in output
    status, output = run(as_paddle(expected), config={"model_type": "ernie_vilg"})
    assert status == 2
    assert "hidden_size: absent" in output


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert numpy.array_equal(found[name], tensor), name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("norm_position", ["pre", "post", "sandwich"])
def test_every_shape_of_the_layout_has_rules(run, written, norm_position, tied):
    config = CONFIG | {"norm_position": norm_position, "tie_word_embeddings": tied}
    wanted = random_tensors(config)
    assert ("lm_head.decoder.weight" in wanted) == (not tied)
    state = as_paddle(wanted)
    if tied:  # PaddleNLP's files have the matrix twice
        state["cls.predictions.decoder_weight"] = wanted["embeddings.word_embeddings.weight"]
    status, output = run(state, config=config)
    assert status == 0, output
    same(written(), wanted)
    reason = (
        "dropped: cls.predictions.decoder_weight: tied: it is embeddings.word_embeddings.weight"
    )
    assert (reason in output) == tied


def test_a_head_that_is_not_tied_is_a_fault_of_the_config(run, expected):
    state = as_paddle(expected)
    state["cls.predictions.decoder_weight"] = expected["embeddings.word_embeddings.weight"] + 1
    status, output = run(state)
    assert status == 1
    assert "tie_word_embeddings must be false" in output


BERT = {
    "model_type": "ernie",
    "vocab_size": 9,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "intermediate_size": 12,
    "max_position_embeddings": 6,
    "type_vocab_size": 4,
}
TASKS = "embeddings.task_type_embeddings.weight"


def test_the_tasks_of_ernie_are_kept(run, written):
    config = BERT | {"use_task_id": True, "task_type_vocab_size": 5}
    wanted = random_tensors(config)
    assert wanted[TASKS].shape == (5, 8)
    map_file = HERE / "maps/ernie_text_encoder.json"
    state = as_published(wanted, map_file)
    status, output = run(state, config=config, map_file=map_file)
    assert status == 0, output
    same(written(), wanted)
    status, output = run(state, config=BERT, map_file=map_file)
    assert status == 1 and f"{TASKS} (from ernie.{TASKS}) is not in this layout" in output
    del state[f"ernie.{TASKS}"]
    status, output = run(state, config=config, map_file=map_file)
    assert status == 1 and f"missing: {TASKS} [5, 8]" in output
    status, output = run(state, config=config | {"model_type": "bert"}, map_file=map_file)
    assert status == 2 and "use_task_id" in output


def test_types_are_kept_unless_told_otherwise(run, expected, written):
    state = as_paddle(expected)
    state["image_head.bias"] = expected["image_head.bias"].astype(numpy.float16)
    assert run(state)[0] == 0
    assert written()["image_head.bias"].dtype == numpy.float16
    assert written()["image_head.weight"].dtype == numpy.float32
    assert run(state, "--dtype=bfloat16")[0] == 0
    assert {tensor.dtype for tensor in written().values()} == {numpy.dtype(ml_dtypes.bfloat16)}
    state["image_head.bias"] = expected["image_head.bias"].astype(numpy.float64)
    status, output = run(state)
    assert status == 1 and "type: image_head.bias is float64" in output
    assert run(state, "--dtype=float32")[0] == 0


def test_what_a_type_cannot_hold_is_a_fault(run, expected, tmp_path):
    state = as_paddle(expected)
    state["image_head.bias"] = numpy.full(7, -70000, numpy.float32)
    for options in (["--dtype=float16"], ["--dtype=float16", "--dry-run"]):
        status, output = run(state, *options)
        assert status == 1
        assert "image_head.bias (from image_head.bias) as float16, its largest value" in output
    assert not (tmp_path / "out").exists()
    assert run(state)[0] == 0
    state["image_head.bias"] = numpy.full(7, numpy.nan, numpy.float32)
    status, output = run(state)
    assert status == 1 and "not finite: image_head.bias" in output


VQ = {
    "_class_name": "VQModel",
    "block_out_channels": [32, 64, 96],
    "layers_per_block": 2,
    "latent_channels": 8,
    "vq_embed_dim": 4,
    "num_vq_embeddings": 16,
    "down_block_types": ["DownEncoderBlock2D"] * 2 + ["AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 2,
}
TAMING = HERE / "maps/taming_vqgan.json"


def test_a_vqgan_becomes_diffusers_model(run, written):
    wanted = random_tensors(VQ)
    state = as_published(wanted, TAMING, VQ)
    # Levels of the decoder count from the picture upwards there: its last has the most channels.
    assert state["decoder.up.2.block.0.conv1.weight"].shape == (96, 96, 3, 3)
    assert state["decoder.up.0.block.0.nin_shortcut.weight"].shape == (32, 64, 1, 1)
    assert state["encoder.mid.attn_1.q.weight"].shape == (96, 96, 1, 1)
    assert "encoder.down.1.downsample.conv.weight" in state
    assert state["encoder.down.2.attn.1.q.weight"].shape == (96, 96, 1, 1)
    assert state["decoder.up.2.attn.2.proj_out.weight"].shape == (96, 96, 1, 1)
    state["loss.discriminator.main.0.weight"] = numpy.zeros(3, numpy.float32)
    status, output = run(state, config=VQ, map_file=TAMING)
    assert status == 0, output
    assert "dropped: loss.discriminator.main.0.weight: of the training" in output
    same(written(), wanted)
    state["encoder.down.1.attn.0.q.weight"] = numpy.zeros((96, 96, 1, 1), numpy.float32)
    status, output = run(state, config=VQ, map_file=TAMING)
    assert status == 1 and "unexpected: encoder.down_blocks.1.attentions.0.to_q.weight" in output


def test_what_hanmo_does_not_serve_is_no_layout(run):
    config = VQ | {"down_block_types": ["SkipDownBlock2D"] * 3}
    status, output = run({}, config=config, map_file=TAMING)
    assert status == 2 and "SkipDownBlock2D is not served" in output


def test_a_vqgan_has_the_tensors_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    for changes in ({}, {"mid_block_add_attention": False, "vq_embed_dim": None}):
        config = VQ | changes
        model = diffusers.VQModel(**{k: v for k, v in config.items() if k[0] != "_"})
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        assert layouts.expected_tensors(config) == shapes


ERNIE_4_5 = {
    "model_type": "ernie4_5",
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.mark.parametrize("changes", [{}, {"use_bias": True, "tie_word_embeddings": False}])
def test_ernie_4_5_of_paddle_becomes_transformers_model(run, written, changes):
    config, map_file = ERNIE_4_5 | changes, HERE / "maps/ernie4_5_paddle.json"
    wanted = random_tensors(config)
    state = as_published(wanted, map_file)
    assert state["ernie.layers.1.self_attn.k_proj.weight"].shape == (16, 16)
    assert state["ernie.layers.1.mlp.up_proj.weight"].shape == (16, 24)
    if not changes:
        state["lm_head.weight"] = wanted["model.embed_tokens.weight"]
    status, output = run(state, config=config, map_file=map_file)
    assert status == 0, output
    same(written(), wanted)


@pytest.mark.parametrize("changes", [{}, {"use_bias": True, "tie_word_embeddings": False}])
def test_ernie_4_5_has_the_tensors_of_transformers(changes):
    transformers = pytest.importorskip("transformers")
    config = ERNIE_4_5 | changes
    model = transformers.Ernie4_5ForCausalLM(transformers.Ernie4_5Config(**config))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if not changes:
        del shapes["lm_head.weight"]
    assert layouts.expected_tensors(config) == shapes
