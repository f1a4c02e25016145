"""Classical methods against scikit-learn and against codes that are known, and as runs like any other."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sklearn.decomposition as decomposition
import torch
import torch.nn.functional as F
import yaml

from sparse_vae.checkpoints import train_run
from sparse_vae.checks import SettingError
from sparse_vae.configuration import build_model, configure, load_data
from sparse_vae.datasets import load_dataset
from sparse_vae.datasets.sinusoids import sinusoid_atoms
from sparse_vae.evaluation import explained_variance, mean_squared_error
from sparse_vae.models import CLASSICAL, MODELS, make_model, model_settings
from sparse_vae.models.classical import matching_pursuit
from sparse_vae.report.measures import measure
from sparse_vae.report.run_sets import open_runs
from sparse_vae.report.runs import save_run
from sparse_vae.report.suites import expand_run, load_suite
from sparse_vae.report.tables import collect


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded())


def fitted(name: str, x: torch.Tensor, seed: int = 0, **settings):
    model = make_model(name, x.shape[1:], **settings)
    model.fit(x, seed=seed)
    return model.eval()


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return load_dataset("digits").train.x


@pytest.fixture(scope="module")
def signals():
    return load_dataset("sinusoids", n_train=200, n_test=40)


# --- linear codes


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "estimator"), [
    ("pca", decomposition.PCA(5)),
    ("sparse-pca", decomposition.SparsePCA(5, alpha=1, random_state=3)),
    ("factor-analysis", decomposition.FactorAnalysis(5, rotation="varimax", random_state=3))])
def test_linear_methods_are_those_of_scikit_learn(name, estimator, digits):
    x = digits[:100]
    model = fitted(name, x, latent_dim=5, seed=3)
    flat = x.flatten(1).double().numpy()
    codes = torch.from_numpy(estimator.fit_transform(flat)).float()
    signs = (codes * model.code(x)).sum(0).sign()  # of a component, which are arbitrary
    assert torch.allclose(model.code(x) * signs, codes, atol=1e-4)
    assert torch.allclose(model.atoms * signs[:, None], torch.from_numpy(estimator.components_).float(), atol=1e-4)
    expected = (codes * signs) @ model.atoms + x.flatten(1).mean(0)
    assert torch.allclose(model.reconstruct(x).flatten(1), expected, atol=1e-4)


def test_what_pca_explains_is_what_scikit_learn_says(digits):
    model = fitted("pca", digits, latent_dim=7)
    expected = decomposition.PCA(7).fit(digits.flatten(1).double().numpy()).explained_variance_ratio_.sum()
    assert explained_variance(digits, model.reconstruct(digits)) == pytest.approx(expected, abs=1e-5)


# --- matching pursuit


@pytest.mark.parametrize(("latent_dim", "features", "n_nonzero"), [(64, 30, 6), (20, 30, 20), (50, 40, 1)])
def test_a_pursuit_is_that_of_scikit_learn(latent_dim, features, n_nonzero):
    atoms, x = F.normalize(random(latent_dim, features), dim=1), 3 * random(25, features) + 1
    expected = decomposition.sparse_encode(x.double().numpy(), atoms.double().numpy(), algorithm="omp",
                                           n_nonzero_coefs=n_nonzero)
    assert np.allclose(matching_pursuit(x, atoms, n_nonzero).numpy(), expected, atol=1e-3)


def test_a_pursuit_stops_where_nothing_is_left():
    atoms = torch.cat([torch.eye(4), torch.eye(4)[:1]])  # an atom twice
    codes = matching_pursuit(torch.tensor([[2.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]), atoms, 5)
    assert codes.tolist() == [[2, 0, -1, 0, 0], [0, 0, 0, 0, 0]]


def test_the_error_falls_with_the_number_of_coefficients(signals):
    errors = []
    for n_nonzero in (1, 2, 4, 8):
        model = fitted("cosines", signals.train.x, n_nonzero=n_nonzero)
        codes = model.code(signals.test.x)
        assert ((codes != 0).sum(1) <= n_nonzero).all()
        errors.append(mean_squared_error(signals.test.x, model.decode(codes)).mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2


# --- dictionaries


def test_fixed_cosines_have_an_exact_cosine_for_one_atom():
    t = (torch.arange(32) + 0.5) / 32
    x = torch.stack([torch.cos(math.pi * 5 * t), -2 * torch.cos(math.pi * 11 * t)])
    model = fitted("cosines", torch.cat([x, -x]), latent_dim=32, n_nonzero=3)  # of mean 0
    codes = model.code(x)
    assert (codes != 0).nonzero().tolist() == [[0, 5], [1, 11]]
    assert torch.allclose(model.decode(codes), x, atol=1e-5)


def test_the_sinusoids_are_those_of_the_data_and_find_the_sources(signals):
    model = fitted("sinusoids", signals.train.x, n_nonzero=6)
    assert torch.allclose(model.atoms, F.normalize(sinusoid_atoms(), dim=1), atol=1e-6)
    model.mean.zero_()
    codes = model.code(signals.test.x)
    assert torch.equal(codes.abs() > 1e-3, signals.test.factors.abs() > 1e-3 / 8)  # atoms have norm 8 there
    assert torch.allclose(codes / 8, signals.test.factors, atol=1e-4)


def test_the_lasso_on_an_orthonormal_dictionary_shrinks_every_coefficient():
    x = random(10, 16)
    model = fitted("cosines", torch.cat([x, -x]), latent_dim=16, method="lasso", penalty=0.4)
    products = x @ model.atoms.T
    expected = products.sign() * (products.abs() - 0.4).clamp(min=0)
    assert torch.allclose(model.code(x), expected, atol=1e-4)


def test_a_learned_dictionary_is_that_of_scikit_learn_with_atoms_of_norm_1(digits):
    x = digits[:400]
    model = fitted("dictionary", x, latent_dim=10, n_nonzero=2, seed=4, sweeps=3)
    learner = decomposition.MiniBatchDictionaryLearning(10, alpha=1, batch_size=256, fit_algorithm="cd", max_iter=3,
                                                        random_state=4)
    learner.fit((x - x.mean(0)).flatten(1).double().numpy())
    assert np.allclose(model.atoms.numpy(), F.normalize(torch.from_numpy(learner.components_), dim=1), atol=1e-3)
    # Two of ten atoms, chosen for each observation, are worth more than the same two directions for all.
    two = fitted("pca", x, latent_dim=2)
    assert explained_variance(x, model.reconstruct(x)) > explained_variance(x, two.reconstruct(x)) + 0.1


def test_a_dictionary_is_learned_from_the_first_observations_alone(digits):
    kwargs = {"latent_dim": 8, "learned_from": 200, "sweeps": 1}
    first, second = fitted("dictionary", digits, **kwargs), make_model("dictionary", (1, 8, 8), **kwargs)
    changed = digits.clone()
    changed[200:] = digits[200:].flip(0)
    second.fit(changed)
    assert torch.allclose(first.atoms, second.atoms, atol=1e-5)


# --- as models


def test_classical_methods_take_their_own_settings_alone():
    assert not set(CLASSICAL) & set(MODELS)
    assert list(model_settings("pca")) == ["latent_dim"]
    assert list(model_settings("sinusoids")) == ["latent_dim", "method", "n_nonzero", "penalty"]
    with pytest.raises(SettingError, match=r"unknown setting .* 'backbone'"):
        configure("pca", "digits", backbone="mlp")


@pytest.mark.parametrize(("name", "settings", "complaint"), [
    ("dictionary", {"latent_dim": 4, "n_nonzero": 5}, "n_nonzero must be at most latent_dim, 4; got 5"),
    ("cosines", {"method": "ista"}, "method must be one of omp, lasso; got 'ista'"),
    ("cosines", {"penalty": 0}, "penalty must be a finite number above 0; got 0"),
    ("sinusoids", {"latent_dim": 5}, "latent_dim of sinusoids must be even; got 5"),
    ("pca", {"latent_dim": 0}, "latent_dim must be an integer of at least 1; got 0")])
def test_settings_that_cannot_be_used_are_refused(name, settings, complaint):
    with pytest.raises(SettingError, match=complaint):
        configure(name, "digits", **settings)


@pytest.mark.parametrize(("name", "latent_dim", "complaint"), [
    ("pca", 65, "latent_dim of PCA must be at most 64"), ("cosines", 65, "latent_dim must be at most 64"),
    ("sinusoids", 64, "latent_dim of sinusoids must be below 64")])
def test_more_atoms_than_there_can_be_are_refused_when_the_data_are_known(name, latent_dim, complaint, digits):
    model = make_model(name, (1, 8, 8), latent_dim=latent_dim)
    with pytest.raises(SettingError, match=complaint):
        model.fit(digits)


@pytest.mark.parametrize(("name", "settings", "title"), [
    ("pca", {}, "PCA"), ("sparse-pca", {}, "Sparse PCA"), ("factor-analysis", {}, "Factor analysis, varimax"),
    ("dictionary", {"latent_dim": 64}, "Dictionary + OMP (10%)"),
    ("dictionary", {"latent_dim": 64, "n_nonzero": 16}, "Dictionary + OMP (25%)"),
    ("dictionary", {"method": "lasso", "penalty": 0.3}, "Dictionary + lasso (weight 0.3)"),
    ("cosines", {"n_nonzero": 4}, "OMP on 128 cosines (4 coefficients)"),
    ("cosines", {"method": "lasso", "penalty": 0.1}, "Lasso on 128 cosines (weight 0.1)"),
    ("sinusoids", {"n_nonzero": 6}, "OMP on 38 sinusoids (6 coefficients)")])
def test_titles(name, settings, title):
    config = configure(name, "sinusoids", **settings)
    assert config.title == build_model(config, load_dataset("sinusoids", n_train=1, n_test=1)).title == title


def test_a_suites_defaults_for_networks_are_not_for_classical_methods():
    defaults = {"dataset": "digits", "backbone": "mlp", "likelihood": "gaussian", "epochs": 3, "latent_dim": 4}
    (pca,), (vae,) = expand_run({"model": "pca"}, defaults), expand_run({"model": "vae"}, defaults)
    assert (pca.config.model_settings, pca.config.training.epochs) == ({"latent_dim": 4}, 3)
    assert vae.config.model_settings["backbone"] == "mlp"
    with pytest.raises(SettingError, match="backbone"):
        list(expand_run({"model": "pca", "backbone": "mlp"}, defaults))
    with pytest.raises(SettingError, match="bakbone"):  # what no model takes is a mistake
        list(expand_run({"model": "pca"}, defaults | {"bakbone": "mlp"}))


# --- as runs


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_classical_method_is_a_run_like_any_other(name, tmp_path, monkeypatch):
    """Trained, measured, saved, collected, and read back from the published weights with the same codes."""
    small = {"dataset.n_train": 150, "dataset.n_test": 60, "dataset.n_frequencies": 6, "dataset.length": 32}
    config = configure(name, "sinusoids", latent_dim=12, seed=1, **small)
    data = load_data(config)
    model, history = train_run(config, data, progress=False)
    assert history == []
    measured = measure(model, data, seed=1)
    assert measured.values["explained_variance"] > 0
    assert measured.values["signal_error"] > 0
    assert "loss" not in {key for key, value in measured.values.items() if value is not None}

    for folder in ("experiments", "notebooks"):
        (tmp_path / folder).mkdir()
    entry = {"model": name, "dataset": "sinusoids", "latent_dim": 12, "seed": 1, **small}
    (tmp_path / "experiments" / "tiny.yml").write_text(yaml.dump({"runs": [entry], "published": ["*"]}))
    monkeypatch.chdir(tmp_path)
    run, suite = f"sinusoids/{name}/seed1", load_suite("tiny")
    save_run(suite.runs_folder / run, config, model, history, measured)
    assert collect(suite) == [run]

    runs = open_runs("tiny")
    (read,) = runs
    assert read.config == config
    assert runs.frame["signal_error"].item() == pytest.approx(measured.values["signal_error"], rel=1e-4)
    assert set(runs.curve("error_by_largest")["run"]) == {run}
    assert len(runs.units(read)) == 12
    x = data.test.x
    codes, published = model.code(x), read.model.code(x)
    assert published.dtype == torch.float32
    same = torch.isclose(codes, published, atol=2e-2, rtol=1e-2)
    assert same.all(1).float().mean() > 0.9  # rounding may change the order of a pursuit where atoms are level
    assert torch.allclose(model.decode(codes), read.model.decode(published), atol=5e-2)


def test_baselines_stand_in_tables_beside_models_that_are_trained_here():
    runs = open_runs(train=[{"model": ["pca", "factor-analysis"], "dataset": "digits", "latent_dim": 4},
                            {"model": "autoencoder", "dataset": "digits", "latent_dim": 4, "epochs": 1,
                             "backbone": "mlp", "hidden_dim": 16}])
    table = runs.table(["mean_squared_error", "loss"])
    assert list(table.index)[:2] == ["PCA", "Factor analysis, varimax"]
    assert list(table["objective (nats)"] != "—") == [False, False, True]
    best = runs.frame.set_index("model")["mean_squared_error"]
    assert best["pca"] <= best["factor-analysis"]
    assert isinstance(runs.histories, pd.DataFrame)


def test_another_seed_is_another_run_of_what_is_drawn_at_random():
    config = configure("dictionary", "digits", latent_dim=6, learned_from=300)
    data = load_data(config)
    first, again, other = (train_run(replace(config, training=replace(config.training, seed=seed)), data)[0].atoms
                           for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
