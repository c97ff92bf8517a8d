#!/usr/bin/env python3
"""One guided step of a UNet of Stable Diffusion 1.x's shape (860 M, random weights), with hanmo and
with diffusers in channels_last.

    bench/unet.py [--program build/release/bin/bench_unet] [--px 256,512] [--tokens 77,512]
                  [--rows 2] [--device cpu] [--compile]

Both sides run the same weights, latents (two rows: with and without the prompt; --rows for larger
batches) and prompts in the same type and number of threads. --compile puts the other side through
torch.compile first. The sides alternate within each round; figures are seconds of a
step. First both predictions are compared with diffusers in float32. Prints one line of JSON.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import diffusers
import numpy
import safetensors.torch
import torch

CONFIG = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def make_folder(folder: pathlib.Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    diffusers.UNet2DConditionModel(**CONFIG).to(dtype).save_pretrained(folder)


def make_inputs(path: pathlib.Path, px: int, tokens: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(px + tokens)
    latents = torch.randn(1, 4, px // 8, px // 8, generator=generator).repeat(rows, 1, 1, 1)
    text = torch.randn(rows, tokens, CONFIG["cross_attention_dim"], generator=generator)
    safetensors.torch.save_file(
        dict(latents=latents, timesteps=torch.full((rows,), 601.0), text=text), path
    )


class Hanmo:
    def __init__(self, program: str, folder: pathlib.Path, dtype: str, threads: int, device: str):
        self._process = subprocess.Popen(
            [program, str(folder), dtype, str(threads), device],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.load = self._answer()

    def _answer(self) -> dict:
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"{self._process.args[0]} ended with {self._process.wait()}")
        return json.loads(answer)

    def run(self, inputs: pathlib.Path, output: str = "") -> dict:
        self._process.stdin.write(f"run {inputs} {output}\n")
        self._process.stdin.flush()
        return self._answer()

    def predict(self, inputs: pathlib.Path) -> numpy.ndarray:
        with tempfile.NamedTemporaryFile() as file:
            self.run(inputs, file.name)
            self.run(inputs)  # answers once the file is written
            return numpy.fromfile(file.name, dtype=numpy.float32)


class Diffusers:
    def __init__(self, folder: pathlib.Path, dtype: torch.dtype, device: str, compiled=False):
        self._dtype, self._device = dtype, device
        self._model = diffusers.UNet2DConditionModel.from_pretrained(folder, torch_dtype=dtype)
        self._model = self._model.eval().to(device, memory_format=torch.channels_last)
        if compiled:
            self._model = torch.compile(self._model, mode="reduce-overhead")

    @torch.inference_mode()
    def _forward(self, inputs: pathlib.Path) -> tuple[torch.Tensor, dict]:
        tensors = safetensors.torch.load_file(inputs)
        latents = tensors["latents"].to(self._device, self._dtype)
        latents = latents.to(memory_format=torch.channels_last)
        text = tensors["text"].to(self._device, self._dtype)
        timesteps = tensors["timesteps"].to(self._device)
        if self._device != "cpu":
            torch.cuda.synchronize()
        start, cpu_start = time.perf_counter(), time.process_time()
        out = self._model(latents, timesteps, text, return_dict=False)[0].cpu()
        return out, {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu_start,
        }

    def run(self, inputs: pathlib.Path) -> dict:
        return self._forward(inputs)[1]

    def predict(self, inputs: pathlib.Path) -> numpy.ndarray:
        return self._forward(inputs)[0].float().contiguous().numpy().ravel()


def side(runs: list[dict]) -> dict:
    return {
        "median_s": round(statistics.median(r["seconds"] for r in runs), 3),
        "min_s": round(min(r["seconds"] for r in runs), 3),
        "median_cpu_s": round(statistics.median(r["cpu_seconds"] for r in runs), 3),
    }


def ratio(samples: dict, key: str) -> float:
    return round(
        statistics.median(b[key] / a[key] for a, b in zip(samples["hanmo"], samples["diffusers"])),
        2,
    )


def main() -> None:
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(root / "build/release/bin/bench_unet"))
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--px", default="256,512")
    parser.add_argument("--tokens", default="77,512")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=2, help="of a step")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--compile", action="store_true", help="torch.compile the other side")
    parser.add_argument("--folder", help="keep the random weights here between runs")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    result = {
        "benchmark": "unet",
        "model": f"SD 1.x UNet, 860 M, one step of {args.rows} rows",
        "device": torch.cuda.get_device_name() if args.device != "cpu" else "cpu",
        "peer": "diffusers" + (", torch.compile" if args.compile else ""),
        "dtype": args.dtype,
        "threads": args.threads,
        "rounds": args.rounds,
        "load_before": os.getloadavg()[0],
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }
    folder = pathlib.Path(args.folder or tempfile.mkdtemp())
    try:
        if not (folder / "config.json").exists():
            make_folder(folder, dtype)
        ours = Hanmo(args.program, folder, args.dtype, args.threads, args.device)
        result["load"] = ours.load | {
            "weights_bytes": sum(
                file.stat().st_size for file in folder.glob("diffusion*.safetensors")
            )
        }
        theirs = Diffusers(folder, dtype, args.device, args.compile)
        for px in map(int, args.px.split(",")):
            for tokens in map(int, args.tokens.split(",")):
                inputs = folder / f"inputs_{px}_{tokens}.safetensors"
                make_inputs(inputs, px, tokens, args.rows)
                if "max_error" not in result:
                    exact = Diffusers(folder, torch.float32, args.device).predict(inputs)
                    result["max_error"] = {
                        name: float(
                            numpy.abs(one.predict(inputs) - exact).max() / numpy.abs(exact).max()
                        )
                        for name, one in (("hanmo", ours), ("diffusers", theirs))
                    }
                samples = {"hanmo": [], "diffusers": []}
                for one in (ours, theirs):
                    one.run(inputs)  # warm up
                for _ in range(args.rounds):
                    for name, one in (("hanmo", ours), ("diffusers", theirs)):
                        samples[name].append(one.run(inputs))
                result[f"px_{px}_tokens_{tokens}"] = {
                    name: side(runs) for name, runs in samples.items()
                } | {"ratio": ratio(samples, "seconds"), "cpu_ratio": ratio(samples, "cpu_seconds")}
    finally:
        if not args.folder:
            shutil.rmtree(folder)
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
