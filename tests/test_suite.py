"""Suites: read with care, executed in parallel, whatever happens to a run, a worker or the terminal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
import pytest

from sparse_vae.report import suite as suites
from sparse_vae.checks import SettingError
from sparse_vae.evaluation import summarise
from sparse_vae.report.runs import Run, is_finished, load_data, save_run, train_run
from sparse_vae.report.suites import (
    Outcome,
    draw_suite,
    expand_run,
    is_drawn,
    load_suite,
    outcome_table,
    parse_value,
    project_root,
    train_suite,
)

REPOSITORY = Path(__file__).parents[1]
TINY = "epochs: 1, latent_dim: 2, backbone: mlp, hidden_dim: 16"


@pytest.fixture
def project(tmp_path) -> Path:
    """A project folder with the notebooks and no suites."""
    shutil.copytree(REPOSITORY / "notebooks", tmp_path / "project" / "notebooks")
    (tmp_path / "project" / "experiments").mkdir()
    return tmp_path / "project"


def write_suite(project: Path, text: str, name: str = "tiny"):
    (project / "experiments" / f"{name}.yml").write_text(text)
    return load_suite(name, project)


def wait_for(condition: Callable[[], object], seconds: float = 120):
    """The condition's first true value; an error after so many seconds without one."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.05)
    return value


# --- reading


@pytest.mark.parametrize("name", suites.suite_names(REPOSITORY))
def test_the_suites_of_the_project_can_be_read(name):
    suite = load_suite(name, REPOSITORY)
    assert suite.runs
    assert suite.figures
    assert suite.folder == REPOSITORY / "results" / name


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
    ("runs: [{model: vea, dataset: digits}]", "run 1: unknown model 'vea'; did you mean 'vae'"),
    ("runs: [{model: {a: b}, dataset: digits}]", "run 1: model must be a name; got {'a': 'b'}"),
    ("runs: [{model: vae, dataset: 3}]", "run 1: dataset must be a name; got 3"),
    ("runs: [{model: vae, dataset: digts}]", "run 1: unknown data set 'digts'; did you mean 'digits'"),
    (f"runs: [{RUN}, {RUN}]", "run 2: two runs would lie in digits/vae/seed0; tell them apart with variant"),
    ("runs: [{model: vae, dataset: digits, epochs: [1, 2]}]", "run 1: two runs would lie in digits/vae/seed0"),
    (f"{TWO}, variant: '{{epoch}}'}}]", r"run 2: variant '\{epoch\}' must have only names .* they are seed"),
    (f"{TWO}, variant: '{{'}}]", r"run 2: variant '\{' must have"),
    ("runs: [{model: vae, dataset: smiley, dataset.seed: null, variant: 's{dataset.seed:g}'}]",
     "run 1: variant .* with formats that fit their values; they are dataset.seed=None"),
    (f"runs: [{RUN}]\ntitle: a\ntitle: b", "line 3: title is given twice"),
    (f"{TWO}, seed: 2}}]", "line 1: seed is given twice"),
    (f"runs: [{RUN}]\n? [a]\n: 3", "(?s)unhashable key.*line 2"),
    (f"{TWO}, variant: ../../x}}]", "run 2: variant becomes part of a file name and must not contain /"),
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
         r"figure 1: runs must leave at least one run; got \*, !digits/\*"),
        ("[{notebook: comparison, name: x, runs: ['*', '!digits/vea/*']}]", "fits no run, '!digits/vea/\\*'"),
        ("[{notebook: latent_grid, name: x, setps: 3}]",
         "figure 1: unknown parameter of notebook latent_grid 'setps'; did you mean 'steps'"),
        ("[{notebook: datasets, name: x, runs: '*'}]", "figure 1: notebook datasets draws no runs; take out runs"),
        ("[{notebook: datasets, name: x, data_root: d}]", "figure 1: data_root is the project's data folder"),
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


# --- outcomes


