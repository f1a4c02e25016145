"""Likelihoods and divergences against torch.distributions, in float64, and against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from sparse_vae.checks import SettingError
from sparse_vae.distributions import bernoulli_nll, gaussian_nll, standard_normal_kl


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("shape", [(12,), (1, 4, 3)])
def test_the_bernoulli_likelihood(draw, shape):
    logits, x = 3 * draw(5, *shape), (draw(5, *shape) > 0).double()
    expected = -Bernoulli(logits=logits).log_prob(x).flatten(1).sum(1)
    assert torch.allclose(bernoulli_nll(logits, x), expected, rtol=1e-12)


def test_the_bernoulli_likelihood_of_grey_by_hand():
    # p = sigmoid(ln 3) = 3/4 and x = 1/4: −(1/4 ln 3/4 + 3/4 ln 1/4)
    nll = bernoulli_nll(torch.full((1, 2), math.log(3), dtype=torch.float64),
                        torch.full((1, 2), 0.25, dtype=torch.float64))
    assert nll.item() == pytest.approx(-2 * (0.25 * math.log(0.75) + 0.75 * math.log(0.25)), rel=1e-12)


def test_the_bernoulli_likelihood_far_out_is_finite():
    assert bernoulli_nll(torch.tensor([[1000.0]]), torch.tensor([[0.0]])).item() == pytest.approx(1000)


@pytest.mark.parametrize("log_scale", [0.0, -1.5, torch.tensor(0.7, dtype=torch.float64)])
@pytest.mark.parametrize("shape", [(12,), (1, 4, 3)])
def test_the_gaussian_likelihood(draw, shape, log_scale):
    mean, x = draw(5, *shape), draw(5, *shape)
    expected = -Normal(mean, math.exp(log_scale)).log_prob(x).flatten(1).sum(1)
    assert torch.allclose(gaussian_nll(mean, x, log_scale), expected, rtol=1e-12)


def test_the_gaussian_likelihood_by_hand():
    # σ = 2, errors 2 and 4: ½(1² + 2²) + 2 (ln 2 + ½ ln 2π)
    nll = gaussian_nll(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[2.0, 4.0]], dtype=torch.float64),
                       math.log(2))
    assert nll.item() == pytest.approx(2.5 + 2 * (math.log(2) + 0.5 * math.log(2 * math.pi)), rel=1e-12)


@pytest.mark.parametrize("nll", [bernoulli_nll, gaussian_nll])
def test_a_likelihood_refuses_shapes_that_would_broadcast(nll):
    with pytest.raises(SettingError, match=r"must have one shape; got \(5, 1, 8, 8\) and \(5, 8, 8\)"):
        nll(torch.zeros(5, 1, 8, 8), torch.zeros(5, 8, 8))


def test_the_normal_divergence(draw):
    mean, log_variance = 2 * draw(50, 3), 2 * draw(50, 3)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    assert torch.allclose(standard_normal_kl(mean, log_variance), kl_divergence(posterior, prior), rtol=1e-10)


def test_the_normal_divergence_by_hand():
    # μ = 1, σ² = 4: ½ (4 + 1 − 1 − ln 4) = 2 − ln 2
    kl = standard_normal_kl(torch.tensor(1.0), torch.tensor(4.0).log())
    assert kl.item() == pytest.approx(2 - math.log(2), rel=1e-6)


def test_the_normal_divergence_against_monte_carlo():
    n = 200_000
    noise = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, scale = torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    z = mean + scale * noise
    difference = Normal(mean, scale).log_prob(z) - Normal(0.0, 1.0).log_prob(z)
    tolerance = 4 * difference.std() / math.sqrt(n)  # four standard errors, about 0.01 nats
    assert abs(difference.mean() - standard_normal_kl(mean, 2 * scale.log())) < tolerance
