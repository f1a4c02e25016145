"""Widgets in a headless browser: models against PyTorch's, and what a reader does with them."""

from __future__ import annotations

import base64
import gzip
import json
import re
import runpy
import zipfile
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load
from torch import nn

from sparse_vae.checks import SettingError
from sparse_vae.datasets import load_dataset
from sparse_vae.models import MODELS, make_model
from sparse_vae.report import open_runs, widgets
from sparse_vae.report.widgets import drawing, explorer, is_known
from sparse_vae.report.widgets.export import blob, describe, describe_code, half_precision, sheet

layout = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "report" / "widgets.py")))

SHAPES = {"image": (1, 13, 10), "colours": (3, 9, 8), "vector": (7,), "signal": (2, 6)}
SETTINGS = {"jumprelu": {"first_threshold": 0.3}, "hybrid": {"max_concentration": 3.0}}
RUNTIME = "const run = async () => {{\n{script}\nwindow.openModel = openModel; }};\nrun();"


@pytest.fixture
def page(browser):
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    page.close()
    assert not errors


@pytest.fixture(scope="module")
def runtime(browser):
    """Computes models as the browser does: {code, active, decoded} of observations and codes."""
    page = browser.new_page()
    script = re.sub(r"^export ", "", widgets._read("runtime.js"), flags=re.MULTILINE)
    page.set_content(f"<script>{RUNTIME.format(script=script)}</script>")

    def run(model: nn.Module, x: torch.Tensor, z: torch.Tensor, description: dict | None = None) -> dict:
        found = page.evaluate("""async ([description, xs, zs]) => {
          const model = await openModel(description, location.href);
          const found = xs.map((x) => model.encode(Float32Array.from(x)));
          return {code: found.map(({code}) => Array.from(code)),
                  active: found.map(({code, active}) => Array.from(active ?? code, (value) => value !== 0)),
                  decoded: zs.map((z) => Array.from(model.decode(Float32Array.from(z)))),
                  drawn: model.draw ? Array.from(model.draw(() => 0.3)) : null};
        }""", [description or describe(model), x.flatten(1).tolist(), z.tolist()])
        return {name: torch.tensor(values) for name, values in found.items() if values is not None}

    yield run
    page.close()


