"""The wheel of the Python client runs the examples of its README with the oldest and the newest
libraries."""

import os
import re
import shutil
import subprocess
import sys

import grpc
import pytest
from contract import ROOT
from hanmo_server import clean_environment
from observe import PATIENCE
from PIL import Image

SOURCE = ROOT / "clients/python"
README = (SOURCE / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", README, re.M | re.S)


@pytest.fixture(scope="module")
def wheel_python(tmp_path_factory):
    """The interpreter of a fresh environment that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    subprocess.run([*pip, *build, folder / "source"], check=True, timeout=PATIENCE)
    (wheel,) = folder.glob("hanmo_client-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    install = ["--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run([*pip, *install], check=True, timeout=PATIENCE)
    return python


@pytest.mark.parametrize("libraries", ["oldest", "newest"])
def test_the_wheel_runs_the_examples(server, wheel_python, libraries, tmp_path):
    """Those of the README, with both ends of the libraries that pyproject.toml allows."""
    oldest = ROOT / ".deps/client-oldest"
    assert oldest.is_dir(), "scripts/setup installs it"
    newest = os.path.dirname(os.path.dirname(grpc.__file__))
    path = {"oldest": str(oldest), "newest": newest}[libraries]
    environment = clean_environment(PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1")
    assert len(EXAMPLES) == 6

    def python(program):
        done = subprocess.run(
            [wheel_python, "-W", "error", "-c", program],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = python("import hanmo, grpc; print(hanmo.__file__, grpc.__version__)").split()
    assert found[0].startswith(str(wheel_python.parents[1]))
    assert (found[1] == "1.60.0") == (libraries == "oldest")
    said = [python(program.replace("localhost:8001", server.address)) for program, _ in EXAMPLES]
    for (_, expected), output in zip(EXAMPLES, said, strict=True):
        assert output == (expected or output) != ""
    _, form, streams, _, models, errors = said
    assert form.strip()
    assert "春山未有日" in streams and re.search("preview after step [0-9]", streams)
    assert "taiyi-sd-tiny ready text_to_picture" in models and models.endswith("秋山\n")
    assert "picture.width - " in errors and "picture.steps - " in errors
    assert Image.open(tmp_path / "mountain.png").size and Image.open(tmp_path / "boat.png").size
