"""Disentanglement measures: by hand, against slow twins, and disentanglement_lib's published test cases.

The library's cases use its dummy data: ten factors, each uniform on 1..10, that are the observations themselves.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingClassifier
from sklearn.metrics import mutual_info_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from sparse_vae.checks import SettingError
from sparse_vae.evaluation import (
    dci,
    matched_sources,
    mutual_information_gap,
    sap,
    squared_correlation,
    threshold_accuracy,
)
from sparse_vae.evaluation.disentanglement import _divided, _equal_bins, completeness, disentanglement

MEASURES = {
    "mig": mutual_information_gap,
    "sap": sap,
    "sap of correlations": lambda codes, factors: sap(codes, factors, score=squared_correlation),
    "dci": lambda codes, factors: sum(dci(codes, factors)[:2]) / 2,  # disentanglement and completeness
    "matched": lambda codes, factors: matched_sources(codes, factors).mean,
}
every_measure = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dummy_factors(n: int, n_factors: int = 10, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 11, (n, n_factors), generator=torch.Generator().manual_seed(seed))


def binary_factors(n: int, n_factors: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 2, (n, n_factors), generator=torch.Generator().manual_seed(seed))


def shuffled_rows(values: torch.Tensor) -> torch.Tensor:
    """Each row in an order of its own: every column tells equally little about every factor."""
    return values.gather(1, torch.rand(values.shape, generator=torch.Generator().manual_seed(1)).argsort(1)).float()


# --- all of them


@every_measure
def test_the_factors_themselves_in_any_order_scale_and_sign_score_best(measure):
    factors = torch.cartesian_prod(*3 * [torch.arange(2)]).repeat(40, 1)  # exactly independent
    codes = torch.tensor([-100.0, 1e-3, 7.0]) * factors[:, [2, 0, 1]] + 5
    best = pytest.approx(0.5, abs=0.2) if measure is sap else pytest.approx(1, abs=1e-5)  # accuracy: ahead of chance
    assert measure(codes, factors) == best
    assert measure(torch.cat([codes, torch.full((320, 2), 3.0)], 1), factors) == best


@every_measure
@pytest.mark.parametrize("latent_dim", [1, 4])
def test_constant_codes_score_0_whatever_their_value(measure, latent_dim):
    factors = binary_factors(50, 3)
    values = torch.tensor([0.1, -3.0, 0.0, 1e6])[:latent_dim]
    assert measure(values.expand(50, latent_dim), factors) == 0


@every_measure
def test_one_dimension_and_one_factor_are_enough(measure):
    factor = binary_factors(200, 1)
    assert measure(factor.float(), factor) >= 0.4


@pytest.mark.heavy
@every_measure
def test_codes_in_an_order_of_their_own_score_near_0(measure):
    assert measure(shuffled_rows(dummy_factors(400, 5)), dummy_factors(400, 5)) < 0.3  # matched: chance of the best


@every_measure
def test_factors_and_codes_may_be_of_any_type(measure):
    factors = binary_factors(100, 2)
    codes = normal(100, 3) + factors[:, :1]
    value = measure(codes, factors)
    assert isinstance(value, float)
    for other in (factors.bool(), factors.float(), factors.double()):
        assert measure(codes.double().requires_grad_(), other) == value


@every_measure
@pytest.mark.parametrize(("codes", "factors", "message"), [
    (torch.zeros(4, 2), torch.zeros(5, 2), r"codes must be \(n, latent_dim\) .* got shapes \(4, 2\) and \(5, 2\)"),
    (torch.zeros(4), torch.zeros(4, 2), r"got shapes \(4,\) and \(4, 2\)"),
    (torch.zeros(4, 2), torch.arange(4), r"got shapes \(4, 2\) and \(4,\)"),
    (torch.zeros(4, 0), torch.eye(4), r"got shapes \(4, 0\) and \(4, 4\)"),
    (torch.zeros(0, 2), torch.zeros(0, 2), r"got shapes \(0, 2\) and \(0, 2\)"),
    (torch.tensor([[math.nan], [0.0]]), torch.eye(2), "must be finite"),
    (torch.zeros(3, 2), torch.tensor([[0, 1, 2], [1, 1, 2], [0, 1, 2]]), r"column\(s\) \[1, 2\] .* one value in n = 3"),
    (torch.ones(1, 2), torch.ones(1, 1), "every factor must vary .* n = 1: leave them out"),
])
def test_what_cannot_be_compared_is_named(measure, codes, factors, message):
    with pytest.raises(SettingError, match=message):
        measure(codes, factors)


@pytest.mark.parametrize("measure", [dci, sap, threshold_accuracy])
def test_continuous_factors_where_classes_are_needed_are_named(measure):
    factors = torch.tensor([[0.0, 0.5], [1.0, 0.0], [0.0, 2.0]])
    with pytest.raises(SettingError, match=r"must be whole numbers.*column\(s\) \[1\] are not: use a regressor"):
        measure(torch.zeros(3, 2), factors)


# --- MIG


def test_mig_by_hand():
    # Four equal values: H = ln 4. The first dimension tells the upper half, I = ln 2; the second nothing.
    factor = torch.tensor([[0], [1], [2], [3]] * 2)
    codes = torch.cat([factor // 2, torch.arange(8)[:, None] // 4], 1).float()
    assert mutual_information_gap(codes, factor) == pytest.approx(0.5)
    assert mutual_information_gap(codes[:, :1], factor) == pytest.approx(0.5)
    assert mutual_information_gap(codes[:, [0, 0]], factor) == pytest.approx(0)
    second = torch.cat([factor // 2, factor], 1)  # told exactly by nothing: gaps (ln 2 − 0)/ln 2 and ln 2 / ln 4
    assert mutual_information_gap(codes, second) == pytest.approx((1 + 0.5) / 2)


def test_mig_of_the_librarys_cases():
    factors = dummy_factors(3000)
    assert 0.9 < mutual_information_gap(factors.float(), factors) <= 1 + 1e-9
    assert mutual_information_gap(torch.zeros(3000, 10), factors) == 0
    assert mutual_information_gap(torch.cat([factors, factors], 1).float(), factors) == pytest.approx(0, abs=1e-9)


def test_mig_is_the_librarys_formula():
    def binned(values: torch.Tensor) -> list[np.ndarray]:
        return [np.digitize(column, np.histogram(column, 20)[1][:-1]) for column in values.T.double().numpy()]

    factors = torch.cat([dummy_factors(500, 3) - 5, normal(500, 1, seed=1)], 1)  # the last one is continuous
    codes = factors @ normal(4, 6) + normal(500, 6)
    codes[:, 0] *= codes[:, 0] > 0
    classes = [*factors[:, :3].T.numpy(), *binned(factors[:, 3:])]
    information = np.array([[mutual_info_score(factor, code) for factor in classes] for code in binned(codes)])
    entropy = [mutual_info_score(factor, factor) for factor in classes]
    ranked = np.sort(information, 0)
    assert mutual_information_gap(codes, factors) == pytest.approx(np.mean((ranked[-1] - ranked[-2]) / entropy))


def test_bins_of_equal_width():
    values = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.6, 0.5, 0.4, 0.3, 0.2, 0.1], [7, 7, 7, 7, 7, 7]]).T
    assert _equal_bins(values, 3).T.tolist() == [[0, 0, 1, 1, 2, 2], [2, 2, 1, 1, 0, 0], [0] * 6]
    assert _equal_bins(torch.tensor([[0.0], [0.1], [100.0]]), 20).flatten().tolist() == [0, 0, 19]


def test_continuous_factors_are_binned_for_mig():
    factors = normal(2000, 2)
    assert mutual_information_gap(factors.flip(1), factors) > 0.9
    assert mutual_information_gap(normal(2000, 2, seed=1), factors) < 0.05


@pytest.mark.parametrize("bins", [1, 2.5])
def test_bins_that_cannot_be_are_named(bins):
    with pytest.raises(SettingError, match=f"bins must be an integer of at least 2; got {bins}"):
        mutual_information_gap(torch.eye(2), torch.eye(2), bins)


# --- SAP


def test_squared_correlation_by_hand():
    # Sums of products about the means: 2, and 5 · 1; the second column is a parabola, the third constant.
    codes = torch.tensor([[0.0, 1.0, 4.0], [1.0, 0.0, 4.0], [2.0, 0.0, 4.0], [3.0, 1.0, 4.0]])
    factor = torch.tensor([[0], [0], [1], [1]])
    assert squared_correlation(codes, factor).flatten().tolist() == pytest.approx([4 / 5, 0, 0])
    assert sap(codes, factor, score=squared_correlation) == pytest.approx(4 / 5)


def test_squared_correlation_is_numpys():
    codes, factors = normal(100, 3) + 50, normal(100, 2, seed=1)
    expected = np.corrcoef(codes.T.double(), factors.T.double())[:3, 3:] ** 2
    assert np.allclose(squared_correlation(codes, factors), expected, atol=1e-12)


@pytest.mark.parametrize("score", [squared_correlation, threshold_accuracy])
def test_sap_of_the_librarys_cases(score):
    factors = dummy_factors(3000) if score is squared_correlation else binary_factors(1000, 10)
    codes, ideal = factors.float(), 0.9 if score is squared_correlation else 0.4  # chance is half of the accuracy
    assert ideal < sap(codes, factors, score=score) <= 1
    assert sap(torch.zeros_like(codes), factors, score=score) == 0
    assert sap(torch.cat([codes, codes], 1), factors, score=score) == pytest.approx(0, abs=1e-12)


def test_threshold_accuracy_by_hand():
    factors = torch.tensor([[0, 0]] * 40 + [[1, 0]] * 30 + [[1, 1]] * 20)
    codes = torch.stack([10.0 * factors[:, 0], torch.full((90,), 3.0)], 1)
    _, test = _divided(90, seed=4)
    accuracy = threshold_accuracy(codes, factors, seed=4)
    assert accuracy[0, 0] == 1
    share = (factors[test] == torch.tensor([1, 0])).double().mean(0)  # the constant dimension: the commonest class
    assert accuracy[1].tolist() == pytest.approx(share.tolist())
    assert sap(codes[:, :1], factors[:, :1]) == 1 - threshold_accuracy(codes[:, 1:], factors[:, :1]).item()


def test_threshold_accuracy_is_the_librarys_classifier():
    factors = torch.cat([binary_factors(400, 2), dummy_factors(400, 1) // 4], 1)
    codes = factors.float() @ normal(3, 4) + normal(400, 4)
    train, test = (index.numpy() for index in _divided(400, seed=0))
    for j, k in itertools.product(range(4), range(3)):
        code, factor = codes[:, j:j + 1].double().numpy(), factors[:, k].numpy()
        expected = LinearSVC(C=0.01, class_weight="balanced").fit(code[train], factor[train])
        assert threshold_accuracy(codes, factors)[j, k].item() == expected.score(code[test], factor[test])


def test_the_division_is_at_random_by_the_seed():
    train, test = _divided(90, seed=1)
    assert (len(train), len(test)) == (60, 30)
    assert torch.cat([train, test]).sort().values.tolist() == list(range(90))
    assert torch.equal(test, _divided(90, seed=1)[1])
    assert not torch.equal(test, _divided(90, seed=2)[1])
    assert [len(part) for part in _divided(2, seed=0)] == [1, 1]


@pytest.mark.parametrize("seed", range(6))
def test_a_factor_too_rare_to_be_learnt_is_no_error(seed):
    factors = torch.zeros(6, 2)
    factors[0, 0] = factors[1, 1] = 1
    codes = factors.clone()
    assert 0 <= sap(codes, factors) <= 1
    scores = dci(codes, factors, seed=seed)
    assert all(0 <= score <= 1 for score in scores)


# --- DCI


@pytest.mark.parametrize(("importances", "disentangled", "complete"), [
    pytest.param(5 * torch.eye(5), 1, 1, id="diagonal"),
    pytest.param(torch.eye(3)[:, :2], 1, 1, id="a dimension without use"),
    pytest.param(torch.zeros(10, 10), 0, 0, id="zero"),
    pytest.param(torch.ones(4, 6), 0, 0, id="all alike"),
    pytest.param(5 * torch.eye(5).repeat(2, 1), 1, 1 - math.log(2) / math.log(10), id="two dimensions for a factor"),
    pytest.param(5 * torch.eye(5)[:2], 1, 1, id="missed factors"),
    pytest.param(5 * torch.eye(5).repeat(1, 2), 1 - math.log(2) / math.log(10), 1, id="one dimension for two factors"),
    pytest.param(torch.tensor([[2.0]]), 1, 1, id="one of each"),
    pytest.param(torch.tensor([[2.0, 0.0, 3.0]]), 1 - (0.6 * math.log(5 / 3) + 0.4 * math.log(2.5)) / math.log(3), 1,
                 id="one dimension"),
    # H₂(1/4) = 0.811278 with weight 1/2; H₂(1/5) = 0.721928 with weight 5/8
    pytest.param(torch.tensor([[3.0, 1.0], [0.0, 4.0]]), 1 - 0.811278 / 2, 1 - 0.721928 * 5 / 8, id="by hand"),
])
def test_disentanglement_and_completeness_of_importances(importances, disentangled, complete):
    assert disentanglement(importances) == pytest.approx(disentangled, abs=1e-6)
    assert completeness(importances) == pytest.approx(complete, abs=1e-6)


@pytest.mark.slow
def test_dci_of_the_librarys_cases():
    factors = dummy_factors(600)
    identical = dci(factors.float(), factors)
    assert identical.disentanglement > 0.9
    assert identical.completeness > 0.9
    assert identical.informativeness > 0.99
    mixed = dci(shuffled_rows(factors), factors)
    assert mixed.disentanglement < 0.2
    assert mixed.completeness < 0.2
    doubled = dci(torch.cat([factors, factors], 1).float(), factors)
    assert doubled.disentanglement > 0.9
    assert doubled.completeness == pytest.approx(1 - math.log(2) / math.log(10), abs=0.1)


def test_constant_codes_inform_as_much_as_the_commoner_class():
    factors = (torch.arange(90) % 3 == 0)[:, None]
    _, test = _divided(90, seed=0)
    scores = dci(torch.full((90, 2), 7.0), factors)
    assert scores == (0, 0, pytest.approx((~factors[test]).double().mean().item()))


def test_dci_orders_representations():
    factors = binary_factors(900, 4)
    scores = [dci(factors.float() @ mixing + 0.1 * normal(900, 6), factors)
              for mixing in (torch.eye(4, 6), torch.eye(4, 6) + 0.5 * normal(4, 6), normal(4, 6))]
    assert scores[0].disentanglement > 0.95
    assert scores[0].disentanglement > scores[1].disentanglement > scores[2].disentanglement
    assert scores[0].completeness > scores[1].completeness > scores[2].completeness
    assert min(score.informativeness for score in scores) > 0.9


def test_the_default_estimator_is_near_the_librarys():
    factors = binary_factors(1200, 2)
    codes = factors.float() @ (torch.eye(2, 8) + 0.3 * normal(2, 8)) + 0.3 * normal(1200, 8, seed=1)
    ours, theirs = dci(codes, factors), dci(codes, factors, estimator=GradientBoostingClassifier(random_state=0))
    assert ours == pytest.approx(theirs, abs=0.1)


def test_a_regressor_takes_continuous_factors():
    factors = normal(600, 2)
    scores = dci(factors.flip(1), factors, estimator=ExtraTreesRegressor(20, random_state=0))
    assert scores.disentanglement > 0.9
    assert scores.informativeness > 0.9


def test_the_seed_decides_everything_and_the_estimator_stays_unfitted():
    factors = binary_factors(100, 2)
    codes, estimator = normal(100, 3) + factors[:, :1], GradientBoostingClassifier(n_estimators=3)
    assert dci(codes, factors, seed=1) == dci(codes, factors, seed=1)
    assert dci(codes, factors, seed=1) != dci(codes, factors, seed=2)
    dci(codes, factors, estimator=estimator)
    assert not hasattr(estimator, "estimators_")


def test_an_estimator_without_importances_is_named():
    with pytest.raises(SettingError, match="estimator must have feature_importances_; got KNeighborsClassifier"):
        dci(torch.eye(3), torch.eye(3), estimator=KNeighborsClassifier())


# --- matched sources


def test_matched_sources_by_hand():
    sources = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    codes = torch.stack([torch.zeros(4), torch.arange(4.0), -3.0 * sources[:, 1] + 2], 1)
    # The second dimension is 2 s₁ + s₂: sums of products with s₁ are 2, 5 · 1, so that r = 2/√5.
    matching = matched_sources(codes, sources)
    assert matching.assignment.tolist() == [1, 2]
    assert matching.scores.tolist() == pytest.approx([2 / math.sqrt(5), 1])
    assert matching.mean == pytest.approx((2 / math.sqrt(5) + 1) / 2)


def test_a_dimension_serves_one_source_only():
    sources = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    matching = matched_sources(sources[:, :1].float(), sources)
    assert matching.assignment.tolist() == [0, -1]
    assert matching.scores.tolist() == pytest.approx([1, 0])
    assert matching.mean == pytest.approx(0.5)


@pytest.mark.parametrize(("n_sources", "latent_dim"), [(3, 5), (4, 4), (5, 3)])
def test_no_other_assignment_is_better(n_sources, latent_dim):
    sources = binary_factors(60, n_sources)
    codes = sources.float() @ normal(n_sources, latent_dim) + normal(60, latent_dim)
    correlations = squared_correlation(codes, sources).sqrt().numpy()
    if latent_dim >= n_sources:
        best = max(sum(correlations[j, k] for k, j in enumerate(chosen))
                   for chosen in itertools.permutations(range(latent_dim), n_sources))
    else:
        best = max(sum(correlations[j, k] for j, k in enumerate(chosen))
                   for chosen in itertools.permutations(range(n_sources), latent_dim))
    matching = matched_sources(codes, sources)
    assert matching.mean == pytest.approx(best / n_sources)
    used = matching.assignment[matching.assignment >= 0].tolist()
    assert len(set(used)) == len(used) == min(n_sources, latent_dim)


def test_a_greedy_choice_is_not_taken():
    # The largest, 0.75 of (0, 0), would leave 0.1 to (1, 1); 0.64 twice is the better pair.
    q, _ = torch.linalg.qr(torch.cat([torch.ones(9, 1), normal(9, 4)], 1).double())
    sources, rest = q[:, 1:3], q[:, 3:]
    loads = torch.tensor([[0.75, 0.64], [0.64, 0.1]], dtype=torch.float64)
    codes = sources @ loads.T + rest * (1 - loads.square().sum(1)).sqrt()
    matching = matched_sources(codes, sources)
    assert matching.assignment.tolist() == [1, 0]
    assert matching.scores.tolist() == pytest.approx([0.64, 0.64])
