"""Plots of tables: means and standard errors by hand, one style for a name in all panels, and nothing is cut."""

from __future__ import annotations

from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from sparse_vae.checks import SettingError
from sparse_vae.report import plots
from sparse_vae.report.notebook import png

RANDOM = np.random.default_rng(0)
LONG = "VSC with warm-up and a spike that is sharpened while it trains, λ₀ = 0.5 (α = 0.01), fixed prior"


@pytest.fixture(autouse=True)
def _nothing_is_left_open():
    """A figure left in pyplot would be shown a second time by the notebook."""
    yield
    assert plt.get_fignums() == []


def table(n_panels: int, n_names: int = 3, *, seeds: int = 3, x=(1, 2, 4)) -> pd.DataFrame:
    return pd.DataFrame([{"label": f"model {name}", "panel": f"panel {panel}", "x": value, "seed": seed,
                          "y": name + panel + value * RANDOM.uniform(1, 2)}
                         for panel in range(n_panels) for name in range(n_names) for value in x
                         for seed in range(seeds)])


def drawn(figure: Figure) -> list:
    """Panels that are seen; no text lies outside of the figure."""
    figure.draw_without_rendering()
    box, everything = figure.bbox_inches, figure.get_tightbbox()
    assert everything.x0 >= box.x0 - 0.01
    assert everything.x1 <= box.x1 + 0.01
    assert everything.y0 >= box.y0 - 0.01
    assert everything.y1 <= box.y1 + 0.01
    return [axes for axes in figure.axes if axes.get_visible()]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def bands(axes) -> list[np.ndarray]:
    """Vertices of the error bands."""
    return [path.vertices for collection in axes.collections if isinstance(collection, PolyCollection)
            for path in collection.get_paths()]


DRAW = {
    "curves": lambda frame: plots.curves(frame, "x", "y", panel="panel"),
    "bars": lambda frame: plots.bars(frame, "x", "y", hue="label", panel="panel"),
    "horizontal bars": lambda frame: plots.bars(frame, "label", "y", panel="panel", horizontal=True),
    "scatter": lambda frame: plots.scatter(frame, "x", "y", hue="label", panel="panel"),
}


# --- all kinds


@pytest.mark.parametrize("n_panels", [1, 7])
@pytest.mark.parametrize("kind", DRAW)
def test_panels_and_their_titles(kind, n_panels):
    figure = DRAW[kind](table(n_panels))
    assert [axes.get_title() for axes in drawn(figure)] == [f"panel {i}" for i in range(n_panels)]
    assert legend(figure) == ([] if kind == "horizontal bars" else [f"model {i}" for i in range(3)])
    assert figure.get_figwidth() == 8
    assert max(axes.get_subplotspec().colspan.stop for axes in figure.axes) <= 4
    if n_panels == 1:
        picture = Image.open(BytesIO(png(figure)))
        assert (picture.mode, picture.width) == ("P", 1280)


@pytest.mark.parametrize("kind", DRAW)
def test_long_names_are_wrapped_and_not_cut(kind):
    frame = table(2, 9).replace({"model 3": LONG, "panel 1": LONG})
    figure = DRAW[kind](frame)
    panels = drawn(figure)
    assert panels[1].get_title().replace("\n", " ").replace("\u00a0", " ") == LONG
    if legend(figure):
        assert legend(figure)[3].replace("\n", " ") == LONG
        box = figure.legends[0].get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        assert box.x0 >= 0
        assert box.x1 <= 8
        assert not any(axes.get_tightbbox().overlaps(figure.legends[0].get_window_extent()) for axes in panels)


@pytest.mark.parametrize("kind", DRAW)
def test_parts_without_values_say_so(kind):
    frame = table(2)
    frame.loc[frame["panel"] == "panel 1", "y"] = np.nan
    first, second = drawn(DRAW[kind](frame))
    assert [text.get_text() for text in first.texts] == []
    assert [text.get_text() for text in second.texts] == ["no values"]


@pytest.mark.parametrize("kind", DRAW)
def test_an_empty_table_is_an_empty_panel(kind):
    axes, = drawn(DRAW[kind](table(1).iloc[:0]))
    assert [text.get_text() for text in axes.texts] == ["no values"]


@pytest.mark.parametrize("draw", [plots.curves, plots.bars, plots.scatter])
def test_several_columns_are_several_panels(draw):
    frame = table(2).assign(z=1)
    figure = draw(frame, "x", {"y": "loss (nats)", "z": "dimensions"}, hue="label", panel="panel",
                  x_label={"y": "J", "panel 1": "second"})
    assert [(axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) for axes in drawn(figure)] == [
        ("panel 0", "J", "loss (nats)"), ("panel 1", "second", "loss (nats)"),
        ("panel 0", "x", "dimensions"), ("panel 1", "second", "dimensions")]


