r"""The Gamma distribution for every shape, the smallest included: samples of ln z, and their exact pathwise gradients.

Below a concentration of k ≈ 0.1 a sample z ~ Gamma(k, 1) is often too small for a floating-point number: its median at
k = 10⁻³ is about 10⁻³⁰¹. Its logarithm is an ordinary number, so that is what is sampled and differentiated here:

    ln z = ln G + ln(U) / k,   G ~ Gamma(k + 1, 1) (Marsaglia & Tsang 2000),   U ~ Uniform(0, 1).

Its derivative with respect to k is derived in :mod:`sparse_vae.distributions.gamma_kernels`. Both are computed on the
CPU, in double precision, which not every device has; tensors of another device travel there and back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, ClassVar, NoReturn, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import register_kl
from torch.distributions.utils import broadcast_all

from sparse_vae.distributions.constraints import positive_and_finite

BLOCK = 1 << 15
"""Elements worked on at a time, in one thread: few enough for torch to use no threads of its own."""
TOLERANCES = {torch.float32: 1e-9, torch.float64: 1e-15}
"""Where series may be cut off, relative to their value, for a gradient of this dtype."""
Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")


def _left_to_python(function: Callable[Inputs, Result]) -> Callable[Inputs, Result]:
    """``torch.compiler.disable``, but applied under a compiler only: it imports the compiler, which takes seconds."""
    @wraps(function)
    def call(*args: Inputs.args, **named: Inputs.kwargs) -> Result:
        return (torch.compiler.disable(function) if torch.compiler.is_compiling() else function)(*args, **named)

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

    >>> _ = torch.manual_seed(0)
    >>> k = torch.tensor([1e-4, 5.0], requires_grad=True)
    >>> log_z = Gamma(k, torch.ones(2)).rsample_log()
    >>> log_z.sum().backward()
    >>> bool(log_z.isfinite().all()), bool((k.grad > 0).all())
    (True, True)
    """

    arg_constraints: ClassVar = {  # type: ignore[misc]  # no ClassVar in torch's
        "concentration": positive_and_finite, "rate": positive_and_finite}

    def __init__(self, concentration: Tensor | float, rate: Tensor | float, validate_args: bool | None = None):
        super().__init__(concentration, rate, validate_args=validate_args)
        _check_dtypes(concentration=self.concentration, rate=self.rate)

    def expand(self, batch_shape: Sequence[int], _instance: Gamma | None = None) -> Gamma:
        return super().expand(batch_shape, self._get_checked_instance(Gamma, _instance))

    def rsample(self, sample_shape: Sequence[int] = torch.Size(),
                generator: torch.Generator | None = None) -> Tensor:
        """Samples with their pathwise gradient, ``(*sample_shape, *batch_shape)``.

        As in torch, what is too small for the dtype becomes its smallest normal number; see :meth:`rsample_log`.
        """
        sample = self._standard_sample(sample_shape, False, generator) / self.rate
        sample.detach().clamp_(min=torch.finfo(sample.dtype).tiny)
        return sample

    def rsample_log(self, sample_shape: Sequence[int] = torch.Size(), *,
                    generator: torch.Generator | None = None) -> Tensor:
        """Samples of ln z with their pathwise gradient, ``(*sample_shape, *batch_shape)``; they do not underflow."""
        return self._standard_sample(sample_shape, True, generator) - self.rate.log()

    def _standard_sample(self, sample_shape: Sequence[int], in_logs: bool, generator: torch.Generator | None) -> Tensor:
        concentration = self.concentration.expand(self._extended_shape(torch.Size(sample_shape)))
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
    """(k, in logs?, generator) → (a sample of z or of ln z at rate 1, ln z in float64 on the CPU)."""

    @staticmethod
    def forward(concentration: Tensor, in_logs: bool, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        sample, log_sample = _standard_gamma(concentration, in_logs, generator)
        return sample.to(concentration.device), log_sample

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool, torch.Generator | None],
                      output: tuple[Tensor, Tensor]) -> None:
        concentration, ctx.in_logs, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(concentration, *output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        concentration, sample, log_sample = ctx.saved_tensors
        change = _SampleGradient.apply(concentration, log_sample, gradient).mul_(gradient)
        return change if ctx.in_logs else change.mul_(sample), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None, None], concentration: Tensor, in_logs: bool,
             generator: torch.Generator | None) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        if info.randomness != "different":
            raise RuntimeError(f"vmap over Gamma samples needs randomness='different'; got {info.randomness!r}")
        return _StandardSample.apply(concentration.movedim(in_dims[0], 0), in_logs, generator), (0, 0)


