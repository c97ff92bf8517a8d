"""A hanmo-gateway process under test."""

import json
import pathlib
import signal
import subprocess
import urllib.error
import urllib.request

from hanmo_server import BIN, clean_environment
from observe import PATIENCE, Metrics


class Reply:
    """What the gateway answered to one request."""

    def __init__(self, reply):
        self.status = reply.status
        self.headers = reply.headers
        self.text = reply.read().decode()

    def json(self):
        return json.loads(self.text)

    def events(self):
        """(name, data) of each server-sent event but "[DONE]"."""
        found = []
        for block in self.text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] not in ":")
            if fields.get("data", "[DONE]") != "[DONE]":
                found.append((fields.get("event"), json.loads(fields["data"])))
        return found


class Gateway:
    """In front of the server at `upstream`; listens on a free port when the constructor returns."""

    def __init__(self, upstream, *options, log, scheme="http", context=None, environment=None):
        self.log_file = pathlib.Path(log)
        self._context = context
        command = [
            BIN / "hanmo-gateway",
            "--listen=127.0.0.1:0",
            f"--upstream={upstream}",
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
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            self.close()
            raise RuntimeError(f"hanmo-gateway said {line!r} and on stderr: {self.log()}")
        self.address = line.removeprefix("listening on ").strip()
        self.url = f"{scheme}://{self.address}"

    def log(self):
        return self.log_file.read_text(errors="replace")

    def open(self, path, body=None, **headers):
        """The open answer of a 2xx; `body` is sent as JSON."""
        request = urllib.request.Request(self.url + path)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        return urllib.request.urlopen(request, timeout=PATIENCE, context=self._context)

    def call(self, path, body=None, **headers):
        """The whole answer, of whatever status."""
        try:
            with self.open(path, body, **headers) as reply:
                return Reply(reply)
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error)

    def metrics(self):
        return Metrics(self.address)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def close(self):
        """Ends the gateway if it still runs."""
        if self.process.poll() is None:
            self.terminate()
            try:
                self.process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"no end after SIGTERM: {self.log()}") from None
        self.process.stdout.close()


def openai_client(gateway):
    import openai  # takes a second, which most tests need not wait

    return openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE
    )
