"""Suites: read with care, and a mistake named with its file and its entry."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest

from sparse_vae.checks import SettingError, parse_value
from sparse_vae.report.suites import (
    Suite,
    expand_run,
    load_suite,
    matching_names,
    project_root,
    suite_names,
    template_parameters,
)

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path) -> Path:
    """A project folder with the notebooks and no suites."""
    shutil.copytree(REPOSITORY / "notebooks", tmp_path / "project" / "notebooks")
    (tmp_path / "project" / "experiments").mkdir()
    return tmp_path / "project"


def write_suite(project: Path, text: str, name: str = "tiny") -> Suite:
    (project / "experiments" / f"{name}.yml").write_text(text)
    return load_suite(name, project)


@pytest.mark.parametrize("name", suite_names(REPOSITORY))
def test_the_suites_of_the_project_can_be_read(name):
    suite = load_suite(name, REPOSITORY)
    assert suite.runs
    assert suite.figures or not suite.published
    assert suite.folder == REPOSITORY / "results" / name
    assert suite.runs_folder == REPOSITORY / "runs" / name
    assert set(suite.published) <= {run.name for run in suite.runs}


@pytest.mark.parametrize(("text", "value"), [
    ("3", 3), ("1e-3", 0.001), ("-0.5", -0.5), ("true", True), ("False", False), ("null", None), ("None", None),
    ("conv", "conv"), ("'3'", "3"), ("[1, 2]", [1, 2]), ("2024-01-01", "2024-01-01"), ("a=b", "a=b"), ("", ""),
    ("{[]: 1}", "{[]: 1}"),
    (3, 3), (None, None), (True, True),
])
def test_values_are_read_from_their_text(text, value):
    result = parse_value(text)
    assert result == value
    assert type(result) is type(value)


def names(entry: dict) -> list[str]:
    return [run.name for run in expand_run(entry)]


def test_lists_stand_for_a_run_of_each_value():
    entry = {"dataset": ["digits", "smiley"], "model": ["vae", "autoencoder"], "seed": [0, 3], "epochs": 2}
    assert names(entry) == [f"{dataset}/{model}/seed{seed}" for dataset in ("digits", "smiley")
                            for model in ("vae", "autoencoder") for seed in (0, 3)]
    runs = list(expand_run(entry))
    assert runs[1].config.training.seed == 3
    assert {run.config.training.epochs for run in runs} == {2}
    assert runs[-1].parameters == {"model": "autoencoder", "dataset": "smiley", "settings": {"seed": 3, "epochs": 2}}


def test_a_variant_names_the_folder():
    entry = {"dataset": "digits", "model": "beta-vae", "beta": [1, 4]}
    assert names({**entry, "variant": "wide"}) == ["digits/beta-vae-wide/seed0"] * 2
    assert names({**entry, "variant": "beta{beta}"}) == ["digits/beta-vae-beta1/seed0", "digits/beta-vae-beta4/seed0"]


def test_a_setting_follows_another():
    entry = {"model": "vae", "dataset": "returns", "dataset.seed": "{seed}", "seed": [2, 5]}
    assert [(run.name, run.config.dataset_settings["seed"]) for run in expand_run(entry)] == [
        ("returns/vae/seed2", 2), ("returns/vae/seed5", 5)]


def test_a_variant_takes_settings_with_dots_in_their_names():
    entry = {"dataset": "smiley", "model": "vae", "dataset.n_train": 100}
    assert names({**entry, "variant": "n{dataset.n_train:05}"}) == ["smiley/vae-n00100/seed0"]


def test_texts_in_a_suite_are_read_as_on_the_command_line(project):
    # YAML 1.1 takes 1e-3 for a text.
    run, = write_suite(project, "runs: [{model: vae, dataset: digits, learning_rate: 1e-3}]").runs
    assert run.config.training.learning_rate == 0.001


def test_a_suite_by_hand(project):
    suite = write_suite(project, """
title: by hand
first: smiley
defaults: {epochs: 3}
runs:
  - {model: [vae, autoencoder], dataset: digits, latent_dim: 2, variant: plane}
  - {model: vae, dataset: smiley, epochs: 4, seed: [0, 1]}
