"""A run on disk: read back as it was written, whole or not at all, and refused with a reason where it does not fit."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError

from sparse_vae import files, runs
from sparse_vae.evaluation import code_usage, summarise
from sparse_vae.models import MODELS
from sparse_vae.report.runs import (
    Run,
    RunError,
    build_model,
    by_title_and_size,
    configure,
    is_finished,
    load_data,
    open_runs,
    save_run,
    train_run,
)

TINY = {"epochs": 1, "latent_dim": 3, "backbone": "mlp", "hidden_dim": 16, "device": "cpu"}


def write_run(folder: Path, model: str = "vae", dataset: str = "digits", **settings) -> Path:
    """Train a tiny run into ``folder``."""
    config = configure(model, dataset, **TINY, **settings)
    data = load_data(config)
    net, history = train_run(config, data, progress=False)
    return save_run(folder, config, net, history, summarise(net, data))


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


@contextmanager
def largest_file(size: int):
    """The system refuses to write a file beyond ``size`` bytes, as a full disk refuses to write at all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- a run's folder


@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_read_back_as_it_was_written(name, tmp_path):
    config = configure(name, "digits", **TINY, seed=2)
    data = load_data(config)
    model, history = train_run(config, data, progress=False)
    metrics = summarise(model, data)
    folder = save_run(tmp_path / "digits" / name / "seed2", config, model, history, metrics)
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "metrics.json", "history.csv", "model.safetensors"}
    assert [path.name for path in folder.parent.iterdir()] == ["seed2"]

    run = Run(folder)
    assert run.config == config
    assert run.title == model.title
    assert {key: run.metrics[key] for key in metrics} == metrics
    assert run.metrics["training_seconds"] == sum(row["seconds"] for row in history)
    assert run.metrics["environment"]["device"] == "cpu"
    assert list(run.history) == list(history[0])
    assert run.history.test_total.tolist() == pytest.approx([row["test_total"] for row in history], rel=1e-5)
    assert torch.equal(run.model.reconstruct(data.test.x), model.reconstruct(data.test.x))
    assert not run.model.training
    assert is_finished(folder, config)


