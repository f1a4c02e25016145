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
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sparse_vae.checks import SettingError
from sparse_vae.evaluation import batched, unit_responses
from sparse_vae.models.base import LatentVariableModel
from sparse_vae.report.widgets.export import blob, describe, is_known, rounded, sheet

if TYPE_CHECKING:
    import pandas as pd

    from sparse_vae.datasets import Dataset
    from sparse_vae.report.run_sets import RunSet

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
STRONGEST = 6
"""Observations that are shown of each unit."""
UNIT_NUMBERS = ("unit", "rate", "magnitude", "low", "high", "extent", "kl", "preferred", "selectivity")
UNIT_LISTS = ("histogram", "nearest", "cosines", "classes")
"""The columns of the table of units that are shown, with one number or several in a cell."""
FRAMES = {
    "mnist": {"box": 20, "mass": True, "fill": False},
    "fashion-mnist": {"box": 28, "mass": False, "fill": True},
    "digits": {"box": 8, "mass": False, "fill": False},
}
NO_FRAME = {"box": None, "mass": False, "fill": False}
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


def names_of(data: Dataset, n: int) -> list[str]:
    """What the first ``n`` test observations show: their class, or the sources that are in them, or ""."""
    if data.classes and data.test.y is not None:
        return [data.classes[label] for label in data.test.y[:n]]
    if data.factor_names and data.test.factors is not None:
        present = data.test.factors[:n].bool().tolist()
        return [", ".join(name for name, there in zip(data.factor_names, row, strict=True) if there) for row in present]
    return [""] * n


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
        "frame": FRAMES.get(dataset, NO_FRAME),
        "invitation": INVITATIONS.get(dataset, "Draw something, or take what the models have not seen:")}
    return embed("draw", content, _pictures(models, x[:PICTURED], limits), _alternative(models),
                 "Here you can draw and see what trained models make of it")


def units(runs: RunSet, *, files: Mapping[str, str] | None = None) -> str:
    """HTML in which a reader opens every unit of trained models.

    Args:
        runs: with models, all on one data set.
        files: as of :func:`explorer`, by the runs' labels.

    Raises:
        SettingError: as of :func:`explorer`.
    """
    described, data, shown = [], next(iter(runs)).dataset, [run for run in runs if is_known(run.model)]
    _check({run.label: run.model for run in shown})
    for run in shown:
        subject, table = run.subject, runs.units(run)
        strongest = [(row or [])[:STRONGEST] for row in _numbers(table["strongest"])]
        rows = sorted({index for row in strongest for index in row})
        responses = subject.sparse_responses.flatten(1)
        largest = responses.abs().amax(1, keepdim=True).clamp(min=1e-12)
        described.append({
            **_described(run.label, run.model, subject.x, files),
            "units": {"table": blob(json.dumps(_columns(table) | {"strongest": strongest}).encode()), "rows": rows,
                      "responses": sheet(responses / largest, (-1.0, 1.0)),
                      "pictures": sheet(subject.x[rows], data.value_range)}})
    content = {"shape": list(data.input_shape), "limits": data.value_range, "classes": list(data.classes),
               "frame": FRAMES.get(data.name, NO_FRAME), "models": described}
    first = shown[0].subject.sparse_responses[shown[0].subject.order_of_use[:PICTURED]]
    most = first.abs().max().item()
    return embed("units", content, _rows_of_pictures([first], (-most, most)),
                 f"What the units of {shown[0].label} that are used most add to an observation.",
                 "Here you can open every unit of trained models")


def training(data: Dataset) -> str:
    """HTML in which a reader trains a sparse autoencoder on the small square grey pictures of a data set.

    Raises:
        SettingError: observations of another kind.
    """
    shape = data.input_shape
    if len(shape) != 3 or shape[0] != 1 or shape[1] != shape[2]:
        raise SettingError(f"training in a page needs square grey pictures; observations of {data.name} are {shape}")
    return embed("train", {"training": sheet(data.train.x, (0.0, 1.0)), "test": sheet(data.test.x, (0.0, 1.0))},
                 _rows_of_pictures([data.train.x[:PICTURED], data.train.x[PICTURED:2 * PICTURED]], (0.0, 1.0)),
                 f"Pictures of {data.name} to train on.", "Here you can train a sparse autoencoder")