def test_labels_are_given_or_the_names_of_columns():
    frame = table(1)
    assert drawn(plots.curves(frame, "x", "y"))[0].get_ylabel() == "y"
    axes, = drawn(plots.bars(frame, "label", "y", x_label="", y_label="nats", horizontal=True))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("nats", "")


# --- curves


def test_a_line_is_the_mean_with_one_standard_error():
    frame = pd.DataFrame({"label": "a", "x": [1, 1, 1, 2, 2, 2], "y": [1.0, 2.0, 6.0, 5.0, 5.0, 5.0]})
    axes, = drawn(plots.curves(frame, "x", "y"))
    line, = axes.lines
    assert line.get_xydata().tolist() == [[1, 3], [2, 5]]
    error = np.sqrt(7 / 3)  # variance 7 of three values
    band, = bands(axes)
    at_1 = band[band[:, 0] == 1, 1]
    assert (at_1.min(), at_1.max()) == pytest.approx((3 - error, 3 + error))


def test_bands_appear_only_where_there_are_several_rows():
    axes, = drawn(plots.curves(table(1, 1, seeds=1), "x", "y"))
    assert bands(axes) == []
    frame = table(1, 2, seeds=2)
    single = frame[(frame["label"] == "model 0") | (frame["seed"] == 0)]
    assert len(bands(drawn(plots.curves(single, "x", "y"))[0])) == 1


def test_a_name_has_one_style_in_all_panels_and_in_the_legend():
    frame = table(3, 7)
    frame = frame[(frame["panel"] != "panel 1") | ~frame["label"].isin(["model 0", "model 3"])]
    figure = plots.curves(frame, "x", "y", panel="panel")
    styles = [[(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines]
              for axes in drawn(figure)]
    assert styles[0] == styles[2]
    assert styles[1] == [style for index, style in enumerate(styles[0]) if index not in (0, 3)]
    assert len(set(styles[0])) == 7
    assert [line.get_color() for line in figure.legends[0].get_lines()] == [style[0] for style in styles[0]]
    assert styles[0][0][0] == plots.COLOURS[0]


def test_twenty_lines_are_told_apart():
    lines = drawn(plots.curves(table(1, 20, seeds=1), "x", "y"))[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20


def test_a_line_breaks_where_there_is_no_value():
    frame = pd.DataFrame({"label": "a", "x": range(5), "y": [1.0, np.nan, 2.0, np.inf, None]})
    axes, = drawn(plots.curves(frame, "x", "y"))
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[0, 1]], [[2, 2]]]


def test_a_single_line_without_a_name_has_no_legend():
    figure = plots.curves(table(1, 1), "x", "y", hue=None)
    assert (len(drawn(figure)[0].lines), legend(figure)) == (1, [])


def test_logarithmic_axes_have_plain_numbers_and_arithmetic_means():
    frame = pd.DataFrame({"label": "a", "x": [0, 2, 2, 16, 1000], "y": [5.0, 1.0, 100.0, 0.0, 0.02]})
    axes, = drawn(plots.curves(frame, "x", "y", log_x=True, log_y=True))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[2, 50.5]], [[1000, 0.02]]]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "1000"]
    assert {"0.1", "1", "10"} <= {text.get_text() for text in axes.get_yticklabels()}
    assert all("mathdefault" not in text.get_text() for text in axes.get_yticklabels(which="both"))


def test_a_band_that_reaches_zero_leaves_the_logarithmic_axis_to_the_means():
    frame = pd.DataFrame({"label": "a", "x": [1, 1, 2, 2], "y": [1e-9, 8.0, 3.0, 5.0]})
    axes, = drawn(plots.curves(frame, "x", "y", log_y=True))
    assert axes.get_ylim() == pytest.approx((4 / 1.2, 4 * 1.2))


def test_close_ticks_of_a_logarithmic_axis_are_left_out():
    x = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100]
    axes, = drawn(plots.curves(table(1, 1, x=x), "x", "y", log_x=True))
    ticks = axes.get_xticks()
    assert ticks[0] == 1
    assert ticks[-1] == 100
    assert np.diff(np.log(ticks)).min() >= np.log(100) / 8


def test_names_come_in_the_order_of_rows_numbers_by_size_and_categories_in_theirs():
    frame = pd.DataFrame({"x": [1, 2, 3], "y": 1.0, "text": ["b", "a", "b"], "J": [16, 2.5, 16],
                          "kind": pd.Categorical(["no", "yes", "no"], ["yes", "no", "never"])})
    for hue, names in (("text", ["b", "a"]), ("J", ["2.5", "16"]), ("kind", ["yes", "no"])):
        for draw in (plots.curves, plots.scatter):
            assert legend(draw(frame, "x", "y", hue=hue)) == names


