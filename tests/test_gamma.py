"""The Gamma sampler: gradients against a reference of 40 digits, samples against theory, torch's manners."""

from __future__ import annotations

import math
from functools import partial

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import digamma, gammaincinv, gammaln, polygamma
from scipy.stats import kstest
from torch.autograd import grad
from torch.distributions import kl_divergence

from sparse_vae.distributions import Gamma, gamma_log_sample_grad
from sparse_vae.distributions.gamma import BLOCK
from sparse_vae.distributions.gamma_kernels import _logarithm, standard_gamma

SMALL_AND_LARGE = [1e-6, 1e-3, 0.02, 0.3, 0.9, 1.0, 2.5, 11.9, 12.1, 100.0]
QUANTILES = [1e-10, 1e-4, 0.03, 0.2, 0.45, 0.55, 0.8, 0.97, 1 - 1e-4, 1 - 1e-10]
CONCENTRATIONS = [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.99, 1.0, 2.3, 5.0, 9.7, 11.99, 12.0, 13.0, 30.0, 100.0, 1e3, 1e4]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensor(*values: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def quantile_log(k: float, u: float) -> float:
    """ln z at which P(k, z) is about u: for tiny z the first term of the series says it."""
    log_z = (math.log(u) + gammaln(k + 1)) / k
    return log_z if log_z < -40 else math.log(gammaincinv(k, u))


def reference_gradient(k: float, log_z: float) -> mpmath.mpf:
    """(1/k) Σ zⁿ/(k + 1)ₙ (ψ(k + 1 + n) − ln z) with 40 digits and as many terms as they need."""
    with mpmath.workdps(40):
        k, log_z = mpmath.mpf(k), mpmath.mpf(log_z)
        z, term, psi, n = mpmath.exp(log_z), mpmath.mpf(1), mpmath.digamma(k + 1), 0
        total = psi - log_z
        while n < z or term * abs(psi - log_z) > mpmath.mpf(10) ** -30 * abs(total):
            n += 1
            term, psi = term * z / (k + n), psi + 1 / (k + n)
            total += term * (psi - log_z)
        return total / k


# --- the gradient


@pytest.mark.heavy
@pytest.mark.parametrize("k", CONCENTRATIONS)
def test_the_gradient_against_the_reference(k):
    log_z = tensor(*(quantile_log(k, u) for u in QUANTILES))
    exact = [reference_gradient(k, value) for value in log_z.tolist()]
    found = gamma_log_sample_grad(tensor(k), log_z)
    assert max(abs(a / b - 1) for a, b in zip(found.tolist(), exact, strict=True)) < 1e-12


@pytest.mark.heavy
@pytest.mark.parametrize("k", CONCENTRATIONS[:-1])
def test_the_gradient_of_float32_against_the_reference(k):
    k = tensor(k, dtype=torch.float32)
    log_z = tensor(*(quantile_log(k.item(), u) for u in QUANTILES), dtype=torch.float32)
    found = gamma_log_sample_grad(k, log_z)
    assert found.dtype == torch.float32
    exact = [reference_gradient(k.item(), value) for value in log_z.tolist()]
    assert max(abs(a / b - 1) for a, b in zip(found.tolist(), exact, strict=True)) < 1e-6


def test_the_reference_is_the_derivative_of_the_quantile():
    """Of P(k, z) = u solved for ln z, by differences with 40 digits: the formula itself, checked."""
    with mpmath.workdps(40):
        def log_quantile(k, u):
            return mpmath.findroot(lambda y: mpmath.gammainc(k, 0, mpmath.exp(y), regularized=True) - u, mpmath.log(k))

        k, u, h = mpmath.mpf("0.7"), mpmath.mpf("0.6"), mpmath.mpf("1e-10")
        difference = (log_quantile(k + h, u) - log_quantile(k - h, u)) / (2 * h)
        assert abs(difference / reference_gradient(0.7, float(log_quantile(k, u))) - 1) < 1e-12


def test_the_gradient_where_z_underflows():
    found = gamma_log_sample_grad(tensor(1e-6, 0.5), tensor(-1e6, -800))
    assert found[0].item() == pytest.approx((digamma(1 + 1e-6) + 1e6) / 1e-6, rel=1e-12)
    assert found[1].item() == pytest.approx((digamma(1.5) + 800) / 0.5, rel=1e-12)
    assert (gamma_log_sample_grad(tensor(1e-3, 1, 1e4), tensor(5, 6, 10)) > 0).all()


@pytest.mark.parametrize("k", [0.5, 4.0, 12.0, 50.0, 1e4])
def test_the_gradient_at_z_equal_to_k(k):
    log_z = tensor(k).log()
    assert gamma_log_sample_grad(tensor(k), log_z).item() == pytest.approx(
        float(reference_gradient(k, log_z.item())), rel=1e-12)


def test_the_gradient_of_what_is_no_number_is_none():
    found = gamma_log_sample_grad(tensor(math.nan, math.inf, 0.0, -1.0, 0.5, 0.5, 2.0),
                                  tensor(0, 0, 0, 0, math.nan, -math.inf, 1))
    assert found.isfinite().tolist() == [False] * 6 + [True]


def test_logarithms_of_many_at_a_time():
    x = [1e-3, 0.7, 1.0, 2**0.5, math.nextafter(2**0.5, 2), 2.0, 11.3, 1e8, 1e300]
    assert [_logarithm(value) for value in x] == pytest.approx([math.log(value) for value in x], rel=2e-15, abs=1e-16)


def test_the_gradient_of_a_large_shape_beside_a_small_one():
    # Its series needs many more terms than that of the small one.
    log_z = tensor(math.log(11.9), math.log(0.15))
    found = gamma_log_sample_grad(tensor(11.9, 1e-3), log_z)
    exact = tensor(*(float(reference_gradient(k, z)) for k, z in zip([11.9, 1e-3], log_z.tolist(), strict=True)))
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=0)


