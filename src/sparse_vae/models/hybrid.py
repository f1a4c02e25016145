r"""Hybrid sparse VAE: a code of magnitudes and signs, z = A (γ ⊙ δ), on a dictionary A with unit-norm columns.

    q(γⱼ|x) = Gamma(kⱼ, scale θⱼ),   q(δⱼ|x) = Categorical over {−1, 0, +1},   k, θ and two logits from the encoder
    p(γⱼ) = Gamma(k₀, scale θ₀),     p(δⱼ ≠ 0) = π₀, both signs alike

A magnitude matters only where its sign is not 0; elsewhere its posterior may as well be the prior, so that

    −ELBO(x) = E_q[−ln p(x|z)] + Σⱼ KL(q(δⱼ|x) ‖ p(δⱼ)) + Σⱼ P(δⱼ ≠ 0) KL(q(γⱼ|x) ‖ p(γⱼ)).

Charging the magnitude's KL whether or not it is used is a looser bound (``bound="loose"``), and training may weight the
two KLs (``beta_gamma``, ``beta_delta``); every reported −ELBO is the one above. Gradients reach k and θ by implicit
reparameterization (:mod:`sparse_vae.distributions.gamma`), the logits by Gumbel-softmax, straight-through by default:
spikes in training are true zeros.

The decoder is linear, x̂ = A (γ ⊙ δ) + b, or a network whose first layer is A. For the linear decoder with a Gaussian
likelihood the expected squared error is in closed form, because the columns have norm 1 (``reconstruction="exact"``):

    E‖x − b − z‖² = ‖x − b − Am‖² + Σⱼ (P(δⱼ ≠ 0) k(k + 1)θ² − mⱼ²),   m = kθ (P(δ = 1) − P(δ = −1)).

Source: after antoinelfg/hybrid-sparse-vae, whose divergence is divided by the number of atoms, so that its objective is
no bound; here it is summed.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from sparse_vae.checks import SettingError, check_number
from sparse_vae.distributions import Gamma, Ternary
from sparse_vae.models.base import SMALLEST_LOG_SCALE, GenerativeModel
from sparse_vae.models.schedules import SCHEDULES, annealed, ramp
from sparse_vae.nets import keep_unit_columns, linear_layer
from sparse_vae.settings import Choice, Flag, Number

DICTIONARIES = ("random", "dct", "data")
MAGNITUDES = ("gamma", "normal")
BOUNDS = ("exact", "loose")
RECONSTRUCTIONS = ("sampled", "exact")
FIRST_CONCENTRATION, FIRST_SCALE = 5.0, -5.0
"""What softplus takes at the start: k ≈ 5 and θ ≈ 0.007. From magnitudes that are large or noisy a linear dictionary
learns at first to shrink them all, and loses its signs."""
SMALLEST_SCALE = 1e-6
"""Lower bound of θ: softplus underflows where an encoder switches a magnitude off by its size."""
ATOM_SPREAD = 0.2
"""Standard deviation of the raw entries of A: atoms are normalised, so that it only sets how fast they turn."""


class HybridPosterior(NamedTuple):
    """q(γ|x) and q(δ|x), each field ``(batch, latent_dim)``; the logits are relative to that of δ = 0."""

    concentration: Tensor
    scale: Tensor
    negative_logit: Tensor
    positive_logit: Tensor

    def structure(self) -> Ternary:
        """q(δ|x)."""
        logits = torch.stack([self.negative_logit, torch.zeros_like(self.scale), self.positive_logit])
        return Ternary(logits.movedim(0, -1), validate_args=False)


class HybridLoss(NamedTuple):
    """Nats, summed over features, averaged over the batch; ``kl``, of magnitudes and signs, is weighted as in the
    objective."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


