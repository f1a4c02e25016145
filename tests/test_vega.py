"""Plots that answer: specifications by hand, through Vega-Lite's own compiler, and in a browser."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sparse_vae.report import notebook, plots, vega

WIDGETS = Path(__file__).parents[1] / "src" / "sparse_vae" / "report" / "widgets"
FRAME = pd.DataFrame([{"label": name, "panel": panel, "x": x, "seed": seed, "y": x * (seed + 1) + len(name)}
                      for name in ("a", "bb") for panel in ("left's", 'right "one"') for x in (1, 2, 4)
                      for seed in range(2)])
DRAW = {
    "curves": lambda: plots.curves(FRAME, "x", "y", panel="panel"),
    "several measures": lambda: plots.curves(FRAME, "x", {"y": "size", "seed": "its seed"}, log_x=True, log_y=True),
    "one line": lambda: plots.curves(FRAME, "x", "y", hue=None),
    "scatter": lambda: plots.scatter(FRAME, "x", "y", hue="label", panel="panel"),
    "nothing": lambda: plots.curves(FRAME[:0], "x", "y"),
}


def data_of(figure: plots.Plot) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(figure.specification["data"]["values"]))


def test_lines_are_means_with_standard_errors():
    figure = plots.curves(FRAME.assign(y=lambda rows: rows["y"].where(rows["x"] != 2)), "x", "y", panel="panel")
    data = data_of(figure)
    own = data[(data["panel"] == "left's") & (data["name"] == "bb")]
    np.testing.assert_allclose(own["y"], [3.5, np.nan, 8])  # 1·1 + 2 and 1·2 + 2; a gap; 4 + 2 and 8 + 2
    np.testing.assert_allclose(own["error"], [0.5, np.nan, 2])
    assert own["n"].tolist() == [2, 0, 2]
    [left, right] = figure.specification["concat"]
    assert left["encoding"]["color"]["scale"] == {"domain": ["a", "bb"], "range": list(plots.COLOURS[:2])}
    assert right["title"]["text"] == ['right "one"']


def test_single_runs_have_no_error_and_what_a_logarithm_lacks_is_a_gap():
    figure = plots.curves(pd.DataFrame({"x": [1, 2], "y": [0.0, 3.0]}), "x", "y", hue=None, log_y=True)
    data = data_of(figure)
    assert list(data) == ["panel", "name", "x", "y"]
    assert data["y"].isna().tolist() == [True, False]


def test_of_many_points_some_are_drawn():
    frame = pd.DataFrame({"x": np.arange(5000.0), "y": 1.0})
    specification = plots.scatter(frame, "x", "y").specification
    assert specification["data"]["values"].count("\n") == vega.MOST_POINTS + 1
    assert specification["title"]["text"] == "2,000 of 5,000 points, drawn at random"


@pytest.mark.parametrize("kind", DRAW)
def test_vega_lite_compiles_them(kind):
    compiled = pytest.importorskip("vl_convert").vegalite_to_vega(DRAW[kind]().specification)
    assert compiled["$schema"].startswith("https://vega.github.io/schema/vega/")


def test_show_displays_the_picture_and_the_specification(monkeypatch):
    shown = []
    monkeypatch.setattr(notebook, "display", lambda data, **_: shown.append(data))
    notebook.show(DRAW["curves"](), label="fig-a", caption="A.", alt="Lines.")
    notebook.show(plots.bars(FRAME, "label", "y"), label="fig-b", caption="B.", alt="Bars.")
    assert [sorted(data) for data in shown] == [[vega.MIME, "image/png", "text/plain"], ["image/png", "text/plain"]]
    json.dumps(shown[0])


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A page with a picture of a plot, its files beside it, and Vega."""
    folder = tmp_path_factory.mktemp("site")
    library = pytest.importorskip("vl_convert").javascript_bundle("globalThis.vegaEmbed = vegaEmbed;")
    (folder / "vega.js").write_text(library, encoding="utf-8")
    for name in ("plots.js", "plots.css", "page.js", "runtime.js"):
        (folder / name).write_bytes((WIDGETS / name).read_bytes())
    figure = DRAW["curves"]()
    specification = json.loads(json.dumps(figure.specification))
    (folder / "p.csv").write_text(specification["data"].pop("values"))
    (folder / "p.json").write_text(json.dumps(specification | {"data": {"url": "p.csv", **specification["data"]}}))
    (folder / "p.png").write_bytes(base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="))
    (folder / "index.html").write_text(
        '<!doctype html><body style="color: #112233"><p style="height: 3000px">Far above.</p>'
        '<img class="plot" src="p.png" alt="Two lines."><script type="module" src="plots.js"></script>')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_picture_answers_when_a_reader_comes_near(served, browser):
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url.removeprefix(served)))
    page.goto(served)
    assert "vega.js" not in asked
    page.locator("img.plot").scroll_into_view_if_needed()
    page.wait_for_selector(".plot-names button")
    assert page.locator("img.plot").count() == 0
    assert page.get_by_role("img", name="Two lines.").is_visible()
    lines = page.locator(".plot-view .mark-line path")
    assert lines.count() == 4
    first = page.get_by_role("button", name="a", exact=True)
    first.press("Enter")
    page.wait_for_function("document.querySelectorAll('.plot-view .mark-line path').length === 2")
    assert first.get_attribute("aria-pressed") == "false"
    page.get_by_role("button", name="bb").press("Enter")  # none is left: all come back
    page.wait_for_function("document.querySelectorAll('.plot-view .mark-line path').length === 4")
    assert first.get_attribute("aria-pressed") == "true"
    box = page.locator(".plot-view svg").bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 100)
    page.mouse.move(box["x"] + 152, box["y"] + 100)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "standard error" in page.locator("#vg-tooltip-element").inner_text()
    assert not [address for address in asked if "//" in address], "a request to another site"
    page.close()
