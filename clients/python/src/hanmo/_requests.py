"""Keyword arguments to protobuf messages."""

import io
import json
import os
import pathlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

from hanmo._results import PictureFormat
from hanmo.v1 import generation_pb2, models_pb2

Metadata = Sequence[tuple[str, str | bytes]]


class PilImage(Protocol):
    """What Pillow's images can do, so that nobody needs Pillow."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None: ...


# Words as str; a picture as the bytes of a PNG, JPEG or WebP file, as its path, or as Pillow has it.
Part = str | bytes | os.PathLike[str] | PilImage


class ChatMessage(TypedDict):
    """One turn of a conversation."""

    role: str
    """`system`, `user` or `assistant`."""
    content: str


class CallOptions(TypedDict, total=False):
    """What every call takes."""

    timeout: float | None
    """Seconds for all attempts together; None waits forever. Default: the client's."""
    metadata: Metadata
    """Sent beside the client's own, such as ("traceparent", "00-...")."""


class GenerateOptions(CallOptions, total=False):
    """What texts and pictures have in common."""

    messages: Iterable[ChatMessage]
    """A conversation, in place of a prompt."""
    thinking: bool
    """Whether the model thinks before it answers the conversation, where its chat template has a
    switch for that. Default: the template's."""
    parts: Iterable[Part]
    """Words (str) and pictures (bytes of a file, its path, or a PIL image) in order, in place of a
    prompt; for models that read pictures: the picture, and how the text about it begins."""
    token_ids: Iterable[int]
    """A prompt that is tokenized already."""
    version: str | int
    """Of the model: a number, or a label such as `canary`. Default: `stable`, else the newest."""
    request_id: str
    """At most 128 characters of [A-Za-z0-9._-], for logs and `cancel`. Default: drawn."""
    tenant: str
    """Whose share of the devices the request takes. Default: the client's."""
    priority: int
    """-100 to 100; higher is served earlier. Default: the client's."""


class TextOptions(GenerateOptions, total=False):
    """How to write; what is left out is the checkpoint's. Ranges: hanmo/v1/generation.proto."""

    max_tokens: int
    """New tokens at most. Default: what fits, at most 256."""
    min_tokens: int
    """No end before this many."""
    temperature: float
    """0 always takes the likeliest token."""
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    stop: str | Iterable[str]
    """The text ends before the first of these."""
    stop_token_ids: Iterable[int]
    include_stop: bool
    """Keep the stop string."""
    ignore_eos: bool
    """Go on to `max_tokens`."""
    seed: int
    """The same seed writes the same text; text i takes seed + i. Default: drawn."""
    n: int
    """Texts to write, 1 to 16."""
    json_schema: str | Mapping[str, Any]
    """The text is a JSON document that is valid by this schema. One of these four at most."""
    regex: str
    """The whole text matches this."""
    grammar: str
    """The text follows this grammar, in Lark's notation."""
    choice: Iterable[str]
    """The text is one of these."""
    logprobs: int
    """Log probabilities of each token and of so many likeliest ones, 0 to 20. Default: none."""


class PictureOptions(GenerateOptions, total=False):
    """How to paint; what is left out is the model's. Ranges: hanmo/v1/generation.proto."""

    negative_prompt: str
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    steps: int
    min_steps: int
    """Consent to fewer steps, down to so many, where `timeout` could not be met otherwise."""
    guidance: float
    seed: int
    """The same seed paints the same picture; picture i takes seed + i. Default: drawn."""
    count: int
    """Pictures to paint, 1 to 16."""
    sampler: str
    """ddim, pndm, euler, euler_a, dpmpp_2m, lcm or unipc."""
    format: PictureFormat | str
    """png (default), jpeg or webp."""
    quality: int
    """Of JPEG and WebP, 1 to 100."""
    preview_every_steps: int
    """Small pictures on the way, of streams."""
    best_of: int
    """Candidates to paint, count to 64; the `count` that fit the prompt best are returned, best
    first. Needs a model with a reranker. Default: nothing is scored."""
    temperature: float
    """Of models that paint by tokens; 0 always takes the likeliest."""
    top_k: int
    """Of models that paint by tokens, as of texts."""
    top_p: float
    """Of models that paint by tokens, as of texts."""


_GENERATE = GenerateOptions.__annotations__.keys()
_TEXT = TextOptions.__annotations__.keys() - _GENERATE
_GUIDE = ("json_schema", "regex", "grammar", "choice")
_PICTURE = PictureOptions.__annotations__.keys() - _GENERATE


@dataclass(frozen=True)
class Defaults:
    """The client's, where a call says nothing."""

    tenant: str = ""
    priority: int = 0


def _picture_file(part: bytes | os.PathLike[str] | PilImage) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, os.PathLike):
        return pathlib.Path(part).read_bytes()
    file = io.BytesIO()
    part.save(file, format="PNG")
    return file.getvalue()


def _part(part: Part) -> generation_pb2.Part:
    if isinstance(part, str):
        return generation_pb2.Part(text=part)
    return generation_pb2.Part(picture=generation_pb2.InputPicture(data=_picture_file(part)))


