"""Shared by the generators of text encoders (bert, clip)."""

import json
import pathlib
import shutil
from collections.abc import Callable

import safetensors.torch
import torch
import transformers

State = dict[str, torch.Tensor]


@torch.inference_mode()
def record(
    here: pathlib.Path,
    cases: dict[str, tuple[dict, torch.dtype, dict, int]],
    make: Callable[[dict], transformers.PreTrainedModel],
    spelled: Callable[[State, dict], State],
) -> None:
    """Each case is a configuration, a storage type, a layout and a number of tokens. `spelled` gives
    the weights the names of the layout."""
    for seed, (name, (config, dtype, layout, tokens)) in enumerate(cases.items()):
        torch.manual_seed(seed)
        model = make(config)
        generator = torch.Generator().manual_seed(seed)
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
        model.to(dtype).float().eval()
        folder = here / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        saved = dict(model.config.to_dict(), architectures=[type(model).__name__])
        (folder / "config.json").write_text(json.dumps(saved, indent=1) + "\n")
        weights = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}
        if layout.get("binary"):
            torch.save(spelled(weights, layout), folder / "pytorch_model.bin")
        else:
            safetensors.torch.save_file(spelled(weights, layout), folder / "model.safetensors")
        ids = torch.randint(config["vocab_size"], (3, tokens), generator=generator)
        hidden = model(ids).last_hidden_state
        safetensors.torch.save_file(
            dict(ids=ids, hidden=hidden.contiguous()), folder / "golden.safetensors"
        )
        print(name, tuple(hidden.shape), float(hidden.std()))
    (here / "versions.json").write_text(
        json.dumps(dict(transformers=transformers.__version__, torch=torch.__version__)) + "\n"
    )
