"""Run sets: choosing, labels, tables and comparisons by hand and against SciPy; each measure is taken once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import stats

from sparse_vae.checkpoints import RunError
from sparse_vae.checks import SettingError
from sparse_vae.configuration import build_model, configure, load_data
from sparse_vae.report import open_runs, run_sets
from sparse_vae.report.measures import MEASURES, measure
from sparse_vae.report.run_sets import Run, RunSet
from sparse_vae.report.runs import save_run
from sparse_vae.report.suites import load_suite
from sparse_vae.report.tables import Tables, collect, read_tables

ROOT = Path(__file__).parents[1]
TINY = {"latent_dim": 3, "backbone": "mlp", "hidden_dim": 16, "epochs": 1}


def run_set(*entries: dict, source: str | None = "one", tables: dict | None = None, models: bool = False) -> RunSet:
    """A set of runs, each given by its name, settings, and measures as a table has them."""
    runs, rows = [], []
    for entry in entries:
        name = entry["name"]
        dataset, folder, seed = name.split("/")
        known = {key: value for key, value in entry.items() if key in MEASURES}
        settings = {key: value for key, value in entry.items() if key not in known and key not in ("name", "model")}
        config = configure(entry.get("model", folder.partition("-")[0]), dataset, seed=int(seed.removeprefix("seed")),
                           **settings)
        model = build_model(config, load_data(config)).eval() if models else None
        runs.append(Run(name, config, weights=None, data_root="data", model=model))
        rows.append({"run": name, "seconds": 1.0, "environment.measures": source, **known})
    return RunSet(runs, Tables(pd.DataFrame(rows), **(tables or {})))


def seeds(name: str, measure: str, values: list[float], **settings) -> list[dict]:
    """A run for each value."""
    return [{"name": f"{name}/seed{seed}", measure: value, **settings} for seed, value in enumerate(values)]


def names(runs: RunSet) -> list[str]:
    return [run.name for run in runs]


@pytest.fixture
def four() -> RunSet:
    """Four kinds of runs on two data sets."""
    return run_set({"name": "digits/vae/seed0", "latent_dim": 2, "loss": 1.0},
                   {"name": "digits/topk/seed1", "latent_dim": 8, "k": 2, "loss": 2.0},
                   {"name": "digits/vsc/seed0", "latent_dim": 8, "prior": "fixed", "loss": np.nan},
                   {"name": "smiley/vsc/seed0", "latent_dim": 8, "dataset.seed": 3, "loss": 4.0})


# --- choosing runs


@pytest.mark.parametrize(("settings", "expected"), [
    ({"model": "vae"}, [0]), ({"model": ["vae", "topk"]}, [0, 1]), ({"model": ("vsc",), "dataset": "digits"}, [2]),
    ({"latent_dim": lambda size: size > 2}, [1, 2, 3]), ({"latent_dim": np.int64(8), "prior": "fixed"}, [2]),
    ({"dataset__seed": 3}, [3]), ({"k": 2}, [1]), ({"k": None}, [0, 2, 3]), ({"k": float("nan")}, [0, 2, 3]),
    ({"k": [None, 2]}, [0, 1, 2, 3]), ({"prior": None}, [0, 1]), ({"prior": lambda prior: prior == "fixed"}, [2]),
    ({"loss": lambda loss: loss < 3}, [0, 1]), ({"loss": None}, [2]), ({"run": "smiley/vsc/seed0"}, [3]),
    ({"seed": 1}, [1]), ({"group": ["digits/vae", "digits/vsc"]}, [0, 2]), ({}, [0, 1, 2, 3]),
    ({"title": lambda title: title.startswith("VSC")}, [2, 3]), ({"latent_dim": pd.Series([2, 3])}, [0])])
def test_runs_are_chosen_by_settings(four, settings, expected):
    assert names(four.where(**settings)) == [names(four)[index] for index in expected]


@pytest.mark.parametrize(("settings", "message"), [
    ({"modle": "vae"}, "unknown column of the runs 'modle'; did you mean 'model'?"),
    ({"dataset__sed": 1}, r"unknown column of the runs 'dataset\.sed'; did you mean 'dataset\.seed'?"),
    ({"model": "vea"}, "no run has model = 'vea'; model is vae, topk, vsc"),
    ({"model": 3}, "no run has model = 3; model is vae, topk, vsc"),
    ({"model": "vae", "latent_dim": 8}, "no run has model = 'vae', latent_dim = 8; latent_dim is 2"),
    ({"latent_dim": lambda size: size > 8}, "no run has latent_dim as asked; latent_dim is 2, 8"),
    ({"latent_dim": []}, r"no run has latent_dim = \[\]")])
def test_a_choice_that_leaves_no_run_says_what_there_is(four, settings, message):
    with pytest.raises(SettingError, match=message):
        four.where(**settings)


def test_runs_are_chosen_by_names(four):
    assert names(four.matching("*/vsc/*")) == ["digits/vsc/seed0", "smiley/vsc/seed0"]
    assert names(four.matching(["*", "!digits/*"])) == ["smiley/vsc/seed0"]
    with pytest.raises(SettingError, match="pattern that fits no run"):
        four.matching("mnist/*")
    assert names(four.on_one_dataset()) == names(four)[:3]
    assert names(four.having("loss")) == [names(four)[index] for index in (0, 1, 3)]
    with pytest.raises(SettingError, match=r"none of these 4 runs, the first is digits/vae/seed0, has the measure mig"):
        four.having("mig")
    with pytest.raises(SettingError, match="unknown measure 'los'; did you mean 'loss'"):
        four.having("los")
    assert len(four) == 4


def test_a_choice_leaves_the_set_as_it_was(four):
    before = [run.label for run in four]
    chosen = four.where(dataset="digits", latent_dim=8)
    assert [run.label for run in four] == before
    assert [run.label for run in chosen] == ["TopK (k = 2)", "VSC, fixed prior (α = 0.2)"]


# --- labels


@pytest.mark.parametrize(("entries", "labels"), [
    ([{"name": "digits/vae/seed0"}], ["VAE"]),
    (seeds("digits/vae", "loss", [1.0, 2.0]), ["VAE", "VAE"]),
    ([{"name": "digits/vae/seed0", "latent_dim": 2}, {"name": "digits/vae-big/seed0", "latent_dim": 8}],
     ["VAE, J = 2", "VAE, J = 8"]),
    ([{"name": "digits/vae/seed0"}, {"name": "smiley/vae/seed0"}], ["VAE, digits", "VAE, smiley"]),
    ([{"name": "digits/vsc-a/seed0", "alpha": 0.01}, {"name": "digits/vsc-b/seed0", "alpha": 0.2}],
     ["VSC (α = 0.01)", "VSC (α = 0.2)"]),
    # Of two, both say what they are; of many, those that are like most say nothing.
    ([{"name": "digits/vae/seed0", "epochs": 20}, {"name": "digits/vae-long/seed0", "epochs": 50}],
     ["VAE, epochs 20", "VAE, epochs 50"]),
    ([{"name": "digits/vae/seed0"}, {"name": "digits/vae-long/seed0", "epochs": 50},
      {"name": "digits/vae-fast/seed0", "learning_rate": 0.1}, {"name": "digits/topk/seed0", "k": 2}],
     ["VAE", "VAE, epochs 50", "VAE, learning rate 0.1", "TopK (k = 2)"]),
    ([{"name": f"smiley/vae-{n}/seed0", "dataset.n_train": n} for n in (50, 60, 70)],
     [f"VAE, n train {n}" for n in (50, 60, 70)]),
    # The same settings in two folders.
    ([{"name": "digits/vae/seed0"}, {"name": "digits/vae-again/seed0"}], ["VAE [vae]", "VAE [vae-again]"]),
    # A folder with two kinds of runs, as while a suite is trained anew.
    ([{"name": "digits/vae/seed0", "epochs": 1}, {"name": "digits/vae/seed1", "epochs": 2}],
     ["VAE, epochs 1", "VAE, epochs 2"])])
def test_labels_are_short_and_tell_kinds_of_runs_apart(entries, labels):
    runs = run_set(*entries)
    assert [run.label for run in runs] == labels
    assert runs.frame["label"].tolist() == labels


@pytest.mark.parametrize("suite", ["report", "paper", "exercises", "hybrid"])
def test_labels_of_published_runs_are_those_of_their_groups(suite, monkeypatch):
    monkeypatch.chdir(ROOT)
    frame = open_runs(suite).frame
    assert len(frame.groupby(["label", "group"])) == frame["label"].nunique() == frame["group"].nunique()


# --- the frame


def test_the_frame_has_a_row_for_each_run(four):
    frame = four.frame
    assert frame["run"].tolist() == names(four)
    assert frame["group"].tolist() == ["digits/vae", "digits/topk", "digits/vsc", "smiley/vsc"]
    assert frame["family"].tolist() == ["VAE", "TopK", "VSC, fixed prior", "VSC"]
    assert frame["loss"].tolist() == pytest.approx([1, 2, np.nan, 4], nan_ok=True)
    assert set(MEASURES) < set(frame)
    assert frame[list(MEASURES)].dtypes.eq(float).all()
    assert frame["seconds"].tolist() == [1.0] * 4
    assert frame["k"].tolist() == pytest.approx([np.nan, 2, np.nan, np.nan], nan_ok=True)
    assert frame["dataset.seed"].tolist()[2:] == pytest.approx([np.nan, 3], nan_ok=True)


def test_the_frame_is_kept_while_nothing_is_measured(four):
    frame = four.frame
    four.table(["loss"]), four.measure("mig"), four.values("loss"), four.best("loss")
    assert four.frame is frame


# --- tables


def rows_of(table: pd.DataFrame) -> dict:
    return {key: [text.replace("\u00a0", " ") for text in row] for key, *row in table.itertuples()}


def test_a_table_has_means_and_errors_in_the_units_of_the_titles():
    runs = run_set(*seeds("digits/vae", "active_fraction", [0.5, 0.7]), *seeds("digits/pca", "active_fraction", [1.0]),
                   *seeds("digits/topk", "loss", [-3.0, -3.0], k=2))
    table = runs.table(["active_fraction", "loss"], seeds=True)
    assert list(table) == ["seeds", "active (%)", "objective (nats)"]
    assert table.index.name == "model"
    assert rows_of(table) == {"VAE": ["2", "60.0 ± 10.0", "—"], "PCA": ["1", "100.0", "—"],
                              "TopK (k = 2)": ["2", "—", "−3.00"]}


def test_a_table_by_several_columns_keeps_runs_without_a_value():
    runs = run_set(*seeds("digits/topk-a", "loss", [1.0], k=2, latent_dim=8),
                   *seeds("digits/topk-b", "loss", [2.0], k=3, latent_dim=8), *seeds("digits/vae", "loss", [3.0]))
    table = runs.table("loss", by=["family", "k"])
    assert table.index.names == ["model", "k"]
    assert table["objective (nats)"].tolist() == ["1.00", "2.00", "3.00"]
    assert [pd.isna(k) for _, k in table.index] == [False, False, True]
    assert runs.table(["loss"], by="latent_dim").index.name == "J"
    assert runs.means("loss", by="k")["loss"].tolist() == [1.0, 2.0, 3.0]
    assert list(runs.values("loss", by="k").values()) == [[1.0], [2.0], [3.0]]


@pytest.mark.parametrize(("ask", "message"), [
    (lambda runs: runs.table(["nonsense"]), "unknown measure 'nonsense'; Known: loss"),
    (lambda runs: runs.table(["los"]), "unknown measure 'los'; did you mean 'loss'"),
    (lambda runs: runs.table("los"), "unknown measure 'los'"),
    (lambda runs: runs.table(["loss"], by="modle"), "unknown column of the runs 'modle'; did you mean 'model'"),
    (lambda runs: runs.means(["loss"], by=["model", "sed"]), "unknown column of the runs 'sed'; did you mean 'seed'"),
    (lambda runs: runs.values("size_histogram"), "unknown measure 'size_histogram'"),
    (lambda runs: runs.curve("size_histgram"), "unknown curve 'size_histgram'; did you mean 'size_histogram'"),
    (lambda runs: runs.best("loss", by="sed"), "unknown column of the runs 'sed'"),
    (lambda runs: runs.compare("vae", "vsc", "los"), "unknown measure 'los'"),
    (lambda runs: runs.compare("vae", "vsc", "loss", at="sed"), "unknown column of the runs 'sed'"),
    (lambda runs: runs.compare("vea", "vsc", "loss"), "no run has model = 'vea'"),
    (lambda runs: runs.compare("vae", "vsc", "mig"), "none of these 1 runs, the first is digits/vae/seed0, has"),
    (lambda runs: runs.best("mig"), "none of these 4 runs, the first is digits/vae/seed0, has the measure mig"),
    (lambda runs: runs.best("parameters"), "of parameters neither more nor less is better")])
def test_what_is_not_there_is_named(four, ask, message):
    with pytest.raises(SettingError, match=message):
        ask(four)


def test_a_table_says_which_measures_are_younger_than_its_runs():
    entries = [*seeds("digits/vae", "mig", [0.5]), *seeds("digits/vsc", "loss", [1.0], prior="fixed")]
    mixed = run_set(*entries)
    assert rows_of(mixed.table(["mig"])) == {"VAE": ["0.500"], "VSC, fixed prior (α = 0.2)": ["—"]}
    mixed._tables.runs.loc[1, "environment.measures"] = "another"
    mixed._tables._measured.clear()
    assert rows_of(mixed.table(["mig"])) == {"VAE": ["0.500"], "VSC, fixed prior (α = 0.2)": ["not measured"]}
    assert rows_of(mixed.table(["loss", "hoyer"])) == {
        "VAE": ["not measured", "not measured"], "VSC, fixed prior (α = 0.2)": ["1.00", "not measured"]}


def test_a_measure_that_says_nothing_of_any_run_is_left_out():
    runs = run_set(*seeds("digits/vae", "mig", [np.nan, np.nan]))
    assert list(runs.table(["mig"], seeds=True)) == ["seeds"]


# --- the best


def test_the_best_is_tested_against_each_other():
    good, near, far = [1.0, 1.2, 1.4], [1.1, 1.4, 1.5], [9.0, 9.1, 9.3]
    runs = run_set(*seeds("digits/vae", "negative_elbo", near), *seeds("digits/vsc", "negative_elbo", far),
                   *seeds("digits/beta-vae", "negative_elbo", good, model="beta-vae", beta=2.0))
    (found,) = runs.best("negative_elbo").to_dict("records")
    assert found == {"label": "β-VAE (β = 2)", "mean": pytest.approx(1.2), "level": ["VAE"]}
    assert runs.best_in_words("negative_elbo").replace("\u00a0", " ") == (
        "**β-VAE (β = 2)** (1.20 ± 0.12); no significant difference from it: VAE (1.33 ± 0.12)")
    p = [stats.ttest_ind(other, good, equal_var=False).pvalue for other in (near, far)]
    assert 2 * p[1] < 0.05 < p[0]
    assert runs.in_words("negative_elbo") == "β-VAE (β = 2) (1.20); VAE (1.33); VSC (α = 0.2) (9.13)"


def test_where_more_is_better_the_largest_is_best():
    runs = run_set(*seeds("digits/vae", "explained_variance", [0.5]), *seeds("digits/pca", "explained_variance", [0.7]))
    assert runs.best("explained_variance")["label"].tolist() == ["PCA"]
    assert runs.in_words("explained_variance").startswith("PCA (0.7")


def test_of_single_runs_nothing_is_said_but_that_they_are_equal():
    runs = run_set(*seeds("digits/vae", "loss", [1.0]), *seeds("digits/pca", "loss", [1.01]),
                   *seeds("digits/topk", "loss", [1.0], k=2))
    assert runs.best("loss").iloc[0].to_dict() == {"label": "VAE", "mean": 1.0, "level": ["TopK (k = 2)"]}


def test_the_best_for_each_value_of_a_setting():
    runs = run_set(*(entry for size in (2, 8) for entry in (
        *seeds(f"digits/vae-{size}", "loss", [1.0 * size, 2.0], latent_dim=size),
        *seeds(f"digits/topk-{size}", "loss", [3.0, 3.1], latent_dim=size, k=2))))
    best = runs.best("loss", by="latent_dim")
    assert best["label"].to_dict() == {2: "VAE, J = 2", 8: "TopK (k = 2), J = 8"}
    assert best.index.name == "latent_dim"


def test_words_of_many_groups_stay_short():
    runs = run_set(*({"name": f"digits/topk-{n}/seed0", "loss": n, "k": n + 1, "latent_dim": 16} for n in range(12)))
    assert runs.in_words("loss") == "; ".join(
        [*(f"TopK (k = {n + 1}) ({n}.00)" for n in range(5)), "6 others", "TopK (k = 12) (11.00)"])


# --- comparisons


@pytest.fixture
def sizes() -> RunSet:
    """VAE and VSC with two sizes of the code, three seeds of each; VSC has a third size."""
    source = np.random.default_rng(0)
    return run_set(*(entry for model in ("vae", "vsc") for size in (2, 8, 16)[:2 + (model == "vsc")]
                     for entry in seeds(f"digits/{model}-j{size}", "negative_elbo",
                                        (size + 2 * (model == "vsc") + source.normal(size=3)).tolist(),
                                        latent_dim=size)))


def values_of(runs: RunSet, **settings) -> list[float]:
    return runs.where(**settings).frame["negative_elbo"].tolist()


def test_a_comparison_at_each_value_is_welch_with_holm(sizes):
    found = sizes.compare("vsc", {"model": "vae"}, "negative_elbo", at="latent_dim")
    assert found.index.tolist() == [2, 8]
    assert found.index.name == "latent_dim"
    sides = [[values_of(sizes, model=model, latent_dim=size) for model in ("vsc", "vae")] for size in (2, 8)]
    expected = [stats.ttest_ind(*pair, equal_var=False) for pair in sides]
    p = [test.pvalue for test in expected]
    assert found["p"].tolist() == p
    smaller, larger = sorted(p)
    assert sorted(found["p_holm"]) == pytest.approx([2 * smaller, max(2 * smaller, larger)])
    assert found["difference"].tolist() == pytest.approx([np.mean(first) - np.mean(second) for first, second in sides])
    assert found[["low", "high"]].values == pytest.approx(np.array([test.confidence_interval() for test in expected]))
    assert found["n"].tolist() == [(3, 3)] * 2
    assert found["differs"].tolist() == (found["p_holm"] < 0.05).tolist()


def test_all_at_once(sizes):
    (found,) = sizes.compare("vsc", "vae", "negative_elbo").to_dict("records")
    sides = [values_of(sizes, model=model) for model in ("vsc", "vae")]
    assert found["p"] == stats.ttest_ind(*sides, equal_var=False).pvalue
    assert found["n"] == (9, 6)


def test_pairs_share_their_seeds():
    first, second = seeds("digits/vsc", "loss", [1.5, 2.75, 4.6, 9.0]), seeds("digits/vae", "loss", [1.0, 2.0, 4.0])
    runs = run_set(*second, *first[::-1])
    found = runs.compare("vsc", "vae", "loss", paired=True).iloc[0]
    assert found["p"] == pytest.approx(stats.ttest_rel([1.5, 2.75, 4.6], [1.0, 2.0, 4.0]).pvalue)
    assert found["n"] == (3, 3)


def test_what_cannot_be_compared_says_why(sizes):
    with pytest.raises(SettingError, match="cannot be paired by their seeds: several runs of one side share a seed"):
        sizes.compare("vsc", "vae", "negative_elbo", paired=True)
    with pytest.raises(SettingError, match="have no latent_dim in common: 16; 2"):
        sizes.compare({"model": "vsc", "latent_dim": 16}, {"model": "vae", "latent_dim": 2}, "negative_elbo",
                      at="latent_dim")


def test_single_runs_have_a_difference_and_no_test():
    runs = run_set(*seeds("digits/vae", "loss", [1.0]), *seeds("digits/vsc", "loss", [3.0]))
    found = runs.compare("vsc", "vae", "loss").iloc[0]
    assert found["difference"] == 2.0
    assert np.isnan(found["p"])
    assert not found["differs"]


def test_pairs_of_models_in_several_measures_are_corrected_together(sizes):
    found = sizes.compare_pairs([("vsc", "vae"), ({"model": "vsc"}, {"model": "vae"})], iter(["negative_elbo"]),
                                at="latent_dim")
    assert len(found) == 4
    assert (set(found["model"]), set(found["against"])) == ({"VSC (α = 0.2)"}, {"VAE"})
    alone = sizes.compare("vsc", "vae", "negative_elbo", at="latent_dim")
    assert found["p"].tolist() == alone["p"].tolist() * 2
    assert found["p_holm"].min() == pytest.approx(min(1, 4 * found["p"].min()))
    assert found["title"].tolist() == ["−ELBO (nats)"] * 4
    for row in found.itertuples():
        assert row.text.strip("*").startswith(f"{row.difference:+.2f}".replace("-", "−"))


# --- measures, taken where they are missing


@pytest.fixture
def counted(monkeypatch) -> list:
    """What was asked of models: the names, one list for each call."""
    calls = []

    def counting(model, data, *, seed, only):
        calls.append(list(only))
        return measure(model, data, seed=seed, only=only)

    monkeypatch.setattr(run_sets, "measure", counting)
    return calls


def test_a_measure_is_taken_once_and_all_sets_have_it(counted):
    runs = run_set({"name": "digits/vae/seed0", **TINY}, {"name": "digits/topk/seed0", "k": 2, **TINY}, source=None,
                   models=True)
    half = runs.where(model="vae")
    frame = half.frame
    assert frame["hoyer"].isna().all()
    assert runs.measure("hoyer") is runs
    assert counted == [["hoyer"]] * 2
    assert runs.frame["hoyer"].notna().all()
    assert half.frame["hoyer"].tolist() == runs.frame["hoyer"].tolist()[:1]
    half.table(["hoyer", "treves_rolls"])  # computed together
    runs.values("hoyer"), runs.best("hoyer"), runs.having("hoyer")
    assert counted == [["hoyer"]] * 2


def test_what_does_not_apply_is_asked_once(counted):
    runs = run_set({"name": "digits/topk/seed0", "k": 2, **TINY}, source=None, models=True)
    for _ in range(2):
        assert list(runs.table(["negative_elbo", "mig"])) == []
        assert len(runs.curve("kl_by_rank")) == 0
    assert counted == [["negative_elbo", "mig"], ["kl_by_rank"]]


def test_what_a_table_has_is_never_taken_again(counted):
    """Neither where the cell is empty since nothing can be said, nor when something else is computed with it."""
    curves = pd.DataFrame({"run": "digits/vae/seed0", "curve": "population_histogram", "x": [0.5], "value": [0.25]})
    runs = run_set({"name": "digits/vae/seed0", "hoyer": 0.125, "mig": np.nan, **TINY}, tables={"curves": curves},
                   models=True)
    assert runs.values("hoyer") == {"VAE": [0.125]}
    assert runs.values("mig") == {}
    assert counted == []
    runs.measure(["treves_rolls", "lifetime_histogram"])
    assert len(counted) == 1
    assert runs.frame["hoyer"].tolist() == [0.125]
    assert runs.frame["treves_rolls"].notna().all()
    histogram = runs.curve("population_histogram")
    assert histogram["value"].tolist() == [0.25]
    assert counted == [["treves_rolls", "lifetime_histogram"]]
    assert len(runs.curve("lifetime_histogram")) > 1


def test_without_weights_nothing_is_computed(counted, four):
    assert four.measure(["hoyer", "kl_by_rank"]).frame["hoyer"].isna().all()
    assert len(four.units()) == 0
    assert counted == []


def test_units_come_from_tables_and_from_models(counted):
    units = pd.DataFrame({"run": "digits/vae/seed0", "unit": [0, 1], "rate": [0.5, 0.25]})
    runs = run_set({"name": "digits/vae/seed0", **TINY}, {"name": "digits/topk/seed0", "k": 2, **TINY},
                   tables={"units": units}, models=True)
    vae, topk = runs
    assert runs.units(vae)["rate"].tolist() == [0.5, 0.25]
    assert counted == []
    assert runs.units(topk)["unit"].tolist() == [0, 1, 2]
    assert len(runs.units()) == 5
    assert runs.where(model="topk").units()["label"].unique().tolist() == ["TopK (k = 2)"]
    assert counted == [["units"]]


def test_long_tables_follow_the_order_of_the_set():
    rows = {"run": ["digits/topk/seed0", "digits/vae/seed0", "digits/vae/seed0", "mnist/other/seed0"]}
    histories = pd.DataFrame({**rows, "epoch": [1, 1, 2, 1], "test_total": [3.0, 2.0, 1.0, 0.0]})
    curves = pd.DataFrame({**rows, "curve": ["kl_by_rank", "kl_by_rank", "error_by_largest", "kl_by_rank"],
                           "x": 0, "value": [3.0, 2.0, 1.0, 0.0]})
    runs = run_set({"name": "digits/vae/seed0"}, {"name": "digits/topk/seed0", "k": 2},
                   tables={"histories": histories, "curves": curves})
    assert runs.histories["test_total"].tolist() == [2.0, 1.0, 3.0]
    assert runs.histories["label"].tolist() == ["VAE", "VAE", "TopK (k = 2)"]
    assert runs.curve("kl_by_rank")["value"].tolist() == [2.0, 3.0]
    assert runs.curve("kl_by_rank", "error_by_largest")["value"].tolist() == [2.0, 1.0, 3.0]
    assert {"run", "label", "curve", "x", "value"} < set(runs.curve("kl_by_rank"))


def test_groups_that_still_fall_at_the_end_are_marked():
    epochs = range(1, 21)
    losses = {("vae", seed): [100 - 2 * epoch + seed / 10 for epoch in epochs] for seed in range(3)}
    losses |= {("topk", seed): [50 + seed / 10 - epoch / 1000 for epoch in epochs] for seed in range(3)}
    names = {key: f"digits/{key[0]}/seed{key[1]}" for key in losses}
    histories = pd.concat([pd.DataFrame({"run": names[key], "epoch": epochs, "step": epochs, "seconds": 1.0,
                                         "validation_total": own}) for key, own in losses.items()])
    runs = run_set(*({"name": name} for name in names.values()), {"name": "digits/vsc/seed0"},
                   tables={"histories": histories})
    found = runs.convergence()
    assert found["not_converged"].to_dict() == {"VAE": True, "TopK (k = 4)": False}
    assert found["fall"].tolist() == pytest.approx([4, 0.002])  # the last tenth: two epochs
    assert found["n"].tolist() == [3, 3]
    with pytest.raises(SettingError, match="none of these 1 runs, the first is digits/vsc/seed0, has the term valid"):
        runs.where(model="vsc").convergence()


# --- models and data


def test_models_are_built_once_for_all_sets(tmp_path, monkeypatch):
    suite = published(tmp_path, monkeypatch, {"model": ["vae", "topk"], "seed": [0, 1], "dataset": "digits", **TINY},
                      keep=["digits/vae/*"])
    runs = open_runs(suite)
    drawn = runs.with_models()
    assert names(drawn) == ["digits/vae/seed0"]
    (run,) = drawn
    assert run.model is drawn.where(model="vae").runs[0].model
    assert run.model is runs.runs[0].model
    assert run.subject is runs.runs[0].subject
    assert run.model.encoder[1].weight.dtype == torch.float32
    assert not run.model.training
    with pytest.raises(RunError, match="the weights of digits/topk/seed0 are not published; a suite's list"):
        _ = runs.where(model="topk").runs[0].model
    with pytest.raises(RunError, match="none of these 2 runs has published weights, the first is digits/topk/"):
        runs.where(model="topk").with_models()
    (tmp_path / "results" / "tiny" / "weights.zip").write_bytes(b"")
    with pytest.raises(RunError, match=r"weights\.zip/digits/vae/seed1\.safetensors is damaged or not a safetensors"):
        _ = open_runs(suite, "*/seed1").runs[0].model


def test_runs_on_different_data_share_no_figure(four):
    assert four.on_one_dataset().dataset.name == "digits"
    with pytest.raises(RunError, match=r"runs on different data cannot share a figure: digits/vae/seed0, "):
        _ = four.dataset
    with pytest.raises(RunError, match="different data"):
        _ = run_set({"name": "smiley/vae-a/seed0", "dataset.n_train": 20}, {"name": "smiley/vae-b/seed0"}).dataset


def test_data_lie_where_the_caller_says(monkeypatch):
    asked = []
    monkeypatch.setattr(run_sets, "load_data", lambda config, root: asked.append(root) or load_data(config, root))
    pca = {"model": "pca", "dataset": "digits", "latent_dim": 2}
    for given, expected in (("somewhere", "somewhere"), (None, ROOT / "data")):
        asked.clear()
        _ = open_runs(train=pca, data_root=given).dataset
        assert asked == [expected] * 2


def test_another_draw_of_the_data_is_no_other_kind_of_run():
    markets = run_set(*({"name": f"returns/pca/seed{seed}", "model": "pca", "dataset.seed": seed,
                         "loss": float(seed)} for seed in (1, 2)))
    assert markets.values("loss") == {"PCA": [1.0, 2.0]}


# --- opening


def published(root: Path, monkeypatch, entry: dict, keep: list[str]) -> str:
    """A suite with one entry, collected, its weights as they are initially."""
    for folder in ("experiments", "notebooks"):
        (root / folder).mkdir()
    (root / "experiments" / "tiny.yml").write_text(yaml.dump({"runs": [entry], "published": keep}))
    (root / "experiments" / "empty.yml").write_text(yaml.dump({"runs": [entry]}))
    suite = load_suite("tiny", root)
    for run in suite.runs:
        data = load_data(run.config)
        model = build_model(run.config, data).eval()
        measured = measure(model, data, only=["loss"])
        save_run(suite.runs_folder / run.name, run.config, model, [{"epoch": 1, "step": 1, "seconds": 1.0}], measured)
    collect(suite)
    monkeypatch.chdir(root)
    return "tiny"


def test_a_published_suite_is_opened_from_its_tables(tmp_path, monkeypatch):
    entry = {"model": ["vae", "topk"], "seed": [0, 1], "dataset": "digits", **TINY}
    suite = published(tmp_path, monkeypatch, entry, ["*"])
    runs = open_runs(suite)
    assert names(runs) == [f"digits/{model}/seed{seed}" for model in ("vae", "topk") for seed in (0, 1)]
    tables = read_tables(tmp_path / "results" / "tiny")
    assert [run.config for run in runs] == list(tables.configs().values())
    assert runs.frame["loss"].tolist() == tables.runs["loss"].tolist()
    assert names(open_runs(suite, "*/topk/*")) == names(runs)[2:]
    assert names(open_runs(suite, ["*/seed0", "!*/vae/*"])) == names(runs)[2:3]
    assert names(open_runs(suite, needs=lambda config: config.model == "vae")) == names(runs)[:2]
    assert all(run.has_model for run in runs)
    for arguments, message in (
            (("tniy",), "unknown suite 'tniy'; did you mean 'tiny'"),
            (("../tiny",), "a suite's name has letters, digits"),
            (("empty",), "suite 'empty' has no published results; make train SUITE=empty"),
            (("tiny", "mnist/*"), "unknown run, or pattern that fits no run, 'mnist/"),
            (("tiny", ["*", "!*"]), "no run is left"),
            (("tiny", []), "no run is left")):
        with pytest.raises(SettingError, match=message):
            open_runs(*arguments)
    with pytest.raises(SettingError, match="none of these 4 runs, the first is digits/vae/seed0, is of the kind"):
        open_runs(suite, needs=lambda config: False)


@pytest.mark.parametrize(("train", "expected"), [
    ({"model": "pca", "dataset": "digits", "latent_dim": [2, 3]}, ["digits/pca/seed0", "digits/pca-2/seed0"]),
    ([{"model": ["pca", "factor-analysis"], "dataset": "digits", "latent_dim": 2},
      {"model": "pca", "dataset": "digits", "latent_dim": 2, "variant": "again"}],
     ["digits/pca/seed0", "digits/factor-analysis/seed0", "digits/pca-again/seed0"])])
def test_without_a_suite_runs_are_trained_here(train, expected):
    runs = open_runs(train=train)
    assert names(runs) == expected
    assert runs.table(["mean_squared_error"]).shape == (len(expected), 1)
    assert runs.with_models().frame["run"].tolist() == expected


def test_histories_of_runs_trained_here():
    runs = open_runs(train=[{"model": "vae", "dataset": "digits", **TINY, "epochs": [1, 2]},
                            {"model": "pca", "dataset": "digits", "latent_dim": 3}])
    assert runs.histories[["label", "epoch"]].values.tolist() == [
        ["VAE, epochs 1", 1], ["VAE, epochs 2", 1], ["VAE, epochs 2", 2]]
    assert {"train_total", "train_used_dimensions", "label"} <= set(runs.histories)


@pytest.mark.parametrize(("train", "message"), [
    ((), "without a suite, `train` must say what to train"), ([], "without a suite, `train` must say"),
    (["vae"], "an entry of `train` must be a mapping of settings; got 'vae'"),
    ({"model": "vae"}, "has no dataset")])
def test_what_cannot_be_trained_is_refused(train, message):
    with pytest.raises(SettingError, match=message):
        open_runs(train=train)
