"""Model repositories for servers."""

import json
import os
import shutil

import numpy as np
from calls import POET
from contract import ROOT

MODELS = ROOT / "models"
GOLDENS = ROOT / "tests/goldens"
WEIGHTS = "model.safetensors"
# The tiny random ones of tests/goldens/reranker, and their classes.
RERANKERS = {
    "chinese_clip": "ChineseCLIPModel",
    "chinese_clip_gelu": "ChineseCLIPModel",
    "taiyi": "TaiyiCLIPModel",
    "taiyi_roberta": "BertForSequenceClassification",
}


def link_models(folder, **models):
    """A repository of links: name -> checkpoint; underscores in names become dashes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in models.items():
        (folder / name.replace("_", "-")).symlink_to(target, target_is_directory=True)
    return folder


def with_reranker(folder, pipeline, reranker, class_name):
    """The folder of a pipeline with the folder of a reranker beside its parts."""
    folder.mkdir(parents=True)
    for part in pipeline.iterdir():
        if part.is_dir():
            (folder / part.name).symlink_to(part)
    index = json.loads((pipeline / "model_index.json").read_text())
    index["reranker"] = ["transformers", class_name]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "reranker").symlink_to(reranker)
    return folder


def write_poet(folder, other=False):
    """wenzhong-gpt2-tiny, or another model of its shape: whose tokens stand for other ones."""
    folder.mkdir(parents=True)
    for file in (MODELS / POET).iterdir():
        if file.name != WEIGHTS:
            shutil.copy(file, folder)
    replace_weights(folder, other)


def replace_weights(folder, other=False):
    """As a rename, so that nobody reads half a file."""
    data = bytearray((MODELS / POET / WEIGHTS).read_bytes())
    if other:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        (name,) = (name for name in header if name.endswith("wte.weight"))
        begin, end = (start + offset for offset in header[name]["data_offsets"])
        rows = np.frombuffer(data[begin:end], np.uint16).reshape(header[name]["shape"])
        data[begin:end] = np.roll(rows, 5, axis=0).tobytes()
    new = folder / (WEIGHTS + ".new")
    new.write_bytes(data)
    os.replace(new, folder / WEIGHTS)


def write_deep_poet(folder, layers):
    """One whose reading takes a while: the first layer of wenzhong-gpt2-tiny again and again."""
    write_poet(folder)
    config = json.loads((folder / "config.json").read_text()) | {"n_layer": layers}
    (folder / "config.json").write_text(json.dumps(config))
    data = (folder / WEIGHTS).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header, parts, size = {}, [], 0

    def add(name, tensor):
        nonlocal size
        begin, end = tensor["data_offsets"]
        parts.append(data[start + begin : start + end])
        header[name] = tensor | {"data_offsets": [size, size + end - begin]}
        size += end - begin

    for name, tensor in json.loads(data[8:start]).items():
        if name.startswith("transformer.h.0."):
            for layer in range(layers):
                add(name.replace(".0.", f".{layer}.", 1), tensor)
        elif not name.startswith(("transformer.h.", "__")):
            add(name, tensor)
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
