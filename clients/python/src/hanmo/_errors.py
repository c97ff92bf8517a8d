"""What a call can end with."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True)
class FieldViolation:
    """A field of the request, as in `text.max_tokens`, and what is allowed in it."""

    field: str
    description: str


class HanmoError(Exception):
    """A call that ended with a status other than OK. `__cause__` is gRPC's own error.

    Each code has a class of its own where a program may want to treat it apart.
    """

    code: grpc.StatusCode
    """gRPC's status code."""
    message: str
    """The server's words."""
    violations: tuple[FieldViolation, ...]
    """What was wrong with the request, field by field."""
    retry_delay: timedelta | None
    """How long to wait before trying again, where the server says that this can help; below 0 where
    it forbids that."""
    attempts: int
    """How often the call was made."""

    _by_code: ClassVar[dict[grpc.StatusCode, type["HanmoError"]]] = {}

    def __init_subclass__(cls, code: grpc.StatusCode) -> None:
        HanmoError._by_code[code] = cls

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        violations: tuple[FieldViolation, ...] = (),
        retry_delay: timedelta | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(code, message, violations, retry_delay, attempts)
        self.code = code
        self.message = message
        self.violations = violations
        self.retry_delay = retry_delay
        self.attempts = attempts

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class InvalidArgumentError(HanmoError, code=grpc.StatusCode.INVALID_ARGUMENT):
    """The request can't be served as it is; `violations` says why."""


class NotFoundError(HanmoError, code=grpc.StatusCode.NOT_FOUND):
    """No such model, version, label or request."""


class FailedPreconditionError(HanmoError, code=grpc.StatusCode.FAILED_PRECONDITION):
    """The model can't do this, or not now."""


class ResourceExhaustedError(HanmoError, code=grpc.StatusCode.RESOURCE_EXHAUSTED):
    """The server is too busy, or a message too large."""


class UnavailableError(HanmoError, code=grpc.StatusCode.UNAVAILABLE):
    """The server can't be reached, is draining, or has no worker for the model."""


class DeadlineExceededError(HanmoError, code=grpc.StatusCode.DEADLINE_EXCEEDED):
    """`timeout` passed, or the server saw that it would."""


class RequestCancelledError(HanmoError, code=grpc.StatusCode.CANCELLED):
    """The request was cancelled by its id, or its stream closed in another thread."""


class InternalError(HanmoError, code=grpc.StatusCode.INTERNAL):
    """A fault of the server."""


class UnimplementedError(HanmoError, code=grpc.StatusCode.UNIMPLEMENTED):
    """The server is older than the call."""


class UnauthenticatedError(HanmoError, code=grpc.StatusCode.UNAUTHENTICATED):
    """Who calls is not known: a token or a certificate is missing."""


class PermissionDeniedError(HanmoError, code=grpc.StatusCode.PERMISSION_DENIED):
    """Who calls may not."""


def _pushback(trailers: dict[str, Any]) -> timedelta | None:
    """Of `grpc-retry-pushback-ms`; below 0 where it forbids a retry, as whatever is no number does."""
    value = trailers.get("grpc-retry-pushback-ms")
    if value is None:
        return None
    return timedelta(milliseconds=int(value) if value.isdecimal() else -1)


def from_rpc_error(error: grpc.RpcError, attempts: int) -> HanmoError:
    """What gRPC raised, with what its trailers tell."""
    call: Any = error  # every error of a call is one, too
    trailers = {key: value for key, value in call.trailing_metadata() or ()}
    status = status_pb2.Status()
    try:
        status.ParseFromString(trailers.get("grpc-status-details-bin", b""))
    except DecodeError:
        status.Clear()  # a proxy's; code and message are known all the same
    violations: list[FieldViolation] = []
    pushback = _pushback(trailers)
    # Whoever stands between client and server may have set one of them: the longer is true to both.
    delays = [] if pushback is None else [pushback]
    for detail in status.details:
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            violations += [FieldViolation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            delays.append(retry.retry_delay.ToTimedelta())
    code = call.code()
    return HanmoError._by_code.get(code, HanmoError)(
        code,
        call.details() or "",
        tuple(violations),
        pushback if pushback and pushback < timedelta(0) else max(delays, default=None),
        attempts,
    )
