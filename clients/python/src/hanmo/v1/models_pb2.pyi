from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
MODEL_STATE_FAILED: ModelState
MODEL_STATE_IDLE: ModelState
MODEL_STATE_LOADING: ModelState
MODEL_STATE_READY: ModelState
MODEL_STATE_RECOVERING: ModelState
MODEL_STATE_UNLOADED: ModelState
MODEL_STATE_UNSPECIFIED: ModelState
STEP_KIND_DENOISE: StepKind
STEP_KIND_PICTURE_ENCODE: StepKind
STEP_KIND_TEXT: StepKind
STEP_KIND_TEXT_ENCODE: StepKind
STEP_KIND_UNSPECIFIED: StepKind
STEP_KIND_VAE_DECODE: StepKind
TASK_PICTURE_TO_TEXT: Task
TASK_TEXT_TO_PICTURE: Task
TASK_TEXT_TO_TEXT: Task
TASK_UNSPECIFIED: Task

class DescribeModelRequest(_message.Message):
    __slots__ = ["name", "version"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class DescribeModelResponse(_message.Message):
    __slots__ = ["adapters", "architecture", "dtype", "labels", "name", "picture", "state", "state_detail", "step_costs", "tasks", "text", "version", "weight_bytes", "workers"]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    STATE_DETAIL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STEP_COSTS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    adapters: _containers.RepeatedScalarFieldContainer[str]
    architecture: str
    dtype: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    name: str
    picture: PictureModel
    state: ModelState
    state_detail: str
    step_costs: _containers.RepeatedCompositeFieldContainer[StepCost]
    tasks: _containers.RepeatedScalarFieldContainer[Task]
    text: TextModel
    version: int
    weight_bytes: int
    workers: int
    def __init__(self, name: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[Task, str]]] = ..., state: _Optional[_Union[ModelState, str]] = ..., state_detail: _Optional[str] = ..., architecture: _Optional[str] = ..., dtype: _Optional[str] = ..., weight_bytes: _Optional[int] = ..., workers: _Optional[int] = ..., adapters: _Optional[_Iterable[str]] = ..., text: _Optional[_Union[TextModel, _Mapping]] = ..., picture: _Optional[_Union[PictureModel, _Mapping]] = ..., step_costs: _Optional[_Iterable[_Union[StepCost, _Mapping]]] = ..., version: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class Expert(_message.Message):
    __slots__ = ["name", "t_max", "t_min"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    T_MAX_FIELD_NUMBER: _ClassVar[int]
    T_MIN_FIELD_NUMBER: _ClassVar[int]
    name: str
    t_max: int
    t_min: int
    def __init__(self, name: _Optional[str] = ..., t_min: _Optional[int] = ..., t_max: _Optional[int] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ["models"]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelSummary, _Mapping]]] = ...) -> None: ...

class ModelSummary(_message.Message):
    __slots__ = ["name", "state", "tasks", "versions"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: ModelState
    tasks: _containers.RepeatedScalarFieldContainer[Task]
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    def __init__(self, name: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[Task, str]]] = ..., state: _Optional[_Union[ModelState, str]] = ..., versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ["is_default", "labels", "state", "version"]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    is_default: bool
    labels: _containers.RepeatedScalarFieldContainer[str]
    state: ModelState
    version: int
    def __init__(self, version: _Optional[int] = ..., state: _Optional[_Union[ModelState, str]] = ..., labels: _Optional[_Iterable[str]] = ..., is_default: bool = ...) -> None: ...

