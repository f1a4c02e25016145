"""A training that is killed at any moment is resumed to the same bits as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import pandas as pd
import pytest

from sparse_vae.report.runs import is_finished
from sparse_vae.report.suites import load_suite

KILLS = 50
SUITE = "runs: [{model: vsc, dataset: digits, epochs: 25, latent_dim: 4, backbone: mlp, hidden_dim: 32, device: cpu}]"
# What the command does, with a checkpoint at every epoch's end, and the training notebook's work without the notebook.
TRAIN = """
import nbformat, torch
from sparse_vae import checkpoints
from sparse_vae.configuration import configure, load_data
from sparse_vae.report import execution
from sparse_vae.report.measures import Measured
from sparse_vae.report.runs import save_run
from sparse_vae.report.suites import load_suite

def execute_notebook(template, target, parameters, root, **options):
    config = configure(parameters["model"], parameters["dataset"], **parameters["settings"])
    model, history = checkpoints.train_run(
        config, load_data(config), checkpoint=root / parameters["checkpoint"], progress=False)
    save_run(root / parameters["output"], config, model, history, Measured({"loss": history[-1]["train_total"]}))
    nbformat.write(nbformat.v4.new_notebook(), target)

torch.set_num_threads(1)
checkpoints.Checkpoint.__init__.__defaults__ = (0.0,)
execution.execute_notebook = execute_notebook
suite = load_suite("tiny", root)
execution.execute_run(suite.runs[0], suite.runs_folder / suite.runs[0].name, root)
"""


def start(root: Path) -> multiprocessing.Process:
    """A process that trains the run, forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nbformat", "sklearn.datasets", "sparse_vae.report.execution", "torch._dynamo"])
    process = context.Process(target=exec, args=(TRAIN, {"root": root}))  # a builtin needs no module to be found
    process.start()
    return process


def results(folder: Path) -> tuple[bytes, pd.DataFrame]:
    """What may not depend on interruptions: weights and history, but for the seconds."""
    return (folder / "model.safetensors").read_bytes(), pd.read_csv(folder / "history.csv").drop(columns="seconds")


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_to_the_same_bits(tmp_path):
    for name in ("experiments", "notebooks"):
        (tmp_path / name).mkdir()
    (tmp_path / "experiments" / "tiny.yml").write_text(SUITE)
    suite, moments = load_suite("tiny", tmp_path), random.Random(0)
    run, = suite.runs
    folder = suite.runs_folder / run.name
    checkpoint = folder.with_name(f".{folder.name}.partial") / "checkpoint.safetensors"

    for _ in range(2):  # the first one starts the fork server
        started = time.monotonic()
        start(tmp_path).join()
        seconds = time.monotonic() - started
        weights, history = results(folder)
        folder.rename(tmp_path / f"uninterrupted-{started}")
    assert len(history) == run.config.training.epochs

    kills = resumed = completed = 0
    while True:
        process = start(tmp_path)
        process.join(moments.uniform(0, seconds) if kills < KILLS else None)
        if process.is_alive():
            process.kill()
            process.join()
            kills, resumed = kills + 1, resumed + checkpoint.exists()
            continue
        assert process.exitcode == 0
        assert is_finished(folder, run.config)
        again, rows = results(folder)
        assert again == weights
        pd.testing.assert_frame_equal(rows, history, check_exact=True)
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]
        if kills == KILLS:
            break
        completed += 1
        folder.rename(tmp_path / f"done-{completed}")
    assert resumed > KILLS / 2