def trained(name: str, shape: tuple[int, ...] = SHAPES["image"], **settings) -> nn.Module:
    """A model as if it were trained: biases and thresholds that are not 0; its weights are rounded."""
    torch.manual_seed(0)
    model = make_model(name, shape, latent_dim=14, hidden_dim=9, **SETTINGS.get(name, {}), **settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if name == "batchtopk":
            model.threshold.fill_(0.2)
    model.load_state_dict(load(half_precision(model)), strict=False)
    return model


def assert_same(here: torch.Tensor, expected: torch.Tensor) -> None:
    """Within a thousandth of the range."""
    reach = (expected.max() - expected.min()).item()
    torch.testing.assert_close(here, expected.detach().flatten(1), atol=1e-3 * reach, rtol=0)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("name", MODELS)
def test_the_browser_computes_every_model_as_pytorch_does(name, likelihood, runtime):
    if describe_code.dispatch(MODELS[name]) is describe_code.dispatch(object):
        pytest.skip("a model of one's own, whose code the browser was not told of")
    model = trained(name, likelihood=likelihood)
    x, z = torch.rand(6, *model.input_shape), torch.randn(6, 14)
    z[:, 3] = 0
    found = runtime(model, x, z)
    assert len(model.code(x).unique()) > 5
    assert_same(found["code"], model.code(x))
    assert torch.equal(found["active"], model.active(x))
    assert_same(found["decoded"], model.decode_mean(z))


@pytest.mark.parametrize("decoder", ["network", "linear"])
@pytest.mark.parametrize("kind", SHAPES)
def test_observations_of_every_shape(kind, decoder, runtime):
    for name in ("topk", "vsc"):
        model = trained(name, SHAPES[kind], decoder=decoder)
        x, z = torch.rand(3, *model.input_shape), torch.randn(3, 14)
        found = runtime(model, x, z)
        assert_same(found["code"], model.code(x))
        assert_same(found["decoded"], model.decode_mean(z))


@pytest.mark.parametrize(("decoder", "likelihood"), [("linear", "gaussian"), ("linear", "bernoulli")])
@pytest.mark.parametrize("signs", ["positive", "both"])
def test_a_pursuit_with_its_decoder_s_atoms_or_with_others(decoder, likelihood, signs, runtime):
    model = trained("matching-pursuit", k=4, decoder=decoder, likelihood=likelihood, signs=signs)
    x, z = torch.rand(6, *model.input_shape), torch.randn(6, 14)
    found = runtime(model, x, z)
    assert_same(found["code"], model.code(x))
    assert_same(found["decoded"], model.decode_mean(z))


def test_codes_are_drawn_from_the_prior(runtime):
    x, z = torch.rand(1, *SHAPES["image"]), torch.zeros(1, 14)
    normal = (-2 * torch.tensor(0.7).log()).sqrt() * torch.cos(torch.tensor(0.6 * torch.pi))  # of two uniform 0.3
    torch.testing.assert_close(runtime(trained("vae"), x, z)["drawn"], normal.expand(14))
    torch.testing.assert_close(runtime(trained("vsc", prior="fixed", alpha=0.4), x, z)["drawn"], normal.expand(14))
    assert not runtime(trained("vsc", prior="fixed", alpha=0.2), x, z)["drawn"].any()
    vsc = trained("vsc", n_pseudo_inputs=5)
    posterior = vsc.encode(vsc.pseudo_inputs[[1]])
    expected = torch.where(posterior.spike_logit.sigmoid() > 0.3, posterior.mean + normal * (
        0.5 * posterior.log_variance).exp(), 0)
    assert_same(runtime(vsc, x, z)["drawn"][None], expected)
    assert "drawn" not in runtime(trained("topk"), x, z)


def test_large_weights_are_sent_in_8_bits(runtime):
    model = trained("vsc", (1, 28, 28), backbone="mlp", n_pseudo_inputs=2000)
    sent = layout.smaller(half_precision(model))
    assert len(sent) < 0.6 * len(half_precision(model)), "a byte for each weight"
    tensors = load(sent)
    for name, values in tensors.items():
        if values.dtype == torch.int8:
            rows = values.flatten(1) * tensors[f"{name}.scale"][:, None]
            difference = (rows - model.state_dict()[name].flatten(1)).abs().amax(1)
            assert (difference <= 0.501 * tensors[f"{name}.scale"]).all()
            tensors[name] = rows.view(values.shape)
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    x, z = torch.rand(6, *model.input_shape), torch.randn(6, 14)
    found = runtime(model, x, z, {**describe(model), "weights": blob(sent)})
    assert_same(found["code"], model.code(x))
    assert_same(found["decoded"], model.decode_mean(z))
    small = half_precision(trained("topk"))
    assert layout.smaller(small) is small


def test_what_a_widget_holds_becomes_files(tmp_path):
    weights = tmp_path / "results" / "tiny" / "weights.zip"
    weights.parent.mkdir(parents=True)
    with zipfile.ZipFile(weights, "w") as archive:
        archive.writestr("a/v.safetensors", b"weights")
    html = explorer({"v": trained("vae")}, torch.rand(9, 1, 13, 10), names=["a"], files={
        "v": "results/tiny/weights.zip/a/v.safetensors"})
    page, files = layout.lay_out(f"<p>before</p>{html}after", tmp_path, "tiny", "explorer-first")
    assert page.startswith("<p>before</p>")
    assert page.endswith("after")
    assert len(page) < 2000
    assert 'data-name="explorer-first"' in page
    source = re.search(r'data-src="\.\./(\S+)"', page)[1]
    data = json.loads(files[f"report/executed/{source}"])
    assert files[f"report/executed/{data['models'][0]['weights']['src'][3:]}"] == b"weights"
    picture = files[f"report/executed/{data['observations']['src'][3:]}"]
    assert Image.open(BytesIO(picture)).size == (10, 13)
    first = re.search(r'<img class="widget-first".*? src="/(\S+)"', page)[1]
    assert Image.open(BytesIO(files[first])).size == (2 * 8 * 10, 2 * 2 * 13)
    assert layout.lay_out("<p>no widget</p>", tmp_path, "tiny", "x") == ("<p>no widget</p>", {})
    for problem, content in (("no item named 'a/v.safetensors'", b"PK\5\6" + bytes(18)), ("not a zip file", b"")):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match=rf"tiny/weights\.zip/a/v\.safetensors cannot be read: .*{problem}"):
            layout.lay_out(html, tmp_path, "tiny", "explorer-first")


