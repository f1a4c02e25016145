r"""Negative log-likelihoods −ln p(x|z) of the decoders, in nats, summed over the features of each sample.

The two families live on different scales (one is a probability, the other a density): their
values must never share a column of a table.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from sparse_vae.checks import check_same_shape


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    r"""Bernoulli: −Σ_d [x_d ln p_d + (1−x_d) ln(1−p_d)] with p = sigmoid(logits).

    Grey values x in [0, 1] are taken as means ("grey-pixel Bernoulli"): the value is then a
    cross-entropy, whose minimum over p is the entropy of x and not 0.

    Args:
        logits: decoder outputs, ``(batch, *features)``.
        x: observations in [0, 1], same shape.

    Returns:
        Nats, summed over features, ``(batch,)``.

    Raises:
        SettingError: two shapes.

    >>> import torch
    >>> bernoulli_nll(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]])) / math.log(2)
    tensor([2.])
    """
    check_same_shape(logits=logits, x=x)
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def gaussian_nll(mean: Tensor, x: Tensor, log_scale: Tensor | float = 0.0) -> Tensor:
    r"""Gaussian with one scale for all features: Σ_d [(x_d−μ_d)²/(2σ²) + ln σ + ½ ln 2π].

    Args:
        mean: decoder outputs, ``(batch, *features)``.
        x: observations, same shape.
        log_scale: ln σ, a scalar.

    Returns:
        Nats, summed over features, ``(batch,)``; negative values are possible, it is a density.

    Raises:
        SettingError: two shapes.

    >>> import torch
    >>> round(gaussian_nll(torch.zeros(1, 1), torch.zeros(1, 1)).item(), 4)
    0.9189
    """
    check_same_shape(mean=mean, x=x)
    precision = (-2 * log_scale).exp() if isinstance(log_scale, Tensor) else math.exp(-2 * log_scale)
    squared_error = (x - mean).square().flatten(1)
    constant = (log_scale + 0.5 * math.log(2 * math.pi)) * squared_error.shape[1]
    return 0.5 * precision * squared_error.sum(1) + constant
