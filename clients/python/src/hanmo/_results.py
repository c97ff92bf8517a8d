"""What a request makes."""

import io
import os
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

from hanmo._enums import from_proto
from hanmo.v1 import generation_pb2


class FinishReason(StrEnum):
    """Why a text ended."""

    UNSPECIFIED = "unspecified"
    EOS = "eos"
    """The model ended it."""
    STOP = "stop"
    """A stop string or stop token id of the request was met."""
    LENGTH = "length"
    """`max_tokens` or the model's context length was reached."""


class PictureFormat(StrEnum):
    UNSPECIFIED = "unspecified"
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


@dataclass(frozen=True)
class Token:
    """A token and its log probability in the model's own distribution."""

    id: int
    logprob: float


@dataclass(frozen=True)
class TokenLogprob(Token):
    top: tuple[Token, ...]
    """The likeliest tokens at this place, likeliest first."""


@dataclass(frozen=True)
class Text:
    """One text of a request."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: str
    """The stop string or the stop token id that ended it."""
    seed: int
    """Asked for or drawn."""
    logprobs: tuple[TokenLogprob, ...]
    """One per token where asked for."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Picture:
    """One picture of a request."""

    index: int
    data: bytes
    """The encoded file."""
    format: PictureFormat
    width: int
    height: int
    seed: int
    """Asked for or drawn."""
    steps: int
    sampler: str
    score: float | None = None
    """With best_of: how well it fits the prompt, -1 to 1."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file as it came; its format does not follow from the path."""
        pathlib.Path(path).write_bytes(self.data)

    def image(self) -> Any:
        """As a PIL.Image.Image; needs Pillow."""
        return decoded(self.data)


def decoded(data: bytes) -> Any:
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@dataclass(frozen=True)
class Usage:
    """What the request used."""

    prompt_tokens: int
    cached_prompt_tokens: int
    """Of prompt_tokens, those that needed no computation."""
    completion_tokens: int
    steps: int
    """Denoising steps done."""
    steps_redone: int
    """Those lost with a worker and done again."""
    pictures: int
    device_time: timedelta
    """This request's share."""
    peak_bytes: int
    """The most device memory that a step took for it."""


@dataclass(frozen=True)
class Timings:
    queue: timedelta
    first_output: timedelta
    """From arrival to the first token or the first byte of a picture."""
    total: timedelta


@dataclass(frozen=True)
class _Result:
    request_id: str
    model: str
    version: int
    """Of the model."""
    usage: Usage
    timings: Timings


@dataclass(frozen=True)
class TextResult(_Result):
    texts: tuple[Text, ...]
    """n of them, in order."""

    @property
    def text(self) -> str:
        """The first text."""
        return self.texts[0].text

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class PictureResult(_Result):
    pictures: tuple[Picture, ...]
    """`count` of them, in order."""

    @property
    def picture(self) -> Picture:
        """The first picture."""
        return self.pictures[0]


def logprobs_from_proto(
    logprobs: Iterable[generation_pb2.TokenLogprob],
) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(p.token_id, p.logprob, tuple(Token(t.token_id, t.logprob) for t in p.top))
        for p in logprobs
    )


def format_from_proto(number: int) -> PictureFormat:
    return from_proto(PictureFormat, generation_pb2.PictureFormat, number)


def _text(output: generation_pb2.Output) -> Text:
    text = output.text
    return Text(
        index=output.index,
        text=text.text,
        token_ids=tuple(text.token_ids),
        finish_reason=from_proto(FinishReason, generation_pb2.FinishReason, text.finish_reason),
        stop_reason=text.stop_reason,
        seed=text.seed,
        logprobs=logprobs_from_proto(text.logprobs),
    )


def _picture(output: generation_pb2.Output) -> Picture:
    picture = output.picture
    return Picture(
        index=output.index,
        data=picture.data,
        format=format_from_proto(picture.format),
        width=picture.width,
        height=picture.height,
        seed=picture.seed,
        steps=picture.steps,
        sampler=picture.sampler,
        score=picture.score if picture.HasField("score") else None,
    )


def _common(response: generation_pb2.GenerateResponse) -> dict[str, Any]:
    usage, timings = response.usage, response.timings
    return {
        "request_id": response.request_id,
        "model": response.model,
        "version": response.version,
        "usage": Usage(
            prompt_tokens=usage.prompt_tokens,
            cached_prompt_tokens=usage.cached_prompt_tokens,
            completion_tokens=usage.completion_tokens,
            steps=usage.steps,
            steps_redone=usage.steps_redone,
            pictures=usage.pictures,
            device_time=usage.device_time.ToTimedelta(),
            peak_bytes=usage.peak_bytes,
        ),
        "timings": Timings(
            queue=timings.queue.ToTimedelta(),
            first_output=timings.first_output.ToTimedelta(),
            total=timings.total.ToTimedelta(),
        ),
    }


def text_result(response: generation_pb2.GenerateResponse) -> TextResult:
    return TextResult(**_common(response), texts=tuple(_text(o) for o in response.outputs))


def picture_result(
    response: generation_pb2.GenerateResponse, files: Mapping[int, bytes] | None = None
) -> PictureResult:
    """`files` by index hold the data where a stream brought it before."""
    pictures = tuple(_picture(output) for output in response.outputs)
    if files is not None:
        pictures = tuple(replace(one, data=files.get(one.index, b"")) for one in pictures)
    return PictureResult(**_common(response), pictures=pictures)
