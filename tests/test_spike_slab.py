"""The spike-and-slab: against Monte Carlo, against exact gradients by enumeration, and at its extremes, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.autograd import grad
from torch.distributions import Normal, kl_divergence

from sparse_vae.checks import SettingError
from sparse_vae.distributions import SPIKES, SpikeSlab, bernoulli_kl, disarm, sample_spikes
from sparse_vae.distributions.spike_slab import PairwiseKL, cross_log_density
from sparse_vae.evaluation import spike_gradient_errors
from sparse_vae.models import make_model

SAMPLES = 200_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def p() -> SpikeSlab:
    return SpikeSlab(tensor(-3, 0, 2), tensor(-1, 0.5, 2), tensor(0.5, 1, 0.2))


@pytest.fixture
def q() -> SpikeSlab:
    return SpikeSlab(tensor(-1, 1, 0), tensor(0, 0, 1), tensor(1, 2, 0.5))


def test_the_density_by_hand():
    # γ = 3/4: 1/4 at 0, 3/4 of the standard normal elsewhere
    distribution = SpikeSlab(tensor(math.log(3)), tensor(0), tensor(1))
    assert distribution.log_prob(tensor(0)).exp().item() == pytest.approx(0.25, rel=1e-12)
    assert distribution.log_prob(tensor(1)).exp().item() == pytest.approx(
        0.75 * math.exp(-0.5) / math.sqrt(2 * math.pi), rel=1e-12)


def test_samples_have_the_moments_and_exact_zeros(p):
    z = p.sample((SAMPLES,), generator=seeded())
    assert z.shape == (SAMPLES, 3)
    assert torch.allclose((z != 0).double().mean(0), p.probs, atol=5e-3)
    assert torch.allclose(z.mean(0), p.mean, atol=0.02)
    assert torch.allclose(z.var(0), p.variance, rtol=0.02)
    assert torch.equal(z[:5], p.sample((SAMPLES,), generator=seeded())[:5])


def test_the_entropy_and_the_divergence_are_what_samples_say(p, q):
    z = p.sample((SAMPLES,), generator=seeded())
    assert torch.allclose(-p.log_prob(z).mean(0), p.entropy(), atol=0.02)
    assert torch.allclose((p.log_prob(z) - q.log_prob(z)).mean(0), kl_divergence(p, q), atol=0.02)


def test_the_divergence_of_a_slab_that_is_always_on_is_the_normals(q):
    mean, scale = tensor(0.3, -2, 1), tensor(0.1, 1, 3)
    always = SpikeSlab(torch.full((3,), 40.0, dtype=torch.float64), mean, scale)
    other = SpikeSlab(torch.full((3,), 40.0, dtype=torch.float64), q.loc, q.scale)
    assert torch.allclose(kl_divergence(always, other), kl_divergence(Normal(mean, scale), Normal(q.loc, q.scale)))
    assert torch.equal(kl_divergence(q, q), torch.zeros(3, dtype=torch.float64))


def test_the_bernoulli_divergence_by_hand():
    # KL(1/2 ‖ 1/4) = ½ ln 2 + ½ ln (2/3)
    assert bernoulli_kl(tensor(0), tensor(-math.log(3))).item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-12)


def test_pairwise_densities_are_those_of_each_pair():
    x = torch.randn(3, 4, 5, generator=seeded(), dtype=torch.float64)
    components = SpikeSlab(x[0], x[1], x[2].exp())
    y = torch.randn(3, 7, 5, generator=seeded(1), dtype=torch.float64)
    z = SpikeSlab(y[0], y[1], y[2].exp()).sample(generator=seeded(2))
    assert (z == 0).any()
    densities = torch.stack([SpikeSlab(*parameters).log_prob(z).sum(1) for parameters in
                             zip(components.logits, components.loc, components.scale, strict=True)], 1)
    assert torch.allclose(cross_log_density(z, components), densities)


def test_divergences_by_hand_are_those_of_each_pair_and_so_are_their_gradients():
    parameters = [torch.randn(n, 5, generator=seeded(n + k), dtype=torch.float64, requires_grad=True)
                  for n in (4, 7) for k in range(3)]  # means, log-variances, logits; twice
    observed, components = (SpikeSlab(logit, mean, (log_variance / 2).exp()) for mean, log_variance, logit in
                            ([part[:, None] for part in parameters[:3]], parameters[3:]))
    found, expected = PairwiseKL.apply(*parameters), kl_divergence(observed, components).sum(2)
    assert torch.allclose(found, expected)
    weights = torch.randn(4, 7, generator=seeded(), dtype=torch.float64)
    gradients = [grad((weights * kl).sum(), parameters) for kl in (found, expected)]
    assert all(torch.allclose(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize("estimator", [name for name in SPIKES if name != "bernoulli"])
def test_every_estimator_moves_spikes_towards_what_reconstructs_better(estimator):
    """x = 2·z₀ − 0·z₁: the first spike helps, the second, which is noise, hurts; gradients must say so."""
    logits = torch.zeros(4000, 2, dtype=torch.float64, requires_grad=True)
    slab = SpikeSlab(logits, tensor(2, 2), tensor(0.1, 0.1))
    z = slab.rsample(estimator=estimator, temperature=0.5, generator=seeded())
    error = (tensor(2, 0) - z).square().sum()
    helpful, harmful = grad(error, logits)[0].mean(0)
    assert helpful < -0.1
    assert harmful > 0.1


def exact_gradient(loss, logits: torch.Tensor) -> torch.Tensor:
    """∂E[f(s)]/∂l by enumeration of all patterns of spikes; ``(J,)``."""
    logits = logits.detach().requires_grad_()
    patterns = torch.tensor(list(itertools.product([0.0, 1.0], repeat=len(logits))), dtype=logits.dtype)
    probabilities = (patterns * logits - torch.nn.functional.softplus(logits)).sum(1).exp()
    return grad((probabilities * loss(patterns)).sum(), logits)[0]


def losses(seed: int):
    """An error that is quadratic in every spike, that of a linear decoder, and one that is not, for J = 4."""
    weights, target = torch.randn(2, 4, 6, generator=seeded(seed), dtype=torch.float64)
    return (lambda spikes: (target[0] - spikes @ weights).square().sum(-1),
            lambda spikes: (target[1] - (spikes @ weights).exp()).square().sum(-1))


def test_reinmax_is_unbiased_where_the_loss_is_quadratic_in_every_spike():
    """Exactly: its mean over all patterns, each weighted by its probability, is the gradient of the expected loss."""
    point = tensor(-2, -0.5, 0.3, 1)
    patterns = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64)
    probabilities = (patterns * point - torch.nn.functional.softplus(point)).sum(1).exp()
    logits = point.expand(16, 4).clone().requires_grad_()
    noise = torch.where(patterns == 1, 1 - 1e-9, 1e-9)  # draws every pattern once
    for seed in range(3):
        quadratic, other = losses(seed)
        spikes = SPIKES["reinmax"](logits, noise, 1.0)
        assert torch.equal(spikes.detach(), patterns)
        means = [probabilities @ grad(loss(spikes).sum(), logits, retain_graph=True)[0] for loss in (quadratic, other)]
        assert torch.allclose(means[0], exact_gradient(quadratic, point))
        assert not torch.allclose(means[1], exact_gradient(other, point), rtol=0.01)


def test_disarm_is_unbiased_for_any_loss():
    point = tensor(-2, -0.5, 0.3, 1)
    for loss in losses(0):
        draws = disarm(loss, point.expand(SAMPLES, 4), generator=seeded())
        error = draws.std(0) / math.sqrt(SAMPLES)
        assert ((draws.mean(0) - exact_gradient(loss, point)).abs() < 4 * error).all()


@pytest.mark.parametrize("gamma", [0.05, 0.5, 0.9])
def test_exact_and_hard_concrete_spikes_have_the_rate(gamma):
    logits = torch.full((SAMPLES,), math.log(gamma / (1 - gamma)), dtype=torch.float64)
    straight = sample_spikes(logits, "straight-through", 0.5, generator=seeded())
    assert ((straight == 0) | (straight == 1)).all()
    assert straight.mean().item() == pytest.approx(gamma, abs=5e-3)
    for estimator in ("reinmax", "bernoulli"):
        assert torch.equal(sample_spikes(logits, estimator, generator=seeded()), straight)
    hard = sample_spikes(logits, "hard-concrete", 0.5, generator=seeded())
    assert (hard != 0).double().mean().item() == pytest.approx(gamma, abs=5e-3)
    assert (hard == 1).any()


def test_the_scaled_sigmoid_leaks_where_true_spikes_do_not():
    """At γ = 0.01 and c = 50, a fifth or more of the "spikes" exceed 1e-4 although 99% should be zero."""
    logits = torch.full((SAMPLES,), math.log(0.01 / 0.99), dtype=torch.float64)
    leaking = sample_spikes(logits, "scaled-sigmoid", 1 / 50, generator=seeded())
    assert leaking.min() > 0
    assert (leaking > 1e-4).double().mean() > 0.15


@pytest.mark.parametrize("estimator", ["concrete", "hard-concrete", "straight-through", "reinmax"])
def test_the_gradient_is_exact_for_a_linear_function_in_the_cold_limit(estimator):
    """E[s] = γ, so d/dl E[s] = γ(1 − γ); relaxations approach it as the temperature falls."""
    logits = torch.full((SAMPLES,), -1.0, dtype=torch.float64, requires_grad=True)
    spikes = sample_spikes(logits, estimator, 0.05, generator=seeded())
    gamma = torch.sigmoid(tensor(-1)).item()
    assert grad(spikes.mean(), logits)[0].sum().item() == pytest.approx(gamma * (1 - gamma), rel=0.08)


@pytest.mark.parametrize("gamma", [1e-8, 1 - 1e-8])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes_give_no_nan(gamma, scale, dtype):
    logit = math.log(gamma) - math.log1p(-gamma)
    parameters = [torch.full((1000,), value, dtype=dtype, requires_grad=True)
                  for value in (logit, 3.0, scale)]
    p, prior = SpikeSlab(*parameters), SpikeSlab(torch.zeros(1000, dtype=dtype), torch.tensor(0.0), torch.tensor(1.0))
    for estimator in SPIKES:
        z = p.rsample(estimator=estimator, generator=seeded())
        total = z.sum() + kl_divergence(p, prior).sum() + p.entropy().sum() + p.log_prob(p.sample()).sum()
        assert total.isfinite()
        assert all(gradient.isfinite().all() for gradient in grad(total, parameters))


@pytest.mark.parametrize("parameter", ["logits", "loc", "scale"])
def test_parameters_that_are_not_finite_are_refused(parameter):
    with pytest.raises(ValueError, match=f"parameter {parameter}"):
        SpikeSlab(**{"logits": tensor(0), "loc": tensor(0), "scale": tensor(1), parameter: tensor(math.inf)})


def test_estimators_and_temperatures_that_cannot_be_are_named(p):
    with pytest.raises(SettingError, match=r"estimator must be one of scaled-sigmoid, .*; got 'concrette'"):
        p.rsample(estimator="concrette")
    for temperature in (0, -1.0):
        with pytest.raises(SettingError, match="temperature must be a finite number above 0; got"):
            sample_spikes(p.logits, temperature=temperature)


def test_it_keeps_its_validation_when_it_is_expanded(p):
    with pytest.raises(ValueError, match="within the support"):
        p.expand((2, 3)).log_prob(torch.full((2, 3), math.nan, dtype=torch.float64))
    unchecked = SpikeSlab(p.logits, p.loc, p.scale, validate_args=False)
    assert unchecked.expand((2, 3)).log_prob(torch.full((2, 3), math.nan, dtype=torch.float64)).isnan().all()


def test_it_behaves_as_a_torch_distribution(p):
    wide = p.expand((4, 3))
    assert wide.batch_shape == (4, 3)
    assert wide.sample((2,)).shape == (2, 4, 3)


@pytest.mark.heavy
def test_errors_of_spike_gradients_of_a_model_are_those_of_enumeration():
    """A linear decoder with a Gaussian likelihood is quadratic in every spike: ReinMax has no bias."""
    torch.manual_seed(0)
    model = make_model("vsc", (6,), latent_dim=3, prior="fixed", decoder="linear", likelihood="gaussian")
    with torch.no_grad():
        model.encoder[-1].weight[6:] *= 5  # rates that differ
        model.encoder[-1].bias[:3] = 2
    x = torch.randn(4, 6, generator=seeded())
    errors = spike_gradient_errors(model, x, ["reinmax", "disarm", "straight-through"], 4000, generator=seeded(1))
    assert errors["reinmax"].bias < 0.05
    assert errors["disarm"].bias < 0.05
    assert errors["straight-through"].bias > 0.1
    assert errors["reinmax"].deviation < errors["disarm"].deviation
    with pytest.raises(SettingError, match="n_samples"):
        spike_gradient_errors(model, x, [], 1)
