#!/usr/bin/env python3
"""Peak of a worker's memory while it loads a folder of Taiyi-Stable-Diffusion-1B's shape (random
weights, float32, 4 GB), against the bytes of its weights in the serving type.

    bench/load.py [--bin build/release/bin] [--dtype bfloat16] [--px 256,512] [--folder DIR]

Counts what the system cannot drop (RssAnon + RssShmem of /proc), read every 5 ms until the model
serves, and again while it paints one picture of each size in --steps steps. Prints one line of JSON.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import diffusers
import torch
import transformers


def make_folder(folder: pathlib.Path) -> None:
    """A repository with the one model "taiyi-1b"."""
    torch.manual_seed(0)
    model = folder / "taiyi-1b"
    unet = diffusers.UNet2DConditionModel(
        sample_size=64, cross_attention_dim=768, attention_head_dim=8
    )
    unet.save_pretrained(model / "unet")
    del unet
    text = transformers.BertModel(transformers.BertConfig(vocab_size=21128))
    text.save_pretrained(model / "text_encoder")
    diffusers.AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[128, 256, 512, 512],
        layers_per_block=2,
        latent_channels=4,
    ).save_pretrained(model / "vae")
    diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True
    ).save_pretrained(model / "scheduler")
    tokenizer = model / "tokenizer"
    tokenizer.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = special + [chr(0x4E00 + i) for i in range(21128 - len(special))]
    (tokenizer / "vocab.txt").write_text("\n".join(words) + "\n")
    (tokenizer / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1"}
    index |= {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "BertModel"],
        "tokenizer": ["transformers", "BertTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
    }
    (model / "model_index.json").write_text(json.dumps(index))


class Watcher(threading.Thread):
    """The peak of the undroppable memory of the children of `pid`."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._children = pathlib.Path(f"/proc/{pid}/task")
        self._end = threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._end.wait(0.005):
            with contextlib.suppress(OSError):
                pids = {p for t in self._children.glob("*/children") for p in t.read_text().split()}
                self.peak = max(self.peak, sum(map(self._resident, pids)))

    @staticmethod
    def _resident(pid: str) -> int:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(n.split()[1]) * 1024 for n in lines if n.startswith(("RssAnon", "RssShmem")))

    def take(self) -> int:
        peak, self.peak = self.peak, 0
        return peak

    def stop(self) -> None:
        self._end.set()


def main() -> None:
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, default=root / "build/release/bin")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--px", default="256,512")
    parser.add_argument("--steps", default="2")
    parser.add_argument("--folder", help="keep the random weights here between runs")
    args = parser.parse_args()

    folder = pathlib.Path(args.folder or tempfile.mkdtemp())
    try:
        if not (folder / "taiyi-1b/model_index.json").exists():
            make_folder(folder)
        print(json.dumps(measure(args, folder)))
    finally:
        if not args.folder:
            shutil.rmtree(folder)


def measure(args: argparse.Namespace, folder: pathlib.Path) -> dict:
    command = [args.bin / "hanmo-server", "--listen=127.0.0.1:0", "--metrics-listen="]
    command += [f"--model-repository={folder}", f"--dtype={args.dtype}", "--log-level=error"]
    load_before = os.getloadavg()[0]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            watcher = Watcher(server.pid)
            watcher.start()
            address = server.stdout.readline().split()[-1]

            def hanmo(*arguments: str) -> str:
                line = [args.bin / "hanmo", *arguments, "--server", address]
                return subprocess.run(line, check=True, capture_output=True, text=True).stdout

            hanmo("health", "taiyi-1b", "--wait", "600s")
            seconds, peak = time.monotonic() - start, watcher.take()
            weights = int(json.loads(hanmo("models", "taiyi-1b", "--json"))["weight_bytes"])
            result = {
                "benchmark": "load",
                "model": "Taiyi-Stable-Diffusion-1B shape, random weights",
                "dtype": args.dtype,
                "load_before": load_before,
                "load_seconds": round(seconds, 1),
                "weight_bytes": weights,
                "peak_bytes": peak,
                "peak_per_weight_byte": round(peak / weights, 3),
            }
            for px in args.px.split(","):
                picture = ["image", "--prompt", "山水", "--width", px, "--height", px, "--quiet"]
                start = time.monotonic()
                hanmo(*picture, "--steps", args.steps, "--output", str(folder / f"{px}.png"))
                result[f"paint_{px}_seconds"] = round(time.monotonic() - start, 1)
                result[f"paint_{px}_peak_bytes"] = watcher.take()
            watcher.stop()
            return result
        finally:
            server.terminate()


if __name__ == "__main__":
    sys.exit(main())
