"""Measures of features against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sparse_vae.checks import SettingError
from sparse_vae.evaluation import class_selectivity, smoothness, spread, unit_responses
from sparse_vae.models import make_model


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_smoothness_by_hand():
    # Rows 1·2 + 2·3 against (1 + 4)/2 + (4 + 9)/2; the picture: 2 pairs that agree along the width, 2 opposed.
    assert smoothness(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == pytest.approx([8 / 9])
    picture = torch.tensor([[[[1.0, 1.0], [-1.0, -1.0]]]])
    assert smoothness(picture).tolist() == [0]
    assert smoothness(torch.ones(1, 3, 4, 5)).tolist() == [1]


def test_spread_by_hand():
    # Two equal pixels at the ends of four: distance 1.5 from the middle; evenly spread √(5/4).
    assert spread(torch.tensor([[2.0, 0.0, 0.0, -2.0]])).tolist() == pytest.approx([1.5 / math.sqrt(1.25)])
    # A column of a 3×3 picture: only its height varies, 2/3 of the 2/3 + 2/3 of an even picture.
    picture = torch.zeros(1, 1, 3, 3)
    picture[..., 1] = 5.0
    assert spread(picture).tolist() == pytest.approx([math.sqrt(0.5)])
    assert spread(torch.ones(1, 2, 3, 3)).tolist() == pytest.approx([1])


@pytest.mark.parametrize("shape", [(400, 1, 20, 20), (400, 400), (400, 2, 200)])
def test_noise_is_neither_smooth_nor_local(shape):
    assert smoothness(noise(*shape)).mean().item() == pytest.approx(0, abs=0.01)
    assert spread(noise(*shape)).mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("measure", [smoothness, spread])
def test_scale_and_sign_do_not_matter(measure):
    features = noise(5, 1, 6, 7)
    assert torch.allclose(measure(features), measure(-3 * features), atol=1e-6)


def test_the_responses_of_a_linear_decoder_are_its_atoms():
    model = make_model("vae", (6,), latent_dim=3, likelihood="gaussian", decoder="linear")
    torch.nn.init.constant_(model.decoder[0].bias, 7.0)
    codes = torch.tensor([[2.0, 0.0, 0.0], [-4.0, 0.5, 0.0]])  # mean magnitudes 3 and 0.5; the last has none
    expected = model.decoder[0].weight.T * torch.tensor([3, 0.5, 1])[:, None]
    assert torch.allclose(unit_responses(model, codes), expected, atol=1e-5)
    first = model.decoder[0].weight.T[0] * 2
    assert torch.allclose(unit_responses(model, codes, n_codes=1)[0], first, atol=1e-5)


def test_the_responses_of_a_network_are_taken_where_its_codes_lie():
    model = make_model("vae", (1,), latent_dim=2, likelihood="gaussian", hidden_dim=1)
    with torch.no_grad():  # decodes to ReLU(z₀ + z₁ − 1)
        for layer, bias in ((model.decoder[0], -1.0), (model.decoder[2], 0.0)):
            layer.weight.fill_(1)
            layer.bias.fill_(bias)
    codes = torch.tensor([[2.0, -0.5], [1.0, 1.0]])  # decoded to ½ and 1; without z₀ to 0 and 0; without z₁ to 1 and 0
    assert unit_responses(model, codes).flatten().tolist() == pytest.approx([0.75, 0.75])


def test_selectivity_by_hand():
    # Means of |z|: class 0 (3, 1, 0), class 1 (1, 1, 0), class 2 (0, 1, 0).
    codes = torch.tensor([[4.0, -1.0, 0.0], [2.0, 1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    found = class_selectivity(codes, torch.tensor([0, 0, 1, 2]))
    assert found.means.tolist() == [[3, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert found.index.tolist() == pytest.approx([(3 - 0.5) / (3 + 0.5), 0, 0])
    assert found.preferred[0] == 0


def test_labels_that_say_nothing_are_hardly_preferred():
    codes, labels = noise(20_000, 5).relu(), torch.arange(20_000) % 10
    assert class_selectivity(codes, labels).index.max() < 0.08
    codes[labels != 3] *= 0.01
    assert class_selectivity(codes, labels).index.min() > 0.97
    assert class_selectivity(codes, labels).preferred.tolist() == [3] * 5


@pytest.mark.parametrize(("labels", "complaint"), [
    ([0, 0], r"their counts are \[2\]"), ([0, 2], r"their counts are \[1, 0, 1\]"), ([0, 1, 0], "got shapes")])
def test_labels_that_cannot_be_are_named(labels, complaint):
    with pytest.raises(SettingError, match=complaint):
        class_selectivity(torch.ones(2, 3), torch.tensor(labels))
