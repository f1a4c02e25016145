"""Probes against numbers worked out by hand and against scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sparse_vae.checks import SettingError
from sparse_vae.evaluation import knn_probe, labelled_subset, logistic_probe

PROBES = [logistic_probe, knn_probe]


def blobs(n: int = 300, classes: int = 3, spread: float = 0.1, latent_dim: int = 4, seed: int = 0):
    """Codes about one unit vector for each class, and the classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    return torch.eye(latent_dim)[labels] + spread * torch.randn(n, latent_dim, generator=generator), labels


# --- the budget


def test_classes_are_drawn_in_proportion():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    assert labels[labelled_subset(labels, 10)].bincount().tolist() == [6, 3, 1]
    assert labels[labelled_subset(labels, 50)].bincount().tolist() == [30, 15, 5]


def test_every_class_is_drawn():
    labels = torch.tensor([7] * 1000 + [3])
    assert sorted(labels[labelled_subset(labels, 2)].tolist()) == [3, 7]


@pytest.mark.parametrize("n_labels", [10, 57, 99])
def test_classes_of_equal_size_differ_by_at_most_one(n_labels):
    labels = torch.arange(1000) % 10
    counts = labels[labelled_subset(labels, n_labels)].bincount(minlength=10)
    assert counts.sum() == n_labels
    assert counts.max() - counts.min() <= 1


def test_no_observation_is_drawn_twice_and_the_seed_decides_which():
    labels = torch.arange(200) % 4
    chosen = labelled_subset(labels, 50, seed=1)
    assert len(chosen.unique()) == 50
    assert torch.equal(chosen, labelled_subset(labels, 50, seed=1))
    assert not torch.equal(chosen.sort().values, labelled_subset(labels, 50, seed=2).sort().values)
    assert labelled_subset(labels, 200).sort().values.tolist() == list(range(200))


def test_every_observation_has_the_same_chance():
    labels = torch.arange(20) % 2
    drawn = torch.stack([torch.zeros(20).index_fill(0, labelled_subset(labels, 5, seed), 1) for seed in range(2000)])
    assert (drawn.mean(0) - 5 / 20).abs().max() < 4 * math.sqrt(0.25 * 0.75 / 2000)  # four standard errors


# --- both probes


@pytest.mark.parametrize("probe", PROBES)
def test_separate_classes_are_read_without_error(probe):
    codes, labels = blobs()
    assert probe(codes, labels, *blobs(seed=1), n_labels=30) == 1


@pytest.mark.parametrize("probe", PROBES)
def test_accuracy_is_the_share_of_hits(probe):
    test_codes, test_labels = blobs(n=8, seed=1)
    test_labels[:2] = (test_labels[:2] + 1) % 3
    assert probe(*blobs(), test_codes, test_labels, n_labels=30) == 0.75
    assert probe(*blobs(), test_codes[:1], test_labels[:1], n_labels=30) == 0
    assert probe(*blobs(), test_codes[2:3], test_labels[2:3], n_labels=30) == 1


@pytest.mark.parametrize("probe", PROBES)
def test_codes_without_information_are_read_at_chance(probe):
    codes = torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(4000) % 4
    accuracy = probe(codes[:2000], labels[:2000], codes[2000:], labels[2000:], 500)
    assert accuracy == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 2000))  # four standard errors


@pytest.mark.parametrize("probe", PROBES)
def test_codes_beyond_the_budget_are_not_looked_at(probe):
    codes, labels = blobs(spread=1.0)
    test = blobs(spread=1.0, seed=1)
    accuracy = probe(codes, labels, *test, 40, 3)
    hidden = torch.full_like(codes, math.nan)
    chosen = labelled_subset(labels, 40, seed=3)
    hidden[chosen] = codes[chosen]
    assert probe(hidden, labels, *test, 40, 3) == accuracy


@pytest.mark.parametrize("probe", PROBES)
def test_each_test_observation_is_judged_alone(probe):
    test_codes, test_labels = blobs(spread=1.0, seed=1)
    halves = [probe(*blobs(spread=1.0), codes, labels, 40)
              for codes, labels in zip(test_codes.split(150), test_labels.split(150), strict=True)]
    assert probe(*blobs(spread=1.0), test_codes, test_labels, 40) == pytest.approx(sum(halves) / 2)


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("value", [0.0, 5.0])
def test_constant_codes_name_one_class(probe, value):
    codes, labels = torch.full((40, 3), value), torch.tensor([0] * 30 + [1] * 10)
    assert probe(codes, labels, codes, labels, 8) in (0.75, 0.25)