class HybridSparseVAE(GenerativeModel):
    """Hybrid sparse VAE.

    >>> model = HybridSparseVAE((64,), latent_dim=8)
    >>> model.code(torch.rand(5, 64)).shape
    torch.Size([5, 8])
    """

    label = "Hybrid sparse VAE"
    settings: ClassVar = {
        "dictionary": Choice("random", "first atoms of the linear decoder: random, dct (cosines, lowest frequencies "
                             "first; at most as many atoms as features) or data (training observations about their "
                             "mean)", choices=DICTIONARIES),
        "magnitude": Choice("gamma", "distribution of the magnitudes; normal of the same mean and variance, to compare",
                            choices=MAGNITUDES, title="{} magnitudes"),
        "prior_concentration": Number(0.7, "k₀ of the magnitudes' prior", above=0),
        "prior_scale": Number(2.0, "θ₀ of the magnitudes' prior", above=0),
        "prior_presence": Number(0.1, "π₀, prior probability that a sign is not 0", above=0, below=1),
        "min_concentration": Number(0.01, "smallest k of the posterior", above=0),
        "max_concentration": Number(None, "largest k, above the smallest; none is no bound", above=0),
        "beta_gamma": Number(1.0, "weight of the magnitudes' KL in training", minimum=0),
        "beta_delta": Number(1.0, "weight of the signs' KL in training", minimum=0),
        "bound": Choice("exact", "what training charges for magnitudes", choices=BOUNDS),
        "reconstruction": Choice("sampled", "how training estimates it; exact needs a linear decoder and the Gaussian "
                                 "likelihood", choices=RECONSTRUCTIONS),
        "straight_through": Flag(True, "exact signs in training, otherwise relaxed ones"),
        **SCHEDULES,
    }
    dictionary: str
    magnitude: str
    prior_concentration: float
    prior_scale: float
    prior_presence: float
    min_concentration: float
    max_concentration: float | None
    beta_gamma: float
    beta_delta: float
    bound: str
    reconstruction: str
    straight_through: bool
    temperature: float
    final_temperature: float
    anneal_steps: int
    kl_ramp_steps: int
    encoder_outputs_per_latent = 4
    active_means = "its sign is more likely there than not (P(δ ≠ 0) > ½)"

    def __init__(self, input_shape: tuple[int, ...], **given: object):
        super().__init__(input_shape, **given)
        if self.reconstruction == "exact" and self.likelihood != "gaussian":
            raise SettingError(f"reconstruction 'exact' needs likelihood 'gaussian'; got {self.likelihood!r}")
        nn.init.normal_(linear_layer(self.decoder, 0).weight, std=ATOM_SPREAD)
        keep_unit_columns(self.decoder[0])

    @classmethod
    def check_together(cls, settings: SimpleNamespace) -> None:
        if settings.max_concentration is not None:
            check_number("max_concentration", settings.max_concentration, above=settings.min_concentration)
        for name in ("dictionary", "reconstruction"):
            value = getattr(settings, name)
            if value != cls.settings[name].default and settings.decoder != "linear":
                raise SettingError(f"{name} {value!r} needs decoder 'linear'; got decoder {settings.decoder!r}")

    def prepare(self, x: Tensor, *, generator: torch.Generator | None = None) -> None:
        """As every model's; a linear decoder starts with the atoms that ``dictionary`` names."""
        super().prepare(x, generator=generator)
        flat = x.flatten(1)
        largest = {"random": math.inf, "dct": flat.shape[1], "data": len(x)}[self.dictionary]
        if self.latent_dim > largest:
            raise SettingError(f"latent_dim must be at most {largest} for dictionary {self.dictionary!r}, the number "
                               f"of features (dct) or observations (data); got {self.latent_dim}")
        if self.dictionary == "dct":
            self._set_atoms(cosines(self.input_shape, self.latent_dim))
        if self.dictionary == "data":
            rows = torch.randperm(len(x), generator=generator, device=x.device)[:self.latent_dim]
            self._set_atoms(flat[rows] - flat.mean(0))

    @property
    def atoms(self) -> Tensor:
        """The columns of A, of norm 1: ``(latent_dim, features)``, features those of the decoder's first layer."""
        return linear_layer(self.decoder, 0).weight.T

    def _set_atoms(self, atoms: Tensor) -> None:
        """Replace the atoms, ``(latent_dim, features)``; normalised, and turning as fast as random ones."""
        raw = self.decoder.get_parameter("0.parametrizations.weight.original")
        with torch.no_grad():
            raw.copy_(ATOM_SPREAD * len(raw) ** 0.5 * F.normalize(atoms, dim=1).T)

    def encode(self, x: Tensor) -> HybridPosterior:
        concentration, scale, negative_logit, positive_logit = self.encoder_outputs(x)
        low, high = self.min_concentration, self.max_concentration
        if high is None:
            concentration = low + F.softplus(concentration + FIRST_CONCENTRATION)
        else:
            concentration = low + (high - low) * concentration.sigmoid()
        scale = SMALLEST_SCALE + F.softplus(scale + FIRST_SCALE)
        return HybridPosterior(concentration, scale, negative_logit, positive_logit)

    def magnitudes(self, concentration: Tensor, scale: Tensor) -> Gamma | Normal:
        """Gamma(k, scale θ), or the normal distribution of its mean kθ and variance kθ²."""
        if self.magnitude == "gamma":
            return Gamma(concentration, 1 / scale, validate_args=False)
        return Normal(concentration * scale, concentration.sqrt() * scale, validate_args=False)

    def code(self, x: Tensor) -> Tensor:
        """E[z|x] = kθ (P(δ = 1) − P(δ = −1)) where the sign is more likely there than not, exactly 0 elsewhere."""
        posterior = self.encode(x)
        structure = posterior.structure()
        mean = posterior.concentration * posterior.scale * structure.mean
        return torch.where(structure.presence > 0.5, mean, 0)

    def active(self, x: Tensor) -> Tensor:
        return self.encode(x).structure().presence > 0.5

    def loss(self, x: Tensor, *, step: int | None = None, generator: torch.Generator | None = None) -> HybridLoss:
        posterior = self.encode(x)
        if self.reconstruction == "exact":
            reconstruction = self.expected_nll(x, posterior)
        else:
            signs = posterior.structure().rsample(
                straight_through=self.straight_through, generator=generator,
                temperature=annealed(step, self.temperature, self.final_temperature, self.anneal_steps))
            magnitudes = self._draw(self.magnitudes(posterior.concentration, posterior.scale), generator)
            reconstruction = self.reconstruction_nll(x, magnitudes * signs)
        reconstruction = reconstruction.mean()
        of_magnitudes, of_signs = self.kls(posterior, self.bound)
        kl = (self.beta_gamma * of_magnitudes + self.beta_delta * of_signs).sum(1).mean()
        kl = ramp(step, self.kl_ramp_steps) * kl
        return HybridLoss(reconstruction + kl, reconstruction, kl)

    def negative_elbo(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One-sample estimate of −ELBO with exact signs and the exact bound, nats, ``(batch,)``."""
        posterior = self.encode(x)
        signs = posterior.structure().sample(generator=generator)
        magnitudes = self._draw(self.magnitudes(posterior.concentration, posterior.scale), generator)
        of_magnitudes, of_signs = self.kls(posterior)
        return self.reconstruction_nll(x, magnitudes * signs) + (of_magnitudes + of_signs).sum(1)

    def expected_nll(self, x: Tensor, posterior: HybridPosterior) -> Tensor:
        """E_q[−ln p(x|z)] in closed form, nats, ``(batch,)``; linear decoder and Gaussian likelihood only."""
        structure = posterior.structure()
        mean = posterior.concentration * posterior.scale
        second = mean.square() + mean * posterior.scale  # E[γ²], for both kinds of magnitudes
        code_mean = mean * structure.mean
        variance = (structure.presence * second - code_mean.square()).sum(1)
        log_scale = self.log_scale.clamp(min=SMALLEST_LOG_SCALE)
        return self.reconstruction_nll(x, code_mean) + 0.5 * variance * (-2 * log_scale).exp()

    def log_importance_weight(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        posterior = self.encode(x)
        structure, magnitudes = posterior.structure(), self.magnitudes(posterior.concentration, posterior.scale)
        signs = structure.sample(generator=generator)
        prior_structure, prior_magnitudes = self._prior()
        # Where a magnitude is too small for a number, its logarithm is not.
        if isinstance(magnitudes, Gamma) and isinstance(prior_magnitudes, Gamma):
            log_drawn = magnitudes.rsample_log(generator=generator)
            drawn = log_drawn.exp()
            log_prior, log_posterior = (p.log_prob_from_log(log_drawn) for p in (prior_magnitudes, magnitudes))
        else:
            drawn = self._draw(magnitudes, generator)
            log_prior, log_posterior = (p.log_prob(drawn) for p in (prior_magnitudes, magnitudes))
        ratio = prior_structure.log_prob(signs) - structure.log_prob(signs)
        # A magnitude that is not used has its prior as posterior: their ratio is 1.
        ratio += signs.abs() * (log_prior - log_posterior)
        return ratio.sum(1) - self.reconstruction_nll(x, drawn * signs)

    def kl_per_dimension(self, x: Tensor) -> Tensor:
        """KL of signs, and of the magnitudes where there is a sign, nats, ``(batch, latent_dim)``."""
        of_magnitudes, of_signs = self.kls(self.encode(x))
        return of_magnitudes + of_signs

    def kls(self, posterior: HybridPosterior, bound: str = "exact") -> tuple[Tensor, Tensor]:
        """KL of the magnitudes, as the bound charges it, and of the signs, nats, ``(batch, latent_dim)`` both."""
        structure, (prior_structure, prior_magnitudes) = posterior.structure(), self._prior()
        magnitude = kl_divergence(self.magnitudes(posterior.concentration, posterior.scale), prior_magnitudes)
        if bound == "exact":
            magnitude = structure.presence * magnitude
        return magnitude, kl_divergence(structure, prior_structure)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        structure, magnitudes = self._prior()
        shape = (n, self.latent_dim)
        signs = structure.expand(shape).sample(generator=generator)
        return self.decode_mean(signs * self._draw(magnitudes.expand(shape), generator))

    def _prior(self) -> tuple[Ternary, Gamma | Normal]:
        concentration, scale, presence = torch.tensor(
            [self.prior_concentration, self.prior_scale, self.prior_presence], device=self.device)
        logit = (presence / 2).log() - torch.log1p(-presence)  # of either sign against none
        logits = torch.stack([logit, torch.zeros_like(logit), logit])
        return Ternary(logits, validate_args=False), self.magnitudes(concentration, scale)

    @staticmethod
    def _draw(magnitudes: Gamma | Normal, generator: torch.Generator | None) -> Tensor:
        if isinstance(magnitudes, Gamma):
            return magnitudes.rsample(generator=generator)
        noise = torch.empty_like(magnitudes.loc).normal_(generator=generator)
        return magnitudes.loc + magnitudes.scale * noise


def cosines(shape: tuple[int, ...], n: int) -> Tensor:
    """The n cosines of lowest frequency on a grid of this shape, ``(n, features)``, orthonormal (DCT-II)."""
    from scipy.fft import idctn  # imported here: it takes half a second

    frequencies = np.stack(np.meshgrid(*(np.arange(side) / side for side in shape), indexing="ij"))
    lowest = np.argsort(np.square(frequencies).sum(0), axis=None, kind="stable")[:n]
    spectra = np.zeros((n, math.prod(shape)))
    spectra[np.arange(n), lowest] = 1
    atoms = idctn(spectra.reshape(n, *shape), axes=range(1, len(shape) + 1), norm="ortho")
    return torch.from_numpy(atoms.reshape(n, -1)).float()
