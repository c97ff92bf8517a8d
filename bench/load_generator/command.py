"""The command bench/serve."""

import argparse
import contextlib
import json
import pathlib
import signal
import sys

from load_generator import models
from load_generator.measurement import CHECKED_OUTPUTS, Bench
from load_generator.report import print_table, report
from load_generator.scenarios import SCENARIOS

PROGRAMS = models.ROOT / "build/release/bin"


def parse(arguments):
    names = "\n".join(f"  {name:20} {s.__doc__}" for name, s in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="bench/serve",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Puts hanmo-server under open-loop load, one server per policy in turns, each "
        "with the same arrivals, and prints medians over the rounds.",
        epilog=f"scenarios:\n{names}\n\nWhat each figure means: docs/performance.md, Under load.",
    )
    add = parser.add_argument
    add("--scenario", choices=SCENARIOS, default="mixed-pictures", help="default: %(default)s")
    add("--policies", default="hanmo,fcfs,static", help="of hanmo-server; default: %(default)s")
    add("--seconds", type=float, default=60, help="of arrivals in each run; default: %(default)g")
    add("--rounds", type=int, default=3, help="runs of each side; default: %(default)s")
    add("--loads", help="shares of the capacity to offer; the headline is of the first; "
        "several also give goodput_at_slo and rate_at_p99; default: 0.8")  # fmt: skip
    add("--capacity", type=float, help="requests a second, instead of measuring it")
    add("--slo", type=float, help="a good answer takes at most this many times its lone latency; "
        "default: 2, in overload 10")  # fmt: skip
    add("--p99-limit", type=float, help="for rate_at_p99; default: 4 x the longest lone latency")
    add("--seed", type=int, default=1, help="of the arrivals; default: %(default)s")
    add("--trace", type=pathlib.Path, help="replay this file of arrivals instead of drawing them")
    add("--record", type=pathlib.Path, help="write the first round's arrivals there")
    add("--check", action="store_true",
        help=f"compare up to {CHECKED_OUTPUTS} outputs with those on an idle server")  # fmt: skip
    add("--picture-model", type=pathlib.Path, default=models.DEMO_PICTURE_MODEL, metavar="FOLDER",
        help="default: %(default)s")  # fmt: skip
    add("--sizes", help="pixels, small and large; default: half the model's size and all of it")
    add("--text-model", type=pathlib.Path, metavar="FOLDER",
        help="default: a GPT-2 of 102 M random parameters, made on first use")  # fmt: skip
    add("--server-option", action="append", default=[], metavar="--FLAG=VALUE",
        help="for each hanmo-server; may be repeated")  # fmt: skip
    add("--bin", type=pathlib.Path, default=PROGRAMS, help="programs; default: %(default)s")
    add("--json", action="store_true", help="one line of JSON per side instead of a table")
    args = parser.parse_args(arguments)
    if args.seconds <= 0 or args.rounds < 1:
        parser.error("--seconds and --rounds must be above 0")
    try:
        args.loads = [float(x) for x in args.loads.split(",")] if args.loads else None
        args.sizes = [int(x) for x in args.sizes.split(",")] if args.sizes else None
    except ValueError as error:
        parser.error(f"--loads and --sizes: {error}")
    if args.loads and min(args.loads) <= 0:
        parser.error("--loads must be above 0")
    return args


def main(arguments=None):
    args = parse(arguments)
    # The servers must not outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with contextlib.ExitStack() as stack:
            bench = Bench(args, stack)
            bench.measure()
            lines = report(bench, args.p99_limit)
    except (RuntimeError, ValueError, OSError) as error:
        sys.exit(f"serve: {error}")
    if args.json:
        for line in lines:
            print(json.dumps(line))
    else:
        print_table(lines)
    return 0
