"""Statistical plots of tidy tables: curves, bars, points and heatmaps; drawn with seaborn, one function for each kind.

A table goes in, a matplotlib figure comes out; that of curves or points also holds them as a Vega-Lite specification.
Where several rows share a place (the seeds of a model), lines and bars are their mean, with a band or a bar of one
standard error of the mean. A name has one colour, mark and dash in all panels of a figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from sparse_vae.checks import unknown_name
from sparse_vae.report import vega
from sparse_vae.report.figures import WIDTH, rows_and_columns, wrapped

# Okabe & Ito (2008): told apart by readers of every colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
DASHES = ("-", "--", ":")
Text = str | Mapping[str, str] | None
"""A label of all panels, or of each by its title (the column, where columns are panels); None: the column's name."""


class Style(NamedTuple):
    """How a name is drawn in every panel."""

    color: str
    marker: str
    linestyle: str


class Panel(NamedTuple):
    """A panel: its title, its rows, the column that it shows, its labels."""

    title: str
    rows: pd.DataFrame
    y: str
    x_label: str
    y_label: str


class Plot(Figure):
    """A picture of a plot, and the same as a Vega-Lite specification, which answers to a reader; empty: it has none."""

    specification: dict = {}  # noqa: RUF012


def curves(frame: pd.DataFrame, x: str, y: str | Mapping[str, str], *, hue: str | None = "label",
           panel: str | None = None, x_label: Text = None, y_label: Text = None, log_x: bool = False,
           log_y: bool = False, columns: int = 3, marks: bool = True) -> Plot:
    """Lines through the mean of the rows that share a name and an ``x``, with a band of one standard error.

    A line breaks where its value is NaN, infinite, or not positive on a logarithmic axis.

    Args:
        frame: a row for each point of each run.
        x, y: numeric columns; several columns y, each with its label, have a panel each.
        hue: the column that names the lines, or None.
        panel: the column whose values are the panels' titles, or None.
        x_label, y_label: see :data:`Text`.
        log_x, log_y: logarithmic axes; means are arithmetic all the same.
        columns: panels in a row, at most.
        marks: whether points have marks; a long line has about ten.
    """
    frame, panels = _split(frame, x, y, hue, panel, x_label, y_label)
    styles = _styles(frame, hue, dashes=True)
    figure, grid = _figure(len(panels), columns, 2.3, styles if hue else ())
    tables = {}
    for place, (axes, part) in enumerate(zip(grid, panels, strict=True)):
        for name, rows in _by_hue(part.rows, hue, styles):
            _line(axes, rows, x, part.y, styles[name], marks=marks, log_x=log_x, log_y=log_y)
            tables[place, name] = vega.means(_finite(rows[x], log_x), _finite(rows[part.y], log_y))
        # Scales are set when all is drawn: on a logarithmic axis seaborn would average logarithms.
        _finish(axes, part, log_x=log_x, log_y=log_y)
    if hue:
        _legend(figure, {name: Line2D([], [], markersize=4 if marks else 0, linewidth=1.4, **style._asdict())
                         for name, style in styles.items()})
    figure.specification = vega.specification(panels, tables, styles, lines=True, log_x=log_x, log_y=log_y,
                                              columns=columns)
    return figure


