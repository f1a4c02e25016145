"""Sums of a few sinusoids: the sparse code is known, and so is the dictionary.

A signal of ``T`` samples, t = 2π·(0, 1, …, T−1)/T, holds a few frequencies f with amplitudes a and phases φ:

    x = ¼ Σ a sin(f t + φ) = ¼ Σ (a cos φ · sin(f t) + a sin φ · cos(f t)),   a ~ U(0.3, 1.3), φ ~ U(0, 2π)

so it is a combination of the dictionary's rows sin(f t) and cos(f t), two per frequency, with signed coefficients.
With ``amplitude_shape`` a ~ Gamma of that shape and the same mean, and φ is a multiple of π/2: each frequency is then
one row or its negative, and the size of its coefficient is Gamma itself.

Source: the toy set of antoinelfg/hybrid-sparse-vae (``generate_toy_sinusoid_tensors``: 2,000 signals of 128 samples,
three frequencies from 1..19, the same amplitudes, phases and factor ¼). Differences: the frequencies of a signal are
distinct, so that the support always has the same size; t leaves out its end 2π, which repeats its start, so that the
rows of the dictionary are orthogonal; noise is optional; there is a test part.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import Tensor

from sparse_vae.checks import check_integer
from sparse_vae.datasets.base import Dataset, Split
from sparse_vae.distributions import Gamma
from sparse_vae.settings import Integer, Number, takes_settings

SCALE = 0.25
AMPLITUDES = 0.3, 1.3


ATOMS = {
    "length": Integer(128, "samples of a signal, more than twice n_frequencies, so that no two frequencies look alike"),
    "n_frequencies": Integer(19, "the dictionary's frequencies are 1 … n_frequencies, in periods per signal"),
}


def _check_together(settings: SimpleNamespace) -> None:
    check_integer("length", settings.length, minimum=2 * settings.n_frequencies + 1)
    check_integer("n_components", getattr(settings, "n_components", 1), minimum=1, maximum=settings.n_frequencies)


@takes_settings({
    "n_train": Integer(2_000, "signals in the training part"),
    "n_test": Integer(1_000, "signals in the test part, which does not depend on the training part"),
    **ATOMS,
    "n_components": Integer(3, "frequencies in one signal"),
    "amplitude_shape": Number(None, "shape of Gamma amplitudes, below 1 mostly small ones and a few large; none: "
                              "uniform amplitudes and any phase", above=0),
    "noise": Number(0.0, "standard deviation of the Gaussian noise that is added to every sample", minimum=0),
    "seed": Integer(0, "of the drawing", minimum=0),
}, together=_check_together)
def load_sinusoids(n_train: int, n_test: int, length: int, n_frequencies: int, n_components: int,
                   amplitude_shape: float | None, noise: float, seed: int) -> Dataset:
    """Generated signals of 128 samples, each a sum of three sinusoids, with their dictionary and sparse code known.

    ``factors``, ``(n, 2 · n_frequencies)``, are the signed coefficients, 0 for what a signal does not hold; without
    noise ``x`` is ``factors @ sinusoid_atoms(length, n_frequencies)``.
    """
    atoms = sinusoid_atoms(length, n_frequencies)
    # train and test have streams of their own, which no two seeds share
    train, test = (_draw(n, atoms, n_components, amplitude_shape, noise, torch.Generator().manual_seed(2 * seed + part))
                   for part, n in enumerate((n_train, n_test)))
    names = tuple(f"{wave} {f}" for wave in ("sin", "cos") for f in range(1, n_frequencies + 1))
    return Dataset("sinusoids", train, test, likelihood="gaussian", factor_names=names, loadings=atoms)


@takes_settings(ATOMS, together=_check_together)
def sinusoid_atoms(length: int, n_frequencies: int) -> Tensor:
    """The dictionary, ``(2 · n_frequencies, length)``: the sines of frequency 1, 2, …, then the cosines.

    Rows have amplitude 1, are orthogonal and have norm √(length / 2).
    """
    t = 2 * math.pi * torch.arange(length, dtype=torch.float64) / length
    angles = torch.outer(torch.arange(1, n_frequencies + 1, dtype=torch.float64), t)
    return torch.cat([angles.sin(), angles.cos()]).to(torch.float32)


def _draw(n: int, atoms: Tensor, n_components: int, shape: float | None, noise: float,
          generator: torch.Generator) -> Split:
    n_frequencies = len(atoms) // 2
    chosen = torch.rand(n, n_frequencies, generator=generator).argsort(dim=1)[:, :n_components]
    present = torch.zeros(n, n_frequencies).scatter_(1, chosen, 1.0)
    low, high = AMPLITUDES
    if shape is None:
        amplitudes = low + (high - low) * torch.rand(n, n_frequencies, generator=generator)
        phases = 2 * math.pi * torch.rand(n, n_frequencies, generator=generator)
        parts = [phases.cos(), phases.sin()]
    else:
        amplitudes = (low + high) / 2 / shape * Gamma(torch.full((n, n_frequencies), shape), 1.0).rsample(
            generator=generator)
        phases = math.pi / 2 * torch.randint(4, (n, n_frequencies), generator=generator)
        parts = [part.round() for part in (phases.cos(), phases.sin())]  # exact zeros
    factors = SCALE * torch.cat([present * amplitudes * part for part in parts], dim=1)
    x = factors @ atoms
    if noise:
        x += noise * torch.randn(x.shape, generator=generator)
    return Split(x, factors=factors)
