"""The library stands by itself: what importing it loads, what it needs, what its front door holds."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sparse_vae

SOURCE = Path(sparse_vae.__file__).parent
OF_THE_REPORT = {"IPython", "PIL", "dask", "distributed", "ipykernel", "jupyter_client", "jupyter_core", "jupyterlab",
                 "matplotlib", "nbconvert", "nbformat", "pandas", "papermill", "pypandoc", "seaborn", "skimage",
                 "torchvision", "yaml"}
LIBRARY = [f"sparse_vae.{path.relative_to(SOURCE).with_suffix('').as_posix().replace('/', '.')}"
           for path in sorted(SOURCE.rglob("*.py"))  # __main__ is the command, which says so where the extra is missing
           if "report" not in path.parts and path.stem not in ("__init__", "__main__")]


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_library_loads_nothing_of_the_report():
    loaded = run("import sys\n"
                 "from sparse_vae import checkpoints, configuration, datasets, distributions, evaluation, models\n"
                 "from sparse_vae import nets, settings, training\n"
                 "print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert "torch" in loaded
    # scikit-learn and numba, which are slow to import, and take pandas and yaml along where they are, wait.
    assert (OF_THE_REPORT | {"numba", "scipy", "sklearn"}) & set(loaded) == set()


def test_the_front_door_opens_what_it_names_and_nothing_before():
    before, after = run("import sys, sparse_vae\n"
                        "print(*sys.modules)\n"
                        "from sparse_vae import *\n"
                        "from sparse_vae import __all__\n"
                        "assert all(name in globals() for name in __all__)\n"
                        "assert sparse_vae.distributions.Gamma is Gamma\n"
                        "print(*sys.modules)").splitlines()
    assert not {"torch", "numpy", "sparse_vae.models"} & set(before.split())
    assert OF_THE_REPORT & {name.partition(".")[0] for name in after.split()} == set()


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
