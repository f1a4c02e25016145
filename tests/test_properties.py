"""What users type, in hundreds of variants: it works, or one error explains it and nothing is left behind."""

from __future__ import annotations

import csv
import io
import json
import math
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.distributions import kl_divergence

from sparse_vae.checks import SettingError
from sparse_vae.configuration import RunConfig
from sparse_vae.datasets import DataError, dataset_names, dataset_settings, load_dataset
from sparse_vae.distributions import Gamma, SpikeSlab, Ternary
from sparse_vae.models import CLASSICAL, MODELS, model_settings
from sparse_vae.report import execution
from sparse_vae.report.cli import main
from sparse_vae.report.suites import Suite, load_suite
from sparse_vae.report.tables import config_of, setting_text, settings_of
from sparse_vae.training import TRAINING_SETTINGS


def cases(number: int):
    """So many cases, the same ones each time."""
    return settings(max_examples=number, derandomize=True, database=None, deadline=None,
                    suppress_health_check=list(HealthCheck))


MODEL_NAMES = [*MODELS, *CLASSICAL]
KEYS = sorted({*TRAINING_SETTINGS, *(key for name in MODEL_NAMES for key in model_settings(name)),
               *(f"{prefix}{key}" for name in dataset_names() for key in dataset_settings(name)
                 for prefix in ("", "dataset."))})
words = st.sampled_from([
    "", "true", "none", "conv", "mlp", "cpu", "1e-3", "0x10", "1_0", "1e999", "nan", "[1, 2]", "[]", "{}", "{[]: 1}",
    "'a'", "b'a'", "1j", "../x", "/", "{epochs}", "{", "~", "a b", "=", "((((", "*"])
typed = st.one_of(words, st.integers().map(str), st.floats().map(repr),
                  st.text(st.characters(exclude_characters="\0")))
