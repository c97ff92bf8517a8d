"""Whether and when a call is made again."""

import random
import time
from dataclasses import dataclass
from typing import Any

import grpc

from hanmo._errors import HanmoError, from_rpc_error


@dataclass(frozen=True)
class RetryPolicy:
    """Calls that end with UNAVAILABLE or RESOURCE_EXHAUSTED are made again, streams only while
    nothing came from them. All attempts together keep within the call's timeout.

    RESOURCE_EXHAUSTED is retried only when the server told how long to wait (`RetryInfo` or
    `grpc-retry-pushback-ms`), since otherwise a retry would meet the same limit. UNAVAILABLE may
    come from the network: without a word of the server the wait grows from `initial_backoff`.
    """

    max_attempts: int = 5
    """With the first; 1 never retries."""
    initial_backoff: float = 0.2
    """Seconds."""
    backoff_multiplier: float = 2.0
    max_backoff: float = 5.0
    """Seconds; a server may ask for more."""
    jitter: float = 0.2
    """Each wait is longer by a random part of this share of it, so that clients that were refused
    together do not come back together."""

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError("max_attempts must be at least 1")
        if min(self.initial_backoff, self.max_backoff, self.jitter) < 0:
            raise ValueError("initial_backoff, max_backoff and jitter must not be negative")
        if self.backoff_multiplier < 1:
            raise ValueError("backoff_multiplier must be at least 1")

    def wait(self, error: HanmoError) -> float | None:
        """Seconds until the next attempt; None: there is none."""
        if error.attempts >= self.max_attempts:
            return None
        if error.code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
            return None
        if error.retry_delay is not None:
            wait = error.retry_delay.total_seconds()
            if wait < 0:
                return None
        elif error.code == grpc.StatusCode.RESOURCE_EXHAUSTED:
            return None
        else:
            wait = self.initial_backoff * self.backoff_multiplier ** (error.attempts - 1)
            wait = min(wait, self.max_backoff)
        return wait * (1 + random.uniform(0, self.jitter))


DEFAULT_POLICY = RetryPolicy()


class Attempts:
    """The attempts of one call, which share its timeout."""

    def __init__(self, policy: RetryPolicy, timeout: float | None) -> None:
        self._policy = policy
        self._end = None if timeout is None else time.monotonic() + timeout
        self._made = 0

    def _remaining(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def start(self, method: Any, request: Any, metadata: Any) -> Any:
        """Calls a method of a stub."""
        self._made += 1
        return method(request, timeout=self._remaining(), metadata=metadata)

    def wait_after(self, error: grpc.RpcError, may_retry: bool = True) -> float:
        """Seconds until the next attempt; raises the error where there is none."""
        failure = from_rpc_error(error, self._made)
        wait = self._policy.wait(failure) if may_retry else None
        remaining = self._remaining()
        if wait is None or (remaining is not None and wait >= remaining):
            raise failure from error
        return wait
