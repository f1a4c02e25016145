r"""How well single latent dimensions stand for the true factors of the data.

Codes c ∈ R^J, factors v ∈ R^K. A factor of whole numbers (a bool is one) is a class; any other is continuous.

    MIG      (1/K) Σ_k [I(c₍₁₎; v_k) − I(c₍₂₎; v_k)] / H(v_k), the two most informative dimensions      Chen et al. 2018
    SAP      (1/K) Σ_k [S₍₁₎ₖ − S₍₂₎ₖ], S_jk: how well c_j alone predicts v_k                      Kumar et al. 2018
    DCI      importances R_jk of c_j for v_k                                                  Eastwood & Williams 2018
             disentanglement  Σ_j ρ_j (1 − H_K(R_j· / Σ_k R_jk)),  ρ_j = Σ_k R_jk / Σ R
             completeness     Σ_k ρ_k (1 − H_J(R_·k / Σ_j R_jk)),  ρ_k = Σ_j R_jk / Σ R
             informativeness  how well all of c predicts v, mean over the factors
    matched  the one-to-one assignment of dimensions to sources with the largest mean |correlation|

The definitions are those of disentanglement_lib (Locatello et al. 2019), except that

- a dimension that does not vary is worth nothing, whatever its value, and the second dimension that is missing where
  J = 1 counts as such a one; the library fails there. A factor that does not vary is an error, not NaN;
- continuous factors are binned for MIG like the codes;
- train and test data of SAP and DCI are two thirds and one third of the given data, divided at random by a seed;
- DCI's estimator is another by default (:func:`dci`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.svm import LinearSVC
from torch import Tensor

from sparse_vae.checks import SettingError, check_integer

TRAIN_SHARE = 2 / 3


class DCI(NamedTuple):
    """Each at most 1; the first two are at least 0.

    Attributes:
        disentanglement: whether a dimension serves one factor only, mean over dimensions weighted by importance.
        completeness: whether a factor is served by one dimension only, mean over factors weighted by importance.
        informativeness: test accuracy of the factors predicted from the code (R² with a regressor), mean over factors.
    """

    disentanglement: float
    completeness: float
    informativeness: float


class SourceMatching(NamedTuple):
    """Which dimension stands for which source.

    Attributes:
        assignment: index of each source's dimension, int64 ``(n_sources,)``; −1 where there are too few dimensions.
        scores: |correlation| of each source with its dimension, float64 ``(n_sources,)`` in [0, 1]; 0 where unmatched.
        mean: of the scores, over all sources.
    """

    assignment: Tensor
    scores: Tensor
    mean: float


def mutual_information_gap(codes: Tensor, factors: Tensor, bins: int = 20) -> float:
    """MIG, in [0, 1]: 1 where one dimension tells everything about each factor and every other one nothing.

    Args:
        codes: ``(n, latent_dim)``; each dimension is divided into bins of equal width between its extremes.
        factors: ``(n, n_factors)``.
        bins: at least 2; the papers use 20.

    Raises:
        SettingError: ``bins`` out of range, or codes and factors that cannot be compared.

    >>> factors = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> round(mutual_information_gap(factors.float(), factors), 6)
    1.0
    """
    check_integer("bins", bins, minimum=2)
    codes, factors = _checked(codes, factors)
    code_bins = torch.nn.functional.one_hot(_equal_bins(codes, bins), bins).flatten(1).double()
    gaps = []
    for factor in factors.T:
        classes = factor.unique(return_inverse=True)[1] if _is_discrete(factor) else _equal_bins(factor, bins)
        classes = torch.nn.functional.one_hot(classes).double()
        shares = (classes.T @ code_bins / len(codes)).unflatten(1, (-1, bins))  # p(v, c), (classes, J, bins)
        entropy = _entropy(classes.mean(0), 0)
        information = entropy + _entropy(shares.sum(0), 1) - _entropy(shares, (0, 2))
        second, first = sorted([0.0, *information.clamp(min=0).tolist()])[-2:]
        gaps.append((first - second) / entropy.item())
    return sum(gaps) / len(gaps)


def _entropy(shares: Tensor, over: int | tuple[int, ...]) -> Tensor:
    """−Σ p ln p, nats, over these axes."""
    return torch.special.entr(shares).sum(over)


def sap(codes: Tensor, factors: Tensor, *, score: Callable[[Tensor, Tensor], Tensor] | None = None) -> float:
    """SAP, the separated attribute predictability, in [0, 1]: how much the best dimension is ahead of the second.

    Args:
        codes: ``(n, latent_dim)``.
        factors: ``(n, n_factors)``.
        score: gives S, ``(latent_dim, n_factors)``, from both: :func:`threshold_accuracy`, the default, for discrete
            factors, :func:`squared_correlation` for continuous ones.

    Raises:
        SettingError: codes and factors that cannot be compared, or continuous factors with the default score.

    >>> factors = torch.arange(60.0)[:, None] % 7
    >>> round(sap(torch.cat([factors, torch.zeros(60, 1)], 1), factors, score=squared_correlation), 6)
    1.0
    """
    if codes.ndim == 2 and codes.shape[1] == 1:
        codes = torch.cat([codes, torch.zeros_like(codes)], 1)
    first, second = (score or threshold_accuracy)(codes, factors).topk(2, 0).values
    return (first - second).mean().item()


def threshold_accuracy(codes: Tensor, factors: Tensor, *, seed: int = 0) -> Tensor:
    """Test accuracy of each discrete factor predicted from each dimension alone, ``(latent_dim, n_factors)``.

    The classifier is the library's, a linear support vector machine (C = 0.01, classes balanced). A dimension that
    does not vary names the commonest class (in the library rounding decides which). Training is balanced and the
    accuracy is not: for a rare factor such a dimension may well be the second best.

    Args:
        codes: ``(n, latent_dim)``.
        factors: whole numbers, ``(n, n_factors)``.
        seed: of the division into train and test data.

    Raises:
        SettingError: codes and factors that cannot be compared, or continuous factors.

    >>> factors = torch.arange(90)[:, None] % 2
    >>> threshold_accuracy(factors.float(), factors)
    tensor([[1.]], dtype=torch.float64)
    """
    codes, factors = _checked(codes, factors)
    _check_discrete(factors)
    train, test = _divided(len(codes), seed)
    return torch.tensor([[_one_dimension_accuracy(code[train], factor[train], code[test], factor[test])
                          for factor in factors.T] for code in codes.T], dtype=torch.float64)


def _one_dimension_accuracy(train_code: Tensor, train_factor: Tensor, test_code: Tensor, test_factor: Tensor) -> float:
    if not (_varies(train_code) and _varies(train_factor)):
        return _commonest_hits(train_factor, test_factor)
    classifier = LinearSVC(C=0.01, class_weight="balanced", dual=False)
    classifier.fit(train_code[:, None].numpy(), train_factor.numpy())
    return float(classifier.score(test_code[:, None].numpy(), test_factor.numpy()))


def _commonest_hits(train_factor: Tensor, test_factor: Tensor) -> float:
    """Test accuracy of always naming the commonest class of the training data."""
    return (test_factor == train_factor.mode().values).double().mean().item()


def squared_correlation(codes: Tensor, factors: Tensor) -> Tensor:
    """Squared correlation of each dimension with each factor, float64 ``(latent_dim, n_factors)``, in [0, 1].

    It is R² of the factor's linear regression on that dimension alone; 0 where the dimension does not vary.

    Args:
        codes: ``(n, latent_dim)``.
        factors: ``(n, n_factors)``.

    Raises:
        SettingError: codes and factors that cannot be compared.

    >>> squared_correlation(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[3.0], [1.0], [-1.0]])).round(decimals=6)
    tensor([[1.]], dtype=torch.float64)
    """
    codes, factors = _checked(codes, factors)
    return (_standardised(codes).T @ _standardised(factors)).square().clamp(max=1)


def dci(codes: Tensor, factors: Tensor, *, estimator: BaseEstimator | None = None, seed: int = 0) -> DCI:
    """Disentanglement, completeness and informativeness, from the importances of a tree ensemble.

    Args:
        codes: ``(n, latent_dim)``.
        factors: ``(n, n_factors)``.
        estimator: an unfitted scikit-learn estimator with ``feature_importances_``; a clone is fitted to each factor.
            The library's is ``GradientBoostingClassifier()``: 100 trees, each scaled by 0.1. The default is 20 trees
            scaled by 0.3, a fifth of the time. On simulated codes it scored within 0.05 of the library's where the
            factors were predicted well, and up to 0.13 above where they were not (accuracy 0.68): compare scores of
            one estimator only. A regressor takes continuous factors.
        seed: of the division into train and test data, and of the default estimator.

    Raises:
        SettingError: codes and factors that cannot be compared, an estimator without importances, or continuous
            factors with a classifier.

    >>> factors = torch.cartesian_prod(torch.arange(8), torch.arange(8)).repeat(3, 1) // 4
    >>> scores = dci(factors.float(), factors)
    >>> [round(score, 3) for score in scores]
    [1.0, 1.0, 1.0]
    """
    codes, factors = _checked(codes, factors)
    train, test = _divided(len(codes), seed)
    if estimator is None:
        estimator = GradientBoostingClassifier(n_estimators=20, learning_rate=0.3, random_state=seed)
    if not hasattr(type(estimator), "feature_importances_"):
        raise SettingError(f"estimator must have feature_importances_; got {type(estimator).__name__}")
    if is_classifier(estimator):
        _check_discrete(factors)
    importances, scores = zip(*(_importances_and_score(clone(estimator), codes[train], factor[train], codes[test],
                                                       factor[test]) for factor in factors.T), strict=True)
    matrix = torch.stack(importances, 1)
    return DCI(disentanglement(matrix), completeness(matrix), sum(scores) / len(scores))


def _importances_and_score(estimator: BaseEstimator, train_codes: Tensor, train_factor: Tensor, test_codes: Tensor,
                           test_factor: Tensor) -> tuple[Tensor, float]:
    """Of one factor: ``(latent_dim,)``, and accuracy or R². Nothing is learnt where it varies in the test data only."""
    if not _varies(train_factor):
        score = _commonest_hits(train_factor, test_factor) if is_classifier(estimator) else 0.0
        return torch.zeros(train_codes.shape[1], dtype=torch.float64), score
    estimator.fit(train_codes.numpy(), train_factor.numpy())
    score = float(estimator.score(test_codes.numpy(), test_factor.numpy()))
    return torch.from_numpy(estimator.feature_importances_).double().abs(), score  # rounding leaves tiny negatives


def disentanglement(importances: Tensor) -> float:
    """Whether each dimension is important for one factor only, in [0, 1]; 0 where nothing is important.

    Args:
        importances: R, at least 0, ``(latent_dim, n_factors)``.

    >>> disentanglement(torch.eye(3))
    1.0
    """
    totals = importances.double().sum(1)
    if not totals.any():
        return 0.0
    shares = importances / totals.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
    spread = torch.special.entr(shares).sum(1) / math.log(max(importances.shape[1], 2))
    return ((1 - spread) @ totals / totals.sum()).item()


def completeness(importances: Tensor) -> float:
    """Whether each factor has one important dimension only: :func:`disentanglement` with the roles exchanged.

    >>> completeness(torch.eye(3))
    1.0
    """
    return disentanglement(importances.T)


def matched_sources(codes: Tensor, sources: Tensor) -> SourceMatching:
    """Give each source a latent dimension of its own, so that the mean |correlation| is the largest (Hungarian method).

    Args:
        codes: ``(n, latent_dim)``.
        sources: ``(n, n_sources)``, binary or continuous.

    Raises:
        SettingError: codes and sources that cannot be compared.

    >>> sources = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> matched_sources(torch.stack([-sources[:, 1], sources[:, 0]], 1), sources).assignment
    tensor([1, 0])
    """
    correlations = squared_correlation(codes, sources).sqrt()
    dimensions, matched = (torch.from_numpy(index) for index in linear_sum_assignment(correlations, maximize=True))
    assignment = torch.full((sources.shape[1],), -1)
    scores = torch.zeros(sources.shape[1], dtype=torch.float64)
    assignment[matched] = dimensions
    scores[matched] = correlations[dimensions, matched]
    return SourceMatching(assignment, scores, scores.mean().item())


def _checked(codes: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 on the CPU if they can be compared, else a :class:`SettingError`."""
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or 0 in (*codes.shape, *factors.shape):
        raise SettingError("codes must be (n, latent_dim) and factors (n, n_factors), none of them 0; got shapes "
                           f"{tuple(codes.shape)} and {tuple(factors.shape)}")
    codes, factors = codes.detach().cpu().double(), factors.detach().cpu().double()
    if not (codes.isfinite().all() and factors.isfinite().all()):
        raise SettingError("codes and factors must be finite; got NaN or infinite values")
    constant = (~_varies(factors)).nonzero().flatten().tolist()
    if constant:
        raise SettingError(f"every factor must vary over the observations; column(s) {constant} of the factors have "
                           f"one value in n = {len(factors)}: leave them out")
    return codes, factors


