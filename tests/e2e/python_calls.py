"""Calls of the Python client that its tests share."""

import asyncio

from observe import PATIENCE

import hanmo

SMALL = {"width": 64, "height": 64, "steps": 4}
ENDLESS = {"width": 256, "height": 256, "steps": 900, "seed": 1}
NEVER = hanmo.RetryPolicy(max_attempts=1)


def run(main, patience=PATIENCE):
    """Runs a coroutine; one that hangs is a failure."""
    return asyncio.run(asyncio.wait_for(main, patience))


def begin(stream):
    """Reads until the picture has a step behind it."""
    assert any(isinstance(event, hanmo.StepDone) for event in stream)
    return stream
