"""The ternary distribution: samples against probabilities, the straight-through value to the last digit, the KL."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import grad
from torch.distributions import kl_divergence

from sparse_vae.distributions import Ternary

SAMPLES = 200_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ternary(*probabilities: float) -> Ternary:
    return Ternary(torch.tensor(probabilities, dtype=torch.float64).log())


def test_moments_by_hand():
    distribution = ternary(0.1, 0.6, 0.3)
    assert distribution.mean.item() == pytest.approx(0.2)
    assert distribution.presence.item() == pytest.approx(0.4)
    assert distribution.variance.item() == pytest.approx(0.4 - 0.04)
    assert distribution.entropy().item() == pytest.approx(-sum(p * math.log(p) for p in (0.1, 0.6, 0.3)))
    assert distribution.log_prob(torch.tensor([-1, 0, 1])).exp().tolist() == pytest.approx([0.1, 0.6, 0.3])


@pytest.mark.parametrize("draw", ["sample", "rsample"])
def test_samples_have_the_probabilities(draw):
    signs = getattr(ternary(0.1, 0.6, 0.3), draw)((SAMPLES,), generator=seeded())
    assert signs.shape == (SAMPLES,)
    assert set(signs.unique().tolist()) == {-1, 0, 1}  # straight-through values are exact
    for sign, probability in zip((-1, 0, 1), (0.1, 0.6, 0.3), strict=True):
        assert (signs == sign).double().mean().item() == pytest.approx(probability, abs=0.005)


def test_relaxed_samples_lie_between_and_sharpen():
    distribution = ternary(0.2, 0.5, 0.3)
    signs = {tau: distribution.rsample((SAMPLES,), temperature=tau, straight_through=False, generator=seeded())
             for tau in (1.0, 0.01)}
    assert all((value.abs() <= 1).all() for value in signs.values())
    exact = distribution.rsample((SAMPLES,), generator=seeded())
    assert (signs[0.01] - exact).abs().mean() < 0.02 < 0.2 < (signs[1.0] - exact).abs().mean()


def test_the_gradient_of_the_mean_points_where_the_mean_goes():
    """Of E[δ]: biased by the relaxation, and of the sign and about the size of the exact one."""
    logits = torch.tensor([0.3, 0.5, -0.2], dtype=torch.float64).requires_grad_()
    exact, = grad(Ternary(logits).mean, logits)
    found, = grad(Ternary(logits).rsample((SAMPLES,), temperature=0.3, generator=seeded()).mean(), logits)
    assert torch.allclose(found, exact, atol=0.1)
    assert torch.equal(found.sign()[[0, 2]], exact.sign()[[0, 2]])


def test_the_divergence_is_the_sum():
    p, q = ternary(0.1, 0.6, 0.3), ternary(0.05, 0.9, 0.05)
    by_hand = 0.1 * math.log(2) + 0.6 * math.log(0.6 / 0.9) + 0.3 * math.log(6)
    assert kl_divergence(p, q).item() == pytest.approx(by_hand)
    assert kl_divergence(p, p).item() == 0


def test_extreme_logits_give_numbers():
    logits = torch.tensor([[-80.0, 0, 80], [0, 200, 0], [1e4, 0, -1e4]]).requires_grad_()
    distribution = Ternary(logits)
    signs = distribution.rsample((1000,), generator=seeded())
    divergence = kl_divergence(distribution, Ternary(torch.zeros(3, 3)))
    gradients = grad(signs.sum() + divergence.sum(), logits)[0]
    assert all(value.isfinite().all() for value in (signs, divergence, gradients, distribution.entropy()))


def test_shapes_and_what_is_refused():
    distribution = Ternary(torch.zeros(4, 1, 3)).expand((4, 5))
    assert distribution.batch_shape == (4, 5)
    assert distribution.sample((2,)).shape == distribution.rsample((2,)).shape == (2, 4, 5)
    assert distribution.log_prob(torch.zeros(2, 4, 5)).shape == (2, 4, 5)
    with pytest.raises(ValueError, match=r"for −1, 0 and \+1; got shape \(2,\)"):
        Ternary(torch.zeros(2))
    for ternary in (Ternary(torch.zeros(3)), Ternary(torch.zeros(3)).expand((1,))):
        with pytest.raises(ValueError, match="within the support"):
            ternary.log_prob(torch.tensor(2))
    assert Ternary(torch.zeros(3), validate_args=False).expand((1,)).log_prob(torch.tensor(2)).shape == (1,)


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
def test_a_temperature_that_cannot_be_is_named(temperature):
    with pytest.raises(ValueError, match="temperature must be a finite number above 0; got"):
        Ternary(torch.zeros(3)).rsample(temperature=temperature)
