"""Measures against numbers worked out by hand and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from skimage.metrics import structural_similarity
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from sparse_vae.checks import SettingError
from sparse_vae.datasets import load_dataset
from sparse_vae.evaluation import (
    NOISES,
    Components,
    activity_rates,
    add_noise,
    batched,
    code_usage,
    explained_variance,
    extent,
    knee,
    mean_squared_error,
    psnr,
    robust_threshold,
    sample_quality,
    set_distances,
    ssim,
)
from sparse_vae.models import MODELS


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- sets of active dimensions, extent, thresholds


def test_distances_of_sets_are_those_of_scipy():
    sets = random_images(40, 9) < 0.3
    expected = cdist(sets.numpy(), sets.numpy()[:7], "jaccard")
    assert np.allclose(set_distances(sets, sets[:7]).numpy(), expected, atol=1e-6)
    with pytest.raises(SettingError, match="the same dimensions; got 9 and 8"):
        set_distances(sets, sets[:, :8])


def test_the_extent_is_the_smallest_set_that_is_enough():
    features = random_images(20, 3, 5)
    for feature, found in zip(features, extent(features, 0.6), strict=True):
        values = sorted(feature.flatten().tolist(), reverse=True)
        count = round(found.item() * 15)
        assert sum(values[:count]) >= 0.6 * sum(values) > sum(values[:count - 1])
    assert extent(torch.ones(1, 10)).item() == pytest.approx(0.9)
    assert extent(torch.zeros(1, 10)).item() == 0


def test_a_robust_threshold_is_that_of_a_normal_variable():
    codes = 3 + 2 * torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    centre, threshold = robust_threshold(codes)
    assert (centre.item(), threshold.item()) == (pytest.approx(3, abs=0.02), pytest.approx(5, rel=0.02))


# --- samples


def test_sample_quality_is_what_its_definitions_say():
    a, b = random_images(60, 4), random_images(50, 4, seed=1) + 0.2
    found = sample_quality(a, b, 3)
    covariances = np.cov(a.T, ddof=0), np.cov(b.T, ddof=0)
    expected = ((a.mean(0) - b.mean(0)).square().sum().item()
                + np.trace(covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real))
    assert found.frechet == pytest.approx(expected, rel=1e-4)
    apart = cdist(a, b)
    near = [NearestNeighbors(n_neighbors=3).fit(points).kneighbors()[0][:, 2] for points in (a, b)]
    assert found.precision == pytest.approx((apart <= near[0][:, None]).any(0).mean())
    assert found.recall == pytest.approx((apart <= near[1]).any(1).mean())
    both, kinds = torch.cat([a, b]), np.repeat([0, 1], [60, 50])
    nearest = NearestNeighbors(n_neighbors=1).fit(both).kneighbors()[1][:, 0]
    assert found.detection == pytest.approx((kinds == kinds[nearest]).mean())
    with pytest.raises(SettingError, match="got shapes"):
        sample_quality(a, b[:, :3])
    with pytest.raises(SettingError, match="k must be"):
        sample_quality(a, b, 50)


def test_components_are_those_of_scikit_learn():
    x = random_images(200, 1, 3, 3) * torch.arange(1.0, 10).view(1, 1, 3, 3)
    found = Components.of(x, 4).coordinates(x).abs().sort(dim=1).values
    expected = np.sort(np.abs(PCA(4).fit_transform(x.flatten(1).numpy())), axis=1)
    assert np.allclose(found.numpy(), expected, atol=1e-3)
    assert Components.of(x, 50).directions.shape == (9, 9)


def test_components_of_drawn_pictures_are_found():
    faces = load_dataset("smiley", n_train=3000, n_test=10).train.x  # most pixels never vary
    found = Components.of(faces, 50)
    assert torch.allclose(found.directions.T @ found.directions, torch.eye(50), atol=1e-4)
    assert found.coordinates(faces).isfinite().all()


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


def test_a_dimension_is_used_from_one_observation_in_a_hundred():
    class Fixed(MODELS["autoencoder"]):
        def active(self, x):
            return x[:, :2].bool()

    x = torch.zeros(1000, 12)
    x[:10, 0] = 1  # 1%
    x[:9, 1] = 1  # 0.9%
    model = Fixed((12,), latent_dim=2)
    usage = code_usage(model, x)
    assert usage["used_dimensions"] == 1
    assert usage["active_fraction"] == pytest.approx((0.01 + 0.009) / 2)


def test_the_knee_by_hand():
    # Scaled heights 1, 3/8, 3/16, 1/16, 0 under a chord of 1, 3/4, 1/2, 1/4, 0.
    assert knee([0, 1, 2, 3, 4], [16, 6, 3, 1, 0]) == 1
    assert knee([0, 1, 2, 3], [0, 0, 0, 3]) == 2
    assert knee([1, 10, 100], [5, 5, 5]) == 0


@pytest.mark.parametrize(("x", "y"), [([0, 1], [1, 2]), ([0, 2, 1], [1, 2, 3]), ([0, 1, 2], [1, 2])])
def test_a_knee_needs_a_curve(x, y):
    with pytest.raises(SettingError, match="at least three points with increasing x"):
        knee(x, y)
