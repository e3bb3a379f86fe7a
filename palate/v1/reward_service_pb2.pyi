from google.protobuf import duration_pb2 as _duration_pb2
from palate.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Truncation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUNCATION_UNSPECIFIED: _ClassVar[Truncation]
    TRUNCATION_REJECT: _ClassVar[Truncation]
    TRUNCATION_LEFT: _ClassVar[Truncation]
    TRUNCATION_RIGHT: _ClassVar[Truncation]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_LOW: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_HIGH: _ClassVar[Priority]

class Aggregate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGGREGATE_UNSPECIFIED: _ClassVar[Aggregate]
    AGGREGATE_MEAN: _ClassVar[Aggregate]
    AGGREGATE_MIN: _ClassVar[Aggregate]
    AGGREGATE_MEAN_MINUS_VARIANCE: _ClassVar[Aggregate]

class ItemErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ITEM_ERROR_CODE_UNSPECIFIED: _ClassVar[ItemErrorCode]
    ITEM_ERROR_CODE_INVALID: _ClassVar[ItemErrorCode]
    ITEM_ERROR_CODE_TOO_LONG: _ClassVar[ItemErrorCode]
    ITEM_ERROR_CODE_EXPIRED: _ClassVar[ItemErrorCode]
    ITEM_ERROR_CODE_OVERLOADED: _ClassVar[ItemErrorCode]
    ITEM_ERROR_CODE_CANCELLED: _ClassVar[ItemErrorCode]
    ITEM_ERROR_CODE_FAILED: _ClassVar[ItemErrorCode]
TRUNCATION_UNSPECIFIED: Truncation
TRUNCATION_REJECT: Truncation
TRUNCATION_LEFT: Truncation
TRUNCATION_RIGHT: Truncation
PRIORITY_UNSPECIFIED: Priority
PRIORITY_LOW: Priority
PRIORITY_NORMAL: Priority
PRIORITY_HIGH: Priority
AGGREGATE_UNSPECIFIED: Aggregate
AGGREGATE_MEAN: Aggregate
AGGREGATE_MIN: Aggregate
AGGREGATE_MEAN_MINUS_VARIANCE: Aggregate
ITEM_ERROR_CODE_UNSPECIFIED: ItemErrorCode
ITEM_ERROR_CODE_INVALID: ItemErrorCode
ITEM_ERROR_CODE_TOO_LONG: ItemErrorCode
ITEM_ERROR_CODE_EXPIRED: ItemErrorCode
ITEM_ERROR_CODE_OVERLOADED: ItemErrorCode
ITEM_ERROR_CODE_CANCELLED: ItemErrorCode
ITEM_ERROR_CODE_FAILED: ItemErrorCode

class ScoreItem(_message.Message):
    __slots__ = ("prompt", "completion")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    prompt: _common_pb2.Content
    completion: _common_pb2.Content
    def __init__(self, prompt: _Optional[_Union[_common_pb2.Content, _Mapping]] = ..., completion: _Optional[_Union[_common_pb2.Content, _Mapping]] = ...) -> None: ...

class ScoreOptions(_message.Message):
    __slots__ = ("model", "revision", "truncation", "priority", "aggregate", "variance_weight", "include_members")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: str
    truncation: Truncation
    priority: Priority
    aggregate: Aggregate
    variance_weight: float
    include_members: bool
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[str] = ..., truncation: _Optional[_Union[Truncation, str]] = ..., priority: _Optional[_Union[Priority, str]] = ..., aggregate: _Optional[_Union[Aggregate, str]] = ..., variance_weight: _Optional[float] = ..., include_members: bool = ...) -> None: ...

