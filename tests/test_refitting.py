"""Refitted and pursued codes against NumPy's least squares and scikit-learn's pursuit."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import orthogonal_mp

from sparse_vae.evaluation import pursued, refitted

FEATURES, ATOMS, N = 10, 14, 120
_draw = torch.Generator().manual_seed(0)
X, DICTIONARY = torch.randn(N, FEATURES, generator=_draw), torch.randn(ATOMS, FEATURES, generator=_draw)


def test_refitted_codes_are_least_squares_on_the_active_atoms():
    active = torch.rand(N, ATOMS, generator=torch.Generator().manual_seed(1)) < 0.3
    codes = refitted(X, DICTIONARY, active)
    assert not codes[~active].any()
    for x, code, chosen in zip(X, codes, active, strict=True):
        expected = np.linalg.lstsq(DICTIONARY[chosen].T.numpy(), x.numpy(), rcond=None)[0]
        assert np.allclose(code[chosen], expected, atol=1e-3)


def test_refitting_survives_atoms_that_repeat_each_other():
    twice = torch.cat([DICTIONARY[:2], DICTIONARY[:2]])
    both, once = (refitted(X, twice, torch.tensor([[True, True, on, on]]).expand(N, -1)) @ twice
                  for on in (True, False))
    assert torch.allclose(both, once, atol=1e-4)


def test_a_pursuit_takes_as_many_atoms_as_it_is_told():
    counts = torch.arange(N) % 5
    codes = pursued(X, DICTIONARY, counts)
    assert torch.equal((codes != 0).sum(1), counts)
    unit = DICTIONARY / DICTIONARY.norm(dim=1, keepdim=True)
    for x, code, count in zip(X[1:5], codes[1:5], counts[1:5], strict=True):
        expected = orthogonal_mp(unit.T.numpy(), x.numpy(), n_nonzero_coefs=int(count))
        assert np.allclose(code * DICTIONARY.norm(dim=1), expected, atol=1e-3)
