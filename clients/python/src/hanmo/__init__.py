"""Client of hanmo, a gRPC server that paints pictures and writes texts.

`Client` blocks, `AsyncClient` is for asyncio; both have the same methods, results and errors.
"""

from hanmo._async_client import AsyncClient, AsyncPictureStream, AsyncTextStream
from hanmo._channel import Tls
from hanmo._client import Client, PictureStream, TextStream
from hanmo._errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    HanmoError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RequestCancelledError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from hanmo._events import PictureFile, Preview, Queued, StepDone, TextDelta
from hanmo._models import (
    Expert,
    Model,
    ModelDescription,
    ModelState,
    ModelVersion,
    PictureModel,
    StepCost,
    StepKind,
    Task,
    TextModel,
)
from hanmo._requests import CallOptions, ChatMessage, GenerateOptions, PictureOptions, TextOptions
from hanmo._results import (
    FinishReason,
    Picture,
    PictureFormat,
    PictureResult,
    Text,
    TextResult,
    Timings,
    Token,
    TokenLogprob,
    Usage,
)
from hanmo._retry import RetryPolicy
from hanmo._version import VERSION as __version__

__all__ = [
    "AsyncClient",
    "AsyncPictureStream",
    "AsyncTextStream",
    "CallOptions",
    "ChatMessage",
    "Client",
    "DeadlineExceededError",
    "Expert",
    "FailedPreconditionError",
    "FieldViolation",
    "FinishReason",
    "GenerateOptions",
    "HanmoError",
    "InternalError",
    "InvalidArgumentError",
    "Model",
    "ModelDescription",
    "ModelState",
    "ModelVersion",
    "NotFoundError",
    "PermissionDeniedError",
    "Picture",
    "PictureFile",
    "PictureFormat",
    "PictureModel",
    "PictureOptions",
    "PictureResult",
    "PictureStream",
    "Preview",
    "Queued",
    "RequestCancelledError",
    "ResourceExhaustedError",
    "RetryPolicy",
    "StepCost",
    "StepDone",
    "StepKind",
    "Task",
    "Text",
    "TextDelta",
    "TextModel",
    "TextOptions",
    "TextResult",
    "TextStream",
    "Timings",
    "Tls",
    "Token",
    "TokenLogprob",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Usage",
    "__version__",
]
