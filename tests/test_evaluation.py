"""Measures against numbers worked out by hand and against scikit-image."""

from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import structural_similarity

from sparse_vae.checks import SettingError
from sparse_vae.datasets import Dataset, Split
from sparse_vae.evaluation import (
    NOISES,
    activity_rates,
    add_noise,
    batched,
    explained_variance,
    knee,
    mean_squared_error,
    psnr,
    ssim,
    summarise,
)
from sparse_vae.models import MODELS, make_model
from sparse_vae.nets import count_parameters


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- reconstruction


def test_mean_squared_error_by_hand():
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    reconstruction = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert mean_squared_error(x, reconstruction).tolist() == [12.5, 0.5]  # (9 + 16)/2, (0 + 1)/2


def test_psnr_by_hand():
    x, reconstruction = torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    reconstruction[0] = 0.1  # MSE 1/100
    reconstruction[1, 0, 0, 0] = 1  # MSE 1/4
    assert psnr(x, reconstruction).tolist() == pytest.approx([20, 10 * math.log10(4), math.inf], rel=1e-5)
    assert psnr(x, reconstruction, data_range=10)[0].item() == pytest.approx(40, rel=1e-5)


def test_ssim_of_constant_images_by_hand():
    # No variance: what remains is (2ab + c) / (a² + b² + c) with c = (0.01 range)².
    a, b, c = 0.2, 0.6, 0.01**2
    value = ssim(torch.full((1, 1, 8, 8), a), torch.full((1, 1, 8, 8), b)).item()
    assert value == pytest.approx((2 * a * b + c) / (a**2 + b**2 + c), rel=1e-5)


def test_ssim_of_equal_images_is_1():
    x = random_images(2, 3, 12, 9)
    assert ssim(x, x).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(("height", "width", "window"), [(28, 28, 7), (8, 8, 7), (7, 20, 7), (6, 20, 5), (3, 3, 3)])
def test_ssim_is_that_of_scikit_image(height, width, window):
    x, y = random_images(3, 2, height, width), random_images(3, 2, height, width, seed=1)
    expected = [structural_similarity(*pair, data_range=2.0, win_size=window, channel_axis=0)
                for pair in zip(x.double().numpy(), y.double().numpy(), strict=True)]
    assert ssim(x, y, data_range=2.0).tolist() == pytest.approx(expected, rel=1e-9)


def test_ssim_needs_images():
    with pytest.raises(ValueError, match=r"compares images .* got shape \(4, 12\)"):
        ssim(torch.zeros(4, 12), torch.zeros(4, 12))
    with pytest.raises(ValueError, match="at least 3 pixels a side"):
        ssim(torch.zeros(4, 1, 2, 9), torch.zeros(4, 1, 2, 9))


@pytest.mark.parametrize("measure", [mean_squared_error, psnr, ssim, explained_variance])
def test_a_reconstruction_of_another_shape_is_refused(measure):
    with pytest.raises(SettingError, match=r"one shape; got \(5, 1, 8, 8\) and \(1, 1, 8, 8\)"):
        measure(torch.zeros(5, 1, 8, 8), torch.zeros(1, 1, 8, 8))


# --- activity


def test_explained_variance_by_hand():
    x = torch.tensor([[0.0, 1.0], [2.0, 5.0]])  # mean (1, 3), squares about it 1 + 1 + 4 + 4 = 10
    assert explained_variance(x, x) == 1
    assert explained_variance(x, x.mean(0).expand(2, 2)) == 0
    assert explained_variance(x, x + torch.tensor([1.0, 0.0])) == pytest.approx(1 - 2 / 10)
    assert explained_variance(x, -x) == pytest.approx(1 - 4 * 30 / 10)  # worse than the mean


def test_activity_rates_by_hand():
    active = torch.tensor([[True, False, True], [True, False, False], [True, False, False], [True, False, False]])
    assert activity_rates(active).tolist() == [1, 0, 0.25]


# --- noise


def test_gaussian_noise_has_the_asked_size():
    x = torch.zeros(100, 1000)
    noise = add_noise(x, "gaussian", 0.1, value_range=(-10.0, 10.0))
    assert noise.std().item() == pytest.approx(0.1 * 20, rel=0.01)  # 100,000 values: standard error 0.2%
    assert abs(noise.mean().item()) < 0.03


def test_gaussian_noise_is_clipped_to_the_range():
    noisy = add_noise(torch.full((100, 10), 0.5), "gaussian", 2.0)
    assert (noisy.min().item(), noisy.max().item()) == (0, 1)
    assert (noisy > 0).logical_and(noisy < 1).any()


def test_salt_and_pepper_replaces_a_share_with_both_extremes_alike():
    noisy = add_noise(torch.zeros(100, 1000), "salt-and-pepper", 0.3, value_range=(-2.0, 5.0))
    assert noisy.unique().tolist() == [-2, 0, 5]
    for extreme in (-2, 5):
        assert (noisy == extreme).float().mean().item() == pytest.approx(0.15, abs=0.005)  # four standard errors


