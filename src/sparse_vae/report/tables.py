"""What is published of a suite, ``results/<suite>/``: tables of runs, histories, curves and units, and weights.

``runs.csv`` has a row for each run: its name, model and data set, every setting, every measure, the seconds that
training took and what it ran on. ``histories.csv.gz``, ``curves.csv.gz`` (of a suite with figures) and
``units.csv.gz`` (of runs whose weights are published) have many rows for a run; ``weights.zip`` holds, in half
precision, the weights of the runs that the suite lists as published, each as a member ``<run>.safetensors``, which
paths name as if the archive were a folder.
:func:`collect` makes all of it from a machine's own runs.

What changes is first written into ``results/<suite>/new/``, which appears whole, and then moved into place file by
file. If that is interrupted, readers take the files that are left in ``new/``, and the next :func:`collect` moves them.
"""

from __future__ import annotations

import csv
import gzip
import io
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save

from sparse_vae.checkpoints import RunError, weights_problem
from sparse_vae.checks import ExplainedError, SettingError, parse_value
from sparse_vae.configuration import RunConfig, configure
from sparse_vae.files import atomic_path, exclusive_folder, read_file
from sparse_vae.report.measures import CURVE_COLUMNS, CURVES, MEASURES, UNIT_TEXTS
from sparse_vae.report.runs import is_finished, number_text, read_part, read_record, warn_of_weights
from sparse_vae.report.suites import Suite

IDENTITY = ("run", "model", "dataset")
ENVIRONMENT = ("seconds", *(f"environment.{name}" for name in (
    "device", "precision", "threads", "torch", "machine", "version", "commit", "measures")))
"""What a run took and ran on; ``measures`` is the fingerprint of the source of its measures, empty where a run was
published before they all were kept."""
LONG = {"histories": ("run", "epoch", "step", "seconds"), "curves": ("run", *CURVE_COLUMNS),
        "units": ("run", "unit", "rate")}
"""The tables with many rows for a run, and the columns that each must have."""
UNPACKED = {name: f"{name}.csv" for name in LONG}
FILES = {"runs": "runs.csv"} | {name: f"{file}.gz" for name, file in UNPACKED.items()}
"""What holds each table. Long ones that are not compressed are read as well."""
KEYS = {"runs": ("run",), "histories": ("run", "epoch"), "curves": ("run", *CURVE_COLUMNS), "units": ("run", "unit")}
"""What tells the rows of each table apart; none of it may be empty."""
NEEDED_SETTINGS = ("latent_dim", "epochs", "seed")
"""Settings that every table has; one that is newer than a table has its default."""
TEXT_COLUMNS = ("run", "curve", *UNIT_TEXTS)
"""The columns of the long tables that are no numbers."""
PENDING, WEIGHTS = "new", "weights.zip"


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
    _measured: dict[str, set[str]] = field(default_factory=dict, repr=False)

    @cached_property
    def measures(self) -> pd.DataFrame:
        """Every measure and the seconds, a row for each run, by its name; NaN where there is none."""
        return self.runs.set_index("run").reindex(columns=[*MEASURES, "seconds"]).astype(float)

    def configs(self) -> dict[str, RunConfig]:
        """The configuration of each run, by its name."""
        return {row["run"]: config_of(row) for row in self.runs.to_dict("records")}

    def measured(self, name: str) -> set[str]:
        """The runs of which this measure or curve was taken, those of which nothing could be said included.

        The others were published before there was such a measure: none of the runs that were measured by the same
        source (``environment.measures``) has it.
        """
        if name not in self._measured:
            self._measured[name] = self._find_measured(name)
        return self._measured[name]

    def _find_measured(self, name: str) -> set[str]:
        if name in CURVES:
            having = set(self.curves["run"][self.curves["curve"] == name])
        else:
            having = set(self.runs["run"][self.runs[name].notna()]) if name in self.runs else set()
        source = self.runs["environment.measures"].fillna("")
        taken = source.isin(source[self.runs["run"].isin(having)])
        if name in self.runs and not having:
            taken |= source != ""
        return set(self.runs["run"][taken])


