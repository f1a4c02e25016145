r"""Autoencoder (Rumelhart, Hinton & Williams 1986; Hinton & Salakhutdinov 2006).

    h = f(x),   L = −ln p(x | h)

With the Gaussian likelihood and a fixed scale this is the squared error ‖x − g(h)‖² up to constants; with the
Bernoulli likelihood it is the cross-entropy. The same likelihoods as the VAE's, so that the reconstruction
terms of both can be compared.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparse_vae.models.base import LatentVariableModel


class Code(NamedTuple):
    """A deterministic code: ``code``, ``(batch, latent_dim)``."""

    code: Tensor


class AutoencoderLoss(NamedTuple):
    """Nats, summed over features, averaged over the batch."""

    total: Tensor
    reconstruction: Tensor


class Autoencoder(LatentVariableModel):
    """Deterministic code of ``latent_dim`` real numbers, no constraint on it.

    >>> Autoencoder((64,), latent_dim=2).code(torch.rand(5, 64)).shape
    torch.Size([5, 2])
    """

    def encode(self, x: Tensor) -> Code:
        return Code(*self.encoder_outputs(x))

    def code(self, x: Tensor) -> Tensor:
        return self.encode(x).code

    def loss(self, x: Tensor, *, step: int | None = None, generator: torch.Generator | None = None) -> AutoencoderLoss:
        reconstruction = self.reconstruction_nll(x, self.encode(x).code).mean()
        return AutoencoderLoss(reconstruction, reconstruction)
