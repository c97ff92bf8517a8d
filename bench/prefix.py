#!/usr/bin/env python3
"""Time to the first token of a prompt whose first 512 tokens another prompt has left in its pages.

    bench/prefix.py [--program build/release/bin/bench_text_reuse] [--rounds 7]

On the worker's text pipeline, with a GPT-2 of the 124M shape (random weights). Cold and warm runs of
the same prompt alternate and must give the same token; figures are medians. Prints one line of JSON.
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile

import decode
import torch


def main() -> None:
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(root / "build/release/bin/bench_text_reuse"))
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prefix", type=int, default=512)
    parser.add_argument("--suffix", type=int, default=8)
    args = parser.parse_args()

    result = {"benchmark": "prefix", "model": "gpt2 12x768, vocab 50258", **vars(args)}
    del result["program"]
    result["load_before"] = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        decode.make_folder(folder, getattr(torch, args.dtype))
        worker = decode.Hanmo(args.program, folder, args.dtype, args.threads)
        runs = {"cold": [], "warm": []}
        for _ in range(args.rounds + 1):
            for side, samples in runs.items():
                warm = int(side == "warm")
                samples.append(worker.ask(f"first {args.prefix} {args.suffix} {warm}"))
    assert len({run["token"] for samples in runs.values() for run in samples}) == 1
    for side, samples in runs.items():
        del samples[0]  # warms up
        for kind in ("seconds", "cpu_seconds"):
            median = statistics.median(run[kind] for run in samples)
            result[f"{side}_{kind.replace('seconds', 'ms')}"] = round(1000 * median, 2)
    ratios = [w["seconds"] / c["seconds"] for c, w in zip(runs["cold"], runs["warm"])]
    result["warm_over_cold"] = round(statistics.median(ratios), 4)
    result["range"] = [round(min(ratios), 4), round(max(ratios), 4)]
    result["warm_over_cold_cpu"] = round(result["warm_cpu_ms"] / result["cold_cpu_ms"], 4)
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
