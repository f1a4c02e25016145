"""The models. To add one: write its file here and register it in ``MODELS``; everything else then takes it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from sparse_vae.checks import SettingError, unknown_name
from sparse_vae.models.autoencoder import Autoencoder
from sparse_vae.models.base import GenerativeModel, LatentVariableModel
from sparse_vae.models.classical import CLASSICAL
from sparse_vae.models.hybrid import HybridSparseVAE
from sparse_vae.models.matching_pursuit import MatchingPursuit
from sparse_vae.models.sparse_autoencoder import (
    BatchTopK,
    Gated,
    JumpReLU,
    KLSparseAutoencoder,
    L1SparseAutoencoder,
    Matryoshka,
    TopK,
)
from sparse_vae.models.vae import VAE, BetaVAE
from sparse_vae.models.vaease import VAEase
from sparse_vae.models.vsc import VSC, VSCWarmup
from sparse_vae.settings import Setting, setting_lines, values_text

MODELS: dict[str, type[LatentVariableModel]] = {
    "autoencoder": Autoencoder,
    "sparse-autoencoder-l1": L1SparseAutoencoder,
    "sparse-autoencoder-kl": KLSparseAutoencoder,
    "topk": TopK,
    "batchtopk": BatchTopK,
    "matryoshka": Matryoshka,
    "jumprelu": JumpReLU,
    "gated": Gated,
    "matching-pursuit": MatchingPursuit,
    "vae": VAE,
    "beta-vae": BetaVAE,
    "vaease": VAEase,
    "vsc": VSC,
    "vsc-warmup": VSCWarmup,
    "hybrid": HybridSparseVAE,
}


def model_class(name: str) -> type[LatentVariableModel]:
    """The class registered under ``name``; an unknown name is a :class:`~sparse_vae.checks.SettingError`.

    >>> model_class("vsc").label
    'VSC'
    """
    known = MODELS | CLASSICAL
    if name not in known:
        raise unknown_name("model", name, known)
    return known[name]


def model_settings(name: str) -> dict[str, Setting]:
    """The settings a model takes, its own first, then those that all models share.

    >>> list(model_settings("topk"))[:2]
    ['k', 'auxiliary_weight']
    """
    return model_class(name).settings


def make_model(name: str, input_shape: tuple[int, ...], **settings: object) -> LatentVariableModel:
    """A model with fresh weights.

    Args:
        name: as registered in ``MODELS`` or ``CLASSICAL``.
        input_shape: shape of one observation, without the batch dimension.
        **settings: see :func:`model_settings`.

    Raises:
        SettingError: an unknown model or setting (with the nearest name), a value out of range, or one for which the
            memory does not suffice.

    >>> import torch
    >>> model = make_model("topk", (1, 8, 8), latent_dim=20, k=3)
    >>> model.active(torch.rand(2, 1, 8, 8)).sum(1) <= 3
    tensor([True, True])
    """
    cls = model_class(name)
    try:
        return cls(input_shape, **settings)
    except (RuntimeError, MemoryError) as error:  # of torch, which lacks the memory
        used = ", ".join(f"{key}={value}" for key, value in settings.items())
        raise SettingError(f"{name} cannot be built with {used}: {error}") from error


def model_lines() -> list[str]:
    """What there is, for people: every model with its settings; those that all of ``MODELS`` share come after them."""
    def lines(name: str, description: str, settings: dict[str, Setting],
              suited: Mapping[str, Mapping[str, object]] | None = None) -> list[str]:
        trained = [f"trained{dataset and f' on {dataset}'} with {values_text(values)}"
                   for dataset, values in (suited or {}).items()]
        return [name, *(f"    {text}" for text in [description, *trained, *setting_lines(settings)])]

    def first_line(cls: type) -> str:
        return (inspect.getdoc(cls) or "").partition("\n")[0]

    shared = LatentVariableModel.settings
    own = {name: {key: setting for key, setting in cls.settings.items() if key not in shared}
           for name, cls in MODELS.items()}
    return [*(line for name, cls in MODELS.items() for line in lines(name, first_line(cls), own[name], cls.suited)),
            *lines("all of these", "What they share.", shared),
            *(line for name, cls in CLASSICAL.items() for line in lines(name, first_line(cls), cls.settings))]


__all__ = ["CLASSICAL", "MODELS", "GenerativeModel", "LatentVariableModel", "make_model", "model_class", "model_lines",
           "model_settings"]
