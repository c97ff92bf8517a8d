"""Cancels, disconnects, deadlines and deaths by the thousand: every request ends once with a true
status, and nothing is left of it."""

import collections
import dataclasses
import itertools
import json
import pathlib
import statistics

import grpc
from calls import generate, outputs
from observe import until
from restless_clients import RestlessClients, menu

OPTIONS = ("--workers=2", "--worker-threads=1", "--slice=5ms", "--log-format=json")
ROUNDS = 10
KILLS = (1, 2, 3)  # a worker dies in these rounds; the later ones show whether the new ones grow
OK, CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED
LATE, CUT = grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE
REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED

# What the server may say of a request whose client saw this; None: it never came. Whoever leaves, is
# late or has his connection cut does not see the end that is on its way to him, whichever it is.
UNSEEN = {None, "OK", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
TRUE_ENDS = {
    OK: {"OK"},
    CANCELLED: UNSEEN,
    LATE: UNSEEN,
    CUT: UNSEEN,
    REFUSED: {"RESOURCE_EXHAUSTED"},
}


@dataclasses.dataclass
class Usage:
    """Of an idle server and its largest worker."""

    server_mib: float
    worker_mib: float
    files: int
    threads: int


def read_usage(server):
    def mib(pid):
        pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]
        return int(pages) / 256

    process = pathlib.Path(f"/proc/{server.process.pid}")
    return Usage(
        server_mib=mib(server.process.pid),
        worker_mib=max(map(mib, server.worker_pids())),
        files=len(list((process / "fd").iterdir())),
        threads=len(list((process / "task").iterdir())),
    )


def ended(server):
    """Of every request in the log: its id and how often it ended how; "" without an id."""
    ends = collections.defaultdict(list)
    for line in server.log().splitlines():
        fields = json.loads(line)
        if fields["message"] == "request":
            ends[fields["request_id"]].append(fields["code"])
    return ends


def counted(server):
    """Ends by code, as the metrics count them."""
    series = server.metrics().series("hanmo_requests_total")
    codes = collections.Counter()
    for labels, value in series:
        codes[labels["code"]] += int(value)
    return +codes


def assert_ended_once_and_truly(seen, ends):
    wrong = []
    for number, one in seen.items():
        found = ends.get(f"r{number}", [None])
        true = len(found) == 1 and found[0] in TRUE_ENDS.get(one.code, ())
        # Only deadlines are missed, and only what has one is refused.
        if one.code in (LATE, REFUSED) or found[0] in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"):
            true = true and one.fate == "deadline"
        if not true or not one.kept:
            wrong.append((number, one, found))
    assert not wrong, wrong[:10]


def assert_ends_agree(seen, ends, long):
    """What the client's own end was is what the server counts, unless they crossed. How many do depends
    on how late the busy client is, and a short run has few of them."""
    for code in (CANCELLED, LATE):
        found = [ends.get(f"r{n}", [None])[0] for n, one in seen.items() if one.code == code]
        print(code.name, "ended in the server as", collections.Counter(found))
        agree = sum(end in (code.name, None) for end in found)
        assert agree >= (0.7 if long else 0.3) * len(found)


def assert_nothing_grew(usage, long):
    """From the first tenth on; of gRPC's pools of threads, which grow by load, from when no more
    workers were killed. A worker's memory has steps, for the largest batch so far and the kernels
    of new shapes. A short run meets new shapes and loads to its end, on many cores more than on few; in
    a long one a leak would show in most tenths."""
    first, restarted, *settled = usage[0], *usage[max(KILLS) + 1 :]
    last = settled[-1]
    spare = 1 if long else 3
    assert last.threads <= restarted.threads + 8 * spare
    assert last.server_mib <= first.server_mib + 16
    assert last.worker_mib <= restarted.worker_mib + 192 * spare
    growth = [after.worker_mib - before.worker_mib for before, after in itertools.pairwise(settled)]
    print("a worker grew by", growth)
    if long:
        assert statistics.median(growth) < 4


def test_restless_clients(start_server, pytestconfig):
    long = pytestconfig.getoption("--long")
    total = 100_000 if long else 2_000
    server = start_server(*OPTIONS)
    lone = [generate(server, request) for request in menu()]
    clients = RestlessClients(server, lone, seed=2026)
    usage = []
    for number in range(ROUNDS):
        clients.play(total // ROUNDS, kill_worker=number in KILLS)
        until(lambda: server.metrics().sum("hanmo_worker_up") == 2, "both workers")
        server.wait_idle()
        usage.append(read_usage(server))
        print(usage[-1], flush=True)

    # The log is written a moment later.
    until(lambda: +collections.Counter(sum(ended(server).values(), [])) == counted(server), "log")
    print(counted(server))
    print(collections.Counter((one.fate, one.code.name) for one in clients.seen.values()))
    assert_ended_once_and_truly(clients.seen, ended(server))
    assert_ends_agree(clients.seen, ended(server), long)
    assert_nothing_grew(usage, long)
    until(
        lambda: read_usage(server).files <= usage[0].files + 2, "the last connections' files closed"
    )
    metrics = server.metrics()
    assert metrics.sum("hanmo_worker_restarts_total") == len(KILLS)
    assert metrics.sum("hanmo_rejected_total", reason="invalid") == 0
    # It was at all of these moments.
    assert metrics.sum("hanmo_rejected_total", reason="deadline") > 0
    assert metrics.sum("hanmo_deadline_missed_total", phase="waiting") > 0
    assert metrics.sum("hanmo_deadline_missed_total", phase="running") > 0
    assert metrics.sum("hanmo_sliced_steps_total") > 0
    for request, expected in zip(menu(), lone, strict=True):
        assert outputs(generate(server, request)) == outputs(expected)
