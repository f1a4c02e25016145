"""What simple classifiers read from a code when few of the training data are labelled.

The labels' budget is drawn once for a seed: two probes, or two models, with the same seed and the same training
labels see the same labelled observations.

    logistic    C = 1 (scikit-learn's default), features scaled by the labelled codes' mean and deviation
    tuned       the same with the best of nine choices on the last fifth of the labelled codes: a deviation for each
                feature or one for all (of a sparse code the first makes much of rare features), and C
    neighbours  majority of the nearest labelled codes, as they are: for the cosine distance 1 − aᵀb / ‖a‖‖b‖ the
                origin means "inactive", and centring would move it
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from sparse_vae.checks import SettingError, check_choice, check_integer

METRICS = ("cosine", "euclidean")
MOST_STEPS = 1000
HELD_OUT = 5
"""One in so many labelled codes is held out to tune a probe."""
TRIED = ((False, (0.01, 0.03, 0.1, 0.3, 1.0)), (True, (0.1, 0.3, 1.0, 3.0)))
"""Whether all features share one scale, and C."""


def labelled_subset(labels: Tensor, n_labels: int, seed: int = 0) -> Tensor:
    """A random choice of observations with the classes in proportion, and each of them in it.

    Args:
        labels: int64, ``(n,)``.
        n_labels: how many to choose, at least the number of classes and at most n.
        seed: of the choice, at least 0.

    Returns:
        Indices, int64 ``(n_labels,)``, in random order; classes of equal size differ by at most one.

    Raises:
        SettingError: a budget or a seed out of range, or fewer than two classes.

    >>> import torch
    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1])
    >>> labels[labelled_subset(labels, 3)].bincount()
    tensor([2, 1])
    """
    classes = labels.unique()
    if len(classes) < 2:
        raise SettingError(f"train_labels must hold at least 2 classes; got {len(classes)}: {classes.tolist()}")
    check_integer("n_labels", n_labels, minimum=len(classes), maximum=len(labels))
    generator = torch.Generator().manual_seed(check_integer("seed", seed, minimum=0))
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels.cpu()[order]
    queue = torch.empty(len(labels), dtype=torch.float64)  # the share of its class that comes before an observation
    for label in classes.cpu():
        members = shuffled == label
        size = int(members.sum())
        queue[members] = torch.arange(size, dtype=torch.float64) / size
    return order[queue.argsort(stable=True)[:n_labels]]


def logistic_probe(train_codes: Tensor, train_labels: Tensor, test_codes: Tensor, test_labels: Tensor,
                   n_labels: int, seed: int = 0, *, tuned: bool = False) -> float:
    """Test accuracy, in [0, 1], of multinomial logistic regression on the codes of ``n_labels`` observations.

    Args:
        train_codes, test_codes: ``(n, latent_dim)``, from ``model.code``.
        train_labels, test_labels: int64, ``(n,)``.
        n_labels, seed: the budget, see :func:`labelled_subset`.
        tuned: whether scale and C are chosen, on a part of the labelled codes that is drawn with the rest.

    Raises:
        SettingError: shapes that do not fit together, or what :func:`labelled_subset` refuses.

    >>> import torch
    >>> labels = torch.arange(40) % 2
    >>> logistic_probe(labels[:, None].float(), labels, labels[:, None].float(), labels, n_labels=10)
    1.0
    """
    labelled, test = _data(train_codes, train_labels, test_codes, test_labels, n_labels, seed)
    shared, penalty = _tune(*labelled) if tuned else (False, 1.0)
    return float(_logistic(shared, penalty).fit(*labelled).score(*test))


def _logistic(shared: bool, penalty: float) -> Pipeline:
    """A classifier with one scale for all features, or one for each, and C."""
    scaler = _SharedScaler() if shared else StandardScaler()
    return make_pipeline(scaler, LogisticRegression(C=penalty, max_iter=MOST_STEPS))


class _SharedScaler(StandardScaler):
    """Features keep their sizes relative to each other: their mean variance becomes 1."""

    def fit(self, x: np.ndarray, y: np.ndarray | None = None) -> _SharedScaler:
        super().fit(x)
        self.scale_ = np.full_like(self.scale_, np.sqrt(self.var_.mean()) or 1)  # type: ignore[has-type]
        return self


def _tune(codes: np.ndarray, labels: np.ndarray) -> tuple[bool, float]:
    """Scale and C that classify best what is held out, of equal ones the first; those of an untuned probe where too
    little is labelled to hold anything out."""
    kept = len(codes) - len(codes) // HELD_OUT
    if set(labels[:kept]) != set(labels) or kept == len(codes):
        return False, 1.0
    choices = [(shared, penalty) for shared, penalties in TRIED for penalty in penalties]
    return max(choices, key=lambda choice: _logistic(*choice).fit(codes[:kept], labels[:kept]).score(
        codes[kept:], labels[kept:]))


def knn_probe(train_codes: Tensor, train_labels: Tensor, test_codes: Tensor, test_labels: Tensor,
              n_labels: int, seed: int = 0, *, n_neighbours: int = 5, metric: str = "cosine",
              weighted: bool = False) -> float:
    """Test accuracy, in [0, 1], of the majority of the nearest among ``n_labels`` labelled codes.

    Args:
        train_codes, test_codes: ``(n, latent_dim)``, from ``model.code``; neither centred nor scaled.
        train_labels, test_labels: int64, ``(n,)``.
        n_labels, seed: the budget, see :func:`labelled_subset`.
        n_neighbours: at least 1 and at most ``n_labels``.
        metric: ``"cosine"``, for which an all-zero code is at distance 1 from every other, or ``"euclidean"``.
        weighted: each neighbour's vote counts as one over its distance, so that fewer votes end level; else the
            same, and of level classes the first wins.

    Raises:
        SettingError: an unknown metric, shapes that do not fit together, a number of neighbours out of range, or what
            :func:`labelled_subset` refuses.

    >>> import torch
    >>> labels = torch.arange(40) % 2
    >>> codes = torch.stack([labels, 1 - labels], 1).float()
    >>> knn_probe(codes, labels, codes, labels, n_labels=10, n_neighbours=1)
    1.0
    """
    check_choice("metric", metric, METRICS)
    labelled, test = _data(train_codes, train_labels, test_codes, test_labels, n_labels, seed)
    check_integer("n_neighbours", n_neighbours, minimum=1, maximum=n_labels)
    classifier = KNeighborsClassifier(n_neighbours, metric=metric, algorithm="brute",
                                      weights="distance" if weighted else "uniform")
    return float(classifier.fit(*labelled).score(*test))


def _data(train_codes: Tensor, train_labels: Tensor, test_codes: Tensor, test_labels: Tensor, n_labels: int,
          seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Codes and labels of the labelled subset, and of the test data."""
    for part, codes, labels in (("train", train_codes, train_labels), ("test", test_codes, test_labels)):
        if codes.ndim != 2 or labels.shape != codes.shape[:1]:
            raise SettingError(f"{part}_codes must be (n, latent_dim) and {part}_labels (n,); got shapes "
                               f"{tuple(codes.shape)} and {tuple(labels.shape)}")
    chosen = labelled_subset(train_labels, n_labels, seed)
    return ((_array(train_codes)[chosen], _array(train_labels)[chosen]), (_array(test_codes), _array(test_labels)))


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
