"""How close a reconstruction is to its original."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse_vae.checks import check_same_shape

SSIM_WINDOW = 7


def mean_squared_error(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Squared error of each observation, mean over its features, ``(n,)``, in squared units of ``x``.

    Args:
        x, reconstruction: ``(n, *features)``.

    Raises:
        SettingError: two shapes.

    >>> mean_squared_error(torch.zeros(1, 4), torch.tensor([[2.0, 0.0, 0.0, 0.0]]))
    tensor([1.])
    """
    check_same_shape(x=x, reconstruction=reconstruction)
    return (x - reconstruction).square().flatten(1).mean(1)


def psnr(x: Tensor, reconstruction: Tensor, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio 10 log₁₀(range² / MSE) of each observation, ``(n,)``, in decibels.

    Args:
        x, reconstruction: ``(n, *features)``.
        data_range: distance between the smallest and the largest value that ``x`` can take.

    Returns:
        Decibels; infinite where the reconstruction is exact.

    Raises:
        SettingError: two shapes.

    >>> psnr(torch.zeros(1, 4), torch.full((1, 4), 0.1)).round(decimals=3)
    tensor([20.])
    """
    return 10 * torch.log10(data_range**2 / mean_squared_error(x, reconstruction))


def ssim(x: Tensor, reconstruction: Tensor, data_range: float = 1.0) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each image, ``(n,)``, at most 1: the mean over windows of

        (2 μ_x μ_y + c₁) (2 σ_xy + c₂) / ((μ_x² + μ_y² + c₁) (σ_x² + σ_y² + c₂))

    with c₁ = (0.01 range)² and c₂ = (0.03 range)². All windows of 7×7 pixels that lie in the image, or of the largest
    odd size that fits a smaller one, unweighted, with sample variances: what scikit-image computes by default. In
    double precision.

    Args:
        x, reconstruction: images, ``(n, channels, height, width)``.
        data_range: distance between the smallest and the largest value a pixel can take.

    Raises:
        ValueError: not images, a side shorter than 3 pixels, or two shapes.

    >>> x = torch.rand(1, 1, 8, 8)
    >>> ssim(x, x)
    tensor([1.], dtype=torch.float64)
    """
    check_same_shape(x=x, reconstruction=reconstruction)
    if x.ndim != 4:
        raise ValueError(f"ssim compares images (n, channels, height, width); got shape {tuple(x.shape)}")
    side = min(x.shape[2:])
    if side < 3:
        raise ValueError(f"ssim needs images of at least 3 pixels a side; got {tuple(x.shape[2:])}")
    window = min(SSIM_WINDOW, side - 1 + side % 2)

    def means(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, stride=1)

    a, b = x.detach().double(), reconstruction.detach().double()
    mean_a, mean_b = means(a), means(b)
    unbiased = window**2 / (window**2 - 1)
    squares, product = mean_a.square() + mean_b.square(), mean_a * mean_b
    variances, covariance = unbiased * (means(a.square() + b.square()) - squares), unbiased * (means(a * b) - product)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return similarity.mean(dim=(1, 2, 3))
