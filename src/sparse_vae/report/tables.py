"""What is published of a suite, ``results/<suite>/``: tables of runs, histories, curves and units, and weights.

``runs.csv`` has a row for each run: its name, model and data set, every setting, every measure, the seconds that
training took and what it ran on. ``histories.csv``, ``curves.csv`` and ``units.csv`` have many rows for a run;
``weights/<run>.safetensors`` holds, in half precision, the weights of the runs that the suite lists as published.
:func:`collect` makes all of it from a machine's own runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from sparse_vae.checkpoints import save_weights
from sparse_vae.checks import ExplainedError, SettingError, parse_value
from sparse_vae.configuration import RunConfig, configure
from sparse_vae.files import atomic_path
from sparse_vae.report.measures import CURVE_COLUMNS, MEASURES
from sparse_vae.report.runs import PRECISION, is_finished, read_part, read_record
from sparse_vae.report.suites import Suite

PUBLISHED_DTYPE = torch.float16
IDENTITY = ("run", "model", "dataset")
ENVIRONMENT = ("seconds", *(f"environment.{name}" for name in (
    "device", "precision", "threads", "torch", "machine", "version", "commit", "measures")))
"""What a run took and ran on; ``measures`` is the fingerprint of the source of its measures, empty where a run was
published before they all were kept."""
LONG = {"histories": ("run", "epoch", "step", "seconds"), "curves": ("run", *CURVE_COLUMNS),
        "units": ("run", "unit", "rate")}
"""The tables with many rows for a run, and the columns that each must have."""


class TableError(ExplainedError, RuntimeError):
    """A published table cannot be read; names the file and the place in it."""


@dataclass
class Tables:
    """The published tables of a suite.

    Attributes:
        runs: a row for each run; settings as the text that :func:`setting_text` made, measures as numbers.
        histories, curves, units: many rows for each run, whose name is in the column ``run``.
    """

    runs: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*IDENTITY, *ENVIRONMENT]))
    histories: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LONG["histories"]))
    curves: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LONG["curves"]))
    units: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LONG["units"]))

    def configs(self) -> dict[str, RunConfig]:
        """The configuration of each run, by its name."""
        return {row["run"]: config_of(row) for row in self.runs.to_dict("records")}


def setting_text(value: object) -> str:
    """A setting as a table holds it: ``none``, ``true``, a number in full, or text as it is."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def settings_of(config: RunConfig) -> dict[str, object]:
    """Every setting of a run in one flat mapping, as :func:`~sparse_vae.configuration.configure` takes them."""
    return {**config.model_settings, **vars(config.training),
            **{f"dataset.{name}": value for name, value in config.dataset_settings.items()}}


def config_of(row: dict[str, object]) -> RunConfig:
    """The configuration in a row of the table of runs; a setting that is newer than the row has its default."""
    known = settings_of(configure(row["model"], row["dataset"])) | {"likelihood": None}
    settings = {name: parse_value(row[name]) for name in known if isinstance(row.get(name), str)}
    return configure(row["model"], row["dataset"], **settings)


def read_tables(folder: Path) -> Tables:
    """The tables in ``results/<suite>/``; empty ones where nothing is published.

    Raises:
        TableError: a column that is missing, a run that is there twice, a measure that is no number, rows of no run;
            names the file, the run and the column.
    """
    path = folder / "runs.csv"
    if not path.exists():
        return Tables()
    runs = _read_csv(path, (*IDENTITY, "seed", *ENVIRONMENT), dtype=str)
    twice = runs["run"][runs["run"].duplicated()]
    if len(twice):
        raise TableError(f"{path}: run {twice.iloc[0]} is there twice, the second time in line {twice.index[0] + 2}")
    for column in [*(name for name in MEASURES if name in runs), "seconds"]:
        numbers = pd.to_numeric(runs[column], errors="coerce")
        wrong = runs.index[runs[column].notna() & numbers.isna()]
        if len(wrong):
            raise TableError(f"{path}, line {wrong[0] + 2}: {column} of run {runs['run'][wrong[0]]} must be a number; "
                             f"got {runs[column][wrong[0]]!r}")
        runs[column] = numbers
    for row in runs.to_dict("records"):
        try:
            config_of(row)
        except SettingError as error:
            raise TableError(f"{path}: run {row['run']} has settings that cannot be used: {error}") from error
    tables = Tables(runs)
    for name, columns in LONG.items():
        path = folder / f"{name}.csv"
        if path.exists():
            table = _read_csv(path, columns)
            strange = table["run"][~table["run"].isin(runs["run"])]
            if len(strange):
                raise TableError(f"{path}, line {strange.index[0] + 2}: {strange.iloc[0]!r} is no run of runs.csv")
            setattr(tables, name, table)
    return tables