figures:
  - {notebook: datasets, name: all, datasets: [digits]}
  - {notebook: latent_grid, name: first, runs: digits/*-plane/seed0, steps: 5}
  - {notebook: comparison, name: both, runs: [smiley/vae/seed1, "smiley/*"]}
""")
    assert (suite.title, suite.first, suite.second) == ("by hand", "smiley", "smiley")
    assert [run.name for run in suite.runs] == ["digits/vae-plane/seed0", "digits/autoencoder-plane/seed0",
                                                "smiley/vae/seed0", "smiley/vae/seed1"]
    assert [run.config.training.epochs for run in suite.runs] == [3, 3, 4, 4]
    assert [(figure.file_name, figure.runs, figure.parameters) for figure in suite.figures] == [
        ("datasets-all.ipynb", None, {"datasets": ["digits"]}),
        ("latent_grid-first.ipynb", ["digits/vae-plane/seed0", "digits/autoencoder-plane/seed0"], {"steps": 5}),
        ("comparison-both.ipynb", ["smiley/vae/seed1", "smiley/vae/seed0"], {})]  # each once


RUN = "{model: vae, dataset: digits}"
TWO = f"runs: [{RUN}, {{model: vae, dataset: digits, seed: 1"


@pytest.mark.parametrize(("text", "message"), [
    ("", "a suite is a mapping"), ("- a", "a suite is a mapping .* got list"),
    ("runs: [", r"(?s)while parsing.*line 1"), (f"runs:\n\t- {RUN}", "(?s)cannot start any token.*line 2"),
    (f"rnus: [{RUN}]", "unknown entry 'rnus'; did you mean 'runs'"),
    (f"runs: [{RUN}]\ntile: x", "unknown entry 'tile'; did you mean 'title'"),
    (f"runs: [{RUN}]\n3: x", "unknown entry 3; Known: title"),
    ("title: x", "needs a list of runs"), ("runs: []", "needs a list of runs"),
    ("runs: 3", "runs must be a list; got 3"), (f"runs: {RUN}", "runs must be a list"),
    ("runs: [vae]", "run 1: must be a mapping of settings; got 'vae'"),
    (f"runs: [{RUN}]\ndefaults: [3]", "defaults: must be a mapping of settings"),
    (f"runs: [{RUN}]\ndefaults: {{epocs: 3}}", "run 1: unknown setting .* 'epocs'; did you mean 'epochs'"),
    (f"{TWO}, epochz: 3}}]", "run 2: unknown setting for vae on digits 'epochz'; did you mean 'epochs'"),
    (f"{TWO}, epochs: ten}}]", "run 2: epochs must be an integer of at least 1; got 'ten'"),
    (f"{TWO}, epochs: 2.5}}]", "run 2: epochs must be an integer of at least 1; got 2.5"),
    (f"{TWO}, epochs: yes}}]", r"run 2: epochs must be an integer of at least 1; got True \(bool\)"),
    (f"{TWO}, epochs: {{a: 1}}}}]", "run 2: epochs must be an integer"),
    (f"{TWO}, latent_dim: [2, 0]}}]", "run 2: latent_dim must be an integer of at least 1; got 0"),
    (f"{TWO}, epochs: []}}]", r"run 2: epochs must have at least one value; got \[\]"),
    (f"{TWO}, 3: 4}}]", "run 2: must be a mapping of settings"),
    (f"{TWO}, beta: 4}}]", "run 2: unknown setting for vae on digits 'beta'"),
    ("runs: [{dataset: digits}]", "run 1: has no model"), ("runs: [{model: vae}]", "run 1: has no dataset"),
    ("runs: [{model: hybird, dataset: digits}]", "run 1: unknown model 'hybird'; did you mean 'hybrid'"),
    ("runs: [{model: {a: b}, dataset: digits}]", "run 1: model must be a name; got {'a': 'b'}"),
    ("runs: [{model: vae, dataset: 3}]", "run 1: dataset must be a name; got 3"),
    ("runs: [{model: vae, dataset: digts}]", "run 1: unknown data set 'digts'; did you mean 'digits'"),
    (f"runs: [{RUN}, {RUN}]", "run 2: two runs would lie in digits/vae/seed0; tell them apart with variant"),
    ("runs: [{model: vae, dataset: digits, epochs: [1, 2]}]", "run 1: two runs would lie in digits/vae/seed0"),
    (f"{TWO}, variant: '{{epoch}}'}}]", r"run 2: variant '\{epoch\}' must have only names .* they are seed"),
    (f"{TWO}, variant: '{{'}}]", r"run 2: variant '\{' must have"),
    ("runs: [{model: vae, dataset: returns, dataset.seed: '{sed}'}]", r"run 1: dataset.seed '\{sed\}' must have only"),
    ("runs: [{model: vae, dataset: returns, csv: null, variant: 's{csv:g}'}]",
     "run 1: variant .* with formats that fit their values; they are csv=None"),
    (f"runs: [{RUN}]\ntitle: a\ntitle: b", "line 3: title is given twice"),
    (f"{TWO}, seed: 2}}]", "line 1: seed is given twice"),
    (f"runs: [{RUN}]\n? [a]\n: 3", "(?s)unhashable key.*line 2"),
    (f"{TWO}, variant: ../../x}}]", "run 2: variant becomes part of a file name and must not contain /"),
    (f"runs: [{RUN}]\npublished: mnist/*",
     r"published: unknown run, or pattern that fits no run, 'mnist/\*'; Known: digits"),
    (f"runs: [{RUN}]\npublished:", "published: patterns of names are text, or a list of texts; got None"),
    (f"runs: [{RUN}]\nfirst: mnist", "unknown data set among the suite's runs 'mnist'; Known: digits"),
    *((f"runs: [{RUN}]\nfigures: {figures}", message) for figures, message in (
        ("3", "figures must be a list; got 3"), ("[x]", "figure 1: must be a mapping"),
        ("[{name: x}]", "figure 1: unknown notebook None; Known: .*activations"),
        ("[{notebook: latent_gird, name: x}]", "unknown notebook 'latent_gird'; did you mean 'latent_grid'"),
        ("[{notebook: datasets}]", "figure 1: has no name"),
        ("[{notebook: datasets, name: a/b}]", "figure 1: name becomes part of a file name"),
        ("[{notebook: comparison, name: x, runs: 'smiley/*'}]",
         r"figure 1: unknown run, or pattern that fits no run, 'smiley/\*'; Known: digits/vae/seed0"),
        ("[{notebook: comparison, name: x, runs: [digits/*, digits/vea/seed0]}]", "did you mean 'digits/vae/seed0'"),
        ("[{notebook: comparison, name: x, runs: ['*', '!digits/*']}]",
         r"figure 1: runs must leave at least one run; got \['\*', '!digits/\*'\]"),
        ("[{notebook: comparison, name: x, runs: ['*', '!digits/vea/*']}]", "fits no run, '!digits/vea/\\*'"),
        ("[{notebook: latent_grid, name: x, setps: 3}]",
         "figure 1: unknown parameter of notebook latent_grid 'setps'; did you mean 'steps'"),
        ("[{notebook: datasets, name: x, runs: '*'}]", "figure 1: notebook datasets draws no runs; take out runs"),
        ("[{notebook: datasets, name: x, data_root: d}]",
         "figure 1: data_root is the same for every figure of a suite; take it out"),
        ("[{notebook: comparison, name: x, suite: report}]", "figure 1: suite is the same for every figure"),
        ("[{notebook: datasets, name: x}, {notebook: datasets, name: x}]",
         "figure 2: two figures would lie in datasets-x.ipynb; give them different names"),
    )),
])
def test_a_mistake_is_named_with_its_place(project, text, message):
    with pytest.raises(SettingError, match=f"^experiments/tiny.yml: .*{message}" if "(?s)" not in message else message):
        write_suite(project, text)


def test_a_suite_that_is_not_text(project):
    (project / "experiments" / "tiny.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingError, match=r"experiments/tiny.yml: .*decode"):
        load_suite("tiny", project)


@pytest.mark.parametrize("name", ["../experiments/tiny", "deep/tiny", "tiny.yml", "a.b", ""])
def test_a_suite_has_a_plain_name(project, name):
    write_suite(project, f"runs: [{RUN}]")
    with pytest.raises(SettingError, match="a suite's name has letters, digits, - and _ alone"):
        load_suite(name, project)


@pytest.mark.parametrize(("source", "message"), [
    (None, "notebook own has no cell with the tag parameters"),
    ("a, b = 1, 2", "the parameters cell of notebook own must be plain Python, one name = value for each"),
    ("%matplotlib inline\na = 1", "the parameters cell of notebook own must be plain Python"),
    ("[]", r"own\.ipynb is damaged or not a notebook"),
])
def test_a_notebook_of_ones_own_that_cannot_be_used_is_named(project, source, message):
    cell = nbformat.v4.new_code_cell(source or "", metadata={"tags": ["parameters"] if source else []})
    text = nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))
    (project / "notebooks" / "own.ipynb").write_text("[]" if source == "[]" else text)
    with pytest.raises(SettingError, match=f"figure 1: .*{message}"):
        write_suite(project, f"runs: [{RUN}]\nfigures: [{{notebook: own, name: x}}]")


def test_an_unknown_suite_names_the_nearest(project):
    write_suite(project, f"runs: [{RUN}]")
    with pytest.raises(SettingError, match="unknown suite 'tny'; did you mean 'tiny'"):
        load_suite("tny", project)


def test_the_project_is_found_from_within(project, monkeypatch):
    (project / "results" / "deep").mkdir(parents=True)
    monkeypatch.chdir(project / "results" / "deep")
    assert project_root() == project
    monkeypatch.chdir(project.parent)
    with pytest.raises(SettingError, match="is not inside the project"):
        project_root()


# --- names


NAMES = ["a/vae/seed0", "a/vae/seed1", "a/vsc/seed0", "b/vae/seed0"]


@pytest.mark.parametrize(("patterns", "expected"), [
    ("*", NAMES), ([], []), ("a/vsc/seed0", ["a/vsc/seed0"]), (["b/*", "*/seed0"], [NAMES[3], NAMES[0], NAMES[2]]),
    (["*", "!a/*"], [NAMES[3]]), (["*/vae/*", "!*/seed1", "a/vae/seed1"], [NAMES[0], NAMES[3], NAMES[1]]),
    (["*", "!*"], []), (["*/seed[1-9]"], [NAMES[1]]),
])
def test_patterns_take_names_in_their_order_each_once(patterns, expected):
    assert matching_names(NAMES, patterns) == expected


