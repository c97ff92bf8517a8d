"""What else is running changes no byte of an output, and batches are really shared."""

import dataclasses
import time

import pytest
from calls import caption_request, generate, painting_request, picture_request
from mixed_load import (
    assert_equal_outputs,
    mixed_requests,
    run_alone,
    start_together,
    texts_that_repeat,
)
from repositories import GOLDENS, MODELS, link_models

PICTURES = ("rgb.png", "rgb.jpg")


def steps(metrics):
    """Steps of pictures and their rows: what the mean batch is made of."""
    labels = {"model": "taiyi-sd-tiny", "step": "denoise"}
    return (
        metrics.sum("hanmo_batch_size_count", **labels),
        metrics.sum("hanmo_batch_size_sum", **labels),
    )


def test_together_as_alone(start_server):
    server = start_server()
    requests = mixed_requests()
    alone, alone_seconds = run_alone(server, requests)
    count, rows = steps(server.metrics())
    assert rows == count  # alone each step has one sample

    start = time.monotonic()
    together = [call.result() for call in start_together(server, requests)]
    seconds = time.monotonic() - start
    assert_equal_outputs(requests, together, alone)

    more_count, more_rows = steps(server.metrics())
    mean_batch = (more_rows - rows) / (more_count - count)
    print(f"alone {alone_seconds:.2f} s, together {seconds:.2f} s, mean batch {mean_batch:.2f}")
    assert more_rows - rows == rows  # the same work
    # Larger batches are tried until they do not pay; on small pictures they hardly do, so the
    # seconds above are for the reader: a busy machine moves them more.
    assert mean_batch > 1
    server.wait_idle()


@dataclasses.dataclass(frozen=True)
class Case:
    """How a server may come by its outputs; each row of CASES is another mixture of all of it."""

    policy: str
    slices: str = "30ms"
    prefixes: bool = True
    guesses: bool = True
    pages: str = "0"  # bytes for them; 0 lets the worker choose: enough
    others: tuple = ()

    def options(self):
        options = (f"--policy={self.policy}", f"--slice={self.slices}", f"--kv-memory={self.pages}")
        options += self.others
        if not self.prefixes:
            options += ("--prefix-cache-bytes=0",)
        if not self.guesses:
            options += ("--speculative-tokens=0",)
        return options


# Room for 20 pages; the longest text takes 16 of them.
SHORT = "2MiB"
TWO_WORKERS = ("--workers=2", "--worker-threads=1")
SMALL_BATCHES = ("--max-picture-batch=3", "--steps-in-flight=1", "--prefill-chunk-tokens=16")
FEW_PLACES = ("--max-running-samples=5", "--worker-threads=1", "--max-picture-batch=16")
CASES = [
    Case("hanmo", "1ms", others=TWO_WORKERS),
    Case("hanmo", "1ms", prefixes=False, guesses=False, pages=SHORT),
    Case("hanmo", "5ms", pages=SHORT, others=SMALL_BATCHES),
    Case("hanmo", "1h", guesses=False, others=FEW_PLACES),
    Case("fcfs", prefixes=False, pages=SHORT, others=TWO_WORKERS),
    Case("fcfs", guesses=False, others=SMALL_BATCHES),
    Case("static", pages=SHORT),
    Case("static", prefixes=False, guesses=False, others=(*TWO_WORKERS, *SMALL_BATCHES)),
]


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory):
    """Models that denoise pictures, write texts, and paint and describe by tokens."""
    return link_models(
        tmp_path_factory.mktemp("every_kind") / "repository",
        taiyi_sd_tiny=MODELS / "taiyi-sd-tiny",
        wenzhong_gpt2_tiny=MODELS / "wenzhong-gpt2-tiny",
        ernie_vilg=GOLDENS / "ernie_vilg/whole",
    )


def paintings_and_captions():
    files = [(GOLDENS / f"pictures/files/{name}").read_bytes() for name in PICTURES]
    captions = [
        caption_request(file, seed=i, n=1 + i, request_id=f"caption-{i}")
        for i, file in enumerate(files)
    ]
    paintings = [
        painting_request(prompt, seed=i, count=1 + 2 * i, request_id=f"painting-{i}")
        for i, prompt in enumerate(("一丁七", "丁", "七一一丁"))
    ]
    return captions + paintings


def everything():
    return mixed_requests() + texts_that_repeat() + paintings_and_captions()


@pytest.fixture(scope="module")
def lone_answers(every_kind, tmp_path_factory):
    """One after another, on a server that shares, guesses and cuts nothing."""
    from hanmo_server import Server

    plain = Case("fcfs", prefixes=False, guesses=False).options()
    log = tmp_path_factory.mktemp("plain") / "server.log"
    server = Server(every_kind, *plain, log=log).wait_serving()
    yield [generate(server, request) for request in everything()]
    server.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case.options()))
def test_no_option_that_shapes_steps_changes_a_byte(start_server, every_kind, lone_answers, case):
    server = start_server(*case.options(), repository=every_kind)
    # The first ones teach what steps cost: before that none is cut.
    generate(server, picture_request(steps=8, width=128, height=128))
    together = [call.result() for call in start_together(server, everything())]
    assert_equal_outputs(everything(), together, lone_answers)
    server.wait_idle()

    # The case is what it says.
    metrics = server.metrics()
    assert (metrics.sum("hanmo_sliced_steps_total") > 0) == (case.policy == "hanmo")
    assert (metrics.sum("hanmo_prefix_cache_hit_tokens_total") > 0) == case.prefixes
    assert (metrics.sum("hanmo_draft_tokens_total") > 0) == case.guesses
    assert (metrics.sum("hanmo_preempted_total") > 0) == (case.pages == SHORT)
