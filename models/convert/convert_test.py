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


def as_paddle(tensors):
    """The tensors under Paddle's names and the other way around, by the rules read backwards."""
    found = {}
    for rule in json.loads((HERE / "maps/ernie_vilg.json").read_text())["rules"]:
        if rule.get("drop") or "split" in rule:
            continue
        for name, tensor in tensors.items():
            pattern = rules._pattern(rule["to"])
            match = pattern.fullmatch(name)
            if match:
                old = rule["from"].format(**match.groupdict())
                found[old] = tensor.T if rule.get("transpose") else tensor
    return found


@pytest.fixture
def expected():
    random = numpy.random.default_rng(1)
    shapes = layouts.expected_tensors(CONFIG)
    return {name: random.standard_normal(shape, numpy.float32) for name, shape in shapes.items()}


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
    assert "1 dropped by the map" in output


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
    assert written["image_head.bias"].dtype == numpy.float16


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
        rules.apply(rules.read(path), {"a": numpy.zeros(1), "b": numpy.zeros(1)})


def test_a_config_of_no_layout_is_named(run, expected):
    status, output = run(as_paddle(expected), config={"model_type": "gpt2"})
    assert status == 2
    assert "model_type: 'gpt2'" in output
    status, output = run(as_paddle(expected), config={"model_type": "ernie_vilg"})
    assert status == 2
    assert "hidden_size: absent" in output