usual = st.sampled_from(["1", "2", "16", "0.5", "0", "1e-3"])


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project folder to be in, with one notebook; whoever trains a run there is interrupted."""
    folder = tmp_path_factory.mktemp("properties") / "project"
    (folder / "experiments").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "own.ipynb").write_text(json.dumps({
        "cells": [{"cell_type": "code", "execution_count": None, "id": "a", "metadata": {"tags": ["parameters"]},
                   "outputs": [], "source": "suite = None\nruns = '*'\nsize = 3"}],
        "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@cases(300)
@given(st.lists(st.one_of(
    st.sampled_from(MODEL_NAMES).map("model={}".format), st.sampled_from(dataset_names()).map("dataset={}".format),
    st.builds("{}={}".format, st.sampled_from(KEYS), usual | typed), typed), max_size=4))
def test_settings_on_the_command_line(project, arguments):
    def execute_run(run, folder, root, **options):
        assert folder.resolve().is_relative_to(project / "runs" / "local")
        trained.append(run.config)
        raise KeyboardInterrupt

    trained, output, errors = [], io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr(execution, "execute_run", execute_run)
        try:
            status = main(["train", *arguments])
        except SystemExit as end:  # what begins with - is an option
            assert any(argument.startswith("-") for argument in arguments)
            status = end.code
            assert status == 0 or "usage: sparse-vae" in errors.getvalue()
    assert not [path for path in project.rglob("*") if path.is_file() and path.suffix != ".ipynb"]
    if trained:
        config, = trained
        assert status == 130
        assert RunConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config
        row = {name: setting_text(value) for name, value in settings_of(config).items()}
        assert config_of({"model": config.model, "dataset": config.dataset, **row}) == config
    elif status:
        assert status == 2
        assert "error: " in errors.getvalue()
        assert "Traceback" not in errors.getvalue()


plain = st.one_of(st.none(), st.booleans(), st.integers(-5, 50), st.floats(), st.dates(), st.binary(max_size=3),
                  words, st.text(max_size=8))
nested = st.recursive(plain, lambda inner: st.lists(inner, max_size=3)
                      | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3), max_leaves=5)
runs = st.fixed_dictionaries({}, optional={
    "model": st.sampled_from(MODEL_NAMES) | nested, "dataset": st.sampled_from(dataset_names()) | nested,
    "latent_dim": st.lists(st.integers(1, 9), max_size=3) | nested, "epochs": st.integers(1, 3) | nested,
    "seed": st.integers(0, 9) | st.lists(st.integers(0, 3), max_size=3), "learning_rate": st.floats(0, 1) | nested,
    "variant": nested, "csv": nested})
patterns = st.sampled_from(["*", "digits/*", "!*/seed1", "["]) | nested
suites = st.fixed_dictionaries({"runs": st.lists(runs | nested, max_size=3) | nested}, optional={
    "title": nested, "first": st.sampled_from(dataset_names()) | nested, "second": nested, "defaults": runs | nested,
    "published": st.lists(patterns, max_size=2) | patterns, "other": nested,
    "figures": st.lists(st.fixed_dictionaries({}, optional={
        "notebook": st.just("own") | nested, "name": nested, "runs": patterns, "size": nested, "suite": plain}),
        max_size=2) | nested})


@cases(300)
@given(st.one_of(suites.map(lambda content: yaml.dump(content).encode()), st.text().map(str.encode),
                 st.binary(max_size=20)))
def test_suites(project, content):
    (project / "experiments" / "typed.yml").write_bytes(content)
    try:
        suite = load_suite("typed")
    except SettingError as error:
        assert str(error).startswith("experiments/typed.yml: ")  # noqa: PT017 (both outcomes are right)
    else:
        assert isinstance(suite, Suite)
        for run in suite.runs:
            assert (suite.runs_folder / run.name).resolve().is_relative_to(project / "runs" / "typed")
        json.dumps({"title": suite.title, "names": [run.name for run in suite.runs],
                    "parameters": [run.parameters for run in suite.runs]})  # what pages and notebooks are given
    finally:
        (project / "experiments" / "typed.yml").unlink()


cells = st.one_of(st.floats().map(repr), st.integers().map(str), st.text(max_size=6), st.dates().map(str),
                  st.sampled_from(["", "NA", "1e308", "-1e308", "1e-320", "1_0", "١", "0x1", "1,5", '"', "\n", "\0"]))


@cases(300)
@given(st.integers(1, 3), st.integers(28, 34), st.none() | st.binary(max_size=30),
       st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4), cells), max_size=4))
def test_returns_of_ones_own(tmp_path_factory, n_assets, n_days, instead, changes):
    rows = [["day", *(f"asset {n}" for n in range(n_assets))],
            *([f"2024-{1 + day // 28:02}-{1 + day % 28:02}", *(str((day * (n + 3)) % 7 / 10) for n in range(n_assets))]
              for day in range(n_days))]
    for row, column, text in changes:
        if row < len(rows) and column <= len(rows[row]):
            rows[row][column:column + 1] = [text]  # at its end, one more
    path = tmp_path_factory.getbasetemp() / "own.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    if instead is not None:
        path.write_bytes(instead)
    try:
        data = load_dataset("returns", csv=path)
    except DataError as error:
        assert str(error).startswith((str(path), "the returns of"))  # noqa: PT017
    else:
        assert len(data.train) + len(data.test) >= 28
        assert torch.allclose(data.train.x.std(0, correction=0), torch.ones(data.input_shape), atol=1e-3)
        assert data.test.x.isfinite().all()


numbers = st.one_of(st.floats(width=32), st.floats(1e-6, 1e4),
                    st.sampled_from([0.0, -0.0, 1e-6, 1e-45, 3e38, math.inf, math.nan]))
dtypes = st.sampled_from([torch.float32, torch.float64])


def made(distribution: type, is_valid: bool, *parameters: torch.Tensor):
    """The distribution; None where its parameters are refused, as they have to be."""
    if is_valid:
        return distribution(*parameters)
    with pytest.raises(ValueError, match="to satisfy the constraint"):
        distribution(*parameters)
    return None


def check_against_itself(distribution) -> None:
    sample = distribution.rsample(generator=torch.Generator().manual_seed(0))
    assert not sample.isnan().any()
    assert kl_divergence(distribution, distribution).abs().max() < 1e-3


def is_positive(value: torch.Tensor) -> bool:
    return bool((value > 0) & value.isfinite())


@cases(400)
@given(numbers, numbers, dtypes)
def test_parameters_of_gammas(k, rate, dtype):
    k, rate = torch.tensor([k, rate], dtype=dtype)
    gamma = made(Gamma, is_positive(k) and is_positive(rate), k, rate)
    if gamma is not None and 1e-6 <= k <= 1e6 and 1e-6 <= rate <= 1e6:
        k.requires_grad_()
        log_z = Gamma(k, rate).rsample_log(generator=torch.Generator().manual_seed(0))
        log_z.backward()
        assert log_z.isfinite()
        assert is_positive(k.grad)
        check_against_itself(gamma)


@cases(400)
@given(numbers, numbers, numbers, dtypes)
def test_parameters_of_spikes_and_slabs(logits, loc, scale, dtype):
    logits, loc, scale = torch.tensor([logits, loc, scale], dtype=dtype)
    distribution = made(SpikeSlab, bool(logits.isfinite() & loc.isfinite()) and is_positive(scale), logits, loc, scale)
    if distribution is not None and abs(logits) < 50 and abs(loc) < 1e6 and 1e-6 <= scale <= 1e6:
        check_against_itself(distribution)
        z = distribution.sample(generator=torch.Generator().manual_seed(0))
        assert distribution.log_prob(z).isfinite()


@cases(500)
@given(st.lists(numbers, min_size=3, max_size=3), dtypes)
def test_parameters_of_ternaries(logits, dtype):
    logits = torch.tensor(logits, dtype=dtype)
    distribution = made(Ternary, bool(logits.isfinite().all()), logits)
    if distribution is not None:
        assert set(distribution.sample(generator=torch.Generator().manual_seed(0)).reshape(-1).tolist()) <= {-1, 0, 1}
        if logits.abs().max() < 50:
            check_against_itself(distribution)