def _read_csv(path: Path, required: Iterable[str], **options) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, **options)
    except (OSError, ValueError) as error:
        raise TableError(f"{path} cannot be read as a table: {error}") from error
    missing = [column for column in required if column not in table]
    if missing:
        raise TableError(f"{path} lacks the column {missing[0]}; it has {', '.join(map(str, table.columns))}")
    return table


def weights_path(folder: Path, run: str) -> Path:
    """Where the published weights of a run lie."""
    return folder / "weights" / f"{run}.safetensors"


def unpublished(suite: Suite, tables: Tables | None = None) -> list[str]:
    """Names of the runs of a suite that are not published as the suite now asks for them, weights included."""
    tables = tables or read_tables(suite.folder)
    configs, measured = tables.configs(), set(tables.runs["run"][tables.runs["environment.measures"].notna()])
    return [run.name for run in suite.runs if configs.get(run.name) != run.config or run.name not in measured
            or (run.name in suite.published and not weights_path(suite.folder, run.name).exists())]


def collect(suite: Suite) -> list[str]:
    """Bring the finished runs of a suite from ``runs/`` into ``results/``; returns the names of those that are new.

    A run that is published and not among the machine's own stays as it is; one that the suite no longer has goes.
    The tables are replaced together, after the weights: a reader never sees rows without theirs.
    """
    tables = read_tables(suite.folder)
    parts = {name: {run: part for run, part in getattr(tables, name).groupby("run", sort=False)} for name in LONG}
    rows = {row["run"]: row for row in tables.runs.to_dict("records")}
    fresh = []
    for run in suite.runs:
        source = suite.runs_folder / run.name
        if not is_finished(source, run.config, suite.root):
            continue
        record = read_record(source)
        row = _row(run.name, run.config, record)
        if rows.get(run.name) is not None and _same(rows[run.name], row) and (
                run.name not in suite.published or weights_path(suite.folder, run.name).exists()):
            continue
        rows[run.name] = row
        for name in LONG:
            part = read_part(source, "history" if name == "histories" else name)
            if name != "units" or run.name in suite.published:
                parts[name][run.name] = part.assign(run=run.name)[["run", *part.columns]]
        if run.name in suite.published:
            save_weights(weights_path(suite.folder, run.name), load_file(source / "model.safetensors"),
                         dtype=PUBLISHED_DTYPE)
        fresh.append(run.name)
    names = [run.name for run in suite.runs if run.name in rows]
    if fresh or names != list(tables.runs["run"]):
        _write(suite.folder, pd.DataFrame([rows[name] for name in names]), {
            name: [parts[name][run] for run in names if run in parts[name]] for name in LONG})
    for path in (suite.folder / "weights").rglob("*.safetensors"):
        if path.relative_to(suite.folder / "weights").with_suffix("").as_posix() not in suite.published:
            path.unlink()
    return fresh


def _row(name: str, config: RunConfig, record: dict) -> dict[str, object]:
    settings = {key: setting_text(value) for key, value in settings_of(config).items()}
    environment = {f"environment.{key}": str(value) for key, value in record["environment"].items()}
    return {"run": name, "model": config.model, "dataset": config.dataset, **settings, **record["measures"],
            "seconds": record["seconds"], **environment}


def _same(published: dict[str, object], row: dict[str, object]) -> bool:
    """Whether a published row says what a run's record says, numbers as the table rounds them."""
    return all(str(published.get(key)) == str(value) or _rounded(published.get(key)) == _rounded(value)
               for key, value in row.items() if value is not None)


def _rounded(value: object) -> object:
    return PRECISION % value if isinstance(value, (int, float)) else value


def _write(folder: Path, runs: pd.DataFrame, parts: dict[str, list[pd.DataFrame]]) -> None:
    measured = [name for name in MEASURES if name in runs]
    last = [*measured, *ENVIRONMENT]
    settings = [column for column in runs if column not in last and column not in IDENTITY]
    with atomic_path(folder / "tables") as temporary:
        temporary.mkdir()
        runs[[*IDENTITY, *settings, *last]].to_csv(temporary / "runs.csv", index=False, float_format=PRECISION)
        for name, tables in parts.items():
            tables = [table for table in tables if len(table)]
            table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=LONG[name])
            table.to_csv(temporary / f"{name}.csv", index=False, float_format=PRECISION)
        for path in sorted(temporary.iterdir()):
            path.replace(folder / path.name)
    shutil.rmtree(folder / "tables", ignore_errors=True)
