"""The command line: what it prints, what it leaves behind and how it exits."""

from __future__ import annotations

import json
import re
import shutil
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import sparse_vae
from sparse_vae.checks import parse_value
from sparse_vae.configuration import build_model, load_data
from sparse_vae.datasets import dataset_names, dataset_settings, suited_training
from sparse_vae.models import CLASSICAL, MODELS, model_class, model_settings
from sparse_vae.report import claims, execution, runs, site
from sparse_vae.report.cli import main
from sparse_vae.report.execution import Outcome
from sparse_vae.report.measures import Measured
from sparse_vae.report.runs import save_run
from sparse_vae.report.suites import load_suite
from sparse_vae.settings import values_text

REPOSITORY = Path(__file__).parents[1]
COMMANDS = ["all", "train", "graphics", "collect", "check", "site", "table", "publish", "download", "models",
            "datasets"]
OF_THE_PROJECT = [command for command in COMMANDS if command not in ("models", "datasets")]
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


def write_run(root: Path) -> None:
    """The run of suite tiny as training leaves it, with the weights that it starts from and other numbers."""
    suite = load_suite("tiny", root)
    run, = suite.runs
    measured = Measured({"negative_elbo": 12.5, "mean_squared_error": 0.25}, seconds=0.25)
    save_run(suite.runs_folder / run.name, run.config, build_model(run.config, load_data(run.config)),
             [{"epoch": 1, "step": 45, "seconds": 0.5}], measured)


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
    assert re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: sparse-vae {command}" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{sparse_vae.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train", "--siute", "x"]])
def test_a_command_that_is_none_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: sparse-vae" in capsys.readouterr().err


def listed(output: str) -> dict[str, list[str]]:
    """The lines below each name, without their indentation."""
    return {name: [line.removeprefix("    ") for line in lines.splitlines()]
            for name, lines in re.findall(r"^(\S.*)\n((?:    .*\n)+)", output, re.MULTILINE)}


def defaults(lines: list[str]) -> dict[str, object]:
    """What the lines of settings say that each is by default."""
    settings = dict(re.match(r"([\w]+)=(\S*)  .+ \(.+\)$", line).groups() for line in lines)
    return {name: parse_value(value) for name, value in settings.items()}


def test_models_lists_every_model_and_its_settings(capsys):
    assert main(["models"]) == 0
    entries = listed(capsys.readouterr().out)
    assert list(entries) == [*MODELS, "all of these", *CLASSICAL]
    assert all(lines[0].endswith(".") for lines in entries.values())
    shared = defaults(entries["all of these"][1:])
    for name in [*MODELS, *CLASSICAL]:
        declared = {key: setting.default for key, setting in model_settings(name).items()}
        own = defaults(entries[name][1 + len(model_class(name).suited):])  # after what suits it
        assert {**(shared if name in MODELS else {}), **own} == declared, name


def test_datasets_lists_every_data_set_and_its_settings(capsys):
    assert main(["datasets"]) == 0
    entries = listed(capsys.readouterr().out)
    assert list(entries) == dataset_names()
    for name, (description, *lines) in entries.items():
        assert description.endswith(".")
        suited = suited_training(name)
        assert [line for line in lines if line.startswith("trained with ")] == (
            [f"trained with {values_text(suited)}"] if suited else [])
        declared = {key: setting.default for key, setting in dataset_settings(name).items()}
        assert defaults(lines[bool(suited):]) == declared, name


def test_without_an_output_there_is_no_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it where the output is closed: >&-
    assert main(["models"]) == 0
    assert capsys.readouterr().err == ""


# --- one run


def test_a_file_of_ones_own_is_found_from_where_one_stands(project, monkeypatch):
    monkeypatch.setattr(execution, "execute_run", lambda run, folder, *_, **__: seen.append((run, folder)))
    monkeypatch.setattr(runs, "read_record", lambda folder: {"measures": {}})
    (project / "deep").mkdir()
    monkeypatch.chdir(project / "deep")
    seen = []
    assert main(["train", "dataset=returns", "dataset.csv=my{0}.csv"]) == 0
    (run, folder), = seen
    assert run.config.dataset_settings["csv"] == str(project / "deep" / "my{0}.csv")
    assert folder == project / "runs/local/returns/vae-dataset.csvdeep_my{0}.csv/seed0"


