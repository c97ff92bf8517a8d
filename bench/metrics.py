#!/usr/bin/env python3
"""What the metrics cost: requests a second with them and without.

    bench/metrics.py [--rounds 9] [--seconds 4] [--concurrency 16] [--max-tokens 1]

Two servers of the demo poet, of which one has a metrics port that is scraped once a second and the
other has none. In turns each answers as many tiny texts as it can. Prints one line of JSON: medians
over the rounds of requests a second, of the server process's processor time per request, and of
their ratios, with metrics to without.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))

from calls import POET  # noqa: E402
from hanmo_server import BIN, Server, clean_environment  # noqa: E402

SIDES = {"on": True, "off": False}


@contextlib.contextmanager
def scraped(server):
    """As a Prometheus in a hurry does it."""
    done = threading.Event()

    def scrape():
        while server.metrics_address and not done.wait(1):
            server.metrics()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(server, arguments):
    """(requests a second, microseconds of the server's processor time per request)"""
    before = processor_seconds(server.process.pid)
    command = [
        BIN / "hanmo",
        *("bench", "text", f"--server={server.address}", f"--model={POET}", "--prompt=月"),
        *("--rate=max", f"--concurrency={arguments.concurrency}"),
        *(f"--duration={arguments.seconds}s", f"--max-tokens={arguments.max_tokens}", "--json"),
    ]
    with scraped(server):
        done = subprocess.run(command, capture_output=True, check=True, env=clean_environment())
    figures = json.loads(done.stdout)
    used = processor_seconds(server.process.pid) - before
    return figures["ok"] / figures["seconds"], 1e6 * used / figures["ok"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=1)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        repository = pathlib.Path(folder, "models")
        repository.mkdir()
        (repository / POET).symlink_to(ROOT / "models" / POET, target_is_directory=True)
        servers = {}
        for name, metrics in SIDES.items():
            log = pathlib.Path(folder, f"{name}.log")
            server = Server(repository, "--log-level=error", log=log, metrics=metrics)
            servers[name] = stack.enter_context(contextlib.closing(server)).wait_serving()
            measure(server, arguments)  # warm up
        runs = {name: [] for name in SIDES}
        for number in range(arguments.rounds):
            for name in list(SIDES)[:: 1 if number % 2 else -1]:
                runs[name].append(measure(servers[name], arguments))
    result = {"benchmark": "metrics", **vars(arguments)}
    for place, figure in enumerate(("requests_per_s", "server_us_per_request")):
        for name in SIDES:
            result[f"{figure}_{name}"] = round(statistics.median(r[place] for r in runs[name]), 2)
        ratios = [on[place] / off[place] for on, off in zip(*runs.values(), strict=True)]
        result[f"{figure}_ratio"] = round(statistics.median(ratios), 4)
    result["load_average"] = [round(load_before, 2), round(os.getloadavg()[0], 2)]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
