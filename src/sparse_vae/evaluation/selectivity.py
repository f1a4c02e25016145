r"""Which dimensions stand for a class.

    selectivity    s_j = (m_j,best − m_j,others) / (m_j,best + m_j,others)       Morcos et al. 2018, section A.2

with m_jc the mean of |z_j| over the observations of class c, "best" the class with the largest, and "others" the mean
of m_jc over the other classes. 1 is a dimension that is active for one class alone, 0 one that is as large for all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparse_vae.checks import SettingError


class Selectivity(NamedTuple):
    """The index and the class of the largest mean, ``(latent_dim,)``, and means of |z|, ``(classes, latent_dim)``."""

    index: Tensor  # type: ignore[assignment]
    preferred: Tensor
    means: Tensor


def class_selectivity(codes: Tensor, labels: Tensor) -> Selectivity:
    """How much each dimension prefers one class to the others.

    A dimension that is never active has an index of 0. Even noise has a positive index, because the best class is
    chosen after the fact; compare with the index for shuffled labels.

    Args:
        codes: ``(n, latent_dim)``, 0 where inactive.
        labels: int64, ``(n,)``, numbers from 0; every one of them occurs.

    Raises:
        SettingError: shapes that do not fit together, fewer than two classes, or a class without observations.

    >>> class_selectivity(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 1])).index
    tensor([1.0000, 0.5000])
    """
    if codes.ndim != 2 or labels.shape != codes.shape[:1]:
        raise SettingError(f"codes must be (n, latent_dim) and labels (n,); got shapes {tuple(codes.shape)} and "
                           f"{tuple(labels.shape)}")
    counts = labels.bincount()
    if len(counts) < 2 or not counts.all():
        raise SettingError("labels must be 0, 1, … with at least two classes, each with observations; their counts are "
                           f"{counts.tolist()}")
    sums = torch.zeros(len(counts), codes.shape[1], dtype=codes.dtype, device=codes.device)
    means = sums.index_add_(0, labels, codes.abs()) / counts[:, None]
    best, preferred = means.max(0)
    others = (means.sum(0) - best) / (len(counts) - 1)
    total = best + others
    return Selectivity(torch.where(total > 0, (best - others) / torch.where(total > 0, total, 1), 0), preferred, means)
