"""Noise to remove: the three kinds that the denoising figures use."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_vae.checks import check_choice, check_number

NOISES = ("gaussian", "salt-and-pepper", "masking")


def add_noise(x: Tensor, kind: str, level: float, *, value_range: tuple[float, float] = (0.0, 1.0),
              seed: int = 0) -> Tensor:
    """A noisy copy of ``x``.

    Args:
        x: observations, any shape.
        kind: ``"gaussian"``: adds noise of standard deviation ``level`` times the range, then clips to the range;
            ``"salt-and-pepper"``: each value becomes, with probability ``level``, the smallest or the largest, with
            equal chances; ``"masking"``: each value becomes 0 with probability ``level`` (Vincent et al. 2010,
            section 4.2).
        level: at least 0; a probability is at most 1.
        value_range: the smallest and the largest value that an observation can take.
        seed: the same seed gives the same noise.

    Raises:
        SettingError: an unknown kind, or a level out of range.

    >>> add_noise(torch.ones(6), "masking", 0.5)
    tensor([0., 1., 0., 0., 0., 1.])
    """
    check_choice("noise", kind, NOISES)
    check_number("noise level", level, minimum=0, maximum=None if kind == "gaussian" else 1)
    low, high = value_range
    generator = torch.Generator().manual_seed(seed)
    if kind == "gaussian":
        return (x + level * (high - low) * torch.randn(x.shape, generator=generator)).clamp(low, high)
    hit = torch.rand(x.shape, generator=generator) < level
    if kind == "masking":
        return x.masked_fill(hit, 0)
    extreme = torch.where(torch.rand(x.shape, generator=generator) < 0.5, low, high).to(x)
    return torch.where(hit, extreme, x)