def _refuse_unknown(options: Mapping[str, Any], known: Iterable[str]) -> None:
    for name in options.keys() - set(known):
        raise TypeError(f"unexpected keyword argument {name!r}")


def _base(
    model: str, prompt: str | None, options: Mapping[str, Any], defaults: Defaults
) -> generation_pb2.GenerateRequest:
    inputs = {"prompt": prompt} | {name: options.get(name) for name in _INPUTS}
    given = [name for name, value in inputs.items() if value is not None]
    if len(given) != 1:
        raise TypeError(
            f"exactly one of prompt, messages, parts and token_ids is needed, got {given or 'none'}"
        )
    request = generation_pb2.GenerateRequest(
        model=model,
        request_id=options.get("request_id") or uuid.uuid4().hex,
        tenant=options.get("tenant", defaults.tenant),
        priority=options.get("priority", defaults.priority),
        version=str(options.get("version", "")),
    )
    (name,) = given
    if name == "prompt":
        request.prompt = inputs[name]
    else:
        _INPUTS[name](request, inputs[name])
    if options.get("thinking") is not None:
        if name != "messages":
            raise TypeError("thinking needs messages")
        request.chat.thinking = options["thinking"]
    return request


def _set_messages(request: generation_pb2.GenerateRequest, messages: Iterable[ChatMessage]) -> None:
    request.chat.SetInParent()
    request.chat.messages.extend(generation_pb2.ChatMessage(**message) for message in messages)


def _set_parts(request: generation_pb2.GenerateRequest, parts: Iterable[Part]) -> None:
    request.parts.SetInParent()
    request.parts.parts.extend(_part(part) for part in parts)


def _set_token_ids(request: generation_pb2.GenerateRequest, ids: Iterable[int]) -> None:
    request.token_ids.SetInParent()
    request.token_ids.ids.extend(ids)


_INPUTS: dict[str, Any] = {
    "messages": _set_messages,
    "parts": _set_parts,
    "token_ids": _set_token_ids,
}


def _guide(given: dict[str, Any]) -> generation_pb2.Guide:
    if len(given) > 1:
        raise TypeError(f"only one of {', '.join(_GUIDE)} may be given, got {list(given)}")
    (name,) = given
    value = given[name]
    if name == "choice":
        value = generation_pb2.Choice(texts=value)
    elif name == "json_schema" and not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    return generation_pb2.Guide(**{name: value})


def text_request(
    model: str, prompt: str | None, options: TextOptions, defaults: Defaults
) -> generation_pb2.GenerateRequest:
    """Raises TypeError and ValueError for what protobuf can't hold; ranges are the server's."""
    _refuse_unknown(options, _GENERATE | _TEXT)
    fields: dict[str, Any] = {name: options[name] for name in _TEXT if name in options}  # type: ignore[literal-required]
    if isinstance(fields.get("stop"), str):
        fields["stop"] = [fields["stop"]]
    guide = {name: fields.pop(name) for name in _GUIDE if name in fields}
    if guide:
        fields["guide"] = _guide(guide)
    request = _base(model, prompt, options, defaults)
    request.text.CopyFrom(generation_pb2.TextParameters(**fields))
    return request


def caption_request(
    model: str, picture: Part, begin: str, options: TextOptions, defaults: Defaults
) -> generation_pb2.GenerateRequest:
    """Raises TypeError where `picture` is none, and as text_request."""
    if isinstance(picture, str):
        raise TypeError("a picture is bytes, a path (pathlib.Path) or a PIL image, not str")
    parts: list[Part] = [picture, begin] if begin else [picture]
    return text_request(model, None, {**options, "parts": parts}, defaults)


def picture_request(
    model: str, prompt: str | None, options: PictureOptions, defaults: Defaults
) -> generation_pb2.GenerateRequest:
    """Raises TypeError and ValueError for what protobuf can't hold; ranges are the server's."""
    _refuse_unknown(options, _GENERATE | _PICTURE)
    fields: dict[str, Any] = {name: options[name] for name in _PICTURE if name in options}  # type: ignore[literal-required]
    if "format" in fields:
        fields["format"] = f"PICTURE_FORMAT_{PictureFormat(fields['format']).name}"
    request = _base(model, prompt, options, defaults)
    request.picture.CopyFrom(generation_pb2.PictureParameters(**fields))
    return request


def check_call_options(options: CallOptions) -> None:
    _refuse_unknown(options, CallOptions.__annotations__)


def tokenize_request(
    model: str, text: str, add_special_tokens: bool, version: str | int
) -> generation_pb2.TokenizeRequest:
    return generation_pb2.TokenizeRequest(
        model=model, text=text, add_special_tokens=add_special_tokens, version=str(version)
    )


def detokenize_request(
    model: str, ids: Iterable[int], skip_special_tokens: bool, version: str | int
) -> generation_pb2.DetokenizeRequest:
    return generation_pb2.DetokenizeRequest(
        model=model, ids=ids, skip_special_tokens=skip_special_tokens, version=str(version)
    )


def describe_request(model: str, version: str | int) -> models_pb2.DescribeModelRequest:
    return models_pb2.DescribeModelRequest(name=model, version=str(version))
