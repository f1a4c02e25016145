"""Widgets: trained models in the reader's browser, to put something in, move their codes and open their units.

Each function makes one piece of HTML that works as the output of a cell in JupyterLab and asks no server: it holds its
data, the style and the scripts of this folder. On a page, ``report/widgets.py`` turns the data into files, which the
scripts, served as modules, fetch when a reader comes near. A picture stands where a widget comes to life, and stays
where there is no JavaScript.

``runtime.js`` computes the models' few layers by itself: a runtime for any network would weigh more than these.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sparse_vae.checks import SettingError
from sparse_vae.evaluation import batched, unit_responses
from sparse_vae.models.base import LatentVariableModel
from sparse_vae.report.widgets.export import describe, is_known, rounded, sheet

SCRIPTS = ("runtime", "page", "plane", "explorer", "draw", "units", "train", "widgets")
"""The modules, each after those that it imports."""
RANKED_BY = 500
"""Observations on which dimensions are ranked and effects are measured."""
PLANE = 1000
"""Observations whose codes are points in a plane."""
EMPTY_RANGE = 2.0
"""How far to either side a dimension moves whose codes are all 0."""
PICTURED, PICTURE_SCALE = 8, 2
"""Observations in the picture that stands first, and the size of their pixels."""
FRAMES = {
    "mnist": {"box": 20, "mass": True, "fill": False},
    "fashion-mnist": {"box": 28, "mass": False, "fill": True},
    "digits": {"box": 8, "mass": False, "fill": False},
}
"""How the pictures of a data set fill their frame: the longer side of what they show, and what is in the middle."""
INVITATIONS = {
    "mnist": "Draw a digit, or take one that the models have not seen:",
    "fashion-mnist": "Draw the outline of a garment, or take one that the models have not seen:",
    "digits": "Draw a digit, or take one that the models have not seen:",
}


def explorer(models: Mapping[str, LatentVariableModel], x: Tensor, *, names: Sequence[str],
             limits: tuple[float, float] = (0.0, 1.0), labels: Tensor | None = None, classes: Sequence[str] = (),
             files: Mapping[str, str] | None = None) -> str:
    """HTML in which a reader moves the latents of trained models.

    Args:
        models: title → model; all on the same data.
        x: test observations, ``(n, *input_shape)``: their codes give each dimension the range of its slider, the 1% to
            99% quantiles of the values where it is active, with 0; and the first ``RANKED_BY`` of them the order, by
            how much the decoded observation changes when the dimension is set to 0. Of a model with two dimensions the
            codes of the first ``PLANE`` are points to walk between.
        names: of the first observations, which are the ones to start from: what they show, or "".
        limits: values drawn as black and as white, or at the bottom and at the top of a curve.
        labels, classes: of the observations, for the colours of the points.
        files: title → the model's published weights, seen from the root of the site; None puts them in.

    Raises:
        SettingError: no model, one that the browser does not know, or weights beyond half precision.
    """
    _check(models)
    described = [{**_described(title, model, x, files), "dimensions": _dimensions(model, x)}
                 for title, model in models.items()]
    content = _bench(described, x, names, limits, labels, classes)
    return embed("explorer", content, _pictures(models, x[:PICTURED], limits), _alternative(models),
                 "Here you can move the latents of trained models")


def drawing(models: Mapping[str, LatentVariableModel], x: Tensor, *, names: Sequence[str], dataset: str,
            limits: tuple[float, float] = (0.0, 1.0), labels: Tensor | None = None, classes: Sequence[str] = (),
            files: Mapping[str, str] | None = None) -> str:
    """HTML in which a reader draws, or takes a test observation, and sees every model's code and reconstruction.

    Args:
        dataset: its name, which says how drawings are laid into the frame.
        models, x, names, limits, labels, classes, files: as of :func:`explorer`.

    Raises:
        SettingError: as of :func:`explorer`.
    """
    _check(models)
    described = [{**_described(title, model, x, files), "effects": _effects(model, x)}
                 for title, model in models.items()]
    content = _bench(described, x, names, limits, labels, classes) | {
        "frame": FRAMES.get(dataset, {"box": None, "mass": False, "fill": False}),
        "invitation": INVITATIONS.get(dataset, "Draw something, or take what the models have not seen:")}
    return embed("draw", content, _pictures(models, x[:PICTURED], limits), _alternative(models),
                 "Here you can draw and see what trained models make of it")


def embed(kind: str, content: dict, picture: bytes, alternative: str, text: str) -> str:
    """HTML of a widget: the picture that stands first, its data, style and scripts.

    Args:
        kind: of those in ``widgets.js``.
        content: its data, JSON.
        picture: PNG; alternative: its text.
        text: what there is to be done, without an end.
    """
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    source = base64.b64encode(picture).decode()
    return (f'<div class="widget" data-widget="{kind}"><img class="widget-first" loading="lazy" alt="'
            f'{html.escape(alternative)}" src="data:image/png;base64,{source}"><p>{text}, where JavaScript is on.</p>'
            f'<script type="application/json">{data}</script></div>\n<style>\n{_read("widgets.css")}</style>\n'
            f'<script type="module">\n{bundle()}</script>')


def bundle() -> str:
    """All scripts as one, for a place that cannot import modules."""
    text = "\n".join(_read(f"{name}.js") for name in SCRIPTS)
    text = re.sub(r"^import \{[^}]*\} from .*;\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE).replace("</", "<\\/")


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _check(models: Mapping[str, LatentVariableModel]) -> None:
    if not models:
        raise SettingError("a widget needs at least one model that the browser can compute")


def _bench(described: list[dict], x: Tensor, names: Sequence[str], limits: tuple[float, float], labels: Tensor | None,
           classes: Sequence[str]) -> dict:
    """What widgets with several models on one data set share."""
    return {"shape": list(x.shape[1:]), "limits": limits, "names": list(names), "classes": list(classes),
            "observations": sheet(x[:len(names)], limits), "models": described,
            "planeLabels": None if labels is None else labels[:PLANE].tolist()}


def _described(title: str, model: LatentVariableModel, x: Tensor, files: Mapping[str, str] | None) -> dict:
    plane = {}
    if model.latent_dim == 2:
        plane = {"plane": [[rounded(value) for value in code] for code in batched(model.code, x[:PLANE]).tolist()]}
    return {"title": title, **describe(model, (files or {}).get(title)), **plane}


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
        found.append((change, {"index": index, "low": rounded(low), "high": rounded(high),
                               "usual": rounded(_usual(values, high)),
                               "rate": rounded(active[:, index].float().mean().item())}))
    return [dimension for _, dimension in sorted(found, key=lambda pair: -pair[0])]


def _usual(values: Tensor, otherwise: float) -> float:
    """Where a switch puts a dimension: the median of its values of the commoner sign."""
    common = max((values[values > 0], values[values < 0]), key=len)
    return common.median().item() if len(common) else otherwise


def _effects(model: LatentVariableModel, x: Tensor) -> list[float]:
    """How much one unit of each dimension changes an observation, to rank the entries of a code by."""
    codes = batched(model.code, x[:RANKED_BY])
    typical = codes.abs().sum(0) / (codes != 0).sum(0).clamp(min=1)
    effects = unit_responses(model, codes).flatten(1).norm(dim=1) / torch.where(typical > 0, typical, 1)
    return [rounded(value) for value in effects.tolist()]


def _pictures(models: Mapping[str, LatentVariableModel], x: Tensor, limits: tuple[float, float]) -> bytes:
    """Observations, and under them what each model makes of them, as a PNG; curves as rows of grey."""
    low, high = limits
    rows = [x, *(batched(model.reconstruct, x) for model in models.values())]
    pictures = torch.stack([row if row.ndim == 4 else row.reshape(len(row), 1, -1, row.shape[-1]) for row in rows])
    shades = ((pictures - low) / max(high - low, 1e-12) * 255).round().clamp(0, 255).to(torch.uint8)
    shades = shades.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2).numpy()  # (rows·height, n·width, channels)
    shades = shades.repeat(PICTURE_SCALE, 0).repeat(PICTURE_SCALE, 1)
    image = Image.fromarray(shades if shades.shape[2] == 3 else np.ascontiguousarray(shades[..., 0]))
    image.save(buffer := BytesIO(), format="PNG", optimize=True)
    return buffer.getvalue()


def _alternative(models: Mapping[str, LatentVariableModel]) -> str:
    return f"Test observations, and under them, a row for each, what these make of them: {', '.join(models)}."


__all__ = ["drawing", "embed", "explorer", "is_known"]
