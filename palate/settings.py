"""Configuration of a process: one typed class, filled from flags, environment and a YAML file, in that order."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from palate.environment import misspelt, variable_of
from palate.exit_codes import STOPPED
from palate.plain_model import PlainModel
from palate.spelling import unknown
from palate.yaml_document import KeyGivenTwice, TooMuch, read_yaml


class Group(PlainModel):
    """Base of the nested parts of a configuration: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Takes the indentation out of what --help shows of the group."""
        super().__init_subclass__(**kwargs)
        cls.__doc__ = cleandoc(cls.__doc__ or "")


class Settings(PlainModel, BaseSettings):
    """Base of every configuration class.

    A field ``max_items`` is the flag ``--max-items``, the YAML key ``max_items`` and the environment variable
    ``<env_prefix>MAX_ITEMS``; flags win over the environment, the environment over the file given with ``--config``.
    """

    model_config = SettingsConfigDict(
        env_prefix="PALATE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        nested_model_default_partial_update=True,
    )

    @classmethod
    def from_command_line(cls, argv: Sequence[str], prog: str) -> Self:
        """The configuration that `argv` asks for.

        Prints help and exits with 0 on ``--help``; prints what is wrong, and the nearest right name, and exits with 2.
        """
        arguments, config_file = _split_config_flag(argv)
        try:
            from_file = {} if config_file is None else read_config(Path(config_file))
        except ConfigFileError as error:
            _refuse(prog, str(error))
        strange = [flag for flag in arguments if flag.startswith("--") and _unknown_flag(cls, flag)]
        if strange:
            _refuse(prog, _suggestion(strange[0].split("=")[0], _flags(cls)))
        if not {"--help", "-h"} & set(arguments) and (problem := _environment_problem(cls)):
            _refuse(prog, problem)
        try:
            return _sourced(cls, arguments, from_file, prog)()
        except ValidationError as error:
            _refuse(prog, "\n".join(_explain(cls, problem) for problem in error.errors()))
        except SettingsError as error:
            _refuse(prog, _unparsed(cls, str(error)))

    @classmethod
    def variables_of_others(cls) -> frozenset[str]:
        """Environment variables that begin as this configuration's do, and are somebody else's."""
        return frozenset()

    def describe(self) -> str:
        """One line per field, secrets hidden."""
        width = max(len(name) for name, _ in _flatten(self))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in _flatten(self))


SettingsT = TypeVar("SettingsT", bound=Settings)


class ConfigFileError(Exception):
    """The configuration file cannot be used; the message names it and says what is wrong."""


def read_config(file: Path) -> dict[str, Any]:
    """The names and values that a configuration file holds; none for an empty file.

    Raises:
        ConfigFileError: It is missing, no YAML, or holds too much or something else.
    """
    try:
        content = read_yaml(file)
    except FileNotFoundError as error:
        raise ConfigFileError(f"the configuration file {file} does not exist") from error
    except OSError as error:
        raise ConfigFileError(f"the configuration file {file} cannot be read: {error.strerror}") from error
    except KeyGivenTwice as error:
        raise ConfigFileError(f"the configuration file {file} contradicts itself: {error}") from error
    except TooMuch as error:
        raise ConfigFileError(f"the configuration file {file} holds too much: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigFileError(f"the configuration file {file} is not YAML: {error}") from error
    if content is not None and not (isinstance(content, dict) and all(isinstance(name, str) for name in content)):
        raise ConfigFileError(f"the configuration file {file} holds no names with values, one 'name: value' a line")
    return content or {}


def flag_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every flag of a configuration class without its dashes, nested ones with dots."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        flag = prefix + name.replace("_", "-")
        names.append(flag)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names.extend(flag_names(field.annotation, f"{flag}."))
    return names


def _flags(cls: type[Settings]) -> list[str]:
    """Every flag as it is typed, those that turn a switch off too."""
    return [f"--{name}" for name in flag_names(cls)] + [f"--no-{name}" for name in _switches(cls)]


def _switches(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        flag = prefix + name.replace("_", "-")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _switches(field.annotation, f"{flag}.")
        elif field.annotation is bool:
            yield flag


def variables(cls: type[Settings]) -> frozenset[str]:
    """Every environment variable of a configuration class."""
    return frozenset(variable_of(_prefix(cls), flag) for flag in flag_names(cls))


def _prefix(cls: type[Settings]) -> str:
    return str(cls.model_config.get("env_prefix", ""))


def _environment_problem(cls: type[Settings]) -> str:
    """Which environment variable means this configuration and is none of it; empty where there is none.

    Without a prefix of its own a class cannot tell: PALATE_DATA and many others begin like that.
    """
    prefix = _prefix(cls)
    if prefix == _prefix(Settings):
        return ""
    known = variables(cls)
    mappings = [variable_of(prefix, name) for name, field in cls.model_fields.items() if _is_mapping(field.annotation)]
    name = misspelt(os.environ, prefix, known | cls.variables_of_others(), mappings)
    return "" if name is None else f"the environment variable {_suggestion(name, sorted(known))}"


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _sourced(cls: type[SettingsT], arguments: list[str], from_file: dict[str, Any], prog: str) -> type[SettingsT]:
    """`cls` with the command line, the environment and what the YAML file says as sources."""

    class Sourced(cls):  # type: ignore[misc, valid-type]
        model_config = SettingsConfigDict(
            cli_prog_name=prog,
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_avoid_json=True,
            cli_hide_none_type=True,
            cli_use_class_docs_for_groups=True,
        )

        @classmethod
        def settings_customise_sources(
            inner,  # noqa: N804
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                CliSettingsSource(settings_cls, cli_parse_args=arguments),
                env_settings,
                InitSettingsSource(settings_cls, from_file),
            )

    Sourced.__doc__ = (
        f"{(cls.__doc__ or '').strip()} Every value can also come from --config FILE (YAML, the same names with _) "
        f"or from the environment ({_prefix(cls)}NAME); flags win, then the environment."
    )
    Sourced.__name__ = Sourced.__qualname__ = cls.__name__
    return Sourced


def _split_config_flag(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """Takes ``--config FILE`` out of the arguments; the environment variable PALATE_CONFIG is its twin."""
    rest, config_file, pending = [], os.environ.get("PALATE_CONFIG"), False
    for argument in argv:
        if pending:
            config_file, pending = argument, False
        elif argument == "--config":
            pending = True
        elif argument.startswith("--config="):
            config_file = argument.removeprefix("--config=")
        else:
            rest.append(argument)
    return rest, config_file


def _unknown_flag(cls: type[BaseModel], flag: str) -> bool:
    name = flag.removeprefix("--").split("=")[0]
    known = set(flag_names(cls))
    return not ({name, name.removeprefix("no-")} & known or name == "help" or _inside_mapping(cls, name))


def _inside_mapping(cls: type[BaseModel], name: str) -> bool:
    """Whether a dotted flag names an entry of a field that is itself a flag, e.g. an element of a list."""
    return "." in name and any(
        name.startswith(f"{known}.") for known in flag_names(cls) if not _has_children(cls, known)
    )


def _has_children(cls: type[BaseModel], flag: str) -> bool:
    return any(known.startswith(f"{flag}.") for known in flag_names(cls))


def _explain(cls: type[BaseModel], problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = [name.replace("-", "_") for name in flag_names(cls)]
        return _suggestion(where, known)
    if problem["type"] == "missing":
        return f"--{where.replace('_', '-')} is missing: {_described(cls, problem['loc'])}"
    told = problem["msg"].removeprefix("Value error, ")  # pydantic's own words
    if isinstance(problem["input"], dict):  # several values do not go together: a group is no value to show
        return f"{where}: {told}" if where else told
    return f"{where}: {told} (got {problem['input']!r})"


def _described(cls: type[BaseModel], path: Sequence[str | int]) -> str:
    """What the field says of itself; --help where it says nothing."""
    field: Any = None
    for name in path:
        field = cls.model_fields.get(str(name))
        if field is None:
            break
        cls = (
            field.annotation if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) else cls
        )
    return getattr(field, "description", None) or "--help says what it is"


def _unparsed(cls: type[BaseModel], message: str) -> str:
    """What pydantic-settings says of a flag it cannot take apart, with what the flag wants."""
    match = re.search(r"Parsing error encountered for (\w+)", message)
    if match is None:
        return message
    return f"--{match[1].replace('_', '-')} cannot be read: {_described(cls, [match[1]])}"


def _suggestion(name: str, known: Sequence[str]) -> str:
    return unknown(name, known, "--help lists what there is")


def _refuse(prog: str, message: str) -> NoReturn:
    print(f"{prog}: {message}", file=sys.stderr)
    raise SystemExit(STOPPED)


def _flatten(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, "********" if isinstance(value, SecretStr) else value