def test_the_table_says_what_ran_what_failed_and_why():
    assert outcome_table([Outcome("a", "done", 12.4), Outcome("longer", "failed", 3, "ValueError: no\nmore"),
                          Outcome("b", "skipped"), Outcome("c", "stopped", why="interrupted")]).splitlines() == [
        "a       done         12 s",
        "longer  failed        3 s  ValueError: no",
        "b       skipped       0 s",
        "c       stopped       0 s  interrupted",
        "1 done, 1 skipped, 1 failed, 1 stopped"]
    assert outcome_table([]) == ""


# --- training


def test_a_suite_trains_what_is_missing_or_changed_and_goes_on_past_failures(project):
    text = f"""
defaults: {{{TINY}}}
runs:
  - {{model: vae, dataset: digits}}
  - {{model: vae, dataset: returns, csv: missing.csv}}
  - {{model: autoencoder, dataset: digits}}
"""
    suite = write_suite(project, text)
    outcomes = train_suite(suite)
    assert [(outcome.name, outcome.status) for outcome in outcomes] == [
        ("digits/vae/seed0", "done"), ("returns/vae/seed0", "failed"), ("digits/autoencoder/seed0", "done")]
    assert outcomes[1].why == "DataError: cannot read missing.csv: No such file or directory"
    vae, failed, autoencoder = (suite.folder / outcome.name for outcome in outcomes)
    assert not failed.exists()
    for folder, run in ((vae, suite.runs[0]), (autoencoder, suite.runs[2])):
        assert is_finished(folder, run.config)
        assert {path.name for path in folder.iterdir()} == {
            "config.json", "metrics.json", "history.csv", "model.safetensors", "train.ipynb"}
        assert [path.name for path in folder.parent.iterdir()] == ["seed0"]  # nothing of the work in progress
    check_executed(vae / "train.ipynb", project, {
        "fig-training-digits-vae-seed0", "fig-run-reconstructions-digits-vae-seed0",
        "tbl-run-metrics-digits-vae-seed0"})

    before = (autoencoder / "train.ipynb").stat().st_mtime_ns
    suite = write_suite(project, text.replace("{model: vae, dataset: digits}",
                                              "{model: vae, dataset: digits, epochs: 2}"))
    assert [outcome.status for outcome in train_suite(suite)] == ["done", "failed", "skipped"]
    assert len(Run(vae).history) == 2
    assert (autoencoder / "train.ipynb").stat().st_mtime_ns == before


def check_executed(path: Path, project: Path, labels: set[str]) -> None:
    """An executed notebook carries its labels, captions and alternative texts, and nothing of this machine."""
    text = path.read_text()
    for machine in (str(project), str(project.parent), str(REPOSITORY), str(Path.home()), "papermill\": {"):
        assert machine not in text, machine
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    found = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not [output for output in cell.outputs if output.output_type == "error" or
                        output.get("name") == "stderr"]
            comments = [line.removeprefix("#| ").split(": ", 1) for line in cell.source.splitlines()
                        if line.startswith("#| ")]
            notes = {key: json.loads(value) for key, value in comments}
            if notes:
                found[notes["label"]] = notes
    assert found.keys() == labels
    for label, notes in found.items():
        wanted = {"fig": {"label", "fig-cap", "fig-alt"}, "tbl": {"label", "tbl-cap"}}.get(label[:3], {"label"})
        assert notes.keys() == wanted
        assert all(notes.values())


