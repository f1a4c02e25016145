"""Means, errors and differences: against SciPy and by hand, and where nothing can be tested."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

from sparse_vae.checks import SettingError
from sparse_vae.report.statistics import Comparison, compare_means, convergence, correct, mean_and_error

RANDOM = np.random.default_rng(0)
FIRST, SECOND = RANDOM.normal(0, 1, 2).tolist(), RANDOM.normal(0.5, 3, 3).tolist()


def corrected(*p: float) -> list[float]:
    return [test.p_holm for test in correct([Comparison(0, 0, 0, value, value, (3, 3)) for value in p])]


# --- differences


def test_a_comparison_is_a_welch_test():
    found, expected = compare_means(FIRST, SECOND), stats.ttest_ind(FIRST, SECOND, equal_var=False)
    interval = expected.confidence_interval()
    assert found.p == found.p_holm == expected.pvalue
    assert (found.low, found.high) == tuple(interval)
    assert found.low < found.difference < found.high
    assert found.n == (2, 3)


def test_a_welch_test_by_hand():
    # Means 2 and 4, variances of the means 1/3 and 4/3: t = −2 / √(5/3), 50/17 degrees of freedom.
    found = compare_means([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert found.p == pytest.approx(2 * stats.t.cdf(-2 / (5 / 3) ** 0.5, 50 / 17))
    half = stats.t.ppf(0.975, 50 / 17) * (5 / 3) ** 0.5
    assert (found.low, found.high) == pytest.approx((-2 - half, -2 + half))


def test_pairs_are_compared_by_their_differences():
    found, expected = compare_means(FIRST, SECOND[:2], paired=True), stats.ttest_rel(FIRST, SECOND[:2])
    assert found.p == expected.pvalue
    assert (found.low, found.high) == tuple(expected.confidence_interval())


@pytest.mark.parametrize(("first", "second", "paired", "difference"), [
    ([1.0], [3.0], False, -2.0), ([1.0], [3.0, 4.0], False, -2.5), ([1.0, 2.0], [3.0], False, -1.5),
    ([1.0, 1.0], [3.0, 3.0, 3.0], False, -2.0), ([2.0] * 3, [2.0] * 3, False, 0.0), ([0.0] * 2, [0.0] * 2, False, 0.0),
    ([1.0], [3.0], True, -2.0), ([1.0, 2.0], [3.0, 4.0], True, -2.0),
    ([0.1 + 0.2, 0.3], [0.5, 0.5], False, -0.2), ([1.1, 2.1, 3.1], [1.0, 2.0, 3.0], True, 0.1)])
def test_without_spread_there_is_no_test(first, second, paired, difference):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare_means(first, second, paired=paired)
    assert found.difference == pytest.approx(difference)
    assert np.isnan([found.low, found.high, found.p, found.p_holm]).all()
    assert not found.differs


@pytest.mark.parametrize("paired", [False, True])
def test_of_nothing_there_is_no_difference(paired):
    found = compare_means([], [], paired=paired)
    assert np.isnan(found.difference)
    assert not found.differs
    assert found.as_text(1) == "—"


def test_one_side_without_spread_is_tested():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compare_means([1.0, 1.0, 1.0], [2.0, 2.1, 2.2]).p < 0.01


@pytest.mark.parametrize(("first", "second"), [([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0], []), ([1.0, 2.0], [1.0])])
def test_pairs_of_unequal_number_are_refused(first, second):
    message = f"a paired comparison needs as many values on both sides; got {len(first)} and {len(second)}"
    with pytest.raises(SettingError, match=message):
        compare_means(first, second, paired=True)


# --- corrections


def test_holm_by_hand():
    # 4 · 0.005, 3 · 0.01, 2 · 0.03 and 0.04, which must not fall below the one before it.
    assert corrected(0.01, 0.04, 0.03, 0.005) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert corrected(0.4, 0.6) == pytest.approx([0.8, 0.8])
    assert corrected(0.9, 0.8) == pytest.approx([1.0, 1.0])
    assert corrected() == []


def test_holm_keeps_the_order_and_is_never_below_p_nor_above_bonferroni():
    for n in (1, 2, 5, 40):
        p = RANDOM.uniform(0, 1, n) ** 3
        holm, order = np.array(corrected(*p)), np.argsort(p)
        assert (np.diff(holm[order]) >= 0).all()
        assert (holm >= p).all()
        assert (holm <= np.minimum(1, n * p) + 1e-15).all()
        # What Holm rejects at 5%, step by step.
        rejected = np.cumprod(p[order] < 0.05 / np.arange(n, 0, -1)).astype(bool)
        assert ((holm[order] < 0.05) == rejected).all()


def test_what_was_not_tested_does_not_count_in_the_correction():
    tests = [compare_means([1.0], [2.0]), Comparison(0, 0, 0, 0.02, 0.02, (3, 3)),
             Comparison(0, 0, 0, 0.04, 0.04, (3, 3))]
    found = correct(tests)
    assert [test.p_holm for test in found[1:]] == [0.04, 0.04]
    assert np.isnan(found[0].p_holm)
    assert tests[1].p_holm == 0.02


# --- text


@pytest.mark.parametrize(("values", "digits", "text"), [
    ([], 2, "—"), ([float("nan")], 2, "—"), ([1.234], 2, "1.23"), ([1.0, float("nan")], 1, "1.0"),
    ([2.0, 2.0, 2.0], 1, "2.0"), ([0.1 + 0.2, 0.3], 1, "0.3"), ([-1.0], 1, "−1.0"), ([-0.001], 2, "0.00"),
    ([1.0, 3.0], 1, "2.0 ± 1.0"), ([1.0, 1.0001], 2, "1.00005 ± 0.00005"), ([99.0, 101.0], 0, "100 ± 1"),
    ([100.0, 100.2], 0, "100.1 ± 0.1"), ([-3.0, -1.0], 1, "−2.0 ± 1.0")])
def test_mean_and_error(values, digits, text):
    assert mean_and_error(values, digits) == text.replace(" ", "\u00a0")


def test_an_error_is_never_all_zeros():
    for digits in range(5):
        for spread in 10.0 ** np.arange(-9, 3):
            text = mean_and_error(1 + spread * RANDOM.normal(size=3), digits).replace("\u00a0", "")
            mean, _, error = text.partition("±")
            assert float(error) > 0
            assert len(mean.partition(".")[2]) == len(error.partition(".")[2]) >= digits


# --- convergence


def test_a_loss_that_still_falls_has_not_converged():
    flat = [[10.0 - epoch for epoch in range(9)] + [2.0] * 11 + [seed / 10] for seed in range(3)]
    found = convergence([[*own[:-1], own[-2] + own[-1]] for own in flat])  # rises at the end
    assert (found.fall, found.converged) == (pytest.approx(-0.1), True)
    found = convergence([[30.0 - epoch + seed / 10 for epoch in range(30)] for seed in range(3)])
    assert (found.fall, found.converged) == (pytest.approx(3), False)  # a tenth of 30 epochs is 3
    assert found.error == pytest.approx(0.1 / 3**0.5)


def test_a_fall_below_the_error_over_seeds_is_none():
    losses = [[5.0 + seed, 4.9 + seed] for seed in range(4)]
    assert convergence(losses).converged
    assert not convergence([[first, second - 2] for first, second in losses]).converged


def test_of_one_seed_no_convergence_can_be_said():
    found = convergence([[3.0, 1.0]])
    assert np.isnan(found.error)
    assert found.converged
    for losses in ([], [[1.0]], [[1.0, 2.0], [1.0]]):
        with pytest.raises(SettingError, match="two epochs or more"):
            convergence(losses)


# --- text of differences


@pytest.mark.parametrize(("comparison", "digits", "scale", "text"), [
    (Comparison(0.0125, 0.01, 0.02, 0.01, 0.01, (3, 3)), 1, 100, "**+1.2** (+1.0 to +2.0)"),
    (Comparison(-1.26, -3.0, 0.5, 0.3, 0.3, (3, 3)), 1, 1, "−1.3 (−3.0 to +0.5)"),
    (Comparison(-2.0, np.nan, np.nan, np.nan, np.nan, (1, 1)), 1, 1, "−2.0")])
def test_a_difference_as_text(comparison, digits, scale, text):
    assert comparison.as_text(digits, scale) == text.replace(" ", "\u00a0")