def test_a_long_line_has_few_marks():
    frame = table(1, 1, seeds=1, x=range(100))
    axes, = drawn(plots.curves(frame, "x", "y"))
    assert axes.lines[0].get_markevery() == 10
    axes, = drawn(plots.curves(frame, "x", "y", marks=False))
    assert axes.lines[0].get_marker() == "None"


# --- bars and points


@pytest.mark.parametrize("horizontal", [False, True])
def test_bars_by_hand(horizontal):
    frame = pd.DataFrame({"label": ["VAE (β = 4)", "VAE (β = 4)", LONG], "y": [1.0, 3.0, 5.0]})
    axes, = drawn(plots.bars(frame, "label", "y", hue="label", horizontal=horizontal))
    lengths = [bar.get_width() if horizontal else bar.get_height() for bar in axes.patches]
    assert lengths == [2, 5]
    assert [to_hex(bar.get_facecolor()).upper() for bar in axes.patches] == list(plots.COLOURS[:2])
    # An error of √2 / √2 = 1 about the mean of two values, none about a single one.
    errors = [line.get_xydata()[:, 0 if horizontal else 1] for line in axes.lines]
    assert [error.tolist() for error in errors if np.isfinite(error).all()] == [[1, 3]]


def test_bars_of_two_names_stand_beside_each_other():
    frame = pd.DataFrame({"J": [2, 16, 2], "label": ["a", "a", "b"], "y": [1.0, 2.0, 3.0]})
    figure = plots.bars(frame, "J", "y", hue="label")
    axes, = drawn(figure)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "16"]
    assert legend(figure) == ["a", "b"]
    assert sorted(bar.get_height() for bar in axes.patches if bar.get_height() > 0) == [1, 2, 3]


def test_points_by_hand():
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, np.nan], "y": [4.0, 5.0, 6.0, 7.0], "digit": ["0", "1", "0", "1"]})
    figure = plots.scatter(frame, "x", "y", hue="digit", size=9)
    axes, = drawn(figure)
    points = axes.collections[0]
    found = {tuple(point): to_hex(colour).upper() for point, colour in zip(
        points.get_offsets().filled(np.nan).tolist(), points.get_facecolors(), strict=True) if np.isfinite(point).all()}
    assert found == {(1, 4): plots.COLOURS[0], (2, 5): plots.COLOURS[1], (3, 6): plots.COLOURS[0]}
    assert set(points.get_sizes()) == {9}
    assert legend(figure) == ["0", "1"]


def test_the_last_class_does_not_cover_the_others():
    frame = pd.DataFrame({"x": RANDOM.random(400), "y": 0.0, "digit": np.repeat(["0", "1"], 200)})
    points = drawn(plots.scatter(frame, "x", "y", hue="digit"))[0].collections[0]
    colours = [to_hex(colour).upper() for colour in points.get_facecolors()]
    assert 60 < colours[:200].count(plots.COLOURS[0]) < 140


def test_points_have_logarithmic_axes():
    axes, = drawn(plots.scatter(pd.DataFrame({"x": [1, 10, 100], "y": [1, 2, 0]}), "x", "y", log_x=True, log_y=True))
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "10"]


# --- heatmaps


def cells(axes) -> np.ndarray:
    return np.asarray(axes.collections[0].get_array()).reshape(-1)


@pytest.mark.parametrize("n_panels", [1, 8])
@pytest.mark.parametrize("settings", [{}, {"shared_scale": True}, {"log": True}], ids=str)
def test_heatmaps(n_panels, settings):
    panels = {f"panel {i}": pd.DataFrame(RANDOM.random((3, 5))) for i in range(n_panels)}
    figure = plots.heatmaps(panels, x_label="asset", y_label="factor", colour_label="loading", **settings)
    axes = drawn(figure)
    assert [each.get_title() for each in axes[:n_panels]] == list(panels)
    assert len(axes) == n_panels + (1 if settings else n_panels)  # with their colour bars
    assert [cells(each).tolist() for each in axes[:n_panels]] == [
        panel.to_numpy().reshape(-1).tolist() for panel in panels.values()]
    assert len({each.collections[0].get_clim() for each in axes[:n_panels]}) == (1 if settings else n_panels)


