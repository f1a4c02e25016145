"""Codes on the atoms of a linear decoder, fitted by least squares: what separates a search from an encoder.

A pursuit chooses atoms, then fits their coefficients; an encoder does both at once and pays for what it says. The same
choice with fitted coefficients, and a pursuit with as many atoms on the same dictionary, take the two apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_vae.models.classical import matching_pursuit

RIDGE = 1e-9
"""Added to the squared norms, so that atoms that are chosen together may depend on each other."""
FITTED_AT_ONCE = 50
"""Observations; the memory is this times the square of the number of atoms."""


def refitted(x: Tensor, atoms: Tensor, active: Tensor) -> Tensor:
    """The codes with the smallest squared error among those that are 0 where an atom is not active.

    Args:
        x: ``(n, features)``, about the mean that the decoder adds.
        atoms: of any norm, ``(latent_dim, features)``.
        active: bool ``(n, latent_dim)``.

    Returns:
        ``(n, latent_dim)``.

    >>> refitted(torch.tensor([[3.0, 1.0]]), 2 * torch.eye(2), torch.tensor([[True, False]]))
    tensor([[1.5000, 0.0000]])
    """
    atoms = atoms.double()
    gram, codes = atoms @ atoms.T, []
    for part, chosen in zip(x.double().split(FITTED_AT_ONCE), active.split(FITTED_AT_ONCE), strict=True):
        normal = torch.where(chosen[:, :, None] & chosen[:, None], gram, 0)
        normal.diagonal(dim1=1, dim2=2).copy_(torch.where(chosen, gram.diagonal() * (1 + RIDGE), 1))
        codes.append(torch.linalg.solve(normal, (part @ atoms.T).masked_fill(~chosen, 0)))
    return torch.cat(codes).to(x.dtype)


def pursued(x: Tensor, atoms: Tensor, counts: Tensor) -> Tensor:
    """Codes by orthogonal matching pursuit with as many atoms for each observation as ``counts`` says.

    Args:
        x: ``(n, features)``, about the mean that the decoder adds.
        atoms: of any norm, ``(latent_dim, features)``.
        counts: ``(n,)``.

    Returns:
        ``(n, latent_dim)``.

    >>> pursued(torch.tensor([[3.0, 1.0], [3.0, 1.0]]), 2 * torch.eye(2), torch.tensor([1, 2]))
    tensor([[1.5000, 0.0000],
            [1.5000, 0.5000]])
    """
    norms = atoms.norm(dim=1).clamp(min=1e-12)
    codes = x.new_zeros(len(x), len(atoms))
    for count in counts.unique().tolist():
        for rows in (counts == count).nonzero()[:, 0].split(FITTED_AT_ONCE):
            codes[rows] = matching_pursuit(x[rows], atoms / norms[:, None], count) / norms
    return codes
