#!/usr/bin/env python3
"""Records what diffusers' schedulers do, for workers/samplers/*_test.cc.

    python3 tests/goldens/samplers/generate.py

Needs torch 2.11.0, diffusers 0.42.1 and numpy on x86-64 with AVX2 (torch draws other normal
numbers without). Writes configs.json, cases.json, cases.bin, schedules.json, noise.json and
noise.bin beside itself; README.md says what they hold.
"""

import json
import pathlib
import warnings

import diffusers
import numpy as np
import torch
from configs import CLASSES, CONFIGS, PIXEL_CONFIGS, SWEPT
from diffusers import StableDiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor

HERE = pathlib.Path(__file__).parent
SHAPE = (1, 4, 4, 4)
SEED = 7


def fake_model(x, t):
    """A function of latent and timestep made of exactly rounded operations only."""
    return x * 0.8 + x.flip(-1).clamp(-2, 2) * 0.15 + (float(t) * 0.0001 - 0.03)


def run(config, sampler, steps, latent):
    file = {k: (float("-inf") if v == "-Infinity" else v) for k, v in config.items()}
    scheduler = getattr(diffusers, CLASSES[sampler]).from_config(file)
    pipe = None
    if latent:
        pipe = StableDiffusionPipeline(
            vae=None,
            text_encoder=None,
            tokenizer=None,
            unet=None,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        scheduler = pipe.scheduler
    generator = torch.Generator("cpu").manual_seed(SEED)
    scheduler.set_timesteps(steps)
    if sampler in ("ddim", "pndm") and scheduler.timesteps.min() < 0:
        # numpy's arange is one too long for some steps; -1 then reads the table's noisy end.
        raise ValueError("timestep -1")
    x = randn_tensor(SHAPE, generator=generator, dtype=torch.float32)
    sigma = float(scheduler.init_noise_sigma)
    x = x * scheduler.init_noise_sigma
    extra = StableDiffusionPipeline.prepare_extra_step_kwargs(
        type("P", (), {"scheduler": scheduler})(), generator, 0.0
    )
    for t in scheduler.timesteps:
        output = fake_model(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, **extra, return_dict=False)[0]
    if not torch.isfinite(x).all() or x.dtype != torch.float32:
        raise ValueError("not finite")
    return sigma, scheduler.timesteps.to(torch.float32).numpy(), x.numpy().reshape(-1)


def record_cases():
    configs, cases, numbers = {}, [], []
    for group, latent in ((CONFIGS, True), (PIXEL_CONFIGS, False)):
        for name, (config, samplers, all_steps) in group.items():
            configs[name] = config
            predictions = [""]
            if name == "taiyi":
                predictions = ["epsilon", "v_prediction", "sample"]
            elif name in ("karras", "order3", "unipc_noise"):
                predictions = ["", "v_prediction", "sample"]
            for sampler in samplers:
                for prediction in predictions:
                    for steps in all_steps:
                        if prediction and name != "taiyi" and steps not in (4, 10):
                            continue
                        asked = {**config, "prediction_type": prediction} if prediction else config
                        case = {"config": name, "sampler": sampler, "steps": steps}
                        if prediction:
                            case["prediction"] = prediction
                        if not latent:
                            case["pixel"] = True
                        try:
                            sigma, timesteps, x = run(asked, sampler, steps, latent)
                        except (
                            ValueError,
                            IndexError,
                            NotImplementedError,
                            AssertionError,
                        ) as error:
                            case["error"] = (
                                str(error).strip() or type(error).__name__
                            ).splitlines()[0][:60]
                        else:
                            # A thousand timesteps say no more than the first ones.
                            case["calls"] = len(timesteps)
                            numbers += [np.float32([sigma]), timesteps[:64], x]
                        cases.append(case)
    (HERE / "configs.json").write_text(json.dumps(configs, indent=1) + "\n")
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "cases.json").write_text(f"[\n{lines}\n]\n")
    np.concatenate(numbers).astype("<f4").tofile(HERE / "cases.bin")
    failed = [case for case in cases if "error" in case]
    print(len(cases), "cases,", len(failed), "refused by diffusers")
    for case in failed:
        print("  ", case)


def record_schedules():
    """Position-weighted sums of all integer schedules of 1 to 200 steps."""
    rows = []
    for name in SWEPT:
        config = {
            k: (float("-inf") if v == "-Infinity" else v) for k, v in CONFIGS[name][0].items()
        }
        for sampler in ("ddim", "pndm", "dpmpp_2m", "lcm", "unipc"):
            scheduler = getattr(diffusers, CLASSES[sampler]).from_config(config)
            scheduler.register_to_config(steps_offset=1)
            sums = []
            for steps in range(1, 201):
                try:
                    scheduler.set_timesteps(steps)
                    t = scheduler.timesteps.numpy()
                    refused = (sampler in ("ddim", "pndm") and t.min() < 0) or (
                        sampler in ("dpmpp_2m", "unipc") and (t == t[0]).sum() > 1
                    )
                except ValueError:
                    refused = True
                sums.append(-1 if refused else int(((np.arange(len(t)) + 1) * t).sum()))
            rows.append({"config": name, "sampler": sampler, "sums": sums})
    lines = ",\n".join(json.dumps(row) for row in rows)
    (HERE / "schedules.json").write_text(f"[\n{lines}\n]\n")


def record_noise():
    rows, numbers = [], []
    for seed in (0, 1, 42, 2**32 + 42, 2**63 - 1):
        for shape in ((1, 1, 1), (1, 3, 5), (1, 4, 4), (1, 1, 17), (4, 4, 4), (3, 5, 7), (4, 8, 8)):
            generator = torch.Generator("cpu").manual_seed(seed)
            draws = [randn_tensor((1, *shape), generator=generator) for _ in range(3)]
            rows.append({"seed": seed, "shape": shape})
            numbers += [draw.numpy().reshape(-1) for draw in draws]
    lines = ",\n".join(json.dumps(row) for row in rows)
    (HERE / "noise.json").write_text(f"[\n{lines}\n]\n")
    np.concatenate(numbers).astype("<f4").tofile(HERE / "noise.bin")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    assert diffusers.__version__ == "0.42.1" and torch.__version__.startswith("2.11.0")
    torch.set_num_threads(1)
    with torch.no_grad():
        record_cases()
        record_schedules()
        record_noise()
