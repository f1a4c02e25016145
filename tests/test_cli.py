"""The command line: what it prints, what it leaves behind and how it exits."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from sparse_vae.report import site
from sparse_vae.report import suite as suites
from sparse_vae.report.cli import main
from sparse_vae.datasets import dataset_names
from sparse_vae.models import MODELS
from sparse_vae.report.runs import Run
from sparse_vae.report.suites import Outcome

REPOSITORY = Path(__file__).parents[1]
TINY = ["epochs=1", "latent_dim=2", "backbone=mlp", "hidden_dim=16"]
RUN = "runs: [{model: vae, dataset: digits}]"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project folder with the notebooks and one suite, to be in."""
    folder = tmp_path / "project"
    shutil.copytree(REPOSITORY / "notebooks", folder / "notebooks")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "tiny.yml").write_text(RUN)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SCHEDULER", raising=False)
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, *arguments: str, status: int = 2) -> str:
    """The one line that a command which cannot be carried out says."""
    assert main(list(arguments)) == status
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("error: ")
    return errors


# --- help and lists


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    output = capsys.readouterr().out
    assert all(f"\n    {command} " in output for command in (
        "all", "train", "graphics", "site", "publish", "download", "models", "datasets"))


@pytest.mark.parametrize("command", ["all", "train", "graphics", "site", "publish", "download", "models", "datasets"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: sparse-vae {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train", "--siute", "x"]])
def test_a_command_that_is_none_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: sparse-vae" in capsys.readouterr().err


def test_models_lists_every_model_and_its_settings(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::3] == list(MODELS)
    assert all(line.startswith("    ") and line.endswith(".") for line in lines[1::3])
    assert lines[lines.index("beta-vae") + 2].startswith("    beta=4.0, latent_dim=16, likelihood=(that of the data),")


def test_datasets_lists_every_data_set_and_its_settings(capsys):
    assert main(["datasets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == dataset_names()
    assert lines[lines.index("sinusoids") + 2].startswith("    n_train=2000, n_test=1000, length=128,")


# --- one run


def test_train_runs_once_with_the_settings_given(project, capsys):
    arguments = ["train", "model=beta-vae", "beta=2", "learning_rate=1e-2", "seed=3", *TINY]
    name = "results/local/digits/beta-vae-beta2-learning_rate0.01-epochs1-latent_dim2-backbonemlp-hidden_dim16/seed3"
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == f"done: {name}\n"
    assert "epoch 1/1" in captured.err  # the progress bar
    config = Run(project / name).config
    assert (config.model, config.dataset, config.model_settings["beta"]) == ("beta-vae", "digits", 2)
    assert (config.training.learning_rate, config.training.seed, config.training.epochs) == (0.01, 3, 1)
    assert {Path(path).parent.as_posix() for path in files(project / "results")} == {name.removeprefix("results/")}

    assert main(arguments) == 0
    assert capsys.readouterr().out == f"finished before: {name}\n"


def test_a_run_that_fails_says_why_and_leaves_no_run(project, capsys):
    assert main(["train", "dataset=returns", "csv=missing.csv", *TINY]) == 1
    assert capsys.readouterr().err.rstrip().splitlines()[-1] == (
        f"error: DataError: cannot read {project}/missing.csv: No such file or directory")
    assert not {path for path in files(project) if path.endswith(("metrics.json", "model.safetensors"))}
    assert not list(project.glob("results/local/returns/*/seed0"))


def test_a_file_of_ones_own_is_found_from_where_one_stands(project, monkeypatch):
    monkeypatch.setattr(suites, "execute_run", lambda run, folder, *_, **__: seen.append((run, folder)))
    (project / "deep").mkdir()
    monkeypatch.chdir(project / "deep")
    seen = []
    assert main(["train", "dataset=returns", "dataset.csv=my{0}.csv"]) == 0
    (run, folder), = seen
    assert run.config.dataset_settings["csv"] == str(project / "deep" / "my{0}.csv")
    assert folder == project / "results/local/returns/vae-dataset.csvdeep_my{0}.csv/seed0"


@pytest.mark.parametrize(("arguments", "message"), [
    (["dataset=returns", "csv=2024"], r"csv must be the path of a file; got 2024 \(int\)"),
    (["latent_dim={[]: 1}"], r"latent_dim must be an integer of at least 1; got '\{\[\]: 1\}'"),
    (["--scheduler", "tcp://here:1"], "--scheduler is for a suite"),
    (["--suite", "deep/tiny"], "a suite's name has letters"),
    (["latent_dim"], "settings are written key=value, for example latent_dim=16; got 'latent_dim'"),
    (["=3"], "settings are written key=value.*got '=3'"),
    (["latent_dmi=3"], "unknown setting for vae on digits 'latent_dmi'; did you mean 'latent_dim'"),
    (["beta=3"], "unknown setting for vae on digits 'beta'"),
    (["model=vea"], "unknown model 'vea'; did you mean 'vae'"),
    (["dataset=minst"], "unknown data set 'minst'; did you mean 'mnist'"),
    (["latent_dim=0"], "latent_dim must be an integer of at least 1; got 0"),
    (["latent_dim=2.5"], "latent_dim must be an integer of at least 1; got 2.5"),
    (["latent_dim="], "latent_dim must be an integer of at least 1; got ''"),
    (["learning_rate=fast"], "learning_rate must be a finite number above 0 and at most 1; got 'fast'"),
    (["learning_rate=2"], "learning_rate must be .* at most 1; got 2"),
    (["learning_rate=1e999"], "learning_rate must be a finite number .* got inf"),
    (["batch_size=-1"], "batch_size must be an integer of at least 1; got -1"),
    (["epochs=true"], "epochs must be an integer of at least 1; got True"),
    (["model=beta-vae", "beta=-1"], "beta must be a finite number at least 0; got -1"),
    (["device=gpu"], "device must be one of auto, cuda, mps, cpu; got 'gpu'"),
    (["latent_dim=[2, 3]"], "these settings make 2 runs"),
    (["latent_dim=[]"], "latent_dim must have at least one value"),
    (["model=3"], "model must be a name; got 3"),
    (["--suite", "tiny", "latent_dim=3"], "give either --suite or settings of one run, not both"),
    (["--suite", "tinny"], "unknown suite 'tinny'; did you mean 'tiny'"),
    (["--suite", "tiny", "--scheduler", "nonsense"], "no dask scheduler answers at 'nonsense'"),
])
def test_what_cannot_be_trained_is_refused_before_anything_is_written(project, capsys, arguments, message):
    before = files(project)
    assert re.search(message, refused(capsys, "train", *arguments))
    assert files(project) == before


def test_a_typo_in_a_suite_is_refused(project, capsys):
    (project / "experiments" / "tiny.yml").write_text(RUN.replace("dataset", "datasett"))
    assert "experiments/tiny.yml: run 1: has no dataset" in refused(capsys, "train", "--suite", "tiny")
    assert not (project / "results").exists()


@pytest.mark.parametrize("arguments", [["train", *TINY], ["train", "--suite", "tiny"], ["graphics", "--suite", "tiny"]])
def test_results_that_cannot_be_written_are_refused(project, capsys, arguments):
    (project / "results").write_text("in the way")
    assert "results cannot be written to" in refused(capsys, *arguments)
    assert (project / "results").read_text() == "in the way"


def test_outside_of_the_project_nothing_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "is not inside the project" in refused(capsys, "train", *TINY)
    assert files(tmp_path) == set()


# --- suites


@pytest.mark.parametrize(("statuses", "status"), [
    (["done", "skipped"], 0), (["done", "failed"], 1), (["failed", "stopped"], 130), ([], 0)])
@pytest.mark.parametrize(("command", "function"), [("train", "train_suite"), ("graphics", "draw_suite")])
def test_the_exit_status_tells_what_became_of_a_suite(project, capsys, monkeypatch, command, function, statuses,
                                                     status):
    outcomes = [Outcome(f"run{number}", word, 1.0, "because" if word == "failed" else "")
                for number, word in enumerate(statuses)]
    monkeypatch.setattr(suites, function, lambda suite, scheduler: outcomes)
    assert main([command, "--suite", "tiny"]) == status
    assert capsys.readouterr().out == suites.outcome_table(outcomes) + "\n"


@pytest.mark.parametrize(("failing", "status", "done"), [
    (None, 0, ["train", "draw", "close", "render"]), ("train", 1, ["train", "close"]),
    ("draw", 1, ["train", "draw", "close"])])
def test_all_trains_draws_and_renders_until_something_fails(project, monkeypatch, failing, status, done):
    @contextmanager
    def cluster(jobs):
        yield "tcp://local:1"
        events.append("close")

    def work(name, suite, scheduler):
        assert scheduler == "tcp://local:1"
        events.append(name)
        return [Outcome("run", "failed" if name == failing else "done")]

    events = []
    monkeypatch.setattr(suites, "local_cluster", cluster)
    monkeypatch.setattr(suites, "train_suite", partial(work, "train"))
    monkeypatch.setattr(suites, "draw_suite", partial(work, "draw"))
    monkeypatch.setattr(site, "render", lambda suite, plain: events.append("render"))
    assert main(["all", "--suite", "tiny"]) == status
    assert events == done


@pytest.mark.parametrize("variable", [None, "tcp://host:8786"])
def test_the_scheduler_is_that_of_the_environment(project, monkeypatch, variable):
    if variable:
        monkeypatch.setenv("SCHEDULER", variable)
    seen = []
    monkeypatch.setattr(suites, "train_suite", lambda suite, scheduler: seen.append(scheduler) or [])
    main(["train", "--suite", "tiny"])
    main(["train", "--suite", "tiny", "--scheduler", "tcp://other:1"])
    assert seen == [variable, "tcp://other:1"]


def test_an_interrupt_exits_with_130(project, capsys, monkeypatch):
    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(suites, "execute_run", interrupted)
    assert main(["train", *TINY]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_full_disk_is_said(project, capsys, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(suites, "execute_run", full)
    assert "No space left on device" in refused(capsys, "train", *TINY, status=1)


def test_figures_without_their_runs_are_refused(project, capsys):
    (project / "experiments" / "tiny.yml").write_text(
        RUN + "\nfigures: [{notebook: comparison, name: x, runs: digits/*}]")
    assert "1 runs that the figures need are not finished, the first is digits/vae/seed0" in refused(
        capsys, "graphics", "--suite", "tiny")
    assert files(project / "results") == set()


# --- downloads


@pytest.mark.parametrize("mirror", ["nowhere", "http://127.0.0.1:1/"])
def test_a_mirror_without_the_files_is_said(project, capsys, mirror):
    errors = refused(capsys, "download", "mnist", "--mirror", mirror, "--root", "data", status=1)
    assert mirror.rstrip("/") in errors
    assert not {path for path in files(project) if path.startswith("data/")}


def test_downloads_go_to_the_folder_that_training_reads(project, monkeypatch):
    from sparse_vae import datasets

    monkeypatch.setattr(datasets, "download", lambda names, root, mirror: seen.append(root))
    (project / "deep").mkdir()
    monkeypatch.chdir(project / "deep")
    seen = []
    main(["download"])
    main(["download", "--root", "here"])
    assert seen == [project / "data", "here"]


def test_a_mirror_that_is_no_address_is_said(project, capsys):
    assert "the mirror's address cannot be read: Invalid IPv6 URL" in refused(
        capsys, "download", "mnist", "--mirror", "http://[::1")


def test_an_unknown_data_set_is_not_downloaded(project, capsys):
    before = files(project)
    assert "unknown data set 'minst'; did you mean 'mnist'?" in refused(capsys, "download", "minst")
    assert files(project) == before


# --- as a process


def test_the_command_exits_with_its_status_and_no_traceback(project):
    script = Path(sys.executable).with_name("sparse-vae")
    command = [script] if script.exists() else [sys.executable, "-m", "sparse_vae.report.cli"]
    result = subprocess.run([*command, "train", "epochs=0"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: epochs must be an integer of at least 1; got 0\n"
