"""The explorer in a headless browser: its decoders against PyTorch's, its switches and sliders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparse_vae.checks import SettingError
from sparse_vae.models import make_model
from sparse_vae.report.explorer import decoder_layers, explorer, is_known

SHAPES = {"image": (1, 13, 10), "colours": (3, 9, 8), "vector": (7,), "signal": (2, 6)}


def models_on(shape: tuple[int, ...], **settings) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    networks = {name: make_model(name, shape, latent_dim=14, hidden_dim=5, **settings) for name in ("vsc", "hybrid")}
    return {**networks, "linear": make_model("topk", shape, latent_dim=14, k=3, decoder="linear", **settings)}


@pytest.fixture
def page(browser):
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    page.close()
    assert not errors


@pytest.fixture
def pixels(page):
    """What the decoded picture shows."""
    return lambda: page.evaluate("document.querySelector('.explorer-view canvas').toDataURL()")


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("kind", SHAPES)
def test_the_browser_decodes_as_pytorch_does(kind, likelihood, page):
    models = models_on(SHAPES[kind], likelihood=likelihood)
    page.set_content(explorer(models, torch.rand(20, *SHAPES[kind]), names=["", ""]))
    z = torch.randn(14)
    z[3] = 0
    for title, model in models.items():
        here = torch.tensor(page.evaluate("([title, z]) => document.querySelector('.explorer').decode(title, z)",
                                          [title, z.tolist()]))
        expected = model.decode_mean(z[None]).flatten()
        # Weights are rounded to half precision: 11 bits.
        torch.testing.assert_close(here, expected, atol=2e-3 * expected.abs().max().item(), rtol=0)


def test_a_reader_switches_moves_and_starts_again(page, pixels):
    x = torch.rand(20, 1, 8, 8)
    page.set_content(explorer(models_on((1, 8, 8)), x, names=["a smile", "a hat", ""]))
    page.select_option("select", label="linear")
    first = pixels()
    on = page.locator(".explorer input[type=checkbox]:checked").first
    name = on.get_attribute("aria-label")
    on.uncheck()
    assert pixels() != first
    page.get_by_label(name).check()
    assert pixels() == first, "a dimension that is switched on again takes the value that it had"
    slider = page.locator(".explorer input[type=range]").first
    slider.press("Home")
    moved = pixels()
    assert moved != first
    slider.press("End")
    assert pixels() != moved
    slider.evaluate("slider => { slider.value = 0; slider.dispatchEvent(new Event('input')); }")
    assert not page.locator(".explorer input[type=checkbox]").first.is_checked()
    page.locator(".explorer input[type=checkbox]").first.check()  # what was dragged to 0 is where it was before
    assert pixels() != moved
    page.get_by_label("start from observation 0: a smile").click()
    assert pixels() == first
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
    page.set_content(explorer({"three": model}, torch.rand(9, 6), names=[""]))
    rows = page.locator(".explorer-row").all_inner_texts()
    assert [row.split() for row in rows] == [
        ["z1", "100%", "−2.00"], ["z0", "100%", "1.00"], ["z2", "0%", "0"]]
    sliders = page.locator(".explorer input[type=range]").all()
    ranges = [[float(slider.get_attribute(end)) for end in ("min", "max")] for slider in sliders]
    assert ranges == [[-2, 0], [0, 1], [-2, 2]]


def test_two_on_a_page_do_not_meet(page):
    html = explorer(models_on((4,)), torch.rand(9, 4), names=[""])
    page.set_content(html + html)
    assert page.locator(".explorer[data-ready] select").count() == 2


def test_what_the_browser_cannot_compute_is_refused():
    model = make_model("vae", (6,), latent_dim=2)
    with torch.no_grad():
        model.decoder[0].weight[0, 0] = 1e6
    with pytest.raises(SettingError, match="up to 65504; got 1e\\+06"):
        decoder_layers(model)
    model.decoder = nn.Sequential(nn.Linear(2, 6), nn.Tanh())
    with pytest.raises(SettingError, match=r"got Tanh\(\)"):
        decoder_layers(model)
    assert not is_known(model)
    assert not is_known(make_model("pca", (6,), latent_dim=2))  # no network
    assert is_known(make_model("vae", (6,), latent_dim=2))
    with pytest.raises(SettingError, match="at least one model"):
        explorer({}, torch.rand(3, 6), names=[""])


def test_a_title_cannot_end_the_script():
    html = explorer({"</script><b>": make_model("vae", (6,), latent_dim=2)}, torch.rand(3, 6), names=[""])
    assert html.count("</script>") == 2
