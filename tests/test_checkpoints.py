"""Weights and checkpoints on disk: read back as they were written, whole or not at all, refused where they misfit."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sparse_vae import checkpoints
from sparse_vae.checkpoints import Checkpoint, RunError, load_weights, save_weights, train_run
from sparse_vae.configuration import RunConfig, build_model, configure, load_data
from sparse_vae.evaluation import code_usage
from sparse_vae.files import atomic_path, exclusive_folder
from sparse_vae.training import TrainingState, make_optimizer

TINY = {"epochs": 1, "latent_dim": 3, "backbone": "mlp", "hidden_dim": 16, "device": "cpu"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full(*arguments, **named):
    raise OSError(errno.ENOSPC, "No space left on device")


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    damaged = {"truncated": whole[:len(whole) // 2], "empty": b"", "text": b"not safetensors at all\n" * 10,
               "cut in its header": whole[:20], "of zeros": bytes(len(whole))}
    path.write_bytes(damaged[how])


DAMAGES = ["truncated", "empty", "text", "cut in its header", "of zeros"]


# --- files


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_atomic_path_keeps_what_was_there_when_its_block_fails(tmp_path, kind):
    def write(path, text):
        if kind == "folder":
            path.mkdir()
            path /= "inside"
        path.write_text(text)

    target = tmp_path / "deep" / "target.csv"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".csv"
        write(temporary, "first")
        assert not target.exists()
    before = contents(tmp_path)
    assert list(before.values()) == [b"first"]
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:  # noqa: PT012 (the block is what fails)
        write(temporary, "second")
        raise KeyboardInterrupt
    assert contents(tmp_path) == before
    with atomic_path(target) as temporary:
        write(temporary, "third")
    assert list(contents(tmp_path).values()) == [b"third"]


def test_a_folder_is_held_by_one_at_a_time_also_where_each_removes_it(tmp_path, at_once):
    def work():
        for _ in range(50):
            with exclusive_folder(tmp_path / "deep" / "held", on_wait=lambda: None):
                (tmp_path / "deep" / "held" / "mine").touch(exist_ok=False)
                shutil.rmtree(tmp_path / "deep" / "held")
            done.append(1)

    done = []
    assert at_once(work) == []
    assert len(done) == 400


# --- weights


@pytest.fixture
def weights(tmp_path) -> Path:
    """The weights of a tiny model, alone in their folder."""
    config = configure("vae", "digits", **TINY)
    save_weights(tmp_path / "weights" / "model.safetensors", build_model(config, load_data(config)).state_dict())
    return tmp_path / "weights" / "model.safetensors"


def test_weights_are_read_back_as_they_were_written(weights):
    config = configure("vae", "digits", **TINY)
    model = build_model(config, load_data(config))
    other = build_model(configure("vae", "digits", **TINY, seed=1), load_data(config))
    load_weights(other, weights)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_weights_are_refused(weights, how):
    damage(weights, how)
    config = configure("vae", "digits", **TINY)
    with pytest.raises(RunError, match=r"model\.safetensors is damaged or not a safetensors file"):
        load_weights(build_model(config, load_data(config)), weights)


@pytest.mark.parametrize("other", [{"latent_dim": 4}, {"hidden_dim": 8}, {"model": "autoencoder"},
                                   {"dataset": "sinusoids"}])
def test_weights_of_another_model_or_other_settings_are_refused(weights, other):
    config = configure(**{"model": "vae", "dataset": "digits", **TINY, **other})
    reason = r"(?s)model\.safetensors holds the weights of another model or other settings: .*(size mismatch|key)"
    with pytest.raises(RunError, match=reason):
        load_weights(build_model(config, load_data(config)), weights)


# --- training


def test_the_history_says_how_much_of_the_code_is_used():
    config = configure("vae", "digits", **TINY)
    data = load_data(config)
    model, history = train_run(config, data, progress=False)
    assert not model.training
    usage = code_usage(model, data.train.x)
    assert {name: history[-1][f"train_{name}"] for name in usage} == usage


# --- checkpoints


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    """A checkpoint of one epoch of a tiny run, alone in its folder."""
    keeper = Checkpoint(tmp_path / "checkpoints" / "c.safetensors", configure("vae", "digits", **TINY), every=0)
    keeper.save(fresh_state(keeper.config, trained=True))
    return keeper


def fresh_state(config: RunConfig, *, trained: bool = False) -> TrainingState:
    model = build_model(config, load_data(config))
    state = TrainingState(model, make_optimizer(model, config.training))
    if trained:
        model.loss(load_data(config).train.x[:32]).total.backward()
        state.optimizer.step()
        state.epoch, state.history = 1, [{"epoch": 1, "train_total": 1.5}]
    return state


def test_a_checkpoint_is_read_back_as_it_was_written(checkpoint):
    written, state = fresh_state(checkpoint.config, trained=True), fresh_state(checkpoint.config)
    restored = checkpoint.restore(state)
    assert (restored.epoch, restored.history) == (1, [{"epoch": 1, "train_total": 1.5}])
    # The same gradients but for the noise of the sample: what the optimiser does next needs more than equal shapes.
    assert restored.optimizer.state_dict()["state"].keys() == written.optimizer.state_dict()["state"].keys()
    saved = load_file(checkpoint.path)
    assert all(torch.equal(saved[f"model.{name}"], value) for name, value in restored.model.state_dict().items())
    for index, values in restored.optimizer.state_dict()["state"].items():
        assert all(torch.equal(saved[f"optimizer.{index}.{name}"], value) for name, value in values.items())
        assert values["step"] == 1


def test_without_a_checkpoint_a_run_starts_anew(tmp_path):
    config = configure("vae", "digits", **TINY)
    state = fresh_state(config)
    assert Checkpoint(tmp_path / "none.safetensors", config).restore(state) is state
    assert state.epoch == 0


@pytest.mark.parametrize("other", [{"model": "beta-vae"}, {"dataset": "sinusoids"}, {"latent_dim": 4}, {"seed": 1},
                                   {"learning_rate": 0.1}, {"epochs": 2}])
def test_a_checkpoint_of_another_run_is_refused(checkpoint, other):
    config = configure(**{"model": "vae", "dataset": "digits", **TINY, **other})
    before = checkpoint.path.read_bytes()
    with pytest.raises(RunError, match=r"c\.safetensors belongs to another model or other settings; "
                                       "delete it to start the run anew"):
        Checkpoint(checkpoint.path, config).restore(fresh_state(config))
    assert checkpoint.path.read_bytes() == before


def test_weights_are_no_checkpoint(weights):
    config = configure("vae", "digits", **TINY)
    with pytest.raises(RunError, match="belongs to another model or other settings"):
        Checkpoint(weights, config).restore(fresh_state(config))


@pytest.mark.parametrize("notes", [{"config": "{"}, {"config": "[]"}, {"config": "{}"},
                                   {"config": '{"model": "gone", "dataset": "digits"}'}])
def test_a_checkpoint_whose_record_cannot_be_read_is_refused(checkpoint, notes):
    save_file(load_file(checkpoint.path), checkpoint.path, metadata=notes)
    with pytest.raises(RunError, match="belongs to another model or other settings; delete it"):
        checkpoint.restore(fresh_state(checkpoint.config))


@pytest.mark.parametrize("change", [
    lambda tensors, notes: tensors.pop("optimizer.0.exp_avg"),
    lambda tensors, notes: tensors.pop(next(name for name in tensors if name.startswith("model."))),
    lambda tensors, notes: tensors.update({"optimizer.0.exp_avg": torch.zeros(2, 2)}),
    lambda tensors, notes: tensors.update({"optimizer.999.exp_avg": torch.zeros(2)}),
    lambda tensors, notes: tensors.update({"other": torch.zeros(2)}),
    lambda tensors, notes: notes.pop("history"),
    *(lambda tensors, notes, text=text: notes.update(history=text) for text in ("{", "3", "[3]", '[{"epoch": 2}]')),
])
def test_a_checkpoint_that_does_not_fit_its_run_is_refused(checkpoint, change):
    tensors = load_file(checkpoint.path)
    notes = {"config": json.dumps(asdict(checkpoint.config)), "history": "[]"}
    change(tensors, notes)
    save_file(tensors, checkpoint.path, metadata=notes)
    with pytest.raises(RunError, match=r"c\.safetensors does not fit its run .*; delete it to start the run anew"):
        checkpoint.restore(fresh_state(checkpoint.config))


def test_a_checkpoint_older_than_its_data_is_refused(tmp_path):
    rows = ["day,a,b", *(f"2024-01-{day:02},{day % 7},{day % 5}" for day in range(1, 32))]
    (tmp_path / "own.csv").write_text("\n".join(rows))
    config = configure("vae", "returns", csv=tmp_path / "own.csv", **TINY)
    checkpoint = Checkpoint(tmp_path / "c.safetensors", config, every=0)
    checkpoint.save(fresh_state(config, trained=True))
    assert checkpoint.restore(fresh_state(config)).epoch == 1
    os.utime(checkpoint.path, (0, 0))
    with pytest.raises(RunError, match=r"c\.safetensors is older than .*own\.csv; delete it"):
        checkpoint.restore(fresh_state(config))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_refused(checkpoint, how):
    damage(checkpoint.path, how)
    with pytest.raises(RunError, match=r"c\.safetensors is damaged or not a safetensors file .*"
                                       "delete it to start the run anew"):
        checkpoint.restore(fresh_state(checkpoint.config))


def test_training_does_not_start_from_a_damaged_checkpoint(checkpoint):
    damage(checkpoint.path, "truncated")
    before = checkpoint.path.read_bytes()
    with pytest.raises(RunError, match="damaged"):
        train_run(checkpoint.config, load_data(checkpoint.config), checkpoint=checkpoint.path, progress=False)
    assert checkpoint.path.read_bytes() == before


@pytest.mark.parametrize("way", ["a full disk", "a file too large"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(checkpoint, monkeypatch, largest_file, way):
    before = contents(checkpoint.path.parent)
    with monkeypatch.context() as patch, largest_file(8_000 if way == "a file too large" else resource.RLIM_INFINITY):
        if way == "a full disk":
            patch.setattr(checkpoints, "save_file", full)
        with pytest.raises((OSError, SafetensorError)):
            checkpoint.save(fresh_state(checkpoint.config, trained=True))
    assert contents(checkpoint.path.parent) == before
