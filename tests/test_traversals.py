"""Codes moved by hand: which values a dimension takes, and what is drawn of them."""

from __future__ import annotations

import pytest
import torch

from sparse_vae.report import open_runs
from sparse_vae.report.traversals import decoded, plane, span, traverse


@pytest.fixture(scope="module")
def run():
    """A trained run whose decoder adds latent j to pixel j alone, and whose codes are known."""
    train = {"model": "vae", "dataset": "digits", "latent_dim": 3, "epochs": 1, "decoder": "linear", "backbone": "mlp",
             "hidden_dim": 4}
    run = open_runs(train=train).runs[0]
    linear = run.model.decoder[0]
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.zero_()
        linear.weight[:3] = torch.eye(3)
    run.subject.codes = torch.tensor([[0.0, 0.25, 0.0], [0.5, 0.5, 0.0], [1.0, 0.75, 0.0]])
    return run


def test_a_span_by_hand():
    assert span(torch.tensor([0.0, 3.0, 1.0]), 3, tail=0.0).tolist() == [1, 2, 3]
    assert span(torch.tensor([0.0, 3.0, 1.0]), 4, tail=0.0, with_zero=True).tolist() == [0, 1, 2, 3]
    assert span(torch.tensor([-1.0, -3.0]), 4, tail=0.0, with_zero=True).tolist() == [-3, -2, -1, 0]
    assert span(torch.tensor([0.0, 0.0, 2.0]), 3).tolist() == [-1, 0, 1]  # one value is no range


def test_codes_are_decoded_wherever_they_stand(run):
    z = torch.rand(2, 5, 3)
    pictures = decoded(run, z)
    assert pictures.shape == (2, 5, 1, 8, 8)
    assert pictures[..., 0, 0, :3] == pytest.approx(z.numpy())


def test_one_dimension_moves_in_each_row(run):
    rows = traverse(run, torch.tensor([0.1, 0.2, 0.3]), [1, 0], 3, tail=0.0)
    assert rows[0, :, 0, 0, 1] == pytest.approx([0.25, 0.5, 0.75])
    assert rows[0, :, 0, 0, 0] == pytest.approx([0.1] * 3)
    assert rows[1, :, 0, 0, 0] == pytest.approx([0.5, 0.75, 1.0])


def test_a_plane_rises_to_the_right_and_to_the_top(run):
    pictures, extent = plane(run, 0, 1, 3, tail=0.0)
    assert extent == pytest.approx([0.5, 1.0, 0.25, 0.75])
    assert pictures[0, :, 0, 0, 0] == pytest.approx([0.5, 0.75, 1.0])
    assert pictures[:, 0, 0, 0, 1] == pytest.approx([0.75, 0.5, 0.25])
