"""Model repositories for servers."""

import json

from contract import ROOT

MODELS = ROOT / "models"
GOLDENS = ROOT / "tests/goldens"
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
