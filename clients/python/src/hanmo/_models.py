"""What a server can generate with."""

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.message import Message

from hanmo._enums import from_proto
from hanmo.v1 import models_pb2


class Task(StrEnum):
    UNSPECIFIED = "unspecified"
    TEXT_TO_TEXT = "text_to_text"
    TEXT_TO_PICTURE = "text_to_picture"
    PICTURE_TO_TEXT = "picture_to_text"


class ModelState(StrEnum):
    UNSPECIFIED = "unspecified"
    LOADING = "loading"
    READY = "ready"
    RECOVERING = "recovering"
    """Its workers are being restarted; requests wait."""
    FAILED = "failed"
    IDLE = "idle"
    """It gave its memory to other models; the next request loads it again."""
    UNLOADED = "unloaded"
    """It is in the repository only."""


class StepKind(StrEnum):
    UNSPECIFIED = "unspecified"
    TEXT_ENCODE = "text_encode"
    DENOISE = "denoise"
    VAE_DECODE = "vae_decode"
    TEXT = "text"


@dataclass(frozen=True)
class ModelVersion:
    version: int
    state: ModelState
    labels: tuple[str, ...]
    is_default: bool
    """Requests that name no version get this one."""


@dataclass(frozen=True)
class Model:
    """A model in a list."""

    name: str
    tasks: tuple[Task, ...]
    state: ModelState
    """Of the version that requests get which name none."""
    versions: tuple[ModelVersion, ...]


@dataclass(frozen=True)
class TextModel:
    """Limits and defaults of a model that writes."""

    context_tokens: int
    """Prompt and output together."""
    vocabulary_size: int
    eos_token_ids: tuple[int, ...]
    has_chat_template: bool
    has_thinking_switch: bool
    default_temperature: float
    default_top_k: int
    default_top_p: float
    default_repetition_penalty: float
    default_max_tokens: int


@dataclass(frozen=True)
class Expert:
    """A denoising network for the timesteps from t_min to t_max - 1."""

    name: str
    """Its folder in the checkpoint."""
    t_min: int
    t_max: int


@dataclass(frozen=True)
class PictureModel:
    """Limits and defaults of a model that paints; sizes in pixels."""

    default_width: int
    default_height: int
    size_multiple: int
    min_size: int
    max_size: int
    default_steps: int
    max_steps: int
    default_guidance: float
    default_sampler: str
    samplers: tuple[str, ...]
    prompt_tokens: int
    """Longest prompt."""
    has_reranker: bool
    """Requests may have best_of."""
    paints_by_tokens: bool
    """It takes temperature, top_k and top_p instead of steps, guidance and sampler."""
    default_temperature: float
    default_top_k: int
    default_top_p: float
    suggested_best_of: int
    """0: the checkpoint says nothing."""
    experts: tuple[Expert, ...]
    """In the order in which a picture needs them; none where one network has all timesteps."""
    resident_experts: int
    """So many of them are in a worker's memory at a time."""


@dataclass(frozen=True)
class StepCost:
    """What a kind of step costs, learned from those that ran."""

    kind: StepKind
    width: int
    height: int
    one_row: timedelta
    knee_rows: int
    """Rows beyond which larger batches bring little."""
    knee_time: timedelta
    steps: int
    """Measured."""
    one_row_bytes: int
    knee_bytes: int


@dataclass(frozen=True)
class ModelDescription:
    name: str
    version: int
    labels: tuple[str, ...]
    tasks: tuple[Task, ...]
    state: ModelState
    state_detail: str
    """Of a failed model: the tensor, key or file at fault."""
    architecture: str
    dtype: str
    weight_bytes: int
    """On one worker."""
    workers: int
    adapters: tuple[str, ...]
    text: TextModel | None
    picture: PictureModel | None
    step_costs: tuple[StepCost, ...]


Plain = TypeVar("Plain", TextModel, PictureModel, Expert)


def _tasks(numbers: Any) -> tuple[Task, ...]:
    return tuple(from_proto(Task, models_pb2.Task, number) for number in numbers)


def _state(number: int) -> ModelState:
    return from_proto(ModelState, models_pb2.ModelState, number)


def _plain(kind: type[Plain], proto: Message) -> Plain:
    """Field by field; repeated ones become tuples."""
    values: dict[str, Any] = {name: getattr(proto, name) for name in kind.__dataclass_fields__}
    for name, value in values.items():
        if not isinstance(value, int | float | str):
            values[name] = tuple(value)
    return kind(**values)


def _picture_model(proto: models_pb2.PictureModel) -> PictureModel:
    experts = tuple(_plain(Expert, expert) for expert in proto.experts)
    return replace(_plain(PictureModel, proto), experts=experts)


def _step_cost(cost: models_pb2.StepCost) -> StepCost:
    return StepCost(
        kind=from_proto(StepKind, models_pb2.StepKind, cost.kind),
        width=cost.width,
        height=cost.height,
        one_row=cost.one_row.ToTimedelta(),
        knee_rows=cost.knee_rows,
        knee_time=cost.knee_time.ToTimedelta(),
        steps=cost.steps,
        one_row_bytes=cost.one_row_bytes,
        knee_bytes=cost.knee_bytes,
    )


def models_from_proto(response: models_pb2.ListModelsResponse) -> list[Model]:
    return [
        Model(
            name=model.name,
            tasks=_tasks(model.tasks),
            state=_state(model.state),
            versions=tuple(
                ModelVersion(v.version, _state(v.state), tuple(v.labels), v.is_default)
                for v in model.versions
            ),
        )
        for model in response.models
    ]


def description_from_proto(model: models_pb2.DescribeModelResponse) -> ModelDescription:
    return ModelDescription(
        name=model.name,
        version=model.version,
        labels=tuple(model.labels),
        tasks=_tasks(model.tasks),
        state=_state(model.state),
        state_detail=model.state_detail,
        architecture=model.architecture,
        dtype=model.dtype,
        weight_bytes=model.weight_bytes,
        workers=model.workers,
        adapters=tuple(model.adapters),
        text=_plain(TextModel, model.text) if model.HasField("text") else None,
        picture=_picture_model(model.picture) if model.HasField("picture") else None,
        step_costs=tuple(_step_cost(cost) for cost in model.step_costs),
    )
