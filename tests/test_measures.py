"""What is measured of a run: by hand on codes that are given, against the functions it is made of, and as a whole."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn

from sparse_vae import evaluation
from sparse_vae.checks import SettingError
from sparse_vae.datasets import Dataset, Split, load_dataset
from sparse_vae.models import CLASSICAL, MODELS, GenerativeModel, LatentVariableModel, make_model
from sparse_vae.nets import count_parameters
from sparse_vae.report import freshness
from sparse_vae.report import measures as framework
from sparse_vae.report.measures import (
    CURVES,
    MEASURES,
    Curve,
    Measure,
    Subject,
    describe_units,
    find_measure,
    measure,
    measures,
    measures_fingerprint,
    unit_columns,
)
from sparse_vae.report.run_sets import open_runs
from sparse_vae.training import epoch_generator, mean_loss


class Given(LatentVariableModel):
    """Observations are codes, and a linear decoder makes something of them."""

    trained_by_fit = True
    likelihood = "gaussian"

    def __init__(self, atoms: Tensor, code: Callable[[Tensor], Tensor] | None = None):
        nn.Module.__init__(self)
        self.atoms, self.latent_dim, self.given_code = atoms, len(atoms), code or (lambda x: x)

    def code(self, x: Tensor) -> Tensor:
        return self.given_code(x)

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.atoms


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_of(x: Tensor, *, y: Tensor | None = None, factors: Tensor | None = None) -> Dataset:
    """A data set whose two parts are the same."""
    part = Split(x, y=y, factors=factors)
    return Dataset("given", part, part, likelihood="gaussian",
                   classes=() if y is None else tuple(map(str, range(int(y.max()) + 1))),
                   factor_names=() if factors is None else tuple(f"source {k}" for k in range(factors.shape[1])))


def of_codes(codes: list[list[float]] | Tensor, only: list[str] | None = None, **parts) -> framework.Measured:
    """What is measured where the code of an observation is the observation itself."""
    codes = torch.as_tensor(codes, dtype=torch.float32)
    return measure(Given(torch.eye(codes.shape[1])), made_of(codes, **parts), only=only)


def curve(measured: framework.Measured, name: str) -> dict[float, float]:
    rows = measured.curves[measured.curves["curve"] == name]
    return dict(zip(rows["x"].round(6), rows["value"], strict=True))


def cut(data: Dataset, train: int, test: int) -> Dataset:
    def first(part: Split, n: int) -> Split:
        return Split(*(None if value is None else value[:n] for value in vars(part).values()))
    return dataclasses.replace(data, train=first(data.train, train), test=first(data.test, test))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return cut(load_dataset("digits"), 250, 120)


def tiny(name: str, shape: tuple[int, ...] = (1, 8, 8), **settings) -> LatentVariableModel:
    if name in CLASSICAL:
        return make_model(name, shape, latent_dim=4, **settings)
    torch.manual_seed(0)
    return make_model(name, shape, latent_dim=4, likelihood="gaussian", backbone="mlp", hidden_dim=16,
                      **settings).eval()


# --- the registry


PROBES = ("logistic", "tuned", "cosine", "euclidean", "weighted")
CURVE_NAMES = """
population_histogram lifetime_histogram size_histogram kl_by_rank importance_weighted_bounds selectivity_by_rank
error_by_largest error_by_pruning source_recovery awake_by_regime size_by_regime"""


def test_what_the_published_columns_are_is_that_of_the_measures():
    about = json.loads((Path(__file__).parents[1] / "results" / "measures.json").read_text())
    said = ("title", "digits", "scale", "description")
    assert about == {measure.name: {name: getattr(measure, name) for name in said}
                     for measure in MEASURES.values()}, "make graphics writes it again"


def test_every_curve_is_there_and_titles_are_told_apart():
    """Notebooks and published tables go by these names."""
    noises = {f"{noisy}{similarity}_{kind}" for noisy in ("", "noisy_") for similarity in ("psnr", "ssim")
              for kind in ("gaussian", "salt_and_pepper", "masking")}
    assert set(CURVES) == noises | set(CURVE_NAMES.split())
    assert next(iter(MEASURES)) == "loss"  # the first columns of tables
    assert len({each.title for each in MEASURES.values()}) == len(MEASURES)  # which are headed by titles


@pytest.mark.parametrize("each", [*MEASURES.values(), *CURVES.values()], ids=lambda each: each.name)
def test_declarations_are_whole(each):
    assert each.better in ("higher", "lower", "")
    assert each.title
    assert each.description[-1] not in ".,;"
    assert ("(%)" in each.title) == (each.scale == 100)
    for noun in ("fraction", "logistic", "cosine_", "euclidean"):
        assert each.scale == 100 or noun not in each.name


@pytest.fixture
def registry(monkeypatch):
    """An empty registry."""
    for name, empty in (("GROUPS", []), ("UNIT_COLUMNS", []), ("MEASURES", {}), ("CURVES", {})):
        monkeypatch.setattr(framework, name, empty)
    return framework


def test_only_what_is_asked_for_is_computed(registry):
    called = []
    for name in ("first", "second"):
        measures(Measure(name, name, 0, "a number"), Curve(f"{name}_curve", name, "x", "a curve"))(
            lambda subject, name=name: called.append(name) or {name: 1.0, f"{name}_curve": ([1, 2], [3, 4])})
    unit_columns()(lambda subject: called.append("units") or {"twice": [0, 2]})
    codes = [[1.0, 0.0]]
    assert of_codes(codes, only=["second"]).values == {"second": 1.0}
    assert called == ["second"]
    assert curve(of_codes(codes, only=["first_curve"]), "first_curve") == {1: 3, 2: 4}
    assert called == ["second", "first"]
    assert of_codes(codes, only=["units"]).units.to_dict("list") == {"unit": [0, 1], "twice": [0, 2]}
    assert called == ["second", "first", "units"]
    everything = of_codes(codes)
    assert (everything.values, called[3:]) == ({"first": 1.0, "second": 1.0}, ["first", "second", "units"])
    with pytest.raises(SettingError, match="unknown measure 'third'"):
        of_codes(codes, only=["third"])


def test_what_cannot_be_said_is_left_out(registry):
    measures(*(Measure(name, name, 0, "a number") for name in "abcd"), Curve("curve", "c", "x", "a curve"),
             Curve("nothing", "n", "x", "a curve"))(
        lambda subject: {"a": None, "b": math.nan, "c": math.inf, "curve": ([1, 2, 3, 4], [5, math.nan, 7, math.inf]),
                         "nothing": None})
    found = of_codes([[1.0]])
    assert found.values == dict.fromkeys("abcd")
    assert curve(found, "curve") == {1: 5, 3: 7}
    assert list(found.curves["curve"].unique()) == ["curve"]


def test_needs_are_honoured_and_unknown_ones_refused(registry):
    for need in framework.NEEDS:
        measures(Measure(need, need, 0, "a number"), needs=[need])(lambda subject, need=need: {need: 1})
    y, factors = torch.tensor([0, 1]), torch.tensor([[0.0], [2.0]])
    codes = [[1.0], [2.0]]
    assert set(of_codes(codes).values) == set()
    assert set(of_codes(codes, y=y).values) == {"classes"}
    assert set(of_codes(codes, factors=factors).values) == {"sources"}
    assert set(measure(tiny("vae"), cut(load_dataset("digits"), 100, 100)).values) == {"classes", "prior", "images"}
    assert set(measure(tiny("topk", (50,), k=1), load_dataset("returns", n_days=200)).values) == {
        "classes", "sources", "returns"}
    assert set(measure(tiny("topk", (32,), k=1), load_dataset(
        "sinusoids", n_train=9, n_test=9, length=32, n_frequencies=4)).values) == {"sources", "sinusoids"}
    for register in (measures, unit_columns):
        with pytest.raises(SettingError, match=r"unknown need of a measure 'labels'; .*Known: classes, sources"):
            register(needs=["labels"])
    with pytest.raises(SettingError, match="measure 'prior' is there already"):
        measures(Measure("prior", "again", 0, "a number"))


def test_a_class_without_observations_is_no_need_met():
    y = torch.tensor([0, 1, 0])
    data = dataclasses.replace(made_of(torch.eye(3), y=y), classes=("a", "b", "c"))
    assert "selectivity" not in measure(Given(torch.eye(3)), data, only=["selectivity"]).values


def test_an_unknown_measure_is_named_with_the_nearest():
    with pytest.raises(SettingError, match="unknown measure 'hoyr'; did you mean 'hoyer'"):
        find_measure("hoyr")


@pytest.fixture
def sparsity_source(monkeypatch, tmp_path):
    """A copy of the module with ``hoyer`` that is read in its place; what is read is forgotten at the end."""
    module, path_of = "sparse_vae.evaluation.sparsity", freshness._path
    copy = tmp_path / "sparsity.py"
    copy.write_text(Path(evaluation.hoyer.__code__.co_filename).read_text())
    monkeypatch.setattr(freshness, "_path", lambda name: copy if name == module else path_of(name))
    yield copy
    freshness._read.cache_clear()


@pytest.mark.heavy
def test_the_fingerprint_follows_the_source_of_hoyer_and_no_comment(sparsity_source):
    def fingerprint(change: str = "", to: str = "") -> str:
        before = sparsity_source.read_text()
        assert change in before
        sparsity_source.write_text(before.replace(change, to, 1))
        freshness._read.cache_clear()
        found = measures_fingerprint()
        sparsity_source.write_text(before)
        return found

    plain = fingerprint()
    assert fingerprint("math.sqrt(code.shape[1])", "math.sqrt(code.shape[1])  # √J") == plain
    assert fingerprint("Hoyer's sparseness of each", "The sparseness of each") == plain
    assert fingerprint("math.sqrt(code.shape[1])", "math.sqrt(code.shape[0])") != plain
    assert {"sparse_vae.report.measures_of_codes", "sparse_vae.report.measures_of_truth",
            "sparse_vae.evaluation.probes"} <= freshness.reached_from(["sparse_vae.report.measures"])


# --- every model


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_measured(name, digits):
    model = tiny(name)
    model.prepare(digits.train.x, generator=seeded())
    found = measure(model, digits, seed=3)
    known = {key: value for key, value in found.values.items() if value is not None}
    assert all(math.isfinite(value) for value in known.values())
    assert all(0 <= value <= 1 for key, value in known.items() if MEASURES[key].scale == 100)
    always = {"loss", "mean_squared_error", "hoyer", "logistic_200", "entries_needed", "dimensions_needed", "l0"}
    assert always <= known.keys()
    assert ("importance_weighted_bound" in known) == ("negative_elbo" in known) == isinstance(model, GenerativeModel)
    assert not {"logistic_1000", "matched_correlation", "signal_error", "awake_f1"} & known.keys()
    assert set(found.curves["curve"]) >= {"psnr_masking", "ssim_gaussian", "error_by_largest", "population_histogram"}
    assert len(found.units) == 4
    assert found.seconds > 0


@pytest.mark.parametrize("name", ["vae", "vsc", "topk", "jumprelu"])
def test_the_summary_is_what_the_functions_say(name, digits):
    model, x = tiny(name), digits.test.x
    with torch.no_grad():
        reconstruction, active, loss = model.reconstruct(x), model.active(x), mean_loss(model, x, seed=2)
    found = measure(model, digits, seed=2, only=["loss"]).values
    assert found["loss"] == pytest.approx(loss["total"])
    assert found["reconstruction_loss"] == pytest.approx(loss["reconstruction"])
    assert found["mean_squared_error"] == pytest.approx((x - reconstruction).square().mean().item(), rel=1e-4)
    assert found["explained_variance"] == pytest.approx(evaluation.explained_variance(x, reconstruction), rel=1e-4)
    assert found["active_fraction"] == pytest.approx(active.float().mean().item(), abs=1e-6)
    assert found["used_dimensions"] == sum(rate >= 0.01 for rate in active.float().mean(0).tolist())
    assert found["parameters"] == count_parameters(model)
    if isinstance(model, GenerativeModel):
        expected = model.negative_elbo(x, generator=epoch_generator(2, 0)).mean().item()
        assert found["negative_elbo"] == pytest.approx(expected, rel=1e-5)
    else:
        assert found["negative_elbo"] is None


def test_a_validation_part_is_measured_in_place_of_the_test_data(digits):
    model, held = tiny("vae"), digits.hold_out(100)
    as_test = dataclasses.replace(held, test=held.validation, validation=None)
    names = ["loss", "selectivity", "logistic_200", "sample_distance"]
    assert measure(model, held, only=names).values == measure(model, as_test, only=names).values
    assert measure(model, held, only=names).values != measure(model, digits, only=names).values


@pytest.mark.heavy
def test_the_same_seed_measures_the_same(digits):
    model = tiny("vsc")
    first, again, other = (measure(model, digits, seed=seed) for seed in (1, 1, 2))
    assert first.values == again.values
    pd.testing.assert_frame_equal(first.curves, again.curves)
    drawn = {"loss", "negative_elbo", "importance_weighted_bound", "selectivity_shuffled"}
    assert {key for key in drawn if first.values[key] != other.values[key]} == drawn
    assert first.values["hoyer"] == other.values["hoyer"]


# --- sparsity


def test_sparsity_by_hand():
    found = of_codes([[3.0, -4.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]] * 150, only=["hoyer"]).values
    # By row: 2 and 2 active; Hoyer (2 − 7/5) and (2 − √2); Treves–Rolls .51/.75 and (1 − .5)/.75.
    assert found["l0"] == 2
    assert found["hoyer"] == pytest.approx((0.6 + 2 - math.sqrt(2)) / 2, abs=1e-6)
    assert found["treves_rolls"] == pytest.approx((0.68 + 2 / 3) / 2, abs=1e-6)
    assert (found["dead_fraction"], found["nonzero_fraction"], found["used_fraction"]) == (0.5, 0.5, 0.5)
    assert found["mean_activation"] == pytest.approx(1 / 8)
    assert (found["rarely_active"], found["sometimes_active"], found["always_active"]) == (2, 0, 2)
    # Of the alive two over 300 observations: magnitudes (3, 1) and (4, 1) repeated; (1 − mean²/mean square)/(1 − 1/n).
    assert found["lifetime_sparseness"] == pytest.approx((1 - 4 / 5 + 1 - 6.25 / 8.5) / 2 / (1 - 1 / 300), abs=1e-5)


def test_rates_at_the_limits():
    codes = torch.zeros(200, 4)
    codes[:1, 0], codes[:2, 1], codes[:198, 2], codes[:199, 3] = 1, 1, 1, 1  # .5, 1, 99 and 99.5%
    found = of_codes(codes, only=["rarely_active", "used_fraction"]).values
    assert (found["rarely_active"], found["sometimes_active"], found["always_active"]) == (1, 2, 1)
    assert found["used_fraction"] == 0.75


def test_a_dead_code_has_no_lifetime_and_no_features():
    found = of_codes(torch.zeros(5, 3), only=["lifetime_sparseness", "feature_spread"]).values
    assert (found["lifetime_sparseness"], found["feature_spread"], found["feature_smoothness"]) == (None, None, None)
    assert (found["hoyer"], found["dead_fraction"]) == (1, 1)


def test_histograms_by_hand():
    found = of_codes([[2.0, 0.0], [2.0, 0.0], [2.0, 4.0], [2.0, 0.0]], only=["size_histogram"])
    population, lifetime, size = (curve(found, f"{name}_histogram") for name in ("population", "lifetime", "size"))
    assert len(population) == 20
    assert (population[0.525], population[0.975]) == (0.75, 0.25)  # one of two, two of two
    assert (lifetime[0.275], lifetime[0.975]) == (0.5, 0.5)  # a quarter of the observations, all of them
    assert size == pytest.approx({x: float(x == pytest.approx(0.975)) for x in size})  # each is its own mean size


def test_distances_of_sets_by_hand():
    # {0, 1}, {1}, {2}, {}: of the pairs 1/2, four times 1, and 1.
    codes, y = [[1.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]], torch.tensor([0, 0, 1, 1])
    found = of_codes(codes, y=y, only=["set_distance", "l0_deviation"]).values
    assert found["set_distance"] == pytest.approx(5.5 / 6)
    assert (found["set_distance_within"], found["set_distance_between"]) == (pytest.approx(0.75), 1)
    assert found["l0_deviation"] == pytest.approx(math.sqrt(0.5))  # 2, 1, 1, 0
    assert of_codes(torch.zeros(3, 2), only=["set_distance"]).values == {
        "set_distance": 0, "set_distance_within": None, "set_distance_between": None}


# --- features and parts of codes


def test_entries_by_hand():
    atoms = torch.tensor([[3.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    codes = torch.tensor([[2.0, 0.0], [0.0, -1.0], [0.0, 0.0]])
    model = Given(atoms, code=lambda x: codes[:len(x)])
    found = measure(model, made_of(codes @ atoms), only=["entry_extent"]).values
    assert found["entry_extent"] == pytest.approx((1 / 4 + 1) / 2)
    assert found["entry_effect"] == pytest.approx((6 / 2 + 1) / 2)
    assert set(of_codes(torch.zeros(3, 2), only=["entry_extent"]).values.values()) == {None}


def test_responses_of_units_are_those_of_one_unit_at_a_time():
    torch.manual_seed(0)
    model = make_model("autoencoder", (1, 8, 8), latent_dim=30, backbone="mlp")
    codes = torch.randn(150, 30, generator=seeded()) * (torch.rand(150, 30, generator=seeded(1)) < 0.4)
    codes[:, :3], codes[0, 4], codes[1:, 4] = 0, -2, 0

    def one_at_a_time(n_codes: int) -> Tensor:
        found = []
        for j in range(30):
            whole = codes[codes[:, j] != 0][:n_codes]
            if not len(whole):
                whole = torch.eye(30)[j:j + 1]
            without = whole.clone()
            without[:, j] = 0
            change = model.decode_mean(whole) - model.decode_mean(without)
            found.append((change * whole[:, j].sign()[:, None, None, None]).mean(0))
        return torch.stack(found)

    for n_codes in (64, 1, 1000, 5000):
        assert torch.allclose(evaluation.unit_responses(model, codes, n_codes=n_codes), one_at_a_time(n_codes),
                              atol=1e-6)


def test_features_are_of_the_used_dimensions():
    atoms = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0]])  # smooth, and as rough as can be
    codes = torch.tensor([[1.0, 0.0]] * 200)
    model = Given(atoms, code=lambda x: codes[:len(x)])
    found = measure(model, made_of(codes @ atoms), only=["feature_smoothness"]).values
    assert found["feature_smoothness"] == pytest.approx(1)
    assert found["feature_spread"] == pytest.approx(1)


def test_the_largest_entries_by_hand():
    # Never more than two entries: the error with one is what the smaller one leaves.
    codes = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, -4.0], [0.0, 0.0, 5.0]])
    found = of_codes(codes, only=["entries_needed"])
    assert curve(found, "error_by_largest") == pytest.approx({1: (1 + 4) / 9, 2: 0, 3: 0})
    assert found.values["entries_needed"] == 2
    assert found.values["mse_of_largest"] == pytest.approx(5 / 9)


def test_codes_refitted_and_pursued_by_hand():
    """The code halves its two entries, one of them on an atom that a pursuit would not choose."""
    atoms = 2 * torch.eye(3)
    model = Given(atoms, lambda x: torch.stack([x[:, 0] / 4, torch.zeros(len(x)), x[:, 2] / 4], dim=1))
    model.decoder_kind = "linear"
    x = torch.tensor([[4.0, 3.0, 1.0], [4.0, 3.0, 1.0]])
    found = measure(model, made_of(x), only=["mean_squared_error", "refit_mse", "pursuit_mse"]).values
    assert found["mean_squared_error"] == pytest.approx((4 + 9 + 0.25) / 3)
    assert found["refit_mse"] == pytest.approx(9 / 3)
    assert found["pursuit_mse"] == pytest.approx(1 / 3)
    model.decoder_kind = "network"
    assert "refit_mse" not in measure(model, made_of(x), only=["refit_mse"]).values


def test_the_largest_entry_is_the_one_that_changes_most():
    atoms, codes = torch.tensor([[10.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 2.0]] * 3)
    found = measure(Given(atoms, code=lambda x: codes[:len(x)]), made_of(codes @ atoms), only=["mse_of_largest"])
    assert found.values["mse_of_largest"] == pytest.approx(2)  # the second entry, of size 2, is left out


def test_pruning_by_hand():
    codes = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0], [3.0, 1.0, 1.0]])  # active: 2, 1 and 3 times
    found = of_codes(codes, only=["dimensions_needed"])
    assert curve(found, "error_by_pruning") == pytest.approx({1: (1 + 10) / 9, 2: 1 / 9, 3: 0})
    assert found.values["dimensions_needed"] == 3


def test_dense_codes_are_pruned_by_the_variance_of_their_values():
    codes = torch.stack([torch.full((50,), 0.1), torch.linspace(1, 5, 50)], 1)
    assert Subject(Given(torch.eye(2)), made_of(codes)).order_of_use.tolist() == [1, 0]


def test_within_a_tenth_is_as_good_as_whole():
    x = torch.tensor([[2.0, 0.3]] * 4)  # the code knows 1.9 of the first and .05 of the second value
    codes = torch.tensor([[1.9, 0.05]] * 4)
    model = Given(torch.eye(2), code=lambda x: codes[:len(x)])
    found = measure(model, made_of(x), only=["entries_needed"])
    # .01 + .09 against .01 + .0625: half as much again, so both are needed; of the larger one alone nothing is lost.
    assert found.values["entries_needed"] == 2
    codes[:, 1] = 0.005
    assert measure(model, made_of(x), only=["entries_needed"]).values["entries_needed"] == 1


# --- noise


def test_denoising_curves_are_means_over_the_first_observations(digits):
    model = tiny("topk", k=2)
    found = measure(model, digits, seed=5, only=["ssim_masking"])
    for kind, level in (("gaussian", 0.2), ("salt-and-pepper", 0.5), ("masking", 0.3)):
        noisy = evaluation.add_noise(digits.test.x, kind, level, value_range=digits.value_range, seed=5)
        for name, similarity in (("psnr", evaluation.psnr), ("ssim", evaluation.ssim)):
            key = f"{name}_{kind.replace('-', '_')}"
            for own, copy in ((key, model.reconstruct(noisy)), (f"noisy_{key}", noisy)):
                expected = similarity(digits.test.x, copy, 1.0).mean().item()
                if math.isfinite(expected):
                    assert curve(found, own)[level] == pytest.approx(expected, rel=1e-4), own
    without = evaluation.psnr(digits.test.x, model.reconstruct(digits.test.x)).mean().item()
    for kind in ("gaussian", "salt_and_pepper", "masking"):
        assert list(curve(found, f"psnr_{kind}")) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
        assert curve(found, f"psnr_{kind}")[0] == pytest.approx(without, rel=1e-4)
        assert 0 not in curve(found, f"noisy_psnr_{kind}")
        assert 0 not in curve(found, f"noisy_ssim_{kind}")


def test_what_is_no_image_has_no_ssim():
    found = of_codes(torch.randn(20, 4, generator=seeded()), only=["psnr_gaussian"])
    assert {name for name in found.curves["curve"].unique() if "ssim" in name} == set()
    assert {"noisy_psnr_gaussian"} <= set(found.curves["curve"])  # the reconstruction is exact: it has no PSNR
    assert 0.0 not in curve(found, "psnr_gaussian")


def test_the_gain_is_the_mean_over_the_levels(digits):
    found = measure(tiny("topk", k=2), digits, only=["ssim_gain_masking"])
    own, others = curve(found, "ssim_masking"), curve(found, "noisy_ssim_masking")
    assert found.values["ssim_gain_masking"] == pytest.approx(np.mean([own[level] - others[level] for level in others]))


# --- models with a prior


def test_training_observations_are_measured_like_the_test_data(digits):
    model = tiny("vsc")
    found = measure(model, digits, only=["elbo_gap", "negative_elbo"]).values
    x = digits.train.x[:len(digits.test.x)]
    other = measure(model, dataclasses.replace(digits, test=Split(x)), only=["negative_elbo"]).values
    assert found["train_negative_elbo"] == pytest.approx(other["negative_elbo"], rel=1e-6)
    assert found["train_mean_squared_error"] == pytest.approx(other["mean_squared_error"], rel=1e-6)
    assert found["elbo_gap"] == pytest.approx(found["negative_elbo"] - other["negative_elbo"], rel=1e-4)
    assert found["mse_ratio"] == pytest.approx(found["mean_squared_error"] / other["mean_squared_error"], rel=1e-5)


@pytest.mark.parametrize("name", ["vsc", "hybrid"])
def test_the_rate_of_spikes_is_that_of_samples_of_the_posterior(name, digits):
    model = tiny(name)
    probability, mean = evaluation.spikes(model, digits.test.x)
    found = measure(model, digits, only=["spike_rate"]).values
    assert found["spike_rate"] == pytest.approx(probability.mean().item())
    assert found["rate_ratio"] == pytest.approx(found["spike_rate"] / (0.2 if name == "vsc" else 0.1))
    on = probability > 0.5
    assert torch.allclose(torch.where(on, mean, 0), model.code(digits.test.x), atol=1e-6)
    units = evaluation.active_units(mean).sum().item()
    assert measure(model, digits, only=["active_units"]).values["active_units"] == units


def test_the_rate_of_a_learned_prior_is_that_of_the_pseudo_inputs_that_are_chosen(digits):
    model = tiny("vsc", n_pseudo_inputs=3)
    choice = model.choices(digits.test.x).mean(0)
    rates = model.encode(model.pseudo_inputs).spike_logit.sigmoid().mean(1)
    found = measure(model, digits, only=["prior_rate"]).values
    assert found["prior_rate"] == pytest.approx((choice * rates).sum().item(), rel=1e-5)
    assert measure(tiny("vsc", prior="fixed"), digits, only=["prior_rate"]).values["prior_rate"] == 0.2


def test_the_classifier_is_charged_its_divergence_from_the_best_choice(digits):
    model = tiny("vsc", n_pseudo_inputs=3, choice="classifier")
    found = measure(model, digits, only=["choice_gap", "negative_elbo"]).values
    own = model.choices(digits.test.x)
    model.choice = "optimal"
    best = model.choices(digits.test.x)
    assert found["choice_gap"] == pytest.approx((own * (own / best).log()).sum(1).mean().item(), rel=1e-3)
    assert found["optimal_choice_elbo"] == pytest.approx(found["negative_elbo"] - found["choice_gap"], rel=1e-5)
    assert "choice_gap" not in measure(model, digits, only=["choice_gap"]).values


class Charged(Given, GenerativeModel):
    """Of given KL and given importance weights."""

    def encode(self, x: Tensor) -> tuple[Tensor]:
        return (x,)

    def kl_per_dimension(self, x: Tensor) -> Tensor:
        return x.square()

    def negative_elbo(self, x: Tensor, *, generator=None) -> Tensor:
        return x.sum(1)

    def log_importance_weight(self, x: Tensor, *, generator=None) -> Tensor:
        return -x.sum(1) + torch.randn(len(x), generator=generator)


def test_charges_by_hand():
    codes = torch.tensor([[1.0, 0.0, 0.05], [1.0, 2.0, -0.05]])
    found = measure(Charged(torch.eye(3)), made_of(codes), only=["kl_total", "active_units"])
    assert found.values["kl_total"] == pytest.approx(1 + 2 + 0.0025)
    assert found.values["active_units"] == 1  # the variances are 0, 1 and .0025
    assert curve(found, "kl_by_rank") == pytest.approx({1: 2, 2: 1, 3: 0.0025})
    assert measure(Charged(torch.eye(3)), made_of(codes), only=["loss"]).values["negative_elbo"] == pytest.approx(2)


def test_bounds_where_they_are_known():
    """Weights that are log-normal about −Σx: −E ln (1/K) Σ exp(ε) goes from 0 at K = 1 to −½."""
    x = torch.arange(600, dtype=torch.float32)[:, None] / 600
    found = measure(Charged(torch.eye(1)), made_of(x), only=["bound_gap"])
    mean = x[:500].double().mean().item()
    bounds = curve(found, "importance_weighted_bounds")
    assert list(bounds) == [1, 10, 100, 500]
    # ε has variance 1, and there are 250,000 of them; the bias at K = 500 is (e − 1) / 2K.
    assert bounds[1] == pytest.approx(mean, abs=0.01)
    assert bounds[500] == pytest.approx(mean - 0.5 + (math.e - 1) / 1000, abs=0.015)
    assert list(bounds.values()) == sorted(bounds.values(), reverse=True)
    assert found.values["importance_weighted_bound"] == bounds[500]
    assert found.values["bound_gap"] == pytest.approx(bounds[1] - bounds[500])


def test_bounds_from_one_draw_are_those_of_its_groups():
    x = torch.randn(7, 2, generator=seeded())
    model = Charged(torch.eye(2))
    together = evaluation.importance_weighted_bounds(model, x, [1, 3, 12], batch_size=5, generator=seeded(1))
    alone = evaluation.importance_weighted_nll(model, x, 12, batch_size=5, generator=seeded(1))
    assert together[2].item() == pytest.approx(alone.mean().item(), rel=1e-6)
    rows, weights = [x[:5], x[5:]], []
    generator = seeded(1)
    for part in rows:  # 12 samples for each, as many at once as five rows allow
        at_once = 5 // len(part)
        weights.append(torch.cat([model.log_importance_weight(part.expand(at_once, *part.shape).flatten(0, 1),
                                                              generator=generator).view(at_once, len(part))
                                  for _ in range(12 // at_once)]))
    weights = torch.cat(weights, 1).double()
    assert together[0].item() == pytest.approx(-weights.mean().item(), rel=1e-6)
    thirds = [weights[k:k + 3].exp().mean(0).log() for k in (0, 3, 6, 9)]
    assert together[1].item() == pytest.approx(-torch.stack(thirds).mean().item(), rel=1e-6)
    for counts in ([], [2, 5], [0, 4]):
        with pytest.raises(SettingError, match="counts"):
            evaluation.importance_weighted_bounds(model, x, counts)


class Sampling(Charged):
    """A prior that draws what it was given."""

    def sample(self, n: int, *, generator=None) -> Tensor:
        return self.drawn[torch.randperm(len(self.drawn), generator=generator)[:n]]


def test_samples_are_as_far_from_the_data_as_they_are():
    images = torch.randn(900, 1, 4, 4, generator=seeded())
    data = dataclasses.replace(made_of(images[:300]), train=Split(images[300:600]))
    model, found = Sampling(torch.eye(16), code=lambda x: x.flatten(1)), {}
    others = images[600:]
    for name, drawn in (("same", others), ("far", others + 9), ("one", others[:1].expand_as(others))):
        model.drawn = drawn
        found[name] = measure(model, data, only=["sample_distance"]).values
    same, far, one = found.values()
    assert same["sample_detection"] == pytest.approx(0.5, abs=0.07)
    assert same["sample_distance"] == pytest.approx(same["data_distance"], rel=0.5)
    assert (far["sample_detection"], far["sample_precision"], far["sample_recall"]) == (1, 0, 0)
    assert far["sample_distance"] == pytest.approx(16 * 81, rel=0.05)
    assert one["sample_recall"] == 0
    assert one["sample_distance"] > 5 * same["sample_distance"]


# --- classes


def test_probes_see_the_labels_that_the_seed_draws(digits):
    data = load_dataset("digits")
    model = tiny("autoencoder")
    found = measure(model, data, seed=7, only=["logistic_200", "cosine_1000", "euclidean_200",
                                                "weighted_200"]).values
    parts = (evaluation.batched(model.code, data.train.x), data.train.y, evaluation.batched(model.code, data.test.x),
             data.test.y)
    assert found["logistic_200"] == pytest.approx(evaluation.logistic_probe(*parts, 200, 7), abs=0.006)
    assert found["logistic_1000"] == pytest.approx(evaluation.logistic_probe(*parts, 1000, 7), abs=0.006)
    assert found["cosine_1000"] == pytest.approx(evaluation.knn_probe(*parts, 1000, 7), abs=0.006)
    assert found["euclidean_200"] == pytest.approx(evaluation.knn_probe(*parts, 200, 7, metric="euclidean"), abs=0.006)
    weighted = evaluation.knn_probe(*parts, 200, 7, weighted=True)
    assert found["weighted_200"] == pytest.approx(weighted, abs=0.006)
    assert weighted != evaluation.knn_probe(*parts, 200, 7)
    assert found["logistic_5000"] is found["cosine_5000"] is found["euclidean_5000"] is None  # 1,437 are there
    assert found["logistic_200"] != measure(model, data, seed=8, only=["logistic_200"]).values["logistic_200"]


def test_probes_see_means_of_spikes_rather_than_cut_codes(digits):
    model = tiny("vsc", prior="fixed")
    train, test = (evaluation.spikes(model, part.x)[1].detach() for part in (digits.train, digits.test))
    found = measure(model, digits, seed=7, only=["logistic_200"]).values
    expected = evaluation.logistic_probe(train, digits.train.y, test, digits.test.y, 200, 7)
    assert found["logistic_200"] == pytest.approx(expected, abs=0.01)
    cut = evaluation.logistic_probe(model.code(digits.train.x).detach(), digits.train.y,
                                    model.code(digits.test.x).detach(), digits.test.y, 200, 7)
    assert abs(cut - expected) > 0.02


def test_smaller_draws_of_labels_are_part_of_larger_ones():
    y = torch.randint(5, (900,), generator=seeded())
    assert torch.equal(evaluation.labelled_subset(y, 700, 3)[:200], evaluation.labelled_subset(y, 200, 3))


def test_probes_of_codes_that_say_it_all():
    y = torch.arange(400) % 4
    found = of_codes(torch.nn.functional.one_hot(y).float(), y=y, only=["logistic_200", "cosine_200"]).values
    assert found["logistic_200"] == found["cosine_200"] == 1
    assert found["logistic_1000"] is None


def test_selectivity_by_hand():
    # For class 0, for class 1 with half of the others' mean, for nothing, and one that is never active.
    y = torch.tensor([0, 0, 1, 1])
    codes = [[1.0, -1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 2.0, -1.0, 0.0]]
    found = of_codes(codes, y=y, only=["selectivity"])
    assert found.values["selectivity"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.values["selective_fraction"] == pytest.approx(1 / 3)  # above a half, not at it
    assert found.values["classes_covered"] == 1
    assert curve(found, "selectivity_by_rank") == pytest.approx({1: 1, 2: 0.5, 3: 0})
    assert 0 <= found.values["selectivity_shuffled"] <= 1
    dead = of_codes(torch.zeros(4, 2), y=y, only=["selectivity"])
    assert set(dead.values.values()) == {None}
    assert len(dead.curves) == 0


def test_selectivity_of_shuffled_labels_is_chance():
    y = torch.arange(2000) % 2
    codes = torch.nn.functional.one_hot(y).float() + 1
    found = of_codes(codes, y=y, only=["selectivity"]).values
    assert found["selectivity"] == pytest.approx(1 / 3, abs=1e-5)
    assert found["selectivity_shuffled"] < 0.05


# --- sources


def test_sources_that_are_single_dimensions_are_recovered():
    sources = torch.randn(300, 2, generator=seeded())
    sources = torch.cat([sources, torch.ones(300, 1)], 1)  # one that does not vary says nothing
    codes = torch.stack([-3 * sources[:, 1], torch.randn(300, generator=seeded(1)), sources[:, 0]], 1)
    found = of_codes(codes, factors=sources)
    assert found.values["matched_correlation"] == pytest.approx(1)
    assert curve(found, "source_recovery") == pytest.approx({0: 1, 1: 1})
    assert found.values["sources_found"] == 2
    assert found.values["matched_by_dimension"] == pytest.approx(1)  # of three in use two have a source
    alone = of_codes(codes[:, :1], factors=sources, only=["sources_found"]).values
    assert (alone["sources_found"], alone["matched_by_dimension"]) == (1, pytest.approx(1))
    assert alone["matched_correlation"] == pytest.approx(0.5)
    varying, forest = sources[:, :2], ExtraTreesRegressor(20, min_samples_leaf=5, random_state=0)
    expected = evaluation.dci(codes, varying, estimator=forest)
    assert (found.values["dci_d"], found.values["dci_c"], found.values["dci_i"]) == pytest.approx(tuple(expected))
    assert found.values["dci_d"] > 0.7
    assert found.values["mig"] == pytest.approx(evaluation.mutual_information_gap(codes, varying))
    assert found.values["sap"] == pytest.approx(
        evaluation.sap(codes, varying, score=evaluation.squared_correlation))
    assert found.values["sap"] > 0.9


# --- returns


@pytest.fixture(scope="module")
def market() -> Dataset:
    return load_dataset("returns", n_days=1500, noise=0.0)


def test_the_factors_of_a_market_without_noise_are_found(market):
    back = torch.linalg.pinv(market.loadings)
    offset = (market.train.x - market.train.factors @ market.loadings)[0]

    def factors_of(x: Tensor) -> Tensor:
        codes = (x - offset) @ back
        return torch.where(codes.abs() < 1e-3, 0, codes)

    found = measure(Given(market.loadings, code=factors_of), market)
    assert found.values["awake_f1_at_rate"] == pytest.approx(1, abs=0.03)  # the rates of single factors differ
    for name in ("awake_f1", "awake_auc", "awake_ap", "loadings_cosine", "assets_ap"):
        assert found.values[name] == pytest.approx(1, abs=2e-3), name
    truth, y = market.test.factors, market.test.y
    assert curve(found, "awake_by_regime") == pytest.approx(
        {k: (truth[y == k] != 0).float().mean().item() for k in (0, 1)}, abs=2e-3)
    assert curve(found, "size_by_regime") == pytest.approx(
        {k: (truth[y == k].abs().mean() / truth.abs().mean()).item() for k in (0, 1)}, abs=1e-3)
    assert found.values["matched_correlation"] == pytest.approx(1, abs=1e-4)
    assert measure(Given(torch.eye(50)), dataclasses.replace(market, name="other"), only=["awake_f1"]).values == {}


def test_a_code_without_zeros_says_that_every_factor_is_always_awake(market):
    model = make_model("pca", (50,), latent_dim=8)
    model.fit(market.train.x)
    found = measure(model, market, only=["awake_f1"])
    share = (market.test.factors != 0).float().mean().item()
    assert found.values["awake_f1"] == pytest.approx(2 * share / (1 + share), abs=1e-6)  # recall 1, precision the share
    assert set(curve(found, "awake_by_regime").values()) == {1.0}


def test_every_code_gets_its_threshold():
    """A dense code of the factors with noise: its own zeros are worth nothing, thresholds from the training days much.
    """
    market = load_dataset("returns", n_days=1500)
    noise = torch.randn(len(market.train.x) + len(market.test.x), 8, generator=seeded()) * 0.05
    known = torch.cat([market.train.factors, market.test.factors]) + noise
    rows = {tuple(x.tolist()): code for x, code in zip(torch.cat([market.train.x, market.test.x]), known, strict=True)}
    model = Given(market.loadings, code=lambda x: torch.stack([rows[tuple(one.tolist())] for one in x]))
    found = measure(model, market, only=["awake_f1"]).values
    truth, test = (market.test.factors != 0).flatten(), known[len(market.train.x):]
    rate = (market.train.factors != 0).float().mean()
    above = test.abs() > known[:len(market.train.x)].abs().quantile(1 - rate, dim=0)
    assert found["awake_f1_at_rate"] == pytest.approx(f1_score(truth, above.flatten()))
    assert min(found["awake_f1_at_rate"], found["awake_f1_robust"]) > 0.9
    assert found["awake_f1"] < 0.5
    assert found["awake_auc"] == pytest.approx(roc_auc_score(truth, test.abs().flatten()), abs=0.01)


# --- sinusoids


def test_signals_on_their_own_dictionary_are_recovered():
    data = load_dataset("sinusoids", n_train=400, n_test=50, length=64, n_frequencies=8)
    model = make_model("sinusoids", (64,), latent_dim=16, n_nonzero=6)
    model.fit(data.train.x)
    model.mean.zero_()
    found = measure(model, data, only=["signal_error"]).values
    assert found["signal_error"] == pytest.approx(0, abs=1e-6)
    assert found["amplitude_error"] == pytest.approx(0, abs=1e-4)
    assert found["frequency_precision"] == found["frequency_recall"] == found["frequency_f1"] == 1
    assert found["omp_frequency_f1"] > 0.9  # about the mean of the training data, which is not 0


def test_recovery_by_hand():
    """Two frequencies in a signal: the code has one of them, at half its amplitude, and one that is not there."""
    data = load_dataset("sinusoids", n_train=4, n_test=1, length=32, n_frequencies=3, n_components=2)
    factors = torch.tensor([[2.0, 1.0, 0.0, 0.0, 0.0, 0.0]])  # sines of frequency 1 and 2
    data = dataclasses.replace(data, test=Split(factors @ data.loadings, factors=factors))
    model = Given(data.loadings, code=lambda x: torch.tensor([[1.0, 0.0, 0.5, 0.0, 0.0, 0.0]]).repeat(len(x), 1))
    found = measure(model, data, only=["signal_error"]).values
    assert found["signal_error"] == pytest.approx((1 + 1 + 0.25) * 16, rel=1e-5)  # sines have the squared norm T/2
    assert (found["frequency_precision"], found["frequency_recall"], found["frequency_f1"]) == (0.5, 0.5, 0.5)
    assert found["amplitude_error"] == pytest.approx((1 + 1) / 3, rel=1e-5)
    dense = Given(data.loadings, code=lambda x: torch.ones(len(x), 6))
    assert measure(dense, data, only=["omp_frequency_f1"]).values["omp_frequency_f1"] is None


# --- units


def test_units_by_hand():
    y = torch.tensor([0, 0, 1, 1])
    codes = torch.tensor([[1.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.0, 0.0]])
    units = of_codes(codes, y=y, only=["units"]).units
    assert list(units) == ["unit", "rate", "magnitude", "mean", "low", "high", "histogram", "strongest", "extent",
                           "nearest", "cosines", "preferred", "selectivity", "classes", "mean_0", "mean_1"]
    assert units["rate"].tolist() == [0.5, 0.75, 0]
    assert units["magnitude"].tolist()[:2] == pytest.approx([1, 4 / 3])
    assert math.isnan(units["magnitude"][2])
    assert units["strongest"][1].split()[0] == "3"
    assert sorted(units["strongest"][0].split()) == ["0", "1", "2", "3"]  # of nine, if there are so many
    assert units["preferred"].tolist()[:2] == [0, 1]
    assert units["selectivity"].tolist() == pytest.approx([1, 0.5, 0])
    assert units["mean"].tolist()[:2] == pytest.approx([1, 2 / 3])
    assert (units["low"].tolist()[:2], units["high"].tolist()[:2]) == ([1, -1], [1, 2])
    assert units["histogram"].tolist() == [
        "0 0 0 0 0 0 2 0 0 0 0 0", "1 0 0 0 0 0 0 0 1 0 0 1", "0 0 0 0 0 0 0 0 0 0 0 0"]
    assert units["extent"].tolist() == pytest.approx([1 / 3] * 3)  # atoms are single values
    assert units["nearest"].map(lambda text: sorted(text.split())).tolist() == [["1", "2"], ["0", "2"], ["0", "1"]]
    assert set(units["cosines"]) == {"0 0"}
    assert units["classes"].tolist() == ["100 0", "33 67", "0 0"]
    assert (units["mean_0"].tolist(), units["mean_1"].tolist()) == ([1, 0.5, 0], [0, 1.5, 0])
    charged = describe_units(Subject(Charged(torch.eye(3)), made_of(codes)))
    assert list(charged)[-1] == "kl"
    assert charged["kl"].tolist() == pytest.approx([0.5, 1.5, 0])


def test_the_units_that_add_the_most_similar():
    atoms = torch.tensor([[1.0, 0.0], [-3.0, 4.0], [0.0, 2.0]])
    model = Given(atoms, code=lambda x: torch.ones(len(x), 3))
    units = describe_units(Subject(model, made_of(torch.ones(4, 2))))
    assert units["nearest"].tolist() == ["1 2", "2 0", "1 0"]
    assert units["cosines"].tolist() == ["-60 0", "80 -60", "80 0"]


def test_the_source_of_a_unit():
    sources = torch.cat([torch.randn(300, 2, generator=seeded()), torch.ones(300, 1)], 1)[:, [2, 0, 1]]
    codes = torch.stack([sources[:, 2], -sources[:, 1], sources[:, 2] + 0.1 * sources[:, 1]], 1)
    units = of_codes(codes, factors=sources, only=["units"]).units
    assert units["source"].tolist() == [2, 1, 2]  # numbered with the one that does not vary
    assert units["source_correlation"].tolist()[:2] == pytest.approx([1, 1])
    assert units["matched"].tolist() == [1, 1, 0]


def test_the_nine_strongest_observations():
    codes = torch.arange(20, dtype=torch.float32)[:, None] * -1
    units = of_codes(codes, only=["units"]).units
    assert units["strongest"][0] == " ".join(str(n) for n in range(19, 10, -1))


# --- in tables


@pytest.mark.heavy
def test_every_measure_stands_in_the_table_of_runs_that_are_trained_here():
    runs = open_runs(train={"model": ["vae", "vsc", "topk"], "dataset": "digits", "latent_dim": 8, "epochs": 2,
                            "batch_size": 32, "backbone": "mlp"})
    table = runs.table(list(MEASURES))
    assert len(table) == 3
    absent = {f"{probe}_5000" for probe in PROBES} | {
        name for group in framework.GROUPS for name in (each.name for each in group.declared)
        if {"sources", "returns", "sinusoids", "classifier", "atoms"} & set(group.needs)}
    assert set(table) == {each.title for name, each in MEASURES.items() if name not in absent}
    dashes = table == "—"
    of_a_prior = {"weighted KL (nats)", "−ELBO (nats)", "KL (nats)", "bound (nats)", "gap (nats)",
                  "−ELBO, training (nats)", "−ELBO, test − training (nats)", "samples told (%)", "samples, Fréchet",
                  "samples, precision (%)", "samples, recall (%)", "training data told (%)", "training data, Fréchet",
                  "spikes on (%)", "spikes on, prior (%)", "γ / α"}
    assert set(table.columns[dashes.loc["TopK (k = 4)"]]) == of_a_prior
    of_spikes = {"spikes on (%)", "spikes on, prior (%)", "γ / α"}
    assert not dashes.loc["VAE", list(of_a_prior - of_spikes)].any()
    bounds = runs.curve("importance_weighted_bounds")
    assert bounds.groupby("label")["value"].count().tolist() == [4, 4]
    (first, *_) = runs
    assert len(runs.units(first)) == 8
