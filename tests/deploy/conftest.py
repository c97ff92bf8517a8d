"""Fixtures for what is deployed; the modules are those of tests/e2e."""

import pytest
from chart import write_schemas
from contract import ROOT

MODELS = ROOT / "models"


@pytest.fixture(scope="session")
def schemas(tmp_path_factory):
    return write_schemas(tmp_path_factory.mktemp("schemas"))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A repository of the two demo models."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("taiyi-sd-tiny", "wenzhong-gpt2-tiny"):
        (folder / name).symlink_to(MODELS / name, target_is_directory=True)
    return folder
