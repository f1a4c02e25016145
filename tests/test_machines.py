"""The small machines of the chapters: their mathematics against the package's, and what a reader does with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import polygamma, psi

from sparse_vae.distributions import SPIKES, gamma_log_sample_grad
from sparse_vae.report import widgets

NAMES = {"scaled sigmoid": "scaled-sigmoid", "concrete": "concrete", "hard concrete": "hard-concrete",
         "straight-through": "straight-through", "ReinMax": "reinmax"}
SETTINGS = [(0.2, 0.5, 1.5, 0.0), (0.05, 0.2, -2.0, 3.0), (0.9, 1.5, 4.0, -4.0)]  # γ, τ, c, d


def enclosed(*names: str) -> str:
    """Modules, and those that they import, in one script."""
    return "\n".join(map(widgets._enclosed, ("runtime", "page", *names)))


@pytest.fixture(scope="module")
def page(browser):
    """An empty page that has the mathematics."""
    page = browser.new_page()
    page.add_script_tag(content=f"{enclosed('mathematics')}\nObject.assign(globalThis, modules.mathematics);")
    yield page
    page.close()


def of_loss(s: torch.Tensor, c: float, d: float) -> torch.Tensor:
    return -s + c * s**2 / 2 + d * s**3 / 3


@pytest.mark.parametrize(("gamma", "tau", "c", "d"), SETTINGS)
def test_estimators_are_those_of_the_package(page, gamma, tau, c, d):
    noise = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    for title, name in NAMES.items():
        logits = torch.full_like(noise, gamma).logit().requires_grad_()
        gradient, = torch.autograd.grad(of_loss(SPIKES[name](logits, noise, tau), c, d).sum(), logits)
        shown = page.evaluate("args => estimate(...args)", [title, gamma, tau, c, d])
        np.testing.assert_allclose([shown["mean"], shown["sd"]], [gradient.mean(), gradient.std(correction=0)],
                                   rtol=1e-8, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("gamma", "tau", "c", "d"), SETTINGS)
def test_the_true_gradient_is_that_of_the_expectation_and_reinmax_has_it_for_a_quadratic(page, gamma, tau, c, d):
    logit = torch.tensor(gamma, dtype=torch.float64).logit().requires_grad_()
    on = logit.sigmoid()
    zero, one = of_loss(torch.tensor([0.0, 1.0], dtype=torch.float64), c, d)
    truth, = torch.autograd.grad(on * one + (1 - on) * zero, logit)
    assert page.evaluate("args => trueGradient(...args)", [gamma, c, d]) == pytest.approx(truth.item())
    quadratic = page.evaluate("([gamma, c]) => trueGradient(gamma, c, 0)", [gamma, c])
    assert page.evaluate("args => estimate('ReinMax', ...args).mean", [gamma, tau, c, 0]) == pytest.approx(quadratic)


@pytest.mark.parametrize("k", [1e-3, 0.01, 0.3, 1.0, 3.0])
def test_gamma_gradients_and_moments_are_those_of_the_package(page, k):
    log_z = np.concatenate([-np.logspace(-1, 3.5, 12), np.log([0.5, 1, 2, 5, 12])])
    expected = gamma_log_sample_grad(torch.full((len(log_z),), k, dtype=torch.float64), torch.tensor(log_z))
    shown = page.evaluate("([values, k]) => values.map((value) => logGradient(value, k))", [log_z.tolist(), k])
    np.testing.assert_allclose(shown, expected, rtol=1e-7)
    study = page.evaluate("k => { const {samples, ...rest} = gammaStudy(k, 4000, 1); return rest; }", k)
    assert study["mean"]["truth"] == pytest.approx(psi(k), rel=1e-12)
    assert study["gradient"]["truth"] == pytest.approx(polygamma(1, k), rel=1e-10)
    assert study["mean"]["here"] == pytest.approx(psi(k), rel=0.05, abs=0.05)
    assert study["gradient"]["here"] == pytest.approx(polygamma(1, k), rel=0.05)
    if k == 1e-3:  # the share and the factor of the report's tables
        assert study["float32"] == pytest.approx(0.916, abs=0.01)
        assert study["gradient"]["truth"] / study["gradient"]["raised"] == pytest.approx(12, abs=1)


@pytest.mark.parametrize(("variance", "noise", "beta"), [(2.0, 0.5, 1.0), (3.0, 0.4, 4.0), (0.6, 0.5, 2.0)])
def test_a_dimension_is_the_minimum_of_its_loss(page, variance, noise, beta):
    def total(values):
        w, a, log_sigma = values
        kl = (a**2 * variance + np.exp(2 * log_sigma) - 1 - 2 * log_sigma) / 2
        return (variance * (1 - a * w) ** 2 + w**2 * np.exp(2 * log_sigma)) / (2 * noise) + beta * kl

    found = minimize(total, [0.8, 0.3, -0.5], tol=1e-12)
    best = page.evaluate("args => bestDimension(...args)", [variance, noise, beta])
    assert variance / (2 * noise) - best["gain"] == pytest.approx(found.fun, abs=1e-6)
    assert best["sigma"] == pytest.approx(np.exp(found.x[2]), abs=1e-3)
    assert best["kl"] == pytest.approx(max(0, np.log(variance / (beta * noise)) / 2), abs=1e-9)
    at = page.evaluate("args => dimensionAt(...args)", [0.7, variance, noise, beta])
    assert total([at["w"], at["a"], np.log(0.7)]) == pytest.approx(variance / (2 * noise) - at["gain"])


@pytest.fixture
def machines(browser, tmp_path):
    """A page with the three machines, from a file: modules in one script."""
    page, errors = browser.new_page(viewport={"width": 390, "height": 800}), []
    page.on("pageerror", lambda error: errors.append(error))
    (tmp_path / "machines.css").write_text(widgets._read("machines.css"))
    file = tmp_path / "index.html"
    file.write_text("<!doctype html><spike-machine>No script.</spike-machine><gamma-machine></gamma-machine>"
                    "<collapse-machine></collapse-machine>"
                    f"<script type=module>{enclosed('mathematics', 'machines')}</script>")
    page.goto(file.as_uri())
    page.wait_for_selector("collapse-machine table, collapse-machine figure")
    yield page
    page.close()
    assert not errors


def test_a_reader_moves_a_spike_with_the_keyboard(machines):
    assert machines.get_by_text("No script.").count() == 0
    bias = machines.locator("spike-machine tr:has(th:text-is('ReinMax')) td:nth-child(3)")
    assert bias.inner_text() == "0"
    slider = machines.get_by_label("d, its change")
    slider.press("End")
    assert bias.inner_text() != "0"
    assert slider.get_attribute("aria-valuetext") == "4"


def test_a_reader_sees_what_underflows_and_what_collapses(machines):
    share = machines.locator("gamma-machine figcaption b").first
    before = share.inner_text()
    machines.get_by_label("k, shape").press("Home")
    assert (before, share.inner_text()) == ("42%", "92%")
    assert "On." in machines.locator("collapse-machine p b").last.inner_text()
    machines.get_by_label("β, price of a nat").press("End")
    assert machines.locator("collapse-machine p b").last.inner_text() == "Off: collapsed."
    assert machines.evaluate("document.documentElement.scrollWidth") <= 390