def test_a_sheet_shows_pictures_side_by_side_and_vectors_one_below_another():
    pictures = torch.rand(70, 1, 3, 4)
    described = sheet(pictures, (0.0, 1.0))
    shown = np.asarray(Image.open(BytesIO(gzip.decompress(base64.b64decode(described["gzip"])))))
    assert shown.shape == (3 * 3, 32 * 4)
    assert [described[name] for name in ("count", "width", "height")] == [70, 4, 3]
    assert np.abs(shown[6:9, 4:8] / 255 - pictures[65, 0].numpy()).max() <= 0.5 / 255 + 1e-6
    assert (shown[6:9, 4 * 6:] == 0).all()
    vectors = sheet(torch.rand(5, 7), (0.0, 1.0))
    assert Image.open(BytesIO(gzip.decompress(base64.b64decode(vectors["gzip"])))).size == (7, 5)


# --- what a reader does


def models_on(shape: tuple[int, ...], **settings) -> dict[str, nn.Module]:
    networks = {name: trained(name, shape, **settings) for name in ("vsc", "hybrid")}
    return {**networks, "linear": trained("topk", shape, k=3, decoder="linear", **settings)}


def show(page, html: str) -> None:
    """The widgets of some HTML, alive."""
    page.set_content(html)
    page.wait_for_function("document.querySelectorAll('.widget:not([data-ready])').length === 0")


def pixels(page, selector: str = ".explorer-view canvas") -> str:
    """What a picture shows."""
    return page.locator(selector).first.evaluate("canvas => canvas.toDataURL()")


def test_a_reader_switches_moves_and_starts_again(page):
    x = torch.rand(20, 1, 8, 8)
    show(page, explorer(models_on((1, 8, 8)), x, names=["a smile", "a hat", ""]))
    page.select_option("select", label="linear")
    page.wait_for_function("document.querySelectorAll('input[type=checkbox]:checked').length === 3")
    first = pixels(page)
    on = page.locator(".explorer input[type=checkbox]:checked").first
    name = on.get_attribute("aria-label")
    on.uncheck()
    assert pixels(page) != first
    page.get_by_label(name).check()
    assert pixels(page) == first, "a dimension that is switched on again takes the value that it had"
    slider = page.locator(".explorer input[type=range]").first
    slider.press("Home")
    moved = pixels(page)
    assert moved != first
    slider.press("End")
    assert pixels(page) != moved
    slider.evaluate("slider => { slider.value = 0; slider.dispatchEvent(new Event('input')); }")
    assert not page.locator(".explorer input[type=checkbox]").first.is_checked()
    page.locator(".explorer input[type=checkbox]").first.check()  # what was dragged to 0 is where it was before
    assert pixels(page) != moved
    page.get_by_label("start from observation 0: a smile").click()
    assert pixels(page) == first
    page.get_by_text("all 0").click()
    assert page.locator(".explorer input[type=checkbox]:checked").count() == 0
    assert "0 of 14 dimensions are not 0" in page.locator(".explorer-note").inner_text()
    page.get_by_label("start from observation 2", exact=True).click()
    assert page.get_by_role("img", name="observation 2", exact=True).is_visible()


def test_dimensions_come_in_the_order_of_what_they_change(page):
    model = make_model("autoencoder", (6,), latent_dim=3, decoder="linear", likelihood="gaussian")
    with torch.no_grad():
        model.encoder[-1].weight.zero_()
        model.encoder[-1].bias.copy_(torch.tensor([1.0, -2.0, 0.0]))
        model.decoder[0].weight.copy_(torch.tensor([1.0, 5.0, 9.0]).expand(6, 3))
    show(page, explorer({"three": model}, torch.rand(9, 6), names=[""]))
    rows = page.locator(".explorer-row").all_inner_texts()
    assert [row.split() for row in rows] == [
        ["z1", "100%", "−2.00"], ["z0", "100%", "1.00"], ["z2", "0%", "0"]]
    sliders = page.locator(".explorer input[type=range]").all()
    ranges = [[float(slider.get_attribute(end)) for end in ("min", "max")] for slider in sliders]
    assert ranges == [[-2, 0], [0, 1], [-2, 2]]


