"""Kernels: fast to start, and each as if it were the first."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from papermill.exceptions import PapermillExecutionError

from sparse_vae.report import kernels
from sparse_vae.report.cli import main
from sparse_vae.report.execution import execute_notebook
from sparse_vae.report.runs import read_config

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TINY = ["epochs=1", "latent_dim=2", "backbone=mlp", "hidden_dim=16"]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")


@pytest.fixture
def run_code(tmp_path):
    """Execute code as a notebook; returns what it printed."""
    def run(code: str) -> str:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        nbformat.write(notebook, tmp_path / "code.ipynb")
        execute_notebook(tmp_path / "code.ipynb", tmp_path / "executed.ipynb", {}, tmp_path)
        cell, = nbformat.read(tmp_path / "executed.ipynb", as_version=4).cells
        return "".join(output.get("text", "") for output in cell.outputs)
    return run


@linux_only
def test_kernels_are_forked_with_the_libraries_imported(run_code):
    parents = {int(run_code("import os; print(os.getppid())")) for _ in range(2)}
    assert len(parents) == 1
    assert parents != {os.getpid()}
    assert run_code(f"import sys; print([name for name in {kernels.LIBRARIES} if name not in sys.modules])") == "[]\n"


def test_a_kernel_knows_nothing_of_the_one_before(run_code):
    run_code("import torch, pandas, os\n"
             "torch.set_default_dtype(torch.float64); torch.rand(1); pandas.left_behind = 1\n"
             "os.environ['LEFT_BEHIND'] = '1'; os.chdir('/')")
    answer = run_code("import torch, pandas, os\n"
                      "print(torch.get_default_dtype(), hasattr(pandas, 'left_behind'), 'LEFT_BEHIND' in os.environ)")
    assert answer == "torch.float32 False False\n"
    first, second = (run_code("import torch; print(torch.rand(1).item())") for _ in range(2))
    assert first == second


def test_a_kernel_works_in_its_folder_and_with_the_present_environment(run_code, tmp_path, monkeypatch):
    for value in ("one", "two"):
        monkeypatch.setenv("SAID", value)
        assert run_code("import os; print(os.getcwd(), os.environ['SAID'])") == f"{tmp_path} {value}\n"


def test_pictures_of_pyplot_are_shown(run_code, tmp_path):
    run_code("import matplotlib.pyplot as plt; plt.plot([1, 2]); None")
    cell, = nbformat.read(tmp_path / "executed.ipynb", as_version=4).cells
    assert "image/png" in cell.outputs[0].data


def test_a_kernel_that_dies_is_an_error_and_the_next_one_lives(run_code):
    with pytest.raises(Exception, match="Kernel died"):
        run_code("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(PapermillExecutionError, match="ZeroDivisionError"):
        run_code("1 / 0")
    assert run_code("print('alive')") == "alive\n"


@linux_only
def test_where_nothing_can_be_forked_kernels_start_as_jupyter_starts_them(run_code, monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert run_code("import os; print(os.getppid())") == f"{os.getpid()}\n"


@linux_only
def test_a_kernel_is_watched_and_signalled():
    kernel = kernels._Kernel(kernels._fork(["--no-such-option"], os.getcwd(), dict(os.environ)))
    assert kernel.wait() == kernel.poll() != 0
    kernel = kernels._Kernel(kernels._fork(["--quiet"], os.getcwd(), dict(os.environ)))
    kernel.kill()
    assert kernel.wait() == -signal.SIGKILL
    kernel.send_signal(signal.SIGTERM)  # to what has ended, does nothing


@linux_only
def test_nothing_stays_behind(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import time; time.sleep(600)")])
    nbformat.write(notebook, tmp_path / "sleep.ipynb")
    code = ("import pathlib, sys\nfrom sparse_vae.report import kernels\n"
            "from sparse_vae.report.execution import execute_notebook\nkernels.LIBRARIES = ['ipykernel.kernelapp']\n"
            "folder = pathlib.Path(sys.argv[1])\n"
            "execute_notebook(folder / 'sleep.ipynb', folder / 'out.ipynb', {}, folder)")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as owner:
        descendants = []
        while not any(process.ppid() != owner.pid for process in descendants):  # until there is a fork server's kernel
            time.sleep(0.05)
            descendants = psutil.Process(owner.pid).children(recursive=True)
        owner.kill()
    _, alive = psutil.wait_procs(descendants, timeout=30)
    assert alive == []


# --- a command that trains one run, in a kernel


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project folder with the notebooks, to be in."""
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_runs_once_with_the_settings_given(project, capsys):
    arguments = ["train", "model=beta-vae", "beta=2", "learning_rate=1e-2", "seed=3", *TINY]
    name = "runs/local/digits/beta-vae-beta2-learning_rate0.01-epochs1-latent_dim2-backbonemlp-hidden_dim16/seed3"
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == f"done: {name}\n"
    assert "epoch 1/1" in captured.err  # the progress bar
    config = read_config(project / name)
    assert (config.model, config.dataset, config.model_settings["beta"]) == ("beta-vae", "digits", 2)
    assert (config.training.learning_rate, config.training.seed, config.training.epochs) == (0.01, 3, 1)
    assert {path.parent for path in (project / "runs").rglob("*") if path.is_file()} == {project / name}
    assert not (project / "results").exists()

    assert main(arguments) == 0
    assert capsys.readouterr().out == f"finished before: {name}\n"


def test_a_run_that_fails_says_why_and_leaves_no_run(project, capsys):
    assert main(["train", "dataset=returns", "csv=missing.csv", *TINY]) == 1
    assert capsys.readouterr().err.rstrip().splitlines()[-1] == (
        f"error: DataError: cannot read {project}/missing.csv: No such file or directory")
    assert not [*project.rglob("measures.json"), *project.rglob("model.safetensors")]
    assert not list(project.glob("runs/local/returns/*/seed0"))


@linux_only
def test_a_fork_server_that_dies_is_started_again(run_code, monkeypatch):
    """The last test here, since the new one has few libraries, not to take long."""
    monkeypatch.setattr(kernels, "LIBRARIES", ("ipykernel.kernelapp",))
    before = int(run_code("import os; print(os.getppid())"))
    os.kill(before, signal.SIGKILL)
    assert run_code("print('alive')") == "alive\n"
    after = int(run_code("import os; print(os.getppid())"))
    assert after not in (before, os.getpid())
