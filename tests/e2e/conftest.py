"""Servers for the tests; see README.md."""

import contextlib
import subprocess

import pytest
from calls import generate
from hanmo_server import BIN, Server, clean_environment
from http_gateway import Gateway
from mixed_load import mixed_requests
from repositories import GOLDENS, MODELS, link_models


def pytest_sessionstart():
    missing = [n for n in ("hanmo-server", "hanmo-worker") if not (BIN / n).exists()]
    if missing:
        pytest.exit(f"{BIN} lacks {', '.join(missing)}: build first, or set HANMO_BIN", 2)


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """The two demo models and every golden checkpoint."""
    models = {name: MODELS / name for name in ("taiyi-sd-tiny", "wenzhong-gpt2-tiny")}
    for family in ("pipelines", "gpt2", "decoders"):
        for config in sorted(GOLDENS.glob(f"{family}/*/config.json")) + sorted(
            GOLDENS.glob(f"{family}/*/model_index.json")
        ):
            models[f"golden-{family}-{config.parent.name}"] = config.parent
    return link_models(tmp_path_factory.mktemp("models") / "repository", **models)


@pytest.fixture(scope="session")
def demo_repository(tmp_path_factory):
    """The two demo models alone: loads in a moment."""
    return link_models(
        tmp_path_factory.mktemp("demo") / "repository",
        taiyi_sd_tiny=MODELS / "taiyi-sd-tiny",
        wenzhong_gpt2_tiny=MODELS / "wenzhong-gpt2-tiny",
    )


@pytest.fixture(scope="session")
def server(repository, tmp_path_factory):
    """One server with all models for the tests that leave it as they found it."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    shared = Server(repository, log=log).wait_serving()
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def mixed_alone(server):
    """Responses of mixed_requests() one after another, each alone on an idle server."""
    return [generate(server, request) for request in mixed_requests()]


@pytest.fixture(autouse=True)
def show_shared_log(request):
    """A failed test shows what the shared server said meanwhile."""
    if "server" not in request.fixturenames:
        yield
        return
    shared = request.getfixturevalue("server")
    before = len(shared.log())
    yield
    print(shared.log()[before:])


@pytest.fixture
def start_worker():
    """Starts workers by themselves, which end with the test."""
    workers = []

    def start(socket):
        worker = subprocess.Popen(
            [BIN / "hanmo-worker", f"--listen=unix:{socket}", "--threads=1"],
            env=clean_environment(),
        )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.terminate()
        worker.wait(timeout=30)


@pytest.fixture
def start_server(demo_repository, tmp_path):
    """Starts servers of a test's own, which end with the test."""
    started = []

    def start(*options, repository=demo_repository, serving=True, **more):
        one = Server(repository, *options, log=tmp_path / f"server{len(started)}.log", **more)
        started.append(one)
        return one.wait_serving() if serving else one

    yield start
    for one in started:
        print(one.log())
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def tiny_server(demo_repository, tmp_path_factory):
    """A server that paints one picture, lets one wait, and has no room for more."""
    one = Server(
        demo_repository,
        "--max-running-samples=1",
        "--max-queued-requests=1",
        "--policy=fcfs",
        log=tmp_path_factory.mktemp("tiny") / "server.log",
    ).wait_serving()
    yield one
    one.close()


@pytest.fixture(scope="module")
def gateway(server, tmp_path_factory):
    """A hanmo-gateway in front of the shared server."""
    log = tmp_path_factory.mktemp("gateway") / "gateway.log"
    one = Gateway(server.address, f"--upstream-metrics={server.metrics_address}", log=log)
    yield one
    one.close()


@pytest.fixture
def start_gateway(tmp_path):
    """Starts gateways of a test's own, which end with the test."""
    with contextlib.ExitStack() as stack:

        def start(server, *options, **more):
            one = Gateway(server.address, *options, log=tmp_path / "gateway.log", **more)
            stack.callback(one.close)
            return one

        yield start


@pytest.fixture
def links():
    """Makes a repository of links."""
    return link_models
