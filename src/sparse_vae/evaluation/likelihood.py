r"""The importance-weighted bound on −ln p(x) (Burda, Grosse & Salakhutdinov 2016, equation 8).

    −ln p(x) ≤ L_K(x) = −ln (1/K) Σ_k p(x, z_k) / q(z_k|x),   z_k ~ q(z|x)

Its mean falls with K: from −ELBO at K = 1 towards −ln p(x).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from sparse_vae.checks import SettingError, check_integer
from sparse_vae.models.base import LatentVariableModel
from sparse_vae.training import EVALUATION_BATCH


@torch.no_grad()
def importance_weighted_nll(model: LatentVariableModel, x: Tensor, n_samples: int = 500, *,
                            batch_size: int = EVALUATION_BATCH, generator: torch.Generator | None = None) -> Tensor:
    """One draw of the bound L_K for each observation, nats, ``(n,)``.

    Args:
        model: a model with a prior: ``log_importance_weight(x, generator=...)`` gives ln p(x, z) − ln q(z|x),
            ``(batch,)`` in nats, for one z ~ q(z|x).
        x: observations, ``(n, *input_shape)``, n at least 1.
        n_samples: K, at least 1; 500 or more for a table.
        batch_size: rows, observations times samples, that the model sees at once, at least 1. Memory grows with it
            and not with K; another size draws other noise.
        generator: source of randomness, on the device of ``x``.

    Raises:
        SettingError: ``n_samples`` or ``batch_size`` out of range.

    >>> from sparse_vae import make_model
    >>> model = make_model("vae", (5,), latent_dim=2)
    >>> importance_weighted_nll(model, torch.rand(3, 5), n_samples=10).shape
    torch.Size([3])
    """
    check_integer("n_samples", n_samples, minimum=1)
    check_integer("batch_size", batch_size, minimum=1)
    return torch.cat([math.log(n_samples) - _log_sum_of_weights(model, batch, n_samples, batch_size, generator)
                      for batch in x.split(batch_size)]).to(x)


@torch.no_grad()
def importance_weighted_bounds(model: LatentVariableModel, x: Tensor, counts: Iterable[int], *,
                               batch_size: int = EVALUATION_BATCH,
                               generator: torch.Generator | None = None) -> Tensor:
    """The mean of the bound L_K over observations for several K, from one draw, nats, float64 ``(len(counts),)``.

    As many samples are drawn as the largest K; for a smaller one they are divided into groups, each of which gives the
    bound, so that the bounds share their noise. Memory grows with the largest K times the number of observations.

    Args:
        counts: K, each at least 1 and a divisor of the largest.
        model, x, batch_size, generator: as for :func:`importance_weighted_nll`.

    Raises:
        SettingError: ``counts`` or ``batch_size`` out of range.

    >>> from sparse_vae import make_model
    >>> model = make_model("vae", (5,), latent_dim=2)
    >>> bounds = importance_weighted_bounds(model, torch.rand(50, 5), [1, 10, 100])
    >>> bool(bounds[0] >= bounds[2])
    True
    """
    counts = [check_integer("counts", count, minimum=1) for count in counts]
    check_integer("batch_size", batch_size, minimum=1)
    if not counts or any(max(counts) % count for count in counts):
        raise SettingError(f"counts must divide the largest of them; got {counts}")
    log_weights = torch.cat([torch.cat(list(_log_weights(model, batch, max(counts), batch_size, generator)))
                             for batch in x.split(batch_size)], 1)  # (samples, observations)
    return torch.stack([math.log(count) - log_weights.unflatten(0, (-1, count)).logsumexp(1).mean()
                        for count in counts])


def _log_sum_of_weights(model: LatentVariableModel, x: Tensor, n_samples: int, batch_size: int,
                        generator: torch.Generator | None) -> Tensor:
    """ln Σ_k p(x, z_k) / q(z_k|x), ``(batch,)``."""
    total = torch.full((len(x),), -math.inf, dtype=torch.float64)
    for log_weights in _log_weights(model, x, n_samples, batch_size, generator):
        total = total.logaddexp(log_weights.logsumexp(0))
    return total


def _log_weights(model: LatentVariableModel, x: Tensor, n_samples: int, batch_size: int,
                 generator: torch.Generator | None) -> Iterator[Tensor]:
    """ln p(x, z_k) / q(z_k|x) for all samples, some at a time, ``(samples, batch)``; in float64 on the CPU since not
    every device has it."""
    at_once = max(1, batch_size // len(x))
    for done in range(0, n_samples, at_once):
        copies = x.expand(min(at_once, n_samples - done), *x.shape)
        log_weights = model.log_importance_weight(copies.flatten(0, 1), generator=generator)  # type: ignore[operator]
        yield log_weights.view(copies.shape[:2]).cpu().double()
