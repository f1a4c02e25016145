"""Sparse autoencoders: objectives worked out by hand, dead units that come back, thresholds, settings."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import grad

from sparse_vae.checks import SettingError
from sparse_vae.datasets.base import Dataset, Split
from sparse_vae.models import make_model
from sparse_vae.training import TrainingSettings, train

FEATURES, UNITS = 12, 10
NAMES = ["sparse-autoencoder-l1", "sparse-autoencoder-kl", "topk", "batchtopk", "matryoshka", "jumprelu", "gated"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(name, **settings):
    torch.manual_seed(0)
    return make_model(name, (FEATURES,), **{"latent_dim": UNITS, "likelihood": "gaussian", **settings})


def observations(n: int = 7) -> torch.Tensor:
    return torch.randn(n, FEATURES, generator=seeded(1))


def test_the_l1_objective_by_hand():
    model, x = make("sparse-autoencoder-l1", sparsity_weight=0.3), observations()
    code = model.encoder(x).relu()
    loss = model.loss(x)
    assert torch.equal(model.code(x), code)
    assert (code == 0).any()
    assert loss.sparsity.item() == pytest.approx(0.3 * code.abs().sum(1).mean().item(), rel=1e-6)
    assert loss.reconstruction.item() == pytest.approx(model.reconstruction_nll(x, code).mean().item())


@pytest.mark.parametrize("name", NAMES)
def test_no_unit_is_on_or_off_for_all_at_the_start(name):
    model = make(name, decoder="linear")
    x = 5 + 2 * observations(300)
    model.prepare(x)
    before = model.encoder(x)
    middle = math.log(0.1 / 0.9) if name == "sparse-autoencoder-kl" else 0
    assert before.mean(0).tolist() == pytest.approx([middle] * UNITS, abs=1e-5)
    assert ((before > middle).any(0) & (before < middle).any(0)).all()
    nothing = model.decode_mean(torch.zeros(1, UNITS))[0]
    assert nothing.tolist() == pytest.approx(x.mean(0).tolist(), abs=1e-5)
    deviation = (x - x.mean(0)).square().mean().sqrt().item()
    assert model.log_scale.exp().item() == pytest.approx(deviation / 3, rel=1e-5)


@pytest.mark.parametrize("backbone", ["conv", "mlp"])
def test_images_start_at_their_mean_too(backbone):
    model = make_model("topk", (2, 8, 8), latent_dim=4, backbone=backbone)
    x = torch.rand(50, 2, 8, 8, generator=seeded()) * torch.tensor([0.2, 0.9]).view(2, 1, 1)
    model.prepare(x)
    bias = model.decoder[-1 if backbone == "conv" else -2].bias.sigmoid()
    mean = x.mean((0, 2, 3)) if backbone == "conv" else x.mean(0).flatten()
    assert bias.tolist() == pytest.approx(mean.tolist(), abs=1e-5)


def test_the_kl_objective_by_hand():
    model, x = make("sparse-autoencoder-kl", sparsity_weight=2.0, target_rate=0.2), observations()
    code = model.encoder(x).sigmoid()
    rates = code.mean(0)
    divergence = 0.2 * torch.log(0.2 / rates) + 0.8 * torch.log(0.8 / (1 - rates))
    assert torch.equal(model.code(x), code)
    assert torch.equal(model.active(x), code > 0.4)
    assert model.loss(x).sparsity.item() == pytest.approx(2 * divergence.sum().item(), rel=1e-5)
    assert model.rate_divergence(torch.tensor([0.2])).item() == pytest.approx(0, abs=1e-6)
    assert model.rate_divergence(torch.tensor([0.0, 1.0])).isfinite().all()


def test_a_running_mean_has_the_gradient_of_the_batch():
    x = observations()
    models = [make("sparse-autoencoder-kl", mean_over=kind) for kind in ("batch", "running")]
    rates = models[0].code(x).mean(0)
    torch.nn.init.constant_(models[1].running_rate, 0.5)
    models[1].loss(x)
    assert torch.allclose(models[1].running_rate, 0.99 * 0.5 + 0.01 * rates, atol=1e-6)
    models[1].running_rate.copy_(rates.detach())  # where both means agree, so do the gradients
    models[1].eval()
    gradients = [grad(model.loss(x).sparsity, model.encoder[-1].weight)[0] for model in models]
    assert torch.allclose(*gradients, atol=1e-6)
    before = models[1].running_rate.clone()
    models[1].loss(x + 1)
    assert torch.equal(models[1].running_rate, before)  # measuring leaves no trace


def test_topk_keeps_the_k_largest():
    model, x = make("topk", k=3), observations()
    activations = model.activations(x)
    code = model.code(x)
    for row, kept in zip(activations, code, strict=True):
        largest = row.sort(descending=True).values[:3]
        assert sorted(kept[kept > 0].tolist()) == sorted(largest[largest > 0].tolist())
    assert ((code == 0) | (code == activations)).all()


def test_a_tenth_of_the_units_or_four_are_kept_by_default():
    assert [make("topk", latent_dim=J).k for J in (1, 9, 50, 256)] == [1, 4, 5, 25]


def test_the_auxiliary_term_by_hand():
    """A linear decoder: dead units explain what the others leave, and only they are told so."""
    model, x = make("topk", k=2, decoder="linear", auxiliary_k=2, auxiliary_weight=0.5, dead_after=100), observations()
    assert model.loss(x).auxiliary == 0
    model.unused_for[[1, 4, 5]] = 100
    residual = x - model.decode(model.code(x))
    dead = model.encoder(x) * torch.isin(torch.arange(UNITS), torch.tensor([1, 4, 5]))
    smallest = model.encoder(x)[:, [1, 4, 5]].argmin(1)
    dead[torch.arange(len(x)), torch.tensor([1, 4, 5])[smallest]] = 0  # the largest two of three
    explained = dead @ model.decoder[0].weight.T
    expected = 0.5 * (0.5 * (residual - explained).square().sum(1) + 0.5 * FEATURES * math.log(2 * math.pi)).mean()
    loss = model.loss(x)
    assert loss.auxiliary.item() == pytest.approx(expected.item(), rel=1e-5)
    alive, = grad(loss.auxiliary, model.encoder[-1].weight)
    used = {1, 4, 5}
    assert {row for row in range(UNITS) if alive[row].any()} <= used


def test_dead_units_before_a_network_are_asked_where_the_code_is():
    model, x = make("topk", k=2, auxiliary_weight=0.5, dead_after=100), observations()
    model.unused_for[[1, 4]] = 100
    dead = torch.where(model.unused_for > 0, model.encoder(x), 0)
    expected = 0.5 * model.nll(x, model.decode(model.code(x) + dead)).mean()
    assert model.loss(x).auxiliary.item() == pytest.approx(expected.item(), rel=1e-5)


def test_units_are_counted_as_unused_in_training_alone():
    model, x = make("topk", k=2), observations()
    used = (model.code(x) > 0).any(0)
    model.eval().loss(x)
    assert not model.unused_for.any()
    model.train().loss(x)
    model.loss(x)
    assert torch.equal(model.unused_for, torch.where(used, 0, 2 * len(x)))


def test_batchtopk_spends_k_on_average_and_a_threshold_at_test_time():
    model, x = make("batchtopk", k=2), observations()
    activations = model.activations(x)
    code = model.training_code(activations)
    positive = activations[activations > 0].sort(descending=True).values
    kept = min(2 * len(x), len(positive))
    assert (code > 0).sum() == kept
    assert model.threshold.item() == pytest.approx(0.01 * positive[kept - 1].item(), rel=1e-5)
    model.threshold.fill_(positive[3])
    assert (model.eval().code(x) > 0).sum() == 3
    assert torch.equal(model.training_code(activations), model.code(x))


@pytest.mark.heavy
def test_the_threshold_lets_about_k_through():
    x = torch.randn(2000, FEATURES, generator=seeded(2))
    model = make("batchtopk", k=3)
    train(model, Dataset("noise", Split(x[:1800]), Split(x[1800:]), "gaussian"),
          TrainingSettings(epochs=10, batch_size=20), progress=False)
    assert (model.code(x[1800:]) > 0).float().sum(1).mean().item() == pytest.approx(3, rel=0.15)


def test_the_threshold_follows_a_short_training_too():
    model, x = make("batchtopk", k=2), observations(40)
    smallest = []
    for step, batch in enumerate(x.split(2)):  # over the last batch alone at first, then over a tenth of the steps
        activations = model.activations(batch)
        code = model.training_code(activations, step)
        smallest.append(code[code > 0].min().item())
        if step in (0, 9, 10):
            assert model.threshold.item() == pytest.approx(smallest[-1])
    before = model.threshold.item()
    model.loss(x[:2], step=20)
    assert model.threshold.item() == pytest.approx((before + smallest[0]) / 2)
    before = model.threshold.item()
    for step in (1000, 5000, None):
        model.threshold.fill_(before)
        model.loss(x[:2], step=step)
        assert model.threshold.item() == pytest.approx(0.99 * before + 0.01 * smallest[0])


def test_jumprelu_by_hand():
    model, x = make("jumprelu", sparsity_weight=0.7, first_threshold=0.2, bandwidth=0.1), observations()
    activation = model.encoder(x)
    code = torch.where(activation > 0.2, activation, 0)
    assert torch.allclose(model.code(x), code)
    loss = model.loss(x)
    assert loss.sparsity.item() == pytest.approx(0.7 * (activation > 0.2).float().sum(1).mean().item(), rel=1e-6)
    # d/dln θ of the expected count: −θ K((a − θ)/ε)/ε
    kernel = (-0.5 * ((activation - 0.2) / 0.1).square()).exp() / math.sqrt(2 * math.pi) / 0.1
    slope, = grad(loss.sparsity, model.log_threshold, retain_graph=True)
    assert torch.allclose(slope, -0.7 * 0.2 * kernel.mean(0) * (len(x) / len(x)), rtol=1e-4)
    through, = grad(loss.sparsity, model.encoder[-1].weight, allow_unused=True)
    assert through is None or not through.any()


@pytest.mark.parametrize("decoder", ["network", "linear"])
def test_prefixes_have_to_do_without_the_rest(decoder):
    model, x = make("matryoshka", k=4, decoder=decoder, prefixes=3), observations()
    with torch.no_grad():
        model.log_scale.fill_(-0.5)
    plain = make("batchtopk", k=4, decoder=decoder)
    plain.load_state_dict(model.state_dict())
    assert model.lengths == [2, 5, 10]
    loss, expected = model.loss(x), plain.loss(x)
    code = plain.training_code(model.activations(x))
    by_hand = [model.nll(x, model.decode(code * (torch.arange(UNITS) < length))).mean().item() for length in (2, 5, 10)]
    assert loss.reconstruction.item() == pytest.approx(by_hand[2]) == expected.reconstruction.item()
    assert loss.prefixes.item() == pytest.approx(sum(by_hand[:2]), rel=1e-5)
    assert loss.total.item() == pytest.approx(sum(by_hand), rel=1e-5)
    # The scale is the whole code's.
    slopes = [grad(term, model.log_scale, retain_graph=True)[0] for term in (loss.total, loss.reconstruction)]
    assert slopes[0] == slopes[1]


def test_a_code_of_one_unit_has_one_prefix():
    assert [make("matryoshka", latent_dim=J).lengths for J in (1, 2, 17)] == [[1], [1, 2], [1, 2, 4, 8, 17]]


@pytest.mark.parametrize("decoder", ["network", "linear"])
def test_the_gated_objective_by_hand(decoder):
    model, x = make("gated", sparsity_weight=0.3, decoder=decoder), observations()
    with torch.no_grad():
        model.log_ratio.copy_(torch.linspace(-1, 1, UNITS))
        model.magnitude_bias.copy_(torch.linspace(0.5, -0.5, UNITS))
    last = model.encoder[-1]
    before = model.encoder[:-1](x) @ last.weight.T
    gates = before + last.bias
    magnitudes = (before * torch.linspace(-1, 1, UNITS).exp() + torch.linspace(0.5, -0.5, UNITS)).relu()
    code = (gates > 0) * magnitudes
    assert torch.allclose(model.code(x), code, atol=1e-6)
    assert ((code == 0) & (gates > 0)).any()
    loss = model.loss(x)
    assert loss.reconstruction.item() == pytest.approx(model.nll(x, model.decode(code)).mean().item(), rel=1e-5)
    assert loss.sparsity.item() == pytest.approx(0.3 * gates.relu().sum(1).mean().item(), rel=1e-5)
    auxiliary = model.nll(x, model.decode(gates.relu())).mean()
    assert loss.auxiliary.item() == pytest.approx(auxiliary.item(), rel=1e-5)
    # The auxiliary term teaches the gates, and neither the decoder, σ nor the magnitudes.
    names, parameters = zip(*model.named_parameters(), strict=True)
    moved = grad(loss.auxiliary, parameters, retain_graph=True, allow_unused=True)
    assert {name.split(".")[0] for name, slope in zip(names, moved, strict=True) if slope is not None} == {"encoder"}
    own, expected = (grad(term, model.encoder.parameters(), retain_graph=True) for term in (loss.auxiliary, auxiliary))
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(own, expected, strict=True))
    # The gates' own bias hears nothing from the reconstruction.
    assert grad(loss.reconstruction, last.bias)[0].abs().max() < 1e-5


@pytest.mark.parametrize("decoder", ["network", "linear"])
@pytest.mark.parametrize("name", [*(name for name in NAMES if name != "sparse-autoencoder-kl"), "matching-pursuit"])
def test_columns_keep_norm_one(name, decoder):
    x = torch.randn(300, FEATURES, generator=seeded(2))
    model = make(name, decoder=decoder)
    layer = model.dictionary if name == "matching-pursuit" else model.decoder[0]
    train(model, Dataset("noise", Split(x[:200]), Split(x[200:]), "gaussian"),
          TrainingSettings(epochs=2, batch_size=20, learning_rate=1e-2), progress=False)
    assert torch.allclose(layer.weight.norm(dim=0), torch.ones(UNITS), atol=1e-5)


@pytest.mark.heavy
def test_dead_units_come_back():
    """Every unit of the lower half begins far below 0: without the auxiliary term it stays there."""
    atoms = torch.nn.functional.normalize(torch.randn(20, FEATURES, generator=seeded(2)), dim=1)
    codes = torch.rand(2200, 20, generator=seeded(3)) * (torch.rand(2200, 20, generator=seeded(4)) < 0.1)
    x = codes @ atoms
    data = Dataset("sums", Split(x[:2000]), Split(x[2000:]), "gaussian")
    alive = {}
    for weight in (0.0, 1.0):
        model = make("topk", k=2, decoder="linear", auxiliary_weight=weight, dead_after=200, latent_dim=20)
        with torch.no_grad():
            model.encoder[-1].bias[10:] = -0.3
        train(model, data, TrainingSettings(epochs=6, batch_size=20, learning_rate=5e-3), progress=False)
        alive[weight] = int((model.code(x[2000:]) > 0).any(0).sum())
    assert alive[1.0] > alive[0.0] + 3, alive


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("topk", {"k": 11}, "k must be at most latent_dim, 10; got 11"),
    ("batchtopk", {"k": 0}, "k must be an integer of at least 1; got 0"),
    ("topk", {"k": 2.5}, "k must be an integer of at least 1; got 2.5"),
    ("topk", {"auxiliary_weight": -1}, "auxiliary_weight must be"),
    ("topk", {"dead_after": 0}, "dead_after must be"),
    ("sparse-autoencoder-l1", {"sparsity_weight": -0.1}, "sparsity_weight must be"),
    ("sparse-autoencoder-kl", {"target_rate": 0}, "target_rate must be"),
    ("sparse-autoencoder-kl", {"target_rate": 1}, "target_rate must be .* below 1; got 1"),
    ("sparse-autoencoder-kl", {"mean_over": "epoch"}, "mean_over must be"),
    ("matryoshka", {"prefixes": 5}, "prefixes must be at most 4, as often as latent_dim, 10, can be .*got 5"),
    ("matryoshka", {"prefixes": 0}, "prefixes must be an integer of at least 1; got 0"),
    ("gated", {"sparsity_weight": -0.1}, "sparsity_weight must be"),
    ("jumprelu", {"bandwidth": 0}, "bandwidth must be"),
    ("jumprelu", {"first_threshold": -1}, "first_threshold must be"),
])
def test_settings_out_of_range_are_refused(name, settings, message):
    with pytest.raises(SettingError, match=message):
        make(name, **settings)
