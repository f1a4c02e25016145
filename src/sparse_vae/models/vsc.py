r"""Variational sparse coding (Tonolini, Jensen & Murray-Smith, UAI 2019).

    q(z|x) = ∏ⱼ γⱼ N(zⱼ; μⱼ, σⱼ²) + (1 − γⱼ) δ₀(zⱼ),   γ, μ, σ from the encoder

Two priors. The fixed one, ``prior="fixed"``, is p(z) = ∏ⱼ α N(0, 1) + (1 − α) δ₀ and gives

    −ELBO(x) = E_q[−ln p(x|z)] + KL(q(z|x) ‖ p(z)).

The learned one, ``prior="pseudo-inputs"``, is the uniform mixture of q(z|x_u) over U trained pseudo-inputs x_u. A
distribution c(x) over them is charged for its choice, which keeps the objective a bound (by the convexity of KL):

    −ELBO(x) = E_q[−ln p(x|z)] + Σ_u c_u KL(q(z|x) ‖ q(z|x_u)) + KL(c ‖ uniform),

and a term outside the bound holds the spikes at α: J · KL(Bernoulli(γ̄) ‖ Bernoulli(α)), where γ̄ is the mean over the
dimensions of Σ_u c_u γ_u. It has to be weighted by the choice, as in the authors' code: a plain mean over pseudo-inputs
is met by pseudo-inputs that nothing chooses, and the others stay dense.
That term does not hold the code's rate at α, for two reasons. Its derivative is a price, logit γ̄ − logit α nats for
each spike, and the model buys spikes as long as one saves more than that: γ̄ settles where logit γ̄ = logit α + b/w, b
the nats that the last spike saves in reconstruction and the rest of the KL, w the ``sparsity_weight``. The larger w
is, the less of b is left; a tenth of α takes w of about 10 b. And the rate that is held is that of the pseudo-inputs;
the observations may have another, at the price of a KL. ``held_rate="posterior"`` holds theirs instead, γ̄ the mean of γ
over a batch and the dimensions, under the fixed prior, too. The rarer spikes are to be, the more the last one saves: on
MNIST at J = 16 w = 100 holds α = .2 (b is 7 nats), and α = .01, a spike for every sixth digit, takes 2000.

``choice="classifier"`` learns c(x) as a linear layer on x; ``choice="optimal"`` takes the c that minimises the bound,
c_u ∝ exp(−KL_u), for which the last two terms are −ln (1/U) Σ_u exp(−KL_u), and has nothing to learn.

Deviations from the paper: the spike's logit is free (their ln γ = −ReLU(−v) starts half of the units at γ = 1, where
the gradient is 0); the spike's estimator is a setting, with exact spikes at evaluation; the choice is charged; the
KL is ramped in over the first ``kl_ramp_steps``: the learned prior gains by it, the fixed one does better with 1.
``spike_cost="cross-entropy"`` with ``estimator="bernoulli"`` and the fixed prior is the objective of the report that
this one follows up (its ``compute_sparsity_loss``): KL(N(μ, σ²) ‖ N(0, 1)) is charged for every slab, on or off, and
the spikes pay the mean over dimensions of −α ln γ − (1 − α) ln (1 − γ). It is no bound. As no other gradient reaches
them, every γ goes to α, whatever the observation.

VSC with warm-up replaces the slab by N(λμ, λσ² + 1 − λ) in the samples, λ rising from λ₀ to 1; the KL is that of the
slab itself. As proposed it is ``first_warmth=0``, ``warmup_steps=15000`` or more, ``ramp_steps=5000`` or more, and no
ramp of the KL: ``kl_ramp_steps=1``.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import kl_divergence

from sparse_vae.checks import SettingError, check_integer
from sparse_vae.distributions import SPIKES, SpikeSlab, bernoulli_kl, standard_normal_kl
from sparse_vae.distributions.spike_slab import PairwiseKL, cross_log_density
from sparse_vae.models.base import GenerativeModel
from sparse_vae.models.schedules import SCHEDULES, annealed, ramp
from sparse_vae.settings import Choice, Integer, Number

PRIORS = ("pseudo-inputs", "fixed")
CHOICES = ("optimal", "classifier")
HELD_RATES = ("pseudo-inputs", "posterior")
SPIKE_COSTS = ("kl", "cross-entropy")
LARGEST_LOG_VARIANCE = 12.0
"""Bound on |ln σ²|: a learned prior follows the posterior, so that nothing else ties the scale of an idle slab."""


class SpikeSlabPosterior(NamedTuple):
    """q(z|x), independent dimensions; each field ``(batch, latent_dim)``, ``spike_logit`` is ln γ/(1 − γ)."""

    mean: Tensor
    log_variance: Tensor
    spike_logit: Tensor

    def distribution(self, warmth: float = 1.0) -> SpikeSlab:
        """The spike-and-slab; ``warmth`` is λ of the warm-up, 1 leaves the slab as it is."""
        variance = warmth * self.log_variance.exp() + (1 - warmth)
        return SpikeSlab(self.spike_logit, warmth * self.mean, variance.sqrt(), validate_args=False)


class VSCLoss(NamedTuple):
    """Nats, summed over features or dimensions, averaged over the batch; ``kl`` includes the choice, and ``kl`` and
    ``sparsity`` are weighted as in the objective."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor
    sparsity: Tensor


