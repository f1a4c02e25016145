r"""VAEase (Lu, Zhu, He & Wipf, "Sparse Autoencoders, Again?", ICML 2025): a VAE whose encoder's σ gates the code.

    q(z|x) = N(z; μ(x), diag σ²(x)),   p(z) = N(0, I),   x̂ = decoder((1 − σ(x)) ⊙ z)
    L(x) = E_q[−ln p(x|(1 − σ(x)) ⊙ z)] + KL(q(z|x) ‖ p(z))

Where a dimension's posterior is the prior, μ = 0 and σ = 1, it costs no KL and the decoder sees an exact 0 in place of
noise. So each observation switches dimensions off by itself, which a VAE does for all observations together or not at
all, and no weight of a penalty has to be chosen.

The decoder learns σ(x) from the encoder without paying for it: L is no bound on −ln p(x), and there is no way to draw
from the prior. The model therefore counts as one without a prior.

Differences from the authors' code (vegetablest-dog/VAEase), which clips ln σ² at 0: here σ² is a sigmoid, which has a
slope everywhere, and starts well below 1, where the gates are open. They call a dimension active where σ² < 0.05; here
it is as for the VAE, so that the two can be compared.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse_vae.models.base import LatentVariableModel
from sparse_vae.models.vae import ACTIVE_KL, VAE, NormalPosterior, VAELoss

FIRST_LOGIT = -2.0
"""Of σ² at the start: σ ≈ 0.35. Where all gates are nearly closed, nothing reaches the decoder to learn from."""


class VAEase(LatentVariableModel):
    """Variational autoencoder that multiplies each dimension by 1 − σ(x) before it is decoded.

    >>> model = VAEase((64,), latent_dim=8)
    >>> (model.encode(torch.rand(5, 64)).log_variance < 0).all()
    tensor(True)
    """

    encoder_outputs_per_latent = 2
    active_means = VAE.active_means

    def encode(self, x: Tensor) -> NormalPosterior:
        mean, logit = self.encoder_outputs(x)
        return NormalPosterior(mean, F.logsigmoid(logit + FIRST_LOGIT))

    def code(self, x: Tensor) -> Tensor:
        """What the decoder sees at the mean, (1 − σ) ⊙ μ."""
        posterior = self.encode(x)
        return gate(posterior) * posterior.mean

    def active(self, x: Tensor) -> Tensor:
        return self.encode(x).kl() > ACTIVE_KL

    def loss(self, x: Tensor, *, step: int | None = None, generator: torch.Generator | None = None) -> VAELoss:
        posterior = self.encode(x)
        reconstruction = self.reconstruction_nll(x, gate(posterior) * posterior.rsample(generator)).mean()
        kl = posterior.kl().sum(1).mean()
        return VAELoss(reconstruction + kl, reconstruction, kl)


def gate(posterior: NormalPosterior) -> Tensor:
    """1 − σ, ``(batch, latent_dim)``; by its digits also where σ is nearly 1."""
    return -torch.expm1(0.5 * posterior.log_variance)