@pytest.mark.parametrize(("earlier", "kept"), [("{epochs: 1}", True), ("{epochs: 2}", False), (None, False)])
def test_work_in_progress_is_kept_for_the_same_parameters_only(project, monkeypatch, earlier, kept):
    def interrupted(template, target, parameters, root, **named):
        checkpoint = root / parameters["checkpoint"]
        found.append(checkpoint.exists())
        checkpoint.write_text("weights")
        raise KeyboardInterrupt

    found = []
    monkeypatch.setattr(suites, "execute_notebook", interrupted)
    for defaults in (earlier, "{epochs: 1}"):
        if defaults:
            suite = write_suite(project, f"defaults: {defaults}\nruns: [{RUN}]")
            with pytest.raises(KeyboardInterrupt):
                suites.execute_run(suite.runs[0], suite.folder / suite.runs[0].name, project)
    assert found[-1] == kept
    assert not (suite.folder / suite.runs[0].name).exists()


@pytest.mark.parametrize("text", ["", "{", b"\xff"])
def test_work_in_progress_with_a_damaged_record_starts_anew(project, monkeypatch, text):
    run, = write_suite(project, f"runs: [{RUN}]").runs
    partial = project / "results" / ".seed0.partial"
    partial.mkdir(parents=True)
    (partial / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    (partial / "checkpoint.safetensors").write_text("weights")
    monkeypatch.setattr(suites, "execute_notebook", lambda *arguments, **named: interrupt(partial))
    with pytest.raises(KeyboardInterrupt):
        suites.execute_run(run, project / "results" / "seed0", project)


def interrupt(partial: Path) -> None:
    assert [path.name for path in partial.iterdir()] == ["config.json"]
    raise KeyboardInterrupt


def test_work_in_progress_on_data_that_have_changed_starts_anew(project, monkeypatch):
    run, = write_suite(project, "runs: [{model: vae, dataset: returns, csv: own.csv}]").runs
    folder = project / "results" / "seed0"
    partial = folder.with_name(".seed0.partial")
    (project / "own.csv").touch()

    def leave_a_checkpoint(*arguments, **named):
        found.append((partial / "checkpoint.safetensors").exists())
        (partial / "checkpoint.safetensors").touch()
        raise KeyboardInterrupt

    found = []
    monkeypatch.setattr(suites, "execute_notebook", leave_a_checkpoint)
    for age in (0, 0, 10):
        if age:
            os.utime(project / "own.csv", (time.time() + age,) * 2)
        with pytest.raises(KeyboardInterrupt):
            suites.execute_run(run, folder, project)
    assert found == [False, True, False]


def test_of_two_that_train_one_run_the_second_says_that_it_waits_and_finds_it_finished(project, monkeypatch, capsys):
    run, = write_suite(project, f"defaults: {{{TINY}}}\nruns: [{RUN}]").runs
    folder, started, may_end = project / "results" / "seed0", [], threading.Event()

    def write(template, target, parameters, root, **named):
        started.append(target)
        assert may_end.wait(60)
        data = load_data(run.config)
        model, history = train_run(run.config, data, progress=False)
        save_run(root / parameters["output"], run.config, model, history, summarise(model, data))
        shutil.copy(template, target)

    monkeypatch.setattr(suites, "execute_notebook", write)
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(suites._train_one(run, folder, project)))
               for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: started)
    time.sleep(0.3)  # time for the second to go wrong
    may_end.set()
    for thread in threads:
        thread.join(60)
    assert [(outcome.status, outcome.why) for outcome in outcomes] == [("done", "")] * 2
    assert len(started) == 1
    assert is_finished(folder, run.config)
    assert [path.name for path in folder.parent.iterdir()] == ["seed0"]
    assert capsys.readouterr().err == f"{run.name}: waiting for another process, which trains it\n"


def test_a_failure_of_any_kind_is_an_outcome(project, monkeypatch):
    def out_of_disk(*arguments, **named):
        raise OSError(28, "No space left on device")

    suite = write_suite(project, f"runs: [{RUN}]")
    monkeypatch.setattr(suites, "execute_notebook", out_of_disk)
    outcome = suites._train_one(suite.runs[0], suite.folder / "x", project)
    assert (outcome.status, outcome.why) == ("failed", "OSError: [Errno 28] No space left on device")
    assert not (suite.folder / "x").exists()


