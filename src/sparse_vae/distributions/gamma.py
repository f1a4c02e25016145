r"""The Gamma distribution for every shape, the smallest included: samples of ln z, and their exact pathwise gradients.

Below a concentration of k ≈ 0.1 a sample z ~ Gamma(k, 1) is often too small for a floating-point number: its median at
k = 10⁻³ is about 10⁻³⁰¹. Its logarithm is an ordinary number, so that is what is sampled and differentiated here:

    ln z = ln G + ln(U) / k,   G ~ Gamma(k + 1, 1) (Marsaglia & Tsang 2000),   U ~ Uniform(0, 1).

**The gradient.** By implicit reparameterization (Figurnov, Mohamed & Mnih 2018) a sample moves with k such that its
quantile u = P(k, z), the regularised lower incomplete gamma function, stays:

    g(k, z) := ∂ ln z/∂k |_u = −(∂P(k, z)/∂k) / (z p(z)),   z p(z) = zᵏ e⁻ᶻ / Γ(k).

Three expressions of it, each where it neither cancels nor converges slowly.

*Lower region*, z ≤ k, and z ≤ 4 for a smaller k. From P = zᵏ e⁻ᶻ Σ zⁿ / Γ(k + 1 + n), term by term,

    g = (1/k) Σₙ zⁿ / (k+1)ₙ · (ψ(k + 1 + n) − ln z),

where every term is positive up to z ≈ k + ½, and little cancels up to 4; as z → 0 it is (ψ(k + 1) − ln z)/k. It is
summed from its end by Horner's rule, ψ falling by 1/(k + n) from step to step.

*Upper region*, above that. With Γ(k, z) = zᵏ e⁻ᶻ W, the complement Q = 1 − P is W z p(z), hence

    g = W (ln z − ψ(k)) + ∂W/∂k,   1/W = z + 1 − k − 1(1 − k)/(z + 3 − k − 2(2 − k)/(z + 5 − k − …)),

Legendre's continued fraction (DLMF 8.9.2), evaluated from its end with its k-derivative carried along.

*Large k, z of its order.* Temme's uniform expansion (1979; DLMF 8.12), with L = ln(z/k), μ = eᴸ − 1, ½η² = μ − L:

    Q = ½ erfc(η √(k/2)) + exp(−½kη²)/√(2πk) · S,   S = Σᵢ k⁻ⁱ Cᵢ(η).

Differentiated, the exponentials cancel against z p(z) = √(k/2π) exp(−½kη²) / Γ*(k):

    g = (Γ*(k)/k) [ μ/η − η/2 + (L − 1/(2k)) S − (1/k) Σᵢ i k⁻ⁱ Cᵢ − (μ/(kη)) Σᵢ k⁻ⁱ Cᵢ′(η) ].

All of it is float64, whatever the tensors are; relative errors stay below 10⁻¹² for k from 10⁻⁵ to 10⁴.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from fractions import Fraction
from functools import cache, wraps
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import register_kl
from torch.distributions.utils import broadcast_all

from sparse_vae.distributions.constraints import positive_and_finite

BLOCK = 1 << 17
"""Elements worked on at a time: the intermediate results of a block stay in the processor's cache."""
SAMPLED = 1 << 15
"""Elements sampled at a time: few enough for torch to work on them without threads of its own."""
TOLERANCES = {torch.float32: 1e-9, torch.float64: 1e-15}
"""Where series may be cut off, relative to their value, for a gradient of this dtype."""
TEMME_FROM, TEMME_WIDTH = 12.0, 1.1
"""Temme's expansion is used from this k on, for |ln(z/k)| below the width."""
LOWEST_TAIL = 4.0
"""The upper region starts at z = k, but not below this."""


def _left_to_python(function: Callable) -> Callable:
    """``torch.compiler.disable``, but applied under a compiler only: it imports the compiler, which takes seconds."""
    @wraps(function)
    def call(*args):
        return (torch.compiler.disable(function) if torch.compiler.is_compiling() else function)(*args)

    return call


def _check_dtypes(**parameters: Tensor) -> None:
    for name, parameter in parameters.items():
        if parameter.dtype not in TOLERANCES:
            raise TypeError(f"{name} must be float32 or float64; got {str(parameter.dtype).removeprefix('torch.')}")


