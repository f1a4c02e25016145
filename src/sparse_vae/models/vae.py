r"""Variational autoencoder (Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014) and β-VAE (Higgins et al. 2017).

    q(z|x) = N(z; μ(x), diag σ²(x)),   p(z) = N(0, I),   z = μ + σ ⊙ ε,  ε ~ N(0, I)
    −ELBO(x) = E_q[−ln p(x|z)] + KL(q(z|x) ‖ p(z))
    β-VAE:  L = E_q[−ln p(x|z)] + β KL(q(z|x) ‖ p(z))

One sample of z per observation and step (L = 1 in Kingma & Welling, section 2.3); the KL is in closed form.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sparse_vae.distributions import standard_normal_kl
from sparse_vae.models.base import GenerativeModel
from sparse_vae.settings import Number

ACTIVE_KL = 0.1


class NormalPosterior(NamedTuple):
    """q(z|x) = N(mean, exp(log_variance)), independent dimensions; both ``(batch, latent_dim)``."""

    mean: Tensor
    log_variance: Tensor

    def rsample(self, generator: torch.Generator | None = None) -> Tensor:
        """One reparameterised sample μ + σε, ``(batch, latent_dim)``."""
        noise = torch.randn(self.mean.shape, device=self.mean.device, generator=generator)
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def kl(self) -> Tensor:
        """KL to the prior N(0, I) of each dimension, nats, ``(batch, latent_dim)``."""
        return standard_normal_kl(self.mean, self.log_variance)


class VAELoss(NamedTuple):
    """Nats, summed over features, averaged over the batch; ``kl`` is weighted as in the objective."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


class VAE(GenerativeModel):
    """Variational autoencoder; the loss is a one-sample estimate of −ELBO.

    >>> model = VAE((64,), latent_dim=2)
    >>> model.negative_elbo(torch.rand(5, 64)).shape, model.sample(3).shape
    (torch.Size([5]), torch.Size([3, 64]))
    """

    encoder_outputs_per_latent = 2
    beta = 1.0
    active_means = f"the posterior is more than {ACTIVE_KL} nats (KL) away from the prior"

    def encode(self, x: Tensor) -> NormalPosterior:
        return NormalPosterior(*self.encoder_outputs(x))

    def code(self, x: Tensor) -> Tensor:
        return self.encode(x).mean

    def active(self, x: Tensor) -> Tensor:
        return self.encode(x).kl() > ACTIVE_KL

    def _elbo_terms(self, x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The reconstruction and the KL of each observation, nats, both ``(batch,)``."""
        posterior = self.encode(x)
        return self.reconstruction_nll(x, posterior.rsample(generator)), posterior.kl().sum(1)

    def loss(self, x: Tensor, *, step: int | None = None, generator: torch.Generator | None = None) -> VAELoss:
        reconstruction, kl = (term.mean() for term in self._elbo_terms(x, generator))
        weighted_kl = self.beta * kl
        return VAELoss(reconstruction + weighted_kl, reconstruction, weighted_kl)

    def negative_elbo(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        reconstruction, kl = self._elbo_terms(x, generator)
        return reconstruction + kl

    def log_importance_weight(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        posterior = self.encode(x)
        z = posterior.rsample(generator)
        # ln p(z) − ln q(z|x); the constants ½ ln 2π of the two cancel.
        noise = (z - posterior.mean) * (-0.5 * posterior.log_variance).exp()
        log_ratio = 0.5 * (noise.square() + posterior.log_variance - z.square()).sum(1)
        return log_ratio - self.reconstruction_nll(x, z)

    def kl_per_dimension(self, x: Tensor) -> Tensor:
        return self.encode(x).kl()

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self.decode_mean(torch.randn(n, self.latent_dim, device=self.device, generator=generator))


class BetaVAE(VAE):
    """VAE whose KL is weighted by ``beta``.

    >>> BetaVAE((64,), beta=4.0).loss(torch.rand(5, 64))._fields
    ('total', 'reconstruction', 'kl')
    """

    label = "β-VAE"
    settings: ClassVar = {
        "beta": Number(4.0, "weight of the KL; 1 is the VAE, 0 leaves the reconstruction alone, an autoencoder's "
                       "objective (nothing then keeps σ away from 0)", minimum=0, symbol="β"),
    }
    beta: float
