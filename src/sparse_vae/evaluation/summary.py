"""How much of its code a model uses, and functions of many observations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparse_vae.evaluation.activity import activity_rates
from sparse_vae.models.base import LatentVariableModel
from sparse_vae.training import EVALUATION_BATCH

USED_RATE = 0.01
"""A dimension counts as used when it is active for at least this share of the observations."""


@torch.no_grad()
def batched(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)`` without gradients, computed on batches that fit in memory, concatenated.

    >>> batched(lambda x: 2 * x, torch.ones(2500)).sum()
    tensor(5000.)
    """
    return torch.cat([function(batch) for batch in x.split(EVALUATION_BATCH)])


def code_usage(model: LatentVariableModel, x: Tensor) -> dict[str, float]:
    """How much of its code a model uses on ``x``, ``(n, *input_shape)``.

    Returns:
        ``active_fraction``: mean share of the dimensions that are active for an observation;
        ``used_dimensions``: number of dimensions active for at least 1% of the observations.

    >>> from sparse_vae import make_model
    >>> model = make_model("batchtopk", (5,), latent_dim=3, k=1)  # untrained: its threshold is 0
    >>> with torch.no_grad():
    ...     _ = model.encoder[-1].bias.fill_(-100.0)
    >>> code_usage(model, torch.rand(30, 5))
    {'active_fraction': 0.0, 'used_dimensions': 0}
    """
    rates = activity_rates(batched(model.active, x))
    return {"active_fraction": rates.mean().item(), "used_dimensions": int((rates >= USED_RATE).sum())}