class Gamma(torch.distributions.Gamma):
    """Gamma(concentration k, rate): torch's, with samples and gradients that hold for every k from 1e-6 on.

    Everything but the samples, :meth:`icdf` and what works with ln z is torch's own. Works under ``torch.func.vmap``
    with ``randomness="different"``, and under ``torch.compile`` with a break of the graph at the sampler. The gradient
    of a sample cannot be differentiated again: the attempt is a ``RuntimeError``.

    Args:
        concentration: k > 0 and finite, float32 or float64.
        rate: > 0 and finite, broadcastable with it.

    Raises:
        ValueError: a parameter that is not positive and finite (with ``validate_args``, the default).
        TypeError: a parameter that is neither float32 nor float64.
    """

    arg_constraints: ClassVar = {"concentration": positive_and_finite, "rate": positive_and_finite}

    def __init__(self, concentration: Tensor | float, rate: Tensor | float, validate_args: bool | None = None):
        super().__init__(concentration, rate, validate_args=validate_args)
        _check_dtypes(concentration=self.concentration, rate=self.rate)

    def expand(self, batch_shape: torch.Size, _instance=None) -> Gamma:
        return super().expand(batch_shape, self._get_checked_instance(Gamma, _instance))

    def rsample(self, sample_shape: torch.Size = torch.Size(), *,  # noqa: B008 (as in torch)
                generator: torch.Generator | None = None) -> Tensor:
        """Samples with their pathwise gradient, ``(*sample_shape, *batch_shape)``.

        As in torch, what is too small for the dtype becomes its smallest normal number; see :meth:`rsample_log`.
        """
        sample = self._standard_sample(sample_shape, False, generator) / self.rate
        sample.detach().clamp_(min=torch.finfo(sample.dtype).tiny)
        return sample

    def rsample_log(self, sample_shape: torch.Size = torch.Size(), *,  # noqa: B008
                    generator: torch.Generator | None = None) -> Tensor:
        """Samples of ln z with their pathwise gradient, ``(*sample_shape, *batch_shape)``; they do not underflow."""
        return self._standard_sample(sample_shape, True, generator) - self.rate.log()

    def _standard_sample(self, sample_shape: torch.Size, in_logs: bool, generator: torch.Generator | None) -> Tensor:
        concentration = self.concentration.expand(self._extended_shape(sample_shape))
        return _StandardSample.apply(concentration, in_logs, generator)[0]

    def log_prob_from_log(self, log_value: Tensor) -> Tensor:
        """ln p(z) in nats, the density of z itself, from ln z: finite also where z is 0 in floating point."""
        log_value, concentration, rate = broadcast_all(log_value, self.concentration, self.rate)
        return (concentration * rate.log() + (concentration - 1) * log_value - rate * log_value.exp()
                - torch.lgamma(concentration))

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile z with P(Z ≤ z) = ``value`` in [0, 1]; computed in float64 on the CPU, not differentiable.

        Raises:
            ValueError: a value outside [0, 1].
        """
        if not ((value >= 0) & (value <= 1)).all():
            raise ValueError(f"icdf needs probabilities from 0 to 1; got {value.min()} … {value.max()}")
        from scipy.special import gammaincinv  # imported here: it takes half a second

        value, concentration, rate = broadcast_all(value, self.concentration, self.rate)
        quantile = gammaincinv(concentration.detach().cpu().double(), value.detach().cpu().double())
        return torch.as_tensor(quantile).to(concentration) / rate.detach()


@register_kl(Gamma, Gamma)
def _gamma_kl(p: Gamma, q: Gamma) -> Tensor:
    """(k − k₀) ψ(k) − ln Γ(k) + ln Γ(k₀) + k₀ ln(r/r₀) + k (r₀/r − 1), nats, of each element."""
    return ((p.concentration - q.concentration) * torch.digamma(p.concentration)
            - torch.lgamma(p.concentration) + torch.lgamma(q.concentration)
            + q.concentration * (p.rate.log() - q.rate.log()) + p.concentration * (q.rate / p.rate - 1))


class _StandardSample(torch.autograd.Function):
    """(k, in logs?, generator) → (a sample of z or of ln z at rate 1, ln z in float64)."""

    @staticmethod
    def forward(concentration: Tensor, in_logs: bool, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        log_sample = _log_standard_gamma(concentration, generator)
        sample = log_sample.clone() if in_logs else log_sample.exp()
        return sample.to(concentration.dtype), log_sample

    @staticmethod
    def setup_context(ctx, inputs, output):
        concentration, ctx.in_logs, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(concentration, *output)

    @staticmethod
    def backward(ctx, gradient: Tensor, _) -> tuple[Tensor, None, None]:
        concentration, sample, log_sample = ctx.saved_tensors
        change = _SampleGradient.apply(concentration, log_sample, gradient).mul_(gradient)
        return change if ctx.in_logs else change.mul_(sample), None, None

    @staticmethod
    def vmap(info, in_dims, concentration: Tensor, in_logs: bool, generator: torch.Generator | None):
        if info.randomness != "different":
            raise RuntimeError(f"vmap over Gamma samples needs randomness='different'; got {info.randomness!r}")
        return _StandardSample.apply(concentration.movedim(in_dims[0], 0), in_logs, generator), (0, 0)


class _SampleGradient(torch.autograd.Function):
    """:func:`gamma_log_sample_grad` where the factor that awaits it is not 0, as a part of the graph that says why it
    has no derivative. A magnitude whose sign is 0, most of a sparse code, costs nothing here."""

    @staticmethod
    def forward(concentration: Tensor, log_sample: Tensor, factor: Tensor) -> Tensor:
        if factor.count_nonzero() == factor.numel():
            return _log_sample_gradient(concentration, log_sample, concentration.dtype)
        rows = factor.reshape(-1).nonzero().squeeze(1)
        own = (part.reshape(-1).index_select(0, rows) for part in (concentration, log_sample))
        gradient = torch.zeros(concentration.shape, dtype=concentration.dtype, device=concentration.device)
        gradient.view(-1).scatter_(0, rows, _log_sample_gradient(*own, concentration.dtype))
        return gradient

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient: Tensor):
        raise RuntimeError("the gradient of a Gamma sample cannot be differentiated again: second derivatives with "
                           "respect to the concentration are not implemented")

    @staticmethod
    def vmap(info, in_dims, *inputs: Tensor):
        first = [part.movedim(dim, 0) for part, dim in zip(inputs, in_dims, strict=True)]
        return _SampleGradient.apply(*first), 0


@_left_to_python
def _log_standard_gamma(concentration: Tensor, generator: torch.Generator | None) -> Tensor:
    """Samples of ln z, z ~ Gamma(k, 1), float64."""
    k = concentration.detach().reshape(-1)
    log_sample = _log_samples_of_numpy(k, generator) if k.is_cpu else _log_samples(
        k, lambda shape: torch._standard_gamma(shape, generator),
        lambda n: torch.empty(n, dtype=torch.float64, device=k.device).exponential_(generator=generator))
    return log_sample.view(concentration.shape)


def _log_samples_of_numpy(k: Tensor, generator: torch.Generator | None) -> Tensor:
    """On a CPU NumPy takes half of torch's time, and it can use torch's threads, a block on each. A block has a seed
    of its own from the generator, so that the number of threads does not change the samples."""
    log_sample = torch.empty(len(k), dtype=torch.float64)

    def fill(start: int, seed: int) -> None:
        rows, source = slice(start, start + SAMPLED), np.random.Generator(np.random.SFC64(seed))
        log_sample[rows] = _log_samples(k[rows], lambda shape: torch.from_numpy(source.standard_gamma(shape.numpy())),
                                        lambda n: torch.from_numpy(source.standard_exponential(n)))

    starts = range(0, len(k), SAMPLED)
    seeds = torch.randint(2**63 - 1, (len(starts),), generator=generator).tolist()
    n_threads = min(torch.get_num_threads(), len(starts))
    with ThreadPoolExecutor(n_threads) if n_threads > 1 else nullcontext() as threads:
        list((threads.map if threads else map)(fill, starts, seeds))
    return log_sample


def _log_samples(k: Tensor, gammas: Callable[[Tensor], Tensor], exponentials: Callable[[int], Tensor]) -> Tensor:
    """ln z of a vector of shapes: ln G − E/k with E = −ln U exponential; where all are 1 or more, directly."""
    k = k.double()
    if k.min() >= 1:
        return gammas(k).log_()
    return gammas(k + 1).log_().sub_(exponentials(len(k)).div_(k))


@_left_to_python
def gamma_log_sample_grad(concentration: Tensor, log_sample: Tensor) -> Tensor:
    """∂ ln z/∂k of z ~ Gamma(k, 1) at a fixed quantile; always positive. See the module for its derivation.

    Args:
        concentration: k > 0, float32 or float64.
        log_sample: ln z, broadcastable with it; finite.

    Returns:
        The derivative, in the broadcast shape and the wider of the two dtypes. Relative error below 1e-12 in float64
        for k from 1e-5 to 1e4, if ``log_sample`` is float64 too: where ln z is rounded to float32, so is the result.
        Not differentiable itself.

    Raises:
        TypeError: another dtype.
    """
    _check_dtypes(concentration=concentration, log_sample=log_sample)
    concentration, log_sample = torch.broadcast_tensors(concentration.detach(), log_sample.detach())
    return _log_sample_gradient(concentration, log_sample, torch.promote_types(concentration.dtype, log_sample.dtype))


def _log_sample_gradient(concentration: Tensor, log_sample: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient for tensors of one shape, block by block, as precise as ``dtype`` asks for."""
    gradient = torch.empty(concentration.shape, dtype=dtype, device=concentration.device)
    flat, concentration, log_sample = gradient.view(-1), concentration.reshape(-1), log_sample.reshape(-1)
    tolerance = TOLERANCES[dtype]
    for start in range(0, len(flat), BLOCK):
        rows = slice(start, start + BLOCK)
        flat[rows] = _block_gradient(concentration[rows].double(), log_sample[rows].double(), tolerance)
    return gradient