class VSC(GenerativeModel):
    """Variational sparse coding.

    Raises:
        SettingError: a setting that cannot be used; from :meth:`prepare`, fewer observations than pseudo-inputs.

    >>> model = VSC((64,), latent_dim=8, prior="fixed")
    >>> model.loss(torch.rand(5, 64))._fields
    ('total', 'reconstruction', 'kl', 'sparsity')
    """

    settings: ClassVar = {
        "alpha": Number(0.2, "the prior's share of non-zero dimensions", above=0, below=1, symbol="α"),
        "prior": Choice("pseudo-inputs", "a learned mixture of posteriors of pseudo-inputs, or a fixed one",
                        choices=PRIORS, title="{} prior"),
        "n_pseudo_inputs": Integer(50, "U, at most the number of training observations"),
        "choice": Choice("optimal", "how a pseudo-input is chosen for an observation", choices=CHOICES,
                         title="chosen by a {}"),
        "estimator": Choice("straight-through", "how gradients pass the spikes", choices=SPIKES, title="{} spikes"),
        "held_rate": Choice("pseudo-inputs", "whose mean rate the sparsity term holds at α: of the pseudo-inputs that "
                            "observations choose, or of the posteriors of a batch, which holds that of the code",
                            choices=HELD_RATES, title="held rate of {}s"),
        "sparsity_weight": Number(1.0, "weight of the sparsity term", minimum=0),
        "spike_cost": Choice("kl", "what spikes cost in training under the fixed prior: their share of the KL, or a "
                             "cross-entropy with α", choices=SPIKE_COSTS, title="{} of spikes"),
        **SCHEDULES,
    }
    alpha: float
    prior: str
    n_pseudo_inputs: int
    choice: str
    estimator: str
    held_rate: str
    sparsity_weight: float
    spike_cost: str
    temperature: float
    final_temperature: float
    anneal_steps: int
    kl_ramp_steps: int
    encoder_outputs_per_latent = 3
    active_means = "its spike is more likely on than off (γ > ½)"

    @classmethod
    def check_together(cls, settings: SimpleNamespace) -> None:
        if settings.spike_cost == "cross-entropy" and settings.prior != "fixed":
            raise SettingError(f"spike_cost 'cross-entropy' needs prior 'fixed'; got {settings.prior!r}")
        for name in ("held_rate", "sparsity_weight"):
            value = getattr(settings, name)
            if settings.spike_cost == "cross-entropy" and value != cls.settings[name].default:
                raise SettingError(f"{name} {value!r} needs spike_cost 'kl'; got 'cross-entropy'")

    def __init__(self, input_shape: tuple[int, ...], **given: object):
        super().__init__(input_shape, **given)
        if self.prior == "pseudo-inputs":
            self.pseudo_inputs = nn.Parameter(torch.rand(self.n_pseudo_inputs, *self.input_shape))
            if self.choice == "classifier":
                self.classifier = nn.Linear(math.prod(self.input_shape), self.n_pseudo_inputs)

    def prepare(self, x: Tensor, *, generator: torch.Generator | None = None) -> None:
        super().prepare(x, generator=generator)
        if self.prior == "fixed":
            return
        if len(x) < self.n_pseudo_inputs:
            raise SettingError(f"n_pseudo_inputs must be at most the number of training observations, {len(x)}; "
                               f"got {self.n_pseudo_inputs}")
        rows = torch.randperm(len(x), generator=generator, device=x.device)[:self.n_pseudo_inputs]
        with torch.no_grad():
            self.pseudo_inputs.copy_(x[rows])

    def encode(self, x: Tensor) -> SpikeSlabPosterior:
        mean, log_variance, spike_logit = self.encoder_outputs(x)
        return SpikeSlabPosterior(mean, log_variance.clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE), spike_logit)

    def code(self, x: Tensor) -> Tensor:
        """E[z|x] = γμ where the spike is more likely on than off, exactly 0 elsewhere."""
        posterior = self.encode(x)
        return torch.where(posterior.spike_logit > 0, posterior.spike_logit.sigmoid() * posterior.mean, 0)

    def active(self, x: Tensor) -> Tensor:
        return self.encode(x).spike_logit > 0

    def warmth(self, step: int | None) -> float:
        """λ at an optimiser step, in [0, 1]: 1 without warm-up."""
        return 1.0

    def loss(self, x: Tensor, *, step: int | None = None, generator: torch.Generator | None = None) -> VSCLoss:
        posterior, pseudo = self._encode_with_pseudo_inputs(x)
        z = posterior.distribution(self.warmth(step)).rsample(
            estimator=self.estimator, generator=generator,
            temperature=annealed(step, self.temperature, self.final_temperature, self.anneal_steps))
        reconstruction = self.reconstruction_nll(x, z).mean()
        weight = ramp(step, self.kl_ramp_steps)
        terms = (self._separate_costs(posterior) if self.spike_cost == "cross-entropy" else
                 self._prior_terms(posterior, pseudo, x))
        kl, sparsity = (weight * term.mean() for term in terms)
        return VSCLoss(reconstruction + kl + sparsity, reconstruction, kl, sparsity)

    def negative_elbo(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One-sample estimate of −ELBO with exact spikes, nats, ``(batch,)``; without the sparsity term."""
        posterior, pseudo = self._encode_with_pseudo_inputs(x)
        z = posterior.distribution().sample(generator=generator)
        return self.reconstruction_nll(x, z) + self._prior_terms(posterior, pseudo, x)[0]

    def log_importance_weight(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """ln p(x, z) − ln q(z|x) at one z ~ q(z|x) for each observation, nats; the prior is the mixture itself."""
        posterior, pseudo = self._encode_with_pseudo_inputs(x)
        q = posterior.distribution()
        z = q.sample(generator=generator)
        return self._log_prior(z, pseudo) - q.log_prob(z).sum(1) - self.reconstruction_nll(x, z)

    def sample(self, n: int, *, pseudo_input: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Means of ``n`` observations from the prior, of its component ``pseudo_input`` only where one is named."""
        return self.decode_mean(self.sample_prior(n, pseudo_input=pseudo_input, generator=generator))

    def sample_prior(self, n: int, *, pseudo_input: int | None = None,
                     generator: torch.Generator | None = None) -> Tensor:
        """Codes from the prior, ``(n, latent_dim)``.

        Raises:
            SettingError: ``pseudo_input`` is not one of 0 … U − 1, or the prior has none.
        """
        if self.prior == "fixed":
            if pseudo_input is not None:
                raise SettingError(f"pseudo_input must be None for the fixed prior; got {pseudo_input!r}")
            return self._fixed_prior().expand((n, self.latent_dim)).sample(generator=generator)
        if pseudo_input is None:
            chosen = torch.randint(self.n_pseudo_inputs, (n,), device=self.device, generator=generator)
        else:
            check_integer("pseudo_input", pseudo_input, minimum=0, maximum=self.n_pseudo_inputs - 1)
            chosen = torch.full((n,), pseudo_input, device=self.device)
        return self.encode(self.pseudo_inputs[chosen]).distribution().sample(generator=generator)

    def choices(self, x: Tensor) -> Tensor:
        """c(x), how much each pseudo-input is chosen, ``(batch, U)``.

        Raises:
            SettingError: the fixed prior, which has none.
        """
        if self.prior == "fixed":
            raise SettingError("choices need prior 'pseudo-inputs'; got 'fixed'")
        posterior, pseudo = self._encode_with_pseudo_inputs(x)
        assert pseudo is not None
        return self._log_choice(self._component_kls(posterior, pseudo), x).exp()

    def kl_per_dimension(self, x: Tensor) -> Tensor:
        """KL(q(zⱼ|x) ‖ p(zⱼ)) nats, ``(batch, latent_dim)``: over pseudo-inputs the mean under c, not charged."""
        posterior, pseudo = self._encode_with_pseudo_inputs(x)
        q = posterior.distribution()
        if pseudo is None:
            return kl_divergence(q, self._fixed_prior())
        choice = self._log_choice(self._component_kls(posterior, pseudo), x).exp()
        kl = torch.zeros_like(posterior.mean)
        for u, component in enumerate(zip(*pseudo, strict=True)):
            kl += choice[:, u, None] * kl_divergence(q, SpikeSlabPosterior(*component).distribution())
        return kl

    def _encode_with_pseudo_inputs(self, x: Tensor) -> tuple[SpikeSlabPosterior, SpikeSlabPosterior | None]:
        """The posteriors of the observations and of the pseudo-inputs, in one pass through the encoder."""
        if self.prior == "fixed":
            return self.encode(x), None
        both = self.encode(torch.cat([x, self.pseudo_inputs]))
        return (SpikeSlabPosterior(*(field[:len(x)] for field in both)),
                SpikeSlabPosterior(*(field[len(x):] for field in both)))

    def _fixed_prior(self) -> SpikeSlab:
        """α N(0, 1) + (1 − α) δ₀."""
        logit = torch.tensor(math.log(self.alpha) - math.log1p(-self.alpha), device=self.device)
        return SpikeSlab(logit, torch.zeros_like(logit), torch.ones_like(logit), validate_args=False)

    def _component_kls(self, posterior: SpikeSlabPosterior, pseudo: SpikeSlabPosterior) -> Tensor:
        """KL(q(z|x) ‖ q(z|x_u)), nats, ``(batch, U)``."""
        with torch.autocast(self.device.type, enabled=False):
            return PairwiseKL.apply(*posterior, *pseudo)

    def _log_choice(self, component_kls: Tensor, x: Tensor) -> Tensor:
        """ln c(x), ``(batch, U)``."""
        if self.choice == "optimal":
            return (-component_kls).log_softmax(1)
        return self.classifier(x.flatten(1)).float().log_softmax(1)

    def _prior_terms(self, posterior: SpikeSlabPosterior, pseudo: SpikeSlabPosterior | None,
                     x: Tensor) -> tuple[Tensor, Tensor]:
        """What the bound charges for the code, the choice included, and the sparsity term, nats, ``(batch,)`` both."""
        if pseudo is None:
            kl, log_choice = kl_divergence(posterior.distribution(), self._fixed_prior()).sum(1), None
        else:
            kls = self._component_kls(posterior, pseudo)
            log_choice = self._log_choice(kls, x)
            kl = (log_choice.exp() * (kls + log_choice)).sum(1) + math.log(self.n_pseudo_inputs)
        if self.held_rate == "posterior":
            uniform = torch.full((1, len(x)), -math.log(len(x)), device=x.device)
            return kl, self._sparsity(uniform, posterior).expand_as(kl)
        return kl, torch.zeros_like(kl) if pseudo is None or log_choice is None else self._sparsity(log_choice, pseudo)

    def _separate_costs(self, posterior: SpikeSlabPosterior) -> tuple[Tensor, Tensor]:
        """KL(N(μ, σ²) ‖ N(0, 1)) of all slabs, and the mean over dimensions of −α ln γ − (1 − α) ln (1 − γ), nats,
        ``(batch,)`` both."""
        cross_entropy = F.softplus(posterior.spike_logit) - self.alpha * posterior.spike_logit
        return standard_normal_kl(posterior.mean, posterior.log_variance).sum(1), cross_entropy.mean(1)

    def _log_prior(self, z: Tensor, pseudo: SpikeSlabPosterior | None) -> Tensor:
        """ln p(z), nats, ``(batch,)``."""
        if pseudo is None:
            return self._fixed_prior().log_prob(z).sum(1)
        log_densities = cross_log_density(z, pseudo.distribution())
        return log_densities.logsumexp(1) - math.log(self.n_pseudo_inputs)

    def _sparsity(self, log_choice: Tensor, chosen: SpikeSlabPosterior) -> Tensor:
        """w · J · KL(Bernoulli(γ̄) ‖ Bernoulli(α)), γ̄ the mean rate of what is chosen, in nats; a value for each row of
        ``log_choice``, ``(rows, chosen)``."""
        log_on, log_off = ((log_choice + F.logsigmoid(logit).logsumexp(1)).logsumexp(1)
                           for logit in (chosen.spike_logit, -chosen.spike_logit))
        return self.sparsity_weight * self.latent_dim * bernoulli_kl(log_on - log_off, self._fixed_prior().logits)


class VSCWarmup(VSC):
    """VSC whose slab is warmed up: λ is λ₀ for ``warmup_steps``, then rises linearly to 1 over ``ramp_steps``.

    With λ₀ = 0, as in the paper, the slab is N(0, 1) whatever the input, noise about 0, so that a spike shows only in
    how much the latent varies; some runs end with every spike off. A larger λ₀ lets some of the slab through from the
    start.

    >>> model = VSCWarmup((64,), warmup_steps=100, ramp_steps=100)
    >>> [model.warmth(step) for step in (0, 150, 200)]
    [0.5, 0.75, 1.0]
    """

    label = "VSC-WU"
    settings: ClassVar = {
        "warmup_steps": Integer(1000, "optimiser steps at λ₀", minimum=0),
        "ramp_steps": Integer(1000, "optimiser steps over which λ rises to 1"),
        "first_warmth": Number(0.5, "λ₀, how much of the slab is there at first", minimum=0, maximum=1, symbol="λ₀"),
    }
    warmup_steps: int
    ramp_steps: int
    first_warmth: float
    suited: ClassVar = {"digits": {"warmup_steps": 500, "ramp_steps": 500}}

    def warmth(self, step: int | None) -> float:
        if step is None:
            return 1.0
        risen = min(1.0, max(0.0, (step - self.warmup_steps) / self.ramp_steps))
        return self.first_warmth + (1 - self.first_warmth) * risen
