r"""How sparse a code is: for each observation, and over a data set. Codes are a ∈ R^J, signs are ignored.

    Hoyer          (√J − ‖a‖₁ / ‖a‖₂) / (√J − 1)          Hoyer 2004; Hurley & Rickard 2009
    Treves–Rolls   (1 − mean(|a|)² / mean(a²)) / (1 − 1/J)  Treves & Rolls 1991 as Vinje & Gallant 2000 scale it
    L0             #{j : aⱼ ≠ 0}
    active units   Var_x(E[zⱼ|x]) > 0.01                   Burda, Grosse & Salakhutdinov 2016, section 5.2

The first two do not depend on the scale of the code: 0 where all of its magnitudes are equal, 1 where one is not 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparse_vae.checks import check_number


def hoyer(code: Tensor) -> Tensor:
    """Hoyer's sparseness of each observation, ``(n,)``, in [0, 1].

    An all-zero code has none by the formula (0/0); it counts as 1, since nothing is sparser: a collapsed model scores
    high, so read it beside :func:`dead_fraction`. A code of one dimension that is not 0 counts as 0.

    Args:
        code: ``(n, latent_dim)``.

    >>> hoyer(torch.tensor([[0.0, 3.0, 0.0, 0.0], [1.0, 1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]))
    tensor([1., 0., 1.])
    """
    largest = math.sqrt(code.shape[1])
    return _sparseness(_norm_ratio(code), largest)


def treves_rolls(code: Tensor) -> Tensor:
    """Treves–Rolls sparseness of each observation over the dimensions (population sparseness), ``(n,)``, in [0, 1].

    Of the transposed code, ``treves_rolls(code.T)``, it is each dimension's sparseness over the observations
    (lifetime sparseness), ``(latent_dim,)``. All zeros count as 1 and a single value that is not 0 counts as 0, as in
    :func:`hoyer`.

    Args:
        code: ``(n, latent_dim)``; magnitudes are used where a firing rate stands in the paper.

    >>> treves_rolls(torch.tensor([[1.0, 0.0, 0.0], [1.0, -1.0, 0.0]]))
    tensor([1.0000, 0.5000])
    """
    return _sparseness(_norm_ratio(code).square(), code.shape[1])


def _norm_ratio(code: Tensor) -> Tensor:
    """‖a‖₁ / ‖a‖₂ of each row, in [1, √J]; 0 where all is 0."""
    largest = code.abs().amax(1, keepdim=True)
    magnitudes = code.abs() / torch.where(largest == 0, 1, largest)  # squares of these neither overflow nor vanish
    return magnitudes.sum(1) / torch.where(largest[:, 0] == 0, 1, magnitudes.square().sum(1).sqrt())


def _sparseness(ratio: Tensor, largest: float) -> Tensor:
    """How far a ratio is below its largest value, as a share of what is possible: 1 at a ratio of 1 and of 0."""
    if largest == 1:
        return torch.where(ratio == 0, 1, 1 - ratio)
    return ((largest - ratio) / (largest - 1)).clamp(0, 1)


def l0(code: Tensor) -> Tensor:
    """The number of values of each observation that are not exactly 0, int64 ``(n,)``.

    Args:
        code: ``(n, latent_dim)``.

    >>> l0(torch.tensor([[0.0, 1e-30, -2.0], [0.0, 0.0, -0.0]]))
    tensor([2, 0])
    """
    return (code != 0).sum(1)


def active_units(means: Tensor, threshold: float = 0.01) -> Tensor:
    """Which dimensions the data move: Var_x(E[zⱼ|x]) > ``threshold``, bool ``(latent_dim,)``.

    The variance divides by n, so that one observation activates nothing.

    Args:
        means: E[z|x] of each observation, ``(n, latent_dim)``.
        threshold: at least 0, in squared units of z; 0.01 supposes a prior of variance 1.

    Raises:
        SettingError: a threshold below 0.

    >>> active_units(torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
    tensor([False,  True])
    """
    return means.var(0, correction=0) > check_number("threshold", threshold, minimum=0)


def dead_fraction(active: Tensor) -> float:
    """The share of the dimensions that are never active, in [0, 1].

    Args:
        active: bool, ``(n, latent_dim)`` from ``model.active``, or ``(latent_dim,)`` from :func:`active_units`.

    >>> dead_fraction(torch.tensor([[True, False, False, False], [False, False, True, False]]))
    0.5
    """
    dead = ~torch.atleast_2d(active).any(0)
    return dead.sum().item() / len(dead)
