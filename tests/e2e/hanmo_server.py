"""A hanmo-server process under test."""

import contextlib
import os
import pathlib
import queue
import signal
import subprocess
import threading

import grpc
from contract import ROOT, admin_pb2_grpc, generation_pb2_grpc, models_pb2, models_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from observe import PATIENCE, Metrics, until

BIN = pathlib.Path(os.environ.get("HANMO_BIN", ROOT / "build/release/bin")).resolve()
# Options for every server, as --devices=cuda:0 --dtype=float32.
OPTIONS = os.environ.get("HANMO_TEST_OPTIONS", "").split()

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

LARGE_MESSAGES = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


def clean_environment(**more):
    """Ours without options of the server, which reads every HANMO_... variable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HANMO_")}
    return kept | more


class Server:
    """Listens on free ports of the loopback when the constructor returns; models may be loading.
    `admin` opens the ports for health and for hanmo.v1.Admin, too; without `metrics` there is none
    for them."""

    def __init__(
        self,
        repository,
        *options,
        log,
        credentials=None,
        environment=None,
        admin=False,
        metrics=True,
    ):
        self.log_file = pathlib.Path(log)
        self._credentials = credentials
        self._channels = []
        command = [
            BIN / "hanmo-server",
            "--listen=localhost:0",
            f"--metrics-listen={'127.0.0.1:0' if metrics else ''}",
            f"--model-repository={repository}",
            *(("--health-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0") if admin else ()),
            *OPTIONS,
            *options,
        ]
        with self.log_file.open("wb") as stderr:
            self.process = subprocess.Popen(
                list(map(str, command)),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=clean_environment(**(environment or {})),
            )
        self._lines = queue.Queue()
        threading.Thread(target=self._read_output, daemon=True).start()
        self.address = self._expect("listening on ")
        self.metrics_address = self._expect("metrics on ") if metrics else None
        if admin:
            self.health_address = self._expect("health on ")
            self.admin_address = self._expect("admin on ")
        self.channel = self.new_channel()
        self.generation = generation_pb2_grpc.GenerationStub(self.channel)
        self.models = models_pb2_grpc.ModelsStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def _read_output(self):
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("")

    def _expect(self, start):
        line = self._lines.get(timeout=PATIENCE)
        if not line.startswith(start):
            self.kill()
            raise RuntimeError(f"hanmo-server said {line!r} and on stderr: {self.log()}")
        return line.removeprefix(start)

    def new_channel(self, *options):
        """A connection of its own: channels of the same options would share one."""
        options = (*LARGE_MESSAGES, ("grpc.use_local_subchannel_pool", 1), *options)
        channel = (
            grpc.secure_channel(self.address, self._credentials, options=options)
            if self._credentials
            else grpc.insecure_channel(self.address, options=options)
        )
        self._channels.append(channel)
        return channel

    def new_generation(self, *options):
        return generation_pb2_grpc.GenerationStub(self.new_channel(*options))

    # Health and state.

    def check(self, service="", timeout=PATIENCE):
        return self.health.Check(
            health_pb2.HealthCheckRequest(service=service), timeout=timeout, wait_for_ready=True
        ).status

    def watch(self, service="", timeout=PATIENCE):
        """An iterator of states as they change."""
        replies = self.health.Watch(
            health_pb2.HealthCheckRequest(service=service), timeout=timeout, wait_for_ready=True
        )
        return (reply.status for reply in replies)

    def wait_serving(self, service=""):
        for state in self.watch(service):
            if state == SERVING:
                return self
        raise AssertionError(f"health of {service!r} ended without SERVING")

    def new_admin(self):
        channel = grpc.insecure_channel(self.admin_address)
        self._channels.append(channel)
        return admin_pb2_grpc.AdminStub(channel)

    def describe(self, model):
        request = models_pb2.DescribeModelRequest(name=model)
        return self.models.DescribeModel(request, timeout=PATIENCE, wait_for_ready=True)

    def metrics(self):
        return Metrics(self.metrics_address)

    def wait_idle(self):
        """No request is waiting or running and no page is in use."""

        def idle():
            now = self.metrics()
            names = ("hanmo_requests_waiting", "hanmo_requests_running", "hanmo_kv_pages_used")
            return all(now.sum(name) == 0 for name in names)

        until(idle, "idle server")

    # The process and its workers.

    def log(self):
        return self.log_file.read_text(errors="replace")

    def worker_pids(self):
        """Direct children named hanmo-worker."""
        return children_named(self.process.pid, "hanmo-worker")

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait_exit(self, patience=PATIENCE):
        return self.process.wait(timeout=patience)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def close(self):
        """Ends the server if it still runs; a server that cannot end is an error."""
        for channel in self._channels:
            channel.close()
        if self.process.poll() is None:
            self.terminate()
            try:
                self.wait_exit()
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"no end after SIGTERM: {self.log()}") from None
        self.process.stdout.close()


def children_named(parent, name):
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = stat.read_text().partition(" (")
            comm, _, fields = rest.rpartition(") ")
            state, ppid = fields.split()[:2]
            if int(ppid) == parent and comm == name and state != "Z":
                found.append(int(pid))
    return sorted(found)


def is_alive(pid):
    """Whether the process runs; one that only waits for its parent to notice its end does not."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(") ")[2].split()[0] not in "ZX"
