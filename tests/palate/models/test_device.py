import pytest
import torch

from palate.models.device import gpu_number
from palate.models.folder import FolderError
from palate.models.torch_device import torch_device

NO_GPU = "there is none; use --device cpu"


@pytest.mark.parametrize(("wanted", "number"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:3", 3), ("cpu", None)])
def test_device_where_there_is_a_gpu(wanted: str, number: int | None):
    assert gpu_number(wanted, is_there=True, otherwise=NO_GPU) == number


def test_auto_is_the_processor_where_there_is_no_gpu():
    assert gpu_number("auto", is_there=False, otherwise=NO_GPU) is None


@pytest.mark.parametrize("wanted", ["cuda", "cuda:1"])
def test_gpu_that_is_not_there_is_refused(wanted: str):
    with pytest.raises(FolderError, match=f"--device {wanted}, but there is none; use --device cpu"):
        gpu_number(wanted, is_there=False, otherwise=NO_GPU)


@pytest.mark.parametrize("wanted", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cuda:1 "])
def test_what_is_no_device_is_refused(wanted: str):
    with pytest.raises(FolderError, match="it can be auto, cpu, cuda"):
        gpu_number(wanted, is_there=True, otherwise=NO_GPU)


@pytest.mark.parametrize(
    ("gpus", "wanted", "device"), [(0, "auto", "cpu"), (2, "auto", "cuda:0"), (2, "cuda:1", "cuda:1")]
)
def test_pytorch_takes_the_gpu_that_is_meant(gpus: int, wanted: str, device: str, monkeypatch: pytest.MonkeyPatch):
    seen(gpus, monkeypatch)
    assert torch_device(wanted) == torch.device(device)


def test_a_gpu_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch):
    seen(2, monkeypatch)
    with pytest.raises(FolderError, match="--device cuda:2, but PyTorch sees 2 GPU here, counted from 0"):
        torch_device("cuda:2")


def seen(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets PyTorch see so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