@pytest.mark.parametrize("pattern", ["a/vea/seed0", "!c/*", "A/*", ""])
def test_a_pattern_that_fits_nothing_is_named(pattern):
    with pytest.raises(SettingError, match=f"pattern that fits no run, '{re.escape(pattern)}'"):
        matching_names(NAMES, ["*", pattern])


def test_a_default_is_for_the_models_that_take_it():
    defaults = {"epochs": 3, "beta": 4.0, "seed": 1}
    vae, = expand_run({"model": "vae", "dataset": "digits"}, defaults)
    beta, = expand_run({"model": "beta-vae", "dataset": "digits", "seed": 2}, defaults)
    assert vae.parameters["settings"] == {"epochs": 3, "seed": 1}
    assert beta.parameters["settings"] == {"epochs": 3, "beta": 4.0, "seed": 2}
    assert vae.config.training.epochs == beta.config.training.epochs == 3
    assert beta.config.model_settings["beta"] == 4.0


@pytest.mark.parametrize(("published", "expected"), [
    (None, []), ("[]", []), ('"*/seed0"', ["digits/vae/seed0", "digits/vsc/seed0"]),
    ('["*", "!digits/vsc/*"]', ["digits/vae/seed0", "digits/vae/seed1"]),
])
def test_the_runs_whose_weights_are_published_are_patterns(project, published, expected):
    text = "runs: [{model: [vae, vsc], dataset: digits, seed: [0, 1]}]"
    assert write_suite(project, text + (f"\npublished: {published}" if published else "")).published == expected


def test_parameters_and_their_defaults(tmp_path):
    source = 'suite = None  # a suite\nruns = "*"\nfirst = second = 3\ntrain = {"model": ["vae"], "alpha": 2e-3}'
    cells = [nbformat.v4.new_markdown_cell("x = 1"), nbformat.v4.new_code_cell("other = 5"),
             nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "own.ipynb")
    assert template_parameters(tmp_path / "own.ipynb") == {
        "suite": None, "runs": "*", "first": 3, "second": 3, "train": {"model": ["vae"], "alpha": 0.002}}