def test_a_reader_walks_on_a_plane_and_draws_from_the_prior(page):
    torch.manual_seed(0)
    models = {"plane": make_model("vae", (1, 8, 8), latent_dim=2, likelihood="gaussian")}
    x, labels = torch.rand(30, 1, 8, 8), torch.arange(30) % 2
    show(page, explorer(models, x, names=["", ""], labels=labels, classes=["a", "b"]))
    plane, seen = page.locator(".widget-plane"), [pixels(page)]
    box = plane.bounding_box()
    plane.click(position={"x": 5, "y": 5})
    assert "z0 = " in plane.get_attribute("aria-valuetext")
    seen.append(pixels(page))
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 150)
    page.mouse.up()
    seen.append(pixels(page))
    plane.press("ArrowRight")
    seen.append(pixels(page))
    page.get_by_text("Draw from the prior").click()
    page.get_by_label("go to sample 3 of the prior").click()
    seen.append(pixels(page))
    assert len(set(seen)) == len(seen)
    assert page.locator(".widget-key span").all_inner_texts() == ["a", "b"]


def test_a_reader_draws_and_every_model_answers(page):
    models = models_on((1, 28, 28)) | {"plane": trained("vae", (1, 28, 28)), "fifth": trained("jumprelu", (1, 28, 28))}
    show(page, drawing(models, torch.rand(20, 1, 28, 28), names=["a", ""], dataset="mnist"))
    assert page.locator(".widget-card .widget-title").all_inner_texts() == ["vsc", "hybrid", "linear", "plane"]
    taken = pixels(page, ".widget-answer")
    box = page.locator(".widget-pad").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 30, steps=4)
    page.mouse.move(box["x"] + 60, box["y"] + 110, steps=4)
    page.mouse.up()
    page.wait_for_timeout(100)
    assert pixels(page, ".widget-answer") != taken
    seen = page.locator(".widget-seen").evaluate("""canvas => Array.from(
        canvas.getContext('2d').getImageData(0, 0, 28, 28).data).filter((_, i) => i % 4 === 0)""")
    ink = torch.tensor(seen, dtype=torch.float).view(28, 28)
    at = torch.arange(28.0)
    assert ink.max() == 255
    assert [round((ink.sum(1 - axis) @ at / ink.sum()).item()) for axis in (0, 1)] == [14, 14], "as MNIST is centred"
    tall = (ink.sum(1) > 0).sum().item()
    assert 19 <= tall <= 21, "as MNIST is scaled"
    page.get_by_text("Models", exact=True).click()
    page.get_by_role("checkbox", name="fifth").check()
    page.locator(".widget-title", has_text="fifth").wait_for()
    page.get_by_role("checkbox", name="hybrid").uncheck()
    assert page.locator(".widget-card .widget-title").all_inner_texts() == ["vsc", "linear", "plane", "fifth"]


def test_noise_few_entries_and_switched_off_ones(page):
    show(page, drawing(models_on((1, 8, 8)), torch.rand(20, 1, 8, 8), names=["a", "b"], dataset="digits"))
    linear = page.locator(".widget-card", has_text="linear")
    answer = lambda: linear.locator(".widget-answer").evaluate("canvas => canvas.toDataURL()")  # noqa: E731
    first = answer()
    assert "3 of 14 on; squared error" in linear.inner_text()
    bars = linear.get_by_role("slider")
    bars.press("Home")
    for _ in range(14):
        if ", on" in bars.get_attribute("aria-valuetext"):
            break
        bars.press("ArrowRight")
    assert "before the cut" in linear.locator(".widget-told").inner_text()
    bars.press("Enter")
    assert "3 of 14 on, 2 decoded" in linear.inner_text()
    assert answer() != first
    bars.press("Enter")
    assert answer() == first
    page.get_by_label("entries that are kept").fill("1")
    page.wait_for_timeout(100)
    assert "3 of 14 on, 1 decoded" in linear.inner_text()
    page.get_by_label("entries that are kept").fill("14")
    page.wait_for_timeout(100)
    assert answer() == first
    seen = [pixels(page, ".widget-seen")]
    for kind in ("gaussian", "salt and pepper", "masking"):
        page.get_by_label("noise:").select_option(label=kind)
        seen.append(pixels(page, ".widget-seen"))
    page.get_by_text("other noise").click()
    seen.append(pixels(page, ".widget-seen"))
    assert len(set(seen)) == 5
    page.get_by_label("take test observation 1: b").click()
    assert page.get_by_label("take test observation 1: b").get_attribute("aria-pressed") == "true"


def test_one_draws_with_the_keyboard(page):
    show(page, drawing(models_on((1, 8, 8)), torch.rand(20, 1, 8, 8), names=["a"], dataset="digits"))
    pad, before = page.locator(".widget-pad"), pixels(page, ".widget-seen")
    for key in [" ", *["ArrowRight"] * 5, *["ArrowDown"] * 5, " "]:
        pad.press(key)
    page.wait_for_timeout(100)
    assert pixels(page, ".widget-seen") != before