def test_a_results_folder_that_cannot_be_written_is_said_before_anything_starts(project, monkeypatch):
    suite = write_suite(project, f"runs: [{RUN}]\nfigures: [{{notebook: datasets, name: all}}]")
    (project / "results").write_text("in the way")
    monkeypatch.setattr(suites, "_client", None)
    for work in (train_suite, draw_suite):
        with pytest.raises(SettingError, match=r"results cannot be written to .*tiny: "):
            work(suite)
    assert (project / "results").read_text() == "in the way"


@pytest.mark.parametrize("address", ["nonsense", "pigeon://here:1", "localhost:port", "tcp://127.0.0.1:1"])
def test_a_scheduler_that_does_not_answer_is_named(project, address):
    suite = write_suite(project, f"runs: [{RUN}]")
    with pytest.raises(SettingError, match=f"no dask scheduler answers at '{address}'"):
        train_suite(suite, scheduler=address)


def test_an_existing_cluster_works_and_the_death_of_its_worker_is_survived(project):
    from dask.distributed import Client, LocalCluster

    suite = write_suite(project, f"defaults: {{{TINY}}}\nruns: [{RUN}]")
    run, = suite.runs
    folder, outcomes = suite.folder / run.name, []
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
                      silence_logs="CRITICAL") as cluster, Client(cluster) as client:
        pids = client.run(os.getpid)
        work = threading.Thread(
            target=lambda: outcomes.extend(train_suite(suite, scheduler=cluster.scheduler_address)))
        work.start()
        # The notebook is being executed: its worker dies as if the machine had.
        wait_for(lambda: list(folder.parent.glob(".*.partial/config.json")) or not work.is_alive())
        victim, = (address for address, tasks in client.processing().items() if tasks)
        os.kill(pids[victim], signal.SIGKILL)
        work.join(timeout=180)
        assert not work.is_alive()
        assert pids[victim] not in client.run(os.getpid).values()
    assert [(outcome.name, outcome.status) for outcome in outcomes] == [(run.name, "done")]
    assert is_finished(folder, run.config)
    assert [path.name for path in folder.parent.iterdir()] == ["seed0"]


def test_an_interrupted_suite_keeps_what_is_finished_and_stops_the_rest(project):
    runs = "{model: vae, dataset: digits}"
    quick, = write_suite(project, f"defaults: {{{TINY}}}\nruns: [{runs}]").runs
    command = [sys.executable, "-m", "sparse_vae.report.cli", "train", "--suite", "tiny"]
    output = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=180).stdout
    assert output.splitlines()[-1] == "1 done"
    slow = "{model: vae, dataset: digits, seed: [1, 2], epochs: 1000000}"
    suite = write_suite(project, f"defaults: {{{TINY}}}\nruns: [{runs}, {slow}]")
    folders = [suite.folder / run.name for run in suite.runs]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    try:
        wait_for(lambda: any(path.with_name(f".{path.name}.partial").exists() for path in folders[1:]))
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
        output, errors = process.communicate(timeout=180)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, (output, errors)
    assert "Traceback" not in output + errors
    assert output.splitlines()[-1] == "1 skipped, 2 stopped"
    assert is_finished(folders[0], quick.config)
    assert not any(path.exists() for path in folders[1:])
    wait_for(lambda: not processes_in(project))


def test_outcomes_are_printed_as_they_come_even_into_a_pipe(project):
    write_suite(project, f"defaults: {{{TINY}}}\nruns: [{{model: vae, dataset: digits}}, "
                         "{model: vae, dataset: digits, seed: 1, epochs: 1000000}]")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    process = subprocess.Popen([sys.executable, "-m", "sparse_vae.report.cli", "train", "--suite", "tiny"], cwd=project,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
                               start_new_session=True)
    timer = threading.Timer(180, process.kill)
    timer.start()
    try:
        line = process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=180)
    finally:
        timer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert line.startswith("done")
    assert "digits/vae/seed0" in line


