"""What is said of each latent dimension: the columns of the table of units, for pages of single features.

Several numbers in one cell, the columns ``UNIT_TEXTS``, have spaces between them: indices of observations and units,
counts, and whole per cents, so that a row stays short.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import sparse_vae.evaluation as evaluation  # whose functions import scikit-learn when they are first used
from sparse_vae.report.measures import Subject, unit_columns
from sparse_vae.report.measures_of_truth import known_sources

STRONGEST, NEAREST, BINS = 9, 5, 12
"""So many observations and units are named for each unit, so many bins has its histogram."""


@unit_columns()
def _use(subject: Subject) -> dict:
    """How often a dimension is active and what its code is there: the mean of |code|, the mean, a histogram (counts of
    bins of equal width from ``low`` to ``high``); the observations whose code is largest, by their indices."""
    codes, active, magnitudes = subject.codes, subject.active, subject.codes.abs()
    count = active.sum(0)  # 0 makes NaN: it never is
    low, high = codes.masked_fill(~active, torch.inf).amin(0), codes.masked_fill(~active, -torch.inf).amax(0)
    histograms = [np.histogram(code[on], BINS)[0] for code, on in zip(codes.T.numpy(), active.T.numpy(), strict=True)]
    strongest = magnitudes.topk(min(STRONGEST, len(magnitudes)), dim=0).indices.T
    return {"rate": subject.rates.numpy(), "magnitude": (magnitudes.masked_fill(~active, 0).sum(0) / count).numpy(),
            "mean": (codes.masked_fill(~active, 0).sum(0) / count).numpy(),
            "low": low.masked_fill(count == 0, torch.nan).numpy(),
            "high": high.masked_fill(count == 0, torch.nan).numpy(),
            "histogram": _texts(histograms), "strongest": _texts(strongest.tolist())}


@unit_columns()
def _effect(subject: Subject) -> dict:
    """What a dimension adds: the share of an observation's values that hold 90% of it, and the units that add the most
    similar, with the cosines, in per cent, the largest without its sign first."""
    flat = F.normalize(subject.responses.flatten(1), dim=1)
    cosines = (flat @ flat.T).fill_diagonal_(0)
    nearest = cosines.abs().fill_diagonal_(-1).topk(min(NEAREST, len(flat) - 1), dim=1).indices
    return {"extent": evaluation.extent(subject.responses).numpy(), "nearest": _texts(nearest.tolist()),
            "cosines": _texts(_per_cent(cosines.gather(1, nearest)))}


@unit_columns(needs=["prior"])
def _charge(subject: Subject) -> dict:
    """KL of each dimension, nats, mean over what is measured."""
    return {"kl": subject.kl.numpy()}


@unit_columns(needs=["classes"])
def _preferences(subject: Subject) -> dict:
    """The class that a dimension prefers, by its index, its selectivity, and of each class the mean of |code|; in one
    cell, for each class in turn, how many per cent of the observations that activate the dimension are of it."""
    found = evaluation.class_selectivity(subject.codes, subject.y)
    counts = F.one_hot(subject.y, len(found.means)).T.float() @ subject.active.float()  # (classes, latent_dim)
    return {"preferred": found.preferred.numpy(), "selectivity": found.index.numpy(),
            "classes": _texts(_per_cent((counts / counts.sum(0).clamp(min=1)).T)),
            **{f"mean_{index}": means.numpy() for index, means in enumerate(found.means)}}


@unit_columns(needs=["sources"])
def _source(subject: Subject) -> dict:
    """The source that a dimension is most correlated with, by its index, that |correlation|, and whether the source is
    matched with this dimension (1) or with another (0)."""
    codes, factors, known = known_sources(subject)
    correlations, best = evaluation.squared_correlation(codes, factors).sqrt().max(1)
    matched = evaluation.matched_sources(codes, factors).assignment[best] == torch.arange(len(best))
    return {"source": known[best].numpy(), "source_correlation": correlations.numpy(), "matched": matched.int().numpy()}


def _per_cent(values: Tensor) -> list[list[int]]:
    return (100 * values).round().int().tolist()


def _texts(rows: list) -> list[str | None]:
    return [" ".join(map(str, row)) or None for row in rows]
