"""Writes the seed inputs of the two fuzzers: small valid files, and pickles (with a final 'p')."""

import collections
import io
import pathlib
import pickle
import zipfile

import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent


def archive(value: object, protocol: int = 2) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, pickle_protocol=protocol)
    return out.getvalue()


def main() -> None:
    tensors = {
        "a": torch.zeros(2, 3),
        "b.weight": torch.ones(4, dtype=torch.bfloat16),
        "c": torch.zeros((), dtype=torch.int64),
        "empty": torch.zeros(0, 5),
    }
    states = {
        "dict": tensors,
        "ordered": collections.OrderedDict(tensors),
        "nested": {"epoch": 3, "lr": 0.5, "state_dict": tensors, "names": ["x", None, True]},
        "strided": {"t": torch.zeros(3, 4, dtype=torch.half).t(), "u": torch.zeros(9)[3:7]},
        "parameter": {"p": torch.nn.Parameter(torch.zeros(2))},
        "module": torch.nn.Linear(2, 2).state_dict(),
    }
    folder = HERE / "torch_archive"
    for name, state in states.items():
        for protocol in (2, 4):
            data = archive(state, protocol)
            (folder / f"{name}_{protocol}").write_bytes(data)
            with zipfile.ZipFile(io.BytesIO(data)) as opened:
                inner = next(n for n in opened.namelist() if n.endswith("data.pkl"))
                (folder / f"{name}_{protocol}_pickle").write_bytes(opened.read(inner) + b"p")
    (folder / "plain_pickle").write_bytes(pickle.dumps({"k": (1, 2**40, "é")}, 5) + b"p")
    folder = HERE / "safetensors"
    (folder / "all").write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))
    (folder / "one").write_bytes(safetensors.torch.save({"w": torch.zeros(1)}))
    (folder / "none").write_bytes(safetensors.torch.save({}))


if __name__ == "__main__":
    main()
