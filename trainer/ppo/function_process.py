"""A user's function in a process of its own: one that hangs is ended, and one that crashes takes nothing along."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

IMPORT_SECONDS = 300.0
"""In which a function's module must be imported; it may load a model."""

Value = float | str
"""A finite number, or why there is none."""

Function = Callable[..., Any]


class NoFunction(Exception):
    """The function is not found; the message says why."""


class NoAnswer(Exception):
    """The function ended its process; the next call begins in a new one."""


class Late(NoAnswer):
    """The function did not answer in time, and its process was ended."""


class Raised(Exception):
    """The function raised something; the message says what and where, and holds no text."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """The function is found; SHA-256 of its module's file."""

    digest: str


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why there is no answer."""

    message: str


class FunctionProcess:
    """Calls `module:function` with the keywords prompts and completions, in a process that stays until it is ended.

    Args:
        name: The function.
        seconds: Deadline of a call.

    Attributes:
        digest: SHA-256 of the module's file.

    Raises:
        NoFunction: There is none, or its module is not imported in time.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._name = name
        self._seconds = seconds
        self._process: BaseProcess | None = None
        self.digest = self._start()

    def call(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Value]:
        """What the function gives, each value read as a number.

        Raises:
            NoAnswer: It did not answer in time (`Late`), or ended its process; the next call begins in a new one.
            Raised: It raised.
            NoFunction: A new process does not find it any more.
        """
        if self._process is None:
            self._start()
        with suppress(OSError):  # where it has ended since, the answer says how
            self._pipe.send((list(prompts), list(completions)))
        answer: list[Value] | _Problem = self._answer(self._seconds)
        if isinstance(answer, _Problem):
            raise Raised(answer.message)
        return answer

    def close(self) -> None:
        """Ends the process, also in the middle of a call."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def _start(self) -> str:
        context = multiprocessing.get_context("spawn")  # a fork would take the trainer's threads and locks along
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._name, theirs), daemon=True, name=self._name)
        self._process.start()
        theirs.close()
        try:
            answer = self._answer(IMPORT_SECONDS)
        except NoAnswer as error:
            raise NoFunction(f"while its module was imported, {error}") from error
        if isinstance(answer, _Problem):
            self.close()
            raise NoFunction(answer.message)
        digest: str = answer.digest
        return digest

    def _answer(self, seconds: float) -> Any:
        assert self._process is not None
        if not self._pipe.poll(seconds):
            self.close()
            raise Late(f"the function did not answer within {seconds:g} s")
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            self.close()
            raise NoAnswer(f"the function ended its process with exit code {code}") from None


def _serve(name: str, pipe: Connection) -> None:
    """The process: says whether the function is there, then answers calls until the trainer is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which then ends this process
    try:
        function, file = _found(name)
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except NoFunction as problem:
        pipe.send(_Problem(str(problem)))
        return
    pipe.send(_Ready(digest))
    while True:
        try:
            prompts, completions = pipe.recv()
            pipe.send(_values(function, prompts, completions))
        except (EOFError, BrokenPipeError):
            return


def _found(name: str) -> tuple[Function, str]:
    module_name, _, attribute = name.partition(":")
    module = _imported(module_name)
    function = getattr(module, attribute, None) if attribute else None
    if not callable(function):
        raise NoFunction("there is no such function; write module:function")
    _check_parameters(function)
    file = getattr(module, "__file__", None)
    if file is None:
        raise NoFunction("its module has no file that a run could be pinned to")
    return function, file


def _check_parameters(function: Function) -> None:
    try:
        inspect.signature(function).bind(prompts=[], completions=[])
    except TypeError as error:
        raise NoFunction(f"it is called as function(prompts=…, completions=…), and {error}") from error
    except ValueError:  # some callables, those of C among them, do not tell what they take
        return


def _imported(module: str) -> Any:
    """The module, also from the working directory, where a command's own modules are not looked for."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(module)
    except (ImportError, ValueError, SyntaxError) as error:
        raise NoFunction(
            f"{error}. Its module is looked for in the working directory and where Python looks (PYTHONPATH)"
        ) from error
    except Exception as error:  # a user's code
        raise NoFunction(f"its module cannot be imported: {_what(error)}") from error


def _values(function: Function, prompts: Sequence[str], completions: Sequence[str]) -> list[Value] | _Problem:
    try:
        return [_value(each) for each in function(prompts=prompts, completions=completions)]
    except Exception as error:  # a user's code: whatever it raises is why there is no score
        return _Problem(f"the function raised {_what(error)}")


def _value(given: Any) -> Value:
    try:
        number = float(given)
    except (TypeError, ValueError):
        return f"the function gave {type(given).__name__}, no number"
    return number if math.isfinite(number) else f"the function gave {number}"


def _what(error: Exception) -> str:
    """Type and place; not the message, which may hold a text."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
