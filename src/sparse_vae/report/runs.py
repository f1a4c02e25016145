"""A machine's own runs: what one training left in ``runs/``, which git ignores, until it is collected and published.

A run is a folder ``<dataset>/<model>[-variant]/seed<k>/`` with ``config.json``, ``measures.json``, ``history.csv``,
``curves.csv``, ``units.csv``, ``model.safetensors`` and, when a notebook made it, ``train.ipynb``. It appears whole or
not at all: it is written beside its place and renamed into it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pandas as pd

import sparse_vae
from sparse_vae.checkpoints import RunError, is_outdated, load_weights, save_weights, weights_problem
from sparse_vae.checks import SettingError
from sparse_vae.configuration import RunConfig, build_model, load_data
from sparse_vae.files import atomic_path
from sparse_vae.models import LatentVariableModel
from sparse_vae.report.measures import UNIT_TEXTS, Measured, measure, measures_fingerprint
from sparse_vae.training import describe_environment

PARTS = ("history", "curves", "units")
PACKAGE = Path(sparse_vae.__file__).parent


def number_text(value: float) -> str:
    """A number as tables hold it: an integer in full, anything else to six digits.

    >>> number_text(2057233.0), number_text(1 / 3)
    ('2057233', '0.333333')
    """
    whole = math.isfinite(value) and value == round(value)
    rounded = value if whole else float(f"{value:.6g}")  # a large one is then an integer, as when it is read again
    return f"{rounded:.0f}" if float(rounded).is_integer() and abs(rounded) < 2**53 else f"{rounded:.6g}"


@cache
def describe_package(folder: Path = PACKAGE) -> dict[str, str]:
    """The package's version and, in a clone, the commit it stands at ("+" when files of the package differ from it).

    A package that lies in ``folder`` and is not tracked there, as in an environment inside of somebody's repository,
    has no commit.
    """
    def git(*arguments: str) -> str | None:
        answer = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else None
    commit = ""
    try:
        if git("ls-files", "--error-unmatch", "__init__.py"):
            commit = (git("rev-parse", "--short=9", "HEAD") or "") + "+" * bool(git("status", "--porcelain", "--", "."))
    except OSError:  # no git here
        pass
    return {"version": sparse_vae.__version__, "commit": commit}


def save_run(folder: Path | str, config: RunConfig, model: LatentVariableModel, history: Iterable[dict[str, float]],
             measured: Measured) -> Path:
    """Write a run; ``folder`` appears whole, in place of an older run there, or not at all.

    What it ran on, the package's version and the seconds that training took are recorded with the measures.
    """
    folder, epochs = Path(folder), pd.DataFrame(list(history))
    seconds = epochs["seconds"].sum() if len(epochs) else measured.seconds
    record = {"measures": measured.values, "seconds": float(seconds),
              "environment": {**describe_environment(config.training), **describe_package(),
                              "measures": measures_fingerprint()}}
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
        (temporary / "measures.json").write_text(json.dumps(record, indent=2) + "\n")
        for name, table in zip(PARTS, (epochs, measured.curves, measured.units), strict=True):
            table.to_csv(temporary / f"{name}.csv", index=False, float_format=number_text)
        save_weights(temporary / "model.safetensors", model.state_dict())
    return folder


def measure_again(folder: Path, data_root: Path | str) -> None:
    """Measure the run in ``folder`` anew, as the measures are now; nothing is trained.

    Raises:
        RunError: its files cannot be read.
    """
    config, record = read_config(folder), read_record(folder)
    data = load_data(config, data_root)
    model = build_model(config, data).eval()
    load_weights(model, folder / "model.safetensors")
    measured = measure(model, data, seed=config.training.seed)
    for name, table in (("curves", measured.curves), ("units", measured.units)):
        with atomic_path(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format=number_text)
    environment = {**record["environment"], "measures": measures_fingerprint()}
    record |= {"measures": measured.values, "environment": environment}
    with atomic_path(folder / "measures.json") as temporary:  # last: until then it counts as measured before
        temporary.write_text(json.dumps(record, indent=2) + "\n")


def failings(measures: Mapping[str, float | None]) -> str:
    """What makes a trained model useless, as its measures say, in words; nothing for one that works.

    >>> failings({"used_dimensions": 0, "explained_variance": -0.5})
    'no dimension is in use; it reconstructs worse than the mean of the data would (explained variance -50%)'
    """
    explained, found = measures.get("explained_variance"), []
    if measures.get("used_dimensions") == 0:
        found.append("no dimension is in use")
    if explained is not None and explained <= 0:
        found.append("it reconstructs worse than the mean of the data would "
                     f"(explained variance {100 * explained:.3g}%)")
    return "; ".join(found)


def is_measured(folder: Path) -> bool:
    """Whether the run in ``folder`` was measured by the measures as they are now."""
    return read_record(folder)["environment"].get("measures") == measures_fingerprint()


def read_config(folder: Path) -> RunConfig:
    """The configuration of the run in ``folder``; a :class:`RunError` if it cannot be read."""
    path = folder / "config.json"
    try:
        return RunConfig.from_dict(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"no run in {folder}: it has no config.json") from None
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} cannot be read as a run's configuration: {error}") from error


def read_record(folder: Path) -> dict:
    """Measures, seconds and environment of the run in ``folder``; a :class:`RunError` if they cannot be read."""
    path = folder / "measures.json"
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict) or record.keys() != {"measures", "seconds", "environment"}:
            raise TypeError("it must hold measures, seconds and environment")
        for key in ("measures", "environment"):
            if not isinstance(record[key], dict):
                raise TypeError(f"{key} must be a mapping; got {record[key]!r}")
        _check_numbers({"seconds": record["seconds"], **record["measures"]})
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(path, error) from error
    return record


def _check_numbers(values: Mapping[str, object]) -> None:
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise TypeError(f"{name} must be a number; got {value!r}")


def read_part(folder: Path, name: str) -> pd.DataFrame:
    """A run's ``history``, ``curves`` or ``units``; a :class:`RunError` if it cannot be read."""
    path = folder / f"{name}.csv"
    try:
        return pd.read_csv(path, float_precision="round_trip", dtype=dict.fromkeys(UNIT_TEXTS, str))
    except pd.errors.EmptyDataError:  # a method that is not trained has no history: a line without a column
        if path.stat().st_size:
            return pd.DataFrame()
        raise _unreadable(path, ValueError("the file is empty")) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} is missing or damaged ({error}); train the run again, `make train` does")


def is_finished(folder: Path, config: RunConfig, root: Path | str = ".") -> bool:
    """Whether ``folder`` holds a whole run of exactly this configuration, its weights included.

    A run on a CSV file of one's own that has changed since is not finished; its path is relative to ``root``.
    """
    try:
        _ = read_record(folder), [read_part(folder, name) for name in PARTS]
        return (read_config(folder) == config and not is_outdated(folder / "measures.json", config, root)
                and not weights_problem(folder / "model.safetensors"))
    except (RunError, SettingError):
        return False


def warn_of_weights(folder: Path) -> None:
    """Say on stderr what is wrong with the weights of the run in ``folder``, if there is a run."""
    weights = folder / "model.safetensors"
    if folder.is_dir() and (problem := weights_problem(weights)):
        print(f"warning: {weights} {problem}; its run counts as not finished", file=sys.stderr)
