"""How far a spike's estimator is from the true gradient on a trained model, whose 2^J patterns nobody can enumerate.

The truth is the mean of many draws of DisARM, which is unbiased for any decoder (see
:func:`sparse_vae.distributions.disarm`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_vae.checks import check_integer
from sparse_vae.distributions import disarm, sample_spikes
from sparse_vae.models.vsc import VSC


class GradientError(NamedTuple):
    """Relative to the root mean square of the true gradient: of an estimator's mean, and of one of its draws."""

    bias: float
    deviation: float


def spike_gradient_errors(model: VSC, x: Tensor, estimators: Iterable[str], n_samples: int = 2000, *,
                          temperature: float = 0.5,
                          generator: torch.Generator | None = None) -> dict[str, GradientError]:
    """Bias and standard deviation of estimates of ∂E[−ln p(x|z)]/∂l, l the logits of the spikes of ``x``.

    What chance adds to the squared bias of means of finitely many draws is taken off.

    Args:
        model: trained.
        x: observations, ``(n, *input_shape)``.
        estimators: keys of ``SPIKES`` that have a gradient, or ``"disarm"``.
        n_samples: draws of each for every observation, at least 2.
        temperature: τ of those that have one.
        generator: source of randomness, on the device of ``x``.

    >>> from sparse_vae import make_model
    >>> model = make_model("vsc", (5,), latent_dim=3, prior="fixed")
    >>> list(spike_gradient_errors(model, torch.rand(2, 5), ["reinmax"], 10))
    ['reinmax']
    """
    check_integer("n_samples", n_samples, minimum=2)
    with torch.no_grad():
        posterior = model.encode(x)
    scale, logits = (posterior.log_variance / 2).exp(), posterior.spike_logit.requires_grad_()

    def loss_at(slab: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda spikes: model.reconstruction_nll(x, spikes * slab)

    def draw(estimator: str) -> Tensor:
        noise = torch.randn(scale.shape, device=x.device, generator=generator)
        loss = loss_at(posterior.mean + scale * noise)
        if estimator == "disarm":
            return disarm(loss, logits, generator=generator)
        spikes = sample_spikes(logits, estimator, temperature, generator=generator)
        return torch.autograd.grad(loss(spikes).sum(), logits)[0]

    def moments(estimator: str) -> tuple[Tensor, Tensor]:
        draws = torch.stack([draw(estimator) for _ in range(n_samples)]).double()
        return draws.mean(0), draws.var(0)

    truth, variance = moments("disarm")
    size = (truth.square() - variance / n_samples).mean().sqrt()
    errors = {}
    for estimator in estimators:
        mean, spread = moments(estimator)
        squared_bias = ((mean - truth).square() - (variance + spread) / n_samples).mean().clamp(min=0)
        errors[estimator] = GradientError(*((part.sqrt() / size).item() for part in (squared_bias, spread.mean())))
    return errors
