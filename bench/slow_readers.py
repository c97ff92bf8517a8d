#!/usr/bin/env python3
"""What slow readers cost those that are not.

    bench/slow_readers.py [--slow 100] [--normal 100] [--rounds 5] [--max-parked 1s]

Each round starts --normal texts at once, every one a stream that is read as it comes, on a server
without and on one with --slow other streams whose connections, after the first event, take one byte a
second; the sides alternate. The slow ones are fat (16 texts with 20 candidates a token each), so that what waits
for them exceeds gRPC's windows and they are parked. Prints one line of JSON: medians over the rounds
of the normal streams' p99 of total time and of the gap between tokens, and the slow ones' pages.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

import grpc

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))

from calls import POET, text_request  # noqa: E402
from contract import generation_pb2_grpc  # noqa: E402
from drip import Drip  # noqa: E402
from hanmo_server import Server  # noqa: E402
from observe import until  # noqa: E402

SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1))


def pages(server):
    return server.metrics().sum("hanmo_kv_pages_used", model=POET)


def start_slow(server, drip, count):
    """Streams that are parked and have given their pages back."""
    calls = []
    for i in range(count):
        request = text_request(n=16, logprobs=20, max_tokens=230, ignore_eos=True, seed=i)
        options = (*SMALL_WINDOW, ("grpc.use_local_subchannel_pool", 1))  # a connection each
        channel = grpc.insecure_channel(f"127.0.0.1:{drip.port}", options=options)
        stub = generation_pb2_grpc.GenerationStub(channel)
        call = stub.GenerateStream(request, timeout=3600)
        next(call)
        calls.append(call)
    drip.slow_down()
    quiet = 0
    deadline = time.monotonic() + 600
    while quiet < 5 and time.monotonic() < deadline:
        quiet = quiet + 1 if pages(server) == 0 else 0
        time.sleep(1)
    return calls, pages(server)


def read(stub, seed):
    """(seconds in all, gaps between events with tokens)"""
    start = last = time.monotonic()
    gaps = []
    for event in stub.GenerateStream(text_request(max_tokens=60, ignore_eos=True, seed=seed)):
        now = time.monotonic()
        if event.HasField("text"):
            gaps.append(now - last)
            last = now
    return time.monotonic() - start, gaps[1:]


def p99(values):
    return sorted(values)[max(0, round(0.99 * len(values)) - 1)]


def measure(server, count, number):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        runs = list(pool.map(lambda i: read(server.generation, 1000 * number + i), range(count)))
    return p99([total for total, _ in runs]), p99([gap for _, gaps in runs for gap in gaps])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slow", type=int, default=100)
    parser.add_argument("--normal", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-parked", default="1s")
    args = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        repository = folder / "models"
        repository.mkdir()
        (repository / POET).symlink_to(ROOT / "models" / POET, target_is_directory=True)
        options = ("--max-parked=" + args.max_parked, "--log-level=error")
        sides = {}
        for name in ("without", "with"):
            server = Server(repository, *options, log=folder / f"{name}.log")
            sides[name] = server.wait_serving()
        drip = Drip(sides["with"].address)
        slow, left = start_slow(sides["with"], drip, args.slow)
        until(lambda: pages(sides["without"]) == 0, "idle")
        samples = {name: [] for name in sides}
        for server in sides.values():
            measure(server, args.normal, 0)  # warm up
        for number in range(1, args.rounds + 1):
            for name, server in sides.items():
                samples[name].append(measure(server, args.normal, number))
        result = {
            "benchmark": "slow_readers",
            "slow": len(slow),
            "normal": args.normal,
            "rounds": args.rounds,
            "pages_of_the_slow": left,
            "bytes_of_the_slow": drip.dripped,
        }
        for place, figure in enumerate(("total_p99", "gap_p99")):
            ratios = [
                b[place] / a[place]
                for a, b in zip(samples["without"], samples["with"], strict=True)
            ]
            for name, runs in samples.items():
                result[f"{figure}_s_{name}"] = round(statistics.median(r[place] for r in runs), 4)
            result[f"{figure}_ratio"] = round(statistics.median(ratios), 3)
        result["load_average"] = [round(load_before, 2), round(os.getloadavg()[0], 2)]
        print(json.dumps(result))
        for call in slow:
            call.cancel()
        drip.close()
        for server in sides.values():
            server.close()


if __name__ == "__main__":
    main()