def test_masking_zeroes_a_share():
    noisy = add_noise(torch.full((100, 1000), 0.5), "masking", 0.3)
    assert noisy.unique().tolist() == [0, 0.5]
    assert (noisy == 0).float().mean().item() == pytest.approx(0.3, abs=0.006)


@pytest.mark.parametrize("kind", NOISES)
def test_noise_of_level_0_changes_nothing_and_the_seed_decides_the_rest(kind):
    x = random_images(4, 1, 8, 8)
    before = x.clone()
    assert torch.equal(add_noise(x, kind, 0), x)
    noisy = add_noise(x, kind, 0.5, seed=1)
    assert torch.equal(noisy, add_noise(x, kind, 0.5, seed=1))
    assert not torch.equal(noisy, add_noise(x, kind, 0.5, seed=2))
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", ["salt-and-pepper", "masking"])
def test_noise_of_probability_1_spares_nothing(kind):
    assert not (add_noise(torch.full((9, 9), 0.5), kind, 1) == 0.5).any()


@pytest.mark.parametrize(("kind", "level", "message"), [
    ("speckle", 0.1, "noise must be one of gaussian, salt-and-pepper, masking; got 'speckle'"),
    ("gaussian", -0.1, "noise level must be .* at least 0; got -0.1"),
    ("gaussian", float("nan"), "noise level must be a finite number"),
    ("masking", 1.1, "noise level must be .* at most 1; got 1.1"),
    ("salt-and-pepper", "0.1", "noise level must be a finite number .* got '0.1'"),
])
def test_noise_that_cannot_be_is_named(kind, level, message):
    with pytest.raises(SettingError, match=message):
        add_noise(torch.zeros(1, 4), kind, level)


# --- summary


def test_batches_are_computed_without_gradients_and_put_together():
    sizes = []

    def double(batch):
        sizes.append(len(batch))
        return 2 * batch

    x = torch.arange(2500.0, requires_grad=True)
    doubled = batched(double, x)
    assert torch.equal(doubled, 2 * x.detach())
    assert not doubled.requires_grad
    assert sizes == [1000, 1000, 500]


@pytest.mark.parametrize("name", MODELS)
def test_a_summary_is_what_the_measures_say(name):
    torch.manual_seed(0)
    model, x = make_model(name, (1, 8, 8), latent_dim=3), random_images(1500, 1, 8, 8)
    summary = summarise(model, Dataset("noise", Split(x), Split(x), likelihood="bernoulli"))
    with torch.no_grad():
        reconstruction, active = model.reconstruct(x), model.active(x)
        whole_loss = model.loss(x)
    assert summary["mean_squared_error"] == pytest.approx((x - reconstruction).square().mean().item(), rel=1e-4)
    assert summary["explained_variance"] == pytest.approx(explained_variance(x, reconstruction), rel=1e-4)
    assert summary["active_fraction"] == pytest.approx(active.float().mean().item(), abs=1e-6)
    assert summary["used_dimensions"] == sum(rate >= 0.01 for rate in active.float().mean(0).tolist())
    assert summary["loss"].keys() == set(whole_loss._fields)
    assert summary["loss"]["total"] == pytest.approx(whole_loss.total.item(), rel=0.01)  # other noise, same mean
    assert (summary["latent_dim"], summary["parameters"]) == (3, count_parameters(model))
    assert summary["likelihood"] == "bernoulli"
    if model.generative:
        with torch.no_grad():
            bound = model.negative_elbo(x).mean().item()
        assert summary["negative_elbo"] == pytest.approx(bound, rel=0.01)
    else:
        assert summary["negative_elbo"] is None


def test_a_dimension_is_used_from_one_observation_in_a_hundred():
    class Fixed(MODELS["autoencoder"]):
        def active(self, x):
            return x[:, :2].bool()

    x = torch.zeros(1000, 12)
    x[:10, 0] = 1  # 1%
    x[:9, 1] = 1  # 0.9%
    model = Fixed((12,), latent_dim=2)
    summary = summarise(model, Dataset("rates", Split(x), Split(x), likelihood="bernoulli"))
    assert summary["used_dimensions"] == 1
    assert summary["active_fraction"] == pytest.approx((0.01 + 0.009) / 2)


def test_the_knee_by_hand():
    # Scaled heights 1, 3/8, 3/16, 1/16, 0 under a chord of 1, 3/4, 1/2, 1/4, 0.
    assert knee([0, 1, 2, 3, 4], [16, 6, 3, 1, 0]) == 1
    assert knee([0, 1, 2, 3], [0, 0, 0, 3]) == 2
    assert knee([1, 10, 100], [5, 5, 5]) == 0


@pytest.mark.parametrize(("x", "y"), [([0, 1], [1, 2]), ([0, 2, 1], [1, 2, 3]), ([0, 1, 2], [1, 2])])
def test_a_knee_needs_a_curve(x, y):
    with pytest.raises(SettingError, match="at least three points with increasing x"):
        knee(x, y)