def test_white_is_the_centre_and_sides_have_their_own_colours():
    panels = {"signed": pd.DataFrame([[-1.0, 0.0], [2.0, 0.0]]), "positive": pd.DataFrame([[0.0, 3.0]]),
              "negative": pd.DataFrame([[-4.0, 0.0]]), "none": pd.DataFrame([[0.0, 0.0]])}
    axes = drawn(plots.heatmaps(panels, centre=0))[:4]
    assert [each.collections[0].get_clim() for each in axes] == [(-2, 2), (0, 3), (-4, 0), (0, 1)]
    for each in axes:
        mesh = each.collections[0]
        red, _, blue, _ = mesh.cmap(mesh.norm(mesh.get_array())).reshape(-1, 4).T
        values = cells(each)
        assert (red[values > 0] > blue[values > 0]).all()
        assert (red[values < 0] < blue[values < 0]).all()
        assert (abs(red - blue)[values == 0] < 0.05).all()


def test_a_logarithmic_scale_takes_zeros_and_infinities():
    errors = pd.DataFrame([[1e-3, 0.0], [np.inf, 1e2], [np.nan, -1.0]])
    mesh = drawn(plots.heatmaps({"": errors}, log=True))[0].collections[0]
    assert mesh.get_clim() == (1e-3, 1e2)
    assert np.ma.getmaskarray(mesh.get_array()).reshape(-1).tolist() == [False] * 4 + [True, False]
    assert mesh.get_array().reshape(-1).compressed().tolist() == [1e-3, 1e-3, 1e2, 1e2, 1e-3]
    assert drawn(plots.heatmaps({"": errors * 0 - 1}, log=True))[0].collections[0].get_clim() == (0.1, 1)


def test_nothing_but_nan_is_a_grey_map():
    axes = drawn(plots.heatmaps({"": pd.DataFrame(np.full((2, 2), np.nan))}, centre=0))[0]
    assert to_hex(axes.get_facecolor()) == "#d9d9d9"
    assert np.ma.getmaskarray(axes.collections[0].get_array()).all()


def test_bars_stand_below_the_columns():
    panels = {"a": pd.DataFrame(RANDOM.random((2, 3)), index=["cat", "dog"]), "b": pd.DataFrame(RANDOM.random((2, 4)),
                                                                                              index=["cat", "dog"])}
    rates = {"a": pd.Series([0.75, 0.5, 0.25], index=[7, 3, 5]), "b": pd.Series([0.5, 0.5, 0.0, 0.0])}
    figure = plots.heatmaps(panels, bars=rates, x_label="units", bars_label={"a": "γ > ½", "b": "not 0"})
    above, other, below, second = drawn(figure)[:4]
    assert [text.get_text() for text in above.get_yticklabels()] == ["cat", "dog"]
    assert [text.get_text() for text in other.get_yticklabels()] == []  # the same rows
    assert [bar.get_height() for bar in below.patches] == [0.75, 0.5, 0.25]
    assert [bar.get_x() + bar.get_width() / 2 for bar in below.patches] == pytest.approx([0.5, 1.5, 2.5])
    assert [text.get_text() for text in below.get_xticklabels()] == ["7", "3", "5"]
    assert [axes.get_title() for axes in (below, second)] == ["γ > ½", "not 0"]
    assert [axes.get_xlabel() for axes in (above, below)] == ["", "units"]
    assert below.get_ylim() == (0, 1)
    assert below.get_position().x0 == pytest.approx(above.get_position().x0)


def test_ticks_of_many_cells_are_thinned_and_rows_of_their_own_are_named():
    panels = {"a": pd.DataFrame(np.ones((2, 200))), "b": pd.DataFrame(np.ones((60, 2)), columns=["one", "two"])}
    first, second = drawn(plots.heatmaps(panels))[:2]
    shown = [text.get_text() for text in first.get_xticklabels()]
    assert shown[0] == "0"
    assert 5 < len(shown) < 30
    assert len(second.get_yticklabels()) > 10
    assert [text.get_text() for text in second.get_xticklabels()] == ["one", "two"]


def test_eight_models_with_long_titles_fit():
    panels = {f"{i}: {LONG[-60:]}": pd.DataFrame(RANDOM.standard_normal((10, 16))) for i in range(8)}
    rates = {title: pd.Series(RANDOM.random(16)) for title in panels}
    figure = plots.heatmaps(panels, bars=rates, bars_label="share of observations", centre=0,
                            colour_label="mean code, by class", x_label="latent dimensions, by use")
    boxes = [axes.get_tightbbox() for axes in drawn(figure)]
    assert not any(one.overlaps(other) for index, one in enumerate(boxes) for other in boxes[:index])


@pytest.mark.parametrize("draw", [plots.curves, plots.bars, plots.scatter])
def test_a_column_that_is_not_there_is_named(draw):
    with pytest.raises(SettingError, match="unknown column of what is drawn 'yy'; did you mean 'y'"):
        draw(table(1), "x", "yy")