def test_training_twice_gives_the_same_weights(finished, tmp_path):
    again = write_run(tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


def test_a_run_is_finished_only_with_the_same_parameters_and_its_weights(run_folder):
    config = Run(run_folder).config
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


@pytest.mark.parametrize(("name", "text"), [
    ("metrics.json", None), ("metrics.json", "{"), ("metrics.json", "[]"), ("metrics.json", b"\xff"),
    ("history.csv", None), ("history.csv", ""), ("history.csv", b"\xff")])
def test_a_run_without_its_measures_is_not_finished(run_folder, name, text):
    run, path = Run(run_folder), run_folder / name
    path.unlink() if text is None else path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert not is_finished(run_folder, run.config)
    with pytest.raises(RunError, match=rf"{name} is missing or damaged \(.+\); train the run again"):
        _ = run.metrics, run.history


def test_a_run_is_not_finished_once_its_data_have_changed(run_folder, tmp_path):
    config = configure("vae", "returns", csv="own.csv", **TINY)
    (run_folder / "config.json").write_text(json.dumps(asdict(config)))
    for newer, expected in ((-10, True), (10, False)):
        (tmp_path / "own.csv").touch()
        time = (run_folder / "metrics.json").stat().st_mtime + newer
        os.utime(tmp_path / "own.csv", (time, time))
        assert is_finished(run_folder, config, tmp_path) == expected


@pytest.mark.parametrize("text", ["", "{", "[]", '"vae"', "{}", '{"model": "vae", "dataset": "digits"}',
                                  '{"model": ["vae"], "dataset": "digits"}', "\ufeff\x00"])
def test_a_configuration_that_cannot_be_read_is_no_finished_run(run_folder, text):
    config = Run(run_folder).config
    (run_folder / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json cannot be read as a run's configuration"):
        Run(run_folder)
    assert not is_finished(run_folder, config)


def test_a_configuration_with_a_model_that_is_not_there_any_more(run_folder):
    config = Run(run_folder).config
    record = {**asdict(config), "model": "gone"}
    (run_folder / "config.json").write_text(json.dumps(record))
    assert not is_finished(run_folder, config)
    with pytest.raises(RunError, match="cannot be read as a run's configuration: unknown model 'gone'"):
        Run(run_folder)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(RunError, match=r"no run in .*nothing: it has no config\.json"):
        Run(tmp_path / "nothing")


def test_missing_weights_say_where_they_come_from(run_folder):
    (run_folder / "model.safetensors").unlink()
    run = Run(run_folder)
    assert run.metrics["latent_dim"] == 3
    with pytest.raises(RunError, match=r"model\.safetensors is missing: published results come without weights; "
                                       "`make train` makes them"):
        _ = run.model


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    damaged = {"truncated": whole[:len(whole) // 2], "empty": b"", "text": b"not safetensors at all\n" * 10,
               "cut in its header": whole[:20], "of zeros": bytes(len(whole))}
    path.write_bytes(damaged[how])


DAMAGES = ["truncated", "empty", "text", "cut in its header", "of zeros"]


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_weights_are_refused(run_folder, how):
    damage(run_folder / "model.safetensors", how)
    with pytest.raises(RunError, match=r"model\.safetensors is damaged or not a safetensors file"):
        _ = Run(run_folder).model
    assert not is_finished(run_folder, Run(run_folder).config)


# --- several runs


def test_runs_to_draw_have_titles_of_their_own(tmp_path):
    folders = [write_run(tmp_path / "digits" / name / f"seed{seed}", name.partition("-wide")[0], seed=seed)
               for name, seed in (("vae", 0), ("vae", 1), ("autoencoder", 0))]
    opened = open_runs(map(str, folders), models=[], dataset="", settings={})
    assert list(opened) == ["VAE, vae/seed0", "VAE, vae/seed1", "Autoencoder"]
    assert [run.folder for run in opened.values()] == folders


def test_runs_in_folders_of_one_name_are_told_apart(run_folder, tmp_path):
    other = shutil.copytree(run_folder, tmp_path / "again" / "runs" / "seed0")
    opened = open_runs([str(run_folder), str(other)], models=[], dataset="", settings={})
    assert list(opened) == [f"VAE, {run_folder}", f"VAE, {other}"]


def test_runs_that_differ_in_their_seed_alone_are_grouped():
    def pretend(name: str, title: str, latent_dim: int, **settings) -> SimpleNamespace:
        config = configure("vae", "digits", latent_dim=latent_dim, **settings)
        return SimpleNamespace(name=name, title=title, config=config, folder=Path(name))

    groups = by_title_and_size([
        pretend("vsc/seed0", "VSC", 8), pretend("vae/seed0", "VAE", 4), pretend("vsc-j2/seed0", "VSC", 2),
        pretend("vsc/seed1", "VSC", 8, seed=1), pretend("vae-long/seed0", "VAE", 4, epochs=50),
        pretend("vae-long/seed1", "VAE", 4, epochs=50, seed=1)])
    assert {key: [run.name for run in runs] for key, runs in groups.items()} == {
        ("VSC", 2): ["vsc-j2/seed0"], ("VSC", 8): ["vsc/seed0", "vsc/seed1"],
        ("VAE, vae", 4): ["vae/seed0"], ("VAE, vae-long", 4): ["vae-long/seed0", "vae-long/seed1"]}
    assert list(groups) == [("VSC", 2), ("VSC", 8), ("VAE, vae", 4), ("VAE, vae-long", 4)]


def test_the_history_says_how_much_of_the_code_is_used(tmp_path):
    folder = write_run(tmp_path / "run")
    run = Run(folder)
    usage = code_usage(run.model, run.dataset.test.x)
    last = run.history.iloc[-1]
    assert last.test_used_dimensions == usage["used_dimensions"] == run.metrics["used_dimensions"]
    assert last.test_active_fraction == pytest.approx(usage["active_fraction"], rel=1e-4)


def test_without_runs_models_are_trained_on_the_spot():
    opened = open_runs([], models=["vae", "beta-vae"], dataset="digits", settings=TINY)
    assert list(opened) == ["VAE", "β-VAE (β = 4)"]
    for run in opened.values():
        assert run.model.latent_dim == 3
        assert len(run.history) == 1
        assert run.metrics["latent_dim"] == 3
        assert not run.folder.exists()


@pytest.mark.parametrize(("dataset", "settings"), [("sinusoids", {}), ("smiley", {"dataset.n_train": 30})])
def test_runs_on_different_data_share_no_figure(finished, tmp_path, dataset, settings):
    small = {"dataset.n_train": 50, "dataset.n_test": 20} | settings
    other = write_run(tmp_path / "other", dataset=dataset, **small)
    with pytest.raises(RunError, match="runs on different data cannot share a figure"):
        open_runs([str(finished), str(other)], models=[], dataset="", settings={})


# --- whole or not at all


def full(*arguments, **named):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(params=["a full disk at the weights", "a full disk at the metrics", "a file too large"])
def failing_disk(request, monkeypatch):
    """Three ways in which writing a run fails, as a context."""
    @contextmanager
    def fail():
        with monkeypatch.context() as patch:
            if request.param == "a full disk at the weights":
                patch.setattr(runs, "save_file", full)
            elif request.param == "a full disk at the metrics":
                # The configuration is written by then.
                write = Path.write_text
                patch.setattr(Path, "write_text",
                              lambda path, *rest: full() if path.name == "metrics.json" else write(path, *rest))
            with largest_file(8_000 if request.param == "a file too large" else resource.RLIM_INFINITY):
                yield
    return fail


def save_again(folder: Path) -> None:
    config = configure("vae", "digits", **TINY, seed=1)
    save_run(folder, config, build_model(config, load_data(config)), [{"epoch": 1, "seconds": 1.0}], {})


def test_a_run_that_cannot_be_written_is_not_there(tmp_path, failing_disk):
    with failing_disk(), pytest.raises((OSError, SafetensorError), match=r"No space left|[Ff]ile too large"):
        save_again(tmp_path / "runs" / "seed0")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_that_cannot_be_written_leaves_the_old_one(run_folder, failing_disk):
    before = contents(run_folder.parent)
    with failing_disk(), pytest.raises((OSError, SafetensorError)):
        save_again(run_folder)
    assert contents(run_folder.parent) == before
    save_again(run_folder)
    assert Run(run_folder).config.training.seed == 1
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


