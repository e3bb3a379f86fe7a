"""What every fuzzed decoder promises: errors of its own types and short ones, in bounded time and memory."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

CPU_SECONDS = 2.0
"""That one input may take of the processor, whatever else runs on the machine."""

GROWTH_BYTES = 256 << 20
"""By which one input may raise the process's largest size."""

ERROR_CHARACTERS = 2048
"""Longest message of an error: statuses travel in gRPC's metadata, of which 8 KiB are taken."""


class Broken(AssertionError):
    """An input that a decoder does not keep its promise for."""


@dataclass(frozen=True, slots=True)
class Harness:
    """A decoder, and what comes out of it for any bytes.

    Attributes:
        name: Of the decoder and its corpus.
        decode: Decodes; may also check what it made.
        expected: The exceptions that the edge turns into a clear status or message; no other may leave.
        inputs: Bytes that are more or less well-formed.
        max_bytes: Longest input.
        mutate: Changes an input so that it stays of its kind; None = bytes are changed wherever they stand.
        prepare: Builds what `decode` needs, so that the first input does not pay for it.
    """

    name: str
    decode: Callable[[bytes], object]
    expected: tuple[type[Exception], ...]
    inputs: SearchStrategy[bytes]
    max_bytes: int = 4096
    mutate: Callable[[bytes, Random], bytes] | None = None
    prepare: Callable[[], object] = field(default=lambda: None)

    def check(self, data: bytes) -> bool:
        """Whether the input is accepted.

        Raises:
            Broken: It took too much time or memory, or its error is a long one.
            Exception: Any other that the decoder should not let out.
        """
        begin, size = time.thread_time(), _peak_bytes()
        logging.disable(logging.CRITICAL)  # what is logged of bad input is not what is looked for here
        try:
            self.decode(data)
            accepted = True
        except self.expected as error:
            accepted = False
            if len(str(error)) > ERROR_CHARACTERS:
                raise Broken(f"{self.name}: an error of {len(str(error))} characters: {str(error)[:200]}") from error
        finally:
            logging.disable(logging.NOTSET)
        if (seconds := time.thread_time() - begin) > CPU_SECONDS:
            raise Broken(f"{self.name}: {len(data)} bytes took {seconds:.1f} s of the processor")
        if (growth := _peak_bytes() - size) > GROWTH_BYTES:
            raise Broken(f"{self.name}: {len(data)} bytes took {growth >> 20} MiB")
        return accepted


def spoilt(well_formed: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Mostly as they are, some cut, some with a piece replaced, some any bytes at all."""
    return st.one_of(well_formed, well_formed, st.builds(_replaced, well_formed, st.data()), st.binary(max_size=64))


def framed(frames: SearchStrategy[bytes], most: int = 8) -> SearchStrategy[bytes]:
    """Several messages as one input, as `frames_of` takes them apart."""
    return st.lists(frames, max_size=most).map(lambda parts: b"".join(map(frame, parts)))


def frame(data: bytes) -> bytes:
    """A message behind its length in two bytes."""
    return len(data[:65_535]).to_bytes(2, "little") + data[:65_535]


def frames_of(data: bytes) -> list[bytes]:
    """The messages of an input; the last one may be shorter than it says."""
    frames = []
    while len(data) >= 2:
        end = 2 + int.from_bytes(data[:2], "little")
        frames.append(data[2:end])
        data = data[end:]
    return frames


def _replaced(data: bytes, draw: st.DataObject) -> bytes:
    begin = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(begin, len(data)))
    return data[:begin] + draw.draw(st.binary(max_size=8)) + data[end:]


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
