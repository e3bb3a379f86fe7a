"""Runs a causal language model in vLLM on a GPU; written against the `LLMEngine` of vLLM 0.33.

vLLM batches by itself: rows are requests of its own, and a step here is a step there. It holds one set of weights at a
time, so those of a commit come in once the rows before it have ended or were told to follow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from palate.models.weights import untied_state_dict
from services.policy.drawing import BatchLimits
from services.policy.engine import DecodeStep, DrawnToken, EndedRow, Row
from services.policy.engine_transformers import ModelError, TransformersEngine
from services.policy.sampling import row_seed
from services.runtime.errors import InvalidRequest

_LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE = 0.01, 2.0
"""vLLM draws at the lowest where a lower one is asked for, and at none above the highest."""

_ALONE = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""Another process could not be handed weights as tensors."""

_QUIET = {
    "TRITON_F32_DEFAULT": "ieee",  # attention in float32 would be computed in TF32
    "VLLM_HOST_IP": "127.0.0.1",  # a world of one process needs no other machine
    "VLLM_NO_USAGE_STATS": "1",  # they would be sent to vLLM's makers
}
"""Unless the environment says otherwise."""

_SEED_BITS = (1 << 63) - 1

_ENDED = {"stop": True, "length": False}
"""Reasons for the end of a request, and whether it ended by itself."""


class VllmEngine(TransformersEngine):
    """A model whose weights are kept as modules on the CPU, and which draws in vLLM.

    Args:
        model: The loaded model; the same that vLLM has loaded.
        dtype: Number format, as both were loaded.
        eos_token_id: The tokenizer's.
        vllm: The `LLMEngine`, in this process.
        params: Makes its `SamplingParams`, from keyword arguments.
    """

    name = "vllm"
    strict = False
    one_batch = True

    def __init__(self, model: Any, dtype: str, eos_token_id: int | None, vllm: Any, params: Callable[..., Any]) -> None:
        super().__init__(model, dtype, eos_token_id)
        self.joins = True
        self._longest: int = vllm.model_config.max_model_len
        self._requests = Requests(vllm, params)
        self._in_vllm: nn.Module | None = model

    @classmethod
    def start(
        cls,
        folder: Path,
        dtype: str,
        eos_token_id: int | None,
        limits: BatchLimits,
        max_tokens: int,
        *,
        eager: bool = False,
    ) -> tuple[VllmEngine, nn.Module]:
        """The engine and the folder's weights.

        Args:
            folder: A Hugging Face causal language model.
            dtype: "float32" or "bfloat16".
            eos_token_id: The tokenizer's.
            limits: Rows that run together.
            max_tokens: Longest prompt plus completion.
            eager: Neither compile the model nor record CUDA graphs of it.

        Raises:
            ModelError: vLLM is not installed, or the folder holds no complete causal language model.
        """
        os.environ.update({**_QUIET, **os.environ, **_ALONE})  # before vLLM is imported, which reads it then
        try:
            from vllm import EngineArgs, LLMEngine, SamplingParams
            from vllm.sampling_params import RequestOutputKind
        except ImportError as error:
            raise ModelError(
                "--engine vllm needs vLLM and a GPU: pip install 'palate[vllm]', or serve with --engine transformers"
            ) from error
        _, model = TransformersEngine.load(folder, dtype, eos_token_id)
        arguments = engine_arguments(folder, dtype, limits.max_rows, max_tokens, eager=eager)
        vllm = LLMEngine.from_engine_args(EngineArgs(**arguments))
        params = partial(SamplingParams, output_kind=RequestOutputKind.DELTA)
        return cls(model, dtype, eos_token_id, vllm, params), model

    def batch(self, weights: nn.Module) -> VllmBatch:  # type: ignore[override]  # another batch, the same protocol
        """A batch without rows; brings the weights into vLLM, where no other batch may be under way."""
        if weights is not self._in_vllm:
            self._in_vllm = None  # which they are, if this breaks off
            self._requests.load(untied_state_dict(weights).items())
            self._in_vllm = weights
        return VllmBatch(self._requests, self.eos_token_ids)

    def logprobs(
        self, weights: Any, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], temperature: float
    ) -> list[list[float]]:
        """Logprobs of the completions; on the CPU where vLLM has none: at other temperatures, of other weights.

        Nor has it any of the longest sequences: it reads none without drawing a token more.
        """
        longest = max(len(prompt) + len(completion) for prompt, completion in sequences)
        if weights is not self._in_vllm or temperature != 1.0 or longest >= self._longest:
            return super().logprobs(weights, sequences, temperature)
        return self._requests.prompt_logprobs(sequences)


