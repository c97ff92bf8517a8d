#!/usr/bin/env python3
"""How evenly picture steps are cut into slices, and what that costs: one guided step of a UNet of
Stable Diffusion 1.x's shape (860 M) and one decode of its VAE (both with random weights), whole and
suspended after several budgets.

    bench/slices.py [--program build/release/bin/bench_slices] [--px 256,512] [--budgets 10,20,30]

Whole and sliced runs alternate within each round. "cost" is the sum of the slices by the time of the
whole run of the same round, the median over the rounds; "overrun" is by how much slices are longer
than their budget, in milliseconds. Between two slices --disturb-mb of memory are read, as a text
step reads its weights. Every result must have the same bytes. With --clock cpu the times are the
processor's, for a machine that others use too. Prints one line of JSON.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import diffusers
import safetensors.torch
import torch
import unet

VAE_CONFIG = dict(
    block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2,
    latent_channels=4,
    sample_size=512,
)


def make_vae(folder: pathlib.Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    diffusers.AutoencoderKL(**VAE_CONFIG).to(dtype).save_pretrained(folder)


def make_latents(path: pathlib.Path, px: int) -> None:
    generator = torch.Generator().manual_seed(px)
    latents = torch.randn(1, 4, px // 8, px // 8, generator=generator)
    safetensors.torch.save_file(dict(latents=latents), path)


class Program:
    def __init__(self, args: argparse.Namespace, kind: str, folder: pathlib.Path):
        self._output = folder / "output.raw"
        self._disturb_mb = args.disturb_mb
        self._process = subprocess.Popen(
            [args.program, kind, str(folder), args.dtype, str(args.threads), args.clock],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # As the worker sets it for itself.
            env=os.environ | {"GOMP_SPINCOUNT": "2000"},
        )
        self._answer()

    def _answer(self) -> dict:
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"bench_slices ended with {self._process.wait()}")
        return json.loads(answer)

    def run(self, inputs: pathlib.Path, budget_ms: float, disturb: bool = True) -> dict:
        disturb_mb = self._disturb_mb if disturb else 0
        line = f"run {inputs} {budget_ms} {disturb_mb} {self._output}\n"
        self._process.stdin.write(line)
        self._process.stdin.flush()
        answer = self._answer()
        answer["sha256"] = hashlib.sha256(self._output.read_bytes()).hexdigest()
        return answer

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def describe(runs: list[dict], whole: list[dict], budget_ms: float) -> dict:
    # The last slice of a step ends with the step.
    slices = [ms for run in runs for ms in run["slices_ms"][:-1]]
    return {
        "slices": round(len(slices) / len(runs)),
        "p50_ms": round(quantile(slices, 0.5), 1),
        "p99_ms": round(quantile(slices, 0.99), 1),
        "max_ms": round(max(slices), 1),
        "overrun_p99_ms": round(quantile(slices, 0.99) - budget_ms, 1),
        "overrun_max_ms": round(max(slices) - budget_ms, 1),
        "cost": round(
            statistics.median(a["seconds"] / b["seconds"] for a, b in zip(runs, whole)), 3
        ),
    }


def measure(args: argparse.Namespace, kind: str, folder: pathlib.Path, px: int) -> dict:
    inputs = folder / f"inputs_{px}.safetensors"
    if kind == "unet":
        unet.make_inputs(inputs, px, 77)
    else:
        make_latents(inputs, px)
    budgets = [float(budget) for budget in args.budgets.split(",")]
    program = Program(args, kind, folder)
    expected = program.run(inputs, 0)["sha256"]
    everywhere = program.run(inputs, 0.001, disturb=False)
    runs: dict[float, list[dict]] = {budget: [] for budget in [0.0, *budgets]}
    for _ in range(args.rounds):
        for budget, of_budget in runs.items():
            of_budget.append(program.run(inputs, budget))
    program.close()
    every = [everywhere, *(run for of_budget in runs.values() for run in of_budget)]
    if any(run["sha256"] != expected for run in every):
        sys.exit(f"{kind} at {px}: slices change the result")
    result = {
        "whole_s": round(statistics.median(run["seconds"] for run in runs[0.0]), 3),
        "yield_points": len(everywhere["slices_ms"]),
        "longest_gap_ms": round(statistics.median(run["longest_gap_ms"] for run in runs[0.0]), 1),
    }
    for budget in budgets:
        result[f"budget_{budget:g}_ms"] = describe(runs[budget], runs[0.0], budget)
    return result


def main() -> None:
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(root / "build/release/bin/bench_slices"))
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--px", default="256,512")
    parser.add_argument("--kinds", default="unet,vae")
    parser.add_argument("--budgets", default="10,20,30", help="milliseconds")
    parser.add_argument("--disturb-mb", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--folder", help="keep the random weights here between runs")
    args = parser.parse_args()

    result = {
        "benchmark": "slices",
        "model": "SD 1.x, one guided UNet step (2 rows) or one VAE decode",
        "dtype": args.dtype,
        "threads": args.threads,
        "clock": args.clock,
        "rounds": args.rounds,
        "disturb_mb": args.disturb_mb,
        "load_before": os.getloadavg()[0],
        "torch": torch.__version__,
    }
    top = pathlib.Path(args.folder or tempfile.mkdtemp())
    try:
        for kind in args.kinds.split(","):
            folder = top / kind
            if not (folder / "config.json").exists():
                make = unet.make_folder if kind == "unet" else make_vae
                make(folder, getattr(torch, args.dtype))
            for px in map(int, args.px.split(",")):
                result[f"{kind}_{px}"] = measure(args, kind, folder, px)
    finally:
        if not args.folder:
            shutil.rmtree(top)
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
