"""Codes moved by hand: what the decoder of a run makes of them, as pictures for :mod:`sparse_vae.report.figures`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparse_vae.evaluation import batched
from sparse_vae.report.figures import as_pictures
from sparse_vae.report.run_sets import Run


def span(values: Tensor, n: int, *, tail: float = 0.02, with_zero: bool = False) -> Tensor:
    """``n`` evenly spaced values of a dimension, from the lower to the upper end of those that it takes, ``(n,)``.

    Args:
        values: its codes of many observations, ``(m,)``; exact zeros, where it is not active, do not count.
        n: how many values.
        tail: leave out this share of the codes at each end, in [0, ½).
        with_zero: go on to 0 where that lies outside.

    Returns:
        Those values; from −1 to 1 for a dimension that takes less than two.

    >>> span(torch.tensor([0.0, 2.0, 3.0, 4.0]), 3, tail=0.0)
    tensor([2., 3., 4.])
    """
    taken = values[values != 0]
    if len(taken) < 2:
        return torch.linspace(-1, 1, n)
    low, high = taken.quantile(torch.tensor([tail, 1 - tail])).tolist()
    return torch.linspace(min(low, 0.0) if with_zero else low, max(high, 0.0) if with_zero else high, n)


def decoded(run: Run, z: Tensor) -> np.ndarray:
    """Codes ``(…, J)``, decoded: pictures ``(…, channels, height, width)`` in [0, 1]."""
    means = batched(run.model.decode_mean, z.flatten(0, -2)).unflatten(0, z.shape[:-1])
    return as_pictures(means, leading=z.ndim - 1, limits=run.dataset.value_range)


def plane(run: Run, across: int, up: int, n: int, *, tail: float = 0.02) -> tuple[np.ndarray, list[float]]:
    """A regular grid of codes in the plane of two dimensions, decoded; the others stay at the mean of the test codes.

    Args:
        run: whose model decodes, and whose test codes say where the dimensions lie.
        across, up: the dimension that rises to the right, and the one that rises to the top.
        n: pictures along each side.
        tail: see :func:`span`.

    Returns:
        Pictures ``(n, n, channels, height, width)`` in [0, 1], the first row at the top, and the values of the
        dimensions at the left, right, bottom and top edge.
    """
    codes = run.subject.codes
    x, y = (span(codes[:, dimension], n, tail=tail) for dimension in (across, up))
    z = codes.mean(0).repeat(n, n, 1)
    z[..., across] = x
    z[..., up] = y.flip(0)[:, None]
    return decoded(run, z), [*x[[0, -1]].tolist(), *y[[0, -1]].tolist()]


def traverse(run: Run, start: Tensor, dimensions: Sequence[int], n: int = 9, *, tail: float = 0.02,
             with_zero: bool = False) -> np.ndarray:
    """A row of pictures for each dimension, which moves alone over its :func:`span` of the test codes.

    Args:
        run: whose model decodes, and whose test codes say where each dimension lies.
        start: the code that the others stay at, ``(J,)``.
        dimensions: which ones to move.
        n: pictures in a row.
        tail, with_zero: see :func:`span`.

    Returns:
        ``(dimensions, n, channels, height, width)`` in [0, 1].
    """
    z = start.repeat(len(dimensions), n, 1)
    for row, dimension in zip(z, dimensions, strict=True):
        row[:, dimension] = span(run.subject.codes[:, dimension], n, tail=tail, with_zero=with_zero)
    return decoded(run, z)
