"""bench/serve: its traces and figures, and that it sees what a server does. No time is judged."""

import json
import statistics
import struct
import subprocess
import sys
from collections import Counter

import pytest
from contract import ROOT
from hanmo_server import BIN, clean_environment

sys.path.insert(0, str(ROOT / "bench"))

from load_generator import figures, models, report, traces  # noqa: E402

PICTURE = traces.picture("painter", 4, 64, 7.5)
TEXT = traces.text("poet", 16, 8)


class TestTraces:
    def test_arrivals_are_poisson(self):
        trace = traces.poisson([(1, PICTURE)], rate=100, seconds=100, seed=1)
        # Ten thousand are expected; the standard deviation is a hundred.
        assert 9600 < len(trace) < 10400
        at = [arrival["at_s"] for arrival in trace]
        assert at == sorted(at) and 0 <= at[0] and at[-1] < 100
        gaps = [b - a for a, b in zip(at, at[1:])]
        # Exponential: deviation and mean are equal, and 1/e of the gaps exceed them.
        mean = statistics.fmean(gaps)
        assert statistics.stdev(gaps) / mean == pytest.approx(1, abs=0.05)
        long = sum(gap > mean for gap in gaps) / len(gaps)
        assert long == pytest.approx(0.368, abs=0.02)
        per_second = Counter(int(t) for t in at)
        counts = [per_second[second] for second in range(100)]
        assert statistics.variance(counts) / statistics.mean(counts) == pytest.approx(1, abs=0.5)

    def test_the_same_seed_gives_the_same_trace(self):
        def draw(seed):
            return traces.poisson([(1, PICTURE), (2, TEXT)], rate=20, seconds=10, seed=seed)

        assert draw(1) == draw(1)
        assert draw(1) != draw(2)

    def test_a_mix_keeps_its_shares(self):
        trace = traces.poisson([(1, PICTURE), (3, TEXT)], 100, 100, seed=3, start=5.0, part="x")
        kinds = Counter(arrival["kind"] for arrival in trace)
        assert kinds["text"] / len(trace) == pytest.approx(0.75, abs=0.02)
        assert min(arrival["at_s"] for arrival in trace) >= 5
        assert all(arrival["part"] == "x" for arrival in trace)
        assert len({arrival["seed"] for arrival in trace}) == len(trace)

    def test_a_burst_has_the_shares_exactly(self):
        burst = traces.burst(
            [(0.5, PICTURE), (0.25, TEXT), (0.25, TEXT | {"max_tokens": 1})], 40, 1
        )
        counts = Counter(traces.shape(arrival) for arrival in burst)
        assert sorted(counts.values()) == [10, 10, 20]
        assert all(arrival["at_s"] == 0 for arrival in burst)

    def test_a_recorded_trace_reads_back(self, tmp_path):
        trace = traces.poisson([(1, PICTURE), (1, TEXT)], 20, 5, seed=1, part="all")
        file = tmp_path / "trace.jsonl"
        file.write_text(traces.dump(trace))
        assert traces.read(file) == trace
        file.write_text('{"at_s": 1, "kind": "text"}\n{"kind": "text"}\n')
        with pytest.raises(ValueError, match="line 2"):
            traces.read(file)

    def test_shape_is_what_takes_the_time(self):
        a, b = (traces.one(PICTURE, seed, at_s=float(seed), part="x") for seed in (1, 2))
        assert traces.shape(a) == traces.shape(b) == traces.shape(PICTURE)
        assert traces.shape(PICTURE | {"steps": 5}) != traces.shape(PICTURE)


def call(job=PICTURE, due=0.0, latency=1.0, code="OK", **more):
    return {"job": job, "due_s": due, "latency_s": latency, "code": code, "cut": False} | more


LONE = {traces.shape(PICTURE): 1.0, traces.shape(TEXT): 0.5}