def bars(frame: pd.DataFrame, x: str, y: str | Mapping[str, str], *, hue: str | None = None, panel: str | None = None,
         x_label: Text = None, y_label: Text = None, horizontal: bool = False, columns: int = 3) -> Figure:
    """Bars of the mean of the rows that share a category and a name, with one standard error.

    Args:
        frame, y, panel, x_label, y_label, columns: as for :func:`curves`; labels go with x and y, whichever way the
            bars run.
        x: the column of categories.
        hue: the column whose names have colours; x itself colours each category.
        horizontal: bars that run to the right, for long or many categories.
    """
    frame, panels = _split(frame, x, y, hue, panel, x_label, y_label)
    styles = _styles(frame, hue)
    short = {name: wrapped(name, 30) for name in _names(frame[x])}
    categories, longest = list(short.values()), max((len(line) for name in short.values() for line in name.split("\n")),
                                                    default=0)
    named = hue is not None and hue != x
    n_bars = len(categories) * (len(styles) if named else 1)
    height = 0.9 + 0.2 * n_bars if horizontal else 2.5
    figure, grid = _figure(len(panels), columns, height, styles if named else ())
    for axes, part in zip(grid, panels, strict=True):
        rows = part.rows.assign(**{x: _texts(part.rows[x]).map(short), part.y: _finite(part.rows[part.y])})
        colour = {"color": COLOURS[0]} if hue is None else {
            "palette": {name: style.color for name, style in styles.items()}, "hue_order": list(styles),
            "hue": _texts(part.rows[hue])}
        across, up = (part.y, x) if horizontal else (x, part.y)
        sns.barplot(rows, x=across, y=up, order=categories, orient="y" if horizontal else "x", ax=axes, legend=False,
                    errorbar="se", saturation=1, err_kws={"linewidth": 1, "color": "0.25"}, **colour)
        place = _place(axes)
        if horizontal:
            first = place.is_first_col()
            _finish(axes, part._replace(x_label=part.y_label, y_label=part.x_label if first else ""), ticks=False,
                    grid="x", width=WIDTH - 0.055 * longest)
            axes.tick_params(axis="y", labelleft=first)
        else:
            _finish(axes, part, ticks=False, grid="y")
            touch = place.get_gridspec().ncols * longest * len(categories) > 100
            axes.tick_params(axis="x", rotation=90 if touch else 0)
    if named:
        _legend(figure, {name: Patch(color=style.color) for name, style in styles.items()})
    return figure


def scatter(frame: pd.DataFrame, x: str, y: str | Mapping[str, str], *, hue: str | None = None,
            panel: str | None = None, x_label: Text = None, y_label: Text = None, size: float | None = None,
            log_x: bool = False, log_y: bool = False, columns: int = 4) -> Plot:
    """A point for each row, square panels.

    Args:
        frame, y, hue, panel, x_label, y_label, log_x, log_y, columns: as for :func:`curves`.
        x: a numeric column.
        size: area of a mark, in points²; by default smaller where there are many.
    """
    frame, panels = _split(frame, x, y, hue, panel, x_label, y_label)
    styles = _styles(frame, hue)
    n_columns = rows_and_columns(len(panels), min(columns, 4))[1]
    figure, grid = _figure(len(panels), columns, min(WIDTH / n_columns, 4.5) + 0.3, styles if hue else ())
    tables = {}
    for place, (axes, part) in enumerate(zip(grid, panels, strict=True)):
        for name, own in _by_hue(part.rows, hue, styles):
            tables[place, name] = pd.DataFrame({"x": _finite(own[x], log_x), "y": _finite(own[part.y], log_y)}).dropna()
        # In random order, lest the last name cover the others.
        rows = part.rows.sample(frac=1, random_state=0)
        named = {"color": COLOURS[0]} if hue is None or rows.empty else {
            "hue": _texts(rows[hue]), "style": _texts(rows[hue]), "hue_order": list(styles),
            "palette": {name: style.color for name, style in styles.items()},
            "markers": {name: style.marker for name, style in styles.items()}}
        area = size or np.clip(5000 / max(len(rows), 1), 3, 36)
        sns.scatterplot(x=_finite(rows[x], log_x), y=_finite(rows[part.y], log_y), s=area, ax=axes, legend=False,
                        linewidth=0.3 if area > 20 else 0, alpha=0.8, **named)
        _finish(axes, part, log_x=log_x, log_y=log_y, ticks=log_x)
    if hue:
        _legend(figure, {name: Line2D([], [], linestyle="", markersize=5, color=style.color, marker=style.marker)
                         for name, style in styles.items()})
    figure.specification = vega.specification(panels, tables, styles, lines=False, log_x=log_x, log_y=log_y,
                                              columns=min(columns, 4))
    return figure


class _StillCanvas(FigureCanvasAgg):
    """Draws nothing: seaborn draws the whole figure after each heatmap, to see whether tick labels touch."""

    def draw(self) -> None:
        self.figure.stale = False