def setting_text(value: object) -> str:
    """A setting as a table holds it: ``none``, ``true``, a number in full, or text.

    Text stands as it is, in quotes where it would be read as something else.

    >>> [setting_text(value) for value in (None, True, 0.1, "fixed", "0.1")]
    ['none', 'true', '0.1', 'fixed', "'0.1'"]
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    return value if value and value.isprintable() and parse_value(value) == value else repr(value)


def settings_of(config: RunConfig) -> dict[str, object]:
    """Every setting of a run in one flat mapping, as :func:`~sparse_vae.configuration.configure` takes them."""
    return {**config.model_settings, **vars(config.training),
            **{f"dataset.{name}": value for name, value in config.dataset_settings.items()}}


def config_of(row: Mapping[str, Any]) -> RunConfig:
    """The configuration in a row of the table of runs; a setting that is newer than the row has its default.

    Raises:
        SettingError: an unknown model or data set, a setting that they do not take, or a value that is not allowed.
    """
    settings = {name: parse_value(text) for name, text in row.items()
                if isinstance(text, str) and name not in IDENTITY and name not in ENVIRONMENT}
    return configure(row["model"], row["dataset"], **settings)


def read_tables(folder: Path) -> Tables:
    """The tables in ``results/<suite>/``; empty ones where nothing is published.

    Raises:
        TableError: a file that is no table, a column that is missing or there twice, a run that is there twice, a cell
            that is no number or empty, settings that cannot be used, rows of no run; names the file, the line, the run
            and the column.
    """
    while True:  # until nobody replaced a table meanwhile
        before = _state(folder)
        try:
            found: Tables | TableError = _read_tables(folder)
        except TableError as error:
            found = error
        if _state(folder) != before:
            continue
        if isinstance(found, TableError):
            raise found
        return found


def _state(folder: Path) -> list[tuple[int, int, int] | None]:
    """Changes when a table is replaced."""
    state: list[tuple[int, int, int] | None] = []
    names = (*FILES.values(), *UNPACKED.values())
    for path in (where / name for where in (folder, folder / PENDING) for name in names):
        try:
            status = path.stat()
            state.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            state.append(None)
    return state


def _place(folder: Path, name: str) -> Path:
    """Where a file lies: what an interrupted :func:`collect` did not move into place goes first."""
    pending = folder / PENDING / name
    return pending if pending.exists() else folder / name


def _read_tables(folder: Path) -> Tables:
    path = _place(folder, "runs.csv")
    long = {name: _place(folder, FILES[name]) for name in LONG}
    long |= {name: folder / file for name, file in UNPACKED.items() if not long[name].exists()}
    if not path.exists():
        alone = next((place for place in long.values() if place.exists()), None)
        if alone:
            raise TableError(f"{path} is missing, and {alone.name} is there")
        return Tables()
    runs = _read_csv(path, KEYS["runs"], (*IDENTITY, *NEEDED_SETTINGS, *ENVIRONMENT), dtype=str)
    for column in [*(name for name in MEASURES if name in runs), "seconds"]:
        known = runs[column].notna()
        wrong = runs.index[known & ~np.isfinite(pd.to_numeric(runs[column], errors="coerce"))]
        if len(wrong):
            raise TableError(f"{path}, line {wrong[0] + 2}: {column} of run {runs['run'][wrong[0]]} must be a number; "
                             f"got {runs[column][wrong[0]]!r}")
        runs[column] = runs[column].astype(float)
    for line, row in enumerate(runs.to_dict("records"), 2):
        for column in (*IDENTITY, *NEEDED_SETTINGS):
            if not isinstance(row[column], str):
                raise TableError(f"{path}, line {line}: {column} of run {row['run']} is empty")
        try:
            config_of(row)
        except SettingError as error:
            raise TableError(f"{path}, line {line}: run {row['run']} has settings that cannot be used: {error}"
                             ) from error
    tables = Tables(runs)
    for name, place in long.items():
        if place.exists():
            setattr(tables, name, _read_long(place, name, set(runs["run"])))
    return tables


def _read_long(path: Path, name: str, runs: set[str]) -> pd.DataFrame:
    table = _read_csv(path, KEYS[name], LONG[name], dtype=dict.fromkeys(TEXT_COLUMNS, str))
    strange = table.index[~table["run"].isin(runs)]
    if len(strange):
        raise TableError(f"{path}, line {strange[0] + 2}: {table['run'][strange[0]]!r} is no run of runs.csv")
    for column in table.columns.difference(TEXT_COLUMNS):
        if len(table) and not pd.api.types.is_numeric_dtype(table[column]):
            line = table.index[table[column].notna() & pd.to_numeric(table[column], errors="coerce").isna()][0]
            raise TableError(f"{path}, line {line + 2}: {column} of run {table['run'][line]} must be a number; "
                             f"got {table[column][line]!r}")
    return table


def _read_csv(path: Path, key: tuple[str, ...], required: Iterable[str], **options: Any) -> pd.DataFrame:
    """A table whose lines have as many cells as its header, and whose key is there and tells its rows apart."""
    try:
        content = path.read_bytes()
        text = io.TextIOWrapper(io.BytesIO(gzip.decompress(content) if path.suffix == ".gz" else content),
                                encoding="utf-8-sig").read()
        lines = csv.reader(io.StringIO(text), strict=True)
        header = next(lines, [])
        if not header:
            raise ValueError("the file is empty" if not text else "the first line is empty")
        for line in lines:
            if len(line) != len(header):
                raise ValueError(f"line {lines.line_num} has {len(line)} cells, the header {len(header)}")
        if not text.endswith("\n"):
            raise ValueError(f"line {lines.line_num} is cut off: no newline ends it")
        table = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""], float_precision="round_trip",
                            **options)
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise TableError(f"{path} cannot be read as a table: {error}") from error
    missing = [column for column in required if column not in header]
    if missing:
        raise TableError(f"{path} lacks the column {missing[0]}; it has {', '.join(header)}")
    if len(set(header)) < len(header):
        raise TableError(f"{path} has the column {next(name for name in header if header.count(name) > 1)} twice")
    for column in key:
        empty = table.index[table[column].isna()]
        if len(empty):
            raise TableError(f"{path}, line {empty[0] + 2}: {column} is empty")
    twice = table.index[table.duplicated(list(key))]
    if len(twice):
        what = ", ".join(f"{column} {table[column][twice[0]]}" for column in key)
        raise TableError(f"{path}, line {twice[0] + 2}: {what} is there twice")
    return table


def weights_path(folder: Path, run: str) -> Path:
    """The published weights of a run, for :func:`~sparse_vae.files.read_file`."""
    return _place(folder, WEIGHTS) / f"{run}.safetensors"


def unpublished(suite: Suite) -> list[str]:
    """Names of the runs of a suite that are not published as the suite now asks for them, with whole weights."""
    tables = read_tables(suite.folder)
    configs, measured = tables.configs(), set(tables.runs["run"][tables.runs["environment.measures"].notna()])
    return [run.name for run in suite.runs if configs.get(run.name) != run.config or run.name not in measured
            or (run.name in suite.published and weights_problem(weights_path(suite.folder, run.name)))]


def collect(suite: Suite) -> list[str]:
    """Bring the finished runs of a suite from ``runs/`` into ``results/``; returns the names of those that are new.

    A run that is published and not among the machine's own stays as it is; one that the suite no longer has goes, and
    weights that it no longer lists as published. What has not changed is not written, but published weights that are
    damaged. One process at a time.

    Raises:
        TableError: what is published cannot be read.
        RunError: a part of a run cannot be read, or a weight is beyond half precision; nothing has changed then.
    """
    waiting = f"{suite.name}: waiting for another process, which collects its runs"
    with exclusive_folder(suite.folder, on_wait=lambda: print(waiting, file=sys.stderr)):
        _move_into_place(suite.folder)
        fresh = _collect(suite)
        with suppress(OSError):  # it is not empty
            suite.folder.rmdir()
    return fresh


def _collect(suite: Suite) -> list[str]:
    folder, tables = suite.folder, read_tables(suite.folder)
    rows = {row["run"]: _cells(row) for row in tables.runs.to_dict("records")}
    parts = {name: {run: part.dropna(axis="columns", how="all") for run, part in
                    getattr(tables, name).groupby("run", sort=False)} for name in LONG}
    fresh, measured = [], set(tables.runs) & set(MEASURES)
    for run in suite.runs:
        source, published = suite.runs_folder / run.name, run.name in suite.published
        if not is_finished(source, run.config, suite.root):
            warn_of_weights(source)
            continue
        record = read_record(source)
        row = _row(run.name, run.config, record)
        if rows.get(run.name) == row and not (published and weights_problem(weights_path(folder, run.name))):
            continue
        rows[run.name] = row
        measured |= record["measures"].keys()
        for name in LONG:
            part = read_part(source, "history" if name == "histories" else name)
            parts[name][run.name] = part.assign(run=run.name).dropna(axis="columns", how="all")
        fresh.append(run.name)
    names = [run.name for run in suite.runs if run.name in rows]
    shown = [name for name in names if name in suite.published]
    files = {"runs.csv": _runs_text([rows[name] for name in names], measured, suite).encode()}
    for name in LONG:
        drawn = {"units": shown, "curves": names if suite.figures else []}.get(name, names)
        having = [run for run in drawn if run in parts[name]]
        content = _long_text(name, [parts[name][run] for run in having]).encode()
        files[FILES[name]] = gzip.compress(content, mtime=0) if FILES[name].endswith(".gz") else content
    before = {}
    for name in tables.runs["run"]:
        with suppress(OSError):  # there are none, or they are damaged
            before[name] = read_file(weights_path(folder, name))
    weights = {name: _rounded(suite, name) if name in fresh else before[name] for name in shown
               if name in fresh or name in before}
    if before and not weights:
        (folder / WEIGHTS).unlink()
    elif weights != before:
        files[WEIGHTS] = _archive(weights)
    if names or len(tables.runs):
        _publish(folder, files)
    return fresh


def _row(name: str, config: RunConfig, record: dict) -> dict[str, str]:
    environment = {f"environment.{key}": value for key, value in record["environment"].items()}
    measured = {key: value for key, value in record["measures"].items() if key in MEASURES}
    settings = {key: setting_text(value) for key, value in settings_of(config).items()}
    return _cells({"run": name, "model": config.model, "dataset": config.dataset, **settings, **measured,
                   "seconds": record["seconds"],
                   **{key: str(environment[key]) for key in ENVIRONMENT if environment.get(key) not in (None, "")}})


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """The cells of a row that are not empty, as text."""
    return {key: value if isinstance(value, str) else number_text(value) for key, value in row.items()
            if value is not None and value == value}


def _runs_text(rows: list[dict[str, str]], measured: set[str], suite: Suite) -> str:
    """The table of runs, with a column for each measure that was taken, also where nothing could be said of any run.

    The order of the columns follows from the suite, not from the order of collecting.
    """
    others = {*IDENTITY, *MEASURES, *ENVIRONMENT}
    settings = dict.fromkeys([*(name for run in suite.runs for name in settings_of(run.config)),
                              *(name for row in rows for name in row), *NEEDED_SETTINGS])
    there = set(NEEDED_SETTINGS).union(*rows)
    columns = [*IDENTITY, *(name for name in settings if name in there and name not in others),
               *(name for name in MEASURES if name in measured), *ENVIRONMENT]
    return pd.DataFrame(rows, columns=columns).to_csv(index=False)


def _long_text(name: str, parts: list[pd.DataFrame]) -> str:
    parts = [part for part in parts if len(part)]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=LONG[name])
    columns = dict.fromkeys([*LONG[name], *table.columns])
    return table.reindex(columns=list(columns)).to_csv(index=False, float_format=number_text)


def _rounded(suite: Suite, run: str) -> bytes:
    """The weights of a finished run as a safetensors file, floating-point ones in half precision."""
    rounded = {}
    for name, tensor in load_file(suite.runs_folder / run / "model.safetensors").items():
        rounded[name] = tensor.half() if tensor.is_floating_point() else tensor
        if not torch.equal(rounded[name].isfinite(), tensor.isfinite()):
            raise RunError(f"the weights of {run} cannot be published: {name} holds {tensor.abs().max():g}, beyond "
                           "half precision")
    return save(rounded)


def _archive(weights: Mapping[str, bytes]) -> bytes:
    """A ZIP archive of safetensors files, one for each run, by name and without a date."""
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for run in sorted(weights):
            archive.writestr(zipfile.ZipInfo(f"{run}.safetensors"), weights[run], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _publish(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files that have changed, and move them into place."""
    changed = {name: content for name, content in files.items() if not (folder / name).is_file()
               or _unpacked(name, (folder / name).read_bytes()) != _unpacked(name, content)}
    if changed:
        with atomic_path(folder / PENDING) as temporary:
            temporary.mkdir()
            for name, content in changed.items():
                (temporary / name).write_bytes(content)
        _move_into_place(folder)


def _unpacked(name: str, content: bytes) -> bytes:
    """What a file holds: another version of zlib packs the same otherwise."""
    return gzip.decompress(content) if name.endswith(".gz") else content


def _move_into_place(folder: Path) -> None:
    """Move what lies in ``new/`` to where it belongs, the table of runs last."""
    for unfinished in folder.glob(f".{PENDING}-*"):  # of a process that was killed
        shutil.rmtree(unfinished, ignore_errors=True)
    pending = folder / PENDING
    if pending.is_dir():
        for path in sorted(pending.iterdir(), key=lambda path: path.name == "runs.csv"):
            path.replace(folder / path.name)
            if path.suffix == ".gz":
                (folder / path.stem).unlink(missing_ok=True)  # the uncompressed one, which it has read
        pending.rmdir()
