"""Waiting for what can be seen, and reading what a server exports."""

import re
import time
import urllib.request

PATIENCE = 60.0  # seconds; nothing here takes a tenth of it on an idle machine

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def until(condition, what, patience=PATIENCE):
    """The first true value of `condition()`; fails, naming `what`, when there is none in time."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.005)


class Metrics:
    """One reading of /metrics."""

    def __init__(self, address):
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE) as reply:
            self.text = reply.read().decode()
        self._samples = []
        for line in self.text.splitlines():
            found = _SAMPLE.match(line)
            if found and not line.startswith("#"):
                name, labels, value = found.groups()
                self._samples.append((name, dict(_LABEL.findall(labels or "")), float(value)))

    def sum(self, name, **labels):
        """Sum of all series of that name with these labels; 0 when there is none."""
        return sum(value for _, value in self.series(name, **labels))

    def series(self, name, **labels):
        return [
            (has, value)
            for other, has, value in self._samples
            if other == name and labels.items() <= has.items()
        ]

    def names(self):
        """Families, as the TYPE lines name them."""
        return set(re.findall(r"^# TYPE (\S+)", self.text, re.MULTILINE))
