"""Widgets in a headless browser: models against PyTorch's, and what a reader does with them."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load
from torch import nn

from sparse_vae.checks import SettingError
from sparse_vae.models import MODELS, make_model
from sparse_vae.report import widgets
from sparse_vae.report.widgets import drawing, explorer, is_known
from sparse_vae.report.widgets.export import describe, half_precision

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


@pytest.fixture
def runtime(page):
    """Computes models as the browser does: {code, active, decoded} of observations and codes."""
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

    return run


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
