"""Sparsity measures against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sparse_vae.checks import SettingError
from sparse_vae.evaluation import active_units, dead_fraction, hoyer, l0, treves_rolls


def random_codes(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_hoyer_by_hand():
    # ‖(3, −4, 0, 0)‖₁ = 7, ‖·‖₂ = 5, √J = 2: (2 − 7/5) / (2 − 1); ‖(1, 1, 0, 0)‖: 2 − √2
    code = torch.tensor([[3.0, -4.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, -9.0, 0.0], [2.0, -2.0, 2.0, 2.0]])
    assert hoyer(code).tolist() == pytest.approx([0.6, 2 - math.sqrt(2), 1, 0], abs=1e-6)


def test_treves_rolls_by_hand():
    # (7/4)² / (25/4) = 0.49 and 1 − 1/J = 3/4: 0.51 / 0.75; (2/4)² / (2/4) = 1/2: 0.5 / 0.75
    code = torch.tensor([[3.0, -4.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, -9.0, 0.0], [2.0, -2.0, 2.0, 2.0]])
    assert treves_rolls(code).tolist() == pytest.approx([0.68, 2 / 3, 1, 0], abs=1e-6)


def test_lifetime_sparseness_is_that_of_the_transposed_code():
    # A unit that fires for one observation of three, one that always fires, one that fires 1, 2, 3: 1 − (2²)/(14/3).
    code = torch.tensor([[5.0, 1.0, 1.0], [0.0, 1.0, 2.0], [0.0, 1.0, 3.0]])
    assert treves_rolls(code.T).tolist() == pytest.approx([1, 0, (1 - 12 / 14) / (2 / 3)], abs=1e-6)


@pytest.mark.parametrize("measure", [hoyer, treves_rolls])
class TestBothSparsenesses:
    def test_neither_scale_nor_sign_nor_order_matters(self, measure):
        code = random_codes(5, 40)
        value = measure(code)
        for other in (1e-30 * code, -1e30 * code, code.abs(), code.flip(1)):
            assert torch.allclose(measure(other), value, atol=1e-5)

    def test_an_all_zero_code_is_1(self, measure):
        assert measure(torch.zeros(2, 7)).tolist() == [1, 1]

    def test_a_single_dimension_is_0_unless_it_is_zero(self, measure):
        assert measure(torch.tensor([[-3.0], [1e-40], [0.0]])).tolist() == [0, 0, 1]

    def test_it_is_within_0_and_1(self, measure):
        for code in (random_codes(1000, 200), torch.full((1, 200), 0.1), torch.eye(200)):
            value = measure(code)
            assert value.shape == (len(code),)
            assert value.min() >= 0
            assert value.max() <= 1

    def test_nan_is_not_hidden(self, measure):
        assert measure(torch.tensor([[1.0, math.nan], [1.0, 0.0]])).isnan().tolist() == [True, False]


def test_sparser_is_larger():
    dense, sparse = random_codes(500, 64), random_codes(500, 64)
    sparse = sparse * (sparse.abs() > 1.5)
    for measure in (hoyer, treves_rolls):
        assert measure(sparse).mean() > measure(dense).mean() + 0.2


def test_l0_counts_exact_non_zeros():
    code = torch.tensor([[0.0, 1e-30, -2.0], [0.0, -0.0, 0.0]])
    assert l0(code).tolist() == [2, 0]
    assert l0(code[:1]).dtype == torch.int64


def test_active_units_by_hand():
    means = torch.tensor([[0.5, 7.0, 0.05, -0.2], [-0.5, 7.0, -0.05, 0.2]])  # variances 0.25, 0, 0.0025, 0.04
    assert active_units(means).tolist() == [True, False, False, True]
    assert active_units(means, threshold=0.25).tolist() == [False] * 4  # above, not at
    assert active_units(means, threshold=0).tolist() == [True, False, True, True]


def test_one_observation_activates_nothing():
    assert active_units(torch.tensor([[3.0, 0.0]])).tolist() == [False, False]


@pytest.mark.parametrize("threshold", [-0.1, math.nan, "0.01"])
def test_a_threshold_that_cannot_be_is_named(threshold):
    with pytest.raises(SettingError, match=f"threshold must be a finite number at least 0; got {threshold!r}"):
        active_units(torch.zeros(2, 2), threshold)


def test_dead_fraction_by_hand():
    active = torch.tensor([[True, False, False], [False, False, True]])
    assert dead_fraction(active) == 1 / 3
    assert dead_fraction(active[:1]) == 2 / 3
    assert dead_fraction(active.any(0)) == 1 / 3
    assert dead_fraction(active_units(torch.zeros(5, 3))) == 1