def heatmaps(panels: Mapping[str, pd.DataFrame], *, x_label: str = "", y_label: str = "", centre: float | None = None,
             colour_label: str = "", shared_scale: bool = False, log: bool = False,
             bars: Mapping[str, pd.Series] | None = None, bars_label: str | Mapping[str, str] = "",
             columns: int | None = None) -> Figure:
    """Matrices as coloured cells, the first row at the top; NaN is grey.

    Args:
        panels: title → matrix; index and columns name the ticks.
        x_label, y_label: of the columns and the rows of every panel.
        centre: the value that is white: blue is below it, red above. None: a sequence from light to dark.
        colour_label: what the colours show.
        shared_scale: one scale and one colour bar for all panels, else each has its own.
        log: a logarithmic scale, which all share. What is not positive has the colour of the smallest positive value,
            infinity that of the largest finite one.
        bars: title → a value for each column of the matrix, drawn below it.
        bars_label: what the bars show: one text beside them, or title → text above them.
        columns: panels in a row; by default four with bars, else two.
    """
    panels = {title: matrix.astype(float) for title, matrix in panels.items()}
    n_rows, n_columns = rows_and_columns(len(panels), columns or (4 if bars else 2))
    shared, narrow = shared_scale or log, n_columns > 2
    map_height = np.clip(0.15 * max((len(matrix) for matrix in panels.values()), default=1), 1.1, 5.5)
    heights = [map_height + (1.0 if narrow and not shared else 0.6), *([1.5] if bars else [])]
    figure = Figure(figsize=(WIDTH, sum(heights) * n_rows))
    _StillCanvas(figure)
    grid = figure.subplots(n_rows * len(heights), n_columns, squeeze=False, height_ratios=heights * n_rows)
    places = grid.reshape(n_rows, len(heights), n_columns).swapaxes(1, 2).reshape(-1, len(heights))
    values = np.concatenate([matrix.to_numpy().ravel() for matrix in panels.values()] or [np.zeros(1)])
    own_rows = len({tuple(matrix.index) for matrix in panels.values()}) > 1
    width = WIDTH / n_columns - 0.6
    for place, (title, matrix) in zip(places, panels.items(), strict=False):
        axes, is_named = place[0], own_rows or place[0].get_subplotspec().is_first_col()
        scale = _scale(values if shared else matrix.to_numpy(), centre, log=log)
        if log:
            matrix = matrix.clip(scale["norm"].vmin, scale["norm"].vmax)
        sns.heatmap(matrix.rename_axis(columns=None), ax=axes, cbar=False, xticklabels=False, yticklabels=False,
                    **scale)
        axes.set_facecolor("0.85")
        _title(axes, title)
        _name_cells(axes.xaxis, [] if bars else matrix.columns, width)
        _name_cells(axes.yaxis, matrix.index if is_named else [], map_height)
        place[-1].set_xlabel(x_label, fontsize=8)
        axes.set_ylabel(y_label if is_named else "", fontsize=8)
        if bars:
            _bars_below(place[1], bars[title], max(1.0, *(each.max() for each in bars.values())), width)
            if isinstance(bars_label, Mapping):
                place[1].set_title(wrapped(bars_label[title], int(width / 0.055)), fontsize=7)
            elif axes.get_subplotspec().is_first_col():
                place[1].set_ylabel(fill(bars_label, 18), fontsize=8)
    for axes in places[len(panels):].flat:
        axes.set_visible(False)
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    for axes, *_ in places[:1 if shared else len(panels)]:
        _colour_bar(figure, axes, grid if shared else axes, colour_label, above=narrow and not shared)
    return figure


# --- tables into panels


def _split(frame: pd.DataFrame, x: str, y: str | Mapping[str, str], hue: str | None, panel: str | None, x_label: Text,
           y_label: Text) -> tuple[pd.DataFrame, list[Panel]]:
    """The rows that belong somewhere, and the panels: for each column y the values of ``panel``, in order.

    A column that is not there is a :class:`~sparse_vae.checks.SettingError`.
    """
    for column in (x, *([y] if isinstance(y, str) else y), hue, panel):
        if column and column not in frame:
            raise unknown_name("column of what is drawn", column, list(frame))
    frame = frame.dropna(subset=[column for column in (hue, panel) if column])
    y_labels = {y: None} if isinstance(y, str) else dict(y)
    titles = _names(frame[panel]) if panel else [""]
    found = []
    for column, own_label in y_labels.items():
        for title in titles or [""]:
            rows = frame[_texts(frame[panel]) == title] if title else frame
            found.append(Panel(title, rows, column, _label(x_label, title, column, x),
                               own_label or _label(y_label, title, column, column)))
    return frame, found


def _label(text: Text, title: str, column: str, default: str) -> str:
    own = text.get(title, text.get(column)) if isinstance(text, Mapping) else text
    return default if own is None else own


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _texts(column: pd.Series) -> pd.Series:
    return column.astype(object).map(_text)


