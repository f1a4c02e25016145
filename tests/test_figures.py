"""Every figure is drawn for images and for vectors, holds what it was given, and inks a known curve where it runs."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure

from sparse_vae.report import figures

RANDOM = np.random.default_rng(0)
# Grey images, colour images, vectors, signals of several channels.
OBSERVATIONS = [(1, 8, 8), (3, 6, 10), (20,), (9, 16)]
observations = pytest.mark.parametrize("shape", OBSERVATIONS, ids=lambda shape: "x".join(map(str, shape)))


def pictures(n: int, shape: tuple[int, ...]) -> np.ndarray:
    return figures.as_pictures(RANDOM.random((n, *shape)))


def is_drawn(figure: Figure) -> bool:
    """Whether the figure renders to a PNG that is not blank."""
    figure.savefig(buffer := BytesIO(), format="png", dpi=40)
    return isinstance(figure, Figure) and len(np.unique(np.asarray(_pixels(buffer)))) > 2


def _pixels(buffer: BytesIO) -> np.ndarray:
    from matplotlib.image import imread

    return imread(BytesIO(buffer.getvalue()))


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


# --- observations as pictures


def test_images_stay_as_they_are_but_for_values_out_of_range():
    x = np.array([[[[-1.0, 0.25], [0.5, 2.0]]]])
    assert figures.as_pictures(x).tolist() == [[[[0, 0.25], [0.5, 1]]]]


@observations
def test_any_observation_is_a_picture(shape):
    result = pictures(4, shape)
    assert result.shape == (4, *(shape if len(shape) == 3 else (1, 40, 56)))
    assert (result.min(), result.max()) >= (0, 0)
    assert result.max() <= 1


def inked(x: list[float], **settings) -> list[str]:
    """The bitmap of one curve: # for full ink, . for none, + between."""
    bitmap = figures.as_pictures(np.array([x]), **settings)[0, 0]
    return ["".join("#" if value < 0.01 else "." if value > 0.99 else "+" for value in row) for row in bitmap]


def test_a_straight_line_inks_the_diagonal():
    # Rows 4, 3, 2, 1, 0; from half-way to half-way a column reaches half a pixel into its neighbours.
    assert inked([0, 1, 2, 3, 4], shape=(5, 5)) == ["...+#",
                                                    "..+#+",
                                                    ".+#+.",
                                                    "+#+..",
                                                    "#+..."]


def test_a_constant_inks_one_row():
    assert inked([1, 1, 1], limits=(0, 2), shape=(3, 4)) == ["....", "####", "...."]
    assert inked([5, 5, 5], limits=(0, 2), shape=(3, 4)) == ["####", "....", "...."]  # beyond the limits, at the edge


def test_a_steep_step_stays_connected():
    # From row 4 to row 0 and back: half-way is row 2, where the columns meet.
    assert inked([0, 0, 4, 4], shape=(5, 4)) == ["..##",
                                                 "..#.",
                                                 ".##.",
                                                 ".#..",
                                                 "##.."]


def test_every_column_of_a_curve_is_inked():
    t = np.linspace(0, 2 * np.pi, 100)
    bitmap = 1 - figures.as_pictures(np.sin(t)[None])[0, 0]
    assert bitmap.max(0).min() >= 0.5  # a height between two rows is shared by them
    # Top of the picture at the sine's crest, a quarter of the way, and bottom at its trough.
    assert abs(int(bitmap[0].argmax()) - 0.25 * 55) <= 3
    assert abs(int(bitmap[-1].argmax()) - 0.75 * 55) <= 3


def test_the_curves_of_one_observation_share_a_picture():
    two = np.array([[[0.0, 0.0], [1.0, 1.0]]])
    assert inked(two[0].tolist(), shape=(3, 2)) == ["##", "..", "##"]


@pytest.mark.parametrize("x", [np.ones((2, 5)), np.zeros((1, 1)), np.ones((1, 3, 1))])
def test_a_curve_that_does_not_vary_is_drawn(x):
    result = figures.as_pictures(x)
    assert np.isfinite(result).all()
    assert (result.min(axis=(1, 2, 3)) == 0).all()


def test_changes_are_drawn_about_grey_each_on_its_own_scale():
    changes = np.array([[[[0.0, -4.0]]], [[[1.0, 0.5]]], [[[0.0, 0.0]]]])
    assert figures.signed_pictures(changes).tolist() == [[[[0.5, 0]]], [[[1, 0.75]]], [[[0.5, 0.5]]]]


def test_a_montage_puts_pictures_in_their_place():
    images = np.arange(24).reshape(2, 3, 1, 2, 2)
    assert figures.montage(images).tolist() == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11],
                                                [12, 13, 16, 17, 20, 21], [14, 15, 18, 19, 22, 23]]
    colour = figures.montage(np.arange(12).reshape(1, 1, 3, 2, 2))
    assert colour.shape == (2, 2, 3)
    assert colour[0, 1].tolist() == [1, 5, 9]


# --- figures


@observations
@pytest.mark.parametrize("n_models", [1, 3])
def test_picture_rows(shape, n_models):
    labels = ["original", *(f"model {i}" for i in range(n_models))]
    figure = figures.picture_rows({label: pictures(5, shape) for label in labels}, column_labels="abcde")
    assert is_drawn(figure)
    assert len(figure.axes) == 5 * (1 + n_models)
    assert [axes.get_ylabel() for axes in figure.axes[::5]] == labels
    assert titles(figure) == list("abcde")