def _columns(table: pd.DataFrame) -> dict[str, list]:
    """What is said of units, a list for each column that says something; means of classes together."""
    columns: dict[str, list] = {name: [rounded(value) for value in table[name]] for name in UNIT_NUMBERS
               if name in table and table[name].notna().any()}
    columns |= {name: _numbers(table[name]) for name in UNIT_LISTS if name in table and table[name].notna().any()}
    means = [name for name in table if re.fullmatch(r"mean_\d+", name)]
    if means and table[means].notna().any(axis=None):
        columns["meansOfClasses"] = [[rounded(value, 3) for value in row] for row in table[means].values.tolist()]
    return columns


def _numbers(texts: Sequence[str | float]) -> list[list[int] | None]:
    """Of cells that hold several; None where there are none."""
    return [[int(number) for number in text.split()] if isinstance(text, str) else None for text in texts]


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
    """All scripts as one, for a place that cannot import modules: each in a scope of its own."""
    return "\n".join(map(_enclosed, SCRIPTS)).replace("</", "<\\/")


def _enclosed(name: str) -> str:
    """A module as a function that is called once and gives what the module exports."""
    text = _read(f"{name}.js")
    exported = ", ".join(re.findall(r"^export const (\w+)", text, flags=re.MULTILINE))
    text = re.sub(r'^import (\{[^}]*\}) from "\./(\w+)\.js";', r"const \1 = modules.\2;", text, flags=re.MULTILINE)
    text = re.sub(r"^export ", "", text, flags=re.MULTILINE)
    start = "const modules = {};\n" if name == SCRIPTS[0] else ""
    return f"{start}modules.{name} = (() => {{\n{text}\nreturn {{{exported}}};\n}})();"


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


def _effects(model: LatentVariableModel, x: Tensor) -> list[float | None]:
    """How much one unit of each dimension changes an observation, to rank the entries of a code by."""
    codes = batched(model.code, x[:RANKED_BY])
    typical = codes.abs().sum(0) / (codes != 0).sum(0).clamp(min=1)
    effects = unit_responses(model, codes).flatten(1).norm(dim=1) / torch.where(typical > 0, typical, 1)
    return [rounded(value) for value in effects.tolist()]


def _pictures(models: Mapping[str, LatentVariableModel], x: Tensor, limits: tuple[float, float]) -> bytes:
    """Observations, and under them what each model makes of them, as a PNG; curves as rows of grey."""
    return _rows_of_pictures([x, *(batched(model.reconstruct, x) for model in models.values())], limits)


def _rows_of_pictures(rows: list[Tensor], limits: tuple[float, float]) -> bytes:
    low, high = limits
    pictures = torch.stack([row if row.ndim == 4 else row.reshape(len(row), 1, -1, row.shape[-1]) for row in rows])
    shades = ((pictures - low) / max(high - low, 1e-12) * 255).round().clamp(0, 255).to(torch.uint8)
    grid = shades.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2).numpy()  # (rows·height, n·width, channels)
    grid = grid.repeat(PICTURE_SCALE, 0).repeat(PICTURE_SCALE, 1)
    image = Image.fromarray(grid if grid.shape[2] == 3 else np.ascontiguousarray(grid[..., 0]))
    image.save(buffer := BytesIO(), format="PNG", optimize=True)
    return buffer.getvalue()


def _alternative(models: Mapping[str, LatentVariableModel]) -> str:
    return f"Test observations, and under them, a row for each, what these make of them: {', '.join(models)}."


__all__ = ["drawing", "embed", "explorer", "is_known", "training", "units"]
