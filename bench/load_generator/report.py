"""From the figures of each run to one line per side, and the table of them."""

import statistics

from load_generator import figures

HEADLINE = (
    "mean_s p50_s p90_s p99_s mean_slowdown goodput first_token_p99_s inter_token_p99_s load_average"
).split()
# Rows of the table, besides.
DETAILS = (
    "attainment offered_rps served_rps tokens_per_s denoise_rows_per_s painter_rows_per_s refused"
    " missed failed unfinished refusal_p99_s prefill_tokens_per_s device_busy device_share_pictures"
    " device_share_texts picture_batch text_batch server_rss_peak_mb late_p99_s"
    " generator_processor_share server_cores other_cores"
).split()

# Compared with each other side.
RATIOS = (
    *(key for key in HEADLINE if key != "load_average"),
    *"attainment served_rps tokens_per_s denoise_rows_per_s painter_rows_per_s".split(),
    "prefill_tokens_per_s",
)

# What sides that do one kind of work do of it.
ALONE = {
    "texts-alone": "tokens_per_s",
    "pictures-alone": "denoise_rows_per_s",
    "painter-alone": "painter_rows_per_s",
}


def report(bench, p99_limit=None):
    """One line per side, in order; `p99_limit` as in --help."""
    measured = bench.run_figures()
    first = {
        name: [run for run in runs if run["load"] == bench.loads[0]]
        for name, runs in measured.items()
    }
    checks = bench.check_outputs()
    limit = p99_limit or 4 * max(bench.lone().values(), default=0.0)
    lines = []
    for side in bench.sides:
        line = {"benchmark": "serve"} | bench.settings(side) | medians(first[side.name]) | checks
        line["against"] = {
            name: ratios(first[side.name], runs)
            for name, runs in first.items()
            if name != side.name
        }
        if len(bench.loads) > 1:
            line |= sweep(measured[side.name], bench.loads, limit)
        if ALONE.keys() & first.keys():
            line["total_throughput"] = figures.median(total_throughput(first, side.name))
        lines.append({key: tidy(value) for key, value in line.items()})
    return lines


def is_number(value):
    return isinstance(value, int | float)


def medians(runs):
    """Of each figure, and of each of a list; of what has no middle, the first run's."""
    found = {}
    for key in runs[0].keys() - {"round", "load"}:
        values = [run[key] for run in runs if run[key] is not None]
        if any(is_number(value) for value in values):
            found[key] = figures.median(values)
        elif values and isinstance(values[0], list):
            found[key] = [figures.median(column) for column in zip(*values)]
        else:
            found[key] = runs[0][key]
    return {key: found[key] for key in runs[0] if key in found}


def ratios(mine, others):
    """Median over the rounds of mine / the other's."""
    found = {}
    for key in RATIOS:
        pairs = [(a[key], b[key]) for a, b in zip(mine, others)]
        if all(is_number(a) and b for a, b in pairs):
            found[key] = round(statistics.median(a / b for a, b in pairs), 4)
    return found


def sweep(runs, loads, p99_limit):
    points = []
    for load in sorted(loads):
        found = medians([run for run in runs if run["load"] == load])
        keys = (*HEADLINE, "attainment", "offered_rps", "served_rps", "p99_slowdown")
        points.append({"load": load} | {key: found[key] for key in keys})
    rate = lambda measure: [
        (p["offered_rps"], p[measure]) for p in points if p[measure] is not None
    ]
    return {
        "sweep": [{key: tidy(value) for key, value in point.items()} for point in points],
        "goodput_at_slo": figures.highest_rate(rate("attainment"), lambda share: share - 0.9),
        "rate_at_p99": figures.highest_rate(rate("p99_s"), lambda seconds: p99_limit - seconds),
        "p99_limit_s": p99_limit,
    }


def total_throughput(runs, name):
    """What was done of each kind as a share of what is done of it alone, added; per round."""
    alone = [(key, runs[side]) for side, key in ALONE.items() if side in runs]
    for number, mine in enumerate(runs[name]):
        yield sum((mine[key] or 0) / rounds[number][key] for key, rounds in alone)


def tidy(value):
    """Five digits are more than a load test knows."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: tidy(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [tidy(inner) for inner in value]
    return value


def print_table(lines):
    width = max(12, *(len(line["policy"]) + 2 for line in lines))
    extra = ("total_throughput", "recovery_s", "capacity_rps", "goodput_at_slo", "rate_at_p99")
    print(f"{'':26}" + "".join(f"{line['policy']:>{width}}" for line in lines))
    for key in (*HEADLINE, *DETAILS, *extra):
        values = [line.get(key) for line in lines]
        if any(value is not None for value in values):
            cells = ("-" if value is None else f"{value:.4g}" for value in values)
            print(f"{key:26}" + "".join(f"{cell:>{width}}" for cell in cells))
    checks = {key: value for key, value in lines[0].items() if key.startswith("outputs_")}
    for line in lines:
        by_part = "  ".join(f"{part} {rate:.3g}" for part, rate in line["answers_per_s"].items())
        print(f"{line['policy']}, answers a second: {by_part}")
    print("  ".join(f"{key} {value}" for key, value in checks.items()))