def test_mosaics_by_hand():
    figure = figures.mosaics({"a": np.zeros((3, 1, 2, 2)), "b": np.ones((1, 1, 2, 2))}, columns=2)
    assert titles(figure) == ["a", "b"]
    # Three black squares of four pixels, each in a white frame of one pixel, and a white one for the fourth.
    picture = figure.axes[0].images[0].get_array()
    assert picture.shape == (8, 8)
    assert picture[1:3, 1:3].sum() == picture[1:3, 5:7].sum() == picture[5:7, 1:3].sum() == 0
    assert picture.sum() == 64 - 12


@pytest.mark.parametrize(("n", "rows"), [(1, [1]), (4, [4]), (5, [3, 2]), (6, [3, 3]), (9, [3, 3, 3])])
def test_panels_are_set_out_in_rows(n, rows):
    figure = figures.mosaics({f"model {i}": np.zeros((1, 1, 2, 2)) for i in range(n)})
    seen = [axes.get_subplotspec().rowspan.start for axes in figure.axes if axes.get_visible()]
    assert [seen.count(row) for row in range(max(seen) + 1)] == rows


def test_picture_rows_of_different_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        figures.picture_rows({"a": pictures(2, (1, 4, 4)), "b": pictures(3, (1, 4, 4))})


@observations
def test_traversals(shape):
    panels = {name: pictures(3 * 4, shape).reshape(3, 4, *pictures(1, shape).shape[1:]) for name in ("VAE", "β-VAE")}
    figure = figures.traversals(panels, {"VAE": [4, 0, 2], "β-VAE": [1, 2, 3]})
    assert is_drawn(figure)
    assert titles(figure) == ["VAE", "β-VAE"]
    assert [[text.get_text() for text in axes.get_yticklabels()] for axes in figure.axes] == [
        ["4", "0", "2"], ["1", "2", "3"]]


@observations
def test_latent_grids(shape):
    grid = pictures(6, shape).reshape(2, 3, *pictures(1, shape).shape[1:])
    figure = figures.latent_grids({"VAE": grid}, {"VAE": [-1, 1, -2, 2]}, {"VAE": ["latent 3", "latent 0"]})
    assert is_drawn(figure)
    axes, = figure.axes
    assert (axes.get_xlim(), axes.get_ylim()) == ((-1, 1), (-2, 2))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("latent 3", "latent 0")


@pytest.mark.parametrize("labels", [None, RANDOM.integers(0, 3, 50)])
def test_code_scatters(labels):
    codes = {name: RANDOM.standard_normal((50, 2)) for name in ("AE", "VAE")}
    figure = figures.code_scatters(codes, labels, ["a", "b", "c"], {name: ["x", "y"] for name in codes})
    assert is_drawn(figure)
    assert np.array_equal(figure.axes[1].collections[0].get_offsets(), codes["VAE"])
    shown = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert shown == ([] if labels is None else ["a", "b", "c"])


@pytest.mark.parametrize(("n_models", "columns"), [(1, 1), (3, 3), (6, 3)])
def test_class_heatmaps(n_models, columns):
    means = {f"model {i}": RANDOM.standard_normal((4, 6)) for i in range(n_models)}
    means["model 0"][:] = 0  # a collapsed model has a heatmap too
    rates = {title: RANDOM.random(6) for title in means}
    figure = figures.class_heatmaps(means, rates, list("abcd"), value_label="mean code",
                                    rate_labels=dict.fromkeys(means, "not zero"))
    assert is_drawn(figure)
    top, bottom = figure.axes[0], figure.axes[columns]
    assert [text.get_text() for text in top.get_yticklabels()] == list("abcd")
    assert [bar.get_height() for bar in bottom.patches] == pytest.approx(rates["model 0"].tolist())
    assert bottom.get_title() == "active: not zero"
    assert top.images[0].get_clim() == (0, 1)


def test_class_heatmaps_of_signed_means_are_symmetric_about_0():
    means = {"model": -np.arange(24.0).reshape(4, 6)}
    figure = figures.class_heatmaps(means, {"model": np.ones(6)}, list("abcd"), value_label="mean code",
                                    rate_labels={"model": "not zero"})
    assert figure.axes[0].images[0].get_clim() == (-23, 23)


@pytest.mark.parametrize("n_panels", [1, 3])
def test_matrices(n_panels):
    panels = {f"panel {i}": RANDOM.standard_normal((3, 7)) for i in range(n_panels)}
    panels["panel 0"][:] = 0
    figure = figures.matrices(panels, x_label="asset", y_label="factor")
    assert is_drawn(figure)
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in drawn] == list(panels)
    assert [axes.images[0].get_array().tolist() for axes in drawn] == [values.tolist() for values in panels.values()]
    assert all(axes.images[0].get_clim()[0] == -axes.images[0].get_clim()[1] < 0 for axes in drawn)


@pytest.mark.parametrize("n_panels", [1, 2, 5])
def test_curves(n_panels):
    x = np.arange(4)
    panels = {f"panel {i}": {"VAE": (x, x + i), "AE": (x, 2 * x)} for i in range(n_panels)}
    figure = figures.curves(panels, x_labels=["epoch"] * n_panels, y_labels=["nats"] * n_panels)
    assert is_drawn(figure)
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in drawn] == list(panels)
    assert [axes.lines[0].get_ydata().tolist() for axes in drawn] == [(x + i).tolist() for i in range(n_panels)]
    assert len({axes.lines[0].get_color() for axes in drawn}) == 1  # a name has one colour everywhere
    assert drawn[0].lines[0].get_color() != drawn[0].lines[1].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["VAE", "AE"]


def test_twenty_lines_are_told_apart():
    lines = {f"run {i}": (np.arange(2), np.arange(2)) for i in range(20)}
    drawn = figures.curves({"loss": lines}, x_labels=["epoch"], y_labels=["nats"]).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == 20
