"""The models. To add one: write its file here and register it in ``MODELS``; everything else then takes it."""

from __future__ import annotations

import inspect

from sparse_vae.checks import unknown_name
from sparse_vae.models.autoencoder import Autoencoder
from sparse_vae.models.base import LatentVariableModel
from sparse_vae.models.hybrid import HybridSparseVAE
from sparse_vae.models.sparse_autoencoder import BatchTopK, JumpReLU, KLSparseAutoencoder, L1SparseAutoencoder, TopK
from sparse_vae.models.vae import VAE, BetaVAE
from sparse_vae.models.vsc import VSC, VSCWarmup

MODELS: dict[str, type[LatentVariableModel]] = {
    "autoencoder": Autoencoder,
    "sparse-autoencoder-l1": L1SparseAutoencoder,
    "sparse-autoencoder-kl": KLSparseAutoencoder,
    "topk": TopK,
    "batchtopk": BatchTopK,
    "jumprelu": JumpReLU,
    "vae": VAE,
    "beta-vae": BetaVAE,
    "vsc": VSC,
    "vsc-warmup": VSCWarmup,
    "hybrid": HybridSparseVAE,
}


def model_class(name: str) -> type[LatentVariableModel]:
    """The class registered under ``name``; an unknown name is a :class:`~sparse_vae.checks.SettingError`."""
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def model_settings(name: str) -> dict[str, object]:
    """The settings a model takes and their defaults, its own first, then those that all models share."""
    settings = {}
    for cls in model_class(name).__mro__:
        if issubclass(cls, LatentVariableModel) and "__init__" in vars(cls):
            for parameter in inspect.signature(cls.__init__).parameters.values():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    settings.setdefault(parameter.name, parameter.default)
    return settings


def make_model(name: str, input_shape: tuple[int, ...], **settings) -> LatentVariableModel:
    """A model with fresh weights.

    Args:
        name: as registered in ``MODELS``.
        input_shape: shape of one observation, without the batch dimension.
        **settings: see :func:`model_settings`.

    Raises:
        SettingError: an unknown model or setting (with the nearest name), or a value out of range.
    """
    cls, known = model_class(name), model_settings(name)
    for setting in settings:
        if setting not in known:
            raise unknown_name(f"setting of model {name!r}", setting, known)
    return cls(input_shape, **settings)


__all__ = ["MODELS", "LatentVariableModel", "make_model", "model_class", "model_settings"]
