"""The importance-weighted bound where −ln p(x) is known: a linear model with normal noise, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from sparse_vae.checks import SettingError
from sparse_vae.evaluation import importance_weighted_nll

LOADINGS = torch.tensor([1.5, -0.5], dtype=torch.float64)
NOISE = 0.7
X = torch.tensor([[1.0, 0.5], [-2.0, 1.0], [0.0, 0.0]], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class LinearModel:
    """z ~ N(0, 1), x|z ~ N(wz, s² I), q(z|x) = N(shift + wᵀx / (s² + wᵀw), scale² s² / (s² + wᵀw)).

    The posterior is exact for shift 0 and scale 1.
    """

    def __init__(self, shift: float = 0.0, scale: float = 1.0):
        self.shift, self.scale = shift, scale
        self.rows = []

    def posterior(self, x):
        precision = NOISE**2 + LOADINGS @ LOADINGS
        return Normal(self.shift + x @ LOADINGS / precision, self.scale * NOISE / precision.sqrt())

    def log_importance_weight(self, x, *, generator=None):
        self.rows.append(len(x))
        posterior = self.posterior(x)
        z = posterior.mean + posterior.stddev * torch.randn(len(x), dtype=x.dtype, generator=generator)
        log_likelihood = Normal(z[:, None] * LOADINGS, NOISE).log_prob(x).sum(1)
        return log_likelihood + Normal(0, 1).log_prob(z) - posterior.log_prob(z)

    def negative_elbo(self, x):
        """In closed form."""
        mean, variance = self.posterior(x).mean, self.posterior(x).variance
        squares = (x - mean[:, None] * LOADINGS).square().sum(1) + variance * (LOADINGS @ LOADINGS)
        reconstruction = squares / (2 * NOISE**2) + math.log(2 * math.pi * NOISE**2)
        return reconstruction + 0.5 * (variance + mean.square() - 1 - variance.log())


class Weights:
    """A model whose weights are given: the k-th sample of every observation has the k-th weight."""

    def __init__(self, *log_weights: float):
        self.log_weights = list(log_weights)

    def log_importance_weight(self, x, *, generator=None):
        return torch.full((len(x),), self.log_weights.pop(0))


def negative_log_evidence(x):
    covariance = LOADINGS[:, None] * LOADINGS + NOISE**2 * torch.eye(2, dtype=torch.float64)
    return -MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance).log_prob(x)


@pytest.mark.parametrize(("n_samples", "batch_size"), [(1, 1), (7, 2), (500, 1000)])
def test_the_exact_posterior_gives_the_evidence_with_any_number_of_samples(n_samples, batch_size):
    bound = importance_weighted_nll(LinearModel(), X, n_samples, batch_size=batch_size)
    assert torch.allclose(bound, negative_log_evidence(X), rtol=1e-12)


def test_one_sample_is_minus_the_elbo():
    model = LinearModel(shift=0.3, scale=1.5)
    bound = importance_weighted_nll(model, X, 1, generator=seeded())
    assert torch.equal(bound, -model.log_importance_weight(X, generator=seeded()))
    draws = importance_weighted_nll(model, X.repeat_interleave(40_000, 0), 1, generator=seeded()).view(3, -1)
    error = (draws.mean(1) - model.negative_elbo(X)).abs()
    assert (error < 4 * draws.std(1) / math.sqrt(40_000)).all()  # four standard errors


def test_the_bound_tightens_with_the_samples_and_reaches_the_evidence():
    model, truth = LinearModel(shift=0.3, scale=1.5), negative_log_evidence(X)
    means = torch.stack([
        importance_weighted_nll(model, X.repeat_interleave(4000, 0), n_samples, batch_size=100_000,
                                generator=seeded()).view(3, -1).mean(1) for n_samples in (1, 2, 5, 20, 100)])
    gaps = means - truth
    assert (gaps[1:] < gaps[:-1]).all()
    assert (gaps[0] > 0.3).all()
    assert (gaps[-1].abs() < 0.005).all()  # about Var(w)/(2K) = 0.003, standard error below 0.0015
    bound = importance_weighted_nll(model, X, 100_000, batch_size=50_000, generator=seeded())
    assert torch.allclose(bound, truth, atol=0.01)


def test_the_mean_of_the_weights_by_hand():
    assert importance_weighted_nll(Weights(0, math.log(3)), torch.zeros(2, 1), 2, batch_size=2).tolist() == (
        pytest.approx([-math.log(2)] * 2))  # −ln (1 + 3)/2
    assert importance_weighted_nll(Weights(-1e4, -1e4, -2e4), torch.zeros(1, 1), 3, batch_size=1).item() == (
        pytest.approx(1e4 - math.log(2 / 3)))  # each weight is far below the smallest float
    assert importance_weighted_nll(Weights(-math.inf, 0), torch.zeros(1, 1), 2, batch_size=1).item() == (
        pytest.approx(math.log(2)))
    assert importance_weighted_nll(Weights(-math.inf, -math.inf), torch.zeros(1, 1), 2, batch_size=1).item() == math.inf


@pytest.mark.parametrize(("batch_size", "most"), [(1, 1), (2, 2), (5, 3), (7, 6), (1000, 33)])
def test_every_sample_is_drawn_once_in_batches_of_at_most_the_size(batch_size, most):
    model = LinearModel(shift=0.3)
    importance_weighted_nll(model, X, 11, batch_size=batch_size)
    assert sum(model.rows) == 3 * 11
    assert max(model.rows) == most


def test_images_keep_their_shape_and_the_samples_of_each_their_place():
    class Mean:
        def log_importance_weight(self, x, *, generator=None):
            assert x.shape[1:] == (1, 4, 4)
            return -x.mean((1, 2, 3))

    x = torch.arange(5.0)[:, None, None, None].expand(5, 1, 4, 4)
    bound = importance_weighted_nll(Mean(), x, 9, batch_size=12)
    assert bound.tolist() == pytest.approx([0, 1, 2, 3, 4], abs=1e-6)
    assert bound.dtype == torch.float32


def test_one_observation_the_seed_and_no_gradients():
    model, x = LinearModel(scale=2.0), X[:1].clone().requires_grad_()
    bound = importance_weighted_nll(model, x, 20, generator=seeded(1))
    assert bound.shape == (1,)
    assert not bound.requires_grad
    assert torch.equal(bound, importance_weighted_nll(model, x, 20, generator=seeded(1)))
    assert not torch.equal(bound, importance_weighted_nll(model, x, 20, generator=seeded(2)))


@pytest.mark.parametrize("name", ["n_samples", "batch_size"])
@pytest.mark.parametrize("value", [0, -3, 2.0, True])
def test_sizes_that_cannot_be_are_named(name, value):
    with pytest.raises(SettingError, match=f"{name} must be an integer of at least 1; got {value}"):
        importance_weighted_nll(LinearModel(), X, **{name: value})