class Scored(_message.Message):
    __slots__ = ("score", "calibrated", "token_count", "truncated_tokens", "std", "members")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    score: float
    calibrated: float
    token_count: int
    truncated_tokens: int
    std: float
    members: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, score: _Optional[float] = ..., calibrated: _Optional[float] = ..., token_count: _Optional[int] = ..., truncated_tokens: _Optional[int] = ..., std: _Optional[float] = ..., members: _Optional[_Iterable[float]] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("code", "message", "retryable", "retry_after")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    code: ItemErrorCode
    message: str
    retryable: bool
    retry_after: _duration_pb2.Duration
    def __init__(self, code: _Optional[_Union[ItemErrorCode, str]] = ..., message: _Optional[str] = ..., retryable: bool = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ScoreResult(_message.Message):
    __slots__ = ("scored", "error")
    SCORED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    scored: Scored
    error: ItemError
    def __init__(self, scored: _Optional[_Union[Scored, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("model", "revision", "engine", "dtype")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: str
    engine: str
    dtype: str
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[str] = ..., engine: _Optional[str] = ..., dtype: _Optional[str] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("items", "options")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoreItem]
    options: ScoreOptions
    def __init__(self, items: _Optional[_Iterable[_Union[ScoreItem, _Mapping]]] = ..., options: _Optional[_Union[ScoreOptions, _Mapping]] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("results", "provenance", "timings")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ScoreResult]
    provenance: Provenance
    timings: _common_pb2.Timings
    def __init__(self, results: _Optional[_Iterable[_Union[ScoreResult, _Mapping]]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ...) -> None: ...

class StreamItem(_message.Message):
    __slots__ = ("id", "item", "timeout")
    ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    id: int
    item: ScoreItem
    timeout: _duration_pb2.Duration
    def __init__(self, id: _Optional[int] = ..., item: _Optional[_Union[ScoreItem, _Mapping]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ScoreStreamRequest(_message.Message):
    __slots__ = ("options", "item")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    options: ScoreOptions
    item: StreamItem
    def __init__(self, options: _Optional[_Union[ScoreOptions, _Mapping]] = ..., item: _Optional[_Union[StreamItem, _Mapping]] = ...) -> None: ...

class ScoreStreamResponse(_message.Message):
    __slots__ = ("id", "result", "provenance", "timings")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    id: int
    result: ScoreResult
    provenance: Provenance
    timings: _common_pb2.Timings
    def __init__(self, id: _Optional[int] = ..., result: _Optional[_Union[ScoreResult, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("prompt", "first", "second", "options")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    prompt: _common_pb2.Content
    first: _common_pb2.Content
    second: _common_pb2.Content
    options: ScoreOptions
    def __init__(self, prompt: _Optional[_Union[_common_pb2.Content, _Mapping]] = ..., first: _Optional[_Union[_common_pb2.Content, _Mapping]] = ..., second: _Optional[_Union[_common_pb2.Content, _Mapping]] = ..., options: _Optional[_Union[ScoreOptions, _Mapping]] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("difference", "probability", "first", "second", "difference_std")
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_STD_FIELD_NUMBER: _ClassVar[int]
    difference: float
    probability: float
    first: Scored
    second: Scored
    difference_std: float
    def __init__(self, difference: _Optional[float] = ..., probability: _Optional[float] = ..., first: _Optional[_Union[Scored, _Mapping]] = ..., second: _Optional[_Union[Scored, _Mapping]] = ..., difference_std: _Optional[float] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("comparison", "error", "provenance", "timings")
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    comparison: Comparison
    error: ItemError
    provenance: Provenance
    timings: _common_pb2.Timings
    def __init__(self, comparison: _Optional[_Union[Comparison, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ...) -> None: ...

class RankRequest(_message.Message):
    __slots__ = ("prompt", "completions", "options")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    COMPLETIONS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    prompt: _common_pb2.Content
    completions: _containers.RepeatedCompositeFieldContainer[_common_pb2.Content]
    options: ScoreOptions
    def __init__(self, prompt: _Optional[_Union[_common_pb2.Content, _Mapping]] = ..., completions: _Optional[_Iterable[_Union[_common_pb2.Content, _Mapping]]] = ..., options: _Optional[_Union[ScoreOptions, _Mapping]] = ...) -> None: ...

class Ranked(_message.Message):
    __slots__ = ("scored", "rank", "z_score")
    SCORED_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    Z_SCORE_FIELD_NUMBER: _ClassVar[int]
    scored: Scored
    rank: int
    z_score: float
    def __init__(self, scored: _Optional[_Union[Scored, _Mapping]] = ..., rank: _Optional[int] = ..., z_score: _Optional[float] = ...) -> None: ...

class RankResult(_message.Message):
    __slots__ = ("ranked", "error")
    RANKED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ranked: Ranked
    error: ItemError
    def __init__(self, ranked: _Optional[_Union[Ranked, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class RankResponse(_message.Message):
    __slots__ = ("results", "order", "provenance", "timings")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RankResult]
    order: _containers.RepeatedScalarFieldContainer[int]
    provenance: Provenance
    timings: _common_pb2.Timings
    def __init__(self, results: _Optional[_Iterable[_Union[RankResult, _Mapping]]] = ..., order: _Optional[_Iterable[int]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("item", "options")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    item: ScoreItem
    options: ScoreOptions
    def __init__(self, item: _Optional[_Union[ScoreItem, _Mapping]] = ..., options: _Optional[_Union[ScoreOptions, _Mapping]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("rendered_text", "token_ids", "tokens", "score_position", "transformers_score_position", "truncated_tokens", "template_kind", "inferred", "provenance")
    RENDERED_TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SCORE_POSITION_FIELD_NUMBER: _ClassVar[int]
    TRANSFORMERS_SCORE_POSITION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_KIND_FIELD_NUMBER: _ClassVar[int]
    INFERRED_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    rendered_text: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    tokens: _containers.RepeatedScalarFieldContainer[str]
    score_position: int
    transformers_score_position: int
    truncated_tokens: int
    template_kind: str
    inferred: _containers.RepeatedCompositeFieldContainer[_common_pb2.Inference]
    provenance: Provenance
    def __init__(self, rendered_text: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., tokens: _Optional[_Iterable[str]] = ..., score_position: _Optional[int] = ..., transformers_score_position: _Optional[int] = ..., truncated_tokens: _Optional[int] = ..., template_kind: _Optional[str] = ..., inferred: _Optional[_Iterable[_Union[_common_pb2.Inference, _Mapping]]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("provenance", "weights_digest", "tokenizer_digest", "template_digest", "kind", "template_kind", "max_tokens", "max_items", "logit_scale", "reference_mean", "reference_std", "inferred", "capabilities", "members")
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_KIND_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    LOGIT_SCALE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_MEAN_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_STD_FIELD_NUMBER: _ClassVar[int]
    INFERRED_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    provenance: Provenance
    weights_digest: str
    tokenizer_digest: str
    template_digest: str
    kind: str
    template_kind: str
    max_tokens: int
    max_items: int
    logit_scale: float
    reference_mean: float
    reference_std: float
    inferred: _containers.RepeatedCompositeFieldContainer[_common_pb2.Inference]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    members: _containers.RepeatedCompositeFieldContainer[EnsembleMember]
    def __init__(self, provenance: _Optional[_Union[Provenance, _Mapping]] = ..., weights_digest: _Optional[str] = ..., tokenizer_digest: _Optional[str] = ..., template_digest: _Optional[str] = ..., kind: _Optional[str] = ..., template_kind: _Optional[str] = ..., max_tokens: _Optional[int] = ..., max_items: _Optional[int] = ..., logit_scale: _Optional[float] = ..., reference_mean: _Optional[float] = ..., reference_std: _Optional[float] = ..., inferred: _Optional[_Iterable[_Union[_common_pb2.Inference, _Mapping]]] = ..., capabilities: _Optional[_Iterable[str]] = ..., members: _Optional[_Iterable[_Union[EnsembleMember, _Mapping]]] = ...) -> None: ...

class EnsembleMember(_message.Message):
    __slots__ = ("name", "revision", "label")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    name: str
    revision: str
    label: int
    def __init__(self, name: _Optional[str] = ..., revision: _Optional[str] = ..., label: _Optional[int] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModelListing(_message.Message):
    __slots__ = ("name", "is_default", "revision", "kind", "member_count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMBER_COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    is_default: bool
    revision: str
    kind: str
    member_count: int
    def __init__(self, name: _Optional[str] = ..., is_default: bool = ..., revision: _Optional[str] = ..., kind: _Optional[str] = ..., member_count: _Optional[int] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelListing]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelListing, _Mapping]]] = ...) -> None: ...