class _SampleGradient(torch.autograd.Function):
    """:func:`gamma_log_sample_grad` where the factor that awaits it is not 0, as a part of the graph that says why it
    has no derivative. A magnitude whose sign is 0, most of a sparse code, costs nothing here."""

    @staticmethod
    def forward(concentration: Tensor, log_sample: Tensor, factor: Tensor) -> Tensor:
        gradient = torch.empty(concentration.shape, dtype=concentration.dtype)
        k, log_sample, factor = (part.reshape(-1).cpu() for part in (concentration, log_sample, factor))
        if factor.count_nonzero() == len(k):
            _write_gradient(k, log_sample, gradient.view(-1))
        else:
            rows = factor.nonzero().squeeze(1)
            own_gradient = torch.empty(len(rows), dtype=concentration.dtype)
            # These two are six times as fast as indexing.
            _write_gradient(k.index_select(0, rows), log_sample.index_select(0, rows), own_gradient)
            gradient.zero_().view(-1).scatter_(0, rows, own_gradient)
        return gradient.to(concentration.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> NoReturn:
        raise RuntimeError("the gradient of a Gamma sample cannot be differentiated again: second derivatives with "
                           "respect to the concentration are not implemented")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        first = [part.movedim(dim, 0) for part, dim in zip(inputs, in_dims, strict=True)]
        return _SampleGradient.apply(*first), 0


def _in_blocks(function: Callable[[slice, int], None], size: int) -> None:
    """``function(rows, number)`` of each block, on as many threads as torch uses.

    The blocks are dealt out beforehand and this thread takes its share: to hand over each by itself costs as much as a
    second thread gains.
    """
    numbers = range(-(-size // BLOCK))
    n_threads = max(1, min(torch.get_num_threads(), len(numbers)))

    def work(share: range) -> None:
        for number in share:
            function(slice(number * BLOCK, (number + 1) * BLOCK), number)

    with ThreadPoolExecutor(n_threads) as threads:  # starts them as work comes
        others = threads.map(work, [numbers[first::n_threads] for first in range(1, n_threads)])
        work(numbers[::n_threads])
        list(others)


@_left_to_python
def _standard_gamma(concentration: Tensor, in_logs: bool, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Samples of z ~ Gamma(k, 1), or of ln z, and ln z in float64, both on the CPU.

    ln z is ln G − E/k with E = −ln U exponential, or directly ln G where all shapes of a block are 1 or more. A block
    has a seed of its own, so that the number of threads does not change the samples.
    """
    from sparse_vae.distributions import gamma_kernels  # here, since numba takes half a second to import

    sample = torch.empty(concentration.shape, dtype=concentration.dtype)
    log_sample = torch.empty(concentration.shape, dtype=torch.float64)
    k, flat, flat_log = concentration.detach().reshape(-1).cpu(), sample.view(-1), log_sample.view(-1)
    seeds = torch.randint(2**63 - 1, (-(-len(k) // BLOCK),), generator=generator,
                          device=generator.device if generator else "cpu").tolist()

    def fill(rows: slice, number: int) -> None:
        source, own, log_z = np.random.Generator(np.random.SFC64(seeds[number])), k[rows].double(), flat_log[rows]
        drop = torch.empty_like(own)
        gamma_kernels.standard_pieces(source, own.numpy(), log_z.numpy(), drop.numpy())
        log_z.log_().sub_(drop)
        flat[rows] = log_z if in_logs else log_z.exp()

    _in_blocks(fill, len(k))
    return sample, log_sample


@_left_to_python
def gamma_log_sample_grad(concentration: Tensor, log_sample: Tensor) -> Tensor:
    """∂ ln z/∂k of z ~ Gamma(k, 1) at a fixed quantile; always positive. For its derivation see
    :mod:`sparse_vae.distributions.gamma_kernels`.

    Args:
        concentration: k > 0, float32 or float64.
        log_sample: ln z, broadcastable with it; finite.

    Returns:
        The derivative, in the broadcast shape and the wider of the two dtypes. Relative error below 1e-12 in float64
        for k from 1e-5 to 1e4, if ``log_sample`` is float64 too: where ln z is rounded to float32, so is the result.
        Not differentiable itself.

    Raises:
        TypeError: another dtype.

    >>> gamma_log_sample_grad(torch.tensor([0.05]), torch.tensor([-24.616518], dtype=torch.float64))
    tensor([482.3735], dtype=torch.float64)
    """
    _check_dtypes(concentration=concentration, log_sample=log_sample)
    k, log_z = torch.broadcast_tensors(concentration.detach(), log_sample.detach())
    gradient = torch.empty(k.shape, dtype=torch.promote_types(k.dtype, log_z.dtype))
    _write_gradient(k.reshape(-1).cpu(), log_z.reshape(-1).cpu(), gradient.view(-1))
    return gradient.to(k.device)


def _write_gradient(k: Tensor, log_sample: Tensor, gradient: Tensor) -> None:
    """The gradient for vectors on the CPU, as precise as the dtype of ``gradient`` asks for."""
    from sparse_vae.distributions import gamma_kernels  # here, since numba takes half a second to import

    k, log_sample = k.detach(), log_sample.detach()  # that this is no part of a graph, other threads do not know

    def fill(rows: slice, _: int) -> None:
        own, log_z = k[rows].double(), log_sample[rows].double()
        found = torch.empty_like(own)
        gamma_kernels.log_sample_gradient(own.numpy(), log_z.numpy(), log_z.exp().numpy(), TOLERANCES[gradient.dtype],
                                          found.numpy())
        gradient[rows] = found

    _in_blocks(fill, len(k))
