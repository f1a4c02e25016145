r"""Sparse autoencoders: deterministic codes h(x) that are held sparse, on a decoder whose first columns have norm 1.

With a = f(x) the encoder's outputs,

    L1          h = ReLU(a)                        L = −ln p(x|h) + λ Σⱼ |hⱼ|
    KL          h = sigmoid(a)                     L = −ln p(x|h) + β Σⱼ KL(ρ ‖ ρ̂ⱼ), ρ̂ⱼ the mean of hⱼ over the data
    TopK        the k largest of ReLU(a)           L = −ln p(x|h) − w ln p(x|e), e below    Gao et al. 2024
    BatchTopK   the k·n largest of a batch of n    as TopK                                  Bussmann et al. 2024
    Matryoshka  as BatchTopK                       as TopK, − Σₘ ln p(x|h₁ … hₘ)            Bussmann et al. 2025
    JumpReLU    aⱼ where aⱼ > θⱼ, else 0           L = −ln p(x|h) + λ Σⱼ [aⱼ > θⱼ]          Rajamanoharan et al. 2024
    gated       ReLU(a′ⱼ) where aⱼ > 0, else 0     L = −ln p(x|h) + λ Σⱼ ReLU(aⱼ) − ln p̄(x|ReLU(a)), a′ and p̄ below

Reconstruction and penalty are reduced alike: summed over features and over units, averaged over the batch, in nats; λ
is nats for a unit of h, or for an active unit. With the Gaussian likelihood the squared error is divided by 2σ², σ
learned. Columns of norm 1 keep a code from escaping its penalty by being small beside a large dictionary. The KL
model's decoder is free, as in the textbook (Ng 2011): its units lie in (0, 1), but can speak by small differences.

**ρ̂ of a batch** of n is a noisy mean, and KL(ρ ‖ ·) is convex: a unit whose mean over the data is ρ is charged about
Var(hⱼ) / (2nρ(1 − ρ)) nats for being uneven, 1/(2n) if it is either on or off. Of a running mean it is not.

**Dead units.** A unit that is never among the k largest has no gradient and stays dead. TopK's and BatchTopK's last
term (AuxK of Gao et al.) lets the units that were not active for long explain what the others leave: e is the decoder's
output for h, held fixed, plus what the largest dead units add to it. They act there without the ReLU: a unit that fell
below 0 would have no gradient otherwise, and few came back. What they add to a network's output depends on where h is;
asked for it at h = 0, they learn what is of no use at h, and stay dead.

**Thresholds.** BatchTopK cannot rank a batch at test time: it uses the mean of the smallest kept activation over
recent training batches as a threshold. JumpReLU learns its thresholds: the derivative of a step is replaced by a kernel
of a given width about it, Gaussian here (the paper's is a rectangle, which is blind to what lies outside of it).

**Nested codes.** Matryoshka's first m units have to do without the others, for several m: the general ones come first.

**Gates** (Rajamanoharan, Conmy et al. 2024). L1 makes the units that it leaves on too small. Here it acts on what
decides, a, alone. The magnitude a′ = eʳ ⊙ (a − b) + b′, with b the encoder's last bias, has its weights up to a scale,
as in the paper. A step lets no gradient through, so that a learns from L1 and from p̄: the decoder, and σ, held fixed.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from sparse_vae.checks import SettingError
from sparse_vae.distributions import gaussian_nll
from sparse_vae.models.autoencoder import Code
from sparse_vae.models.base import SMALLEST_LOG_SCALE, LatentVariableModel
from sparse_vae.nets import keep_unit_columns, linear_layer
from sparse_vae.settings import Choice, Integer, Number

MEANS = ("batch", "running")
MOMENTUM = 0.99
"""Of running means: the share of the old value in the new one, for each training batch."""
PREPARATION = 4096
"""Training observations that are looked at before the first step."""


class SparseLoss(NamedTuple):
    """Nats, summed over features or units, averaged over the batch; ``sparsity`` is weighted as in the objective."""

    total: Tensor
    reconstruction: Tensor
    sparsity: Tensor


class TopKLoss(NamedTuple):
    """Nats, summed over features, averaged over the batch; ``auxiliary`` is weighted as in the objective."""

    total: Tensor
    reconstruction: Tensor
    auxiliary: Tensor


class MatryoshkaLoss(NamedTuple):
    """Nats, summed over features, averaged over the batch; ``prefixes`` is the sum over those shorter than the code."""

    total: Tensor
    reconstruction: Tensor
    prefixes: Tensor
    auxiliary: Tensor


class GatedLoss(NamedTuple):
    """Nats, summed over features or units, averaged over the batch; ``sparsity`` is weighted as in the objective."""

    total: Tensor
    reconstruction: Tensor
    sparsity: Tensor
    auxiliary: Tensor


class SparseAutoencoder(LatentVariableModel):
    """What they have in common: a deterministic code, and a start from which no unit is always on or always off."""

    @torch.no_grad()
    def prepare(self, x: Tensor, *, generator: torch.Generator | None = None) -> None:
        """Start the decoder at the mean of the data, and every unit with a mean of 0 before its non-linearity.

        Otherwise the first steps teach the units the mean of the data, which makes some of them large for every
        observation, and the others never catch up.
        """
        self.start_decoder_at_mean(x)
        before, = self.encoder_outputs(x[:PREPARATION])
        linear_layer(self.encoder, -1).bias.sub_(before.mean(0))

    def encode(self, x: Tensor) -> Code:
        raise NotImplementedError

    def code(self, x: Tensor) -> Tensor:
        return self.encode(x).code

    def nll_at_scale(self, x: Tensor, outputs: Tensor) -> Tensor:
        """As :meth:`nll`, σ held fixed: for further terms, which shall not move it off the reconstruction's."""
        if self.likelihood == "bernoulli":
            return self.nll(x, outputs)
        return gaussian_nll(outputs, x, self.log_scale.detach().clamp(min=SMALLEST_LOG_SCALE))


