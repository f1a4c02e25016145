r"""A sign that may be absent: the categorical distribution over {−1, 0, +1}, with relaxed samples.

With logits l and Gumbel noise g, argmax(l + g) is an exact sample (Gumbel 1954); the Gumbel-softmax
y = softmax((l + g)/τ) is a relaxed one, differentiable in l (Jang, Gu & Poole 2017; Maddison, Mnih & Teh 2017). The
sign is then y₊ − y₋; straight-through, it is the exact sample's with the relaxed one's derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl
from torch.distributions.utils import lazy_property

from sparse_vae.checks import check_number
from sparse_vae.distributions.constraints import finite


class Ternary(Distribution):
    """P(δ = −1), P(δ = 0), P(δ = +1) in proportion to exp of three logits.

    Args:
        logits: ``(*batch_shape, 3)``, in the order of −1, 0, +1; finite.

    Raises:
        ValueError: logits that are not finite or not three (with ``validate_args``, the default).

    >>> Ternary(torch.zeros(3)).probs
    tensor([0.3333, 0.3333, 0.3333])
    >>> Ternary(torch.tensor([-50.0, 0.0, 50.0])).sample((2,))
    tensor([1., 1.])
    """

    arg_constraints: ClassVar = {"logits": constraints.independent(finite, 1)}
    support = constraints.integer_interval(-1, 1)
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        if logits.shape[-1:] != (3,):
            raise ValueError(f"logits must be (…, 3), for −1, 0 and +1; got shape {tuple(logits.shape)}")
        self.logits = logits
        super().__init__(logits.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Ternary | None = None) -> Ternary:
        return Ternary(self.logits.expand(*batch_shape, 3), validate_args=self._validate_args)

    @lazy_property
    def _log_probs(self) -> Tensor:
        """ln P(−1), ln P(0), ln P(+1), ``(3, *batch_shape)``: over a short last axis a softmax is slow."""
        return self.logits.movedim(-1, 0).log_softmax(0)

    @property
    def probs(self) -> Tensor:
        """P(−1), P(0), P(+1), ``(*batch_shape, 3)``."""
        return self._log_probs.exp().movedim(0, -1)

    @property
    def mean(self) -> Tensor:
        """E[δ] = P(+1) − P(−1)."""
        return self._log_probs[2].exp() - self._log_probs[0].exp()

    @property
    def presence(self) -> Tensor:
        """P(δ ≠ 0) = E[δ²]."""
        return self._log_probs[2].exp() + self._log_probs[0].exp()

    @property
    def variance(self) -> Tensor:
        return self.presence - self.mean.square()

    def sample(self, sample_shape: Sequence[int] = torch.Size(), *,
               generator: torch.Generator | None = None) -> Tensor:
        """Exact signs −1, 0, +1, ``(*sample_shape, *batch_shape)``."""
        with torch.no_grad():
            return self._exact(self._perturbed(sample_shape, generator))

    def rsample(self, sample_shape: Sequence[int] = torch.Size(), *, temperature: float = 1.0,
                straight_through: bool = True, generator: torch.Generator | None = None) -> Tensor:
        """Signs that are differentiable in the logits, ``(*sample_shape, *batch_shape)``.

        Args:
            temperature: τ > 0 of the relaxation; a smaller one has less bias and more variance in its gradient.
            straight_through: exact signs with the relaxed ones' derivative; otherwise relaxed signs in (−1, 1).
            generator: source of randomness.

        Raises:
            SettingError: a temperature that is not above 0.
        """
        check_number("temperature", temperature, above=0)
        perturbed = self._perturbed(sample_shape, generator)
        weights = (perturbed / temperature).softmax(0)
        relaxed = weights[2] - weights[0]
        # In this order, so that the value is the exact sign to the last digit.
        return self._exact(perturbed) + (relaxed - relaxed.detach()) if straight_through else relaxed

    def log_prob(self, value: Tensor) -> Tensor:
        """ln P(δ = ``value``), nats."""
        if self._validate_args:
            self._validate_sample(value)
        negative, zero, positive = self._log_probs
        return torch.where(value == 0, zero, torch.where(value > 0, positive, negative))

    def entropy(self) -> Tensor:
        """Nats."""
        return -(self._log_probs.exp() * self._log_probs).sum(0)

    def _perturbed(self, sample_shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        """Logits plus Gumbel noise, ``(3, *sample_shape, *batch_shape)``."""
        shape = torch.Size((3, *sample_shape, *self.batch_shape))
        uniform = torch.empty(shape, dtype=self.logits.dtype, device=self.logits.device).uniform_(generator=generator)
        smallest = torch.finfo(uniform.dtype).tiny  # a draw may be 0, and its logarithm no number
        exponential = uniform.neg_().log1p_().neg_().clamp_(min=smallest)
        logits = self.logits.movedim(-1, 0).reshape(3, *[1] * len(sample_shape), *self.batch_shape)
        return logits - exponential.log_()

    @staticmethod
    def _exact(perturbed: Tensor) -> Tensor:
        """The choice with the largest value, as −1, 0 or 1."""
        negative, zero, positive = perturbed.detach()
        is_positive = (positive > zero) & (positive > negative)
        return is_positive.to(perturbed.dtype) - ((negative > zero) & ~is_positive).to(perturbed.dtype)


@register_kl(Ternary, Ternary)
def _ternary_kl(p: Ternary, q: Ternary) -> Tensor:
    """Σ π ln(π/π₀), nats, ``(*batch_shape)``."""
    negative, zero, positive = (log_p.exp() * (log_p - log_q)
                                for log_p, log_q in zip(p._log_probs, q._log_probs, strict=True))
    return negative + zero + positive