class PictureModel(_message.Message):
    __slots__ = ["default_guidance", "default_height", "default_sampler", "default_steps", "default_temperature", "default_top_k", "default_top_p", "default_width", "experts", "has_reranker", "max_size", "max_steps", "min_size", "paints_by_tokens", "prompt_tokens", "resident_experts", "samplers", "size_multiple", "suggested_best_of"]
    DEFAULT_GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_SAMPLER_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_STEPS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TOP_K_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TOP_P_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_WIDTH_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    HAS_RERANKER_FIELD_NUMBER: _ClassVar[int]
    MAX_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    MIN_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAINTS_BY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    SAMPLERS_FIELD_NUMBER: _ClassVar[int]
    SIZE_MULTIPLE_FIELD_NUMBER: _ClassVar[int]
    SUGGESTED_BEST_OF_FIELD_NUMBER: _ClassVar[int]
    default_guidance: float
    default_height: int
    default_sampler: str
    default_steps: int
    default_temperature: float
    default_top_k: int
    default_top_p: float
    default_width: int
    experts: _containers.RepeatedCompositeFieldContainer[Expert]
    has_reranker: bool
    max_size: int
    max_steps: int
    min_size: int
    paints_by_tokens: bool
    prompt_tokens: int
    resident_experts: int
    samplers: _containers.RepeatedScalarFieldContainer[str]
    size_multiple: int
    suggested_best_of: int
    def __init__(self, default_width: _Optional[int] = ..., default_height: _Optional[int] = ..., size_multiple: _Optional[int] = ..., min_size: _Optional[int] = ..., max_size: _Optional[int] = ..., default_steps: _Optional[int] = ..., max_steps: _Optional[int] = ..., default_guidance: _Optional[float] = ..., default_sampler: _Optional[str] = ..., samplers: _Optional[_Iterable[str]] = ..., prompt_tokens: _Optional[int] = ..., has_reranker: bool = ..., paints_by_tokens: bool = ..., default_temperature: _Optional[float] = ..., default_top_k: _Optional[int] = ..., default_top_p: _Optional[float] = ..., suggested_best_of: _Optional[int] = ..., experts: _Optional[_Iterable[_Union[Expert, _Mapping]]] = ..., resident_experts: _Optional[int] = ...) -> None: ...

class StepCost(_message.Message):
    __slots__ = ["height", "kind", "knee_bytes", "knee_rows", "knee_time", "one_row", "one_row_bytes", "steps", "width"]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    KNEE_BYTES_FIELD_NUMBER: _ClassVar[int]
    KNEE_ROWS_FIELD_NUMBER: _ClassVar[int]
    KNEE_TIME_FIELD_NUMBER: _ClassVar[int]
    ONE_ROW_BYTES_FIELD_NUMBER: _ClassVar[int]
    ONE_ROW_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    height: int
    kind: StepKind
    knee_bytes: int
    knee_rows: int
    knee_time: _duration_pb2.Duration
    one_row: _duration_pb2.Duration
    one_row_bytes: int
    steps: int
    width: int
    def __init__(self, kind: _Optional[_Union[StepKind, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., one_row: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., knee_rows: _Optional[int] = ..., knee_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., steps: _Optional[int] = ..., one_row_bytes: _Optional[int] = ..., knee_bytes: _Optional[int] = ...) -> None: ...

class TextModel(_message.Message):
    __slots__ = ["context_tokens", "default_max_tokens", "default_repetition_penalty", "default_temperature", "default_top_k", "default_top_p", "eos_token_ids", "has_chat_template", "has_thinking_switch", "vocabulary_size"]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TOP_K_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TOP_P_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    HAS_CHAT_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    HAS_THINKING_SWITCH_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_SIZE_FIELD_NUMBER: _ClassVar[int]
    context_tokens: int
    default_max_tokens: int
    default_repetition_penalty: float
    default_temperature: float
    default_top_k: int
    default_top_p: float
    eos_token_ids: _containers.RepeatedScalarFieldContainer[int]
    has_chat_template: bool
    has_thinking_switch: bool
    vocabulary_size: int
    def __init__(self, context_tokens: _Optional[int] = ..., vocabulary_size: _Optional[int] = ..., eos_token_ids: _Optional[_Iterable[int]] = ..., has_chat_template: bool = ..., default_temperature: _Optional[float] = ..., default_top_k: _Optional[int] = ..., default_top_p: _Optional[float] = ..., default_repetition_penalty: _Optional[float] = ..., default_max_tokens: _Optional[int] = ..., has_thinking_switch: bool = ...) -> None: ...

class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class StepKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