@pytest.mark.parametrize("probe", PROBES)
def test_a_test_class_without_labels_is_missed(probe):
    test_codes, test_labels = blobs(n=8, seed=1)
    assert probe(*blobs(), test_codes, test_labels + 10, n_labels=30) == 0


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize(("change", "message"), [
    ({"n_labels": 301}, "n_labels must be an integer of at least 3 and at most 300; got 301"),
    ({"n_labels": 2}, "n_labels must be an integer of at least 3 and at most 300; got 2"),
    ({"n_labels": 0}, "n_labels must be an integer of at least 3 and at most 300; got 0"),
    ({"n_labels": 10.5}, "n_labels must be an integer .* got 10.5"),
    ({"seed": -1}, "seed must be an integer of at least 0; got -1"),
    ({"train_labels": torch.full((300,), 4)}, "train_labels must hold at least 2 classes; got 1: .4."),
    ({"train_labels": torch.zeros(299)}, r"train_codes must be .* got shapes \(300, 4\) and \(299,\)"),
    ({"test_codes": torch.zeros(8)}, r"test_codes must be \(n, latent_dim\) and test_labels .* got shapes \(8,\)"),
])
def test_what_cannot_be_probed_is_named(probe, change, message):
    names = ("train_codes", "train_labels", "test_codes", "test_labels")
    arguments = {**dict(zip(names, (*blobs(), *blobs(n=8)), strict=True)), "n_labels": 30, **change}
    with pytest.raises(SettingError, match=message):
        probe(**arguments)


# --- logistic regression


def test_the_logistic_probe_is_scikit_learns_on_codes_scaled_by_the_labelled_ones():
    (codes, labels), (test_codes, test_labels) = blobs(spread=0.8), blobs(spread=0.8, seed=1)
    scale = torch.tensor([1e-3, 1.0, 1e3, 1.0])
    codes, test_codes = 5 + scale * codes, 5 + scale * test_codes
    chosen = labelled_subset(labels, 60)
    mean, deviation = codes[chosen].mean(0), codes[chosen].std(0, correction=0)
    expected = LogisticRegression().fit(((codes[chosen] - mean) / deviation).numpy(), labels[chosen].numpy())
    accuracy = logistic_probe(codes, labels, test_codes, test_labels, 60)
    assert accuracy == expected.score(((test_codes - mean) / deviation).numpy(), test_labels.numpy())
    assert 0.5 < accuracy < 1


# --- nearest neighbours


def test_the_metric_by_hand():
    train = torch.tensor([[10.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    test = torch.tensor([[1.0, 0.0]]), torch.tensor([0])  # the same direction as (10, 0), nearer to (0, 1)
    assert knn_probe(*train, *test, n_labels=2, n_neighbours=1) == 1
    assert knn_probe(*train, *test, n_labels=2, n_neighbours=1, metric="euclidean") == 0


def test_the_majority_by_hand():
    train = torch.tensor([[1.0], [2.0], [3.0], [10.0]]), torch.tensor([0, 1, 1, 0])
    test = torch.tensor([[0.9]]), torch.tensor([1])
    accuracies = [knn_probe(*train, *test, n_labels=4, n_neighbours=k, metric="euclidean") for k in (1, 3)]
    assert accuracies == [0, 1]


def test_all_zero_codes_have_a_cosine_neighbour():
    codes, labels = blobs()
    codes[:150] = 0
    accuracy = knn_probe(codes, labels, codes, labels, 300)
    assert 0.5 < accuracy < 1  # the other half is read without error


@pytest.mark.parametrize(("change", "message"), [
    ({"metric": "manhattan"}, "metric must be one of cosine, euclidean; got 'manhattan'"),
    ({"n_neighbours": 0}, "n_neighbours must be an integer of at least 1 and at most 30; got 0"),
    ({"n_neighbours": 31}, "n_neighbours must be an integer of at least 1 and at most 30; got 31"),
])
def test_a_neighbourhood_that_cannot_be_is_named(change, message):
    with pytest.raises(SettingError, match=message):
        knn_probe(*blobs(), *blobs(), 30, **change)


def test_a_tuned_probe_keeps_rare_noise_small():
    """Two features tell the classes, four hundred small ones nothing: at a scale of its own each counts as much."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2000) % 2
    telling = labels[:, None] + 0.5 * torch.randn(2000, 2, generator=generator)
    codes = torch.cat([telling, 0.01 * torch.randn(2000, 400, generator=generator)], 1)
    parts = codes[:300], labels[:300], codes[300:], labels[300:]
    plain, tuned = (logistic_probe(*parts, 200, tuned=tuned) for tuned in (False, True))
    assert tuned > plain + 0.05
    assert logistic_probe(*parts, 2, tuned=True) == logistic_probe(*parts, 2)  # nothing can be held out