class L1SparseAutoencoder(SparseAutoencoder):
    """Autoencoder with a penalty on the sum of its non-negative code.

    >>> bool((L1SparseAutoencoder((64,)).code(torch.rand(5, 64)) >= 0).all())
    True
    """

    label = "Sparse AE, L1"
    settings: ClassVar = {
        "sparsity_weight": Number(0.03, "nats for a unit of the code", minimum=0, symbol="λ"),
    }
    sparsity_weight: float

    def __init__(self, input_shape: tuple[int, ...], **given: object):
        super().__init__(input_shape, **given)
        keep_unit_columns(self.decoder[0])

    def encode(self, x: Tensor) -> Code:
        activation, = self.encoder_outputs(x)
        return Code(activation.relu())

    def loss(self, x: Tensor, *, step: int | None = None, generator: torch.Generator | None = None) -> SparseLoss:
        code = self.code(x)
        reconstruction = self.reconstruction_nll(x, code).mean()
        sparsity = self.sparsity_weight * code.sum(1).mean()
        return SparseLoss(reconstruction + sparsity, reconstruction, sparsity)


class KLSparseAutoencoder(SparseAutoencoder):
    """Autoencoder of sigmoid units whose mean activations are held at a target rate (Ng 2011).

    Its units are never 0. One that says nothing sits at ρ; active is one above 2ρ, or above one half if that is less.

    >>> KLSparseAutoencoder((64,), target_rate=0.05).active_means
    'its activation is above 0.1'
    """

    label = "Sparse AE, KL"
    settings: ClassVar = {
        "target_rate": Number(0.1, "mean activation that units are held at", above=0, below=1, symbol="ρ"),
        "sparsity_weight": Number(100.0, "β, nats", minimum=0),
        "mean_over": Choice("batch", "where a unit's mean comes from: a batch, or a running mean over training batches "
                            "with the gradient of the batch's", choices=MEANS, title="{} mean"),
    }
    target_rate: float
    sparsity_weight: float
    mean_over: str
    running_rate: Tensor

    def __init__(self, input_shape: tuple[int, ...], **given: object):
        super().__init__(input_shape, **given)
        self.threshold = min(2 * self.target_rate, 0.5)
        self.active_means = f"its activation is above {self.threshold:g}"
        if self.mean_over == "running":
            self.register_buffer("running_rate", torch.full((self.latent_dim,), self.target_rate))

    @torch.no_grad()
    def prepare(self, x: Tensor, *, generator: torch.Generator | None = None) -> None:
        """As in the others, and every unit at about its target rate."""
        super().prepare(x, generator=generator)
        linear_layer(self.encoder, -1).bias.add_(math.log(self.target_rate / (1 - self.target_rate)))

    def encode(self, x: Tensor) -> Code:
        activation, = self.encoder_outputs(x)
        return Code(activation.sigmoid())

    def active(self, x: Tensor) -> Tensor:
        return self.code(x) > self.threshold

    def loss(self, x: Tensor, *, step: int | None = None, generator: torch.Generator | None = None) -> SparseLoss:
        code = self.code(x)
        reconstruction = self.reconstruction_nll(x, code).mean()
        sparsity = self.sparsity_weight * self.rate_divergence(self._rates(code)).sum()
        return SparseLoss(reconstruction + sparsity, reconstruction, sparsity)

    def rate_divergence(self, rates: Tensor) -> Tensor:
        """KL(Bernoulli(ρ) ‖ Bernoulli(ρ̂)) of each rate, nats."""
        target = self.target_rate
        rates = rates.clamp(1e-7, 1 - 1e-7)
        return target * (math.log(target) - rates.log()) + (1 - target) * (math.log1p(-target) - torch.log1p(-rates))

    def _rates(self, code: Tensor) -> Tensor:
        rates = code.mean(0)
        if self.mean_over == "batch":
            return rates
        if self.training:
            self.running_rate.lerp_(rates.detach(), 1 - MOMENTUM)
        return self.running_rate + (rates - rates.detach())