def _block_gradient(k: Tensor, log_z: Tensor, tolerance: float) -> Tensor:
    """The gradient for float64 vectors: each element by the formula of its region."""
    z = log_z.exp()
    upper = z > k.clamp(min=LOWEST_TAIL)
    small = z < 0.1 * (k + 1)
    regions = [(_lower_series, small), (_lower_series, ~(small | upper)), (_upper_fraction, upper)]
    if k.max() >= TEMME_FROM:
        large = (k >= TEMME_FROM) & ((log_z - k.log()).abs() < TEMME_WIDTH)
        regions = [(formula, mask & ~large) for formula, mask in regions] + [(_uniform_expansion, large)]
    gradient = torch.full_like(k, math.nan)
    for formula, mask in regions:
        rows = mask.nonzero().squeeze(1)
        if len(rows):
            # These two are six times as fast as indexing.
            own = (part.index_select(0, rows) for part in (k, log_z, z))
            gradient.scatter_(0, rows, formula(*own, tolerance))
    return gradient


def _lower_series(k: Tensor, log_z: Tensor, z: Tensor, tolerance: float) -> Tensor:
    """(1/k) Σ zⁿ/(k + 1)ₙ (ψ(k + 1 + n) − ln z) by Horner's rule, ψ falling by 1/(k + n) from step to step."""
    n = _series_terms(k.min().item(), (z / (k + 1)).max().item(), tolerance)
    weight = _digamma_of_large(k + (n + 1)).sub_(log_z)
    total, inverse = weight.clone(), torch.empty_like(k)
    for i in range(n, 0, -1):
        torch.add(k, i, out=inverse).reciprocal_()
        weight.sub_(inverse)
        total.mul_(z).mul_(inverse).add_(weight)
    return total.div_(k)


