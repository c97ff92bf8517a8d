"""A server to whom everything happens that a dashboard shows: load, refusals, deaths, NaN."""

import contextlib
import json
import os
import shutil
import signal
import struct
import threading

import grpc
from calls import POEM, POET, generate, picture_request, stream, text_request
from contract import ROOT, models_pb2
from repositories import GOLDENS

NAN_POET, BROKEN, EXPERTS = "nan-poet", "broken", "experts"
POISON = 666  # a seed that ends its worker
NAN_POSITION = 40  # where nan-poet has NaN

OPTIONS = (
    f"--worker-arg=--fault=abort-on-seed:{POISON}@step:3",
    "--max-queued-requests=12",
    "--max-running-samples=5",
    "--kv-memory=2MiB",
    "--preview-bytes-per-second=1KiB",
    "--slice=2ms",
    "--expert-memory=1",
)


def add_nan_poet(repository):
    """The demo poet with NaN in the embedding of one position, which short texts do not reach."""
    folder = repository / NAN_POET
    shutil.copytree(ROOT / "models" / POET, folder)
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        (positions,) = (t for name, t in header.items() if name.endswith("wpe.weight"))
        assert positions["dtype"] == "F16"
        width = positions["shape"][1]
        file.seek(8 + size + positions["data_offsets"][0] + 2 * width * NAN_POSITION)
        file.write(b"\x00\x7e")


def add_broken(repository):
    (repository / BROKEN).mkdir()
    (repository / BROKEN / "config.json").write_text('{"model_type": "gpt2"}')


def add_experts(repository):
    """A picture model of three experts, of which one is in memory at a time."""
    (repository / EXPERTS).symlink_to(GOLDENS / "ernie_vilg2/three")


def miss_deadline(server):
    """While nothing is known of the costs, it is not refused."""
    with contextlib.suppress(grpc.RpcError):
        generate(server, picture_request(steps=900), timeout=0.5)


def provoke(server):
    """What needs to happen once."""
    killed = False
    for event in server.generation.GenerateStream(picture_request(steps=60), timeout=60):
        if event.HasField("step") and event.step.step >= 9 and not killed:
            killed = True
            for worker in server.worker_pids():
                os.kill(worker, signal.SIGKILL)
    with contextlib.suppress(grpc.RpcError):
        generate(server, text_request(seed=POISON, max_tokens=20, ignore_eos=True))
    with contextlib.suppress(grpc.RpcError):
        generate(server, text_request(model="nobody"))
    generate(server, picture_request("古风墨竹", EXPERTS, steps=20, sampler="ddim"))


def _cancel(server):
    call = server.generation.GenerateStream(picture_request(steps=900), timeout=60)
    next(event for event in call if event.HasField("step"))
    call.cancel()


def _of(tenant, request):
    request.tenant = tenant
    return request


def _round(server, tenant):
    """Requests that differ in what becomes of them."""
    long = {"max_tokens": 40, "ignore_eos": True}
    shared = _of(tenant, text_request(POEM * 3 + "\n", temperature=0, **long))
    # More than there are pages for.
    many = _of(tenant, text_request("春" * 40 + "\n", n=6, max_tokens=70, ignore_eos=True))
    too_long = text_request(model=NAN_POET, max_tokens=60, ignore_eos=True)
    large = picture_request(width=256, height=256, steps=3, guidance=4)
    return [
        lambda: stream(server, picture_request(preview_every_steps=1, steps=8)),
        lambda: generate(server, shared),
        lambda: generate(server, many),
        lambda: generate(server, text_request(max_tokens=60)),
        lambda: generate(server, large),
        lambda: generate(server, picture_request(steps=0)),
        lambda: generate(server, too_long),
        lambda: generate(server, picture_request(steps=900), timeout=0.3),
        lambda: _cancel(server),
        lambda: server.models.ListModels(models_pb2.ListModelsRequest(), timeout=60),
    ]


@contextlib.contextmanager
def load(server, clients=6):
    """Runs in threads of its own until the block ends."""
    stop = threading.Event()

    def client(tenant):
        while not stop.is_set():
            for request in _round(server, tenant):
                if stop.is_set():
                    return
                with contextlib.suppress(grpc.RpcError):
                    request()

    threads = [
        threading.Thread(target=client, args=(("atelier", "press", "")[i % 3],))
        for i in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def web_load(gateway):
    """HTTP requests, most of which are answered, until the block ends."""
    stop = threading.Event()

    def client():
        while not stop.is_set():
            gateway.call("/v1/completions", {"model": POET, "prompt": POEM, "max_tokens": 8})
            gateway.call("/v1/completions", {"model": "nobody", "prompt": POEM})
            gateway.call("/v1/models")

    thread = threading.Thread(target=client)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def flood(server):
    """More than the queue holds, and one that can't be in time behind them."""
    many = [
        server.generation.Generate.future(picture_request(steps=20), timeout=60) for _ in range(40)
    ]
    with contextlib.suppress(grpc.RpcError):
        generate(server, picture_request(steps=500), timeout=0.05)
    for call in many:
        with contextlib.suppress(grpc.RpcError):
            call.result()
