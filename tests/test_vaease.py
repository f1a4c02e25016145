"""VAEase: what its decoder sees, that closed gates are silent and cost nothing, and that it is no bound."""

from __future__ import annotations

import pytest
import torch

from sparse_vae.models import GenerativeModel, make_model
from sparse_vae.models.vae import NormalPosterior
from sparse_vae.models.vaease import FIRST_LOGIT


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(**settings):
    torch.manual_seed(0)
    return make_model("vaease", (12,), **{"latent_dim": 3, "likelihood": "gaussian", **settings})


def give(model, monkeypatch, mean: list[float], deviation: list[float], n: int = 4) -> None:
    """Let every posterior be this one."""
    posterior = NormalPosterior(torch.tensor(mean).expand(n, -1), 2 * torch.tensor(deviation).log().expand(n, -1))
    monkeypatch.setattr(model, "encode", lambda x: posterior)


def test_the_loss_from_its_equation(monkeypatch):
    model, x = make(), torch.rand(4, 12, generator=seeded(1))
    mean, deviation = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.1, 0.5, 0.9])
    give(model, monkeypatch, mean.tolist(), deviation.tolist())
    z = mean + deviation * torch.randn(4, 3, generator=seeded())
    expected = model.reconstruction_nll(x, (1 - deviation) * z).mean()
    kl = 0.5 * (mean.square() + deviation.square() - 1 - 2 * deviation.log()).sum()
    loss = model.loss(x, generator=seeded())
    assert loss.reconstruction.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.kl.item() == pytest.approx(kl.item(), rel=1e-5)
    assert loss.total == loss.reconstruction + loss.kl
    assert torch.allclose(model.code(x), (1 - deviation) * mean)


def test_a_dimension_whose_posterior_is_the_prior_is_silent_and_costs_nothing(monkeypatch):
    model, x = make(), torch.rand(4, 12, generator=seeded(1))
    give(model, monkeypatch, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    losses = [model.loss(x, generator=seeded(seed)) for seed in (0, 1)]
    assert losses[0].kl == 0
    assert losses[0] == losses[1]  # no noise reaches the decoder
    assert not model.active(x).any()
    give(model, monkeypatch, [0.0, 1.0, 0.0], [1.0, 0.5, 0.99])
    assert model.active(x).tolist() == [[False, True, False]] * 4


def test_deviations_stay_below_one_and_start_with_open_gates():
    model = make()
    x = torch.randn(50, 12, generator=seeded())
    torch.nn.init.normal_(model.encoder[-1].weight, std=3.0, generator=seeded())
    assert (model.encode(x).log_variance <= 0).all()
    torch.nn.init.zeros_(model.encoder[-1].weight)
    torch.nn.init.zeros_(model.encoder[-1].bias)
    variance = model.encode(x).log_variance.exp()
    assert torch.allclose(variance, torch.tensor(FIRST_LOGIT).sigmoid().expand_as(variance))


def test_there_is_no_bound_to_report():
    assert not isinstance(make(), GenerativeModel)