def test_the_last_line_says_that_a_run_is_useless(project, capsys, monkeypatch):
    monkeypatch.setattr(execution, "execute_run", lambda *_, **__: None)
    for measures, last in (
            ({"used_dimensions": 0, "explained_variance": -0.5}, "warning: no dimension is in use; it reconstructs "
             "worse than the mean of the data would (explained variance -50%)"),
            ({"used_dimensions": 3, "explained_variance": 0.5}, "done: runs/local/digits/vae/seed0")):
        monkeypatch.setattr(runs, "read_record", lambda folder, measures=measures: {"measures": measures})
        assert main(["train"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == last


@pytest.mark.parametrize(("arguments", "message"), [
    (["dataset=returns", "csv=2024"], r"csv must be the path of a file; got 2024 \(int\)"),
    (["latent_dim={[]: 1}"], r"latent_dim must be an integer of at least 1; got '\{\[\]: 1\}'"),
    (["--scheduler", "tcp://here:1"], "--scheduler is for a suite"),
    (["--suite", "deep/tiny"], "a suite's name has letters"),
    (["latent_dim"], "settings are written key=value, for example latent_dim=16; got 'latent_dim'"),
    (["=3"], "settings are written key=value.*got '=3'"),
    (["latent_dim=3", "latent_dim=4"], "latent_dim is given twice: latent_dim=3 and latent_dim=4"),
    (["latent_dim=3", "epochs=1", "latent_dim=3"], "latent_dim is given twice: latent_dim=3 and latent_dim=3"),
    (["model=vae", "model=vsc"], "model is given twice: model=vae and model=vsc"),
    (["dataset=returns", "csv=a.csv", "dataset.csv=b.csv"], "csv is given twice: as csv and as dataset.csv"),
    (["latent_dmi=3"], "unknown setting for vae on digits 'latent_dmi'; did you mean 'latent_dim'"),
    (["beta=3"], "unknown setting for vae on digits 'beta'"),
    (["latent_dim="], "latent_dim must be an integer of at least 1; got ''"),
    (["learning_rate=1e999"], "learning_rate must be a finite number .* got inf"),
    (["epochs=true"], "epochs must be an integer of at least 1; got True"),
    (["latent_dim=[2, 3]"], "these settings make 2 runs"),
    (["latent_dim=[]"], "latent_dim must have at least one value"),
    (["model=3"], "model must be a name; got 3"),
    (["--suite", "tiny", "latent_dim=3"], "give either --suite or settings of one run, not both"),
    (["--suite", "tinny"], "unknown suite 'tinny'; did you mean 'tiny'"),
])
def test_what_cannot_be_trained_is_refused_before_anything_is_written(project, capsys, arguments, message):
    before = files(project)
    assert re.search(message, refused(capsys, "train", *arguments))
    assert files(project) == before


def test_a_typo_in_a_suite_is_refused(project, capsys):
    (project / "experiments" / "tiny.yml").write_text(RUN.replace("dataset", "datasett"))
    assert "experiments/tiny.yml: run 1: has no dataset" in refused(capsys, "train", "--suite", "tiny")
    assert not (project / "results").exists()


@pytest.mark.parametrize(("arguments", "folder"), [
    (["train", *TINY], "runs"), (["train", "--suite", "tiny"], "runs"), (["train", "--suite", "tiny"], "results"),
    (["all", "--suite", "tiny"], "results"), (["graphics", "--suite", "tiny"], "results")])
def test_results_that_cannot_be_written_are_refused(project, capsys, monkeypatch, arguments, folder):
    @contextmanager
    def cluster(jobs):
        yield "tcp://local:1"

    monkeypatch.setattr(execution, "local_cluster", cluster)
    (project / folder).write_text("in the way")
    assert f"results cannot be written to {project / folder}" in refused(capsys, *arguments)
    assert (project / folder).read_text() == "in the way"


@pytest.mark.parametrize("command", OF_THE_PROJECT)
def test_outside_of_the_project_nothing_is_done(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, command, *(TINY if command == "train" else [])) == (
        f"error: {tmp_path} is not inside the project: no experiments/ and notebooks/ in it or above it\n")
    assert files(tmp_path) == set()


@pytest.mark.parametrize("command", ["all", "graphics", "collect", "check", "site", "table", "publish"])
def test_a_suite_that_is_none_is_refused(project, capsys, command):
    before = files(project)
    assert "unknown suite 'tinny'; did you mean 'tiny'" in refused(capsys, command, "--suite", "tinny")
    assert files(project) == before


# --- suites


@pytest.mark.parametrize(("statuses", "status"), [
    (["done", "skipped"], 0), (["done", "failed"], 1), (["failed", "stopped"], 130), ([], 0)])
@pytest.mark.parametrize(("command", "function"), [("train", "train_suite"), ("graphics", "draw_suite")])
def test_the_exit_status_tells_what_became_of_a_suite(project, capsys, monkeypatch, command, function, statuses,
                                                     status):
    outcomes = [Outcome(f"run{number}", word, 1.0, "because" if word == "failed" else "")
                for number, word in enumerate(statuses)]
    monkeypatch.setattr(execution, function, lambda suite, scheduler: outcomes)
    assert main([command, "--suite", "tiny"]) == status
    assert capsys.readouterr().out == execution.outcome_table(outcomes) + "\n"


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
    monkeypatch.setattr(execution, "local_cluster", cluster)
    monkeypatch.setattr(execution, "train_suite", partial(work, "train"))
    monkeypatch.setattr(execution, "draw_suite", partial(work, "draw"))
    monkeypatch.setattr(site, "render", lambda suite, plain: events.append("render"))
    assert main(["all", "--suite", "tiny"]) == status
    assert events == done


@pytest.mark.parametrize("variable", [None, "tcp://host:8786"])
def test_the_scheduler_is_that_of_the_environment(project, monkeypatch, variable):
    if variable:
        monkeypatch.setenv("SCHEDULER", variable)
    seen = []
    monkeypatch.setattr(execution, "train_suite", lambda suite, scheduler: seen.append(scheduler) or [])
    main(["train", "--suite", "tiny"])
    main(["train", "--suite", "tiny", "--scheduler", "tcp://other:1"])
    assert seen == [variable, "tcp://other:1"]


def test_an_interrupt_exits_with_130(project, capsys, monkeypatch):
    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(execution, "execute_run", interrupted)
    assert main(["train", *TINY]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_full_disk_is_said(project, capsys, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(execution, "execute_run", full)
    assert "No space left on device" in refused(capsys, "train", *TINY, status=1)


# --- what is published


def test_collect_publishes_what_is_finished_and_table_shows_it(project, capsys):
    assert main(["collect", "--suite", "tiny"]) == 0
    nothing = ("results/tiny: 0 of the suite's 1 runs are new or have changed; 0 are published as the suite asks for "
               "them\n")
    assert capsys.readouterr().out == nothing
    assert not (project / "results" / "tiny").exists()
    assert "suite 'tiny' has no published results; make train SUITE=tiny" in refused(
        capsys, "table", "--suite", "tiny")

    write_run(project)
    for new in (1, 0):  # the second time everything is there
        assert main(["collect", "--suite", "tiny"]) == 0
        assert capsys.readouterr().out == nothing.replace("0 of", f"{new} of").replace("0 are", "1 are")
    assert json.loads((project / "results" / "tiny" / "suite.json").read_text())["name"] == "tiny"

    assert main(["table", "--suite", "tiny"]) == 0
    header, rule, row = ([cell.strip() for cell in line.strip("|").split("|")]
                         for line in capsys.readouterr().out.splitlines())
    assert header[:6] == ["data", "model", "J", "seeds", "−ELBO (nats)", "MSE"]
    assert all(set(cell) <= set(":-") for cell in rule)
    assert row[:6] == ["digits", "VAE", "16", "1", "12.50", "0.2500"]
    assert set(row[6:]) == {"not measured"}


@pytest.mark.parametrize("command", ["table", "collect", "graphics"])
def test_a_damaged_table_is_said(project, capsys, command):
    (project / "results" / "tiny").mkdir(parents=True)
    (project / "results" / "tiny" / "runs.csv").write_text("run,model\n")
    assert "results/tiny/runs.csv lacks the column dataset" in refused(capsys, command, "--suite", "tiny", status=1)


@pytest.fixture
def checked(project, monkeypatch) -> dict[str, list[str]]:
    """The problems that a check of the pages and one of the claims find, for a site of suite tiny."""
    def find(kind, *what):
        assert what == {"site": (project, "tiny"), "claims": (project,)}[kind]
        return found[kind]

    found = {"site": [], "claims": []}
    monkeypatch.setattr(site, "check", partial(find, "site"))
    monkeypatch.setattr(claims, "check_claims", partial(find, "claims"))
    monkeypatch.setattr(site, "publish", lambda suite, remote: found.update(published=[suite.name, remote]))
    return found


@pytest.mark.parametrize(("pages", "sentences"), [(["a page"], []), ([], ["a claim"]), (["a page"], ["a claim"])])
def test_problems_are_listed_and_nothing_is_published(checked, capsys, pages, sentences):
    checked |= {"site": pages, "claims": sentences}
    for command in ("check", "publish"):
        assert main([command, "--suite", "tiny"]) == 1
        assert capsys.readouterr() == ("", "\n".join([*pages, *sentences]) + "\n")
    assert "published" not in checked


def test_what_has_no_problems_is_published(checked, capsys):
    assert main(["check", "--suite", "tiny"]) == 0
    assert capsys.readouterr() == ("every reference leads somewhere, every claim holds\n", "")
    assert "published" not in checked
    assert main(["publish", "--suite", "tiny"]) == 0
    assert checked["published"] == ["tiny", "origin"]
    assert main(["publish", "--suite", "tiny", "--remote", "mine"]) == 0
    assert checked["published"] == ["tiny", "mine"]


def test_the_published_site_is_checked_without_options(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY / "tests")
    monkeypatch.setattr(site, "check", lambda root, suite: [f"{root} {suite}"])
    monkeypatch.setattr(claims, "check_claims", lambda root: [])
    assert main(["check"]) == 1
    assert capsys.readouterr().err == f"{REPOSITORY} report\n"


@pytest.mark.parametrize(("options", "plain"), [([], False), (["--plain"], True)])
def test_site_says_where_the_report_is(project, capsys, monkeypatch, options, plain):
    monkeypatch.setattr(site, "render", lambda suite, plain: f"{suite.name} {plain}")
    assert main(["site", "--suite", "tiny", *options]) == 0
    assert capsys.readouterr().out == f"\nThe report is ready: tiny {plain}\nServe it with: make preview\n"


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