def test_an_interrupt_waits_until_dask_is_done_with_its_locks(project, monkeypatch):
    class Client:
        def submit(self, *arguments, pure):
            signal.raise_signal(signal.SIGINT)  # here an exception could leave a lock taken
            events.append("submitted")
            return Pending()

    class Pending:
        def add_done_callback(self, callback):
            events.append("watched")

    @contextmanager
    def client(scheduler, jobs):
        try:
            yield Client()
        finally:
            events.append("closed")

    events = []
    monkeypatch.setattr(suites, "_client", client)
    suite = write_suite(project, "runs: [{model: vae, dataset: digits, seed: [0, 1]}]")
    handler = signal.getsignal(signal.SIGINT)
    assert [outcome.status for outcome in train_suite(suite)] == ["stopped", "stopped"]
    assert events == ["submitted", "submitted", "watched", "watched", "closed"]
    assert signal.getsignal(signal.SIGINT) is handler


def processes_in(folder: Path) -> list[psutil.Process]:
    """Processes that work in a folder: the command, its workers and their kernels."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


# --- drawing


def write_runs(suite) -> None:
    """Train a suite's runs here and now."""
    for run in suite.runs:
        data = load_data(run.config)
        model, history = train_run(run.config, data, progress=False)
        save_run(suite.folder / run.name, run.config, model, history, summarise(model, data))


def test_a_suite_draws_what_is_missing_or_changed(project):
    text = f"""
defaults: {{{TINY}}}
runs: [{{model: [autoencoder, vae, beta-vae], dataset: digits}}]
figures:
  - {{notebook: datasets, name: all, datasets: [digits], examples: 3}}
  - {{notebook: comparison, name: first, runs: digits/*}}
"""
    suite = write_suite(project, text)
    with pytest.raises(SettingError, match="3 runs that the figures need are not finished, the first is "
                                           "digits/autoencoder/seed0; train them first: make train SUITE=tiny"):
        draw_suite(suite)
    write_runs(suite)
    outcomes = draw_suite(suite)
    assert [(outcome.name, outcome.status) for outcome in outcomes] == [
        ("datasets-all.ipynb", "done"), ("comparison-first.ipynb", "done")]
    drawn = suite.folder / "figures"
    assert {path.name for path in drawn.iterdir()} == {"datasets-all.ipynb", "comparison-first.ipynb"}
    check_executed(drawn / "datasets-all.ipynb", project, {"fig-datasets-all", "tbl-datasets-all"})
    check_executed(drawn / "comparison-first.ipynb", project, {
        "tbl-comparison-first", "fig-training-curves-first", "comparison-finding-first"})

    assert [outcome.status for outcome in draw_suite(suite)] == ["skipped", "skipped"]

    def up_to_date(suite):
        return [is_drawn(figure, suite) for figure in suite.figures]

    assert up_to_date(write_suite(project, text.replace("examples: 3", "examples: 4"))) == [False, True]
    template = project / "notebooks" / "datasets.ipynb"
    whole = template.read_text()
    template.write_text(whole + "\n")
    assert up_to_date(suite) == [False, True]
    template.write_text(whole)
    metrics = suite.folder / suite.runs[0].name / "metrics.json"
    whole = metrics.read_text()
    metrics.write_text(whole + "\n")
    assert up_to_date(suite) == [True, False]
    metrics.unlink()
    assert up_to_date(suite) == [True, False]
    metrics.write_text(whole)
    assert up_to_date(suite) == [True, True]
    for damaged in ("", "{}", "[]", '{"nbformat": 4}', (drawn / "comparison-first.ipynb").read_text()[:1000]):
        (drawn / "comparison-first.ipynb").write_text(damaged)
        assert up_to_date(suite) == [True, False]


def test_a_suite_without_figures_draws_none(project):
    assert draw_suite(write_suite(project, f"runs: [{RUN}]")) == []
