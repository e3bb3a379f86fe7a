import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palate.models.classifier import MaskedClassifier, load_classifier
from palate.models.manifest import load_manifest
from services.reward import recorded_passes
from services.reward.recorded_passes import Compute, RecordedPasses, can_record, recorded_shape
from tests.reward_folders import make_bert, make_llama

_LONGEST = 48


def computed_again(compute: Compute) -> Compute:
    """In the place of a GPU's recorder: whatever stands in the same tensors is computed anew."""
    compute()
    return compute


@pytest.fixture(scope="module", params=[make_bert, make_llama])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MaskedClassifier:
    folder = request.param(tmp_path_factory.mktemp("recorded"))
    return load_classifier(folder, load_manifest(folder).manifest)


def batch(model: MaskedClassifier, lengths: list[int]) -> list[torch.Tensor]:
    """Random ids below 60 and their mask; segments for encoders."""
    shape = (len(lengths), max(lengths))
    mask = (torch.arange(shape[1]) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 60, shape, generator=torch.Generator().manual_seed(sum(lengths))) * mask
    return [ids, mask, *([] if model.is_decoder else [mask * (torch.arange(shape[1]) > 2)])]


def passes(model: MaskedClassifier, most_tokens: int = 4096) -> RecordedPasses:
    return RecordedPasses(model, 0, _LONGEST, most_tokens, computed_again)


@torch.inference_mode()
def test_filled_up_passes_give_the_same_logits_in_any_order(model: MaskedClassifier):
    recorded = passes(model)
    for lengths in ([3], [40, 7, 12], [9, 2, 5], [3], [48, 1], [20] * 5):
        given = batch(model, lengths)
        np.testing.assert_allclose(recorded(*given), model(*given), rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_what_a_pass_gave_stays_when_the_next_one_runs(model: MaskedClassifier):
    recorded = passes(model)
    first = recorded(*batch(model, [5, 6]))
    kept = first.clone()
    recorded(*batch(model, [7, 8]))
    assert torch.equal(first, kept)


@torch.inference_mode()
def test_larger_passes_are_computed_as_they_are(model: MaskedClassifier):
    seen = []

    def record(compute: Compute) -> Compute:
        seen.append(compute)
        return computed_again(compute)

    recorded = RecordedPasses(model, 0, _LONGEST, 64, record)
    recorded(*batch(model, [30, 31, 32]))
    assert not seen
    recorded(*batch(model, [30, 31]))
    recorded(*batch(model, [2, 1]))
    assert len(seen) == 1


@torch.inference_mode()
def test_only_so_many_are_kept_and_those_last_asked_for(model: MaskedClassifier, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recorded_passes, "_MOST_GRAPHS", 2)
    seen = []

    def record(compute: Compute) -> Compute:
        seen.append(compute)
        return computed_again(compute)

    recorded = RecordedPasses(model, 0, _LONGEST, 4096, record)
    for rows in (1, 2, 1, 4, 1, 2):
        recorded(*batch(model, [3] * rows))
    assert len(seen) == 4


@given(st.integers(1, 300), st.integers(1, 9000), st.integers(0, 500))
def test_a_shape_holds_the_batch_and_little_more(rows: int, length: int, room: int):
    longest = length + room
    held, tokens = recorded_shape(rows, length, longest)
    assert rows <= held < 2 * rows + (rows == 1)
    assert length <= tokens <= min(longest, length + max(31, length // 8))


def test_all_lengths_have_few_shapes():
    assert len({recorded_shape(1, length, 8192) for length in range(1, 8193)}) <= 64


def test_a_model_that_cannot_be_recorded_is_told(model: MaskedClassifier):
    def refuse(compute: Compute) -> Compute:
        raise RuntimeError("operation not permitted when stream is capturing")

    assert not can_record(model, batch(model, [4]), refuse)
    assert can_record(model, batch(model, [4]), computed_again)


def test_too_little_memory_is_no_reason_to_go_on_without_recording(model: MaskedClassifier):
    def no_room(compute: Compute) -> Compute:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        can_record(model, batch(model, [4]), no_room)