def _names(column: pd.Series) -> list[str]:
    """The names in a column: of a categorical in its order, numbers by size, else as they come."""
    values = column.dropna()
    if isinstance(values.dtype, pd.CategoricalDtype):
        unique = [value for value in values.cat.categories if (values == value).any()]
    else:
        unique = list(values.unique())
        if pd.api.types.is_numeric_dtype(values):
            unique.sort()
    return [_text(value) for value in unique]


def _by_hue(rows: pd.DataFrame, hue: str | None, styles: Mapping[str, Style]) -> list[tuple[str, pd.DataFrame]]:
    if hue is None:
        return [("", rows)]
    own = _texts(rows[hue])
    return [(name, rows[own == name]) for name in styles if (own == name).any()]


def _styles(frame: pd.DataFrame, hue: str | None, *, dashes: bool = False) -> dict[str, Style]:
    """A style for each name; without dashes, ten names, such as digits, have the ten colours of tab10."""
    names = [""] if hue is None else _names(frame[hue])
    colours = sns.color_palette("tab10").as_hex() if not dashes and len(COLOURS) < len(names) <= 10 else COLOURS
    return {name: Style(colours[i % len(colours)], MARKERS[i % len(MARKERS)],
                        DASHES[i // len(colours) % len(DASHES)]) for i, name in enumerate(names)}


def _finite(values: pd.Series, log: bool = False) -> pd.Series:
    values = pd.to_numeric(values).astype(float)
    return values.where(np.isfinite(values) & ((values > 0) | (not log)))


# --- drawing


def _figure(n: int, columns: int, height: float, names: Sequence[str] | Mapping[str, object]) -> tuple[
        Plot, list[Axes]]:
    """A figure of ``n`` panels of this height in inches, at most four in a row, with room for a legend of the names."""
    rows, columns = rows_and_columns(n, min(columns, 4))
    in_a_row = _names_in_a_row(names)
    lines = -(-len(names) // in_a_row) * max((1 + len(name) // 90 for name in names), default=0)
    figure = Plot(figsize=(WIDTH, height * rows + 0.19 * lines + 0.1), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[n:]:
        axes.set_visible(False)
    return figure, grid[:n]


def _names_in_a_row(names: Sequence[str] | Mapping[str, object]) -> int:
    # A letter takes about 0.065 inches, the line beside a name 0.6.
    longest = min(max(map(len, names), default=0), 90)
    return max(1, min(int(WIDTH / (0.065 * longest + 0.6)), 5, len(names)))


def _legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    if handles:
        figure.legend(handles.values(), [fill(name, 90) for name in handles], loc="outside lower center",
                      ncols=_names_in_a_row(handles), fontsize=8, frameon=False)


def _line(axes: Axes, rows: pd.DataFrame, x: str, y: str, style: Style, *, marks: bool, log_x: bool,
          log_y: bool) -> None:
    points = pd.DataFrame({"x": _finite(rows[x], log_x), "y": _finite(rows[y], log_y)}).dropna(subset="x")
    has_value = points.groupby("x")["y"].count() > 0
    stretches = (~has_value).cumsum()[has_value]
    every = max(1, len(has_value) // 10) if len(has_value) > 15 else 1
    for _, stretch in stretches.groupby(stretches):
        part = points[points["x"].isin(stretch.index)].dropna()
        sns.lineplot(part, x="x", y="y", ax=axes, errorbar="se" if part.duplicated("x").any() else None,
                     color=style.color, linestyle=style.linestyle, linewidth=1.4, legend=False,
                     **({"marker": style.marker, "markersize": 4, "markeredgewidth": 0, "markevery": every}
                        if marks else {}))


def _place(axes: Axes) -> SubplotSpec:
    """Where a panel is among those of its figure."""
    place = axes.get_subplotspec()
    assert place is not None
    return place


def _title(axes: Axes, title: str, width: float = WIDTH) -> None:
    """A title on lines as long as a panel is wide, of panels that share so many inches."""
    axes.set_title(wrapped(title, int((width / _place(axes).get_gridspec().ncols - 0.4) / 0.08)), fontsize=9)


def _finish(axes: Axes, part: Panel, *, log_x: bool = False, log_y: bool = False, ticks: bool = True,
            grid: Literal["both", "x", "y"] = "both", width: float = WIDTH) -> None:
    """Title, labels, scales, ticks and grid of a panel; a note where it is empty."""
    _title(axes, part.title, width)
    axes.set_xlabel(wrapped(part.x_label, 45), fontsize=8)
    axes.set_ylabel(wrapped(part.y_label, 34), fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25, axis=grid)
    axes.set_axisbelow(True)
    if not axes.has_data():
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center", fontsize=8, color="0.5")
        axes.set(xticks=[], yticks=[])
        return
    if log_x:
        _log_ticks(axes, "x")
    elif ticks and all(np.equal(np.mod(line.get_xdata(), 1), 0).all() for line in axes.lines):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if log_y:
        _log_ticks(axes, "y")


def _log_ticks(axes: Axes, which: str) -> None:
    """A logarithmic axis whose ticks are plain numbers: on x the values that are there, on y 1, 2 and 5 or powers."""
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    axes.set(**{f"{which}scale": "log"})
    axis.set_minor_formatter(NullFormatter())
    if which == "x":
        values = np.unique(np.concatenate([line.get_xdata() for line in axes.lines] or [np.array(
            [point[0] for dots in axes.collections for point in dots.get_offsets()])]))  # type: ignore[index, union-attr]
        chosen: list[float] = []
        for value in values[np.isfinite(values)]:
            if not chosen or np.log(value / chosen[-1]) >= np.log(values[-1] / values[0]) / 8:
                chosen.append(value)
        axis.set_major_locator(LogLocator())
        axis.set_ticks(chosen, [f"{value:g}" for value in chosen])
        axis.set_minor_locator(NullLocator())
        return
    means = np.concatenate([line.get_ydata() for line in axes.lines] or [np.array(axes.get_ylim())])
    low, high = np.nanmin(means) / 1.2, np.nanmax(means) * 1.2
    axes.set_ylim(low, high)  # a band that reaches 0 has no end on this axis
    decades = np.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1,), numticks=7))
    if low >= 1e-4 and high <= 1e5:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


# --- heatmaps


def _scale(values: np.ndarray, centre: float | None, *, log: bool) -> dict[str, Any]:
    """Colours of a heatmap, as seaborn takes them."""
    finite = values[np.isfinite(values)]
    if log:
        finite = finite[finite > 0]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.1, 1.0)
        return {"cmap": "rocket_r", "norm": LogNorm(low, high if high > low else 10 * low)}
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    if centre is None:
        return {"cmap": "rocket_r", "vmin": low, "vmax": high if high > low else low + 1}
    # Values on one side of the centre have the colours of that side alone.
    reach = max(abs(high - centre), abs(low - centre)) or 1.0
    return {"cmap": "RdBu_r", "center": centre, "vmin": centre - (reach if low < centre else 0),
            "vmax": centre + (reach if high > centre or low >= centre else 0)}


def _name_cells(axis: XAxis | YAxis, names: Iterable[object], room: float) -> None:
    """Ticks at the middle of cells, as many as fit into so many inches."""
    texts = [_text(name) for name in names]
    longest = max(map(len, texts), default=1)
    is_x = axis.axis_name == "x"
    upright = not is_x or longest <= 4 or longest * 0.06 * len(texts) < room
    step = 1 + int(len(texts) * (0.13 if not upright or not is_x else 0.06 * longest + 0.06) / room)
    axis.set_ticks(np.arange(len(texts))[::step] + 0.5, texts[::step])
    axis.set_tick_params(labelsize=7, length=2 if texts else 0, labelrotation=0 if upright else 90)


def _bars_below(axes: Axes, values: pd.Series, highest: float, room: float) -> None:
    axes.bar(np.arange(len(values)) + 0.5, values.to_numpy(float), color=COLOURS[0], width=0.85)
    axes.set(xlim=(0, len(values)), ylim=(0, highest))
    _name_cells(axes.xaxis, values.index, room)
    axes.tick_params(axis="y", labelsize=7, labelleft=_place(axes).is_first_col())


def _colour_bar(figure: Figure, axes: Axes, beside: Axes | np.ndarray, label: str, *, above: bool) -> None:
    where: dict[str, Any] = {"location": "right", "pad": 0.01, "aspect": 30}
    if above:
        where = {"location": "top", "pad": 0.06, "ticks": MaxNLocator(4)}
    bar = figure.colorbar(axes.collections[0], ax=beside, shrink=0.9, **where)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6)
    bar.set_label(fill(label, 28), fontsize=7)