def _check_discrete(factors: Tensor) -> None:
    continuous = [column for column, factor in enumerate(factors.T) if not _is_discrete(factor)]
    if continuous:
        raise SettingError(f"factors must be whole numbers, one for each class; column(s) {continuous} are not: "
                           "use a regressor (dci) or score=squared_correlation (sap) for continuous factors")


def _is_discrete(factor: Tensor) -> bool:
    return torch.equal(factor, factor.round())


def _varies(values: Tensor) -> Tensor:
    """Whether a column has more than one value, bool; exact, where a variance would have rounding errors."""
    return values.amax(0) > values.amin(0)


def _standardised(values: Tensor) -> Tensor:
    """Columns of mean 0 and norm 1; a column that does not vary becomes 0."""
    centred = torch.where(_varies(values), values - values.mean(0), 0)
    return centred / centred.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)


def _equal_bins(values: Tensor, bins: int) -> Tensor:
    """The bin of each value, int64 in [0, bins), of equal width between the extremes of its column."""
    low, high = values.amin(0), values.amax(0)
    place = (values - low) / torch.where(high > low, high - low, 1)
    return (place * bins).long().clamp(max=bins - 1)


def _divided(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the train and the test data, both at least one for n ≥ 2."""
    generator = torch.Generator().manual_seed(check_integer("seed", seed, minimum=0))
    return torch.randperm(n, generator=generator).tensor_split([int(n * TRAIN_SHARE)])  # type: ignore[return-value]
