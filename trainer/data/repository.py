"""Rows of a set as `datasets` reads it: a repository on the hub, a folder laid out as one, or one that was saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from palate.file_errors import first_cause_of
from palate.hub import PREFIX, FileKinds, HubAway, HubError, HubId, fetch, hub_id, is_on_hub
from trainer.data.lines import DataError
from trainer.errors import TrainerError

MAX_DOWNLOAD_BYTES = 16 * 2**30

_OTHER_CARD = ".huggingface.yaml"
_FILES = ("README.md", _OTHER_CARD, "*.jsonl", "*.json", "*.parquet", "*.csv", "*.jsonl.gz", "*.json.gz", "*.csv.gz")
"""What is downloaded of a set: rows, and what says which files make which split."""

_TOLD = 300
"""Characters of what `datasets` says of a set that it cannot read; it may name every ending that it knows."""

BATCH = 256
"""Rows that are in memory at a time, as a table and as objects."""


class DataAway(TrainerError):
    """Rows are on the hub, which does not give them now; another try may mend it."""


def split_named(source: Path) -> tuple[Path, str]:
    """(place, part) of what is given as PLACE:PART, the part as `read_repository` wants it; "" where none is named."""
    text = str(source)
    start = len(PREFIX) if is_on_hub(source) else 0
    place, colon, part = text[start:].rpartition(":")
    named = colon and (start or (not source.exists() and Path(place).is_dir()))
    return (Path(text[:start] + place), part) if named else (source, "")


def hub_of(source: Path) -> HubId:
    """The set on the hub of which `source` names a part.

    Raises:
        DataError: It is no such name.
    """
    try:
        return hub_id(split_named(source)[0])
    except HubError as error:
        raise DataError(str(error)) from error


def commit_of(hub: HubId) -> str:
    """The commit that a set is at now, which is downloaded.

    Raises:
        DataError: The hub has no such set.
        DataAway: The hub cannot be reached.
    """
    return _downloaded(hub).name


def at_commit(source: Path, commit: str) -> Path:
    """The same part of the same set, by its commit."""
    _, part = split_named(source)
    return Path(f"{replace(hub_of(source), revision=commit)}{part and f':{part}'}")


def read_repository(place: Path, part: str) -> Iterator[Mapping[str, Any]]:
    """Every row of one split.

    Args:
        place: Folder, or hub:org/name with an @revision.
        part: Split, CONFIG/SPLIT, or CONFIG; may be empty where there is one of each.

    Raises:
        DataError: It cannot be had, or holds no such part; the message says which there are.
        DataAway: The hub cannot be reached.
    """
    import datasets
    from yaml import YAMLError

    folder = (_downloaded(hub_of(place)) if is_on_hub(place) else place).resolve()
    try:
        if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return _rows(_one_split(datasets.load_from_disk(str(folder)), place, "", part))
        _check_card(folder)
        config, split = _config_and_split(datasets.get_dataset_config_names(str(folder)), place, part)
        _check_files(datasets.load_dataset_builder(str(folder), config), folder)
        return _rows(_one_split(datasets.load_dataset(str(folder), config), place, config, split))
    except (
        *(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, ImportError, YAMLError),
        datasets.exceptions.DatasetsError,
    ) as error:
        raise DataError(
            f"{place} cannot be read as a set of rows ({first_cause_of(error)[:_TOLD]}); give a folder that `datasets` "
            "saved, one with JSONL or Parquet files as on the hub, or such a file"
        ) from error


def _downloaded(hub: HubId) -> Path:
    try:
        return fetch(hub, FileKinds("dataset", _FILES, (), MAX_DOWNLOAD_BYTES))
    except HubError as error:
        raise DataError(str(error)) from error
    except HubAway as error:
        raise DataAway(str(error)) from error


def _config_and_split(configs: Sequence[str], place: Path, part: str) -> tuple[str, str]:
    """What `part` means; the configuration may be left out where there is one."""
    config, _, split = (part if part not in configs else f"{part}/").rpartition("/")
    if not config and len(configs) == 1:
        return configs[0], split
    if config not in configs:
        known = ", ".join(f"{place}:{name}" for name in configs)
        raise DataError(f"{place} has several configurations, which are sets of their own; give one of them: {known}")
    return config, split


def _check_card(folder: Path) -> None:
    """Addresses of rows are asked as soon as they are read."""
    from huggingface_hub import DatasetCard

    if (folder / _OTHER_CARD).exists():
        raise DataError(
            f"{folder / _OTHER_CARD} says which files are which split, and README.md is where that is read from here; "
            "write it there, or give a file"
        )
    file = folder / "README.md"
    if file.is_file() and "://" in str(DatasetCard.load(file, ignore_metadata_errors=True).data.get("configs")):
        raise DataError(f"{file} names rows on other machines; copy them into its folder")


def _check_files(builder: Any, folder: Path) -> None:
    """What a README names may lie anywhere."""
    files = [str(file) for files in (builder.config.data_files or {}).values() for file in files]
    if strange := [file for file in files if not Path(file).is_relative_to(folder) or ".." in Path(file).parts]:
        raise DataError(f"{folder} names rows outside of itself: {', '.join(strange[:3])}; copy them into it")


def _one_split(found: Any, place: Path, config: str, split: str) -> Any:
    """The split of that name, or the only one."""
    import datasets

    if not isinstance(found, datasets.DatasetDict):
        if split:
            raise DataError(f"{place} was saved without splits, so it has none called {split!r}; leave :{split} out")
        return found
    if not split and len(found) == 1:
        return next(iter(found.values()))
    if split in found:
        return found[split]
    front = f"{place}:{config}/" if config not in ("", "default") else f"{place}:"
    known = ", ".join(f"{front}{name}" for name in found)
    raise DataError(f"{place} holds {f'no split {split!r}' if split else 'several splits'}; give one of them: {known}")


def _rows(split: Any) -> Iterator[Mapping[str, Any]]:
    batches: Iterable[Any] = split.with_format("arrow").iter(batch_size=BATCH)
    return chain.from_iterable(batch.to_pylist() for batch in batches)
