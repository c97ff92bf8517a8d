#!/usr/bin/env python3
"""Decodes a text model of a published shape (random weights) with hanmo and with
transformers.generate.

    bench/decode.py [--shape gpt2|qwen3-0.6b|ernie-4.5-0.3b] [--batches 1,16] [--rounds 5]

Both sides decode greedily from the same prompts in the same type and number of threads, whole calls:
prefill, all new tokens, choosing them. The sides alternate within each round; figures are medians,
tokens per second of all streams together. First the logits of a prompt are compared with float32.
Prints one line of JSON.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
import torch
import transformers


def prompt_tokens(batch: int, length: int, vocab: int) -> list[list[int]]:
    return [[(b * 7919 + i * 104729 + 12345) % vocab for i in range(length)] for b in range(batch)]


SHAPES = {
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=50258, activation_function="gelu_fast", bos_token_id=50256, eos_token_id=50256
    ),
    "qwen3-0.6b": lambda: transformers.Qwen3Config(
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        tie_word_embeddings=True,
        rope_theta=1000000,
    ),
    "ernie-4.5-0.3b": lambda: transformers.Ernie4_5Config(),
}


def make_folder(folder: str, shape: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(SHAPES[shape](), dtype=dtype)
    model.save_pretrained(folder)


class Hanmo:
    def __init__(self, program: str, folder: str, dtype: str, threads: int):
        self._process = subprocess.Popen(
            [program, folder, dtype, str(threads)],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, line: str) -> dict:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"{self._process.args[0]} ended with {self._process.wait()}")
        return json.loads(answer)

    def run(self, batch: int, prompt: int, tokens: int) -> dict:
        return self.ask(f"run {batch} {prompt} {tokens}")

    def logits(self, prompt: int) -> numpy.ndarray:
        with tempfile.NamedTemporaryFile() as file:
            self.ask(f"logits {prompt} {file.name}")
            return numpy.fromfile(file.name, dtype=numpy.float32)


class Transformers:
    def __init__(self, folder: str, dtype: torch.dtype):
        self._model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def run(self, batch: int, prompt: int, tokens: int) -> dict:
        ids = torch.tensor(prompt_tokens(batch, prompt, self._model.config.vocab_size))
        start, cpu_start = time.perf_counter(), time.process_time()
        out = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        assert out.shape[1] == prompt + tokens
        return {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu_start,
        }

    @torch.inference_mode()
    def logits(self, prompt: int) -> numpy.ndarray:
        ids = torch.tensor(prompt_tokens(1, prompt, self._model.config.vocab_size))
        return self._model(ids).logits[0, -1].float().numpy()


def side(samples: list[dict], tokens: int) -> dict:
    return {
        "tokens_per_second": round(tokens / statistics.median(s["seconds"] for s in samples), 1),
        "best": round(tokens / min(s["seconds"] for s in samples), 1),
        "cpu_ms_per_token": round(
            1000 * statistics.median(s["cpu_seconds"] for s in samples) / tokens, 2
        ),
    }


def main() -> None:
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=" ".join(__doc__.splitlines()[:2]))
    parser.add_argument("--program", default=str(root / "build/release/bin/bench_decode"))
    parser.add_argument("--shape", default="gpt2", choices=SHAPES)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    result = {
        "benchmark": "decode",
        "shape": args.shape,
        "dtype": args.dtype,
        "threads": args.threads,
        "prompt": args.prompt,
        "new_tokens": args.tokens,
        "rounds": args.rounds,
        "load_before": os.getloadavg()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    with tempfile.TemporaryDirectory() as folder:
        make_folder(folder, args.shape, dtype)
        ours = Hanmo(args.program, folder, args.dtype, args.threads)
        theirs = Transformers(folder, dtype)
        exact = Transformers(folder, torch.float32).logits(args.prompt)
        result["max_logit_error"] = {
            name: float(numpy.abs(one.logits(args.prompt) - exact).max())
            for name, one in (("hanmo", ours), ("transformers", theirs))
        }
        for batch in map(int, args.batches.split(",")):
            samples = {"hanmo": [], "transformers": []}
            for one in (ours, theirs):
                one.run(batch, args.prompt, 8)  # warm up
            for _ in range(args.rounds):
                for name, one in (("hanmo", ours), ("transformers", theirs)):
                    samples[name].append(one.run(batch, args.prompt, args.tokens))
            pairs = zip(samples["hanmo"], samples["transformers"])
            ratios = [b["seconds"] / a["seconds"] for a, b in pairs]
            result[f"batch_{batch}"] = {
                name: side(runs, batch * args.tokens) for name, runs in samples.items()
            } | {
                "ratio": round(statistics.median(ratios), 2),
                "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
            }
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
