"""A run on disk: read back as it was written, whole or not at all, and refused with a reason where it does not fit."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import SafetensorError

import sparse_vae
from sparse_vae import checkpoints, files
from sparse_vae.checkpoints import RunError, load_weights, train_run
from sparse_vae.configuration import RunConfig, build_model, configure, load_data
from sparse_vae.models import CLASSICAL
from sparse_vae.report.measures import Measured, measure, measures_fingerprint
from sparse_vae.report.runs import (
    PACKAGE,
    describe_package,
    is_finished,
    number_text,
    read_config,
    read_part,
    read_record,
    save_run,
)

TINY = {"epochs": 1, "latent_dim": 3, "backbone": "mlp", "hidden_dim": 16, "device": "cpu"}
FILES = {"config.json", "measures.json", "history.csv", "curves.csv", "units.csv", "model.safetensors"}


def write_run(folder: Path, model: str = "vae", dataset: str = "digits", **settings) -> Path:
    """Train a tiny run into ``folder``."""
    config = configure(model, dataset, **TINY, **settings)
    data = load_data(config)
    net, history = train_run(config, data, progress=False)
    return save_run(folder, config, net, history, measure(net, data, only=["loss", "population_histogram", "units"]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run; not to be changed."""
    return write_run(tmp_path_factory.mktemp("runs") / "digits" / "vae" / "seed0")


@pytest.fixture
def run_folder(finished, tmp_path) -> Path:
    """A copy of it, alone in its folder, to break."""
    return shutil.copytree(finished, tmp_path / "runs" / "seed0")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- a run's folder