class TestFigures:
    def test_percentiles_are_linear_between_ranks(self):
        assert figures.percentile([], 50) is None
        assert figures.percentile([7], 99) == 7
        assert figures.percentile([3, 1, 2], 50) == 2
        assert figures.percentile([0, 10], 25) == 2.5
        assert figures.percentile(list(range(101)), 99) == 99

    def test_good_answers_take_at_most_twice_their_lone_latency(self):
        calls = [
            call(latency=2.0),
            call(latency=2.1),
            call(TEXT, latency=1.0),
            call(latency=0.1, code="RESOURCE_EXHAUSTED"),
            call(latency=1.0, code="DEADLINE_EXCEEDED"),
        ]
        found = figures.summarise(calls, LONE, slo=2, seconds=10)
        assert found["goodput"] == 0.2 and found["attainment"] == 0.4
        assert found["mean_slowdown"] == pytest.approx((2.0 + 2.1 + 2.0) / 3)
        assert found["mean_s"] == pytest.approx((2.0 + 2.1 + 1.0) / 3)
        assert (found["refused"], found["missed"], found["failed"]) == (1, 1, 0)
        assert found["refusal_p99_s"] == 0.1
        assert found["offered_rps"] == 0.5

    def test_calls_given_up_count_with_the_time_they_waited(self):
        calls = [call(), call(latency=99.0, code="CANCELLED", cut=True)]
        found = figures.summarise(calls, LONE, slo=2, seconds=10)
        assert found["unfinished"] == 1 and found["failed"] == 0
        assert found["mean_s"] == 50 and found["mean_slowdown"] == 50 and found["goodput"] == 0.1

    def test_wrong_codes_are_failures_by_code(self):
        found = figures.summarise([call(code="INTERNAL"), call(code="DATA_LOSS")], LONE, 2, 1)
        assert found["failed"] == 2 and found["codes"] == {"INTERNAL": 1, "DATA_LOSS": 1}
        assert found["mean_s"] is None and found["goodput"] == 0

    def test_tokens_that_come_together_have_no_gap_between_them(self):
        text = call(TEXT, due=1.0, deltas=[[0.5, 1], [1.0, 3], [1.2, 1], [50, 1]])
        gaps, between_deltas = figures.token_gaps([text], end_s=10)
        assert sorted(gaps) == pytest.approx([0, 0, 0.2, 0.5])
        assert between_deltas == pytest.approx([0.5, 0.2])
        assert figures.tokens_before([text], end_s=2.0) == 4
        found = figures.summarise([text], LONE, 2, seconds=10)
        assert found["first_token_p99_s"] == 0.5 and found["tokens_per_s"] == 0.5

    def test_the_highest_rate_lies_where_the_line_between_measured_points_crosses(self):
        margin = lambda share: share - 0.9
        assert figures.highest_rate([(2, 0.8), (1, 1.0)], margin) == pytest.approx(1.5)
        assert figures.highest_rate([(1, 0.5), (2, 1.0)], margin) == 0
        assert figures.highest_rate([(1, 0.95), (2, 0.9)], margin) == 2
        assert figures.highest_rate([], margin) is None

    def test_recovery_wants_two_good_seconds_in_a_row(self):
        late = [
            call(due=10 + t / 10, latency=1.0 if 10 <= t < 20 or t >= 30 else 9.0)
            for t in range(60)
        ]
        assert figures.recovery_s(late, LONE, 2, since=10, target=0.9) == 3
        assert figures.recovery_s(late, LONE, 2, since=10, target=1.1) is None

    def test_a_part_counts_what_was_answered_during_it(self):
        calls = [call(due=1.0), call(due=9.5), call(due=11.0)]
        found = figures.part_figures(calls, LONE, slo=2, span=(0.0, 10.0))
        assert found["goodput"] == 0.1 and found["offered_rps"] == 0.2


def test_a_line_has_medians_over_the_rounds():
    runs = [
        {"round": i, "load": 0.8, "p99_s": p99, "slowdown_quantiles": [1, p99], "codes": {}}
        for i, p99 in enumerate((5, 3, 40))
    ]
    found = report.medians([*runs, runs[0] | {"p99_s": None, "slowdown_quantiles": None}])
    assert found == {"p99_s": 5, "slowdown_quantiles": [1, 5], "codes": {}}


def test_ratios_are_medians_of_rounds_not_ratios_of_medians():
    def run(mean_s):
        return dict.fromkeys(report.RATIOS) | {"mean_s": mean_s}

    mine, others = [run(m) for m in (1, 2, 30)], [run(m) for m in (2, 8, 60)]
    assert report.ratios(mine, others) == {"mean_s": 0.5}


