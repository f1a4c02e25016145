"""Variational sparse coding: its objective against sums written out, its schedules, its prior, and bad settings."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from sparse_vae.checks import SettingError
from sparse_vae.datasets import Dataset, Split
from sparse_vae.distributions import SPIKES, SpikeSlab
from sparse_vae.models import make_model
from sparse_vae.models.schedules import annealed
from sparse_vae.training import TrainingSettings, train

SMALL = {"latent_dim": 5, "n_pseudo_inputs": 4, "hidden_dim": 16}
MODELS = ("vsc", "vsc-warmup")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(name: str = "vsc", shape: tuple[int, ...] = (1, 8, 8), **settings):
    torch.manual_seed(0)
    return make_model(name, shape, **{**SMALL, **settings})


def observations(n: int = 6, shape: tuple[int, ...] = (1, 8, 8)) -> torch.Tensor:
    return torch.rand(n, *shape, generator=seeded(1))


def dataset(x: torch.Tensor) -> Dataset:
    return Dataset("made", Split(x), Split(x[:max(1, len(x) // 2)]), "bernoulli")


@pytest.mark.parametrize("choice", ["optimal", "classifier"])
def test_the_bound_charges_the_choice_of_a_pseudo_input(choice):
    model, x = make(choice=choice), observations()
    model.prepare(observations(9))
    q = model.encode(x).distribution()
    components = [model.encode(model.pseudo_inputs[u:u + 1]).distribution() for u in range(4)]
    kls = torch.stack([kl_divergence(q, component).sum(1) for component in components], 1)
    c = model.choices(x)
    assert torch.allclose(c.sum(1), torch.ones(6))
    expected = (c * (kls + (4 * c).log())).sum(1)
    z = q.sample(generator=seeded())
    bound = model.negative_elbo(x, generator=seeded())
    assert torch.allclose(bound, model.reconstruction_nll(x, z) + expected, rtol=1e-4)
    if choice == "optimal":
        assert torch.allclose(c, torch.softmax(-kls, 1), atol=1e-4)
        assert torch.allclose(expected, math.log(4) - (-kls).logsumexp(1), rtol=1e-4)


def test_the_optimal_choice_gives_the_tighter_bound():
    optimal, learned = make(choice="optimal"), make(choice="classifier")
    learned.load_state_dict(optimal.state_dict(), strict=False)
    x = observations()
    assert (optimal.negative_elbo(x, generator=seeded()) <= learned.negative_elbo(x, generator=seeded()) + 1e-4).all()


def test_the_fixed_prior_is_the_closed_form():
    model, x = make(prior="fixed", alpha=0.2), observations()
    prior = SpikeSlab(torch.tensor(math.log(0.25)), torch.tensor(0.0), torch.tensor(1.0))
    kl = kl_divergence(model.encode(x).distribution(), prior)
    assert torch.allclose(model.kl_per_dimension(x), kl, rtol=1e-5)
    loss = model.loss(x, generator=seeded())
    assert loss.kl.item() == pytest.approx(kl.sum(1).mean().item(), rel=1e-5)
    assert loss.sparsity == 0


def test_the_sparsity_term_by_hand():
    model, x = make(alpha=0.1), observations()
    rates = model.choices(x) @ model.encode(model.pseudo_inputs).spike_logit.sigmoid().mean(1)
    expected = [5 * (rate * math.log(rate / 0.1) + (1 - rate) * math.log((1 - rate) / 0.9)) for rate in rates.tolist()]
    assert model.loss(x).sparsity.item() == pytest.approx(sum(expected) / 6, rel=1e-4)
    weighted = make(alpha=0.1, sparsity_weight=3.0)
    assert weighted.loss(x).sparsity.item() == pytest.approx(3 * sum(expected) / 6, rel=1e-4)


@pytest.mark.parametrize("prior", ["pseudo-inputs", "fixed"])
def test_the_held_rate_of_the_posterior_by_hand(prior):
    model, x = make(prior=prior, alpha=0.1, held_rate="posterior", sparsity_weight=3.0), observations()
    rate = model.encode(x).spike_logit.sigmoid().mean().item()
    expected = 3 * 5 * (rate * math.log(rate / 0.1) + (1 - rate) * math.log((1 - rate) / 0.9))
    assert model.loss(x).sparsity.item() == pytest.approx(expected, rel=1e-4)


def test_the_cross_entropy_of_spikes_is_that_of_torch_and_is_no_part_of_the_bound():
    """What the report that this one follows up trains with: all slabs are charged, and spikes see α alone."""
    model, x = make(prior="fixed", alpha=0.1, spike_cost="cross-entropy", estimator="bernoulli"), observations()
    posterior, loss = model.encode(x), model.loss(x, generator=seeded())
    slabs = kl_divergence(Normal(posterior.mean, (posterior.log_variance / 2).exp()), Normal(0, 1)).sum(1).mean()
    rates = posterior.spike_logit.sigmoid()
    assert loss.kl.item() == pytest.approx(slabs.item(), rel=1e-4)
    expected = torch.nn.functional.binary_cross_entropy(rates, torch.full_like(rates, 0.1))
    assert loss.sparsity.item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.equal(model.negative_elbo(x, generator=seeded()),
                       make(prior="fixed", alpha=0.1).negative_elbo(x, generator=seeded()))
    gradient, = torch.autograd.grad(loss.total, model.encoder[-1].bias)
    assert torch.allclose(gradient[10:], (rates - 0.1).mean(0) / 5, atol=1e-6)


@pytest.mark.parametrize("prior", ["pseudo-inputs", "fixed"])
def test_importance_weights_are_densities_of_the_model(prior):
    model, x = make(prior=prior), observations(1)
    q = model.encode(x).distribution()
    z = q.sample(generator=seeded())
    if prior == "fixed":
        fixed = SpikeSlab(torch.tensor(math.log(0.25)), torch.tensor(0.0), torch.tensor(1.0))
        log_prior = fixed.log_prob(z).sum(1)
    else:
        components = [model.encode(model.pseudo_inputs[u:u + 1]).distribution() for u in range(4)]
        log_prior = torch.stack([component.log_prob(z).sum(1) for component in components]).logsumexp(0) - math.log(4)
    expected = log_prior - q.log_prob(z).sum(1) - model.reconstruction_nll(x, z)
    assert torch.allclose(model.log_importance_weight(x, generator=seeded()), expected, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_code_is_the_expected_code_with_exact_zeros(name):
    model, x = make(name, latent_dim=40), observations()
    posterior, code = model.encode(x), model.code(x)
    off = posterior.spike_logit <= 0
    assert off.any()
    assert not off.all()
    assert (code[off] == 0).all()
    assert torch.allclose(code[~off], posterior.distribution().mean[~off])
    assert torch.equal(model.active(x), ~off)


@pytest.mark.parametrize("estimator", SPIKES)
def test_the_reconstruction_reaches_the_spikes(estimator):
    model, x = make(estimator=estimator), observations()
    model.loss(x, step=0, generator=seeded()).reconstruction.backward()
    spike_rows = model.encoder[-1].weight.grad[2 * 5:]
    assert (spike_rows.abs().sum() > 0) == (estimator != "bernoulli")


def test_the_schedules_count_steps():
    model = make("vsc-warmup", warmup_steps=10, ramp_steps=20, first_warmth=0.0,
                 temperature=1.0, final_temperature=0.25, anneal_steps=8)
    assert [model.warmth(step) for step in (0, 10, 15, 30, 100, None)] == [0, 0, 0.25, 1, 1, 1]
    softened = make("vsc-warmup", warmup_steps=10, ramp_steps=20)
    assert [softened.warmth(step) for step in (0, 10, 15, 30, None)] == [0.5, 0.5, 0.625, 1, 1]
    annealing = model.temperature, model.final_temperature, model.anneal_steps
    assert [annealed(step, *annealing) for step in (0, 4, 8, 100, None)] == pytest.approx([1, 0.5, 0.25, 0.25, 0.25])
    x = observations()
    ramped = make(kl_ramp_steps=100)
    first, last = (ramped.loss(x, step=step, generator=seeded()) for step in (0, 99))
    assert first.kl.item() == pytest.approx(last.kl.item() / 100, rel=1e-4)
    assert first.sparsity.item() == pytest.approx(last.sparsity.item() / 100, rel=1e-4)
    unramped = make(kl_ramp_steps=1)
    assert unramped.loss(x, step=0, generator=seeded()) == unramped.loss(x, generator=seeded())


def test_cold_slabs_carry_nothing():
    """At λ = 0 the slab is N(0, 1), whatever the encoder says."""
    posterior = make().encode(observations())
    cold = posterior.distribution(0.0)
    assert (cold.loc == 0).all()
    assert (cold.scale == 1).all()
    half = posterior.distribution(0.5)
    assert torch.allclose(half.loc, 0.5 * posterior.mean)
    assert torch.allclose(half.scale.square(), 0.5 * posterior.log_variance.exp() + 0.5)


def test_samples_of_a_pseudo_input_are_its_own():
    model = make(latent_dim=30)
    model.prepare(observations(9))
    chosen = model.sample_prior(2000, pseudo_input=2, generator=seeded())
    rates = model.encode(model.pseudo_inputs[2:3]).distribution().probs[0]
    assert torch.allclose((chosen != 0).float().mean(0), rates, atol=0.05)
    assert model.sample(3, pseudo_input=2).shape == (3, 1, 8, 8)
    with pytest.raises(SettingError, match="pseudo_input must be an integer of at least 0 and at most 3; got 4"):
        model.sample(3, pseudo_input=4)
    with pytest.raises(SettingError, match="pseudo_input must be None for the fixed prior; got 0"):
        make(prior="fixed").sample(3, pseudo_input=0)


def test_the_fixed_prior_has_no_choices():
    with pytest.raises(SettingError, match="choices need prior 'pseudo-inputs'; got 'fixed'"):
        make(prior="fixed").choices(observations())


def test_pseudo_inputs_start_as_training_observations():
    x = observations(9)
    model = make()
    model.prepare(x, generator=seeded())
    assert all((row == x).flatten(1).all(1).any() for row in model.pseudo_inputs)
    with pytest.raises(SettingError, match="n_pseudo_inputs must be at most the number of training observations, 3; "
                                           "got 4"):
        model.prepare(observations(3))
    with pytest.raises(SettingError, match="n_pseudo_inputs"):
        train(make(), dataset(observations(3)), TrainingSettings(epochs=1), progress=False)


@pytest.mark.parametrize("prior", ["pseudo-inputs", "fixed"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("x", [torch.zeros(8, 1, 8, 8), torch.ones(8, 1, 8, 8), observations(8)[:, :, :1, :1]],
                         ids=["black", "white", "one pixel"])
def test_constant_images_and_batches_of_one_train_without_nan(name, prior, x):
    schedule = {"warmup_steps": 4, "ramp_steps": 4} if name == "vsc-warmup" else {}
    model = make(name, tuple(x.shape[1:]), prior=prior, **schedule)
    history = train(model, dataset(x), TrainingSettings(epochs=2, batch_size=1, learning_rate=0.01), progress=False)
    assert all(math.isfinite(value) for row in history for value in row.values())
    assert model.negative_elbo(x).isfinite().all()


@pytest.mark.parametrize(("setting", "message"), [
    ({"alpha": 0}, "alpha must be a finite number above 0 and below 1; got 0"),
    ({"alpha": 1}, "alpha must be a finite number above 0 and below 1; got 1"),
    ({"temperature": 0.0}, "temperature must be a finite number above 0; got 0.0"),
    ({"final_temperature": -1}, "final_temperature must be a finite number above 0; got -1"),
    ({"n_pseudo_inputs": 0}, "n_pseudo_inputs must be an integer of at least 1; got 0"),
    ({"prior": "learned"}, "prior must be one of pseudo-inputs, fixed; got 'learned'"),
    ({"choice": "best"}, "choice must be one of optimal, classifier; got 'best'"),
    ({"estimator": "gumbel"}, "estimator must be one of scaled-sigmoid, concrete, hard-concrete, straight-through"),
    ({"sparsity_weight": -1}, "sparsity_weight must be a finite number at least 0; got -1"),
    ({"spike_cost": "cross-entropy"}, "spike_cost 'cross-entropy' needs prior 'fixed'; got 'pseudo-inputs'"),
    ({"spike_cost": "cross-entropy", "prior": "fixed", "held_rate": "posterior"},
     "held_rate 'posterior' needs spike_cost 'kl'; got 'cross-entropy'"),
    ({"spike_cost": "cross-entropy", "prior": "fixed", "sparsity_weight": 100.0},
     "sparsity_weight 100.0 needs spike_cost 'kl'; got 'cross-entropy'"),
    ({"kl_ramp_steps": 0}, "kl_ramp_steps must be an integer of at least 1; got 0"),
])
def test_settings_out_of_range_are_named(setting, message):
    with pytest.raises(SettingError, match=message):
        make(**setting)


@pytest.mark.parametrize("setting", ["warmup_steps", "ramp_steps"])
def test_warm_up_steps_out_of_range_are_named(setting):
    with pytest.raises(SettingError, match=f"{setting} must be an integer of at least"):
        make("vsc-warmup", **{setting: -1})


def test_a_first_warmth_out_of_range_is_named():
    with pytest.raises(SettingError, match=r"first_warmth must be .*; got 1\.5"):
        make("vsc-warmup", first_warmth=1.5)
