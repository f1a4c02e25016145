"""Models as ``runtime.js`` reads them: layers, how a code comes out of the encoder's numbers, the prior, and tensors.

A model of another kind needs an entry in :func:`describe_code`, one in :data:`LAYERS` for each new layer, and what they
name in ``runtime.js``, in its ``CODES`` and ``LAYERS``.
"""

from __future__ import annotations

import base64
import gzip
from functools import singledispatch
from io import BytesIO

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from sparse_vae.checks import SettingError
from sparse_vae.models import hybrid
from sparse_vae.models.autoencoder import Autoencoder
from sparse_vae.models.base import LatentVariableModel
from sparse_vae.models.matching_pursuit import MatchingPursuit
from sparse_vae.models.sparse_autoencoder import (
    BatchTopK,
    Gated,
    JumpReLU,
    KLSparseAutoencoder,
    L1SparseAutoencoder,
    TopK,
)
from sparse_vae.models.vae import ACTIVE_KL, VAE
from sparse_vae.models.vaease import FIRST_LOGIT, VAEase
from sparse_vae.models.vsc import LARGEST_LOG_VARIANCE, VSC
from sparse_vae.nets import Flatten, Unflatten

PICTURES_ACROSS = 32
"""Pictures in a row of a :func:`sheet`."""


def describe(model: LatentVariableModel, file: str | None = None) -> dict:
    """A model as ``openModel`` of ``runtime.js`` takes it.

    Args:
        file: its published weights, a member of an archive, seen from the root of the site; None puts them in.

    Raises:
        SettingError: a layer or a code that the browser does not know, or weights beyond half precision.
    """
    last = [{"kind": "sigmoid"}] * (model.likelihood == "bernoulli")
    return {"shape": list(model.input_shape), "latentDim": model.latent_dim, "activeMeans": model.active_means,
            "code": describe_code(model), "prior": describe_prior(model), "encoder": describe_encoder(model),
            "decoder": layers(model, "decoder") + last,
            "weights": {"file": file} if file else blob(half_precision(model))}


def is_known(model: LatentVariableModel) -> bool:
    """Whether the browser can compute the model: whether :func:`describe` can describe it."""
    try:
        return bool(describe(model))
    except (SettingError, AttributeError):  # another layer or code, or no such network
        return False


# --- layers


def _plain(layer: nn.Module, name: str) -> list[dict]:
    """Nothing: the values stay, in their order."""
    return []


def _linear(layer: nn.Linear, name: str) -> list[dict]:
    unit = hasattr(layer, "parametrizations")  # columns of norm 1
    weight = "parametrizations.weight.original" if unit else "weight"
    return [{"kind": "linear", "weight": f"{name}.{weight}", "bias": f"{name}.bias", "unit": unit}]


def _convolution(layer: nn.Conv2d | nn.ConvTranspose2d, name: str) -> list[dict]:
    if layer.groups != 1 or layer.dilation != (1, 1) or layer.padding_mode != "zeros":
        raise SettingError(f"widgets know convolutions without groups, dilation or other padding; got {layer}")
    found = {"kind": "convolution", "weight": f"{name}.weight", "bias": f"{name}.bias", "stride": layer.stride,
             "padding": layer.padding}
    if isinstance(layer, nn.ConvTranspose2d):
        found |= {"kind": "deconvolution", "outputPadding": layer.output_padding}
    return [found]


LAYERS = {
    nn.Flatten: _plain,
    nn.Unflatten: _plain,
    nn.Linear: _linear,
    nn.ReLU: lambda layer, name: [{"kind": "relu"}],
    nn.Conv2d: _convolution,
    nn.ConvTranspose2d: _convolution,
    Flatten: lambda layer, name: [{"kind": "flatten"}],
    Unflatten: lambda layer, name: [{"kind": "unflatten", "shape": layer.shape}],
}
"""Kind of layer → what it is in ``runtime.js``; tensors go by their names in the model's ``state_dict``."""


def layers(model: LatentVariableModel, part: str) -> list[dict]:
    """What the encoder or the decoder computes, layer by layer.

    Raises:
        SettingError: a layer that the browser does not know.
    """
    found, network = [], getattr(model, part)
    named = network.named_children() if isinstance(network, nn.Sequential) else [("", network)]
    for name, layer in named:
        kind = next((kind for kind in LAYERS if isinstance(layer, kind)), None)
        if kind is None:
            raise SettingError(f"widgets do not know this layer of the {part}: {layer}; to add it, see "
                               "src/sparse_vae/report/widgets/export.py and runtime.js")
        found += LAYERS[kind](layer, f"{part}.{name}".rstrip("."))
    return found


# --- codes and priors


@singledispatch
def describe_encoder(model: LatentVariableModel) -> list[dict]:
    """What gives the numbers that a code comes out of, layer by layer."""
    return layers(model, "encoder")


@describe_encoder.register
def _(model: MatchingPursuit) -> list[dict]:
    return [{"kind": "products", **_dictionary(model)}]


