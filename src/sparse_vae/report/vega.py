"""Plots that answer: the points of a plot as a Vega-Lite specification, beside the picture that seaborn draws of them.

JupyterLab shows it by itself; on the report's pages ``widgets/plots.js`` puts it in place of the picture. The data are
a CSV table, which pages offer for download: ``panel``, ``name``, ``x``, ``y`` and, where a point is a mean, its
standard ``error`` and the number ``n`` of its values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from sparse_vae.report.figures import wrapped

if TYPE_CHECKING:
    from sparse_vae.report.plots import Panel, Style

MIME = "application/vnd.vegalite.v5+json"
MOST_POINTS = 2000
"""Points of a scatter plot that answer, drawn at random of all."""
MARKED = 15
"""Points of a line that has a mark at each; a longer one has them under the pointer."""
SHAPES = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross",
          "X": "triangle-left", "p": "triangle-right"}
DASHES = {"-": [1, 0], "--": [5, 3], ":": [1.5, 2]}


def means(x: pd.Series, y: pd.Series) -> pd.DataFrame:
    """The mean of y, its standard error and the number of values at each x.

    >>> means(pd.Series([1, 1, 2]), pd.Series([3.0, 5.0, 7.0])).fillna(0).to_dict("list")
    {'x': [1, 2], 'y': [4.0, 7.0], 'error': [1.0, 0.0], 'n': [2, 1]}
    """
    return y.groupby(x).agg(y="mean", error="sem", n="count").rename_axis("x").reset_index()


def specification(panels: Sequence[Panel], tables: Mapping[tuple[int, str], pd.DataFrame], styles: Mapping[str, Style],
                  *, lines: bool, log_x: bool, log_y: bool, columns: int) -> dict:
    """A Vega-Lite specification with its data in it: panels side by side, lines or points that answer to the pointer.

    A click on a name in the legend leaves that name alone, with the shift key it adds one.

    Args:
        panels: as they are drawn.
        tables: the points, columns x, y and perhaps error and n, of each panel (by its place) and name.
        styles: how each name is drawn; one name "" stands for none.
        lines: whether points are joined, with a band of one standard error, or stand alone.
        log_x, log_y: logarithmic axes.
        columns: panels in a row, at most.
    """
    titles = [part.title if [other.title for other in panels].count(part.title) == 1 and part.title
              else f"{part.title}: {part.y_label}".removeprefix(": ") for part in panels]
    rows = pd.concat([pd.DataFrame(columns=["panel", "name", "x", "y"]), *(
        table.assign(panel=titles[place], name=name) for (place, name), table in tables.items() if len(table))])
    n_all = len(rows)
    if not lines and n_all > MOST_POINTS:
        rows = rows.sample(MOST_POINTS, random_state=0).sort_index(kind="stable")
    if "n" in rows and (rows["n"] <= 1).all():
        rows = rows.drop(columns=["error", "n"])
    numbers = [column for column in ("x", "y", "error", "n") if column in rows]
    names = [name for name in styles if name]
    has_error = "error" in rows
    by_name = _by_name(names, styles, lines=lines) if names else {}
    views = []
    for place, (part, title) in enumerate(zip(panels, titles, strict=True)):
        own = rows[rows["panel"] == title]
        low = own["y"].min() / 1.2 if log_y else None
        views.append(_view(place, part, title, names, low, lines=lines, log_x=log_x, log_y=log_y, has_error=has_error,
                           marked=not lines or own.groupby("name").size().max() <= MARKED))
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": rows.to_csv(index=False, float_format="%.6g"),
                 "format": {"type": "csv", "parse": {"panel": "string", "name": "string",
                                                     **dict.fromkeys(numbers, "number")}}},
        **({"title": {"text": f"{MOST_POINTS:,} of {n_all:,} points, drawn at random", "fontSize": 10, "anchor": "end",
                      "fontWeight": "normal"}} if not lines and n_all > MOST_POINTS else {}),
        "concat": [view | {"encoding": view["encoding"] | by_name} for view in views],
        "columns": min(columns, len(panels)),
        "spacing": 24,
        "config": {"legend": {"orient": "bottom", "columns": 3, "labelLimit": 300, "symbolOpacity": 1},
                   "axis": {"labelFlush": False}, "view": {"stroke": None}},
    }


def _view(place: int, part: Panel, title: str, names: Sequence[str], low: float | None, *, lines: bool, log_x: bool,
          log_y: bool, has_error: bool, marked: bool) -> dict:
    """A panel: its filter, its axes and its layers."""
    quantity = {"type": "quantitative"}
    axes = {axis: {"field": axis, **quantity, "title": wrapped(label, 24).split("\n"),
                   "scale": {"type": "log", "nice": False} if log else {"zero": False},
                   "axis": {"tickCount": 5, **({"format": "~g", "labelOverlap": True} if log else {})}}
            for axis, label, log in (("x", part.x_label, log_x), ("y", part.y_label, log_y))}
    tooltip = [*([{"field": "name", "type": "nominal", "title": "line" if lines else "of"}] if names else []),
               *({"field": axis, **quantity, "title": label or axis, "format": ".5~g"}
                 for axis, label in (("x", part.x_label), ("y", part.y_label))),
               *([{"field": "error", **quantity, "title": "standard error", "format": ".3~g"},
                  {"field": "n", **quantity, "title": "mean of"}] if has_error else [])]
    hover = {"name": f"near{place}", "select": {"type": "point", "on": "pointerover", "nearest": True,
                                                "clear": "pointerout"}}
    near = {"param": f"near{place}", "empty": False}
    size = 30 if lines else 22
    points: dict[str, Any] = {"mark": {"type": "point", "filled": True, "size": size}, "params": [hover],
              "encoding": {"tooltip": tooltip, "size": {"condition": {**near, "value": 90}, "value": size},
                           "opacity": {"condition": {**near, "value": 1},
                                       "value": (0.9 if lines else 0.7) if marked else 0}}}
    layers = [points]
    if lines:
        layers.insert(0, {"mark": {"type": "line", "strokeWidth": 1.6}})
        if has_error:
            below = "datum.y - datum.error"
            layers.insert(0, {
                "mark": {"type": "area", "opacity": 0.18},
                "transform": [{"filter": "isValid(datum.error)"},
                              {"calculate": f"max({below}, {low:g})" if low is not None else below, "as": "low"},
                              {"calculate": "datum.y + datum.error", "as": "high"}],
                "encoding": {"y": {"field": "low", **quantity}, "y2": {"field": "high"}}})
    shown = {"name": "shown", "select": {"type": "point", "fields": ["name"]}, "bind": "legend"}
    if names and place == 0:
        points["params"].append(shown)
    return {"width": 190, "height": 150, "title": {"text": wrapped(part.title, 34).split("\n"), "fontSize": 11},
            "transform": [{"filter": f"datum.panel === {json.dumps(title)}"},
                          *([{"filter": {"param": "shown"}}] if names else [])],
            "encoding": axes, "layer": layers}


def _by_name(names: Sequence[str], styles: Mapping[str, Style], *, lines: bool) -> dict:
    """The channels that tell names apart: colour, and dashes of lines or shapes of points."""
    own = {"field": "name", "type": "nominal", "title": None}
    other = ("strokeDash", [DASHES[styles[name].linestyle] for name in names]) if lines else (
        "shape", [SHAPES[styles[name].marker] for name in names])
    return {channel: own | {"scale": {"domain": list(names), "range": values}}
            for channel, values in (("color", [styles[name].color for name in names]), other)}