def test_signals_are_taken_and_not_drawn(page):
    models = models_on((2, 6), likelihood="gaussian")
    show(page, drawing(models, torch.randn(20, 2, 6), names=["", ""], dataset="signals", limits=(-3, 3)))
    assert page.locator(".widget-card").count() == 3
    assert page.locator(".widget-pad").count() == 0


def test_two_on_a_page_do_not_meet(page):
    html = explorer(models_on((4,)), torch.rand(9, 4), names=[""])
    show(page, html + html)
    assert page.locator(".widget[data-ready] select").count() == 2


def test_what_the_browser_cannot_compute_is_refused():
    model = make_model("vae", (6,), latent_dim=2)
    with torch.no_grad():
        model.decoder[0].weight[0, 0] = 1e6
    with pytest.raises(SettingError, match=r"up to 65504; decoder\.0\.weight has 1e\+06"):
        describe(model)
    model.decoder = nn.Sequential(nn.Linear(2, 6), nn.Tanh())
    with pytest.raises(SettingError, match=r"this layer of the decoder: Tanh\(\)"):
        describe(model)
    assert not is_known(model)
    assert not is_known(make_model("pca", (6,), latent_dim=2))  # no network
    assert is_known(make_model("vae", (6,), latent_dim=2))
    with pytest.raises(SettingError, match="at least one model"):
        explorer({}, torch.rand(3, 6), names=[""])


def test_a_title_cannot_end_the_script():
    html = explorer({"</script><b>": make_model("vae", (6,), latent_dim=2)}, torch.rand(3, 6), names=[""])
    assert html.count("</script>") == 2


# --- units


@pytest.fixture(scope="module")
def trained_units():
    """Units of two models that are trained here."""
    kind = {"dataset": "digits", "latent_dim": 8, "epochs": 2, "batch_size": 32, "backbone": "mlp", "hidden_dim": 16}
    runs = open_runs(train=[{**kind, "model": "topk"}, {**kind, "model": "vae"}])
    return runs, widgets.units(runs)


def test_a_reader_sorts_and_opens_units_and_switches_one_on(page, trained_units):
    runs, html = trained_units
    show(page, html)
    table = runs.units(next(iter(runs)))
    order = lambda: page.locator(".widget-units button").all_inner_texts()  # noqa: E731
    names = lambda frame: [f"z{unit}" for unit in frame["unit"]]  # noqa: E731
    assert order() == names(table.sort_values("rate", ascending=False, kind="stable"))
    page.get_by_label("sorted by:").select_option(label="selectivity")
    assert order() == names(table.sort_values("selectivity", ascending=False, kind="stable"))
    page.get_by_label("most for:").select_option(label="3")
    assert sorted(order()) == sorted(names(table[table["preferred"] == 3]))
    page.get_by_label("most for:").select_option(label="any class")
    row = table.sort_values("rate").iloc[-1]
    page.locator(f".widget-units [data-unit='{row['unit']}']").click()
    panel = page.locator(".widget-unit")
    assert panel.locator("> .widget-title").inner_text().startswith(f"Unit {row['unit']} of 8")
    shown = [f"test observation {index}" for index in row["strongest"].split()[:6]]
    pictures = panel.locator(".widget-strip").first.locator("canvas")
    assert [picture.get_attribute("aria-label") for picture in pictures.all()] == shown
    panel.get_by_role("slider").wait_for()
    seen = [pixels(page, ".widget-unit figure:nth-child(2) canvas")]
    without = pixels(page, ".widget-unit figure:nth-child(1) canvas")
    assert seen[0] != without
    panel.get_by_role("slider").fill("0")
    assert pixels(page, ".widget-unit figure:nth-child(2) canvas") == without
    pad = panel.locator(".widget-pad")
    box = pad.bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 150, steps=3)
    page.mouse.up()
    page.wait_for_timeout(100)
    assert pixels(page, ".widget-unit figure:nth-child(1) canvas") != without
    other = row["nearest"].split()[0]
    panel.get_by_text(f"z{other}, ").click()
    assert panel.locator("> .widget-title").inner_text().startswith(f"Unit {other} of 8")
    panel.get_by_text("Close").click()
    assert not panel.is_visible()
    page.get_by_label("Model:").select_option(index=1)
    page.get_by_label("sorted by:").get_by_text("KL").wait_for(state="attached")


