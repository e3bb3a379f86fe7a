from google.protobuf import duration_pb2 as _duration_pb2
from palate.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]

class WeightsKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEIGHTS_KIND_UNSPECIFIED: _ClassVar[WeightsKind]
    WEIGHTS_KIND_FULL: _ClassVar[WeightsKind]
    WEIGHTS_KIND_DELTA: _ClassVar[WeightsKind]
    WEIGHTS_KIND_LORA: _ClassVar[WeightsKind]
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
WEIGHTS_KIND_UNSPECIFIED: WeightsKind
WEIGHTS_KIND_FULL: WeightsKind
WEIGHTS_KIND_DELTA: WeightsKind
WEIGHTS_KIND_LORA: WeightsKind

class PolicyVersion(_message.Message):
    __slots__ = ("run_id", "incarnation", "step", "digest")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    incarnation: int
    step: int
    digest: str
    def __init__(self, run_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., step: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class SamplingParams(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "max_new_tokens", "stop", "ignore_eos")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    max_new_tokens: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    ignore_eos: bool
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., max_new_tokens: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., ignore_eos: bool = ...) -> None: ...

class GeneratePrompt(_message.Message):
    __slots__ = ("prompt", "seed")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    prompt: _common_pb2.Content
    seed: int
    def __init__(self, prompt: _Optional[_Union[_common_pb2.Content, _Mapping]] = ..., seed: _Optional[int] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("prompts", "completions_per_prompt", "sampling", "required_policy_version", "stream_tokens", "strict")
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    COMPLETIONS_PER_PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    STREAM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    prompts: _containers.RepeatedCompositeFieldContainer[GeneratePrompt]
    completions_per_prompt: int
    sampling: SamplingParams
    required_policy_version: PolicyVersion
    stream_tokens: bool
    strict: bool
    def __init__(self, prompts: _Optional[_Iterable[_Union[GeneratePrompt, _Mapping]]] = ..., completions_per_prompt: _Optional[int] = ..., sampling: _Optional[_Union[SamplingParams, _Mapping]] = ..., required_policy_version: _Optional[_Union[PolicyVersion, _Mapping]] = ..., stream_tokens: bool = ..., strict: bool = ...) -> None: ...

class VersionSpan(_message.Message):
    __slots__ = ("first_token", "version")
    FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    first_token: int
    version: PolicyVersion
    def __init__(self, first_token: _Optional[int] = ..., version: _Optional[_Union[PolicyVersion, _Mapping]] = ...) -> None: ...

class Completion(_message.Message):
    __slots__ = ("prompt_index", "completion_index", "token_ids", "text", "logprobs", "finish_reason", "policy_versions", "seed", "prompt_token_ids")
    PROMPT_INDEX_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    prompt_index: int
    completion_index: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    text: str
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    finish_reason: FinishReason
    policy_versions: _containers.RepeatedCompositeFieldContainer[VersionSpan]
    seed: int
    prompt_token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, prompt_index: _Optional[int] = ..., completion_index: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., text: _Optional[str] = ..., logprobs: _Optional[_Iterable[float]] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., policy_versions: _Optional[_Iterable[_Union[VersionSpan, _Mapping]]] = ..., seed: _Optional[int] = ..., prompt_token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class TokenChunk(_message.Message):
    __slots__ = ("prompt_index", "completion_index", "first_token", "token_ids", "logprobs", "text")
    PROMPT_INDEX_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_INDEX_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    prompt_index: int
    completion_index: int
    first_token: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    text: str
    def __init__(self, prompt_index: _Optional[int] = ..., completion_index: _Optional[int] = ..., first_token: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[float]] = ..., text: _Optional[str] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("completion", "summary", "tokens")
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    completion: Completion
    summary: GenerateSummary
    tokens: TokenChunk
    def __init__(self, completion: _Optional[_Union[Completion, _Mapping]] = ..., summary: _Optional[_Union[GenerateSummary, _Mapping]] = ..., tokens: _Optional[_Union[TokenChunk, _Mapping]] = ...) -> None: ...

class GenerateSummary(_message.Message):
    __slots__ = ("completions", "tokens", "timings", "tokenizer_digest")
    COMPLETIONS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    completions: int
    tokens: int
    timings: _common_pb2.Timings
    tokenizer_digest: str
    def __init__(self, completions: _Optional[int] = ..., tokens: _Optional[int] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ..., tokenizer_digest: _Optional[str] = ...) -> None: ...

class LogprobSequence(_message.Message):
    __slots__ = ("prompt_ids", "completion_ids")
    PROMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_IDS_FIELD_NUMBER: _ClassVar[int]
    prompt_ids: _containers.RepeatedScalarFieldContainer[int]
    completion_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, prompt_ids: _Optional[_Iterable[int]] = ..., completion_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class ComputeLogprobsRequest(_message.Message):
    __slots__ = ("sequences", "temperature", "tokenizer_digest", "required_policy_version")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[LogprobSequence]
    temperature: float
    tokenizer_digest: str
    required_policy_version: PolicyVersion
    def __init__(self, sequences: _Optional[_Iterable[_Union[LogprobSequence, _Mapping]]] = ..., temperature: _Optional[float] = ..., tokenizer_digest: _Optional[str] = ..., required_policy_version: _Optional[_Union[PolicyVersion, _Mapping]] = ...) -> None: ...

class SequenceLogprobs(_message.Message):
    __slots__ = ("logprobs",)
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, logprobs: _Optional[_Iterable[float]] = ...) -> None: ...

