"""The explorer: trained decoders in the reader's browser, with a switch and a slider for each latent dimension.

:func:`explorer` makes one piece of HTML that holds all it needs, decoders, codes, style and script. It works as the
output of a cell in JupyterLab and as a part of a page, and asks no server. ``explorer.js`` computes the decoders' few
layers by itself: a runtime for any network would weigh far more than these networks do.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from importlib import resources

import torch
from torch import Tensor, nn

from sparse_vae.checks import SettingError
from sparse_vae.evaluation import batched
from sparse_vae.models.base import LatentVariableModel
from sparse_vae.nets import Unflatten

RANKED_BY = 500
"""Observations on which dimensions are ranked."""
EMPTY_RANGE = 2.0
"""How far to either side a dimension moves whose codes are all 0."""


def explorer(models: Mapping[str, LatentVariableModel], x: Tensor, *, names: Sequence[str],
             limits: tuple[float, float] = (0.0, 1.0)) -> str:
    """HTML in which a reader moves the latents of trained models.

    Args:
        models: title → model; all on the same data.
        x: test observations, ``(n, *input_shape)``: their codes give each dimension the range of its slider, the 1% to
            99% quantiles of the values where it is active, with 0; and the first ``RANKED_BY`` of them the order, by
            how much the decoded observation changes when the dimension is set to 0.
        names: of the first observations, which are the ones to start from: what they show, or "".
        limits: values drawn as black and as white, or at the bottom and at the top of a curve.

    Raises:
        SettingError: no model, a decoder with a layer that the browser does not know, or weights beyond half precision.
    """
    if not models:
        raise SettingError("the explorer needs at least one model whose decoder the browser can compute")
    content = {
        "limits": limits, "shape": list(x.shape[1:]), "names": list(names), "observations": _packed(x[:len(names)]),
        "models": [{"title": title, "activeMeans": model.active_means, "layers": decoder_layers(model),
                    "codes": _packed(batched(model.code, x[:len(names)])), "dimensions": _dimensions(model, x)}
                   for title, model in models.items()]}
    style, script = (resources.files(__package__).joinpath(f"explorer.{kind}").read_text() for kind in ("css", "js"))
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return (f'<div class="explorer"><p>Here you could move the latents of trained models, if JavaScript were on.</p>'
            f'<script type="application/json">{data}</script></div>\n<style>\n{style}</style>\n'
            f"<script>\n{script}</script>")


def is_known(model: LatentVariableModel) -> bool:
    """Whether the browser can compute the model's decoder: whether :func:`decoder_layers` can describe it."""
    try:
        return bool(decoder_layers(model))
    except (SettingError, AttributeError):  # another layer, or no such network
        return False


def decoder_layers(model: LatentVariableModel) -> list[dict]:
    """What :meth:`~LatentVariableModel.decode_mean` computes, layer by layer, as ``explorer.js`` reads it.

    Raises:
        SettingError: a layer that it does not know; weights beyond half precision.
    """
    layers = []
    for layer in model.decoder if isinstance(model.decoder, nn.Sequential) else [model.decoder]:
        match layer:
            case nn.Linear():
                layers.append({"kind": "linear", "weight": _packed(layer.weight), "bias": _packed(layer.bias)})
            case nn.ReLU():
                layers.append({"kind": "relu"})
            case Unflatten():
                layers.append({"kind": "unflatten", "shape": layer.shape})
            case nn.Unflatten():  # only renames what lies in the same order
                pass
            case nn.ConvTranspose2d(groups=1, dilation=(1, 1)):
                layers.append({"kind": "deconvolution", "weight": _packed(layer.weight), "bias": _packed(layer.bias),
                               "stride": layer.stride, "padding": layer.padding,
                               "outputPadding": layer.output_padding})
            case _:
                raise SettingError("the explorer knows decoders of Linear, ReLU, Unflatten and plain ConvTranspose2d "
                                   f"layers; got {layer}")
    return layers + [{"kind": "sigmoid"}] * (model.likelihood == "bernoulli")


def _packed(values: Tensor) -> dict:
    """A tensor as little-endian half-precision numbers in base64, with its shape."""
    halves = values.detach().cpu().to(torch.float16)
    if not halves.isfinite().all():
        raise SettingError(f"the explorer holds values up to {torch.finfo(torch.float16).max:g}; got "
                           f"{values.abs().max():g}")
    return {"shape": list(values.shape), "data": base64.b64encode(halves.numpy().astype("<f2").tobytes()).decode()}


def _dimensions(model: LatentVariableModel, x: Tensor) -> list[dict]:
    """Each dimension's number, slider and rate of activity, the one that changes most first."""
    codes, active = batched(model.code, x), batched(model.active, x)
    start = codes[:RANKED_BY]
    decoded = batched(model.decode_mean, start)
    found = []
    for index in range(model.latent_dim):
        values = codes[active[:, index], index]
        if not values.any():
            values = codes[:, index]
        low, high = values.quantile(torch.tensor([0.01, 0.99])).tolist()
        low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            low, high = -EMPTY_RANGE, EMPTY_RANGE
        off = start.clone()
        off[:, index] = 0
        change = (batched(model.decode_mean, off) - decoded).square().mean().item()
        found.append((change, {"index": index, "low": _rounded(low), "high": _rounded(high),
                               "usual": _rounded(_usual(values, high)),
                               "rate": _rounded(active[:, index].float().mean().item())}))
    return [dimension for _, dimension in sorted(found, key=lambda pair: -pair[0])]


def _usual(values: Tensor, otherwise: float) -> float:
    """Where a switch puts a dimension: the median of its values of the commoner sign."""
    common = max((values[values > 0], values[values < 0]), key=len)
    return common.median().item() if len(common) else otherwise


def _rounded(value: float) -> float:
    """To four digits: more do not help a slider."""
    return float(f"{value:.4g}")
