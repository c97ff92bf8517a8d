"""From what became of each call to the figures of a run. Pure functions.

A call is one line of bench_serve with its arrival under "job". Latencies count from the instant at
which the trace wanted a call sent. Calls that had not ended when the run was given up count with the
time they had waited by then, calls that ended with an error count in no latency.
"""

import statistics
from collections import Counter

from load_generator import traces

# Status codes by what they mean for the caller.
REFUSED = ("RESOURCE_EXHAUSTED", "UNAVAILABLE")
MISSED = ("DEADLINE_EXCEEDED",)

QUANTILES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.9, 100)


def percentile(values, q):
    """Linear between the two nearest; None of nothing."""
    if not values:
        return None
    ranked = sorted(values)
    place = (len(ranked) - 1) * q / 100
    low = int(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (place - low)


def mean(values):
    return statistics.fmean(values) if values else None


def median(values):
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ended(call):
    return call["due_s"] + call["latency_s"]


def slowdown(call, lone):
    alone = lone.get(traces.shape(call["job"]))
    return call["latency_s"] / alone if alone else None


def in_time(call, lone, slo):
    """Answered within `slo` times the lone latency."""
    times = slowdown(call, lone)
    return call["code"] == "OK" and times is not None and times <= slo


def token_gaps(calls, end_s):
    """Seconds between the tokens of each text that came before `end_s`. Tokens of one delta come
    together: after its first, their gaps are 0. Also the gaps between deltas alone, which several
    tokens in a delta cannot thin out."""
    gaps, between_deltas = [], []
    for call in calls:
        deltas = [d for d in call.get("deltas", ()) if call["due_s"] + d[0] <= end_s]
        for i, (at, tokens) in enumerate(deltas):
            gaps += [0.0] * (tokens - 1)
            if i > 0:
                gaps.append(at - deltas[i - 1][0])
                between_deltas.append(at - deltas[i - 1][0])
    return gaps, between_deltas


def tokens_before(calls, end_s):
    return sum(
        tokens
        for call in calls
        for at, tokens in call.get("deltas", ())
        if call["due_s"] + at <= end_s
    )


def latency_figures(calls, lone, slo, seconds):
    """Of the calls that are asked once; refusals and misses of all."""
    once = [call for call in calls if not call["job"].get("repeat")]
    timed = [call for call in once if call["code"] == "OK" or call["cut"]]
    latencies = [call["latency_s"] for call in timed]
    slowdowns = [s for s in (slowdown(call, lone) for call in timed) if s is not None]
    good = sum(in_time(call, lone, slo) for call in once)
    refusals = [call["latency_s"] for call in calls if call["code"] in REFUSED]
    return {
        "mean_s": mean(latencies),
        "p50_s": percentile(latencies, 50),
        "p90_s": percentile(latencies, 90),
        "p99_s": percentile(latencies, 99),
        "mean_slowdown": mean(slowdowns),
        "p99_slowdown": percentile(slowdowns, 99),
        "goodput": good / seconds if once else None,
        "attainment": good / len(once) if once else None,
        "offered_rps": len(once) / seconds if once else None,
        "served_rps": sum(c["code"] == "OK" and ended(c) <= seconds for c in once) / seconds
        if once
        else None,
        "refused": len(refusals),
        "refusal_p99_s": percentile(refusals, 99),
        "missed": sum(call["code"] in MISSED for call in calls),
        "unfinished": sum(call["cut"] for call in once),
        "slowdown_quantiles": [percentile(slowdowns, q) for q in QUANTILES] if slowdowns else None,
        "latency_quantiles": [percentile(latencies, q) for q in QUANTILES] if latencies else None,
    }


def text_figures(calls, seconds):
    texts = [call for call in calls if call["job"]["kind"] == "text"]
    streams = [call for call in texts if call["job"].get("repeat")] or texts
    once = [call for call in texts if not call["job"].get("repeat")]
    first = [call["deltas"][0][0] for call in once or texts if call.get("deltas")]
    gaps, between_deltas = token_gaps(streams, seconds)
    prefill = [c["job"]["prompt_tokens"] / c["deltas"][0][0] for c in once if c.get("deltas")]
    return {
        "first_token_p50_s": percentile(first, 50),
        "first_token_p99_s": percentile(first, 99),
        "inter_token_p50_s": percentile(gaps, 50),
        "inter_token_p99_s": percentile(gaps, 99),
        "inter_token_max_s": max(gaps, default=None),
        "inter_delta_p99_s": percentile(between_deltas, 99),
        "prefill_tokens_per_s": median(prefill),  # prompt over time to the first token
        "tokens_per_s": tokens_before(texts, seconds) / seconds if texts else None,
    }


def sender_figures(calls, sender):
    """How good the generator was itself. Lateness of calls that are asked once."""
    late = [call["late_s"] for call in calls if not call["job"].get("repeat")]
    return {
        "late_p99_s": percentile(late, 99),
        "generator_processor_share": sender["processor_s"] / sender["wall_s"],
    }


def answers_per_s(calls, seconds):
    """By part of the scenario."""
    answered = Counter(
        call["job"].get("part", "all")
        for call in calls
        if call["code"] == "OK" and not call["cut"] and ended(call) <= seconds
    )
    return {part: count / seconds for part, count in answered.items()}


def summarise(calls, lone, slo, seconds):
    bad = Counter(c["code"] for c in calls if not c["cut"] and c["code"] != "OK")
    known = sum(bad[code] for code in (*REFUSED, *MISSED))
    return (
        latency_figures(calls, lone, slo, seconds)
        | text_figures(calls, seconds)
        | {"failed": sum(bad.values()) - known, "codes": dict(bad)}
        | {"answers_per_s": answers_per_s(calls, seconds)}
    )


def part_figures(calls, lone, slo, span):
    """Of one part of the trace: what arrived in it, and what was answered in time during it."""
    start, end = span
    arrived = [call for call in calls if start <= call["due_s"] < end]
    good = [call for call in calls if in_time(call, lone, slo) and start <= ended(call) < end]
    figures = latency_figures(arrived, lone, slo, end - start)
    kept = ("mean_s", "p99_s", "mean_slowdown", "offered_rps", "attainment", "refused", "missed")
    return {key: figures[key] for key in (*kept, "refusal_p99_s")} | {
        "goodput": len(good) / (end - start)
    }


def recovery_s(calls, lone, slo, since, target):
    """Seconds after `since` from which two whole seconds of arrivals in a row were answered in time
    as often as `target`, a share; None when that never happened."""
    buckets = {}
    for call in calls:
        if call["due_s"] >= since:
            buckets.setdefault(int(call["due_s"] - since), []).append(in_time(call, lone, slo))
    fine = {second for second, good in buckets.items() if mean(good) >= target}
    return min((second for second in fine if second + 1 in fine), default=None)


def timeline(calls, lone, slo, seconds):
    """Calls per second of the run: that were due, that were answered in time, that were refused."""
    lines = {name: [0] * (int(seconds) + 1) for name in ("offered", "good", "refused")}
    for call in calls:
        second, end = int(call["due_s"]), int(ended(call))
        if second <= seconds:
            lines["offered"][second] += 1
        if end <= seconds and in_time(call, lone, slo):
            lines["good"][end] += 1
        if end <= seconds and call["code"] in REFUSED:
            lines["refused"][end] += 1
    return lines


def highest_rate(points, holds):
    """The highest rate up to which `holds` is at least 0, by linear interpolation between the
    measured (rate, margin) points: from the lowest rate up to the first that fails. 0 when the
    lowest fails; the highest measured rate when none does."""
    last = None
    for rate, value in sorted(points):
        margin = holds(value)
        if margin < 0:
            if last is None:
                return 0.0
            return last[0] + (rate - last[0]) * last[1] / (last[1] - margin)
        last = (rate, margin)
    return last[0] if last else None
