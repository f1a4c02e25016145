"""Grids of pictures: arrays in, a matplotlib figure out; no model, no file.

A picture is ``(channels, height, width)`` in [0, 1]; :func:`as_pictures` makes one of any observation. Titles and
labels come from the caller, who knows what was measured. Plots of tables are in :mod:`sparse_vae.report.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 8.0
"""Width of a full figure, in inches."""
DPI = 160
"""Dots of a saved figure in an inch."""
SMALLEST = 20
"""Width of the smallest picture in a grid, in dots."""


def wrapped(text: str, width: int) -> str:
    """``text`` on lines of at most ``width`` letters, no line broken at the equals sign of a setting."""
    return fill(text.replace(" = ", "\u00a0=\u00a0"), width)


def rows_and_columns(n: int, most: int = 4) -> tuple[int, int]:
    """How ``n`` panels are set out: up to ``most`` in a row, more in rows of nearly the same length."""
    rows = max(1, -(-n // most))
    return rows, max(1, -(-n // rows))


# --- observations as pictures


def as_pictures(x: np.ndarray, *, leading: int = 1, limits: tuple[float, float] | None = None,
                shape: tuple[int, int] = (40, 56)) -> np.ndarray:
    """Observations as pictures to put into a grid: images as they are, anything else as curves in a small bitmap.

    Args:
        x: ``(…, channels, height, width)`` or ``(…, *shape)``: curves over the last axis; an array or a tensor.
        leading: how many axes stand before those of an observation: 1 for a row of them, 2 for a grid.
        limits: values at the bottom and the top of a curve's bitmap; by default the smallest and the largest of ``x``.
        shape: height and width of such a bitmap.

    Returns:
        ``(…, channels, height, width)`` in [0, 1].
    """
    x = np.asarray(x)
    if x.ndim - leading == 3:
        return np.clip(x, 0, 1)
    low, high = limits or (x.min(), x.max())
    height, width = shape
    lines = x.reshape(*x.shape[:leading], -1, x.shape[-1])
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
    return 1 - ink.max(leading)[..., None, :, :]


def signed_pictures(x: np.ndarray) -> np.ndarray:
    """Changes as pictures: 0 is grey; the largest of each observation, whatever its sign, is black or white.

    Args:
        x: ``(n, *shape)``, as for :func:`as_pictures`.

    Returns:
        ``(n, channels, height, width)`` in [0, 1].
    """
    x = np.asarray(x)
    largest = np.abs(x).max(axis=tuple(range(1, x.ndim)), keepdims=True).clip(1e-12)
    return as_pictures((x / largest + 1) / 2, limits=(0, 1))


def montage(images: np.ndarray, frame: int = 0) -> np.ndarray:
    """One picture ``(rows·height, columns·width[, channels])`` of ``(rows, columns, channels, height, width)``.

    Args:
        frame: white pixels on each side of each picture.
    """
    images = np.pad(images, [(0, 0)] * 3 + [(frame, frame)] * 2, constant_values=1)
    rows, columns, channels, height, width = images.shape
    picture = images.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    return picture[..., 0] if channels == 1 else picture


# --- figures


def picture_rows(rows: Mapping[str, np.ndarray], *, column_labels: Sequence[str] = ()) -> Figure:
    """Pictures side by side, a labelled row for each array.

    Args:
        rows: label → pictures ``(columns, channels, height, width)``, as many in each row.
        column_labels: above the first columns, or none.
    """
    pictures = np.stack([*rows.values()])
    n_columns, (height, width) = pictures.shape[1], pictures.shape[-2:]
    lines = max(1, int(min(0.7 * WIDTH / n_columns, 1.2) * height / width / 0.16))  # of a label, beside its row
    labels = [wrapped(label, max(26, len(label) // lines + 6)) for label in rows]
    margin = 0.066 * max(len(line) for label in labels for line in label.split("\n")) + 0.15
    frame = max(1, round(0.03 * width))
    figure, (axes,) = _panels({"": montage(pictures, frame)}, left=margin, bottom=0.05,
                              top=0.3 if column_labels else 0.05, widest=1.2 * n_columns)
    axes.set_yticks((np.arange(len(labels)) + 0.5) * (height + 2 * frame), labels, fontsize=9)
    axes.set_xticks((np.arange(n_columns) + 0.5)[:len(column_labels)] * (width + 2 * frame),
                    column_labels[:n_columns], fontsize=8)
    axes.tick_params(length=0, labelbottom=False, labeltop=True)
    return figure


def mosaics(panels: Mapping[str, np.ndarray], *, columns: int = 8) -> Figure:
    """Many small pictures, a square of them for each title, in the order of reading.

    Args:
        panels: title → pictures ``(n, channels, height, width)``.
        columns: pictures in a row of a panel.
    """
    whole = {}
    for title, pictures in panels.items():
        filled = np.pad(pictures, [(0, -len(pictures) % columns), (0, 0), (0, 0), (0, 0)], constant_values=1)
        whole[title] = montage(filled.reshape(-1, columns, *filled.shape[1:]), 1)
    figure, all_axes = _panels(whole, across=columns)
    for axes in all_axes:
        axes.set(xticks=[], yticks=[])
    return figure


def traversals(panels: Mapping[str, np.ndarray], dimensions: Mapping[str, Sequence[int]]) -> Figure:
    """What each latent dimension changes: a row of decoded pictures for each dimension, a panel for each model.

    Args:
        panels: title → pictures ``(dimensions, steps, channels, height, width)``, the latent rising from left to right.
        dimensions: title → the dimension that each row moves.
    """
    figure, all_axes = _panels({title: montage(pictures) for title, pictures in panels.items()}, left=0.5, bottom=0.3,
                               across=max((pictures.shape[1] for pictures in panels.values()), default=1))
    for axes, (title, pictures) in zip(all_axes, panels.items(), strict=True):
        axes.set_yticks((np.arange(len(pictures)) + 0.5) * pictures.shape[-2], map(str, dimensions[title]))
        axes.set_xticks([])
        _name_axes(axes, "low ← value → high", "latent dimension")
    return figure


def latent_grids(grids: Mapping[str, np.ndarray], extents: Mapping[str, tuple[float, float, float, float]],
                 axis_labels: Mapping[str, Sequence[str]]) -> Figure:
    """Decoded 2-D grids of latents, one panel for each model.

    Args:
        grids: title → pictures ``(rows, columns, channels, height, width)``, the first row at the top.
        extents: title → (left, right, bottom, top), the latents at the outer edges.
        axis_labels: title → names of the horizontal and the vertical latent.
    """
    figure, all_axes = _panels({title: montage(pictures) for title, pictures in grids.items()}, left=0.6, bottom=0.45,
                               extents=extents,
                               across=max((pictures.shape[1] for pictures in grids.values()), default=1))
    for axes, title in zip(all_axes, grids, strict=True):
        _name_axes(axes, *axis_labels[title])
    return figure


def _panels(pictures: Mapping[str, np.ndarray], *, left: float = 0.05, bottom: float = 0.05, top: float = 0.05,
            widest: float = 5.5, across: int = 1,
            extents: Mapping[str, tuple[float, float, float, float]] | None = None) -> tuple[Figure, list[Axes]]:
    """A figure with one picture in each panel; fewer panels stand in a row if small pictures were too small otherwise.

    Each pixel of a picture takes a whole number of dots, where the picture stays nearly as wide as there is room:
    that is sharp, and a small file.

    Args:
        pictures: title → ``(height, width[, 3])``.
        left, bottom, top: room beside, below and above each picture, in inches; titles come on top of that.
        widest: of a picture, in inches.
        across: small pictures side by side in each.
        extents: title → values at the left, right, bottom and top edge.
    """
    narrowest = left + 0.05 + across * SMALLEST / DPI
    rows, columns = rows_and_columns(len(pictures), max(1, min(4, int(WIDTH / narrowest))))
    slot = WIDTH / columns
    titles = [wrapped(title, int(slot / 0.09)) for title in pictures]
    top += 0.2 * max((title.count("\n") + 1 for title in titles if title), default=0)
    sizes = []
    for picture in pictures.values():
        scale = DPI * min(slot - left - 0.05, widest) / picture.shape[1]
        if scale >= 1 and int(scale) / scale >= 0.75:
            scale = int(scale)
        sizes.append((round(scale * picture.shape[1]), round(scale * picture.shape[0])))
    heights = [max(height for _, height in sizes[row * columns:(row + 1) * columns]) + round((top + bottom) * DPI)
               for row in range(rows)]
    figure = Figure(figsize=(WIDTH, sum(heights) / DPI), dpi=DPI)
    panels = []
    for index, (name, picture, title, (width, height)) in enumerate(
            zip(pictures, pictures.values(), titles, sizes, strict=True)):
        row, column = divmod(index, columns)
        # In whole dots from the lower left corner: beside each other, level at the top, each amid its slot.
        x = round((column * slot + left + max(slot - left - 0.05 - width / DPI, 0) / 2) * DPI)
        y = sum(heights[row:]) - round(top * DPI) - height
        axes = figure.add_axes((x / DPI / WIDTH, y / sum(heights), width / DPI / WIDTH, height / sum(heights)))
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect="auto", extent=extents[name] if extents else None,
                    interpolation="auto" if width % picture.shape[1] else "nearest")
        axes.set_title(title, fontsize=10)
        axes.spines[:].set_visible(False)
        axes.tick_params(labelsize=7)
        panels.append(axes)
    return figure, panels


def _name_axes(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, fontsize=8)
    axes.set_ylabel(y_label, fontsize=8)
