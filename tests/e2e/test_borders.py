"""What may include what, and what is linked to what."""

import re
import subprocess

import pytest
from contract import ROOT
from hanmo_server import BIN

SOURCES = ("*.h", "*.cc", "*.cpp", "*.hpp")
CODE = ("server", "workers", "client", "bridge", "bench")


def includes(folder):
    """(file, included path) of every include below a folder."""
    for pattern in SOURCES:
        for path in sorted((ROOT / folder).rglob(pattern)):
            for name in re.findall(
                r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE
            ):
                yield path.relative_to(ROOT), name


def offenders(folder, pattern, but=()):
    return [
        f"{path} includes {name}"
        for path, name in includes(folder)
        if re.search(pattern, name) and not any(str(path).startswith(b) for b in but)
    ]


def test_torch_is_only_below_workers():
    torch = r"^(torch|ATen|c10|caffe2)/"
    for folder in ("server", "client", "bridge"):
        assert not offenders(folder, torch)
    assert not [o for folder in CODE for o in offenders(folder, r"^torch/torch\.h$")]
    assert offenders("workers", torch)  # the pattern finds what it looks for


def test_the_batcher_knows_no_socket_and_no_protocol():
    foreign = r"^(grpc|google/protobuf|spdlog|prometheus|torch|ATen|c10)|\.pb\.h$"
    assert not offenders("server/batcher", foreign)
    assert offenders("server/rpc", foreign)


@pytest.mark.parametrize("part", ["nn", "kernels", "models", "samplers", "checkpoint"])
def test_the_models_know_no_protocol(part):
    assert (ROOT / "workers" / part).is_dir()
    assert not offenders(f"workers/{part}", r"^(grpc|google/protobuf|spdlog)|\.pb\.h$")


def test_server_and_workers_meet_in_the_contract_only():
    assert not offenders("server", r"^workers/")
    # The workers take the words of a step from the batcher, the wire from the link, and guides with
    # their tokenizer from the texts.
    foreign = r"^server/(?!(batcher|worker_link|text)/)"
    assert not offenders("workers", foreign)
    assert not offenders("client", r"^(server|workers)/")


def needed(program):
    text = subprocess.run(
        ["readelf", "-d", BIN / program], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", text)


def loaded(program):
    """Everything the dynamic linker would load."""
    return subprocess.run(["ldd", BIN / program], capture_output=True, text=True, check=True).stdout


def test_only_the_worker_links_libtorch():
    torch = re.compile(r"libtorch|libc10|libcuda")
    for program in ("hanmo-server", "hanmo"):
        if (BIN / program).exists():
            assert not [name for name in needed(program) if torch.search(name)]
            assert not torch.search(loaded(program))
    assert any("torch_cpu" in name for name in needed("hanmo-worker"))
    # The same worker runs where no GPU is.
    assert not [name for name in needed("hanmo-worker") if "cuda" in name]