def test_a_unit_has_an_address(page, trained_units, tmp_path):
    runs, html = trained_units
    title = list(runs)[1].label
    html = html.replace('<div class="widget"', '<div class="widget" data-name="units-x"')
    page.route("http://units.test/**", lambda route: route.fulfill(body=html, content_type="text/html; charset=utf-8"))
    page.goto(f"http://units.test/#units-x?model={quote(title)}&unit=5")
    panel = page.locator(".widget-unit")
    panel.wait_for()
    assert panel.locator("> .widget-title").inner_text() == f"Unit 5 of 8, {title}"
    page.locator(".widget-units [data-unit='2']").click()
    page.reload()
    panel.wait_for()
    assert panel.locator("> .widget-title").inner_text() == f"Unit 2 of 8, {title}"


# --- training


LEARN = """async ([rows, atoms, held]) => {{
  {script}
  const learner = modules.train.makeLearner(rows[0].length, 5, rows[0].map(() => 0.1), () => 0.4);
  learner.parameters.atoms.set(atoms.flat());
  learner.parameters.weights.set(atoms.flat());
  const losses = held.map((each) => learner.step(rows, each));
  return [losses, Object.fromEntries(Object.entries(learner.parameters).map(([name, values]) => [name, [...values]]))];
}}"""


@pytest.mark.parametrize("held", [{"penalty": 0.05}, {"k": 2}])
def test_the_browser_trains_as_pytorch_does(held, page):
    torch.manual_seed(0)
    rows, atoms = torch.rand(7, 6), torch.nn.functional.normalize(torch.randn(5, 6))
    script = "\n".join(map(widgets._enclosed, ("runtime", "page", "train")))
    given = {"k": 5, **held}
    losses, found = page.evaluate(LEARN.format(script=script),
                                  [rows.tolist(), atoms.tolist(), [given] * 6])
    parameters = {"atoms": atoms.clone(), "weights": atoms.clone(), "before": torch.zeros(5),
                  "bias": torch.full((6,), 0.1)}
    optimiser = torch.optim.Adam([each.requires_grad_() for each in parameters.values()], lr=0.003, betas=(0.9, 0.99))
    for loss_here in losses:
        code = ((rows - parameters["bias"]) @ parameters["weights"].T + parameters["before"]).relu()
        code = code * (code >= code.topk(given["k"], dim=1).values[:, -1:])
        error = code @ parameters["atoms"] + parameters["bias"] - rows
        loss = (error.square().sum(1) / 2 + held.get("penalty", 0) * code.sum(1)).mean()
        assert loss_here == pytest.approx(loss.item(), rel=1e-4)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            parameters["atoms"].copy_(torch.nn.functional.normalize(parameters["atoms"]))
    for name, values in parameters.items():
        torch.testing.assert_close(torch.tensor(found[name]), values.detach().flatten(), atol=2e-4, rtol=0)


def test_a_reader_trains_and_changes_what_holds_the_code_sparse(page):
    def told() -> tuple[float, float]:
        text = page.locator(".train-told").inner_text()
        numbers = re.search(r"([\d.]+)% of the .*?explained; ([\d.]+) of", text)
        return float(numbers[1]), float(numbers[2])

    def train_until(step: int) -> None:
        page.wait_for_function(f"Number(document.querySelector('.train').dataset.step) >= {step}")

    show(page, widgets.training(load_dataset("digits")))
    untrained, atoms = told(), pixels(page, ".train-atoms")
    page.get_by_text("Train", exact=True).click()
    train_until(200)
    page.get_by_text("Pause").click()
    trained_, step = told(), page.locator(".train").get_attribute("data-step")
    assert trained_[0] < 0.5 * untrained[0]
    assert pixels(page, ".train-atoms") != atoms
    page.wait_for_timeout(100)
    assert page.locator(".train").get_attribute("data-step") == step
    page.get_by_label("held sparse by").select_option(label="the k largest")
    page.get_by_label("k:").fill("3")
    page.get_by_text("Train", exact=True).click()
    train_until(400)
    page.get_by_text("Pause").click()
    assert told()[1] <= 3
    page.get_by_label("units:").select_option(label="16")
    assert "of 16 units" in page.locator(".train-told").inner_text()
    assert page.locator(".train").get_attribute("data-step") == "0"
    with pytest.raises(SettingError, match="square grey pictures"):
        widgets.training(load_dataset("sinusoids"))