class Requests:
    """What is asked of vLLM; rows under their keys, sequences under names of their own.

    Args:
        vllm: The `LLMEngine`.
        params: Makes its `SamplingParams`.
    """

    def __init__(self, vllm: Any, params: Callable[..., Any]) -> None:
        self._vllm = vllm
        self._params = params
        self._early: list[Any] = []  # what rows drew while sequences were read

    def add(self, row: Row, eos_token_ids: Sequence[int]) -> None:
        """Asks for a completion.

        Raises:
            InvalidRequest: vLLM would draw otherwise than is asked.
        """
        params = self._params(**sampling_arguments(row, eos_token_ids))
        self._vllm.add_request(str(row.key), token_input(row.prompt_ids, row.token_ids), params)

    def abort(self, keys: Sequence[int]) -> None:
        """Ends requests."""
        names = {str(key) for key in keys}
        self._vllm.abort_request(sorted(names))
        self._early = [output for output in self._early if output.request_id not in names]

    def step(self) -> list[Any]:
        """What rows drew, as vLLM's outputs."""
        early, self._early = self._early, []
        return early or self._vllm.step()

    def prompt_logprobs(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Logprobs of completions, read as prompts; rows go on meanwhile, and are told of with the next step."""
        params = self._params(temperature=1.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        names = [f"sequence-{place}" for place in range(len(sequences))]
        for name, (prompt, completion) in zip(names, sequences, strict=True):
            self._vllm.add_request(name, token_input(prompt, completion), params)
        found: dict[str, list[float]] = {}
        while len(found) < len(names):
            for output in self._vllm.step():
                if output.request_id not in names:
                    self._early.append(output)
                elif output.prompt_logprobs:
                    place = names.index(output.request_id)
                    found[output.request_id] = completion_logprobs(output.prompt_logprobs, *sequences[place])
        return [found[name] for name in names]

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Replaces the weights; nothing that was computed under the former ones is used again.

        Raises:
            RuntimeError: vLLM keeps prefixes that it read under the former ones.
        """
        self._vllm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(tensors)})
        if self._vllm.reset_prefix_cache() is False:
            raise RuntimeError("vLLM did not forget its prefixes: a request is still under way")


class VllmBatch:
    """Rows that vLLM draws.

    Args:
        requests: What they are asked through.
        eos_token_ids: Tokens that end a row.
    """

    def __init__(self, requests: Requests, eos_token_ids: Sequence[int]) -> None:
        self._requests = requests
        self._eos = eos_token_ids

    def join(self, rows: Sequence[Row]) -> None:
        """Asks for them all, or for none."""
        asked: list[int] = []
        try:
            for row in rows:
                self._requests.add(row, self._eos)
                asked.append(row.key)
        except Exception:
            self._requests.abort(asked)
            raise

    def leave(self, keys: Sequence[int]) -> dict[int, None]:
        """Ends them; elsewhere they go on from a seed made of theirs and of how far they have come."""
        if keys:
            self._requests.abort(keys)
        return dict.fromkeys(keys)

    def step(self) -> DecodeStep:
        """What vLLM drew in a step; nothing for rows that it lets wait."""
        return decode_step(self._requests.step())


def engine_arguments(
    folder: Path, dtype: str, max_rows: int, max_tokens: int, *, eager: bool = False
) -> dict[str, Any]:
    """Keyword arguments of vLLM's `EngineArgs`: tokens in, tokens out, logprobs of what was drawn from."""
    return {
        "model": str(folder),
        "dtype": dtype,
        "max_num_seqs": max_rows,
        "max_model_len": max_tokens,
        "logprobs_mode": "processed_logprobs",  # after temperature, top-k and top-p
        "generation_config": "vllm",  # the folder's own sampling settings are not asked for
        "skip_tokenizer_init": True,
        "trust_remote_code": False,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "enforce_eager": eager,
    }


def token_input(prompt: Sequence[int], completion: Sequence[int]) -> dict[str, Any]:
    """VLLM's `TokensInput`: what is read before the first token is drawn."""
    return {"type": "token", "prompt_token_ids": [*prompt, *completion]}


def sampling_arguments(row: Row, eos_token_ids: Sequence[int]) -> dict[str, Any]:
    """Keyword arguments of vLLM's `SamplingParams` for what is left of a row.

    Raises:
        InvalidRequest: vLLM does not draw at the temperature.
    """
    sampling, drawn = row.sampling, len(row.token_ids)
    if not _LOWEST_TEMPERATURE <= sampling.temperature <= _HIGHEST_TEMPERATURE:
        raise InvalidRequest(
            f"temperature is {sampling.temperature}; engine vllm draws at {_LOWEST_TEMPERATURE} to "
            f"{_HIGHEST_TEMPERATURE} (for the likeliest token use top_k = 1)"
        )
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,  # 0 keeps all there too
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens - drawn,
        "seed": (row_seed(row.seed, drawn) if drawn else row.seed) & _SEED_BITS,
        "stop_token_ids": [] if sampling.ignore_eos else list(eos_token_ids),
        "ignore_eos": sampling.ignore_eos,
        "logprobs": 0,  # of the drawn token alone
        "detokenize": False,
    }


def decode_step(outputs: Iterable[Any]) -> DecodeStep:
    """What vLLM's `RequestOutput`s of a step say; each holds the tokens that are new.

    Raises:
        RuntimeError: A request ended as none should.
    """
    drawn, ended = [], []
    for output in outputs:
        key, completion = int(output.request_id), output.outputs[0]
        for token, likely in zip(completion.token_ids, completion.logprobs or (), strict=True):
            drawn.append(DrawnToken(key, token, likely[token].logprob))
        if completion.finish_reason is None:
            continue
        if completion.finish_reason not in _ENDED:
            raise RuntimeError(f"vLLM ended a request by {completion.finish_reason!r}")
        ended.append(EndedRow(key, _ENDED[completion.finish_reason]))
    return DecodeStep(tuple(drawn), tuple(ended))


def completion_logprobs(found: Sequence[Any], prompt: Sequence[int], completion: Sequence[int]) -> list[float]:
    """Of a completion's tokens, from the `prompt_logprobs` of prompt and completion, whose first entry is None."""
    return [likely[token].logprob for likely, token in zip(found[len(prompt) :], completion, strict=True)]
