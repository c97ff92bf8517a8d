"""What a stream tells on the way to its result."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from hanmo._results import (
    PictureFormat,
    PictureResult,
    TextResult,
    TokenLogprob,
    decoded,
    format_from_proto,
    logprobs_from_proto,
    picture_result,
    text_result,
)
from hanmo.v1 import generation_pb2

Message = generation_pb2.GenerateStreamResponse


@dataclass(frozen=True)
class Queued:
    """The request was accepted, or its place changed."""

    request_id: str
    position: int
    """Requests ahead of this one."""
    expected_wait: timedelta | None
    """About how long until its first step, where that is known."""


@dataclass(frozen=True)
class TextDelta:
    """New text, whole characters only; those of one index joined are its text."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class StepDone:
    """A picture has `step` of its `steps` behind it."""

    index: int
    step: int
    steps: int


@dataclass(frozen=True)
class Preview:
    """What a picture looks like after `step`: a small JPEG."""

    index: int
    step: int
    data: bytes

    def image(self) -> Any:
        """As a PIL.Image.Image; needs Pillow."""
        return decoded(self.data)


@dataclass(frozen=True)
class PictureFile:
    """A picture is there, before the others of its request may be."""

    index: int
    format: PictureFormat
    width: int
    height: int
    data: bytes


TextEvent = Queued | TextDelta | TextResult
PictureEvent = Queued | StepDone | Preview | PictureFile | PictureResult

Event = TypeVar("Event")
Result = TypeVar("Result")


def _queued(message: Message) -> Queued:
    queued = message.queued
    expected = queued.expected_wait.ToTimedelta() if queued.HasField("expected_wait") else None
    return Queued(queued.request_id, queued.position, expected)


class Reader(Generic[Event, Result]):
    """Messages of one stream to events, without any input or output of its own."""

    result: Result | None = None

    def read(self, message: Message) -> Iterator[Event]:
        raise NotImplementedError


class TextReader(Reader[TextEvent, TextResult]):
    def read(self, message: Message) -> Iterator[TextEvent]:
        match message.WhichOneof("event"):
            case "queued":
                yield _queued(message)
            case "text":
                delta = message.text
                yield TextDelta(
                    delta.index,
                    delta.text,
                    tuple(delta.token_ids),
                    logprobs_from_proto(delta.logprobs),
                )
            case "final":
                self.result = text_result(message.final)
                yield self.result


class PictureReader(Reader[PictureEvent, PictureResult]):
    def __init__(self) -> None:
        self._files: dict[int, bytearray] = {}

    def read(self, message: Message) -> Iterator[PictureEvent]:
        match message.WhichOneof("event"):
            case "queued":
                yield _queued(message)
            case "step":
                yield StepDone(message.step.index, message.step.step, message.step.steps)
            case "preview":
                yield Preview(message.preview.index, message.preview.step, message.preview.data)
            case "picture":
                chunk = message.picture
                file = self._files.setdefault(chunk.index, bytearray())
                file += chunk.data
                if len(file) == chunk.total_bytes:
                    yield PictureFile(
                        chunk.index,
                        format_from_proto(chunk.format),
                        chunk.width,
                        chunk.height,
                        bytes(file),
                    )
            case "final":
                files = {index: bytes(file) for index, file in self._files.items()}
                self.result = picture_result(message.final, files)
                yield self.result
