"""The hybrid sparse VAE: its bound against samples and its closed form, its dictionary, its settings."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import kl_divergence

from sparse_vae.checks import SettingError
from sparse_vae.datasets.base import Dataset, Split
from sparse_vae.distributions import Gamma
from sparse_vae.evaluation import batched, explained_variance
from sparse_vae.models import make_model
from sparse_vae.models.hybrid import HybridPosterior
from sparse_vae.training import TrainingSettings, train

FEATURES, ATOMS = 12, 7


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(shape=(FEATURES,), **settings):
    torch.manual_seed(0)
    return make_model("hybrid", shape, **{"latent_dim": ATOMS, "likelihood": "gaussian", **settings})


def observations(n: int = 5) -> torch.Tensor:
    return torch.randn(n, FEATURES, generator=seeded(1))


@pytest.mark.parametrize("magnitude", ["gamma", "normal"])
def test_the_sampled_reconstruction_agrees_with_its_closed_form(magnitude):
    model, x = make(decoder="linear", magnitude=magnitude), observations(1)
    torch.nn.init.constant_(model.log_scale, -0.7)
    many = x.expand(100_000, -1)
    with torch.no_grad():
        posterior = model.encode(x)
        sampled = model.negative_elbo(many, generator=seeded()) - sum(model.kls(posterior)).sum()
        expected = model.expected_nll(x, posterior)
    assert expected.item() == pytest.approx(sampled.mean().item(), abs=5 * sampled.std().item() / len(many) ** 0.5)


def test_the_bound_by_hand():
    model, x = make(prior_concentration=2.0, prior_scale=0.5, prior_presence=0.2), observations()
    posterior = model.encode(x)
    k, scale = posterior.concentration, posterior.scale
    k0, scale0 = 2.0, 0.5
    gamma_kl = ((k - k0) * torch.digamma(k) - torch.lgamma(k) + math.lgamma(k0) + k0 * (math.log(scale0) - scale.log())
                + k * (scale / scale0 - 1))
    probs = posterior.structure().probs
    sign_kl = (probs * (probs / torch.tensor([0.1, 0.8, 0.1])).log()).sum(-1)
    present = probs[..., 0] + probs[..., 2]
    assert torch.allclose(model.kl_per_dimension(x), present * gamma_kl + sign_kl, rtol=1e-4)
    loose = make(prior_concentration=2.0, prior_scale=0.5, prior_presence=0.2, bound="loose")
    assert torch.allclose(sum(loose.kls(loose.encode(x), "loose")), gamma_kl + sign_kl, rtol=1e-4)
    assert loose.loss(x, generator=seeded()).kl > model.loss(x, generator=seeded()).kl
    # Whatever training charges, the reported bound is the exact one.
    assert torch.allclose(loose.negative_elbo(x, generator=seeded()), model.negative_elbo(x, generator=seeded()))


def test_training_weights_each_kl_and_the_bound_does_not():
    x, plain = observations(), make()
    of_magnitudes, of_signs = (kl.sum(1).mean() for kl in plain.kls(plain.encode(x)))
    weighted = make(beta_gamma=0.5, beta_delta=3.0)
    loss = weighted.loss(x, generator=seeded())
    assert loss.kl.item() == pytest.approx((0.5 * of_magnitudes + 3 * of_signs).item(), rel=1e-6)
    assert loss.total == loss.reconstruction + loss.kl
    assert torch.equal(weighted.negative_elbo(x, generator=seeded()), plain.negative_elbo(x, generator=seeded()))


@pytest.mark.parametrize("k", [0.01, 0.1, 0.5])
def test_importance_weights_average_to_the_bound_for_small_magnitudes(k, monkeypatch):
    """Where most magnitudes are too small for float32, they have densities nevertheless."""
    model, many = make(), observations(1).expand(20_000, -1)
    posterior = HybridPosterior(*(torch.full((len(many), ATOMS), value) for value in (k, 0.5, -3.0, 3.0)))
    monkeypatch.setattr(model, "encode", lambda x: posterior)
    with torch.no_grad():
        difference = (-model.log_importance_weight(many, generator=seeded())
                      - model.negative_elbo(many, generator=seeded(1)))
    assert abs(difference.mean()) < 4 * difference.std() / len(many) ** 0.5


def test_the_code_is_the_mean_with_exact_zeros():
    model, x = make(), observations(400)
    torch.nn.init.normal_(model.encoder[-1].weight, std=1.0, generator=seeded())
    posterior, code = model.encode(x), model.code(x)
    mean = posterior.concentration * posterior.scale * posterior.structure().mean
    present = posterior.structure().presence > 0.5
    assert torch.equal(code != 0, present)
    assert torch.equal(model.active(x), present)
    assert torch.allclose(code[present], mean[present])
    assert 0 < present.float().mean() < 1


@pytest.mark.parametrize("decoder", ["linear", "network"])
def test_atoms_keep_norm_one(decoder):
    model = make(decoder=decoder)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.loss(observations(), generator=seeded()).total.backward()
    before = model.atoms.detach().clone()
    optimizer.step()
    assert not torch.allclose(model.atoms, before)
    assert torch.allclose(model.atoms.norm(dim=1), torch.ones(ATOMS))


def test_the_linear_decoder_is_the_dictionary():
    model = make(decoder="linear")
    z = torch.randn(4, ATOMS, generator=seeded())
    assert torch.allclose(model.decode(z), z @ model.atoms + model.decoder[0].bias, atol=1e-6)


@pytest.mark.parametrize("shape", [(FEATURES,), (1, 4, 3), (2, 6)])
def test_cosines_are_orthonormal_and_start_with_the_constant(shape):
    model = make(shape, decoder="linear", dictionary="dct", latent_dim=FEATURES)
    model.prepare(torch.zeros(2, *shape))
    atoms = model.atoms.detach()
    assert torch.allclose(atoms @ atoms.T, torch.eye(FEATURES), atol=1e-5)
    assert torch.allclose(atoms[0].abs(), torch.full((FEATURES,), FEATURES**-0.5), atol=1e-6)


def test_atoms_from_data_are_observations_about_their_mean():
    model, x = make(decoder="linear", dictionary="data"), observations(9)
    model.prepare(x, generator=seeded())
    centred = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    assert torch.allclose((model.atoms @ centred.T).max(1).values, torch.ones(ATOMS), atol=1e-5)
    assert torch.allclose(model.decoder[0].bias, x.mean(0))


def test_magnitudes_of_both_kinds_have_the_same_moments():
    k, scale = torch.tensor([0.3, 4.0]), torch.tensor([2.0, 0.1])
    gamma, normal = (make(magnitude=kind).magnitudes(k, scale) for kind in ("gamma", "normal"))
    assert isinstance(gamma, Gamma)
    assert torch.allclose(gamma.mean, normal.mean)
    assert torch.allclose(gamma.variance, normal.variance)
    assert kl_divergence(normal, normal).sum() == 0


def test_the_concentration_stays_within_its_bounds():
    x = 100 * observations(200)
    for low, high in ((0.01, 1.0), (1.0, None), (1.0, 3.0)):
        k = make(min_concentration=low, max_concentration=high).encode(x).concentration
        assert (k >= low).all()
        assert high is None or (k <= high).all()


@pytest.mark.parametrize("decoder", ["linear", "network"])
def test_noise_starts_well_below_the_spread_of_the_data(decoder):
    model, x = make(decoder=decoder), 0.1 * observations(50)
    model.prepare(x)
    assert model.log_scale.exp().item() == pytest.approx((x - x.mean(0)).square().mean().sqrt().item() / 3, rel=1e-5)


@pytest.mark.parametrize(("settings", "least"), [
    ({"max_concentration": 1.0}, 0.02), ({"min_concentration": 1e-3, "prior_concentration": 0.3}, 0.1),
    ({"magnitude": "normal"}, 0.3), ({"bound": "loose"}, 0.3), ({"straight_through": False}, 0.3)])
def test_training_is_stable_and_explains_the_data(settings, least):
    """Sparse combinations of seven atoms; small shapes, where samples underflow, included."""
    atoms = torch.nn.functional.normalize(torch.randn(ATOMS, FEATURES, generator=seeded(2)), dim=1)
    codes = torch.randn(3500, ATOMS, generator=seeded(3)) * (torch.rand(3500, ATOMS, generator=seeded(4)) < 0.2)
    x = codes @ atoms
    data = Dataset("sums", Split(x[:3000]), Split(x[3000:]), "gaussian")
    model = make(decoder="linear", kl_ramp_steps=200, **settings)
    history = train(model, data, TrainingSettings(epochs=7, batch_size=50, learning_rate=5e-3), progress=False)
    assert all(math.isfinite(value) for row in history for value in row.values())
    assert explained_variance(data.test.x, batched(model.reconstruct, data.test.x)) > least


@pytest.mark.parametrize(("settings", "message"), [
    ({"decoder": "linear", "dictionary": "dct", "latent_dim": 13}, "must be at most 12 for dictionary 'dct'"),
    ({"decoder": "linear", "dictionary": "data"}, "must be at most 3 for dictionary 'data'"),
])
def test_settings_that_do_not_fit_the_data_are_refused_before_training(settings, message):
    with pytest.raises(SettingError) as error:
        make(**settings).prepare(torch.zeros(3, FEATURES))
    assert message in str(error.value)


@pytest.mark.parametrize(("settings", "message"), [
    ({"decoder": "tree"}, "decoder must be one of network, linear; got 'tree'"),
    ({"dictionary": "wavelet"}, "dictionary must be one of random, dct, data; got 'wavelet'"),
    ({"dictionary": "dct"}, "dictionary 'dct' needs decoder 'linear'"),
    ({"decoder": "linear", "reconstruction": "exact", "likelihood": "bernoulli"},
     "reconstruction 'exact' needs likelihood 'gaussian'; got 'bernoulli'"),
    ({"magnitude": "gauss"}, "magnitude must be one of gamma, normal; got 'gauss'"),
    ({"prior_concentration": 0}, "prior_concentration must be a finite number above 0; got 0"),
    ({"prior_scale": -1}, "prior_scale must be a finite number above 0; got -1"),
    ({"prior_presence": 1.0}, "prior_presence must be a finite number above 0 and below 1; got 1.0"),
    ({"prior_presence": 1.5}, "prior_presence must be a finite number above 0 and below 1; got 1.5"),
    ({"min_concentration": 0}, "min_concentration must be a finite number above 0; got 0"),
    ({"max_concentration": 0.001}, "max_concentration must be a finite number above 0.01; got 0.001"),
    ({"beta_gamma": -1}, "beta_gamma must be a finite number at least 0; got -1"),
    ({"bound": "tight"}, "bound must be one of exact, loose; got 'tight'"),
    ({"reconstruction": "exact"}, "reconstruction 'exact' needs decoder 'linear'; got decoder 'network'"),
    ({"straight_through": "yes"}, "straight_through must be true or false; got 'yes'"),
    ({"temperature": 0}, "temperature must be a finite number above 0; got 0"),
    ({"anneal_steps": 0}, "anneal_steps must be an integer of at least 1; got 0"),
    ({"kl_ramp_steps": 0}, "kl_ramp_steps must be an integer of at least 1; got 0"),
])
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SettingError) as error:
        make(**settings)
    assert message in str(error.value)
