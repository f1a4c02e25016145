"""A machine's own runs: what one training left in ``runs/``, which git ignores, until it is collected and published.

A run is a folder ``<dataset>/<model>[-variant]/seed<k>/`` with ``config.json``, ``measures.json``, ``history.csv``,
``curves.csv``, ``units.csv``, ``model.safetensors`` and, when a notebook made it, ``train.ipynb``. It appears whole or
not at all: it is written beside its place and renamed into it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pandas as pd
from safetensors import SafetensorError, safe_open

import sparse_vae
from sparse_vae.checkpoints import RunError, is_outdated, save_weights
from sparse_vae.checks import SettingError
from sparse_vae.configuration import RunConfig
from sparse_vae.files import atomic_path
from sparse_vae.models import LatentVariableModel
from sparse_vae.report.measures import Measured, measures_fingerprint
from sparse_vae.training import describe_environment

PRECISION = "%.6g"
"""Of the numbers in histories, curves and tables of units."""


@cache
def describe_package() -> dict[str, str]:
    """The package's version and, in a clone, the commit it stands at ("+" when files differ from it)."""
    def git(*arguments: str) -> str:
        answer = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True,
                                check=False)
        return answer.stdout.strip() if answer.returncode == 0 else ""
    try:
        commit = git("rev-parse", "--short=9", "HEAD") + "+" * bool(git("status", "--porcelain", "--", "."))
    except OSError:  # no git here
        commit = ""
    return {"version": sparse_vae.__version__, "commit": commit}


def save_run(folder: Path | str, config: RunConfig, model: LatentVariableModel, history: Iterable[dict[str, float]],
             measured: Measured) -> Path:
    """Write a run; ``folder`` appears whole, in place of an older run there, or not at all.

    What it ran on, the package's version and the seconds that training took are recorded with the measures.
    """
    folder, history = Path(folder), pd.DataFrame(list(history))
    record = {"measures": measured.values, "seconds": history["seconds"].sum() if len(history) else measured.seconds,
              "environment": {**describe_environment(config.training), **describe_package(),
                              "measures": measures_fingerprint()}}
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
        (temporary / "measures.json").write_text(json.dumps(record, indent=2) + "\n")
        for name, table in (("history", history), ("curves", measured.curves), ("units", measured.units)):
            table.to_csv(temporary / f"{name}.csv", index=False, float_format=PRECISION)
        save_weights(temporary / "model.safetensors", model.state_dict())
    return folder


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
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(path, error) from error
    return record


def read_part(folder: Path, name: str) -> pd.DataFrame:
    """A run's ``history``, ``curves`` or ``units``; a :class:`RunError` if it cannot be read."""
    path = folder / f"{name}.csv"
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} is missing or damaged ({error}); train the run again, `make train` does")


def is_finished(folder: Path, config: RunConfig, root: Path | str = ".") -> bool:
    """Whether ``folder`` holds a whole run of exactly this configuration, its weights included.

    A run on a CSV file of one's own that has changed since is not finished; its path is relative to ``root``.
    """
    try:
        _ = read_record(folder), read_part(folder, "history")
        with safe_open(folder / "model.safetensors", framework="pt"):  # its header must fit its size
            return read_config(folder) == config and not is_outdated(folder / "measures.json", config, root)
    except (RunError, SettingError, SafetensorError, OSError):
        return False