def test_the_gradient_broadcasts_and_does_not_depend_on_what_else_is_there():
    k = torch.logspace(-4, 3, 50, dtype=torch.float64).unsqueeze(1)
    log_z = torch.linspace(-9, 7, BLOCK // 10, dtype=torch.float64)  # five blocks
    together = gamma_log_sample_grad(k, log_z)
    assert together.shape == (50, len(log_z))
    alone = torch.stack([gamma_log_sample_grad(row, log_z[::500]) for row in k])
    assert torch.allclose(together[:, ::500], alone, rtol=1e-12, atol=0)


# --- samples


@pytest.mark.parametrize("k", SMALL_AND_LARGE)
def test_samples_of_the_logarithm_have_its_distribution(k):
    log_z = Gamma(tensor(k), tensor(1)).rsample_log((20_000,), generator=seeded()).squeeze(1)

    def cdf(y):  # of ln z, from the series' first term where z underflows
        small = torch.as_tensor(y) < -600
        lower = torch.exp(torch.as_tensor(y) * k - gammaln(k + 1))
        return torch.where(small, lower, torch.special.gammainc(tensor(k), torch.as_tensor(y).exp())).numpy()

    assert kstest(log_z.numpy(), cdf).pvalue > 1e-3


@pytest.mark.parametrize("k", [1e-3, 0.05, 0.4, 3.0])
def test_samples_and_their_gradients_have_the_moments_of_theory(k):
    """E[ln z] = ψ(k), E[∂ ln z/∂k] = ψ′(k), E[∂z/∂k] = 1, each within five standard errors."""
    concentration = tensor(k).expand(200_000).clone().requires_grad_()
    log_z = Gamma(concentration, tensor(1)).rsample_log(generator=seeded())
    log_gradient, = grad(log_z.sum(), concentration)
    z_gradient = log_z.detach().exp() * log_gradient
    for found, value in ((log_z.detach(), digamma(k)), (log_gradient, polygamma(1, k)), (z_gradient, 1)):
        assert abs(found.mean() - value) < 5 * found.std() / len(found) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_are_those_of_the_logarithm_and_never_zero(dtype):
    concentration = tensor(0.01, 0.5, 5, dtype=dtype).requires_grad_()
    rate = tensor(1, 2, 0.5, dtype=dtype).requires_grad_()
    distribution = Gamma(concentration, rate)
    z, log_z = (draw((500,), generator=seeded()) for draw in (distribution.rsample, distribution.rsample_log))
    assert z.dtype == log_z.dtype == dtype
    tiny = torch.finfo(dtype).tiny
    assert (z >= tiny).all()
    assert torch.allclose(z, log_z.exp().clamp(min=tiny), rtol=1e-4)
    for weight in ([1, 0, 0], [0, 1, 1]):
        from_z = grad((z * tensor(*weight, dtype=dtype)).sum(), (concentration, rate), retain_graph=True)
        from_log = grad((log_z.exp() * tensor(*weight, dtype=dtype)).sum(), (concentration, rate), retain_graph=True)
        assert all(torch.allclose(a, b, rtol=1e-3) for a, b in zip(from_z, from_log, strict=True))


def test_the_gradient_with_respect_to_the_rate_by_hand():
    rate = tensor(2.0).requires_grad_()
    distribution = Gamma(tensor(0.3), rate)
    assert grad(distribution.rsample_log(), rate)[0].item() == pytest.approx(-0.5)  # ∂(ln g − ln r)/∂r
    z = distribution.rsample()
    assert grad(z, rate)[0].item() == pytest.approx(-z.item() / 2)


@pytest.mark.parametrize("k", [1.0, 1.0001, 1.7, 40.0])
def test_samples_are_those_of_numpy(k):
    shapes, found = np.full(5000, k), np.empty(5000)
    standard_gamma(np.random.Generator(np.random.SFC64(7)), shapes, found)
    assert np.allclose(found, np.random.Generator(np.random.SFC64(7)).standard_gamma(shapes), rtol=1e-12)


def test_a_generator_and_the_global_seed_repeat_samples():
    distribution = Gamma(tensor(0.2, 3), tensor(1, 1))
    assert torch.equal(distribution.rsample((9,), generator=seeded(3)), distribution.rsample((9,), generator=seeded(3)))
    torch.manual_seed(1)
    first = distribution.sample((9,))
    torch.manual_seed(1)
    assert torch.equal(first, distribution.sample((9,)))
    assert not torch.equal(first, distribution.sample((9,)))


def test_the_number_of_threads_does_not_change_samples_or_gradients():
    concentration = torch.linspace(0.1, 3, 2 * BLOCK + 7).requires_grad_()
    distribution = Gamma(concentration, torch.ones(1))
    samples, gradients = [], []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        sample = distribution.rsample_log(generator=seeded())
        samples.append(sample.detach())
        gradients.append(grad(sample.sum(), concentration)[0])
    torch.set_num_threads(before)
    assert torch.equal(*samples)
    assert torch.equal(*gradients)
    assert torch.allclose(gradients[0], gamma_log_sample_grad(concentration, samples[0]), rtol=1e-5)
    assert kstest(distribution.cdf(samples[0].exp()).detach().numpy(), "uniform").pvalue > 1e-3


# --- densities, quantiles, divergences


def test_densities_from_logarithms():
    distribution = Gamma(tensor(0.5, 1e-3), tensor(2, 1))
    z = tensor(0.7, 1e-9)
    assert torch.allclose(distribution.log_prob_from_log(z.log()), distribution.log_prob(z), rtol=1e-12)
    assert distribution.log_prob_from_log(tensor(-2000, -2000)).isfinite().all()


@pytest.mark.parametrize("k", [1e-3, 0.3, 4.0, 200.0])
def test_quantiles_undo_the_distribution_function(k):
    distribution = Gamma(tensor(k), tensor(3))
    u = tensor(0.8, 0.95, 0.999)
    assert torch.allclose(distribution.cdf(distribution.icdf(u)), u, rtol=1e-10)
    with pytest.raises(ValueError, match=r"probabilities from 0 to 1; got -0\.5"):
        distribution.icdf(tensor(-0.5))


def test_the_divergence_is_what_samples_say():
    p, q = Gamma(tensor(0.05, 0.7, 4), tensor(1, 2, 0.5)), Gamma(tensor(0.3, 0.3, 0.3), tensor(1, 1, 1))
    log_z = p.rsample_log((400_000,), generator=seeded())
    ratio = p.log_prob_from_log(log_z) - q.log_prob_from_log(log_z)
    assert torch.all((ratio.mean(0) - kl_divergence(p, q)).abs() < 5 * ratio.std(0) / len(ratio) ** 0.5)
    assert torch.equal(kl_divergence(p, p), torch.zeros(3, dtype=torch.float64))


# --- torch's manners


def test_it_stands_in_for_torch():
    concentration, rate = tensor(0.5, 2).unsqueeze(1), tensor(1, 2, 3)
    ours, theirs = Gamma(concentration, rate), torch.distributions.Gamma(concentration, rate)
    assert isinstance(ours, torch.distributions.Gamma)
    assert ours.batch_shape == (2, 3)
    assert ours.rsample((4,)).shape == ours.rsample_log((4,)).shape == (4, 2, 3)
    wider = ours.expand((5, 2, 3))
    assert type(wider) is Gamma
    assert wider.rsample_log().shape == (5, 2, 3)
    z = theirs.sample()
    for name in ("mean", "variance", "mode"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert torch.equal(ours.log_prob(z), theirs.log_prob(z))
    assert torch.equal(ours.cdf(z), theirs.cdf(z))
    assert torch.equal(ours.entropy(), theirs.entropy())
    assert Gamma(2.0, 1.0).rsample().shape == ()
    assert Gamma(tensor().requires_grad_(), tensor(1)).rsample_log().shape == (0,)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("parameter", ["concentration", "rate"])
def test_dtypes_that_cannot_be_sampled_are_refused(parameter, dtype):
    with pytest.raises(TypeError, match=f"{parameter} must be float32 or float64; got {str(dtype)[6:]}"):
        Gamma(**{"concentration": tensor(1), "rate": tensor(1), parameter: torch.ones(1, dtype=dtype)})
    with pytest.raises(TypeError, match="concentration must be float32 or float64"):
        gamma_log_sample_grad(torch.ones(1, dtype=dtype), tensor(0))


def test_a_diverged_model_gets_nan_and_an_answer():
    """Without validation, as models use it, a concentration that is not a number must not stop the sampler."""
    k = tensor(math.nan, math.inf, 0.5).requires_grad_()
    log_z = Gamma(k, torch.ones_like(k), validate_args=False).rsample_log()
    assert log_z.isfinite().tolist() == [False, False, True]
    assert grad(log_z[0], k)[0].isnan().any()


@pytest.mark.parametrize("draw", ["rsample", "rsample_log"])
def test_second_derivatives_are_refused(draw):
    concentration = tensor(0.5).requires_grad_()
    first, = grad(getattr(Gamma(concentration, tensor(1)), draw)().sum(), concentration, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives with respect to the concentration are not implemented"):
        grad(first, concentration)


def test_it_works_under_vmap():
    def gradient(k):
        return torch.func.grad(lambda k: Gamma(k, torch.ones_like(k), validate_args=False).rsample_log().sum())(k)

    concentration = torch.full((300, 7), 0.5, dtype=torch.float64)
    found = torch.func.vmap(gradient, randomness="different")(concentration)
    assert found.shape == (300, 7)
    assert len(found.unique()) == found.numel()
    assert found.mean().item() == pytest.approx(polygamma(1, 0.5), rel=0.15)
    with pytest.raises(RuntimeError, match="randomness='different'; got 'same'"):
        torch.func.vmap(gradient, randomness="same")(concentration)


@pytest.fixture
def compiler():
    """``torch.compile``, which turns the validation of all distributions off for good: it is turned on again."""
    yield torch.compile
    torch.distributions.Distribution.set_default_validate_args(True)


@pytest.mark.heavy
def test_it_works_under_compile(compiler):
    @partial(compiler, backend="eager")  # no compiler on every machine; the graph is captured all the same
    def objective(k):
        return (2 * Gamma(k, torch.ones_like(k), validate_args=False).rsample_log()).sum()

    k = tensor(0.3, 3).requires_grad_()
    torch.manual_seed(0)
    compiled, = grad(objective(k), k)
    torch.manual_seed(0)
    plain, = grad((2 * Gamma(k, tensor(1)).rsample_log()).sum(), k)
    assert torch.allclose(compiled, plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_it_works_on_cuda():
    k = torch.logspace(-5, 4, 200, dtype=torch.float64)
    log_z = torch.stack([tensor(*(quantile_log(value, u) for u in QUANTILES)) for value in k.tolist()])
    on_cuda = gamma_log_sample_grad(k.cuda().unsqueeze(1), log_z.cuda())
    assert torch.allclose(on_cuda.cpu(), gamma_log_sample_grad(k.unsqueeze(1), log_z), rtol=1e-11)
    assert Gamma(k.cuda(), k.cuda()).rsample_log().isfinite().all()
