"""hanmo-server processes, what they say of themselves, and playing a trace against them."""

import contextlib
import json
import math
import os
import pathlib
import re
import subprocess
import threading
import time
import urllib.request

from load_generator import traces

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Server:
    """Serves `models`, a dict of name -> folder, on free ports of the loopback, until closed."""

    def __init__(self, programs, models, options, folder):
        repository = folder / "repository"
        repository.mkdir(parents=True)
        for name, target in models.items():
            (repository / name).symlink_to(target.resolve(), target_is_directory=True)
        command = [
            programs / "hanmo-server",
            "--listen=127.0.0.1:0",
            "--metrics-listen=127.0.0.1:0",
            f"--model-repository={repository}",
            "--log-level=warning",
            *options,
        ]
        # Without the options in our environment, which hanmo-server would read.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HANMO_")}
        self.log = folder / "server.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        self.address, self._metrics = self._expect("listening on "), self._expect("metrics on ")
        for name in models:
            check = [programs / "hanmo", "health", name, "--wait", "600s", "--server", self.address]
            answer = subprocess.run(check, capture_output=True, text=True)
            if answer.returncode != 0:
                raise RuntimeError(f"{name} is not served: {answer.stderr}{self.log.read_text()}")

    def _expect(self, start):
        line = self._process.stdout.readline().rstrip("\n")
        if not line.startswith(start):
            raise RuntimeError(f"hanmo-server said {line!r} and {self.log.read_text()}")
        return line.removeprefix(start)

    def metrics(self):
        """A list of (name, labels, value)."""
        address = self._metrics.removeprefix("http://").removesuffix("/metrics")
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = [SAMPLE.match(line) for line in lines if not line.startswith("#")]
        return [
            (match[1], dict(LABEL.findall(match[2] or "")), float(match[3]))
            for match in found
            if match
        ]

    def pids(self):
        """The server and its workers."""
        pid = self._process.pid
        found = [pid]
        # A thread of its own started each worker.
        for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, children.read_text().split())
        return found

    def close(self):
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def wait_idle(self, patience_s=60):
        """Calls that were cut may be at work for another step."""
        end = time.monotonic() + patience_s
        while any(
            value
            for name, _, value in self.metrics()
            if name in ("hanmo_requests_waiting", "hanmo_requests_running")
        ):
            if time.monotonic() > end:
                raise RuntimeError("requests are still running though all calls have ended")
            time.sleep(0.05)


def resident_bytes(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    return total


def processor_seconds(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def machine_seconds():
    """Processor time that the whole machine has spent on anything."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / TICK


class Watch:
    """What the servers did between the beginning of a run and `seconds` later, from their metrics,
    and their memory until the watch ends."""

    def __init__(self, servers, seconds):
        self._servers = servers
        self._pids = [pid for server in servers for pid in server.pids()]
        self._end = threading.Event()
        self._before = self._scrape()
        self._start_bytes = self._peak_bytes = resident_bytes(self._pids)
        self._load = os.getloadavg()[0]
        self._after = None
        self._seconds = seconds
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _scrape(self):
        metrics = [sample for server in self._servers for sample in server.metrics()]
        spent = processor_seconds(self._pids), time.process_time(), machine_seconds()
        return metrics, time.monotonic(), spent

    def _run(self):
        due = self._before[1] + self._seconds
        while not self._end.wait(min(0.25, max(0.0, due - time.monotonic()) or 0.25)):
            self._peak_bytes = max(self._peak_bytes, resident_bytes(self._pids))
            if self._after is None and time.monotonic() >= due:
                self._after = self._scrape()

    def figures(self, sender_processor_s):
        self._end.set()
        self._thread.join()
        after = self._after or self._scrape()
        wall = after[1] - self._before[1]
        servers, us, machine = (b - a for a, b in zip(self._before[2], after[2]))

        def grown(name, **labels):
            def total(samples):
                return sum(
                    value
                    for sample, have, value in samples
                    if sample == name and labels.items() <= have.items()
                )

            return total(after[0]) - total(self._before[0])

        def batch(step):
            steps = grown("hanmo_batch_size_count", step=step)
            return grown("hanmo_batch_size_sum", step=step) / steps if steps else None

        # Steps of texts and of pictures are in one family, told apart by the model.
        painters = {
            have["model"]
            for name, have, value in after[0]
            if name == "hanmo_batch_size_count" and have["step"] == "vae_decode" and value
        }
        pictures = sum(
            grown(f"hanmo_{step}_seconds_sum", model=model)
            for model in painters
            for step in ("text_encode", "step", "vae_decode")
        )
        texts = grown("hanmo_step_seconds_sum") - sum(
            grown("hanmo_step_seconds_sum", model=model) for model in painters
        )
        by_tokens = sum(
            grown("hanmo_batch_size_sum", step="text", model=model) for model in painters
        )
        busy = pictures + texts
        return {
            "device_busy": busy / wall,
            "device_share_pictures": pictures / busy if busy else None,
            "device_share_texts": texts / busy if busy else None,
            "denoise_rows_per_s": grown("hanmo_batch_size_sum", step="denoise") / wall,
            "painter_rows_per_s": by_tokens / wall,
            "picture_batch": batch("denoise"),
            "text_batch": batch("text"),
            "server_rss_start_mb": self._start_bytes / 1e6,
            "server_rss_peak_mb": self._peak_bytes / 1e6,
            "server_cores": servers / wall,
            # Busy with what is none of ours: where it is not near 0, absolute times are too long,
            # and a side of more processes gets more of the machine.
            "other_cores": max(0.0, (machine - servers - us - sender_processor_s) / wall),
            "load_average": self._load,
        }


def play(programs, servers, trace, *, seconds=0.0, drain, one_by_one=False, watch_until_end=False):
    """Plays `trace` against `servers`, by kind of arrival. Returns the calls, each with its arrival
    under "job"; what bench_serve says of itself; what the servers did during `seconds` or until the
    last call ended."""
    command = [programs / "bench_serve", f"--length={seconds}", f"--drain={drain}"]
    command += [f"--pictures={servers['picture'].address}", f"--texts={servers['text'].address}"]
    if one_by_one:
        command.append("--one-by-one")
    different = list(dict.fromkeys(servers.values()))
    watch = Watch(different, math.inf if watch_until_end else seconds)
    answer = subprocess.run(command, input=traces.dump(trace), capture_output=True, text=True)
    if answer.returncode != 0:
        raise RuntimeError(f"bench_serve ended with {answer.returncode}: {answer.stderr}")
    *calls, sender = map(json.loads, answer.stdout.splitlines())
    for call in calls:
        call["job"] = trace[call["arrival"]]
    watched = watch.figures(sender["processor_s"])
    for server in different:
        server.wait_idle()
    return calls, sender, watched