class TopK(SparseAutoencoder):
    """Autoencoder that keeps the k largest activations of each observation (Gao et al. 2024).

    >>> (TopK((64,), latent_dim=20, k=3).code(torch.rand(5, 64)) != 0).sum(1) <= 3
    tensor([True, True, True, True, True])
    """

    settings: ClassVar = {
        "k": Integer(None, "units to keep, at most latent_dim; none is a tenth of latent_dim, or 4 if more",
                     symbol="k",
                     otherwise=lambda settings: min(settings.latent_dim, max(4, settings.latent_dim // 10))),
        "auxiliary_weight": Number(1 / 32, "weight of the term for dead units", minimum=0),
        "dead_after": Integer(10_000, "training observations without activity after which a unit is dead"),
        "auxiliary_k": Integer(None, "dead units that may explain what the others leave; none is half of latent_dim",
                               otherwise=lambda settings: max(1, settings.latent_dim // 2)),
    }
    k: int
    auxiliary_weight: float
    dead_after: int
    auxiliary_k: int
    unused_for: Tensor

    def __init__(self, input_shape: tuple[int, ...], **given: object):
        super().__init__(input_shape, **given)
        keep_unit_columns(self.decoder[0])
        self.register_buffer("unused_for", torch.zeros(self.latent_dim, dtype=torch.long))

    @classmethod
    def check_together(cls, settings: SimpleNamespace) -> None:
        if settings.k > settings.latent_dim:
            raise SettingError(f"k must be at most latent_dim, {settings.latent_dim}; got {settings.k}")

    def activations(self, x: Tensor) -> Tensor:
        """ReLU of the encoder's outputs, before any is dropped, ``(batch, latent_dim)``."""
        activation, = self.encoder_outputs(x)
        return activation.relu()

    def encode(self, x: Tensor) -> Code:
        return Code(_largest(self.activations(x), self.k))

    def training_code(self, activations: Tensor, step: int | None = None) -> Tensor:
        """The code that training decodes, from the activations of a batch."""
        return _largest(activations, self.k)

    def loss(self, x: Tensor, *, step: int | None = None,
             generator: torch.Generator | None = None) -> TopKLoss | MatryoshkaLoss:
        return self.code_and_loss(x, step)[1]

    def code_and_loss(self, x: Tensor, step: int | None) -> tuple[Tensor, TopKLoss]:
        """The code that training decodes, and what comes of it."""
        outputs_of_encoder, = self.encoder_outputs(x)
        code = self.training_code(outputs_of_encoder.relu(), step)
        outputs = self.decode(code)
        reconstruction = self.nll(x, outputs).mean()
        dead = self.unused_for >= self.dead_after
        auxiliary = torch.zeros_like(reconstruction)
        if dead.any():
            strongest = torch.zeros_like(code)
            strongest[:, dead] = _largest(outputs_of_encoder[:, dead], min(self.auxiliary_k, int(dead.sum())))
            # Of a linear decoder they add the same anywhere, and at 0 it costs less.
            at = torch.zeros_like(code[:1]) if self.decoder_kind == "linear" else code.detach()
            added = self.decode(at + strongest) - self.decode(at)
            auxiliary = self.auxiliary_weight * self.nll(x, outputs.detach() + added).mean()
        if self.training:
            used = (code.detach() > 0).any(0)
            self.unused_for.add_(len(x)).masked_fill_(used, 0)
        return code, TopKLoss(reconstruction + auxiliary, reconstruction, auxiliary)


class BatchTopK(TopK):
    """TopK over a whole batch: k units for an observation on average, more where more is needed (Bussmann et al. 2024).

    Outside of training a unit is kept where it exceeds ``threshold``, the running mean of the smallest kept activation
    over about the last tenth of the training batches, at most 100: a longer memory would lag behind a short training.

    >>> BatchTopK((64,), latent_dim=20, k=3).loss(torch.rand(5, 64))._fields
    ('total', 'reconstruction', 'auxiliary')
    """

    threshold: Tensor

    def __init__(self, input_shape: tuple[int, ...], **given: object):
        super().__init__(input_shape, **given)
        self.register_buffer("threshold", torch.zeros(()))

    def encode(self, x: Tensor) -> Code:
        activations = self.activations(x)
        return Code(torch.where(activations > self.threshold, activations, 0))

    def training_code(self, activations: Tensor, step: int | None = None) -> Tensor:
        if not self.training:
            return torch.where(activations > self.threshold, activations, 0)
        code = _largest(activations.flatten()[None], self.k * len(activations)).view_as(activations)
        kept = code.detach()[code > 0]
        if len(kept):
            share = 1 - MOMENTUM if step is None else max(1 - MOMENTUM, 10 / max(step, 10))
            self.threshold.lerp_(kept.min(), share)
        return code


class Matryoshka(BatchTopK):
    """BatchTopK whose first part has to explain the data alone, and so on (Bussmann et al. 2025).

    >>> Matryoshka((64,), latent_dim=100, prefixes=4).lengths
    [12, 25, 50, 100]
    """

    settings: ClassVar = {
        "prefixes": Integer(None, "first parts of the code that explain the data, all of it one of them, each half as "
                                  "long as the next; none is 5, or as many as there are",
                            otherwise=lambda settings: min(5, settings.latent_dim.bit_length())),
    }
    prefixes: int
    suited: ClassVar = {"digits": {"latent_dim": 100, "dead_after": 2000}}

    @classmethod
    def check_together(cls, settings: SimpleNamespace) -> None:
        super().check_together(settings)
        if settings.prefixes > settings.latent_dim.bit_length():
            raise SettingError(f"prefixes must be at most {settings.latent_dim.bit_length()}, as often as latent_dim, "
                               f"{settings.latent_dim}, can be halved, and 1; got {settings.prefixes}")

    @property
    def lengths(self) -> list[int]:
        """Units of each prefix."""
        return [self.latent_dim >> halvings for halvings in reversed(range(self.prefixes))]

    def loss(self, x: Tensor, *, step: int | None = None, generator: torch.Generator | None = None) -> MatryoshkaLoss:
        code, (total, reconstruction, auxiliary) = self.code_and_loss(x, step)
        prefixes = torch.zeros_like(total)
        for length in self.lengths[:-1]:
            prefix = nn.functional.pad(code[:, :length], (0, self.latent_dim - length))
            prefixes = prefixes + self.nll_at_scale(x, self.decode(prefix)).mean()
        return MatryoshkaLoss(total + prefixes, reconstruction, prefixes, auxiliary)


class JumpReLU(SparseAutoencoder):
    """Autoencoder whose units are on above a learned threshold, with a penalty on their number.

    >>> JumpReLU((64,), latent_dim=4, first_threshold=0.5).log_threshold.detach().exp()
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    settings: ClassVar = {
        "sparsity_weight": Number(1.0, "nats for an active unit", minimum=0, symbol="λ"),
        "first_threshold": Number(0.1, "where every threshold starts", above=0),
        "bandwidth": Number(0.1, "width of the kernel that stands for the derivative of the step, in units of the "
                            "activations", above=0),
    }
    sparsity_weight: float
    first_threshold: float
    bandwidth: float

    def __init__(self, input_shape: tuple[int, ...], **given: object):
        super().__init__(input_shape, **given)
        self.log_threshold = nn.Parameter(torch.full((self.latent_dim,), math.log(self.first_threshold)))
        keep_unit_columns(self.decoder[0])

    def encode(self, x: Tensor) -> Code:
        activation, = self.encoder_outputs(x)
        return Code(activation * _Step.apply(activation, self.log_threshold.exp(), self.bandwidth))

    def loss(self, x: Tensor, *, step: int | None = None, generator: torch.Generator | None = None) -> SparseLoss:
        activation, = self.encoder_outputs(x)
        on = _Step.apply(activation, self.log_threshold.exp(), self.bandwidth)
        reconstruction = self.reconstruction_nll(x, activation * on).mean()
        sparsity = self.sparsity_weight * on.sum(1).mean()
        return SparseLoss(reconstruction + sparsity, reconstruction, sparsity)


class Gated(SparseAutoencoder):
    """Autoencoder that decides whether a unit is on and how large it is by itself, L1 on the former alone.

    >>> Gated((64,), latent_dim=4).loss(torch.rand(5, 64))._fields
    ('total', 'reconstruction', 'sparsity', 'auxiliary')
    """

    settings: ClassVar = {
        "sparsity_weight": Number(3.0, "nats for a unit of what opens a gate", minimum=0, symbol="λ"),
    }
    sparsity_weight: float

    def __init__(self, input_shape: tuple[int, ...], **given: object):
        super().__init__(input_shape, **given)
        self.log_ratio = nn.Parameter(torch.zeros(self.latent_dim))
        self.magnitude_bias = nn.Parameter(linear_layer(self.encoder, -1).bias.detach().clone())
        keep_unit_columns(self.decoder[0])

    @torch.no_grad()
    def prepare(self, x: Tensor, *, generator: torch.Generator | None = None) -> None:
        """As in the others, magnitudes and gates alike."""
        super().prepare(x, generator=generator)
        self.magnitude_bias.copy_(linear_layer(self.encoder, -1).bias)

    def gates_and_code(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What opens the gates, a, and the code, both ``(batch, latent_dim)``."""
        gates, = self.encoder_outputs(x)
        magnitudes = self.log_ratio.exp() * (gates - linear_layer(self.encoder, -1).bias) + self.magnitude_bias
        return gates, torch.where(gates > 0, magnitudes.relu(), 0)

    def encode(self, x: Tensor) -> Code:
        return Code(self.gates_and_code(x)[1])

    def loss(self, x: Tensor, *, step: int | None = None, generator: torch.Generator | None = None) -> GatedLoss:
        gates, code = self.gates_and_code(x)
        reconstruction = self.reconstruction_nll(x, code).mean()
        sparsity = self.sparsity_weight * gates.relu().sum(1).mean()
        frozen = {name: parameter.detach() for name, parameter in self.decoder.named_parameters()}
        outputs = torch.func.functional_call(self.decoder, frozen, gates.relu()).float()
        auxiliary = self.nll_at_scale(x, outputs).mean()
        return GatedLoss(reconstruction + sparsity + auxiliary, reconstruction, sparsity, auxiliary)


def _largest(values: Tensor, k: int) -> Tensor:
    """The k largest values of each row, ``(n, J)``, 0 elsewhere."""
    kept, columns = values.topk(k, dim=1, sorted=False)
    return torch.zeros_like(values).scatter(1, columns, kept)


class _Step(torch.autograd.Function):
    """[a > θ], with −K((a − θ)/ε)/ε, K the normal density, for its derivative in θ, and none in a (Rajamanoharan et
    al. 2024, equations 11 and 12). By the chain rule a [a > θ] has −a K/ε, where the paper writes −θ K/ε: the same at
    the threshold, another value away from it."""

    @staticmethod
    def forward(activation: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        return (activation > threshold).to(activation.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        activation, threshold, ctx.bandwidth = inputs
        ctx.save_for_backward(activation, threshold)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        activation, threshold = ctx.saved_tensors
        distance = (activation - threshold) / ctx.bandwidth
        kernel = (-0.5 * distance.square()).exp() / (math.sqrt(2 * math.pi) * ctx.bandwidth)
        return None, -(gradient * kernel).sum(0), None
