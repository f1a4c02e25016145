"""The package from outside: what importing it loads, what it needs, how its command ends as a process."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sparse_vae

SOURCE = Path(sparse_vae.__file__).parent
SCRIPT = Path(sys.executable).with_name("sparse-vae")
COMMAND = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "sparse_vae"]
OF_THE_REPORT = {"IPython", "PIL", "dask", "distributed", "ipykernel", "jupyter_client", "jupyter_core", "jupyterlab",
                 "matplotlib", "nbformat", "pandas", "papermill", "pypandoc", "seaborn", "skimage",
                 "torchvision", "yaml"}
LIBRARY = [f"sparse_vae.{path.relative_to(SOURCE).with_suffix('').as_posix().replace('/', '.')}"
           for path in sorted(SOURCE.rglob("*.py"))  # __main__ is the command, which says so where the extra is missing
           if "report" not in path.parts and path.stem not in ("__init__", "__main__")]


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_each_step_loads_what_it_needs_and_no_more():
    front, library, everything, runs = (set(line.split()) for line in run("""
import sys, sparse_vae
print(*sys.modules)
from sparse_vae import checkpoints, configuration, datasets, distributions, evaluation, models, nets, settings, training
print(*sys.modules)
from sparse_vae import *
from sparse_vae import __all__
assert all(name in globals() for name in __all__)
assert sparse_vae.distributions.Gamma is Gamma
print(*sys.modules)
import sparse_vae.report.run_sets
print(*sys.modules)
""").splitlines())
    assert not {"torch", "numpy", "sparse_vae.models"} & front
    assert "torch" in library
    # scikit-learn and numba, which are slow to import, and take pandas and yaml along where they are, wait.
    assert not (OF_THE_REPORT | {"numba", "scipy", "sklearn"}) & {name.partition(".")[0] for name in library}
    assert not OF_THE_REPORT & {name.partition(".")[0] for name in everything}
    assert not {"matplotlib", "seaborn", "papermill", "dask", "sklearn", "IPython"} & runs  # draws and starts nothing


def test_the_library_works_without_the_extra():
    run(f"""
import importlib, sys, torch
from importlib.machinery import PathFinder
class AsIfAbsent(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        return None if name.partition(".")[0] in {OF_THE_REPORT} else PathFinder.find_spec(name, *rest)
sys.meta_path = [AsIfAbsent if finder is PathFinder else finder for finder in sys.meta_path]
for module in {LIBRARY}:
    importlib.import_module(module)
from sparse_vae import Gamma, TrainingSettings, load_dataset, make_model, train
from sparse_vae.evaluation import explained_variance, ssim
data = load_dataset("digits")
model = make_model("hybrid", data.input_shape, likelihood=data.likelihood, latent_dim=4)
train(model, data, TrainingSettings(epochs=1, device="cpu"), progress=False)
assert explained_variance(data.test.x, model.reconstruct(data.test.x)) < 1
assert ssim(data.test.x, model.reconstruct(data.test.x)).max() < 1
assert Gamma(torch.tensor(0.01), torch.tensor(1.0)).sample((5,)).shape == (5,)
""")


def test_without_the_extra_the_report_says_what_to_install():
    message = run("import importlib.util\n"
                  "find = importlib.util.find_spec\n"
                  "importlib.util.find_spec = lambda name, *rest: None if name in ('pandas', 'yaml') else find(name)\n"
                  "try:\n    import sparse_vae.report\n"
                  "except ImportError as error:\n    print(error)")
    assert message == "sparse_vae.report needs pandas, yaml: pip install 'sparse-vae[report]'\n"


def test_without_the_extra_a_command_says_what_to_install():
    result = subprocess.run([sys.executable, "-c", (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name in ('dask', 'yaml') else find(name, *rest)\n"
        "from sparse_vae.__main__ import main\n"  # the script that pip makes begins with this line
        "sys.exit(main())"), "models"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: sparse_vae.report needs dask, yaml: pip install 'sparse-vae[report]'\n"


@pytest.mark.parametrize("module", LIBRARY)
def test_no_module_of_the_library_imports_the_report_or_what_it_needs(module):
    source = SOURCE.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text()
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert OF_THE_REPORT & {name.partition(".")[0] for name in imported} == set()
    assert not any(name.startswith("sparse_vae.report") for name in imported)


def test_there_is_one_version():
    assert sparse_vae.__version__.count(".") == 2
    project = (SOURCE.parents[1] / "pyproject.toml").read_text()
    assert 'version = {attr = "sparse_vae.__version__"}' in project
    assert f'"{sparse_vae.__version__}"' not in project


# --- the command


def test_the_command_exits_with_its_status_and_no_traceback(tmp_path):
    for folder in ("experiments", "notebooks"):
        (tmp_path / folder).mkdir()
    result = subprocess.run([*COMMAND, "train", "epochs=0"], cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: epochs must be an integer of at least 1; got 0\n"


@pytest.mark.parametrize("argument", ["models", "--help"])
def test_a_reader_that_has_seen_enough_is_told_no_error(monkeypatch, argument):
    """What ``head`` leaves: a pipe that nobody reads any more, closed here before the command writes."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # argparse passes over the error of a write, not of a flush
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run([*COMMAND, argument], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert result.returncode == 141  # 128 + SIGPIPE
    assert result.stderr == ""
