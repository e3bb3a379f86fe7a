import pytest

from palate.models.device import gpu_number
from palate.models.folder import FolderError

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
