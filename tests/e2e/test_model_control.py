"""Models come, change and go while the server runs, and no request notices more than it asked for."""

import pathlib
import re
import shutil
import statistics
import subprocess
import threading
import time

import grpc
import pytest
from calls import PAINTER, error_of, generate, picture_request, text_request, violations, write
from contract import ROOT, admin_pb2, models_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hanmo_server import BIN, NOT_SERVING, SERVING, clean_environment
from observe import PATIENCE, until
from repositories import WEIGHTS, replace_weights, write_deep_poet, write_poet

CODE = grpc.StatusCode


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    write_poet(folder / "poet" / "1")
    write_poet(folder / "poet" / "2", other=True)
    return folder


def verse(version="", **parameters):
    request = text_request(
        model="poet", max_tokens=12, temperature=0.0, ignore_eos=True, **parameters
    )
    request.version = version
    return request


def load(admin, name="poet", version=0, timeout=PATIENCE):
    request = admin_pb2.LoadModelRequest(name=name, version=version)
    return admin.LoadModel(request, timeout=timeout)


def unload(admin, name="poet", version=0):
    return admin.UnloadModel(
        admin_pb2.UnloadModelRequest(name=name, version=version), timeout=PATIENCE
    )


def label(admin, name, version):
    request = admin_pb2.SetLabelRequest(name="poet", label=name, version=version)
    return admin.SetLabel(request, timeout=PATIENCE)


