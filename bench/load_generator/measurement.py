"""Measures the sides of a scenario, in turns."""

import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

from load_generator import figures, models, scenarios, servers, traces
from load_generator.scenarios import SCENARIOS, Side

CHECKED_OUTPUTS = 32


def note(words):
    print(f"serve: {words}", file=sys.stderr, flush=True)


def policy_sides(args):
    """One side per policy; only one where hanmo-server does not know any."""
    command = [args.bin / "hanmo-server", "--help"]
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    options = tuple(args.server_option)
    if "--policy" not in known:
        note("this hanmo-server has no --policy: measuring the one it has")
        return [Side("built-in", options)]
    return [Side(name, (f"--policy={name}", *options)) for name in args.policies.split(",")]


class Bench:
    """One scenario under way: its servers, lone latencies and what was measured."""

    def __init__(self, args, stack):
        self._args = args
        self._stack = stack
        self._scenario = SCENARIOS[args.scenario]
        self._folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._slo = args.slo or self._scenario.slo
        self.loads = args.loads or list(self._scenario.loads)
        text_model = args.text_model or models.DEFAULT_TEXT_MODEL
        if args.text_model is None:
            models.make_gpt2(text_model)
        self._folders = {
            "picture": args.picture_model,
            "text": text_model,
            "painter": models.DEMO_PAINTER,
        }
        self._jobs = scenarios.default_jobs(args.picture_model, args.sizes, text_model)
        self._recorded = traces.read(args.trace) if args.trace else None
        self._kinds = self._scenario.kinds
        if self._recorded:
            kind_of = {folder.name: kind for kind, folder in self._folders.items()}
            wanted = {kind_of.get(a.get("model"), a["kind"]) for a in self._recorded}
            self._kinds = tuple(sorted(wanted))
        self._started = {}
        self.sides = policy_sides(args)
        self._policies = self.sides
        if not self._recorded:
            self.sides = self._scenario.sides(self.sides)
        self._lone_runs = {}
        self._capacity = {}
        self._outputs = {}  # (round, load, arrival) -> side -> hash
        self._runs = {side.name: [] for side in self.sides}

    # Servers.

    def _server(self, options, kinds):
        key = (options, kinds)
        if key not in self._started:
            served = {self._folders[kind].name: self._folders[kind] for kind in kinds}
            place = self._folder / f"server{len(self._started)}"
            server = servers.Server(self._args.bin, served, options, place)
            self._stack.callback(server.close)
            self._started[key] = server
        return self._started[key]

    def _servers(self, side):
        """Those of pictures and of texts; they are one unless the side is split."""
        left_out = {"picture": "text", "text": "picture"} if side.split else {}
        return {
            of: self._server(side.options, tuple(k for k in self._kinds if k != left_out.get(of)))
            for of in ("picture", "text")
        }

    def _play(self, side, trace, **more):
        return servers.play(self._args.bin, self._servers(side), trace, **more)

    # What an idle server takes.

    def _lone_jobs(self):
        if self._recorded:
            by_shape = {traces.shape(a): a for a in self._recorded if not a.get("repeat")}
            return list(by_shape.values())
        if isinstance(self._scenario, scenarios.TextUnderPictures):
            return []  # it asks for everything again and again: nothing to compare
        return [job for _, job in self._scenario.mix(self._jobs)]

    def measure_lone(self, seed):
        """Each job once, one after the other, with prompts of their own."""
        plain = traces.NOT_SHAPE
        jobs = [{k: v for k, v in job.items() if k not in plain} for job in self._lone_jobs()]
        if not jobs:
            return
        trace = [traces.one(job, seed * 10_000 + i) for i, job in enumerate(jobs)]
        calls, _, _ = self._play(self.sides[0], trace, one_by_one=True, drain=600)
        for call in calls:
            if call["code"] != "OK":
                raise RuntimeError(f"alone, {call['job']} ended with {call['code']}: {call}")
            self._lone_runs.setdefault(traces.shape(call["job"]), []).append(call["latency_s"])

    def lone(self):
        return {shape: statistics.median(runs) for shape, runs in self._lone_runs.items()}

    def measure_capacity(self, sides):
        """Requests of the mix a second, from a burst of about ten seconds' work."""
        if self._recorded or not self._scenario.poisson or self._args.capacity:
            return
        lone = self.lone()
        mix = self._scenario.mix(self._jobs)
        mean_work = traces.mean_of_mix(mix, lambda job: lone[traces.shape(job)])
        count = max(32, min(800, round(10 / mean_work)))
        trace = traces.burst(mix, count, self._args.seed)
        work = sum(lone[traces.shape(arrival)] for arrival in trace)
        for side in sides:
            if side.name not in self._capacity:
                # The server learns first which batches pay.
                self._play(side, trace, drain=600)
            calls, _, _ = self._play(side, trace, drain=600)
            refused = [call for call in calls if call["code"] != "OK"]
            if refused:
                raise RuntimeError(f"capacity: {len(refused)} refused, the first {refused[0]}")
            seconds = max(figures.ended(call) for call in calls)
            # Whole numbers of each job are not the mix exactly: count work, not requests.
            capacity = work / mean_work / seconds
            self._capacity.setdefault(side.name, []).append(capacity)
            note(f"{side.name}: capacity {capacity:.2f} requests/s")

    def _reference(self):
        """The side whose capacity loads are shares of: first come first served has to bear them."""
        return next((side for side in self._policies if side.name == "fcfs"), self._policies[0])

    def _reference_capacity(self):
        """As it was last: who else uses the machine changes from round to round."""
        measured = self._capacity.get(self._reference().name)
        return self._args.capacity or (measured[-1] if measured else 1.0)

    # The runs.

    def _trace(self, number, load):
        if self._recorded:
            return self._recorded
        rate = load * self._reference_capacity()
        if not self._scenario.poisson:
            rate = 1 / max([*self.lone().values(), 0.1])
        seed = self._args.seed + number
        trace = self._scenario.trace(self._jobs, rate, self._args.seconds, seed)
        if self._args.scenario == "overload":
            lone = self.lone()
            for arrival in trace:
                arrival["deadline_s"] = round(self._slo * lone[traces.shape(arrival)], 6)
        return trace

    def _length(self):
        if self._recorded:
            return max(1.0, self._recorded[-1]["at_s"])
        return self._scenario.length(self._args.seconds)

    def measure(self):
        # Nothing is compared with the first pass, which warms the servers up.
        for side in self.sides:
            warm = [traces.one(job, i) for i, job in enumerate(self._warm_jobs())]
            self._play(side, warm, drain=600)
        for number in range(self._args.rounds):
            for repetition in range(3 if self._args.rounds == 1 else 2):
                self.measure_lone(100 * number + repetition)
            self.measure_capacity(self._policies if number == 0 else [self._reference()])
            for load in self.loads:
                self._measure_round(number, load)

    def _warm_jobs(self):
        lone = self._lone_jobs() or [job for _, job in self._scenario.mix(self._jobs)]
        if "text" in self._kinds:
            lone.append(traces.text(self._jobs.text_model, 16, 8))
        if "painter" in self._kinds:
            lone.append(traces.painting(self._jobs.painter))
        plain = traces.NOT_SHAPE
        return [{k: v for k, v in job.items() if k not in plain} for job in lone]

    def _measure_round(self, number, load):
        trace = self._trace(number, load)
        if not trace:
            raise RuntimeError("no arrival in that time: raise --seconds or --loads")
        if self._args.record and number == 0 and load == self.loads[0]:
            self._args.record.write_text(traces.dump(trace))
        length = self._length()
        turn = number % len(self.sides)
        for side in self.sides[turn:] + self.sides[:turn]:
            kept = [arrival for arrival in trace if side.keeps(arrival)]
            note(f"round {number + 1}, load {load:g}: {side.name}, {len(kept)} arrivals")
            calls, sender, watched = self._play(
                side,
                kept,
                seconds=length,
                drain=max(60.0, 2 * length),
                # What a trace of our own offers is steady until then.
                watch_until_end=bool(self._recorded),
            )
            self._runs[side.name].append((number, load, calls, sender, watched))
            for call in calls:
                if call["code"] == "OK" and not call["job"].get("repeat"):
                    where = (number, load, json.dumps(call["job"], sort_keys=True))
                    self._outputs.setdefault(where, {})[side.name] = call["hash"]

    def check_outputs(self):
        """Outputs that sides gave otherwise than each other, or than an idle server gives them."""
        result = {
            "outputs_compared": sum(len(by_side) > 1 for by_side in self._outputs.values()),
            "outputs_differ": sum(len(set(o.values())) > 1 for o in self._outputs.values()),
        }
        if not self._args.check or not self._outputs:
            return result
        wheres = sorted(self._outputs)
        chosen = random.Random(0).sample(wheres, min(CHECKED_OUTPUTS, len(wheres)))
        jobs = [json.loads(job) | {"at_s": 0.0} for _, _, job in chosen]
        for job in jobs:
            job.pop("deadline_s", None)
        calls, _, _ = self._play(self.sides[0], jobs, one_by_one=True, drain=600)
        alone = {call["arrival"]: call["hash"] for call in calls}
        wrong = sum({alone[i]} != set(self._outputs[w].values()) for i, w in enumerate(chosen))
        return result | {"outputs_checked_alone": len(chosen), "outputs_wrong": wrong}

    # The figures.

    def _figures(self, run):
        number, load, calls, sender, watched = run
        lone, seconds = self.lone(), self._length()
        found = figures.summarise(calls, lone, self._slo, seconds) | watched
        found |= figures.sender_figures(calls, sender)
        if self._args.scenario == "overload" and not self._recorded:
            found |= self._overload_figures(calls)
        return {"round": number, "load": load} | found

    def _overload_figures(self, calls):
        spans = self._scenario.spans(self._args.seconds)
        lone = self.lone()
        parts = {
            part: figures.part_figures(calls, lone, self._slo, span) for part, span in spans.items()
        }
        target = 0.9 * (parts["before"]["attainment"] or 0)
        return {
            "goodput": parts["overload"]["goodput"],
            "refusal_p99_s": parts["overload"]["refusal_p99_s"],
            "recovery_s": figures.recovery_s(calls, lone, self._slo, spans["after"][0], target),
            "parts": parts,
            "timeline": figures.timeline(calls, lone, self._slo, self._length()),
        }

    def run_figures(self):
        """Of each run, by side."""
        return {name: [self._figures(run) for run in runs] for name, runs in self._runs.items()}

    def settings(self, side):
        jobs = self._jobs
        """What the figures of a side belong to."""
        return {
            "scenario": "trace" if self._recorded else self._args.scenario,
            "policy": side.name,
            "capacity_rps": figures.median(self._capacity.get(side.name, [])),
            "load": self.loads[0],
            "seconds": self._args.seconds,
            "rounds": self._args.rounds,
            "slo": self._slo,
            "lone_s": {
                " ".join(f"{k}={v}" for k, v in shape if k not in ("model", "sampler")): seconds
                for shape, seconds in self.lone().items()
            },
            "picture_model": jobs.picture_model if "picture" in self._kinds else None,
            "text_model": jobs.text_model if "text" in self._kinds else None,
            "cores": os.cpu_count(),
        }
