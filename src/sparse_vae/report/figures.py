"""The report's figures: arrays in, a matplotlib figure out; no model, no file.

A picture is ``(channels, height, width)`` in [0, 1]; :func:`as_pictures` makes one of any observation. Titles and
labels come from the caller, who knows what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

# Okabe & Ito (2008): told apart by readers of every colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
CLASS_COLOURS = "tab10"
WIDTH = 8.0
"""Width of a full figure, in inches."""


def wrapped(text: str, width: int) -> str:
    """``text`` on lines of at most ``width`` letters, no line broken at the equals sign of a setting."""
    return fill(text.replace(" = ", "\u00a0=\u00a0"), width)


def as_pictures(x: np.ndarray, *, limits: tuple[float, float] | None = None,
                shape: tuple[int, int] = (40, 56)) -> np.ndarray:
    """Observations as pictures to put into a grid: images as they are, anything else as curves in a small bitmap.

    Args:
        x: ``(n, channels, height, width)`` or ``(n, *shape)``: curves over the last axis.
        limits: values at the bottom and the top of a curve's bitmap; by default the smallest and the largest of ``x``.
        shape: height and width of such a bitmap.

    Returns:
        ``(n, channels, height, width)`` in [0, 1].
    """
    if x.ndim == 4:
        return np.clip(x, 0, 1)
    low, high = limits or (x.min(), x.max())
    height, width = shape
    lines = x.reshape(len(x), -1, x.shape[-1])
    columns = np.linspace(0, x.shape[-1] - 1, width)
    at = np.floor(columns).astype(int).clip(0, max(x.shape[-1] - 2, 0))
    after = np.minimum(at + 1, x.shape[-1] - 1)
    heights = lines[..., at] + (columns - at) * (lines[..., after] - lines[..., at])
    rows = np.clip((high - heights) / max(high - low, 1e-12), 0, 1) * (height - 1)
    # A column is inked from its own height half-way to its neighbours', so that a steep curve stays connected.
    halfway = (rows[..., 1:] + rows[..., :-1]) / 2
    left = np.concatenate([rows[..., :1], halfway], -1)
    right = np.concatenate([halfway, rows[..., -1:]], -1)
    top, bottom = np.minimum(left, right).clip(max=rows), np.maximum(left, right).clip(min=rows)
    pixels = np.arange(height)[:, None]
    ink = np.clip(np.minimum(pixels - top[..., None, :] + 1, bottom[..., None, :] - pixels + 1), 0, 1)
    return 1 - ink.max(1)[:, None]


def signed_pictures(x: np.ndarray) -> np.ndarray:
    """Changes as pictures: 0 is grey; the largest of each observation, whatever its sign, is black or white.

    Args:
        x: ``(n, *shape)``, as for :func:`as_pictures`.

    Returns:
        ``(n, channels, height, width)`` in [0, 1].
    """
    largest = np.abs(x).max(axis=tuple(range(1, x.ndim)), keepdims=True).clip(1e-12)
    return as_pictures((x / largest + 1) / 2, limits=(0, 1))


def montage(images: np.ndarray) -> np.ndarray:
    """One picture ``(rows·height, columns·width[, channels])`` of ``(rows, columns, channels, height, width)``."""
    rows, columns, channels, height, width = images.shape
    picture = images.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    return picture[..., 0] if channels == 1 else picture


def picture_rows(rows: Mapping[str, np.ndarray], *, column_labels: Sequence[str] = ()) -> Figure:
    """Pictures side by side, a labelled row for each array.

    Args:
        rows: label → pictures ``(columns, channels, height, width)``, as many in each row.
        column_labels: above the columns, or none.
    """
    first = next(iter(rows.values()))
    n_columns, aspect = len(first), first.shape[2] / first.shape[3]
    lines = max(1, int(0.7 * WIDTH / n_columns * aspect / 0.16))  # of a label, in the height of a row
    labels = {label: wrapped(label, max(26, len(label) // lines + 6)) for label in rows}
    margin = 0.075 * max(len(line) for label in labels.values() for line in label.split("\n")) + 0.15
    cell = (WIDTH - margin) / n_columns
    figure = Figure(figsize=(WIDTH, cell * aspect * len(rows) + (0.25 if column_labels else 0.05)))
    grid = figure.subplots(len(rows), n_columns, squeeze=False, gridspec_kw={
        "left": margin / WIDTH, "right": 1, "bottom": 0, "wspace": 0.06, "hspace": 0.06,
        "top": 1 - (0.25 if column_labels else 0.03) / figure.get_figheight()})
    for (label, pictures), row in zip(rows.items(), grid, strict=True):
        for axes, picture in zip(row, pictures, strict=True):
            _draw(axes, picture)
        row[0].set_ylabel(labels[label], rotation=0, ha="right", va="center", fontsize=9)
    for axes, label in zip(grid[0], column_labels, strict=False):
        axes.set_title(label, fontsize=8)
    return figure


def mosaics(panels: Mapping[str, np.ndarray], *, columns: int = 8) -> Figure:
    """Many small pictures, a square of them for each title, in the order of reading.

    Args:
        panels: title → pictures ``(n, channels, height, width)``.
        columns: pictures in a row of a panel.
    """
    figure, all_axes = _panels(len(panels), 0.3)
    for axes, (title, pictures) in zip(all_axes, panels.items(), strict=True):
        framed = np.pad(pictures, [(0, -len(pictures) % columns), (0, 0), (1, 1), (1, 1)], constant_values=1)
        axes.imshow(montage(framed.reshape(-1, columns, *framed.shape[1:])), cmap="gray", vmin=0, vmax=1)
        axes.set_title(wrapped(title, 22), fontsize=10)
        axes.axis("off")
    return figure


def _draw(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(montage(picture[None, None]), cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def rows_and_columns(n: int, most: int = 4) -> tuple[int, int]:
    """How ``n`` panels are set out: up to ``most`` in a row, more in rows of nearly the same length."""
    rows = max(1, -(-n // most))
    return rows, max(1, -(-n // rows))


def _panels(n: int, extra_height: float) -> tuple[Figure, list[Axes]]:
    """A figure with ``n`` square panels."""
    rows, columns = rows_and_columns(n)
    side = min(WIDTH / columns, 5.5)
    figure = Figure(figsize=(side * columns, (side + extra_height) * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[n:]:
        axes.set_visible(False)
    return figure, panels[:n]


def _label_axes(axes: Axes, title: str, labels: Sequence[str]) -> None:
    axes.set_title(wrapped(title, 22), fontsize=10)
    axes.set_xlabel(labels[0], fontsize=9)
    axes.set_ylabel(labels[1], fontsize=9)
    axes.tick_params(labelsize=7)


def traversals(panels: Mapping[str, np.ndarray], dimensions: Mapping[str, Sequence[int]]) -> Figure:
    """What each latent dimension changes: a row of decoded pictures for each dimension, a panel for each model.

    Args:
        panels: title → pictures ``(dimensions, steps, channels, height, width)``, the latent rising from left to right.
        dimensions: title → the dimension that each row moves.
    """
    figure, all_axes = _panels(len(panels), 0.5)
    for axes, (title, pictures) in zip(all_axes, panels.items(), strict=True):
        axes.imshow(montage(pictures), cmap="gray", vmin=0, vmax=1, aspect="auto")
        _label_axes(axes, title, ("low ← value of the latent → high", "latent dimension"))
        height = pictures.shape[-2]
        axes.set_xticks([])
        axes.set_yticks(np.arange(len(pictures)) * height + height / 2, dimensions[title])
    return figure


def latent_grids(grids: Mapping[str, np.ndarray], extents: Mapping[str, Sequence[float]],
                 axis_labels: Mapping[str, Sequence[str]]) -> Figure:
    """Decoded 2-D grids of latents, one panel for each model.

    Args:
        grids: title → pictures ``(rows, columns, channels, height, width)``, the first row at the top.
        extents: title → (left, right, bottom, top), the latents at the outer edges.
        axis_labels: title → names of the horizontal and the vertical latent.
    """
    figure, panels = _panels(len(grids), 0.35)
    for axes, (title, pictures) in zip(panels, grids.items(), strict=True):
        axes.imshow(montage(pictures), cmap="gray", vmin=0, vmax=1, extent=extents[title], aspect="auto")
        _label_axes(axes, title, axis_labels[title])
    return figure


def code_scatters(codes: Mapping[str, np.ndarray], labels: np.ndarray | None, classes: Sequence[str],
                  axis_labels: Mapping[str, Sequence[str]]) -> Figure:
    """Codes of observations in the plane, coloured by class, one panel for each model.

    Args:
        codes: title → ``(n, 2)``.
        labels: ``(n,)`` indices of ``classes``, or None: one colour.
        classes: class names.
        axis_labels: title → names of the two latents.
    """
    figure, panels = _panels(len(codes), 0.75)
    colours = {"color": COLOURS[0]} if labels is None else {"c": labels, "cmap": CLASS_COLOURS, "vmin": 0, "vmax": 9}
    for axes, (title, points) in zip(panels, codes.items(), strict=True):
        axes.scatter(*points.T, s=3, alpha=0.7, linewidths=0, **colours)
        _label_axes(axes, title, axis_labels[title])
    if labels is not None:
        palette = colormaps[CLASS_COLOURS]
        handles = [panels[0].scatter([], [], s=20, color=palette(index)) for index in range(len(classes))]
        figure.legend(handles, classes, loc="outside lower center", ncols=min(len(classes), 5), fontsize=8,
                      frameon=False)
    return figure


def class_heatmaps(means: Mapping[str, np.ndarray], rates: Mapping[str, np.ndarray], row_labels: Sequence[str], *,
                   value_label: str, rate_labels: Mapping[str, str], order: str = "by use") -> Figure:
    """Mean code of each class above how often each dimension is active, one column for each model.

    Args:
        means: title → ``(classes, latent_dim)``; each panel has its own scale, from 0, or symmetric about 0 where
            some are negative: red is positive, blue negative.
        rates: title → ``(latent_dim,)`` in [0, 1].
        row_labels: class names.
        value_label: what the colours show.
        rate_labels: title → what the bars show.
        order: of the dimensions, from left to right.
    """
    height = 0.24 * len(row_labels) + 2.6
    rows, columns = rows_and_columns(len(means))
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False, sharey="row",
                           height_ratios=[0.24 * len(row_labels) + 0.6, 1.2] * rows)
    pairs = grid.reshape(rows, 2, columns).swapaxes(1, 2).reshape(-1, 2)
    for axes in pairs[len(means):].flat:
        axes.set_visible(False)
    for (top, bottom), (title, values) in zip(pairs, means.items(), strict=False):
        limit = np.abs(values).max() or 1.0
        low, palette = (0, "Reds") if values.min() >= 0 else (-limit, "RdBu_r")
        image = top.imshow(values, cmap=palette, vmin=low, vmax=limit, aspect="auto", interpolation="nearest")
        top.set_title(wrapped(title, 22), fontsize=10)
        top.set_yticks(range(len(row_labels)), row_labels, fontsize=8)
        top.tick_params(axis="x", labelbottom=False, length=0)
        colourbar = figure.colorbar(image, ax=top, location="top", shrink=0.9, pad=0.02)
        colourbar.ax.tick_params(labelsize=6)
        colourbar.set_label(fill(value_label, 28), fontsize=7)
        bottom.bar(range(len(rates[title])), rates[title], color=COLOURS[0], width=0.85)
        bottom.set_xlim(-0.5, len(rates[title]) - 0.5)
        bottom.set_ylim(0, 1)
        bottom.set_xlabel(f"latent dimensions, {order}", fontsize=8)
        bottom.set_title(wrapped(f"active: {rate_labels[title]}", 32), fontsize=7)
        bottom.tick_params(labelsize=7)
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in grid[1::2, 0]:
        axes.set_ylabel("share of\nobservations", fontsize=8)
    return figure


def matrices(panels: Mapping[str, np.ndarray], *, x_label: str, y_label: str) -> Figure:
    """Matrices as coloured cells, each on a scale of its own that is symmetric about 0: red is positive, blue negative.

    Args:
        panels: title → ``(rows, columns)``, the first row at the top.
        x_label, y_label: of the columns and the rows of every panel, which are counted from 1.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = 0.13 * max(map(len, panels.values())) + 0.75
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, values) in zip(grid.flat, panels.items(), strict=False):
        limit = np.abs(values).max() or 1.0
        axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest",
                    extent=(0.5, values.shape[1] + 0.5, len(values) + 0.5, 0.5))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(x_label, fontsize=8)
        axes.set_ylabel(y_label, fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in grid.flat[len(panels):]:
        axes.set_visible(False)
    return figure


def error_maps(panels: Mapping[str, np.ndarray], row_names: Sequence[str], column_names: Sequence[str], *,
               row_label: str, column_label: str, smallest: float = 1e-16) -> Figure:
    """Relative errors on a logarithmic scale that all panels share, from ``smallest`` to 1.

    Args:
        panels: title → ``(rows, columns)``; infinite where a result is no number.
        row_names, column_names: of the ticks.
        row_label, column_label: of the axes.
        smallest: what is below is drawn as this.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, 2.6 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, errors) in zip(grid.flat, panels.items(), strict=False):
        image = axes.imshow(np.log10(errors.clip(smallest, 1)), cmap="magma_r", vmin=np.log10(smallest), vmax=0,
                            aspect="auto", interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_xticks(range(len(column_names)), column_names, rotation=45, ha="right", fontsize=6)
        axes.set_yticks(range(len(row_names)), row_names, fontsize=7)
        axes.set_xlabel(column_label, fontsize=8)
        axes.set_ylabel(row_label, fontsize=8)
    for axes in grid.flat[len(panels):]:
        axes.set_visible(False)
    colourbar = figure.colorbar(image, ax=grid, shrink=0.8)
    colourbar.set_label("relative error, powers of 10", fontsize=8)
    colourbar.ax.tick_params(labelsize=7)
    return figure


def curves(panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], *, x_labels: Sequence[str],
           y_labels: Sequence[str], columns: int = 3, log_x: bool = False, log_y: bool = False,
           marks: bool = True) -> Figure:
    """Lines in several panels, a line of the same name in the same colour everywhere.

    Args:
        panels: panel title → line name → (x, y).
        x_labels, y_labels: of each panel.
        columns: panels in a row.
        log_x, log_y: logarithmic axes.
        marks: whether each point has a mark of its own.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, 2.3 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flat
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    styles = {name: {"color": COLOURS[i % len(COLOURS)], "linestyle": ("-", "--", ":")[i // len(COLOURS) % 3],
                     "marker": "os^Dvx+*"[i % 8] if marks else ""} for i, name in enumerate(names)}
    drawn = {}
    for axes, (title, lines), x_label, y_label in zip(grid, panels.items(), x_labels, y_labels, strict=False):
        for name, (x, y) in lines.items():
            drawn[name], = axes.plot(x, y, markersize=3, linewidth=1.3, **styles[name])
        axes.set_title(title, fontsize=9)
        if log_x:
            axes.set_xscale("log")
            ticks = sorted({value for x, _ in lines.values() for value in x})
            axes.set_xticks(ticks[::-(-len(ticks) // 5)], [f"{tick:g}" for tick in ticks[::-(-len(ticks) // 5)]])
            axes.xaxis.set_minor_formatter(NullFormatter())
        elif all(np.equal(np.mod(x, 1), 0).all() for x, _ in lines.values()):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if log_y:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(x_label, fontsize=8)
        axes.set_ylabel(y_label, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
    for axes in list(figure.axes)[len(panels):]:
        axes.set_visible(False)
    # A letter takes about 0.065 inches, the line beside a name 0.5.
    in_a_row = int(WIDTH / (0.065 * max(map(len, drawn), default=0) + 0.5))
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=min(max(in_a_row, 1), 4), fontsize=8,
                  frameon=False)
    return figure
