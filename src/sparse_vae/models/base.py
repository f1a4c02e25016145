"""The interface of every model, and what they all share.

A model is an encoder q(z|x) or a code h(x), a decoder p(x|z) with a likelihood, and an objective. A family is one
short file that says how the encoder's outputs are read, what the code is, and what the loss adds to the
reconstruction; notebooks, figures and suites use the methods below and never a model's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from sparse_vae.distributions import bernoulli_nll, gaussian_nll
from sparse_vae.nets import BACKBONES, make_backbone
from sparse_vae.settings import Choice, Integer, Setting, check_settings, resolve, title_of

LIKELIHOODS = ("bernoulli", "gaussian")
DECODERS = ("network", "linear")
SMALLEST_LOG_SCALE = -6.0
FIRST_NOISE = 1 / 3
"""Where σ starts beside a decoder that starts at the mean, in standard deviations of the data: with more noise a code
hardly pays for itself at first, and is given up."""


class LatentVariableModel(nn.Module):
    """Base of all models: backbone, likelihood, and the methods that do not differ.

    A subclass declares the settings that it adds, and the types of those that it reads; each becomes an attribute of
    the model, checked, with what None stands for in its place. (``decoder`` is the network; the setting of that name is
    ``decoder_kind``.)

    Args:
        input_shape: shape of one observation, ``(channels, height, width)`` for images.
        **given: values of ``settings``, defaults for the others.

    Raises:
        SettingError: an unknown setting, a value that is not allowed, or values that do not go together.

    >>> LatentVariableModel.check_settings({"latent_dim": 3})["latent_dim"]
    3
    """

    settings: ClassVar[dict[str, Setting]] = {
        "latent_dim": Integer(16, "number of latent dimensions, J"),
        "likelihood": Choice("bernoulli", "bernoulli: values in [0, 1], the decoder gives logits; gaussian: it gives "
                             "means, and one standard deviation is learned (σ-VAE, Rybkin et al. 2021); in a run, that "
                             "of the data unless it is given", choices=LIKELIHOODS),
        "backbone": Choice("auto", "networks: three convolutions, one hidden layer, or (auto) what suits the data",
                           choices=BACKBONES),
        "hidden_dim": Integer(400, "hidden units of the mlp backbone"),
        "decoder": Choice("network", "the backbone's, or linear: Az + b, the columns of A a dictionary's atoms",
                          choices=DECODERS, title="{} decoder"),
    }
    """The settings of a model, its own first, then those of the classes it is derived from."""

    latent_dim: int
    likelihood: str
    backbone: str
    hidden_dim: int
    decoder_kind: str
    encoder: nn.Module | None
    decoder: nn.Sequential
    log_scale: nn.Parameter  # ln σ of the Gaussian likelihood

    suited: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Settings, its own and the training's, that suit the model on a data set, where they differ from the defaults:
    data set → name → value; under "" those for all data sets."""

    label: ClassVar[str] = ""
    """What titles call the model; the name of the class if nothing else is said."""

    encoder_outputs_per_latent = 1
    """How many numbers the encoder gives for each latent dimension."""

    trained_by_fit = False
    """Whether ``fit(x, seed=…)`` takes everything from the training observations at once, without gradients."""

    active_means: str = "the code is not exactly zero"
    """What :meth:`active` calls active, for titles and captions."""

    def __init_subclass__(cls, **arguments: object) -> None:
        super().__init_subclass__(**arguments)
        own = vars(cls).get("settings", {})
        cls.settings = {**own, **super(cls, cls).settings, **own}  # type: ignore[misc]  # in this order; mypy takes cls for the base
        cls.label = vars(cls).get("label", cls.__name__)

    @classmethod
    def check_together(cls, settings: SimpleNamespace) -> None:
        """A :class:`SettingError` where values, each of which is allowed, do not go together."""

    @classmethod
    def check_settings(cls, given: Mapping[str, object]) -> dict[str, object]:
        """The value of every setting, checked, as a run records it; builds nothing."""
        return check_settings(cls.settings, given, of=cls.label, together=cls.check_together)

    @classmethod
    def title_of(cls, values: Mapping[str, object]) -> str:
        """What figures and tables call a model with these settings; builds nothing."""
        return title_of(cls.label, cls.settings, values)

    def __init__(self, input_shape: tuple[int, ...], **given: object):
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.setting_values = self.check_settings(given)
        for name, value in vars(resolve(self.settings, self.setting_values)).items():
            setattr(self, "decoder_kind" if name == "decoder" else name, value)
        self.encoder, self.decoder = make_backbone(
            self.backbone, self.input_shape, self.encoder_outputs_per_latent * self.latent_dim, self.latent_dim,
            self.hidden_dim)
        if self.decoder_kind == "linear":
            self.decoder = nn.Sequential(nn.Linear(self.latent_dim, math.prod(self.input_shape)),
                                         nn.Unflatten(1, self.input_shape))
        if self.likelihood == "gaussian":
            self.log_scale = nn.Parameter(torch.zeros(()))

    def prepare(self, x: Tensor, *, generator: torch.Generator | None = None) -> None:
        """Take from the training observations ``x`` what the first step needs; called once, before training.

        A linear decoder starts at the mean of the data, and so does any with the Gaussian likelihood, with little
        noise, see :meth:`start_decoder_at_mean`.
        """
        if self.decoder_kind == "linear" or self.likelihood == "gaussian":
            self.start_decoder_at_mean(x)

    def fit(self, x: Tensor, *, seed: int = 0) -> None:
        """Learn from the training observations ``x``, ``(n, *input_shape)``, at once; where ``trained_by_fit``.

        Raises:
            SettingError: settings that do not suit these observations.
        """
        raise NotImplementedError

    @torch.no_grad()
    def start_decoder_at_mean(self, x: Tensor) -> None:
        """Let a code of zeros decode to about the mean of ``x``, and σ be ``FIRST_NOISE`` of the deviation from it."""
        bias = self.decoder[-2 if isinstance(self.decoder[-1], nn.Unflatten) else -1].bias
        assert isinstance(bias, Tensor)
        mean = x.mean(0)
        # A convolution has one bias for each channel.
        start = mean.flatten() if bias.numel() == mean.numel() else mean.flatten(1).mean(1)
        if self.likelihood == "bernoulli":
            bias.copy_(start.clamp(0.01, 0.99).logit())
        else:
            bias.copy_(start)
            deviation = (x - mean).square().mean().sqrt()
            self.log_scale.copy_((FIRST_NOISE * deviation).log().clamp(min=SMALLEST_LOG_SCALE))

    def encode(self, x: Tensor) -> NamedTuple:
        """The posterior of ``x``, ``(batch, *input_shape)``: a NamedTuple of ``(batch, latent_dim)`` tensors."""
        raise NotImplementedError

    def code(self, x: Tensor) -> Tensor:
        """The deterministic code ``(batch, latent_dim)`` that figures and measures use; exact zeros mean "inactive"."""
        raise NotImplementedError

    def loss(self, x: Tensor, *, step: int | None = None, generator: torch.Generator | None = None) -> NamedTuple:
        """The training objective on a batch.

        Args:
            x: observations, ``(batch, *input_shape)``.
            step: the optimiser step, for models with a schedule; None is the end of training.
            generator: source of randomness, on the device of ``x``.

        Returns:
            A NamedTuple of scalars in nats, summed over features and averaged over the batch: ``total``, then the
            terms that add up to it.
        """
        raise NotImplementedError

    def active(self, x: Tensor) -> Tensor:
        """Which dimensions are active for which observation, bool ``(batch, latent_dim)``; see ``active_means``."""
        return self.code(x) != 0

    def encoder_outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """The encoder's numbers, one ``(batch, latent_dim)`` float32 tensor for each number per latent."""
        assert self.encoder is not None
        return self.encoder(x).float().chunk(self.encoder_outputs_per_latent, dim=1)

    def decode(self, z: Tensor) -> Tensor:
        """Decoder outputs for latents ``(batch, latent_dim)``: logits or means, ``(batch, *input_shape)``, float32."""
        return self.decoder(z).float()

    def decode_mean(self, z: Tensor) -> Tensor:
        """E[x|z], in the units of the observations, ``(batch, *input_shape)``."""
        outputs = self.decode(z)
        return outputs.sigmoid() if self.likelihood == "bernoulli" else outputs

    def reconstruct(self, x: Tensor) -> Tensor:
        """The reconstruction from the deterministic code, ``(batch, *input_shape)``."""
        return self.decode_mean(self.code(x))

    def reconstruction_nll(self, x: Tensor, z: Tensor) -> Tensor:
        """−ln p(x|z) in nats, summed over features, ``(batch,)``."""
        return self.nll(x, self.decode(z))

    def nll(self, x: Tensor, outputs: Tensor) -> Tensor:
        """−ln p(x) in nats for given outputs of the decoder, summed over features, ``(batch,)``."""
        if self.likelihood == "bernoulli":
            return bernoulli_nll(outputs, x)
        return gaussian_nll(outputs, x, self.log_scale.clamp(min=SMALLEST_LOG_SCALE))

    @property
    def title(self) -> str:
        """What figures and tables call the model."""
        return self.title_of(self.setting_values)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device


class GenerativeModel(LatentVariableModel):
    """A model with a prior p(z): its objective can be a bound on the evidence, and it can be sampled from."""

    def negative_elbo(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One-sample estimate of −ELBO for each observation, with weight 1 on every KL, nats, ``(batch,)``."""
        raise NotImplementedError

    def log_importance_weight(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """ln p(x, z) − ln q(z|x) at one z ~ q(z|x) for each observation, nats, ``(batch,)``."""
        raise NotImplementedError

    def kl_per_dimension(self, x: Tensor) -> Tensor:
        """KL of each dimension's posterior to its prior, nats, ``(batch, latent_dim)``."""
        raise NotImplementedError

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Means of ``n`` observations drawn from the prior, ``(n, *input_shape)``."""
        raise NotImplementedError
