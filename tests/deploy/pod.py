"""Runs the containers of a rendered pod as processes of this machine."""

import pathlib
import queue
import re
import subprocess
import threading

from contract import ROOT
from hanmo_server import BIN, clean_environment
from observe import PATIENCE, until


def image_environment():
    """What the Dockerfile sets for all programs of the image."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    pairs = [re.findall(r"(\w+)=(\S+)", line) for line in lines if line.startswith("ENV ")]
    found = dict(pair for line in pairs for pair in line)
    assert "HANMO_LISTEN" in found
    return found


class Container:
    """One container's command, with the paths of its mounts and its ports replaced."""

    def __init__(self, container, paths, log):
        self.name = container["name"]
        self.log_file = pathlib.Path(log)
        program, *rest = [*container["command"], *container.get("args", ())]
        variables = {
            one["name"]: one["value"] if "value" in one else "1"  # the share of the cores
            for one in container.get("env", ())
        }
        environment = image_environment() | variables
        command = [str(BIN / program)]  # stays as it is where it is a whole path
        for argument in rest:
            for name, value in variables.items():
                argument = argument.replace(f"$({name})", value)
            for inside, outside in paths.items():
                argument = argument.replace(inside, str(outside))
            command.append(re.sub(r"\b(0\.0\.0\.0|127\.0\.0\.1):\d+", "127.0.0.1:0", argument))
        with self.log_file.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=clean_environment(**environment),
            )
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("")

    def expect(self, start):
        """The rest of the next line on stdout, which begins so."""
        line = self._lines.get(timeout=PATIENCE)
        assert line.startswith(start), f"{line!r}; {self.log_file.read_text()}"
        return line.removeprefix(start)

    def terminate(self):
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        print(f"{self.name}: {self.log_file.read_text()}")


class Pod:
    """Starts in the order of Kubernetes: native sidecars, then the server."""

    def __init__(self, spec, config_map, models, folder):
        (folder / "config").mkdir()
        (folder / "run").mkdir()
        for name, text in config_map["data"].items():
            (folder / "config" / name).write_text(text)
        paths = {
            "/etc/hanmo/hanmo.yaml": folder / "config/hanmo.yaml",
            "/run/hanmo": folder / "run",
            "=/models": f"={models}",
        }
        self.workers, self.server = [], None
        try:
            for container in spec["initContainers"]:
                log = folder / f"{container['name']}.log"
                self.workers.append(Container(container, paths, log))
            server = spec["containers"][0]
            self.server = Container(server, paths, folder / "server.log")
            self.address = self.server.expect("listening on ")
            self.metrics = self.server.expect("metrics on ")
            self.health = self.server.expect("health on ")
            self.admin = self.server.expect("admin on ")
        except BaseException:
            self.close()
            raise

    def terminate(self):
        """As a kubelet does; the codes of the server and of the workers, which end after it."""
        code = self.server.terminate()
        until(lambda: all(one.process.poll() is None for one in self.workers), "living workers")
        return code, [one.terminate() for one in reversed(self.workers)]

    def close(self):
        for one in (*self.workers, self.server):
            if one is not None:
                one.close()
