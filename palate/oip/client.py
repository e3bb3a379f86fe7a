"""Scores texts on any server of the Open Inference Protocol v2 that takes prompts and completions as texts."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from palate.client import ChannelOptions, Failed, ItemErrorCode, PalateError, convert
from palate.client.calls import BlockingClient
from palate.oip.messages import NAME, message
from palate.v1 import reward_service_pb2 as reward

_LENGTH = struct.Struct("<I")
_NUMBERS = {"FP32": ("<f", "fp32_contents"), "FP64": ("<d", "fp64_contents"), "INT32": ("<i", "int_contents")}
_READERS = {**_NUMBERS, "BOOL": ("<?", "bool_contents")}


@dataclass(frozen=True, slots=True)
class Cut:
    """The score of a text of which the model did not read everything: it was cut to the model's length."""

    score: float


class Incompatible(PalateError):
    """The server's model does not take texts and give scores under these names; the message says what it has."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """What the server calls them."""

    prompt: str = "PROMPT"
    completion: str = "RESPONSE"
    score: str = "REWARD"


@dataclass(frozen=True, slots=True)
class OipModel:
    """A model of a server.

    Attributes:
        name: Its name.
        version: Its version; empty where the server has none.
        platform: What runs it.
        tells_failures: Whether it can say which items failed (input `partial`, output STATUS), as ours do.
        tells_cuts: Whether it says which texts were cut (output TRUNCATED), as ours do.
    """

    name: str
    version: str
    platform: str
    tells_failures: bool
    tells_cuts: bool


class OipClient(BlockingClient):
    """A server of the protocol; close it, or use `with`.

    Args:
        target: Address.
        model: Name of the model; our servers have a default for an empty one.
        timeout: Deadline of every call in seconds.
        tensors: Names of inputs and output.
        options: Encryption, token, message sizes.
    """

    def __init__(
        self,
        target: str,
        *,
        model: str = "",
        timeout: float = 30.0,
        tensors: Tensors | None = None,
        options: ChannelOptions | None = None,
    ) -> None:
        super().__init__(NAME, target, timeout, options)
        self._model = model
        self._tensors = tensors or Tensors()

    def model_info(self) -> OipModel:
        """What the server says of the model.

        Raises:
            Incompatible: Its inputs and outputs are others.
            CallError: The call failed.
        """
        found = self._ask("ModelMetadata", message("ModelMetadataRequest")(name=self._model))
        outputs = {each.name: each.datatype for each in found.outputs}
        self._check({each.name: each.datatype for each in found.inputs}, outputs)
        version = found.versions[0] if len(found.versions) == 1 else ""
        return OipModel(found.name, version, found.platform, "STATUS" in outputs, outputs.get("TRUNCATED") == "BOOL")

    def score(
        self, pairs: Sequence[tuple[str, str]], *, version: str = "", partial: bool = False, cuts: bool = False
    ) -> list[float | Cut | Failed]:
        """A score or a `Failed` for each (prompt, completion).

        Args:
            pairs: The texts.
            version: The model's version to insist on.
            partial: Whether the server may leave out items that fail; only where it `tells_failures`.
            cuts: Whether the score of a text that was cut comes as a `Cut`; only where the server `tells_cuts`.

        Raises:
            CallError: The call failed; without `partial` also where one item does.
            Incompatible: The reply has no score for each.
        """
        beside = [*(["STATUS"] if partial else []), *(["TRUNCATED"] if cuts else [])]
        reply = self._ask("ModelInfer", self._request(pairs, version, beside, partial=partial))
        scores = _column(reply, self._tensors.score, len(pairs))
        statuses = _column(reply, "STATUS", len(pairs)) if partial else [0] * len(pairs)
        cut = _column(reply, "TRUNCATED", len(pairs)) if cuts else [False] * len(pairs)
        return list(map(_outcome, scores, statuses, cut))

    def _request(self, pairs: Sequence[tuple[str, str]], version: str, beside: Sequence[str], *, partial: bool) -> Any:
        names, wanted = (self._tensors.prompt, self._tensors.completion), [self._tensors.score, *beside]
        request = message("ModelInferRequest")(
            model_name=self._model,
            model_version=version,
            inputs=[{"name": name, "datatype": "BYTES", "shape": [len(pairs), 1]} for name in names],
            outputs=[{"name": name} for name in wanted],
            raw_input_contents=[_packed(side) for side in zip(*pairs, strict=True)],
        )
        if partial:
            request.parameters["partial"].bool_param = True
        return request

    def _ask(self, rpc: str, request: Any) -> Any:
        method: Callable[..., Any] = self._channel.unary_unary(
            f"/{NAME}/{rpc}",
            request_serializer=lambda each: each.SerializeToString(),
            response_deserializer=message(f"{rpc}Response").FromString,
        )
        return self._call(method, request, None)

    def _check(self, inputs: dict[str, str], outputs: dict[str, str]) -> None:
        names = self._tensors
        for name in (names.prompt, names.completion):
            if inputs.get(name) != "BYTES":
                raise Incompatible(
                    f"{self.target} has no input {name} of texts (BYTES); its inputs are {_listed(inputs)}: say with "
                    "--tensors what prompt, completion and score are called"
                )
        if outputs.get(names.score) not in _NUMBERS:
            raise Incompatible(
                f"{self.target} has no output {names.score} of numbers ({', '.join(_NUMBERS)}); its outputs are "
                f"{_listed(outputs)}: say with --tensors what prompt, completion and score are called"
            )


def _packed(texts: Sequence[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return b"".join(_LENGTH.pack(len(each)) + each for each in encoded)


def _column(reply: Any, name: str, count: int) -> list[float]:
    """The numbers of an output, raw or typed."""
    place = next((i for i, each in enumerate(reply.outputs) if each.name == name), None)
    if place is None or reply.outputs[place].datatype not in _READERS:
        raise Incompatible(f"the reply has no numbers in an output {name}")
    form, field = _READERS[reply.outputs[place].datatype]
    if reply.raw_output_contents:
        found = [value for (value,) in struct.iter_unpack(form, reply.raw_output_contents[place])]
    else:
        found = list(getattr(reply.outputs[place].contents, field))
    if len(found) != count:
        raise Incompatible(f"the output {name} holds {len(found)} numbers for {count} texts; it must be one for each")
    return found


def _outcome(score: float, status: float, cut: float) -> float | Cut | Failed:
    if status:
        code = cast("reward.ItemErrorCode", int(status))
        return convert.failed(reward.ItemError(code=code, message="the server gives no score for this item"))
    found = finite(score)
    return Cut(found) if cut and isinstance(found, float) else found


def finite(score: float) -> float | Failed:
    """A score; infinite ones and NaN are none."""
    if math.isfinite(score):
        return float(score)
    return Failed(ItemErrorCode.FAILED, f"the score is {score}, which is no number", retryable=False, retry_after=None)


def _listed(tensors: dict[str, str]) -> str:
    return ", ".join(f"{name} ({datatype})" for name, datatype in tensors.items()) or "none"
