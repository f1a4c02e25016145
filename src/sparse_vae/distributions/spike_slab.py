r"""The spike-and-slab distribution, and gradients through its spikes.

    z = s · v,   s ~ Bernoulli(γ),   v ~ N(μ, σ²)                    with probability 1 − γ, z is exactly 0

Its density is taken with respect to Lebesgue measure plus a unit mass at 0 (Mitchell & Beauchamp 1988):

    ln p(z) = ln(1 − γ) at z = 0,   ln γ + ln N(z; μ, σ²) elsewhere.

A discrete s has no derivative with respect to γ, so that the reconstruction would leave γ untouched. ``SPIKES`` are
estimators that let a gradient through, each at a price that the report measures, and one that does not. l = logit γ,
η ~ U(0, 1), g = logit η (a logistic variable; l + g > 0 has probability γ), τ the temperature:

- ``scaled-sigmoid``: sigmoid((η − 1 + γ)/τ), Tonolini, Jensen & Murray-Smith (UAI 2019), whose c is 1/τ; never 0 or 1;
- ``concrete``: sigmoid((l + g)/τ), Maddison, Mnih & Teh (ICLR 2017); never 0 or 1;
- ``hard-concrete``: the concrete stretched to (−0.1, 1.1) and clipped, Louizos, Welling & Kingma (ICLR 2018); exact
  zeros and ones. The logit is shifted so that P(s ≠ 0) = γ, which theirs is not;
- ``straight-through``: 1 where l + g > 0, an exact sample, with the derivative of the concrete (Bengio, Léonard &
  Courville 2013; Jang, Gu & Poole, ICLR 2017);
- ``reinmax``: the same sample, ∂s/∂l = ½(1 − γ) where it is 1 and ½γ where it is 0 (Liu et al., NeurIPS 2023, for two
  states). With f′ the derivative of the loss with respect to a spike, its mean is γ(1 − γ)(f′(0) + f′(1))/2, the
  trapezoid rule for the true γ(1 − γ)(f(1) − f(0)): no temperature, and no bias where f is quadratic in every spike;
- ``bernoulli``: the same sample, ∂s/∂l = 0. What ``torch.bernoulli(γ)`` gives, there to show what it does.

:func:`disarm` estimates the same gradient for any loss without bias, from two values of the loss and no derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl
from torch.distributions.utils import broadcast_all

from sparse_vae.checks import check_choice, check_number
from sparse_vae.distributions.constraints import finite, positive_and_finite

LOWER, UPPER = -0.1, 1.1
"""Ends of the stretched interval of the hard concrete, the values of Louizos et al."""


def _uniform(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """U(0, 1) of the shape of ``logits``, without its ends."""
    noise = torch.rand(logits.shape, dtype=logits.dtype, device=logits.device, generator=generator)
    return noise.clamp(torch.finfo(logits.dtype).tiny, 1 - torch.finfo(logits.dtype).eps)


def _scaled_sigmoid(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    return ((uniform - 1 + logits.sigmoid()) / temperature).sigmoid()


def _concrete(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    return ((logits + uniform.logit()) / temperature).sigmoid()


def _hard_concrete(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    shifted = logits + temperature * math.log(-LOWER / UPPER)
    return (LOWER + (UPPER - LOWER) * _concrete(shifted, uniform, temperature)).clamp(0, 1)


def _straight_through(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    soft = _concrete(logits, uniform, temperature)
    return _bernoulli(logits, uniform, temperature) + (soft - soft.detach())


def _bernoulli(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    return (uniform.logit() > -logits).to(logits)


def _reinmax(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    spikes = _bernoulli(logits, uniform, temperature)
    slope = (spikes - logits.detach().sigmoid()).abs() / 2
    return spikes + slope * (logits - logits.detach())


SPIKES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "scaled-sigmoid": _scaled_sigmoid, "concrete": _concrete, "hard-concrete": _hard_concrete,
    "straight-through": _straight_through, "reinmax": _reinmax, "bernoulli": _bernoulli}
"""The estimators by name; each takes the logits, uniform noise of their shape, and the temperature."""


def sample_spikes(logits: Tensor, estimator: str = "straight-through", temperature: float = 0.5, *,
                  generator: torch.Generator | None = None) -> Tensor:
    """Spikes through which a gradient reaches the logits, for training (none with ``"bernoulli"``).

    Args:
        logits: l = ln γ/(1 − γ), any shape.
        estimator: a key of ``SPIKES``.
        temperature: τ > 0; smaller is closer to discrete spikes, and noisier in its gradient. ``"reinmax"`` and
            ``"bernoulli"`` have none.
        generator: source of randomness.

    Returns:
        Values in [0, 1], the shape of ``logits``.

    Raises:
        SettingError: an estimator that there is not, or a temperature that is not above 0.

    >>> sample_spikes(torch.tensor([-50.0, 50.0]))
    tensor([0., 1.])
    """
    check_choice("estimator", estimator, SPIKES)
    check_number("temperature", temperature, above=0)
    return SPIKES[estimator](logits, _uniform(logits, generator), temperature)


@torch.no_grad()
def disarm(loss: Callable[[Tensor], Tensor], logits: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """An unbiased estimate of ∂E[f(s)]/∂l, s ~ Bernoulli(γ), from an antithetic pair of spikes (DisARM: Dong, Mnih &
    Tucker, NeurIPS 2020, equation 5; also known as U2G).

    With s from the noise η and s̃ from 1 − η it is ½ (f(s) − f(s̃)) (s − s̃) sigmoid(|l|): a spike that is the same in
    both learns nothing from the pair.

    Args:
        loss: f; given spikes 0 or 1 of the shape of ``logits``, it returns a value for each row, ``logits.shape[:-1]``.
        logits: l = ln γ/(1 − γ), ``(..., J)``.
        generator: source of randomness.

    Returns:
        The shape of ``logits``.

    >>> disarm(lambda spikes: spikes.sum(-1), torch.zeros(1, 1))
    tensor([[0.2500]])
    """
    uniform = _uniform(logits, generator)
    spikes, antithetic = ((noise.logit() > -logits).to(logits) for noise in (uniform, 1 - uniform))
    difference = (loss(spikes) - loss(antithetic)).unsqueeze(-1)
    return difference / 2 * (spikes - antithetic) * logits.abs().sigmoid()


class SpikeSlab(Distribution):
    """Independent spike-and-slabs, one for each element.

    Args:
        logits: ln γ/(1 − γ) of the probability γ that an element is not 0; finite.
        loc: μ, mean of the slab, finite.
        scale: σ > 0 and finite, standard deviation of the slab. The three broadcast.

    Raises:
        ValueError: a parameter out of its range or NaN, unless ``validate_args`` is False.

    >>> SpikeSlab(torch.zeros(2), torch.tensor([0.0, 3.0]), torch.ones(2)).mean
    tensor([0.0000, 1.5000])
    """

    arg_constraints: ClassVar = {"logits": finite, "loc": finite, "scale": positive_and_finite}
    support = constraints.real
    has_rsample = True

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None):
        self.logits, self.loc, self.scale = broadcast_all(logits, loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: SpikeSlab | None = None) -> SpikeSlab:
        """The same distribution with a larger batch shape."""
        logits, loc, scale = (parameter.expand(batch_shape) for parameter in (self.logits, self.loc, self.scale))
        return SpikeSlab(logits, loc, scale, validate_args=self._validate_args)

    @property
    def probs(self) -> Tensor:
        """γ, the probability of a non-zero element."""
        return self.logits.sigmoid()

    @property
    def mean(self) -> Tensor:
        """E[z] = γμ."""
        return self.probs * self.loc

    @property
    def variance(self) -> Tensor:
        """Var[z] = γ(σ² + μ²) − γ²μ²."""
        return self.probs * (self.scale.square() + (1 - self.probs) * self.loc.square())

    def sample(self, sample_shape: Sequence[int] = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Exact samples: discrete spikes, zeros that are zeros; no gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator)

    def rsample(self, sample_shape: Sequence[int] = (), *, estimator: str = "straight-through",
                temperature: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
        """Samples with a gradient: exact in μ and σ, that of the estimator in γ (see :func:`sample_spikes`).

        Only with ``"straight-through"``, ``"reinmax"`` and ``"bernoulli"`` are they samples of this distribution.
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device, generator=generator)
        spikes = sample_spikes(self.logits.expand(shape), estimator, temperature, generator=generator)
        return spikes * (self.loc + self.scale * noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """ln p(z), elementwise, nats, with respect to Lebesgue measure plus a unit mass at 0."""
        if self._validate_args:
            self._validate_sample(value)
        slab = -0.5 * ((value - self.loc) / self.scale).square() - self.scale.log() - 0.5 * math.log(2 * math.pi)
        return torch.where(value == 0, F.logsigmoid(-self.logits), F.logsigmoid(self.logits) + slab)

    def entropy(self) -> Tensor:
        """−E[ln p(z)], elementwise, nats: that of the spike plus γ times that of the slab."""
        slab = self.scale.log() + 0.5 * math.log(2 * math.pi * math.e)
        spike = -self.probs * F.logsigmoid(self.logits) - (1 - self.probs) * F.logsigmoid(-self.logits)
        return spike + self.probs * slab


@register_kl(SpikeSlab, SpikeSlab)
def _spike_slab_kl(p: SpikeSlab, q: SpikeSlab) -> Tensor:
    """KL(p ‖ q) elementwise, nats: γ KL(slabs) + KL(spikes) (Tonolini et al. 2019, section 3)."""
    slab = ((q.scale / p.scale).log() + (p.scale.square() + (p.loc - q.loc).square()) / (2 * q.scale.square()) - 0.5)
    return p.probs * slab + bernoulli_kl(p.logits, q.logits)


def bernoulli_kl(logits: Tensor, other_logits: Tensor) -> Tensor:
    """KL(Bernoulli(γ) ‖ Bernoulli(γ′)) from logits, elementwise, nats; finite for every finite logit.

    >>> bernoulli_kl(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 2.0]))
    tensor([0.0000, 0.4338])
    """
    probs = logits.sigmoid()
    return (probs * (F.logsigmoid(logits) - F.logsigmoid(other_logits))
            + (1 - probs) * (F.logsigmoid(-logits) - F.logsigmoid(-other_logits)))


def cross_log_density(z: Tensor, components: SpikeSlab) -> Tensor:
    """ln p_u(z) for every pair of a point and a component, by matrix products: it is linear in 1(z ≠ 0), z and z².

    Args:
        z: n points, ``(n, J)``.
        components: u of them, ``(u, J)``.

    Returns:
        Nats, summed over the J dimensions, ``(n, u)``. Computed in the dtype of ``z``, also under autocast.
    """
    precision = components.scale.square().reciprocal()
    log_zero = F.logsigmoid(-components.logits)
    log_slab_at_zero = (F.logsigmoid(components.logits) - components.scale.log() - 0.5 * math.log(2 * math.pi)
                        - 0.5 * components.loc.square() * precision)
    with torch.autocast(precision.device.type, enabled=False):
        return (log_zero.sum(1) + (z != 0).to(z) @ (log_slab_at_zero - log_zero).T
                + z @ (components.loc * precision).T - 0.5 * z.square() @ precision.T)


class PairwiseKL(torch.autograd.Function):
    """KL(q ‖ p_u), summed over J dimensions, for every pair of n distributions q and U components p_u, ``(n, U)`` nats.

    Arguments of ``apply``: mean, ln variance and spike logit, first ``(n, J)`` each, then ``(U, J)`` each. It is one
    matrix product of the moments of q, side by side, with what ln p_u is linear in; its derivative, written out, is
    two, and takes a fraction of the steps that autograd takes through :func:`cross_log_density`.
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_variance: Tensor, logit: Tensor, other_mean: Tensor,
                other_log_variance: Tensor, other_logit: Tensor) -> Tensor:
        gamma, second = logit.sigmoid(), log_variance.exp() + mean.square()
        precision = (-other_log_variance).exp()
        moments = torch.cat([gamma, gamma * mean, gamma * second], 1)
        first = other_mean * precision
        linear = torch.cat([other_logit - 0.5 * (other_log_variance + other_mean * first), first, -0.5 * precision], 1)
        own = logit - 0.5 * (log_variance + 1)
        ctx.save_for_backward(mean, gamma, second, own, other_mean, precision, other_logit, moments, linear)
        return torch.addmm((gamma * own - F.softplus(logit)).sum(1, keepdim=True) + F.softplus(other_logit).sum(1),
                           moments, linear.T, alpha=-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        mean, gamma, second, own, other_mean, precision, other_logit, moments, linear = ctx.saved_tensors
        of_rows, of_columns = gradient.sum(1, keepdim=True), gradient.sum(0).unsqueeze(1)
        zeroth, first, square = (-gradient @ linear).chunk(3, 1)  # with respect to the moments
        on, slope, curve = (-gradient.T @ moments).chunk(3, 1)  # with respect to what ln p_u is linear in
        by_slab = slope - other_mean * on
        return (gamma * (first + 2 * mean * square),
                gamma * ((second - mean.square()) * square - 0.5 * of_rows),
                gamma * (1 - gamma) * (zeroth + mean * first + second * square + own * of_rows),
                precision * by_slab,
                0.5 * (precision * (curve - other_mean * (slope + by_slab)) - on),
                on + of_columns * other_logit.sigmoid())


__all__ = ["SPIKES", "PairwiseKL", "SpikeSlab", "bernoulli_kl", "cross_log_density", "disarm",
           "sample_spikes"]