def own_mib(pid):
    """What the system can't drop of a process: not the pages of files that it has mapped."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return sum(int(n) for n in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", status, re.M)) / 1024


def test_versions_and_labels(start_server, repository):
    server = start_server(repository=repository, admin=True)
    admin = server.new_admin()
    newest = generate(server, verse())
    assert newest.version == 2
    error = error_of(generate, server, verse("1"))
    assert error.code() == CODE.NOT_FOUND and 'no version "1" loaded' in error.details()
    error = error_of(label, admin, "stable", 1)
    assert (
        error.code() == CODE.FAILED_PRECONDITION
        and "1 of model poet is not ready" in error.details()
    )

    assert load(admin, version=1).version == 1
    older = generate(server, verse("1"))
    assert older.version == 1 and older.outputs[0].text.text != newest.outputs[0].text.text
    assert generate(server, verse()).version == 2  # the newest
    label(admin, "stable", 1)
    label(admin, "canary", 2)
    assert [generate(server, verse(v)).version for v in ("", "stable", "canary", "2")] == [
        1,
        1,
        2,
        2,
    ]
    (listed,) = server.models.ListModels(models_pb2.ListModelsRequest(), timeout=PATIENCE).models
    assert [(v.version, v.state, list(v.labels), v.is_default) for v in listed.versions] == [
        (1, models_pb2.MODEL_STATE_READY, ["stable"], True),
        (2, models_pb2.MODEL_STATE_READY, ["canary"], False),
    ]

    error = error_of(unload, admin, "poet", 1)
    assert error.code() == CODE.FAILED_PRECONDITION and '"stable"' in error.details()
    admin.RemoveLabel(admin_pb2.RemoveLabelRequest(name="poet", label="stable"), timeout=PATIENCE)
    assert list(unload(admin, version=1).versions) == [1]
    assert generate(server, verse()).version == 2
    error = error_of(label, admin, "stable", 1)
    assert error.code() == CODE.FAILED_PRECONDITION
    error = error_of(load, admin, version=7)
    assert error.code() == CODE.NOT_FOUND and "it has 1, 2" in error.details()

    admin.RemoveLabel(admin_pb2.RemoveLabelRequest(name="poet", label="canary"), timeout=PATIENCE)
    unload(admin)
    error = error_of(generate, server, verse())
    assert error.code() == CODE.FAILED_PRECONDITION and "no version" in error.details()
    assert server.check("poet") == NOT_SERVING
    load(admin)
    assert write(server, verse()).text == newest.outputs[0].text.text


def test_labels_from_the_start(start_server, repository):
    options = ("--label=poet:stable=1", "--label=poet:canary=2")
    server = start_server(*options, repository=repository, admin=True)
    asked = ("", "stable", "canary", "1", "2")
    assert [generate(server, verse(v)).version for v in asked] == [1, 1, 2, 1, 2]
    error = error_of(unload, server.new_admin(), "poet", 1)
    assert error.code() == CODE.FAILED_PRECONDITION and '"stable"' in error.details()


def test_unloading_waits_for_those_under_way(start_server, repository):
    server = start_server(repository=repository, admin=True)
    admin = server.new_admin()
    stream = server.generation.GenerateStream(verse(n=16, seed=1), timeout=PATIENCE)
    next(stream)
    gone = admin.UnloadModel.future(admin_pb2.UnloadModelRequest(name="poet"), timeout=PATIENCE)
    *_, last = stream
    assert len(last.final.outputs) == 16
    assert list(gone.result().versions) == [2]


def test_hot_reloads_under_load(start_server, repository, pytestconfig):
    rounds = 1000 if pytestconfig.getoption("--long") else 50
    server = start_server("--load=poet:1", "--log-level=warning", repository=repository, admin=True)
    admin = server.new_admin()
    expected = {}
    for other in (True, False):
        replace_weights(repository / "poet" / "1", other)
        load(admin, version=1)
        expected[other] = write(server, verse()).text
    assert expected[True] != expected[False]

    done = threading.Event()
    seen, failed = set(), []

    def ask(streaming):
        while not done.is_set():
            try:
                if streaming:
                    *_, last = server.generation.GenerateStream(verse(), timeout=PATIENCE)
                    seen.add(last.final.outputs[0].text.text)
                else:
                    seen.add(write(server, verse()).text)
            except grpc.RpcError as error:
                failed.append(error)

    clients = [threading.Thread(target=ask, args=(i % 2 == 1,)) for i in range(4)]
    for client in clients:
        client.start()
    sizes = []
    for number in range(rounds):
        other = number % 2 == 0
        replace_weights(repository / "poet" / "1", other)
        load(admin, version=1)
        # Whoever asks from now on gets the new one.
        assert write(server, verse()).text == expected[other]
        sizes.append([own_mib(pid) for pid in (server.process.pid, *server.worker_pids())])
    done.set()
    for client in clients:
        client.join()
    assert not failed, failed[:3]
    assert seen == set(expected.values())  # never a mixture
    quarter = rounds // 4
    first, *quarters = (
        [statistics.median(column) for column in zip(*part, strict=True)]
        for part in (sizes[:1], *(sizes[i * quarter : (i + 1) * quarter] for i in range(4)))
    )
    for when, (served, computed) in zip(("first", 1, 2, 3, 4), (first, *quarters), strict=True):
        print(f"{when}: server {served:.1f} MiB, worker {computed:.1f} MiB")
    # Of both programs together, from the second quarter to the last. The heap of a short run is still
    # finding its size; a leak of all weights shows in it all the same.
    settled, last = sum(quarters[1]), sum(quarters[-1])
    if rounds == 1000:
        assert last <= 1.01 * settled
    else:
        weights_mib = (repository / "poet" / "1" / WEIGHTS).stat().st_size / 2**20
        assert last - settled < 2 * quarter * weights_mib / 2
    server.wait_idle()


def test_texts_flow_while_a_large_model_is_read(start_server, repository):
    write_deep_poet(repository / "novelist", layers=400)
    server = start_server("--load=poet", "--kv-memory=160MiB", repository=repository, admin=True)
    write(server, verse())
    request = admin_pb2.LoadModelRequest(name="novelist")
    loading = server.new_admin().LoadModel.future(request, timeout=PATIENCE)
    begin, seconds = time.monotonic(), []
    while not loading.done():
        asked = time.monotonic()
        write(server, verse())
        seconds.append(time.monotonic() - asked)
    assert loading.result().version == 1
    assert seconds
    # Some may be done before the worker hears of it.
    print(f"{len(seconds)} texts, the slowest in {max(seconds):.3f} s")
    assert len(seconds) > 10 or max(seconds) < (time.monotonic() - begin) / 2


def test_what_cannot_be_loaded_changes_nothing(start_server, repository):
    server = start_server(repository=repository, admin=True)
    admin = server.new_admin()
    before = write(server, verse()).text
    folder = repository / "poet" / "2"
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])
    error = error_of(load, admin)
    assert error.code() == CODE.FAILED_PRECONDITION and WEIGHTS in error.details()
    (folder / "config.json").write_text("{")
    error = error_of(load, admin)
    assert error.code() == CODE.FAILED_PRECONDITION and "config.json" in error.details()
    shutil.rmtree(folder)
    assert error_of(load, admin, "poet", 2).code() == CODE.NOT_FOUND
    assert write(server, verse()).text == before
    assert server.check("poet") == SERVING
    assert len(server.worker_pids()) == 1 and "worker lost" not in server.log()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../repository/poet",
        "/etc",
        "poet/1",
        "poet\\1",
        "poet/",
        "%2e%2e",
        "a" * 129,
        "诗",
    ],
)
def test_names_lead_nowhere_else(start_server, repository, name):
    server = start_server(repository=repository, admin=True)
    admin = server.new_admin()
    for call in (load, unload):
        error = error_of(call, admin, name)
        assert error.code() == CODE.INVALID_ARGUMENT
        assert list(violations(error)) == ["name"]


def test_a_model_out_of_memory_is_loaded_by_its_next_request(start_server, tmp_path):
    repository = tmp_path / "repository"
    write_poet(repository / "first")
    write_poet(repository / "second", other=True)
    server = start_server("--model-memory=12MiB", repository=repository, admin=True)

    def states():
        request = models_pb2.ListModelsRequest()
        return {m.state for m in server.models.ListModels(request, timeout=PATIENCE).models}

    # 9 MB each, so one of them had to go.
    until(
        lambda: states() == {models_pb2.MODEL_STATE_READY, models_pb2.MODEL_STATE_IDLE}, "one idle"
    )
    texts = [
        write(server, text_request(model=name, max_tokens=8, temperature=0.0)).text
        for name in ("first", "second", "first", "second")
    ]
    assert texts[0] == texts[2] != texts[1] == texts[3]
    until(lambda: server.log().count("model idle") >= 2, "the log")
    assert server.check("first") == server.check("second") == SERVING


def test_probes_are_answered_under_load_and_while_loading(start_server, repository, pytestconfig):
    """More is asked than runs at a time, and a model is read again and again."""
    count = 10_000 if pytestconfig.getoption("--long") else 2_000
    (repository / PAINTER).symlink_to(ROOT / "models" / PAINTER, target_is_directory=True)
    server = start_server("--max-running-samples=1", repository=repository, admin=True)
    admin = server.new_admin()
    done = threading.Event()
    loads = []

    def reload():
        while not done.is_set():
            loads.append(load(admin, version=2))

    def ask(request):
        while not done.is_set():
            generate(server, request)

    asked = [verse()] * 4 + [picture_request()] * 3
    others = [threading.Thread(target=ask, args=(request,)) for request in asked]
    others.append(threading.Thread(target=reload))
    for other in others:
        other.start()
    until(lambda: server.metrics().sum("hanmo_requests_waiting") > 0 and loads, "full load")
    plain = health_pb2_grpc.HealthStub(grpc.insecure_channel(server.health_address))
    answers, seconds = [], []
    for i in range(count):
        request = health_pb2.HealthCheckRequest(service=("liveness", "readiness")[i % 2])
        begin = time.monotonic()
        answers.append(plain.Check(request, timeout=PATIENCE).status)
        seconds.append(time.monotonic() - begin)
    done.set()
    for other in others:
        other.join()
    assert answers == [SERVING] * count
    shares = statistics.quantiles(seconds, n=100)
    p50, p90, p99 = shares[49], shares[89], shares[98]
    print(
        f"{count} probes, {len(loads)} loads: p50 {p50 * 1e3:.1f}, p90 {p90 * 1e3:.1f}, "
        f"p99 {p99 * 1e3:.1f}, at most {max(seconds) * 1e3:.1f} ms"
    )
    # A machine that others use may stall, and the clients share one interpreter; probes that wait for
    # steps or loads are slow throughout.
    if pytestconfig.getoption("--long"):
        assert p99 < 0.05
        assert sum(one > 1 for one in seconds) <= count // 1000
    else:
        assert p90 < 0.05 and p50 < 0.02


def test_the_command_line_operates_it(start_server, repository, tmp_path):
    server = start_server(repository=repository, admin=True)

    def hanmo(command, *arguments, address=server.admin_address):
        done = subprocess.run(
            [BIN / "hanmo", command, "--server", address, *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=clean_environment(),
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def versions():
        lines = hanmo("models", address=server.address)[1].splitlines()[1:]
        return [line.split() for line in lines]

    def written(*arguments):
        code, out, err = hanmo(
            "text", "松", "--temperature=0", "--max-tokens=8", *arguments, address=server.address
        )
        assert code == 0, err
        return out

    assert versions() == [
        ["poet", "1", "unloaded", "text-to-text"],
        ["poet", "2*", "ready", "text-to-text"],
    ]
    second = written()
    code, out, _ = hanmo("load", "poet:1")
    assert code == 0 and re.fullmatch(
        r"poet version 1: [\d.]+ MiB of weights, loaded in [\d.]+ s\n", out
    )
    assert hanmo("label", "poet", "stable", "2")[0] == 0
    assert hanmo("label", "poet", "canary", "1")[:2] == (0, "poet: canary is version 1\n")
    assert ["poet", "1", "canary", "ready", "text-to-text"] in versions()
    first = written("--model-version=canary")
    assert written() == second != first
    code, _, err = hanmo("unload", "poet:1")
    assert code != 0 and "canary" in err
    assert hanmo("label", "poet", "canary", "--remove")[0] == 0
    assert hanmo("unload", "poet:1")[:2] == (0, "poet version 1: unloaded\n")
    code, _, err = hanmo("load", "poet:9")
    assert code == 3 and "version 9" in err
    code, out, err = hanmo("drain")
    assert code == 0 and out.startswith("drained in ") and "0 calls under way" in err
    assert hanmo("text", "松", address=server.address)[0] != 0
