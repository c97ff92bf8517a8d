"""Model repositories for servers."""

from contract import ROOT

MODELS = ROOT / "models"
GOLDENS = ROOT / "tests/goldens"


def link_models(folder, **models):
    """A repository of links: name -> checkpoint; underscores in names become dashes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in models.items():
        (folder / name.replace("_", "-")).symlink_to(target, target_is_directory=True)
    return folder