def _digamma_of_large(x: Tensor) -> Tensor:
    """ψ(x) for x ≥ 10 by its asymptotic series."""
    inverse = x.reciprocal()
    tail = _polynomial(inverse.square(), [1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12])
    return x.log().sub_(tail.mul_(inverse).add_(0.5).mul_(inverse))


def _series_terms(smallest_k: float, largest_ratio: float, tolerance: float) -> int:
    """How many terms zⁿ/(k+1)ₙ it takes to fall below the tolerance, for z/(k + 1) up to a ratio; at least 9."""
    term, n = 1.0, 0
    while term > tolerance or n < 9:
        n += 1
        term *= largest_ratio * (smallest_k + 1) / (smallest_k + n)
    return n


def _upper_fraction(k: Tensor, log_z: Tensor, z: Tensor, tolerance: float) -> Tensor:
    """W (ln z − ψ(k)) + ∂W/∂k by Legendre's continued fraction 1/W, from its end."""
    excess = z - k
    # Found by comparison with a reference of 60 digits: the error falls as exp(−4 √(steps · z)).
    needed = (math.log(tolerance) / 4) ** 2
    steps = math.ceil(needed / z.min().item() + min(k.max().item(), TEMME_FROM) / 3) + 3
    value, derivative = excess + (2 * steps + 1), torch.full_like(k, -1.0)
    inverse, product = torch.empty_like(k), torch.empty_like(k)
    for n in range(steps, 0, -1):
        torch.reciprocal(value, out=inverse)
        torch.mul(k, -n, out=product).add_(n * n).mul_(inverse)  # n (n − k) / value
        derivative.mul_(product).add_(n).mul_(inverse).sub_(1)
        torch.sub(excess, product, out=value).add_(2 * n - 1)
    survival = value.reciprocal()
    return survival * (log_z - torch.digamma(k + 1) + 1 / k - derivative * survival)


