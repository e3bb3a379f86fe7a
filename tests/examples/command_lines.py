"""Command lines of `palate` that a page writes, and what their own parsers say of them; nothing is run."""

import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import entry_points
from io import StringIO
from typing import Any

import typer

from docs.generate.configuration import COMMANDS
from palate.command import GROUP
from palate.settings import Settings
from tests.examples.documents import FENCE

SETTINGS: dict[str, type[Settings]] = {name.removeprefix("palate "): settings for name, settings in COMMANDS}
"""Commands whose flags are the fields of a configuration."""

_SPAN = re.compile(r"(?<!`)`(palate\s[^`]+)`(?!`)")
_BEFORE = r"(?:^|[|;&(!]|\b(?:do|then|if|while|until)\b)[ \t]*(?:\w+=\S+[ \t]+)*"
_CALL = re.compile(_BEFORE + r"(palate[ \t][^\n|;&>)]*)", re.MULTILINE)
_ARGS = re.compile(r"\bargs: \[([^\]]+)\]")
_PROGRAMS = {entry.name: entry for entry in entry_points(group=GROUP)}


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command line.

    Attributes:
        line: Where it begins.
        words: What follows `palate`.
        is_whole: It stands in a block, to be typed as it is; else prose names it, and may leave out what is required.
    """

    line: int
    words: tuple[str, ...]
    is_whole: bool


def command_lines_of(text: str) -> list[CommandLine]:
    """Those in blocks, in code spans, and in `args` of a pod that one of our images runs."""
    blocks = FENCE.sub(lambda fence: re.sub(r"[^\n]", " ", fence[0]), text)  # the same lines, without blocks
    found = [_line(text, match.start(), match[1], False) for match in _SPAN.finditer(blocks)]
    for fence in FENCE.finditer(text):
        if fence["info"].split()[:1] not in (["python"], ["js"]):
            found += _in_block(text, fence)
    return found


def _in_block(text: str, fence: re.Match[str]) -> Iterator[CommandLine]:
    joined = fence["code"].replace("\\\n", "  ")  # as long as before: positions stay
    for match in _CALL.finditer(joined):
        yield _line(text, fence.start("code") + match.start(1), match[1], True)
    for match in _ARGS.finditer(fence["code"]):
        words = [word.strip().strip("\"'") for word in match[1].split(",")]
        if words[0] in _PROGRAMS:
            yield CommandLine(_number(text, fence.start("code") + match.start()), tuple(words), True)


def _line(text: str, start: int, command: str, is_whole: bool) -> CommandLine:
    return CommandLine(_number(text, start), tuple(shlex.split(command, comments=True)[1:]), is_whole)


def _number(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def complaint(command: CommandLine) -> str:
    """What the parser of a command line says is wrong with it; empty where nothing is."""
    name, *rest = command.words
    if name not in _PROGRAMS:
        return f"there is no command {name!r}"
    below = [f"{name} {word}" for word in rest[:1]]
    for title in (*below, name):
        if title in SETTINGS:
            return _of_settings(SETTINGS[title], command, list(command.words[len(title.split()) :]))
    return _of_typer(typer.main.get_command(_PROGRAMS[name].load()), command, rest)


def _of_settings(settings: type[Settings], command: CommandLine, words: list[str]) -> str:
    has_file = "--config" in words
    if has_file:  # another's file; without its name behind it, prose names the flag alone
        del words[(at := words.index("--config")) : at + 2]
    try:
        with redirect_stderr(StringIO()) as told:
            settings.from_command_line(words, "palate")
    except SystemExit as end:
        lines = told.getvalue().strip().splitlines()
        may_lack = has_file or not command.is_whole
        wrong = [line for line in lines if not (may_lack and " is missing: " in line)]
        return "\n".join(wrong) if end.code else ""
    return ""


def _of_typer(program: Any, command: CommandLine, words: list[str]) -> str:
    while hasattr(program, "commands") and words:
        name, *words = words
        if name not in program.commands:
            return f"there is no {name!r} below it"
        program = program.commands[name]
    if hasattr(program, "commands"):
        return f"one of {', '.join(program.commands)} is missing" if command.is_whole else ""
    return _parsed(program, ["1" if "$" in word else word for word in words], command.is_whole)


def _parsed(program: Any, words: list[str], is_whole: bool) -> str:
    try:
        with redirect_stdout(StringIO()):
            program.make_context(program.name, list(words))
    except Exception as error:  # typer brings a click of its own, whose errors it does not show
        if not is_whole and type(error).__name__ == "MissingParameter":
            return _parsed(program, [*words, *_given(error.param)], is_whole)  # type: ignore[attr-defined]
        if not is_whole and type(error).__name__ == "BadOptionUsage" and words[-1].startswith("--"):
            return _parsed(program, [*words, "1"], is_whole)  # prose names a flag without its value
        was_help = getattr(error, "exit_code", 1) == 0
        return "" if was_help else getattr(error, "message", "") or str(error)
    return ""


def _given(parameter: Any) -> list[str]:
    """What prose has left out."""
    return [parameter.opts[0], "1"] if parameter.param_type_name == "option" else ["1"]
