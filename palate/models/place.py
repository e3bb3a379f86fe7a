"""Where a model lies: in a folder of this machine, or in a repository on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from palate.hub import FileKinds, HubError, HubId, fetch, hub_id, is_on_hub
from palate.models.folder import FolderError

MAX_DOWNLOAD_BYTES = 64 * 2**30

_WEIGHTS = ("*.safetensors", "*.onnx")
_FILES = (*_WEIGHTS, "*.json", "*.jinja")
"""What is downloaded of a model; nothing that is pickled, and no code."""

_BELOW = ("*/*",)
"""Other formats of the same weights lie in folders of their own, as a rule."""


def model_folder(place: Path, max_bytes: int) -> Path:
    """The folder that `place` is, or that of hub:org/name@revision in the hub's cache, downloaded where need be.

    Raises:
        FolderError: It cannot be had from the hub.
        HubAway: The hub cannot be reached now, and its cache lacks it.
    """
    if not is_on_hub(place):
        return place
    hub = _hub_id(place)
    try:
        folder = fetch(hub, FileKinds("model", _FILES, _BELOW, max_bytes))
    except HubError as error:
        raise FolderError(str(error)) from error
    if not any(file for pattern in _WEIGHTS for file in folder.glob(pattern)):
        raise FolderError(
            f"{hub} has no weights in safetensors or ONNX; pickled ones are never loaded, because a pickle can run any "
            "code. Where you trust it, convert it: load it with transformers, and give the folder of save_pretrained"
        )
    return folder


def model_name(place: Path) -> str:
    """What a model that lies there is called where nobody says otherwise.

    Raises:
        FolderError: It looks like a name on the hub, and is none.
    """
    return _hub_id(place).name if is_on_hub(place) else place.resolve().name


def _hub_id(place: Path) -> HubId:
    try:
        return hub_id(place)
    except HubError as error:
        raise FolderError(str(error)) from error
