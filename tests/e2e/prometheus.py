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
# What a ServiceMonitor adds to every series: the job is the name of the Service.
LABELS = {"namespace": "demo", "pod": "hanmo-0"}
GATEWAY_LABELS = {"namespace": "demo", "pod": "hanmo-gateway-0"}
# Other programs of the cluster; their metrics are Prometheus' own.
OTHERS = [
    {"namespace": "monitoring", "pod": "prometheus-0"},
    {"namespace": LABELS["namespace"], "pod": "database-0"},
]

CONFIG = """
global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 1s}}
rule_files: ['{rules}']
scrape_configs:
"""


def _job(name, *targets):
    """Of (address, labels) pairs."""
    return {
        "job_name": name,
        "static_configs": [{"targets": [address], "labels": has} for address, has in targets],
    }


class Prometheus:
    """Scrapes programs four times a second."""

    def __init__(self, folder, server, gateway=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        jobs = [_job("hanmo", (server, LABELS))]
        if gateway:
            jobs.append(_job("hanmo-gateway", (gateway, GATEWAY_LABELS)))
        jobs.append(_job("other", *((self.address, labels) for labels in OTHERS)))
        text = CONFIG.format(rules=RULES) + "".join(f"- {json.dumps(job)}\n" for job in jobs)
        (folder / "prometheus.yml").write_text(text)
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
        targets = len(jobs) - 1 + len(OTHERS)
        until(lambda: len(self.query("up == 1")) == targets, "the first scrapes")

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
def scraping(folder, server, gateway=None):
    prometheus = Prometheus(folder, server, gateway)
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