@pytest.mark.parametrize("name", ["vae", "topk", "batchtopk", "pca", "dictionary"])
def test_a_run_is_read_back_as_it_was_written(name, tmp_path):
    settings = {"epochs": 1, "latent_dim": 3} if name in CLASSICAL else TINY
    config = configure(name, "digits", **settings, seed=2)
    data = load_data(config)
    model, history = train_run(config, data, progress=False)
    measured = measure(model, data, seed=2, only=["loss", "hoyer", "population_histogram", "units"])
    folder = save_run(tmp_path / "digits" / name / "seed2", config, model, history, measured)
    assert {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["seed2"]

    record = read_record(folder)
    assert read_config(folder) == config
    assert record["measures"] == measured.values
    assert record["seconds"] == pytest.approx(sum(row["seconds"] for row in history) if history else measured.seconds)
    assert record["environment"]["version"] == sparse_vae.__version__
    assert record["environment"]["measures"] == measures_fingerprint()
    pd.testing.assert_frame_equal(read_part(folder, "history"), pd.DataFrame(history), rtol=1e-5, check_dtype=False)
    pd.testing.assert_frame_equal(read_part(folder, "curves"), measured.curves, rtol=1e-5, check_dtype=False)
    pd.testing.assert_frame_equal(read_part(folder, "units"), measured.units, rtol=1e-5, check_dtype=False)
    again = build_model(config, data)
    load_weights(again, folder / "model.safetensors")
    assert torch.equal(again.eval().code(data.test.x[:50]), model.code(data.test.x[:50]))
    assert is_finished(folder, config)


def test_training_twice_gives_the_same_weights(finished, tmp_path):
    again = write_run(tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


def test_what_cannot_be_said_is_null_and_counts_are_in_full(tmp_path):
    config = configure("vae", "digits", **TINY)
    history = [{"epoch": 1, "step": 1234567, "seconds": 2, "test_total": -1234567.8}]  # the seconds are no float
    measured = Measured({"loss": None, "parameters": 2057233.0})
    folder = save_run(tmp_path / "seed0", config, build_model(config, load_data(config)), history, measured)
    assert read_record(folder)["measures"] == {"loss": None, "parameters": 2057233.0}
    assert read_record(folder)["seconds"] == 2.0
    assert (folder / "history.csv").read_text().splitlines() == ["epoch,step,seconds,test_total",
                                                                 "1,1234567,2,-1234570"]


@pytest.mark.parametrize(("value", "text"), [
    (0.0, "0"), (1.0, "1"), (-3.0, "-3"), (2057233.0, "2057233"), (123456789.5, "123457000"), (1 / 3, "0.333333"),
    (1e-9, "1e-09"), (1e20, "1e+20"), (np.float64(5), "5"), (7, "7"), (float("inf"), "inf"), (-123.456789, "-123.457")])
def test_numbers_of_tables(value, text):
    assert number_text(value) == text
    assert number_text(float(text)) == text


# --- what is finished


def test_a_run_is_finished_only_with_the_same_parameters_and_its_weights(run_folder):
    config = read_config(run_folder)
    assert is_finished(run_folder, config)
    for other in (
        replace(config, training=replace(config.training, epochs=2)),
        replace(config, model="autoencoder"),
        replace(config, model_settings={**config.model_settings, "latent_dim": 4}),
        configure("vae", "sinusoids", **TINY),
    ):
        assert not is_finished(run_folder, other)
    (run_folder / "model.safetensors").unlink()
    assert not is_finished(run_folder, config)
    assert not is_finished(run_folder / "nowhere", config)


DAMAGED_TEXTS = [None, "", b"\xff"]


@pytest.mark.parametrize(("name", "text"), [
    *((f"{part}.csv", text) for part in ("history", "curves", "units") for text in DAMAGED_TEXTS),
    *(("measures.json", text) for text in (*DAMAGED_TEXTS, "{", "[]", "{}", '{"measures": {}, "seconds": 1}'))])
def test_a_run_without_a_part_is_not_finished(run_folder, name, text):
    config, path = read_config(run_folder), run_folder / name
    path.unlink() if text is None else path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert not is_finished(run_folder, config)
    with pytest.raises(RunError, match=rf"{name} is missing or damaged \(.+\); train the run again"):
        _ = [read_record(run_folder), *(read_part(run_folder, part) for part in ("history", "curves", "units"))]


@pytest.mark.parametrize(("change", "message"), [
    ({"measures": {"loss": "low"}}, "loss must be a number; got 'low'"),
    ({"measures": {"loss": True}}, "loss must be a number; got True"),
    ({"measures": [1]}, r"measures must be a mapping; got \[1\]"),
    ({"environment": None}, "environment must be a mapping; got None"),
    ({"seconds": "long"}, "seconds must be a number; got 'long'")])
def test_a_record_of_something_else_is_refused(run_folder, change, message):
    path = run_folder / "measures.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match=rf"measures\.json is missing or damaged \({message}\)"):
        read_record(run_folder)
    assert not is_finished(run_folder, read_config(run_folder))


def test_a_run_is_not_finished_once_its_data_have_changed(run_folder, tmp_path):
    config = configure("vae", "returns", csv="own.csv", **TINY)
    (run_folder / "config.json").write_text(json.dumps(asdict(config)))
    for newer, expected in ((-10, True), (10, False)):
        (tmp_path / "own.csv").touch()
        time = (run_folder / "measures.json").stat().st_mtime + newer
        os.utime(tmp_path / "own.csv", (time, time))
        assert is_finished(run_folder, config, tmp_path) == expected


@pytest.mark.parametrize("text", ["", "{", "[]", '"vae"', "{}", '{"model": "vae", "dataset": "digits"}',
                                  '{"model": ["vae"], "dataset": "digits"}', "\ufeff\x00"])
def test_a_configuration_that_cannot_be_read_is_no_finished_run(run_folder, text):
    config = read_config(run_folder)
    (run_folder / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json cannot be read as a run's configuration"):
        read_config(run_folder)
    assert not is_finished(run_folder, config)


def test_a_configuration_with_a_model_that_is_not_there_any_more(run_folder):
    config = read_config(run_folder)
    (run_folder / "config.json").write_text(json.dumps({**asdict(config), "model": "gone"}))
    assert not is_finished(run_folder, config)
    with pytest.raises(RunError, match="cannot be read as a run's configuration: unknown model 'gone'"):
        read_config(run_folder)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(RunError, match=r"no run in .*nothing: it has no config\.json"):
        read_config(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"no run in .*file: it has no config\.json"):
        read_config(tmp_path / "file")


# --- the package


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=folder, check=True,
                          capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_package_with_a_mark_when_it_was_changed(tmp_path):
    package = tmp_path / "src" / "package"
    (package / "inside").mkdir(parents=True)
    (package / "__init__.py").touch()
    git(tmp_path, "init", "-q")
    assert describe_package(package) == {"version": sparse_vae.__version__, "commit": ""}  # not tracked here
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "--short=9", "HEAD")
    describe = describe_package.__wrapped__
    assert describe(package)["commit"] == commit
    (tmp_path / "elsewhere.txt").touch()
    assert describe(package)["commit"] == commit
    (package / "inside" / "new.py").touch()
    assert describe(package)["commit"] == commit + "+"
    (package / "inside" / "new.py").unlink()
    (package / "__init__.py").write_text("changed")
    assert describe(package)["commit"] == commit + "+"


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_package(tmp_path)["commit"] == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_package.__wrapped__()["commit"] == ""


def test_the_package_is_the_whole_package():
    assert (PACKAGE / "models").is_dir()
    assert describe_package()["version"] == sparse_vae.__version__


# --- whole or not at all


def full(*arguments, **named):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(params=["a full disk at the weights", "a full disk at the measures", "a file too large"])
def failing_disk(request, monkeypatch, largest_file):
    """Three ways in which writing a run fails, as a context."""
    @contextmanager
    def fail():
        with monkeypatch.context() as patch:
            if request.param == "a full disk at the weights":
                patch.setattr(checkpoints, "save_file", full)
            elif request.param == "a full disk at the measures":
                # The configuration is written by then.
                write = Path.write_text
                patch.setattr(Path, "write_text",
                              lambda path, *rest: full() if path.name == "measures.json" else write(path, *rest))
            with largest_file(8_000 if request.param == "a file too large" else resource.RLIM_INFINITY):
                yield
    return fail


def save_again(folder: Path) -> RunConfig:
    config = configure("vae", "digits", **TINY, seed=1)
    model = build_model(config, load_data(config))
    save_run(folder, config, model, [{"epoch": 1, "seconds": 1.0}], Measured())
    return config


def test_a_run_that_cannot_be_written_is_not_there(tmp_path, failing_disk):
    with failing_disk(), pytest.raises((OSError, SafetensorError), match=r"No space left|[Ff]ile too large"):
        save_again(tmp_path / "runs" / "seed0")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_that_cannot_be_written_leaves_the_old_one(run_folder, failing_disk):
    before = contents(run_folder.parent)
    with failing_disk(), pytest.raises((OSError, SafetensorError)):
        save_again(run_folder)
    assert contents(run_folder.parent) == before
    assert is_finished(run_folder, save_again(run_folder))
    assert [path.name for path in run_folder.parent.iterdir()] == ["seed0"]


def test_a_run_that_cannot_be_moved_leaves_the_old_one(run_folder, monkeypatch):
    before, move = contents(run_folder.parent), files.os.replace
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace",
                      lambda old, new: full() if Path(new) == run_folder and ".old" not in str(old) else move(old, new))
        with pytest.raises(OSError, match="No space left"):
            save_again(run_folder)
    assert contents(run_folder.parent) == before


def test_a_place_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        save_again(tmp_path / "file" / "seed0")
    assert contents(tmp_path) == {"file": b"in the way"}