def test_total_throughput_adds_the_shares_of_what_each_kind_reaches_alone():
    def run(tokens, rows, painted=None):
        return {"tokens_per_s": tokens, "denoise_rows_per_s": rows, "painter_rows_per_s": painted}

    runs = {
        "hanmo": [run(50, 30, 2), run(None, 10, 4)],
        "texts-alone": [run(100, None), run(100, None)],
        "pictures-alone": [run(None, 60), run(None, 20)],
    }
    assert list(report.total_throughput(runs, "hanmo")) == [1.0, 0.5]
    runs["painter-alone"] = [run(None, None, 8), run(None, None, 8)]
    assert list(report.total_throughput(runs, "hanmo")) == [1.25, 1.0]


def test_random_weights_have_the_size_that_training_starts_from():
    import random

    data = models.float16_values("h.0.attn.c_attn.weight", 4096, random.Random(0))
    values = struct.unpack("<4096e", data)
    assert all(1 / 64 <= abs(value) < 1 / 32 for value in values)
    assert abs(statistics.mean(values)) < 0.002 and len(set(values)) > 1000
    assert set(struct.unpack("<8e", models.float16_values("h.0.ln_1.weight", 8, None))) == {1.0}


@pytest.fixture
def serve(tmp_path):
    """Runs bench/serve on the demo models and returns its lines."""
    if not (BIN / "bench_serve").exists():
        pytest.skip("bench_serve is not built: HANMO_BENCH is off")

    def run(*arguments):
        command = [sys.executable, ROOT / "bench/serve", "--bin", BIN, "--json", "--rounds=1"]
        command += [f"--text-model={ROOT / 'models/wenzhong-gpt2-tiny'}", *arguments]
        answer = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, env=clean_environment()
        )
        assert answer.returncode == 0, answer.stderr
        return [json.loads(line) for line in answer.stdout.splitlines()]

    return run


def test_texts_under_every_policy(serve, tmp_path):
    recorded = tmp_path / "trace.jsonl"
    lines = serve(
        "--scenario=text", "--seconds=2", "--capacity=25", "--check", f"--record={recorded}"
    )
    arrivals = traces.read(recorded)
    for line in lines:
        for key in "mean_s p50_s p90_s p99_s mean_slowdown goodput".split():
            assert line[key] > 0 or key == "goodput"
        for key in "first_token_p99_s inter_token_p99_s load_average tokens_per_s".split():
            assert line[key] >= 0
        assert line["offered_rps"] == len(arrivals) / 2
        assert (line["refused"], line["missed"], line["failed"], line["unfinished"]) == (0, 0, 0, 0)
        assert (line["outputs_differ"], line["outputs_wrong"]) == (0, 0)
        assert line["outputs_checked_alone"] > 0 and line["device_share_texts"] == 1
        assert len(line["lone_s"]) == 9


def test_a_trace_and_every_way_a_call_can_end(serve, tmp_path):
    picture = traces.picture("taiyi-sd-tiny", 2, 64, 1.0)
    text = traces.text("wenzhong-gpt2-tiny", 8, 4)
    trace = [traces.one(job, seed) for seed in range(3) for job in (picture, text)]
    # Asked again and again until the run ends, then cut: that is no failure.
    trace.append(traces.one(text, 9, repeat=1))
    # So many steps at once keep it busy past any deadline of a millisecond.
    trace += [traces.one(picture | {"steps": 9}, seed, deadline_s=0.001) for seed in range(2)]
    file = tmp_path / "trace.jsonl"
    file.write_text(traces.dump(trace))
    (line, *_) = serve(f"--trace={file}", "--check")
    assert line["scenario"] == "trace"
    assert line["missed"] == 2 and line["codes"] == {"DEADLINE_EXCEEDED": 2}
    assert line["offered_rps"] == 8 and line["failed"] == line["unfinished"] == 0
    assert line["inter_token_p99_s"] > 0
    assert line["outputs_checked_alone"] == 6 and line["outputs_wrong"] == 0
    assert line["picture_batch"] >= 1 and 0 < line["device_share_pictures"] < 1
    assert line["server_rss_peak_mb"] > 50


def test_refusals_are_counted_and_timed(serve, tmp_path):
    job = traces.picture("taiyi-sd-tiny", 10, 64, 7.5)
    file = tmp_path / "trace.jsonl"
    file.write_text(traces.dump([traces.one(job, seed) for seed in range(40)]))
    options = ("--server-option=--max-queued-requests=1", "--server-option=--max-running-samples=1")
    (line, *_) = serve(f"--trace={file}", *options)
    assert line["refused"] > 0 and line["codes"] == {"RESOURCE_EXHAUSTED": line["refused"]}
    assert line["refusal_p99_s"] > 0 and line["attainment"] < 1