def _uniform_expansion(k: Tensor, log_z: Tensor, z: Tensor, tolerance: float) -> Tensor:
    """Temme's expansion, differentiated; for k ≥ 12 and |ln z/k| < 1.1."""
    log_ratio = log_z - k.log()
    # η/L and μ/η by their series in L, so that they have a value at L = 0.
    slope_of_eta = _polynomial(log_ratio, [2 / math.factorial(n + 2) for n in range(22)]).sqrt()
    eta = log_ratio * slope_of_eta
    mu_by_eta = _polynomial(log_ratio, [1 / math.factorial(n + 1) for n in range(22)]) / slope_of_eta
    inverse = 1 / k
    coefficients = _temme_coefficients()
    smallest, widest = k.min().item(), eta.abs().max().item()
    orders = next((order for order in range(1, TEMME_ORDERS) if smallest**-order < tolerance / 10), TEMME_ORDERS)
    correction, weighted, slope = torch.zeros_like(k), torch.zeros_like(k), torch.zeros_like(k)
    for order in reversed(range(orders)):
        # Later orders matter less and need fewer terms; a term's slope is the larger part of it.
        terms = coefficients[order]
        used = next((n for n in range(len(terms), 1, -1)
                     if abs(terms[n - 1]) * n * widest ** (n - 2) * smallest**-order > tolerance / 10), 1)
        value, change = _polynomial_and_slope(eta, terms[:used])
        weighted = inverse * weighted + order * value
        correction = inverse * correction + value
        slope = inverse * slope + change
    stirling = _polynomial(inverse, _stirling_coefficients())
    return stirling * inverse * (mu_by_eta - eta / 2 + (log_ratio - inverse / 2) * correction
                                 - inverse * weighted - inverse * mu_by_eta * slope)


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    """Σ cₙ xⁿ by Horner's rule."""
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value.mul_(x).add_(coefficient)
    return value


def _polynomial_and_slope(x: Tensor, coefficients: list[float]) -> tuple[Tensor, Tensor]:
    """Σ cₙ xⁿ and its derivative."""
    value, slope = torch.zeros_like(x), torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        slope.mul_(x).add_(value)
        value.mul_(x).add_(coefficient)
    return value, slope


TEMME_ORDERS, TEMME_TERMS = 12, 40


@cache
def _temme_series() -> list[list[Fraction]]:
    """Taylor coefficients in η of C₀, C₁, …, by the recurrences of DLMF 8.12.10–12."""
    length = TEMME_TERMS + 2 * TEMME_ORDERS + 2
    alpha = [Fraction(0), Fraction(1), Fraction(1, 3)]  # μ = Σ αₙ ηⁿ
    for n in range(3, length + 2):
        alpha.append((alpha[n - 1] - sum(j * alpha[j] * alpha[n - j + 1] for j in range(2, n))) / (n + 1))
    first = [Fraction(-1, 3), *((n + 2) * alpha[n + 2] for n in range(1, length))]
    series = [first]
    for _ in range(1, TEMME_ORDERS):
        last = series[-1]
        series.append([(n + 2) * last[n + 2] - last[1] * first[n] for n in range(len(last) - 2)])
    return series


@cache
def _temme_coefficients() -> list[list[float]]:
    return [[float(value) for value in row[:TEMME_TERMS]] for row in _temme_series()]


@cache
def _stirling_coefficients() -> list[float]:
    """gᵢ of Γ*(k) = Γ(k) (k/2π)^½ (e/k)ᵏ ~ Σ gᵢ k⁻ⁱ: what keeps the Cᵢ finite at η = 0."""
    return [1.0, *(float((-1) ** order * row[1]) for order, row in enumerate(_temme_series()))]