class ComputeLogprobsResponse(_message.Message):
    __slots__ = ("sequences", "policy_version", "timings")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[SequenceLogprobs]
    policy_version: PolicyVersion
    timings: _common_pb2.Timings
    def __init__(self, sequences: _Optional[_Iterable[_Union[SequenceLogprobs, _Mapping]]] = ..., policy_version: _Optional[_Union[PolicyVersion, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ...) -> None: ...

class AcquirePublisherRequest(_message.Message):
    __slots__ = ("run_id", "incarnation")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    incarnation: int
    def __init__(self, run_id: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class AcquirePublisherResponse(_message.Message):
    __slots__ = ("fencing_token", "current")
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    fencing_token: int
    current: PolicyVersion
    def __init__(self, fencing_token: _Optional[int] = ..., current: _Optional[_Union[PolicyVersion, _Mapping]] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "dtype", "shape", "size_bytes", "sha256", "changed_elements")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    CHANGED_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    size_bytes: int
    sha256: str
    changed_elements: int
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., changed_elements: _Optional[int] = ...) -> None: ...

class WeightsManifest(_message.Message):
    __slots__ = ("fencing_token", "version", "kind", "tensors", "base", "lora_scale")
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    LORA_SCALE_FIELD_NUMBER: _ClassVar[int]
    fencing_token: int
    version: PolicyVersion
    kind: WeightsKind
    tensors: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    base: PolicyVersion
    lora_scale: float
    def __init__(self, fencing_token: _Optional[int] = ..., version: _Optional[_Union[PolicyVersion, _Mapping]] = ..., kind: _Optional[_Union[WeightsKind, str]] = ..., tensors: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., base: _Optional[_Union[PolicyVersion, _Mapping]] = ..., lora_scale: _Optional[float] = ...) -> None: ...

class WeightsChunk(_message.Message):
    __slots__ = ("tensor_index", "offset_bytes", "data")
    TENSOR_INDEX_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    tensor_index: int
    offset_bytes: int
    data: bytes
    def __init__(self, tensor_index: _Optional[int] = ..., offset_bytes: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class StageWeightsRequest(_message.Message):
    __slots__ = ("manifest", "chunk")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    manifest: WeightsManifest
    chunk: WeightsChunk
    def __init__(self, manifest: _Optional[_Union[WeightsManifest, _Mapping]] = ..., chunk: _Optional[_Union[WeightsChunk, _Mapping]] = ...) -> None: ...

class StageWeightsResponse(_message.Message):
    __slots__ = ("staging_id", "digest", "lease")
    STAGING_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    staging_id: str
    digest: str
    lease: _duration_pb2.Duration
    def __init__(self, staging_id: _Optional[str] = ..., digest: _Optional[str] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class CommitWeightsRequest(_message.Message):
    __slots__ = ("fencing_token", "staging_id", "expected_current", "interrupt")
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STAGING_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CURRENT_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_FIELD_NUMBER: _ClassVar[int]
    fencing_token: int
    staging_id: str
    expected_current: PolicyVersion
    interrupt: bool
    def __init__(self, fencing_token: _Optional[int] = ..., staging_id: _Optional[str] = ..., expected_current: _Optional[_Union[PolicyVersion, _Mapping]] = ..., interrupt: bool = ...) -> None: ...

class CommitWeightsResponse(_message.Message):
    __slots__ = ("current", "previous")
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    current: PolicyVersion
    previous: PolicyVersion
    def __init__(self, current: _Optional[_Union[PolicyVersion, _Mapping]] = ..., previous: _Optional[_Union[PolicyVersion, _Mapping]] = ...) -> None: ...

class RevertWeightsRequest(_message.Message):
    __slots__ = ("fencing_token", "expected_current")
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CURRENT_FIELD_NUMBER: _ClassVar[int]
    fencing_token: int
    expected_current: PolicyVersion
    def __init__(self, fencing_token: _Optional[int] = ..., expected_current: _Optional[_Union[PolicyVersion, _Mapping]] = ...) -> None: ...

class RevertWeightsResponse(_message.Message):
    __slots__ = ("current",)
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    current: PolicyVersion
    def __init__(self, current: _Optional[_Union[PolicyVersion, _Mapping]] = ...) -> None: ...

class AbortWeightsRequest(_message.Message):
    __slots__ = ("fencing_token", "staging_id")
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STAGING_ID_FIELD_NUMBER: _ClassVar[int]
    fencing_token: int
    staging_id: str
    def __init__(self, fencing_token: _Optional[int] = ..., staging_id: _Optional[str] = ...) -> None: ...

class AbortWeightsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPolicyInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPolicyInfoResponse(_message.Message):
    __slots__ = ("model", "policy_version", "tokenizer_digest", "template_digest", "engine", "dtype", "max_tokens", "max_prompts", "max_completions", "eos_token_id", "vocab_size", "frozen", "capabilities", "decode_steps", "threads", "max_batch_rows", "max_batch_tokens", "instance_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    MAX_COMPLETIONS_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    DECODE_STEPS_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    policy_version: PolicyVersion
    tokenizer_digest: str
    template_digest: str
    engine: str
    dtype: str
    max_tokens: int
    max_prompts: int
    max_completions: int
    eos_token_id: int
    vocab_size: int
    frozen: bool
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    decode_steps: int
    threads: int
    max_batch_rows: int
    max_batch_tokens: int
    instance_id: str
    def __init__(self, model: _Optional[str] = ..., policy_version: _Optional[_Union[PolicyVersion, _Mapping]] = ..., tokenizer_digest: _Optional[str] = ..., template_digest: _Optional[str] = ..., engine: _Optional[str] = ..., dtype: _Optional[str] = ..., max_tokens: _Optional[int] = ..., max_prompts: _Optional[int] = ..., max_completions: _Optional[int] = ..., eos_token_id: _Optional[int] = ..., vocab_size: _Optional[int] = ..., frozen: bool = ..., capabilities: _Optional[_Iterable[str]] = ..., decode_steps: _Optional[int] = ..., threads: _Optional[int] = ..., max_batch_rows: _Optional[int] = ..., max_batch_tokens: _Optional[int] = ..., instance_id: _Optional[str] = ...) -> None: ...
