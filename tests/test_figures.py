"""Grids of pictures hold what they are given, images or vectors, and are saved small; what notebooks show, by hand."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from sparse_vae.report import figures, notebook

RANDOM = np.random.default_rng(0)
# Grey images, colour images, vectors, signals of several channels.
OBSERVATIONS = [(1, 8, 8), (3, 6, 10), (20,), (9, 16)]
observations = pytest.mark.parametrize("shape", OBSERVATIONS, ids=lambda shape: "x".join(map(str, shape)))
images = pytest.mark.parametrize("shape", OBSERVATIONS[:2], ids=["grey", "colour"])


def pictures(n: int, shape: tuple[int, ...]) -> np.ndarray:
    return figures.as_pictures(RANDOM.random((n, *shape)))


def is_drawn(figure: Figure) -> bool:
    """Whether the figure renders to a PNG that is not blank."""
    return isinstance(figure, Figure) and len(np.unique(pixels(figure))) > 2


def pixels(figure: Figure) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(notebook.png(figure))).convert("RGB"))


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


def test_a_grid_of_observations_is_a_grid_of_pictures():
    x = RANDOM.random((6, 9, 16))
    assert np.array_equal(figures.as_pictures(x.reshape(2, 3, 9, 16), leading=2).reshape(6, 1, 40, 56),
                          figures.as_pictures(x))
    images = torch.rand(2, 3, 1, 4, 4)
    assert np.array_equal(figures.as_pictures(images, leading=2), images.numpy())
    assert figures.as_pictures(x[0], leading=0).shape == (1, 40, 56)


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
    framed = figures.montage(np.zeros((1, 2, 1, 1, 1)), frame=1)
    assert framed.tolist() == [[1] * 6, [1, 0, 1, 1, 0, 1], [1] * 6]


# --- figures


@images
def test_picture_rows(shape):
    labels = ["original", *(f"model {i}" for i in range(3))]
    figure = figures.picture_rows({label: pictures(5, shape) for label in labels}, column_labels="abcde")
    assert is_drawn(figure)
    axes, = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == labels
    assert [text.get_text() for text in axes.get_xticklabels()] == list("abcde")


def test_picture_rows_by_hand():
    figure = figures.picture_rows({"a": np.zeros((2, 1, 4, 4)), "b": np.ones((2, 1, 4, 4))}, column_labels=["first"])
    axes, = figure.axes
    # Frames of one white pixel: cells of 6 by 6 about 4 by 4, black above, white below.
    picture = np.asarray(axes.images[0].get_array())
    assert picture.shape == (12, 12)
    assert (picture.sum(), picture[1:5, 1:5].sum(), picture[1:5, 7:11].sum()) == (144 - 32, 0, 0)
    assert axes.get_yticks().tolist() == [3, 9]
    assert axes.get_xticks().tolist() == [3]


@pytest.mark.parametrize("n_columns", [1, 30])
def test_long_labels_are_not_cut(n_columns):
    label = "VSC-WU, λ₀ = 0.5 (α = 0.01), of a noisy copy of the observation, its strongest dimensions switched off"
    figure = figures.picture_rows({label: pictures(n_columns, (1, 8, 8)), "b": pictures(n_columns, (1, 8, 8))})
    figure.draw_without_rendering()
    assert figure.get_tightbbox().x0 > 0
    assert figure.axes[0].get_yticklabels()[0].get_text().replace("\n", " ").replace("\u00a0", " ") == label


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
    tops = [axes.get_position().y1 for axes in figure.axes]
    assert [tops.count(top) for top in sorted(set(tops), reverse=True)] == rows


def test_pictures_are_large_enough_to_be_seen():
    grids = {f"model {i}": pictures(225, (1, 8, 8)).reshape(15, 15, 1, 8, 8) for i in range(4)}
    figure = figures.latent_grids(grids, dict.fromkeys(grids, (0, 1, 0, 1)), dict.fromkeys(grids, ("x", "y")))
    widths = [axes.get_window_extent().width for axes in figure.axes]
    assert widths == pytest.approx([4 * 15 * 8] * 4)  # four dots for each pixel, two panels in a row


def test_picture_rows_of_different_length_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        figures.picture_rows({"a": pictures(2, (1, 4, 4)), "b": pictures(3, (1, 4, 4))})


@images
def test_traversals(shape):
    panels = {name: pictures(3 * 4, shape).reshape(3, 4, *pictures(1, shape).shape[1:]) for name in ("VAE", "β-VAE")}
    figure = figures.traversals(panels, {"VAE": [4, 0, 2], "β-VAE": [1, 2, 3]})
    assert is_drawn(figure)
    assert titles(figure) == ["VAE", "β-VAE"]
    assert [[text.get_text() for text in axes.get_yticklabels()] for axes in figure.axes] == [
        ["4", "0", "2"], ["1", "2", "3"]]


@images
def test_latent_grids(shape):
    grid = pictures(6, shape).reshape(2, 3, *pictures(1, shape).shape[1:])
    figure = figures.latent_grids({"VAE": grid}, {"VAE": [-1, 1, -2, 2]}, {"VAE": ["latent 3", "latent 0"]})
    assert is_drawn(figure)
    axes, = figure.axes
    assert (axes.get_xlim(), axes.get_ylim()) == ((-1, 1), (-2, 2))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("latent 3", "latent 0")


def test_pixels_take_a_whole_number_of_dots():
    image = RANDOM.integers(0, 2, (1, 1, 1, 20, 30)).astype(float)  # black and white
    figure = figures.latent_grids({"": image}, {"": [0, 1, 0, 1]}, {"": ["", ""]})
    scale = int(5.5 * figures.DPI / 30)
    picture = pixels(figure)[::-1, :, 0]
    (left, bottom), (right, top) = np.round(figure.axes[0].get_window_extent().get_points()).astype(int)
    assert np.array_equal(picture[bottom:top, left:right][::-1], np.kron(image[0, 0, 0], np.ones((scale, scale))) * 255)


def test_panels_do_not_overlap():
    panels = {f"model {i}": pictures(16 * 11, (1, 28, 28)).reshape(16, 11, 1, 28, 28) for i in range(7)}
    figure = figures.traversals(panels, {title: range(16) for title in panels})
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert not any(one.overlaps(other) for index, one in enumerate(boxes) for other in boxes[:index])


# --- what notebooks show


@pytest.fixture
def shown(monkeypatch):
    """What is displayed: (data, notes)."""
    found = []
    monkeypatch.setattr(notebook, "display", lambda data, raw, metadata: found.append((data, metadata[notebook.KEY])))
    return found


def strokes(*shape: int) -> np.ndarray:
    """Pictures like digits: a pen of soft edge along a smooth path, 28 × 28."""
    generator = np.random.default_rng(0)
    t, grid = np.linspace(0, 1, 12), np.arange(28)
    knots = generator.uniform(6, 22, (*shape, 2, 4))
    path = sum(knots[..., i, None] * weight for i, weight in enumerate(
        [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t ** 2 * (1 - t), t ** 3]))
    near = (grid[:, None, None] - path[..., 0, None, None, :]) ** 2 + (grid[:, None] - path[..., 1, None, None, :]) ** 2
    return np.exp(-near.min(-1) / 2)[..., None, :, :]


def test_a_figure_of_many_pictures_is_saved_small_without_visible_loss(shown):
    panels = {f"model {i}": strokes(16, 11) for i in range(7)}
    figure = figures.traversals(panels, {title: range(16) for title in panels})
    notebook.show(figure, label="fig-a", caption="Some.", alt="Pictures.")
    (data, notes), = shown
    assert notes == {"label": "fig-a", "fig-cap": "Some.", "fig-alt": "Pictures."}
    assert 50_000 < len(data["image/png"]) < 350_000
    figure.savefig(buffer := BytesIO(), format="png", dpi=notebook.DPI, facecolor="white")
    exact = np.asarray(Image.open(buffer).convert("RGB")).astype(int)
    assert abs(pixels(figure) - exact).max() <= np.ceil(255 / (notebook.GREYS - 1) / 2)


@pytest.mark.parametrize(("colours", "mode"), [(0, "L"), (12, "P"), (100_000, "RGB")])
def test_a_file_has_the_colours_that_it_needs(colours, mode):
    image = RANDOM.random((1, 1, 3, 400, 400)) if colours > 256 else np.kron(
        RANDOM.random((1, 1, 3, 3, 4) if colours else (1, 1, 1, 3, 4)), np.ones((20, 20)))
    figure = figures.latent_grids({"": image}, {"": [0, 1, 0, 1]}, {"": ["", ""]})
    assert Image.open(BytesIO(notebook.png(figure))).mode == mode


def test_a_figure_is_as_wide_as_the_page_and_nothing_is_cut():
    width = round(figures.WIDTH * figures.DPI)
    small = figures.mosaics({"a": pictures(1, (1, 8, 8))})
    assert pixels(small).shape[1] == width
    small.text(1.5, 0.5, "outside", ha="right")
    picture = pixels(small)
    assert picture.shape[1] == pytest.approx(1.5 * width, abs=2)
    assert picture[:, width:].min() < 100


def test_a_table_by_hand(shown):
    index = pd.MultiIndex.from_tuples([("digits", 2), ("digits", 16)], names=["data", None])
    table = pd.DataFrame({"loss": [-1.5, np.nan], "|corr|": ["0.5\u00a0±\u00a00.1", "−2"], "family": ["a|b", None]},
                         index=index)
    notebook.show_table(table, label="tbl-a", caption="Some.")
    assert shown[0][0]["text/markdown"].splitlines() == [
        "| data |  | loss | \\|corr\\| | family |", "|:------|---:|----:|---------:|:----|",
        "| digits | 2 | −1.5 | 0.5\u00a0±\u00a00.1 | a\\|b |", "| digits | 16 | — | −2 | — |"]
    assert shown[0][1] == {"label": "tbl-a", "tbl-cap": "Some."}


def test_columns_of_two_levels_and_an_empty_table(shown):
    columns = pd.MultiIndex.from_product([["J = 2"], ["a", "b"]])
    notebook.show_table(pd.DataFrame([[1, 2]], index=["x"], columns=columns), label="tbl-a", caption="Some.")
    notebook.show_table(pd.DataFrame({"a": []}), label="tbl-b", caption="None.")
    first, second = (data["text/markdown"].splitlines() for data, _ in shown)
    assert first == ["|  | J = 2, a | J = 2, b |", "|:---|---:|---:|", "| x | 1 | 2 |"]
    assert second[0] == "|  | a |"


def test_paragraphs(shown):
    notebook.say("One.", "Two.", label="a-finding")
    assert shown == [({"text/markdown": "One.\n\nTwo.", "text/plain": "One.\n\nTwo."}, {"label": "a-finding"})]


def test_words_by_hand():
    assert [notebook.listing(names) for names in ([], ["a"], ["a", 2], iter("abc"))] == ["none", "a", "a and 2",
                                                                                        "a, b and c"]
    assert [notebook.number(value, 2) for value in (-0.001, -1.239, 12, np.nan, None)] == ["0.00", "−1.24", "12.00",
                                                                                           "—", "—"]
