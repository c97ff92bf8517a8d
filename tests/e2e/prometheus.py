"""A real Prometheus, as scripts/setup unpacks it."""

import contextlib
import json
import os
import re
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request

from contract import ROOT
from observe import PATIENCE, until

PROGRAMS = ROOT / ".deps/prometheus/usr/bin"
PROMETHEUS, PROMTOOL = PROGRAMS / "prometheus", PROGRAMS / "promtool"
RULES = ROOT / "deploy/helm/hanmo/rules/hanmo.yaml"
# What a ServiceMonitor adds to every series.
LABELS = {"namespace": "demo", "pod": "hanmo-0"}

CONFIG = """
global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 1s}}
rule_files: ['{rules}']
scrape_configs:
- job_name: hanmo
  static_configs: [{{targets: {targets}, labels: {labels}}}]
"""


class Prometheus:
    """Scrapes programs four times a second."""

    def __init__(self, targets, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        config = CONFIG.format(rules=RULES, targets=json.dumps(targets), labels=json.dumps(LABELS))
        (folder / "prometheus.yml").write_text(config)
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address={self.address}",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        until(lambda: len(self.query("up{job='hanmo'} == 1")) == len(targets), "the first scrapes")

    def close(self):
        self._process.terminate()
        self._process.wait(timeout=PATIENCE)
        self._log.close()

    def get(self, path, **parameters):
        """The data of an API call; None while it is not ready."""
        url = f"http://{self.address}/api/v1/{path}?" + urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return None
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        except OSError:
            return None

    def query(self, expression):
        """Series of an instant query, [] while there are none."""
        data = self.get("query", query=expression)
        return data["result"] if data else []

    def query_range(self, expression, start, end, step):
        return self.get("query_range", query=expression, start=start, end=end, step=step)["result"]


def promtool(*arguments, **options):
    done = subprocess.run(
        [PROMTOOL, *map(str, arguments)], text=True, capture_output=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def scraping(folder, *targets):
    prometheus = Prometheus(targets, folder)
    try:
        yield prometheus
    finally:
        prometheus.close()


# Names of families and of the rules' own series, in expressions and documents.
_NAME = re.compile(r"\b(?:hanmo|process|grpc_server)_[a-z_]+[a-z]\b")


def families_in(text):
    """Names of families that `text` mentions."""
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in _NAME.findall(text)}


def recorded_in(text):
    """Names of series that rules record."""
    return set(re.findall(r"\bhanmo(?::\w+)+", text))


UPDATE = os.environ.get("HANMO_UPDATE") == "1"
