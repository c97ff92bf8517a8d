"""What the generators of text models' goldens share: prompts, transformers' answers, weight files."""

import json
import pathlib

import safetensors
import safetensors.torch
import torch
import transformers

GREEDY_TOKENS = 64
MIN_MARGIN = 1e-3


def save_weights(folder: pathlib.Path, state: dict, layout: dict) -> None:
    binary = layout.get("binary", False)
    stem, suffix = ("pytorch_model", "bin") if binary else ("model", "safetensors")
    shards = layout.get("shards", 1)
    names = sorted(state)
    weight_map = {}
    for shard in range(shards):
        part = {name: state[name] for name in names[shard::shards]}
        file = f"{stem}.{suffix}"
        if shards > 1:
            file = f"{stem}-{shard + 1:05d}-of-{shards:05d}.{suffix}"
        weight_map |= dict.fromkeys(part, file)
        if binary:
            torch.save(part, folder / file)
        else:
            safetensors.torch.save_file(part, folder / file, metadata={"format": "pt"})
    if shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index, indent=1) + "\n")


@torch.inference_mode()
def answers(model, prompts: list[list[int]]) -> dict[str, torch.Tensor] | None:
    """None when a greedy choice is too close to call."""
    golden = {}
    for i, prompt in enumerate(prompts):
        ids = list(prompt)
        for step in range(GREEDY_TOKENS):
            if len(ids) == model.config.max_position_embeddings:
                break
            logits = model(torch.tensor([ids])).logits[0, -1].float()
            if step == 0:
                golden[f"logits.{i}"] = logits.clone()
            best = logits.topk(2)
            if best.values[0] - best.values[1] < MIN_MARGIN:
                return None
            ids.append(int(best.indices[0]))
        golden[f"prompt.{i}"] = torch.tensor(prompt, dtype=torch.int32)
        golden[f"greedy.{i}"] = torch.tensor(ids[len(prompt) :], dtype=torch.int32)
    return golden


def make_prompts(vocab: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(0, vocab, (length,), generator=generator).tolist()
        for length in (1, 7, 16, 30)
    ]


def write_versions(folder: pathlib.Path) -> None:
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "safetensors": safetensors.__version__,
    }
    (folder / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
