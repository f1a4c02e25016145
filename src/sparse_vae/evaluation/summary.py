"""The numbers every run is published with, measured on its test data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparse_vae.datasets.base import Dataset
from sparse_vae.evaluation.activity import activity_rates, explained_variance
from sparse_vae.evaluation.reconstruction import mean_squared_error
from sparse_vae.models.base import LatentVariableModel
from sparse_vae.nets import count_parameters
from sparse_vae.training import EVALUATION_BATCH, epoch_generator, mean_loss

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


def summarise(model: LatentVariableModel, dataset: Dataset, *, seed: int = 0) -> dict[str, float | dict | None]:
    """Measure a trained model on the test part of its data.

    Returns:
        ``loss``: the objective's terms, nats, summed over features, mean over observations;
        ``negative_elbo``: one-sample estimate of −ELBO with weight 1 on every KL, nats, mean over observations; None
        for a model without a prior;
        ``likelihood``: the family those nats belong to;
        ``mean_squared_error``: of the reconstruction from the code, mean over features and observations;
        ``explained_variance``: of that reconstruction, about the mean of the test data;
        ``active_fraction``, ``used_dimensions``: see :func:`code_usage`;
        ``latent_dim``, ``parameters``: sizes.

    >>> from sparse_vae import load_dataset, make_model
    >>> data = load_dataset("digits")
    >>> measures = summarise(make_model("vae", data.input_shape, likelihood="gaussian", latent_dim=3), data)
    >>> measures["latent_dim"], measures["likelihood"]
    (3, 'gaussian')
    """
    x = dataset.test.x
    reconstruction = batched(model.reconstruct, x)
    negative_elbo = None
    if model.generative:
        generator = epoch_generator(seed, 0)
        negative_elbo = batched(lambda batch: model.negative_elbo(batch, generator=generator), x).mean().item()
    return {
        "loss": mean_loss(model, x, seed=seed),
        "negative_elbo": negative_elbo,
        "likelihood": model.likelihood,
        "mean_squared_error": mean_squared_error(x, reconstruction).mean().item(),
        "explained_variance": explained_variance(x, reconstruction),
        **code_usage(model, x),
        "latent_dim": model.latent_dim,
        "parameters": count_parameters(model),
    }
