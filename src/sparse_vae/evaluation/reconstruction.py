"""How close a reconstruction is to its original."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_vae.checks import check_same_shape

SSIM_WINDOW = 7


def mean_squared_error(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Squared error of each observation, mean over its features, ``(n,)``, in squared units of ``x``.

    Args:
        x, reconstruction: ``(n, *features)``.

    Raises:
        SettingError: two shapes.
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
    """
    return 10 * torch.log10(data_range**2 / mean_squared_error(x, reconstruction))


def ssim(x: Tensor, reconstruction: Tensor, data_range: float = 1.0) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each image, ``(n,)``, at most 1; scikit-image's implementation.

    Windows of 7×7 pixels, or the largest odd window that fits a smaller image.

    Args:
        x, reconstruction: images, ``(n, channels, height, width)``.
        data_range: distance between the smallest and the largest value a pixel can take.

    Raises:
        ValueError: not images, a side shorter than 3 pixels, or two shapes.
    """
    check_same_shape(x=x, reconstruction=reconstruction)
    if x.ndim != 4:
        raise ValueError(f"ssim compares images (n, channels, height, width); got shape {tuple(x.shape)}")
    side = min(x.shape[2:])
    if side < 3:
        raise ValueError(f"ssim needs images of at least 3 pixels a side; got {tuple(x.shape[2:])}")
    window = min(SSIM_WINDOW, side - 1 + side % 2)
    from skimage.metrics import structural_similarity  # imported here: it takes half a second

    # One call for all images, one below the other: windows that reach into a neighbour are within the margin that each
    # image's mean leaves out.
    columns = (part.detach().cpu().double().flatten(0, 2).numpy() for part in (x, reconstruction))
    _, similarity = structural_similarity(*columns, data_range=data_range, win_size=window, full=True)
    margin = window // 2
    return torch.as_tensor(similarity).view(x.shape)[..., margin:-margin, margin:-margin].mean(dim=(1, 2, 3))
