"""Suites executed in parallel and published, whatever happens to a run, a worker or the terminal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import nbformat
import pandas as pd
import psutil
import pytest
from dask import distributed

from sparse_vae.checkpoints import train_run, weights_problem
from sparse_vae.checks import SettingError
from sparse_vae.configuration import configure, load_data
from sparse_vae.report import execution, freshness, site
from sparse_vae.report.execution import (
    Fingerprints,
    Outcome,
    check_writable,
    draw_suite,
    execute_figure,
    local_cluster,
    outcome_table,
    train_suite,
)
from sparse_vae.report.freshness import code_of, digest_of, imports_of, reached_from
from sparse_vae.report.measures import Measured, measures_fingerprint
from sparse_vae.report.runs import PACKAGE, is_finished, read_record, save_run
from sparse_vae.report.suites import Suite, load_suite
from sparse_vae.report.tables import FILES, TableError, collect, read_tables, weights_path

REPOSITORY = Path(__file__).parents[1]
TINY = "epochs: 1, latent_dim: 2, backbone: mlp, hidden_dim: 8"
RUN = "{model: vae, dataset: digits}"
VAE, RETURNS, AUTOENCODER = "digits/vae/seed0", "returns/vae/seed0", "digits/autoencoder/seed0"
TEXT = f"""
defaults: {{{TINY}}}
runs:
  - {{model: vae, dataset: digits}}
  - {{model: vae, dataset: returns, csv: missing.csv}}
  - {{model: autoencoder, dataset: digits}}
