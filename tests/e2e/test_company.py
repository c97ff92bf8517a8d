"""What else is running changes no byte of an output, and batches are really shared."""

import time

import pytest
from mixed_load import assert_equal_outputs, mixed_requests, run_alone, start_together


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
    assert mean_batch > 1
    assert seconds < alone_seconds
    server.wait_idle()


@pytest.mark.parametrize(
    "options",
    [
        ("--workers=2", "--worker-threads=1"),
        ("--max-picture-batch=3", "--steps-in-flight=1", "--prefill-chunk-tokens=16"),
        ("--prefix-cache-bytes=0", "--speculative-tokens=0"),
        ("--max-running-samples=5", "--worker-threads=1", "--max-picture-batch=16"),
    ],
    ids=["two-workers", "small-batches", "nothing-saved", "few-places"],
)
def test_no_option_that_shapes_batches_changes_a_byte(start_server, mixed_alone, options):
    server = start_server(*options)
    requests = mixed_requests()
    together = [call.result() for call in start_together(server, requests)]
    assert_equal_outputs(requests, together, mixed_alone)
    server.wait_idle()