def _dictionary(model: MatchingPursuit) -> dict:
    found, = _linear(model.dictionary, "decoder.0" if model.encoder is None else "encoder")
    return {name: found[name] for name in ("weight", "bias")}


@singledispatch
def describe_code(model: LatentVariableModel) -> dict:
    """How ``code`` comes out of the encoder's numbers; see ``CODES`` in ``runtime.js``.

    Raises:
        SettingError: a model of a kind that the browser does not know.
    """
    raise SettingError(f"widgets do not know the code of {type(model).__name__}; to add it, see "
                       "src/sparse_vae/report/widgets/export.py and runtime.js")


@describe_code.register
def _(model: Autoencoder) -> dict:
    return {"kind": "plain"}


@describe_code.register
def _(model: L1SparseAutoencoder) -> dict:
    return {"kind": "relu"}


@describe_code.register
def _(model: KLSparseAutoencoder) -> dict:
    return {"kind": "sigmoid", "threshold": model.threshold}


@describe_code.register
def _(model: TopK) -> dict:
    return {"kind": "largest", "k": model.k}


@describe_code.register
def _(model: BatchTopK) -> dict:
    return {"kind": "above", "threshold": "threshold", "logarithm": False}


@describe_code.register
def _(model: JumpReLU) -> dict:
    return {"kind": "above", "threshold": "log_threshold", "logarithm": True}


@describe_code.register
def _(model: Gated) -> dict:
    assert isinstance(model.encoder, nn.Sequential)
    return {"kind": "gated", "bias": f"encoder.{len(model.encoder) - 1}.bias", "ratio": "log_ratio",
            "magnitudeBias": "magnitude_bias"}


@describe_code.register
def _(model: MatchingPursuit) -> dict:
    return {"kind": "pursuit", "k": model.k, "both": model.signs == "both", **_dictionary(model)}


@describe_code.register
def _(model: VAE) -> dict:
    return {"kind": "normal", "activeKL": ACTIVE_KL}


@describe_code.register
def _(model: VAEase) -> dict:
    return {"kind": "gatedNormal", "activeKL": ACTIVE_KL, "firstLogit": FIRST_LOGIT}


@describe_code.register
def _(model: VSC) -> dict:
    return {"kind": "spikeSlab", "largestLogVariance": LARGEST_LOG_VARIANCE}


@describe_code.register
def _(model: hybrid.HybridSparseVAE) -> dict:
    return {"kind": "signed", "low": model.min_concentration, "high": model.max_concentration,
            "firstConcentration": hybrid.FIRST_CONCENTRATION, "firstScale": hybrid.FIRST_SCALE,
            "smallestScale": hybrid.SMALLEST_SCALE}


@singledispatch
def describe_prior(model: LatentVariableModel) -> dict | None:
    """What to draw codes from; see ``PRIORS`` in ``runtime.js``. None where there is none, or none that is drawn."""
    return None


@describe_prior.register
def _(model: VAE) -> dict:
    return {"kind": "normal"}


@describe_prior.register
def _(model: VSC) -> dict:
    if model.prior == "fixed":
        return {"kind": "spikeSlab", "alpha": model.alpha}
    return {"kind": "pseudoInputs", "inputs": "pseudo_inputs"}


# --- numbers


def half_precision(model: LatentVariableModel) -> bytes:
    """A model's tensors as a safetensors file, rounded to half precision.

    Raises:
        SettingError: a value beyond half precision.
    """
    halves = {}
    for name, values in model.state_dict().items():
        if values.is_floating_point():
            halves[name] = values.to(torch.float16).contiguous()
            if not halves[name].isfinite().all():
                raise SettingError(f"widgets hold values up to {torch.finfo(torch.float16).max:g}; {name} has "
                                   f"{values.abs().max():g}")
    return save(halves)


def blob(content: bytes) -> dict:
    """Bytes within JSON; where a page shows a widget, they become a file of their own."""
    return {"gzip": base64.b64encode(gzip.compress(content, mtime=0)).decode()}


def sheet(values: Tensor, limits: tuple[float, float]) -> dict:
    """Observations as a grey PNG, pictures side by side, vectors one below another: 8 bits between ``limits``.

    Values beyond the limits are cut off.
    """
    (low, high), width = limits, values.shape[-1]
    shades = ((values.flatten(1) - low) / max(high - low, 1e-12) * 255).round().clamp(0, 255).to(torch.uint8)
    height = shades.shape[1] // width
    across = min(PICTURES_ACROSS, len(shades)) if height > 1 else 1
    tiles = nn.functional.pad(shades, (0, 0, 0, -len(shades) % across)).view(-1, across, height, width)
    image = Image.fromarray(tiles.transpose(1, 2).reshape(-1, across * width).cpu().numpy(), "L")
    image.save(buffer := BytesIO(), format="PNG", optimize=True)
    return {"count": len(values), "width": width, "height": height, "low": low, "high": high, **blob(buffer.getvalue())}


def rounded(value: float, digits: int = 4) -> float | None:
    """To so many digits, which suffice for a slider or a bar; None for no number."""
    return None if value != value else float(f"{value:.{digits}g}")
