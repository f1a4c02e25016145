"""Matching pursuit: the fast pursuit and its gradient against the loop that the paper writes down, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sparse_vae.checks import SettingError
from sparse_vae.models import make_model
from sparse_vae.models.matching_pursuit import SIGNS

FEATURES, ATOMS = 12, 20


def make(**settings):
    torch.manual_seed(0)
    given = {"latent_dim": ATOMS, "likelihood": "gaussian", "decoder": "linear", **settings}
    return make_model("matching-pursuit", (FEATURES,), **given).double()


def observations(n: int = 9) -> torch.Tensor:
    return torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loop(x: torch.Tensor, centre: torch.Tensor, atoms: torch.Tensor, k: int, signs: str) -> torch.Tensor:
    """Residuals in the space of the data, one observation and one step at a time; torch differentiates it."""
    codes = []
    for left in x - centre:
        code = torch.zeros(len(atoms), dtype=x.dtype)
        for _ in range(k):
            products = atoms @ left
            pick = (products.abs() if signs == "both" else products).argmax()
            code = code + products[pick] * F.one_hot(pick, len(atoms))
            left = left - products[pick] * atoms[pick]
        codes.append(code)
    return torch.stack(codes)


@pytest.mark.parametrize("decoder", ["linear", "network"])
@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("k", [1, 4, ATOMS])
def test_the_pursuit_and_its_gradient_are_those_of_the_loop(k, signs, decoder):
    model, x = make(k=k, signs=signs, decoder=decoder), observations().requires_grad_()
    weight = torch.randn(ATOMS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    inputs = x, model.dictionary.bias, model.dictionary.parametrizations.weight.original
    expected = loop(x, model.dictionary.bias, model.dictionary.weight.T, k, signs)
    found = model.code(x)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert (found < 0).any() == (signs == "both")
    slopes = [torch.autograd.grad((code.square() @ weight).sum(), inputs) for code in (found, expected)]
    for own, theirs in zip(*slopes, strict=True):
        assert torch.allclose(own, theirs, rtol=1e-8, atol=1e-10)


def test_an_atom_that_is_picked_again_is_one_active_unit():
    model, x = make(k=ATOMS), observations(200)
    active = model.active(x).sum(1)
    assert (active <= ATOMS).all()
    assert (active < ATOMS).any()


@pytest.mark.parametrize("signs", SIGNS)
def test_the_error_falls_with_every_step(signs):
    x = observations(50)
    errors = torch.stack([(x - make(k=k, signs=signs).reconstruct(x)).square().sum(1) for k in range(1, ATOMS + 1)])
    assert (errors.diff(dim=0) < 0).all()


def test_the_papers_decoder_is_the_dictionary_and_another_has_it_beside_it():
    tied, bernoulli = make(), make(likelihood="bernoulli")
    assert tied.dictionary is tied.decoder[0]
    assert bernoulli.dictionary is not bernoulli.decoder[0]
    x = observations().sigmoid()
    bernoulli.prepare(x)
    assert torch.allclose(bernoulli.dictionary.bias, x.mean(0))
    assert torch.allclose(bernoulli.decoder[0].bias.sigmoid(), x.mean(0).clamp(0.01, 0.99))


def test_codes_are_searched_for_in_full_precision():
    model, x = make().float(), observations().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.code(x), make().float().code(x))
        assert model.code(x).dtype == torch.float32


@pytest.mark.parametrize(("settings", "message"), [
    ({"k": ATOMS + 1}, "k must be at most latent_dim, 20; got 21"),
    ({"k": 0}, "k must be an integer of at least 1"),
    ({"signs": "negative"}, "signs must be one of positive, both"),
])
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        make(**settings)
