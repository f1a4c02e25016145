"""What one dimension of a code adds to an observation, and how much that looks like a feature rather than noise."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_vae.models.base import LatentVariableModel

CODES_AT_ONCE = 2048
"""That are decoded together, which bounds the memory of :func:`unit_responses`."""
ROUNDING = 1e-9


@torch.no_grad()
def unit_responses(model: LatentVariableModel, codes: Tensor, *, n_codes: int = 64) -> Tensor:
    """What each dimension adds to the decoded mean, ``(latent_dim, *input_shape)``, in the units of the data.

    The mean, over codes in which dimension j is not 0, of the decoded code minus the decoded code without j, times the
    sign of zⱼ. For a linear decoder and a Gaussian likelihood it is the dictionary's atom times the mean of |zⱼ|,
    whatever the other dimensions are; a network is asked where its codes lie. A dimension that is never used is set to
    1 alone.

    Args:
        codes: codes of observations, ``(n, latent_dim)``.
        n_codes: how many codes to average over, the first that use the dimension.

    >>> from sparse_vae import make_model
    >>> unit_responses(make_model("topk", (5,), latent_dim=3), torch.rand(9, 3)).shape
    torch.Size([3, 5])
    """
    latent_dim = codes.shape[1]
    nothing = model.decode_mean(codes.new_zeros(1, latent_dim))
    used = (codes != 0).T.contiguous()
    silent = ~used.any(1)
    responses = nothing.new_zeros(latent_dim, *nothing.shape[1:])
    if silent.any():
        responses[silent] = model.decode_mean(torch.eye(latent_dim).to(codes)[silent]) - nothing
    busy = (~silent).nonzero()[:, 0]
    for units in busy.split(max(1, CODES_AT_ONCE // n_codes)) if len(busy) else ():
        rows = [used[j].nonzero()[:n_codes, 0] for j in units]
        counts = torch.tensor([len(own) for own in rows], device=codes.device)
        unit = torch.arange(len(units), device=codes.device).repeat_interleave(counts)  # of each code
        # Where codes are dense the same few serve all dimensions.
        chosen, place = torch.cat(rows).unique(return_inverse=True)
        without = codes[chosen][place]
        at = torch.arange(len(place), device=codes.device), units[unit]
        signs = without[at].sign()
        without[at] = 0
        change = model.decode_mean(codes[chosen])[place] - model.decode_mean(without)
        change *= signs.view(-1, *[1] * (change.ndim - 1))
        sums = torch.zeros_like(responses[units]).index_add_(0, unit, change)
        responses[units] = sums / counts.view(-1, *[1] * (change.ndim - 1))
    return responses


def smoothness(features: Tensor) -> Tensor:
    """Correlation of neighbours, Σ aᵢ aⱼ over neighbouring pairs against what it would be if aⱼ were aᵢ, ``(n,)``.

    About 0 for independent noise of mean 0, near 1 for a picture that changes slowly, −1 for a chessboard; all zeros
    count as 0. Not centred: a constant is as smooth as can be.

    Args:
        features: ``(n, channels, height, width)``, neighbours along both sides, or ``(n, …, length)``, along the last.

    >>> smoothness(torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 2.0]]))
    tensor([ 1., -1.,  0.])
    """
    products, squares = 0, 0  # type: Tensor | int, Tensor | int
    for axis in _axes(features):
        pairs = features.shape[axis] - 1
        first, second = features.narrow(axis, 0, pairs), features.narrow(axis, 1, pairs)
        products = products + (first * second).flatten(1).sum(1)
        squares = squares + (first.square() + second.square()).flatten(1).sum(1) / 2
    return torch.where(squares > 0, products / torch.where(squares > 0, squares, 1), 0)  # type: ignore[arg-type, operator]


def spread(features: Tensor) -> Tensor:
    """How far a feature reaches: the root mean square distance of its energy a² from the centre of its energy,
    relative to that of energy spread evenly, ``(n,)``.

    0 for one pixel, about 1 for noise and for anything that covers the picture; all zeros count as 1.

    Args:
        features: as in :func:`smoothness`.

    >>> spread(torch.tensor([[0.0, 3.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    tensor([0., 1., 1.])
    """
    energy = features.square()
    total = energy.flatten(1).sum(1)
    share = energy / torch.where(total > 0, total, 1).view(-1, *[1] * (features.ndim - 1))
    found, even = 0, 0  # type: Tensor | int, Tensor | int
    for axis in _axes(features):
        at = torch.arange(features.shape[axis], dtype=features.dtype, device=features.device)
        marginal = share.movedim(axis, -1).flatten(1, -2).sum(1) if features.ndim > 2 else share
        centre = (marginal * at).sum(1, keepdim=True)
        found = found + (marginal * (at - centre).square()).sum(1)
        even = even + at.var(correction=0)
    return torch.where(total > 0, (found / even).sqrt(), 1)  # type: ignore[union-attr]


def extent(features: Tensor, share: float = 0.9) -> Tensor:
    """The smallest share of the values of a feature that holds ``share`` of the sum of its magnitudes, ``(n,)``.

    Args:
        features: ``(n, *shape)``; all zeros count as 0.
        share: in (0, 1].

    >>> extent(torch.tensor([[0.0, 9.0, 0.0, -1.0], [1.0, 1.0, 1.0, 1.0]]))
    tensor([0.2500, 1.0000])
    """
    magnitudes = features.flatten(1).abs().double().sort(dim=1, descending=True).values
    sums = magnitudes.cumsum(1)
    total = sums[:, -1:]
    needed = 1 + (sums < share * (1 - ROUNDING) * total).sum(1)
    return torch.where(total[:, 0] > 0, needed / magnitudes.shape[1], 0).float()


def _axes(features: Tensor) -> tuple[int, ...]:
    """The axes along which there are neighbours: both sides of pictures, the last of anything else."""
    return (2, 3) if features.ndim == 4 else (features.ndim - 1,)
