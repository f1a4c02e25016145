r"""How far samples of a model are from observations, for small grey pictures, for which there is no network to ask.

Both are compared as points of a space of few dimensions, the first principal components of training observations:

    Fréchet      ‖m − m′‖² + tr(C + C′ − 2 (C C′)^½)           Heusel et al. 2017, there of Inception's features
    precision    share of the samples that are as near to some observation as its k-th neighbour is
    recall       share of the observations that are as near to some sample        Kynkäänniemi et al. 2019
    detection    share of both whose nearest neighbour is of their own kind       Lopez-Paz & Oquab 2017

The first sees means and covariances alone: a Gaussian of those scores 0. Precision is high for samples that are all
alike, recall for samples that are everywhere. Detection sees both: ½ where nothing tells samples from observations, 1
where everything does.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparse_vae.checks import SettingError, check_integer


class Components(NamedTuple):
    """Principal components: the mean of the observations, ``(features,)``, and directions, ``(features, n)``."""

    mean: Tensor
    directions: Tensor

    @classmethod
    def of(cls, x: Tensor, n: int) -> Components:
        """The first ``n`` of observations ``(m, *features)``, or as many as there are features.

        >>> Components.of(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), 1).directions.abs()
        tensor([[1.],
                [0.]])
        """
        flat = x.flatten(1)
        mean = flat.mean(0)
        # In single precision pixels that never vary, of which drawn pictures have many, can keep it from an end.
        return cls(mean, torch.linalg.eigh(_covariance(flat).double()).eigenvectors[:, -n:].to(flat))

    def coordinates(self, x: Tensor) -> Tensor:
        """Of observations ``(m, *features)``, ``(m, n)``."""
        return (x.flatten(1) - self.mean) @ self.directions


class SampleQuality(NamedTuple):
    """See the module; ``frechet`` is at least 0, in squared units of the points, the others are in [0, 1]."""

    frechet: float
    precision: float
    recall: float
    detection: float


def sample_quality(observations: Tensor, samples: Tensor, k: int = 3) -> SampleQuality:
    """How far samples are from observations; best as many of both, since all but the first depend on their number.

    Args:
        observations, samples: points, ``(n, features)`` and ``(m, features)``.
        k: which neighbour's distance counts as near; 3 in the paper.

    Raises:
        SettingError: points that cannot be compared, or not more than ``k`` of them.

    >>> observations, samples = torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([[0.5], [0.6], [0.7]])
    >>> [round(value, 3) for value in sample_quality(observations, samples, k=1)]
    [23.042, 1.0, 0.0, 0.667]
    """
    if observations.ndim != 2 or samples.ndim != 2 or observations.shape[1] != samples.shape[1]:
        raise SettingError("observations and samples must be (n, features) and (m, features); got shapes "
                           f"{tuple(observations.shape)} and {tuple(samples.shape)}")
    check_integer("k", k, minimum=1, maximum=min(len(observations), len(samples)) - 1)
    apart = torch.cdist(observations, samples)
    nearest, near = zip(*(_neighbours(points, k) for points in (observations, samples)), strict=True)
    own = [(distance < apart.amin(1 - side)).sum() for side, distance in enumerate(nearest)]
    return SampleQuality(_frechet(observations.double(), samples.double()),
                         (apart <= near[0][:, None]).any(0).double().mean().item(),
                         (apart <= near[1]).any(1).double().mean().item(),
                         (sum(own) / (len(observations) + len(samples))).item())


def _neighbours(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The distance of each point from its nearest neighbour and from the k-th."""
    found = torch.cdist(points, points).fill_diagonal_(torch.inf).topk(k, largest=False).values
    return found[:, 0], found[:, -1]


def _frechet(first: Tensor, second: Tensor) -> float:
    """The squared Fréchet distance of two normal distributions with the means and covariances of these points."""
    covariances = _covariance(first), _covariance(second)
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    traces = sum(covariance.trace() for covariance in covariances)
    return ((first.mean(0) - second.mean(0)).square().sum() + traces - 2 * roots).clamp(min=0).item()


def _covariance(points: Tensor) -> Tensor:
    centred = points - points.mean(0)
    return centred.T @ centred / len(points)