published: {VAE}
figures:
  - {{notebook: own, name: x, runs: {VAE}}}
  - {{notebook: datasets, name: all, datasets: [digits], examples: 3}}
  - {{notebook: comparison, name: first, runs: digits/*}}
"""
OWN = """suite = None
runs = "*"
train = {"model": "vae", "dataset": "returns", "csv": "../own.csv"}
data_root = "../data"
numbers = "experiments/numbers.csv"
"""


def write_project(folder: Path, text: str | None = None) -> Path:
    """A project folder with the notebooks, one more of its own, and the suite ``tiny``."""
    shutil.copytree(REPOSITORY / "notebooks", folder / "notebooks")
    cells = [nbformat.v4.new_code_cell(OWN, metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("from sparse_vae.report import open_runs\n"
                                       "from sparse_vae.report.notebook import say\n\n"
                                       'say(open_runs(suite, runs, train=train).frame["run"][0], label="own")')]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "notebooks" / "own.ipynb")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "numbers.csv").write_text("a,b\n1,2\n")
    if text:
        write_suite(folder, text)
    return folder


def write_suite(project: Path, text: str) -> Suite:
    (project / "experiments" / "tiny.yml").write_text(text)
    return load_suite("tiny", project)


@pytest.fixture
def project(tmp_path) -> Path:
    """A project folder with the notebooks and no suites."""
    return write_project(tmp_path / "project")


class Published(NamedTuple):
    """What executing a suite gave; the suite is not to be changed."""

    suite: Suite
    trained: list[Outcome]
    drawn: list[Outcome]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Published:
    """The suite of TEXT trained and drawn by a process of its own; its figures were drawn without the runs."""
    suite = load_suite("tiny", write_project(tmp_path_factory.mktemp("published") / "project", TEXT).resolve())
    with local_cluster(jobs=1) as address:  # a worker imports PyTorch, and so does what its kernels are forked from
        trained = train_suite(suite, scheduler=address)
        aside = suite.runs_folder.rename(suite.root / "aside")
        drawn = draw_suite(suite, scheduler=address)
    assert not suite.runs_folder.exists()
    aside.rename(suite.runs_folder)
    return Published(suite, trained, drawn)


@pytest.fixture
def suite(published, tmp_path) -> Suite:
    """A copy of the executed suite, to be changed."""
    shutil.copytree(published.suite.root, tmp_path / "copy")
    return load_suite("tiny", tmp_path / "copy")


@pytest.fixture
def executed(monkeypatch) -> list[str]:
    """Tasks are done here and now, and notebooks only as far as their result goes; the names of what was executed."""
    def execute(tasks: list, scheduler: str | None, unit: str) -> Iterator[Outcome]:
        for _, function, arguments in tasks:
            yield function(*arguments)

    def execute_notebook(template: Path, target: Path, parameters: dict, root: Path, **options) -> None:
        if template.stem == "train":
            config = configure(parameters["model"], parameters["dataset"], **parameters["settings"])
            write_run(config, root / parameters["output"])
            names.append(f"{config.dataset}/{config.model}/seed{config.training.seed}")
        else:
            names.append(template.stem)
        shutil.copy(template, target)

    names = []
    monkeypatch.setattr(execution, "_execute", execute)
    monkeypatch.setattr(execution, "execute_notebook", execute_notebook)
    return names


def write_run(config, folder: Path) -> None:
    """Train a run here and now, and measure next to nothing of it."""
    model, history = train_run(config, load_data(config), progress=False)
    curves = pd.DataFrame({"curve": "population_histogram", "x": [0.25], "value": [1.0]})
    units = pd.DataFrame({"unit": range(2), "rate": [1.0, 0.5]})
    save_run(folder, config, model, history, Measured({"loss": 1.5}, curves, units, seconds=0.5))


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def up_to_date(suite: Suite) -> list[bool]:
    """Of the figures of TEXT: own, datasets, comparison."""
    prints = Fingerprints(suite)
    return [prints.is_drawn(figure) for figure in suite.figures]


def edit_table(path: Path, run: str, column: str, value: object) -> None:
    table = pd.read_csv(path, dtype=str)
    table.loc[table["run"] == run, column] = value
    table.to_csv(path, index=False)


def wait_for(condition: Callable[[], object], seconds: float = 120):
    """The condition's first true value; an error after so many seconds without one."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.05)
    return value


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


def test_a_suite_is_trained_past_failures_and_published(published):
    suite = published.suite
    assert [(outcome.name, outcome.status) for outcome in published.trained] == [
        (VAE, "done"), (RETURNS, "failed"), (AUTOENCODER, "done")]
    assert published.trained[1].why == "DataError: cannot read missing.csv: No such file or directory"
    assert {path.relative_to(suite.runs_folder).as_posix() for path in suite.runs_folder.glob("*/*/*")} == {
        VAE, AUTOENCODER, "returns/vae/.seed0.partial"}  # work in progress of the run that failed alone
    for run in (suite.runs[0], suite.runs[2]):
        assert is_finished(suite.runs_folder / run.name, run.config)
        assert {path.name for path in (suite.runs_folder / run.name).iterdir()} == {
            "config.json", "measures.json", "history.csv", "curves.csv", "units.csv", "model.safetensors",
            "train.ipynb"}
    check_executed(suite.runs_folder / VAE / "train.ipynb", suite.root, {
        "fig-training-digits-vae-seed0", "fig-run-reconstructions-digits-vae-seed0",
        "tbl-run-metrics-digits-vae-seed0"})
    tables = read_tables(suite.folder)
    assert list(tables.runs["run"]) == [VAE, AUTOENCODER]
    assert list(tables.histories["epoch"]) == [1, 1]
    assert set(tables.units["run"]) == {VAE}
    assert {path.relative_to(suite.folder).as_posix() for path in suite.folder.rglob("*") if path.is_file()} == {
        "runs.csv", "histories.csv.gz", "curves.csv.gz", "units.csv.gz", "suite.json", "weights.zip",
        "figures/own-x.ipynb", "figures/datasets-all.ipynb", "figures/comparison-first.ipynb"}


def test_a_published_run_is_not_trained_again_and_stays_published(suite, executed):
    shutil.rmtree(suite.runs_folder)
    before = (suite.folder / "runs.csv").read_bytes()
    assert statuses(train_suite(suite)) == ["skipped", "failed", "skipped"]
    assert executed == []
    assert (suite.folder / "runs.csv").read_bytes() == before
    assert not weights_problem(weights_path(suite.folder, VAE))


def test_a_run_whose_settings_changed_is_trained_and_published_again(suite, executed):
    suite = write_suite(suite.root, TEXT.replace(RUN, "{model: vae, dataset: digits, epochs: 2}"))
    assert statuses(train_suite(suite)) == ["done", "failed", "skipped"]
    assert executed == [VAE]
    tables = read_tables(suite.folder)
    assert tables.runs.set_index("run")["epochs"].to_dict() == {VAE: "2", AUTOENCODER: "1"}
    assert tables.histories.groupby("run").size().to_dict() == {VAE: 2, AUTOENCODER: 1}


@pytest.mark.parametrize("at_hand", [True, False])
def test_lost_weights_are_published_again_from_the_run_or_trained(suite, executed, at_hand):
    (suite.folder / "weights.zip").unlink()
    if not at_hand:
        shutil.rmtree(suite.runs_folder)
    assert statuses(train_suite(suite)) == ["skipped" if at_hand else "done", "failed", "skipped"]
    assert executed == ([] if at_hand else [VAE])
    assert not weights_problem(weights_path(suite.folder, VAE))


def test_a_finished_run_that_is_not_published_is_published_without_training(suite, executed):
    shutil.rmtree(suite.folder)
    assert statuses(train_suite(suite)) == ["skipped", "failed", "skipped"]
    assert executed == []
    assert list(read_tables(suite.folder).runs["run"]) == [VAE, AUTOENCODER]


def test_a_run_measured_by_former_measures_is_measured_again_and_not_trained(suite, executed):
    path = suite.runs_folder / VAE / "measures.json"
    record = json.loads(path.read_text())
    measures = record["measures"]
    record["environment"]["measures"], record["measures"] = "0123456789ab", {"loss": -1.0}
    path.write_text(json.dumps(record))
    weights = (suite.runs_folder / VAE / "model.safetensors").read_bytes()
    assert statuses(train_suite(suite)) == ["measured", "failed", "skipped"]
    assert executed == []
    again = read_record(suite.runs_folder / VAE)
    assert again["environment"] == {**record["environment"], "measures": measures_fingerprint()}
    assert {key for key, value in again["measures"].items() if value is None} == {
        key for key, value in measures.items() if value is None}
    known = {key: value for key, value in measures.items() if value is not None}
    assert {key: again["measures"][key] for key in known} == pytest.approx(known, rel=1e-5)
    assert again["seconds"] == record["seconds"]
    assert (suite.runs_folder / VAE / "model.safetensors").read_bytes() == weights
    assert read_tables(suite.folder).runs.set_index("run")["loss"][VAE] == pytest.approx(measures["loss"], rel=1e-5)
    assert statuses(train_suite(suite)) == ["skipped", "failed", "skipped"]


def test_the_first_seed_of_everything_is_trained_first(project, executed):
    train_suite(write_suite(project, f"defaults: {{{TINY}}}\nruns: [{{model: [vae, autoencoder], dataset: digits, "
                                     "seed: [1, 0]}]"))
    assert executed == [VAE, AUTOENCODER, "digits/vae/seed1", "digits/autoencoder/seed1"]


def test_tables_that_cannot_be_read_are_refused_before_anything_is_trained(suite, executed):
    (suite.folder / "runs.csv").write_text("run,model\n")
    with pytest.raises(TableError, match=r"runs\.csv lacks the column dataset"):
        train_suite(suite)
    assert executed == []


@pytest.mark.parametrize(("earlier", "kept"), [("{epochs: 1}", True), ("{epochs: 2}", False), (None, False)])
def test_work_in_progress_is_kept_for_the_same_parameters_only(project, monkeypatch, earlier, kept):
    def interrupted(template, target, parameters, root, **named):
        checkpoint = root / parameters["checkpoint"]
        found.append(checkpoint.exists())
        checkpoint.write_text("weights")
        raise KeyboardInterrupt

    found = []
    monkeypatch.setattr(execution, "execute_notebook", interrupted)
    for defaults in (earlier, "{epochs: 1}"):
        if defaults:
            suite = write_suite(project, f"defaults: {defaults}\nruns: [{RUN}]")
            with pytest.raises(KeyboardInterrupt):
                execution.execute_run(suite.runs[0], suite.runs_folder / suite.runs[0].name, project)
    assert found[-1] == kept
    assert not (suite.runs_folder / suite.runs[0].name).exists()


@pytest.mark.parametrize("text", ["", "{", b"\xff"])
def test_work_in_progress_with_a_damaged_record_starts_anew(project, monkeypatch, text):
    run, = write_suite(project, f"runs: [{RUN}]").runs
    partial = project / "runs" / ".seed0.partial"
    partial.mkdir(parents=True)
    (partial / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    (partial / "checkpoint.safetensors").write_text("weights")
    monkeypatch.setattr(execution, "execute_notebook", lambda *arguments, **named: interrupt(partial))
    with pytest.raises(KeyboardInterrupt):
        execution.execute_run(run, project / "runs" / "seed0", project)


def interrupt(partial: Path) -> None:
    assert [path.name for path in partial.iterdir()] == ["config.json"]
    raise KeyboardInterrupt


def test_work_in_progress_on_data_that_have_changed_starts_anew(project, monkeypatch):
    run, = write_suite(project, "runs: [{model: vae, dataset: returns, csv: own.csv}]").runs
    folder = project / "runs" / "seed0"
    partial = folder.with_name(".seed0.partial")
    (project / "own.csv").touch()

    def leave_a_checkpoint(*arguments, **named):
        found.append((partial / "checkpoint.safetensors").exists())
        (partial / "checkpoint.safetensors").touch()
        raise KeyboardInterrupt

    found = []
    monkeypatch.setattr(execution, "execute_notebook", leave_a_checkpoint)
    for age in (0, 0, 10):
        if age:
            os.utime(project / "own.csv", (time.time() + age,) * 2)
        with pytest.raises(KeyboardInterrupt):
            execution.execute_run(run, folder, project)
    assert found == [False, True, False]


def test_of_two_that_train_one_run_the_second_says_that_it_waits_and_finds_it_finished(project, monkeypatch, capsys):
    run, = write_suite(project, f"defaults: {{{TINY}}}\nruns: [{RUN}]").runs
    folder, started, may_end = project / "runs" / "seed0", [], threading.Event()

    def write(template, target, parameters, root, **named):
        started.append(target)
        assert may_end.wait(60)
        write_run(run.config, root / parameters["output"])
        shutil.copy(template, target)

    monkeypatch.setattr(execution, "execute_notebook", write)
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(execution._train_one(run, folder, project)))
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
    monkeypatch.setattr(execution, "execute_notebook", out_of_disk)
    outcome = execution._train_one(suite.runs[0], suite.runs_folder / "x", project)
    assert (outcome.status, outcome.why) == ("failed", "OSError: [Errno 28] No space left on device")
    assert not (suite.runs_folder / "x").exists()


@pytest.mark.parametrize(("name", "works"), [("results", (train_suite, draw_suite)), ("runs", (train_suite,))])
def test_a_folder_that_cannot_be_written_is_said_before_anything_starts(project, monkeypatch, name, works):
    suite = write_suite(project, f"runs: [{RUN}]\nfigures: [{{notebook: datasets, name: all}}]")
    (project / name).write_text("in the way")
    monkeypatch.setattr(execution, "_client", None)
    for work in works:
        with pytest.raises(SettingError, match=rf"results cannot be written to .*{name}/tiny: "):
            work(suite)
    assert (project / name).read_text() == "in the way"


def test_many_commands_may_start_at_once_in_a_new_folder(tmp_path, at_once):
    def work():
        for _ in range(20):
            check_writable(folder)
            with suppress(OSError):  # as `collect` does where it has nothing to publish
                folder.rmdir()

    for number in range(20):
        folder = tmp_path / str(number) / "tiny"
        assert at_once(work) == []
        assert not folder.exists()


def test_many_collections_at_once_in_a_new_folder(project, at_once):
    suite = write_suite(project, f"defaults: {{{TINY}}}\nruns: [{RUN}]")
    run, = suite.runs
    write_run(run.config, suite.runs_folder / run.name)
    found = []

    def work():
        check_writable(suite.folder)
        found.extend(collect(suite))
        site.describe(suite)

    for rest in ([run.name], []):  # new, and collected before
        assert at_once(work) == []
        assert found == rest
        found.clear()
    assert {path.name for path in suite.folder.iterdir()} == {
        "runs.csv", "histories.csv.gz", "curves.csv.gz", "units.csv.gz", "suite.json"}


@pytest.mark.parametrize("address", ["nonsense", "pigeon://here:1", "localhost:port", "tcp://127.0.0.1:1"])
def test_a_scheduler_that_does_not_answer_is_named(project, monkeypatch, address):
    connect = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda address, timeout: connect(address, timeout="0.5s"))
    suite = write_suite(project, f"runs: [{RUN}]")
    with pytest.raises(SettingError, match=f"no dask scheduler answers at '{address}'"):
        train_suite(suite, scheduler=address)


@pytest.fixture(scope="module")
def cluster():
    """An existing cluster, of two workers with two threads each, and its client."""
    from dask.distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0",
                      silence_logs="CRITICAL") as cluster, Client(cluster) as client:
        yield cluster, client


def test_an_existing_cluster_works_and_the_death_of_its_worker_is_survived(project, cluster):
    cluster, client = cluster
    suite = write_suite(project, f"defaults: {{{TINY}}}\nruns: [{RUN}]")
    run, = suite.runs
    folder, outcomes = suite.runs_folder / run.name, []
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
    # All that its worker was given; dask itself has the libraries of its workers use one.
    assert read_record(folder)["environment"]["threads"] == 2


def test_the_threads_that_a_worker_was_given_are_one_run_s_at_a_time(tmp_path, cluster):
    def occupy():
        place = tmp_path / str(os.getpid())
        place.mkdir()  # fails where another is in the block
        time.sleep(0.3)
        place.rmdir()

    _, client = cluster
    futures = [client.submit(execution._attempt, name, occupy, pure=False) for name in "abcdef"]
    assert [future.result(60).status for future in futures] == ["done"] * 6


def test_the_terminal_shows_what_is_done_and_an_interrupt_keeps_it(project):
    suite = write_suite(project, f"defaults: {{{TINY}}}\nruns: [{RUN}, "
                                 "{model: vae, dataset: digits, seed: [1, 2], epochs: 1000000}]")
    folders = [suite.runs_folder / run.name for run in suite.runs]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    one_worker = "import os, sys; os.cpu_count = lambda: 1; from sparse_vae.report.cli import main; sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", one_worker, "train", "--suite", "tiny"], cwd=project,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                               start_new_session=True)
    timer = threading.Timer(180, process.kill)
    timer.start()
    try:
        line = process.stdout.readline()  # at once, although into a pipe
        wait_for(lambda: any(path.with_name(f".{path.name}.partial").exists() for path in folders[1:]))
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
        output, errors = process.communicate(timeout=180)
    finally:
        timer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, (output, errors)
    assert line.startswith("done")
    assert VAE in line
    assert "Traceback" not in output + errors
    assert "1 done, 2 stopped" in output.splitlines()
    assert is_finished(folders[0], suite.runs[0].config)
    assert not any(path.exists() for path in folders[1:])
    assert list(read_tables(suite.folder).runs["run"]) == [VAE]
    wait_for(lambda: not processes_in(project))


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
    monkeypatch.setattr(execution, "_client", client)
    suite = write_suite(project, "runs: [{model: vae, dataset: digits, seed: [0, 1]}]")
    handler = signal.getsignal(signal.SIGINT)
    assert [outcome.status for outcome in train_suite(suite)] == ["stopped", "stopped"]
    assert events == ["submitted", "submitted", "watched", "watched", "closed"]
    assert signal.getsignal(signal.SIGINT) is handler


# --- drawing


def test_figures_are_drawn_from_what_is_published_and_nothing_is_trained(published):
    suite, folder = published.suite, published.suite.folder / "figures"
    assert [(outcome.name, outcome.status) for outcome in published.drawn] == [
        ("own-x.ipynb", "done"), ("datasets-all.ipynb", "done"), ("comparison-first.ipynb", "done")]
    check_executed(folder / "own-x.ipynb", suite.root, {"own-x"})
    check_executed(folder / "datasets-all.ipynb", suite.root, {"fig-datasets-all", "tbl-datasets-all"})
    check_executed(folder / "comparison-first.ipynb", suite.root, {
        "tbl-comparison-first", "fig-training-curves-first", "tbl-generalisation-first", "comparison-finding-first"})
    facts = json.loads((suite.folder / "suite.json").read_text())
    assert facts["figures"] == ["own-x", "datasets-all", "comparison-first"]


def test_only_what_changed_is_drawn_again(suite, executed):
    assert statuses(draw_suite(suite)) == ["skipped"] * 3
    suite = write_suite(suite.root, TEXT.replace("examples: 3", "examples: 4"))
    assert statuses(draw_suite(suite)) == ["skipped", "done", "skipped"]
    assert executed == ["datasets"]
    assert statuses(draw_suite(suite)) == ["skipped"] * 3


def test_runs_that_are_not_published_are_named(project, executed):
    suite = write_suite(project, TEXT)
    write_run(suite.runs[0].config, suite.runs_folder / VAE)  # finished, and not yet published
    with pytest.raises(SettingError, match=f"no run that the figures need is published, the first is {VAE}; "
                                           "train them first: make train SUITE=tiny"):
        draw_suite(suite)
    assert executed == []
    assert not any(path.is_file() for path in suite.folder.rglob("*"))


def test_figures_wait_for_their_runs_while_the_others_are_drawn(suite, executed):
    suite = write_suite(suite.root, TEXT.replace("model: autoencoder", "model: autoencoder, hidden_dim: 7"))
    for figure in ("datasets-all", "comparison-first"):
        (suite.folder / "figures" / f"{figure}.ipynb").unlink()
    outcomes = draw_suite(suite)
    assert statuses(outcomes) == ["skipped", "done", "failed"]
    assert executed == ["datasets"]
    assert outcomes[2].why == ("of its 2 runs 1 are not published as the suite asks for them, the first is "
                               f"{AUTOENCODER}; to draw it: make train graphics SUITE=tiny")


def test_figures_of_runs_published_without_all_measures_are_kept(suite, executed):
    edit_table(suite.folder / "runs.csv", AUTOENCODER, "environment.measures", None)
    outcomes = draw_suite(suite)  # the comparison alone draws that run, and its row has changed
    assert statuses(outcomes) == ["skipped", "skipped", "kept"]
    assert outcomes[2].why.endswith("to draw it: make train graphics SUITE=tiny")
    assert executed == []
    (suite.folder / "figures" / "comparison-first.ipynb").unlink()  # there is nothing to keep
    assert statuses(draw_suite(suite)) == ["skipped", "skipped", "failed"]
    assert executed == []


def test_runs_measured_by_former_measures_are_warned_of(suite, executed, capsys):
    draw_suite(suite)
    assert capsys.readouterr().err == ""
    edit_table(suite.folder / "runs.csv", VAE, "environment.measures", "0123456789ab")
    assert statuses(draw_suite(suite)) == ["done", "skipped", "done"]
    assert capsys.readouterr().err == (
        "warning: 1 runs were measured before the measures changed, and figures show what was measured; where "
        "runs/tiny has them, make train SUITE=tiny measures them again\n")


def test_a_suite_without_figures_draws_none(project):
    assert draw_suite(write_suite(project, f"runs: [{RUN}]")) == []


def test_a_figure_that_fails_leaves_the_old_one(suite, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    figure, path = suite.figures[1], suite.folder / "figures" / suite.figures[1].file_name
    before = path.read_bytes()
    monkeypatch.setattr(execution, "execute_notebook", fail)
    with pytest.raises(OSError, match="No space left"):
        execute_figure(figure, suite, "other")
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 3


# --- freshness: what is drawn shows its runs, its template, its parameters and the code of the package


def test_what_was_drawn_is_up_to_date_whatever_the_times(suite):
    for path in suite.root.rglob("*"):
        os.utime(path, (0, 0))
    assert up_to_date(suite) == [True, True, True]


@pytest.mark.parametrize(("table", "run", "column", "expected"), [
    ("runs", VAE, "loss", [False, True, False]), ("runs", AUTOENCODER, "loss", [True, True, False]),
    ("histories", VAE, "seconds", [False, True, False]), ("curves", AUTOENCODER, "value", [True, True, False]),
    ("units", VAE, "rate", [False, True, False]),
])
def test_a_figure_is_stale_when_a_row_of_its_runs_changed(suite, table, run, column, expected):
    edit_table(suite.folder / FILES[table], run, column, "0.5")
    assert up_to_date(suite) == expected


def test_a_figure_is_stale_when_weights_of_its_runs_changed(suite):
    with zipfile.ZipFile(suite.folder / "weights.zip", "a") as archive:
        archive.writestr("digits/other/seed0.safetensors", b"of no run that a figure shows")
    assert up_to_date(suite) == [True, True, True]
    with zipfile.ZipFile(suite.folder / "weights.zip", "w") as archive:
        archive.writestr(f"{VAE}.safetensors", b"other")
    assert up_to_date(suite) == [False, True, False]
    (suite.folder / "weights.zip").write_bytes(b"damaged")
    assert up_to_date(suite) == [False, True, False]


def test_a_column_that_other_runs_brought_changes_nothing(suite):
    assert "mig" not in read_tables(suite.folder).runs
    edit_table(suite.folder / "runs.csv", AUTOENCODER, "mig", "0.5")
    assert up_to_date(suite) == [True, True, False]


def test_a_figure_is_stale_when_its_template_changed(suite):
    with (suite.root / "notebooks" / "datasets.ipynb").open("a") as file:
        file.write("\n")
    assert up_to_date(suite) == [True, False, True]


@pytest.mark.parametrize(("old", "new", "expected"), [
    ("runs: digits/*", "runs: digits/vae/*", [True, True, False]),
    (f"name: x, runs: {VAE}", f"name: x, runs: {VAE}, numbers: none.csv", [False, True, True]),
])
def test_a_figure_is_stale_when_a_parameter_changed(suite, old, new, expected):
    assert up_to_date(write_suite(suite.root, TEXT.replace(old, new))) == expected


@pytest.mark.parametrize("name", ["experiments/numbers.csv", "own.csv"])
def test_a_figure_is_stale_when_a_file_that_a_parameter_names_changed(suite, name):
    (suite.root / name).write_text("a,b\n3,4\n")
    assert up_to_date(suite) == [False, True, True]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nbformat": 4}', None])
def test_a_damaged_or_missing_figure_is_not_drawn(suite, text):
    path = suite.folder / "figures" / "comparison-first.ipynb"
    path.unlink() if text is None else path.write_text(text)
    assert up_to_date(suite) == [True, True, False]


@pytest.fixture
def package(tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of the package, whose sources count instead of its own."""
    copy, find = tmp_path / "sparse_vae", freshness._path.__wrapped__
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(freshness, "_path", lambda module: (path := find(module)) and copy / path.relative_to(PACKAGE))
    forget_sources()
    yield copy
    forget_sources()


def forget_sources() -> None:
    freshness._read.cache_clear()
    freshness._lazy_names.cache_clear()


@pytest.mark.parametrize(("module", "expected"), [
    ("report/run_sets.py", [False, True, False]),
    ("report/plots.py", [False, False, False]),  # `show` gives every plot its data
    ("datasets/digits.py", [False, False, False]),
])
def test_a_figure_is_stale_when_the_code_that_it_imports_changed(suite, package, module, expected):
    edit_source(package / module, lambda source: source + "\nADDED = 1\n")
    assert up_to_date(suite) == expected


def test_no_figure_is_stale_for_comments_docstrings_blank_lines_or_code_that_none_imports(suite, package):
    edit_source(package / "report" / "run_sets.py", lambda source: "# A comment.\n" + source)
    edit_source(package / "report" / "run_sets.py", lambda source: source.replace('"""', '"""Otherwise: ', 1))
    edit_source(package / "datasets" / "digits.py", lambda source: source.replace("\n\n\n", "\n\n\n\n"))
    for module in ("site.py", "execution.py", "widgets/__init__.py"):
        edit_source(package / "report" / module, lambda source: source + "\nADDED = 1\n")
    assert up_to_date(suite) == [True, True, True]


def edit_source(path: Path, edit: Callable[[str], str]) -> None:
    source = path.read_text()
    path.write_text(edit(source))
    assert path.read_text() != source


def test_code_without_comments_docstrings_and_types_by_hand():
    source = '''"""A module."""
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from torch import Tensor
X = 1
"""What X is."""
def f(a: Tensor) -> str:
    """A function."""
    return "kept"  # a comment
'''
    bare = 'from typing import TYPE_CHECKING\nX = 1\ndef f(a):\n\n    return   "kept"'
    assert code_of(source) == code_of(bare)
    for changed in (bare.replace("1", "2"), bare.replace("kept", "other"), bare.replace("(a)", "(b)"), bare + "\nf(1)"):
        assert code_of(changed) != code_of(bare)
    assert code_of("class A:\n    x: int = 1") == code_of("class A:\n    x: str = 1") != code_of("class A:\n    x = 1")


def test_code_is_the_same_text_in_every_version_of_python():
    # Python 3.12 and 3.13 write each of these otherwise than 3.11: no parameters of types, empty lists, parts of texts.
    assert code_of('def f(x, w):\n    return f"{x:{w}}"') == (
        "Module(body=[FunctionDef(name='f', args=arguments(posonlyargs=[], args=[arg(arg='x'), arg(arg='w')], "
        "kwonlyargs=[], kw_defaults=[], defaults=[]), body=[Return(value=JoinedStr(values=[FormattedValue("
        "value=Name(id='x', ctx=Load()), conversion=-1, format_spec=JoinedStr(values=[FormattedValue("
        "value=Name(id='w', ctx=Load()), conversion=-1)]))]))], decorator_list=[])], type_ignores=[])")


def test_an_explorer_is_stale_when_its_script_changed(package):
    def digests() -> list[str]:
        forget_sources()
        return [digest_of(reached_from(imports_of(f"from sparse_vae.report{source}")))
                for source in (".widgets import explorer", " import plots")]

    before = digests()
    with (package / "report" / "widgets" / "explorer.js").open("a") as file:
        file.write("\n")
    after = digests()
    assert before[0] != after[0]
    assert before[1] == after[1]


@pytest.mark.parametrize(("source", "expected"), [
    ("import os, numpy\nfrom pathlib import Path", set()),
    ("import sparse_vae.files as files", {"files"}),
    ("from sparse_vae.files import replace", {"files"}),
    ("def f():\n    if True:\n        from sparse_vae import files", {"", "files"}),
    ("from sparse_vae.report import open_runs", {"report", "report.run_sets"}),
    ("from sparse_vae.report import plots", {"report", "report.plots"}),
    ("from sparse_vae.report import *", {"report", "report.run_sets"}),
    ("import sparse_vae", {"", "checks", "configuration", "datasets", "distributions", "evaluation", "models",
                           "training"}),
    ("from sparse_vae import train", {"", "training"}),
    ("from sparse_vae.evaluation import hoyer", {"evaluation", "evaluation.sparsity"}),
])
def test_imports_are_found_wherever_they_stand_and_through_packages_that_import_on_demand(source, expected):
    assert imports_of(source) == {f"sparse_vae.{module}".rstrip(".") for module in expected}


def test_what_run_sets_reach():
    reached = reached_from(imports_of("from sparse_vae.report import open_runs"))
    assert {f"sparse_vae.{module}" for module in (
        "report.run_sets", "report.tables", "report.measures", "evaluation.sparsity", "models.vae")} <= reached
    apart = ("site", "cli", "execution", "widgets", "plots", "figures")
    assert not [module for module in reached if module.startswith(tuple(f"sparse_vae.report.{name}" for name in apart))]


def test_modules_that_import_each_other_are_each_read_once(monkeypatch):
    modules = {"a": {"b"}, "b": {"a", "c"}, "c": set()}
    monkeypatch.setattr(freshness, "_path", lambda module: module in modules)
    monkeypatch.setattr(freshness, "_read", lambda module: ("", frozenset(modules[module])))
    assert reached_from(["a", "numpy"]) == {"a", "b", "c"}
    assert reached_from(["c"]) == {"c"}
