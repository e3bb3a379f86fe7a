"""Adapters: their names are peft's, their merge gives the same bits with any threads, and wrong ones are refused."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.models import adapters
from palate.models.adapters import adapted_tensors, factor_names, merged, merged_tensors
from palate.models.weights import WeightsError, describe_tensors

NAME = "model.layers.0.mlp.up_proj.weight"


def factors_of(shape, rank, seed=0, name=NAME):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rank, shape[1]), (shape[0], rank))
    return {n: torch.randn(s, generator=generator) for n, s in zip(factor_names(name), shapes, strict=True)}


def base_of(shape, dtype=torch.float32, name=NAME):
    return {name: torch.randn(shape, generator=torch.Generator().manual_seed(9)).to(dtype)}


def test_factors_are_called_as_in_the_files_of_peft():
    assert factor_names(NAME) == (
        "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight",
        "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight",
    )


def naive(base, a, b, scale):
    """One element after the other, each step rounded to float32; as the contract has it."""
    scale, result = torch.tensor(scale, dtype=torch.float32), torch.empty(base.shape, dtype=base.dtype)
    for i in range(base.shape[0]):
        for j in range(base.shape[1]):
            total = torch.tensor(0.0)
            for k in range(len(a)):
                total = total + b[i, k] * a[k, j]
            result[i, j] = (base[i, j].float() + scale * total).to(base.dtype)
    return result


@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    rank=st.integers(1, 3),
    scale=st.floats(-4, 4),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_a_merge_is_the_contracts_to_the_bit(dtype, shape, rank, scale, seed):
    a, b = factors_of(shape, rank, seed).values()
    base = base_of(shape, dtype)[NAME]
    before = base.clone()
    assert torch.equal(merged(base, a, b, scale), naive(base, a, b, scale))
    assert torch.equal(base, before)


def test_bits_depend_neither_on_threads_nor_on_blocks(monkeypatch):
    a, b = factors_of((301, 77), 8).values()
    base, threads = base_of((301, 77))[NAME], torch.get_num_threads()
    found = []
    try:
        for count, block in ((1, 1), (1, 1000), (2, 1 << 18)):
            torch.set_num_threads(count)
            monkeypatch.setattr(adapters, "_BLOCK_ELEMENTS", block)
            found.append(merged(base, a, b, 2.0))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert torch.allclose(found[0].double(), base.double() + 2.0 * (b.double() @ a.double()), atol=1e-5, rtol=0)


def announced(shape=(4, 6), rank=2):
    return describe_tensors(factors_of(shape, rank)), {NAME: describe_tensors(base_of(shape))[0]}


def test_targets_are_found_in_order():
    entries, base = announced()
    assert adapted_tensors(entries, base) == (NAME,)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f, b: ([], b), "0 tensors are announced; adapters come in pairs"),
        (lambda f, b: (f[:1], b), "1 tensors are announced"),
        (lambda f, b: (f[::-1], b), "are no pair"),
        (lambda f, b: ([f[0], f[0]], b), "are no pair"),
        (lambda f, b: ([replace(f[0], name="x"), f[1]], b), "are no pair"),
        (lambda f, b: (f, {}), "which the model does not have"),
        (lambda f, b: (f, {NAME: replace(b[NAME], shape=(24,))}), "adapters are for matrices"),
        (lambda f, b: (f, {NAME: replace(b[NAME], dtype="I32")}), "adapters are for matrices"),
        (lambda f, b: (f, {NAME: replace(b[NAME], shape=(6, 4))}), "of rank r it is F32 of shapes"),
        (lambda f, b: ([replace(f[0], shape=(3, 6)), f[1]], b), "of rank r it is F32 of shapes"),
        (lambda f, b: ([replace(f[0], shape=()), f[1]], b), "of rank r it is F32 of shapes"),
        (lambda f, b: ([replace(f[0], dtype="BF16"), f[1]], b), "of rank r it is F32 of shapes"),
        (lambda f, b: (describe_tensors(factors_of((4, 6), 5)), b), "r up to 4"),
        (lambda f, b: (describe_tensors(factors_of((4, 6), 0)), b), "r up to 4"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(spoil, told):
    with pytest.raises(WeightsError, match=told):
        adapted_tensors(*spoil(*announced()))


def test_weights_that_become_infinite_are_refused():
    factors = {name: tensor * 1e20 for name, tensor in factors_of((4, 6), 2).items()}
    with pytest.raises(WeightsError, match="holds NaN or infinity with its adapter"):
        merged_tensors(base_of((4, 6)), factors, [NAME], 1.0)
