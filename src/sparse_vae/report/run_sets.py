"""One way to ask about runs: a set of them, as a tidy table with a row for each, and their models where weights are.

    runs = open_runs("paper").where(dataset="mnist", prior="pseudo-inputs")
    runs.table(["negative_elbo", "used_dimensions"], by=["model", "latent_dim"])
    runs.compare("vsc", "vae", "negative_elbo", at="latent_dim")
    runs.best("negative_elbo", by="latent_dim")

Rows are chosen and grouped by stable names, of settings and measures; titles and labels are for display only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from sparse_vae.checkpoints import RunError, load_weights, train_run, weights_problem
from sparse_vae.checks import SettingError, unknown_name
from sparse_vae.configuration import RunConfig, build_model, load_data
from sparse_vae.datasets import Dataset
from sparse_vae.models import LatentVariableModel
from sparse_vae.report.measures import CURVE_COLUMNS, CURVES, MEASURES, Measured, Subject, find_measure, measure
from sparse_vae.report.statistics import LEVEL, Comparison, compare_means, convergence, correct, mean_and_error
from sparse_vae.report.suites import data_folder, expand_run, load_suite, matching_names, project_root
from sparse_vae.report.tables import Tables, read_tables, setting_text, settings_of, weights_path

Kept = TypeVar("Kept")
NOT_MEASURED = "not measured"
TITLES = {"label": "model", "title": "model", "family": "model", "latent_dim": "J", "dataset": "data"}
"""What tables call the columns of their groups."""
DRAWS = ("seed", "dataset.seed")
"""Settings that make no kind of run, but another draw of one: of its training, of its data."""


class Run:
    """One run of a set: what it is, its model where weights are, its data.

    Attributes:
        name: ``<dataset>/<model>[-variant]/seed<k>``.
        config: what it is.
        label: what tells its group from the others of its set, for display.
    """

    def __init__(self, name: str, config: RunConfig, *, weights: Path | None, data_root: Path | str,
                 measured: Measured | None = None, model: LatentVariableModel | None = None):
        self.name, self.config, self.label = name, config, name
        self._weights, self._data_root, self._model = weights, data_root, model
        self.measured = measured or Measured()
        # What copies in other sets share: what was computed once, and the names that were asked of the model.
        self._kept: dict[str, Any] = {}
        self.asked: set[str] = set()

    def _keep(self, name: str, make: Callable[[], Kept]) -> Kept:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    @property
    def settings(self) -> dict[str, object]:
        """Every setting, the data set's as ``dataset.<name>``."""
        return self._keep("settings", lambda: settings_of(self.config))

    @property
    def title(self) -> str:
        """What the model is called, without what tells it apart from others of its set."""
        return self._keep("title", lambda: self.config.title)

    @property
    def group(self) -> str:
        """Its name without the seed: what runs that differ in their seed alone share."""
        return self.name.rpartition("/")[0]

    @property
    def has_model(self) -> bool:
        """Whether its weights are at hand."""
        return self._model is not None or (
            self._weights is not None and weights_problem(self._weights) != "is missing")

    @property
    def dataset(self) -> Dataset:
        """The data set it was trained on."""
        return self._keep("dataset", lambda: load_data(self.config, self._data_root))

    @property
    def model(self) -> LatentVariableModel:
        """The trained model with its published weights, on the CPU, in evaluation mode.

        Raises:
            RunError: no weights of this run are published, or they do not fit.
        """
        return self._model if self._model is not None else self._keep("model", self._read_model)

    def _read_model(self) -> LatentVariableModel:
        if self._weights is None or not self.has_model:
            raise RunError(f"the weights of {self.name} are not published; a suite's list `published` says whose are, "
                           "and `make train` makes them")
        model = build_model(self.config, self.dataset)
        load_weights(model, self._weights)
        return model.eval()

    @property
    def subject(self) -> Subject:
        """What measures see of it: codes and active dimensions of the test data, what each dimension adds."""
        return self._keep("subject", lambda: Subject(self.model, self.dataset, self.config.training.seed))


class RunSet:
    """Runs and their tables.

    Attributes:
        runs: in order.
        frame: a row for each run: ``run`` (its name), ``group`` (without the seed), ``model``, ``dataset``, ``title``,
            ``label`` (which tells groups apart, for display), ``family`` (the title without the settings in brackets,
            some of which follow the size of the code), every setting and every measure.
    """

    def __init__(self, runs: Iterable[Run], tables: Tables):
        # Copies, since a set labels its runs; what is measured of one, all sets that have it share.
        self.runs, self._tables = [copy(run) for run in runs], tables
        self._frame: tuple[int, pd.DataFrame] | None = None
        if not self.runs:
            raise SettingError("no run is left of this set")
        self._label()

    def _label(self) -> None:
        # By their folder and settings: a folder holds two kinds of runs while a suite is being trained anew.
        kinds: dict[tuple, list[Run]] = {}
        for run in self.runs:
            settings = tuple((name, setting_text(value)) for name, value in run.settings.items() if name not in DRAWS)
            kinds.setdefault((run.group, settings), []).append(run)
        firsts = {kind: runs[0] for kind, runs in kinds.items()}
        several = len({run.settings["latent_dim"] for run in firsts.values()}) > 1
        datasets = len({run.config.dataset for run in firsts.values()}) > 1
        labels: dict[str, list[tuple]] = {}
        for kind, run in firsts.items():
            size = f", J = {run.settings['latent_dim']}" if several else ""
            labels.setdefault(run.title + size + (f", {run.config.dataset}" if datasets else ""), []).append(kind)
        for label, sharing in labels.items():
            changes = _unusual_settings([dict(settings) for _, settings in sharing])
            for (group, settings), change in zip(sharing, changes, strict=True):
                folder = f" [{group.rpartition('/')[2]}]" if changes.count(change) > 1 else ""
                for run in kinds[group, settings]:
                    run.label = label + change + folder

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def frame(self) -> pd.DataFrame:
        """See the class; a measure that has not been taken, or that a run cannot have, is NaN."""
        size = sum(len(run.measured.values) for run in self.runs)  # grows when one is taken, here or in another set
        if self._frame is None or self._frame[0] != size:
            self._frame = size, self._make_frame()
        return self._frame[1]

    def _make_frame(self) -> pd.DataFrame:
        known = self._tables.measures.reindex([run.name for run in self.runs])
        names, published = list(known), known.to_numpy()
        here = np.array([[run.measured.values.get(name, np.nan) for name in names] for run in self.runs])
        measured = pd.DataFrame(np.where(np.isnan(published), here, published), columns=names)
        about = pd.DataFrame([
            {"run": run.name, "group": run.group, "model": run.config.model, "dataset": run.config.dataset,
             "title": run.title, "label": run.label, "family": re.sub(r" \(.*?\)", "", run.title), **run.settings}
            for run in self.runs])
        return pd.concat([about, measured], axis="columns")

    @property
    def precisions(self) -> pd.Series:
        """What the networks' products were computed in where a run was trained, by its name: ``precision`` resolved."""
        ran = self._tables.runs.set_index("run")["environment.precision"]
        return ran.reindex([run.name for run in self.runs])

    def where(self, **settings: object) -> RunSet:
        """The runs whose settings are these: a value, a list of values, or a function that says yes to a value.

        None and NaN stand for no value: of a setting that is None or that the model does not take, or of a measure that
        is not there. A name with a dot is written with two underscores: ``dataset__seed``.

        Raises:
            SettingError: an unknown name, or no run is left; says which values there are.
        """
        return self._subset(self.frame["run"][self._fitting(settings)])

    def _fitting(self, settings: Mapping[str, object]) -> pd.Series:
        """Which rows of the frame :meth:`where` chooses."""
        keep = pd.Series(True, index=self.frame.index)
        for name, wanted in settings.items():
            values = self._column(name.replace("__", "."))
            if callable(wanted):
                fitting = values.map(wanted).astype(bool)
            else:
                several = list(wanted) if isinstance(wanted, (list, tuple, set, np.ndarray, pd.Series)) else [wanted]
                fitting = values.isin([value for value in several if not pd.isna(value)])
                if any(pd.isna(value) for value in several):
                    fitting |= values.isna()
            if not (keep & fitting).any():
                asked = ", ".join(f"{name} {'as asked' if callable(value) else f'= {value!r}'}"
                                  for name, value in settings.items())
                there = [str(value) for value in values[keep].unique()]
                more = f" and {len(there) - 12} others" if len(there) > 12 else ""
                raise SettingError(f"no run has {asked}; {name} is {', '.join(there[:12])}{more}")
            keep &= fitting
        return keep

    def _column(self, name: str) -> pd.Series:
        if name in MEASURES:
            self.measure(name)
        if name not in self.frame:
            raise unknown_name("column of the runs", name, self.frame.columns)
        return self.frame[name]

    def _grouped(self, by: str | list[str]) -> pd.core.groupby.DataFrameGroupBy:
        for name in _listed(by):
            self._column(name)
        return self.frame.groupby(by, sort=False, dropna=False)

    def matching(self, patterns: str | Iterable[str]) -> RunSet:
        """The runs whose names fit the patterns, see :func:`~sparse_vae.report.suites.matching_names`."""
        return self._subset(matching_names([run.name for run in self.runs], patterns))

    def _subset(self, names: Iterable[str]) -> RunSet:
        by_name = {run.name: run for run in self.runs}
        return RunSet([by_name[name] for name in names], self._tables)

    def on_one_dataset(self) -> RunSet:
        """The runs on the data set that comes first."""
        first = self.runs[0].config.dataset
        return self.where(dataset=first)

    def having(self, *names: str) -> RunSet:
        """The runs that have these measures.

        Raises:
            SettingError: no run has them all.
        """
        return self._subset(self._rows_having(*names)["run"])

    def _rows_having(self, *names: str, settings: Mapping[str, object] | None = None) -> pd.DataFrame:
        """The rows of the frame that have these measures, of the runs with these settings."""
        frame = self.measure(names).frame
        frame = frame[self._fitting(settings or {})]
        found = frame.dropna(subset=[find_measure(name).name for name in names])
        if found.empty:
            raise SettingError(f"none of these {len(frame)} runs, the first is {frame['run'].iloc[0]}, has the "
                               f"measure{'s' * (len(names) > 1)} {', '.join(names)}")
        return found

    def with_models(self) -> RunSet:
        """The first run of each group whose weights are at hand: what pictures are drawn of.

        Raises:
            RunError: there are none.
        """
        found: dict[str, Run] = {}
        for run in self.runs:
            if run.has_model:
                found.setdefault(run.group, run)
        if not found:
            raise RunError(f"none of these {len(self.runs)} runs has published weights, the first is "
                           f"{self.runs[0].name}; pictures need them")
        return self._subset(run.name for run in found.values())

    @property
    def dataset(self) -> Dataset:
        """The data set that all runs share; a :class:`RunError` if they do not."""
        shared = {(run.config.dataset, str(run.config.dataset_settings)) for run in self.runs}
        if len(shared) > 1:
            raise RunError("runs on different data cannot share a figure: " + ", ".join(run.name for run in self.runs))
        return self.runs[0].dataset

    # --- measures

    def measure(self, names: str | Iterable[str]) -> RunSet:
        """Take measures that are missing, of the runs whose models are at hand; returns the set itself.

        What a table has is never taken again: it may come from weights in full precision.
        """
        names = _listed(names)
        for name in names:
            if name not in CURVES:
                find_measure(name)
        for run in self.runs:
            missing = [name for name in names if self._lacks(run, name)]
            if missing and run.has_model:
                found = measure(run.model, run.dataset, seed=run.config.training.seed, only=missing)
                new = {name for name in {*missing, *found.values, *found.curves["curve"]} if self._lacks(run, name)}
                run.measured.values |= {name: value for name, value in found.values.items() if name in new}
                run.measured.curves = _together([run.measured.curves, found.curves[found.curves["curve"].isin(new)]])
                run.asked |= new
        return self

    def _lacks(self, run: Run, name: str) -> bool:
        """Whether this measure or curve of a run has not been taken."""
        return name not in run.asked and run.name not in self._tables.measured(name)

    def values(self, name: str, by: str | list[str] = "label") -> dict[object, list[float]]:
        """A measure's values over the seeds of each group, in the order of the runs; groups without one are left out.
        """
        self.measure(find_measure(name).name)
        groups = {key: values.dropna().tolist() for key, values in self._grouped(by)[name]}
        return {key: values for key, values in groups.items() if values}

    def means(self, names: Iterable[str], by: str | list[str] = "label") -> pd.DataFrame:
        """Mean of each measure over the seeds of each group; NaN where a group has none."""
        self.measure(names := _listed(names))
        return self._grouped(by)[names].mean()

    def table(self, names: Iterable[str], by: str | list[str] = "label", *, seeds: bool = False) -> pd.DataFrame:
        """Mean ± standard error over the seeds of each group, as text, in the units of the measures' titles.

        Args:
            names: of measures, the columns.
            by: what makes a group, the rows: names of columns of ``frame``.
            seeds: a first column with the number of runs.

        Returns:
            Text; a dash where nothing can be said of a group, "not measured" where a measure is younger than the
            results and no weights are at hand. A measure of which nothing can be said of any run is left out.

        Raises:
            SettingError: an unknown measure or column, with the nearest name.
        """
        self.measure(names := _listed(names))
        groups, keys = self._grouped(by), [self.frame[name] for name in _listed(by)]
        columns = {"seeds": groups.size().astype(str)} if seeds else {}
        for each in map(find_measure, names):
            text = groups[each.name].apply(
                lambda values, each=each: mean_and_error(values.dropna() * each.scale, each.digits))
            lacking = pd.Series([self._lacks(run, each.name) for run in self.runs])
            lacking = lacking.groupby(keys, sort=False, dropna=False).any()
            text = text.mask((groups[each.name].count() == 0) & lacking, NOT_MEASURED)
            if (text != "—").any():
                columns[each.title] = text
        table = pd.DataFrame(columns)
        return table.rename_axis([TITLES.get(name, name) for name in table.index.names])

    def best(self, name: str, by: str | None = None) -> pd.DataFrame:
        """The group with the best mean of a measure, for each value of ``by`` (a column), and which are level with it.

        Level is what a Welch test, corrected for the number of comparisons, does not tell from the best at 5%, or has
        the same value; of single runs nothing can be tested.

        Returns:
            A row for each value of ``by`` (one row without it): ``label``, ``mean``, ``level`` (labels).

        Raises:
            SettingError: a measure of which neither more nor less is better, or that no run has; an unknown column.
        """
        each = find_measure(name)
        if not each.better:
            raise SettingError(f"of {name} neither more nor less is better")
        if by:
            self._column(by)
        rows, known = [], self._rows_having(name)
        for key, part in known.groupby(by, dropna=False) if by else [(None, known)]:
            values = {label: list(own) for label, own in part.groupby("label", sort=False)[name]}
            means = pd.Series({label: sum(own) / len(own) for label, own in values.items()})
            first = means.idxmin() if each.better == "lower" else means.idxmax()
            others = [label for label in values if label != first]
            tests = correct([compare_means(values[label], values[first]) for label in others])
            level = [label for label, test in zip(others, tests, strict=True)
                     if test.p_holm >= LEVEL or test.difference == 0]
            rows.append({by or "of": key, "label": first, "mean": means[first], "level": level})
        return pd.DataFrame(rows).set_index(by or "of")

    def in_words(self, name: str, by: str = "label") -> str:
        """The mean of a measure of each group as a sentence takes it, the best first: ``"VAE (0.01); VSC (0.02)"``.

        Where neither more nor less is better, the largest first; of more than eight groups, five and the last.
        """
        each = find_measure(name)
        means = self.means([name], by)[name].dropna().sort_values(ascending=each.better == "lower", kind="stable")
        words = [f"{key} ({each.scale * value:z.{each.digits}f})".replace("(-", "(−") for key, value in means.items()]
        if len(words) > 8:
            words = [*words[:5], f"{len(words) - 6} others", words[-1]]
        return "; ".join(words)

    def best_in_words(self, name: str) -> str:
        """What :meth:`best` finds, as a sentence takes it: ``"**VAE** (0.012 ± 0.002); no significant difference…"``.

        Of those that are level with it, the three nearest are named.
        """
        found, values, each = self.best(name).iloc[0], self.values(name), find_measure(name)
        shown = {label: f"{label} ({mean_and_error([each.scale * value for value in own], each.digits)})"
                 for label, own in values.items()}
        level = sorted(found["level"], key=lambda label: abs(np.mean(values[label]) - found["mean"]))
        more = len(level) - 3
        named = [shown[label] for label in level[:3]] + [f"{more} other{'s' * (more > 1)}"] * (more > 0)
        words = shown[found["label"]].replace(found["label"], f"**{found['label']}**", 1)
        return words + ("; no significant difference from it: " + ", ".join(named) if named else "")

    def compare(self, first: str | Mapping[str, object], second: str | Mapping[str, object], name: str,
                at: str | None = None, *, paired: bool = False) -> pd.DataFrame:
        """What changes from ``second`` to ``first``, with its test, at each value that both have of a setting.

        Args:
            first, second: a model's name, or settings as :meth:`where` takes them.
            name: of a measure.
            at: the setting; None compares all at once.
            paired: by seed, for runs that share their seeds; else Welch's test.

        Returns:
            A row for each value: ``difference`` of the means, ``low`` and ``high`` of its 95% interval, ``p`` as it is
            and ``p_holm`` corrected for the number of rows, ``n`` of both, ``differs`` at 5% after the correction.

        Raises:
            SettingError: no such runs, none of them has the measure, no value of ``at`` that both have, or a pair of
                runs that cannot be told: several of one seed on a side.
        """
        sides = [self._rows_having(name, settings=_as_settings(side)) for side in (first, second)]
        keys = [None]
        if at:
            self._column(at)
            there = [dict.fromkeys(side[at].dropna()) for side in sides]
            keys = sorted(there[0].keys() & there[1].keys())
            if not keys:
                raise SettingError(f"{first!r} and {second!r} have no {at} in common: "
                                   + "; ".join(", ".join(map(str, values)) for values in there))
        tests: list[Comparison] = []
        for key in keys:
            values = []
            for side in sides:
                own = side[side[at] == key] if at else side
                values.append(own.set_index("seed")[name])
            if paired:
                if any(own.index.has_duplicates for own in values):
                    raise SettingError(f"{first!r} and {second!r} cannot be paired by their seeds: several runs of one "
                                       "side share a seed; choose them by further settings")
                shared = values[0].index.intersection(values[1].index)
                values = [own.loc[shared] for own in values]
            tests.append(compare_means(list(values[0]), list(values[1]), paired=paired))
        rows = [{at or "of": key, **test._asdict(), "differs": test.differs}
                for key, test in zip(keys, correct(tests), strict=True)]
        return pd.DataFrame(rows).set_index(at or "of")

    def compare_pairs(self, pairs: Iterable[tuple[str | Mapping[str, object], str | Mapping[str, object]]],
                      names: Iterable[str], at: str | None = None) -> pd.DataFrame:
        """What changes in several measures from the second to the first of each pair, as :meth:`compare` says it.

        Args:
            pairs: of models' names or settings, as :meth:`compare` takes them.
            names: of measures.
            at: the setting that a pair shares.

        Returns:
            A row for each pair, value and measure: ``model`` and ``against`` (titles), ``at``, ``measure`` (its name),
            ``title`` (of the measure), the columns of :meth:`compare`, with ``p_holm`` corrected for the number of
            rows, and ``text``, the difference with its interval as tables write it.
        """
        rows, tests, names = [], [], _listed(names)
        for first, second in pairs:
            model, against = (" or ".join(self.frame["title"][self._fitting(_as_settings(side))].unique())
                              for side in (first, second))
            for each in map(find_measure, names):
                for key, row in self.compare(first, second, each.name, at).iterrows():
                    rows.append({"model": model, "against": against, at or "of": key, "measure": each.name,
                                 "title": each.title, "text": (each.digits, each.scale)})
                    tests.append(Comparison(*row[list(Comparison._fields)]))
        return pd.DataFrame([{**row, **test._asdict(), "differs": test.differs, "text": test.as_text(*row["text"])}
                             for row, test in zip(rows, correct(tests), strict=True)])

    # --- long tables

    @cached_property
    def histories(self) -> pd.DataFrame:
        """A row for each epoch of each run: ``run``, ``label``, ``epoch``, the terms of the loss, the code's use."""
        return self._long(self._tables.histories)

    def convergence(self, term: str = "validation_total", by: str | list[str] = "label") -> pd.DataFrame:
        """Which groups' loss still fell at the end, by more than the standard error over its seeds.

        Returns:
            A row for each group whose runs have this term: ``fall`` in the last tenth of the epochs and ``error``,
            both nats, ``n`` runs, ``not_converged``; of a single run nothing can be said, and it is not marked.

        Raises:
            SettingError: no run has the term, or a run has one epoch.
        """
        table = self.histories
        known = table.dropna(subset=[term]) if term in table else table.iloc[:0]
        if known.empty:
            raise SettingError(f"none of these {len(self)} runs, the first is {self.runs[0].name}, has the term {term}")
        rows = []
        for key, part in known.sort_values("epoch").groupby(by, sort=False, dropna=False):
            losses = [own.tolist() for _, own in part.groupby("run")[term]]
            found = convergence(losses)
            rows.append((key, *found, len(losses), not found.converged))
        return pd.DataFrame(rows, columns=["of", "fall", "error", "n", "not_converged"]).set_index("of")

    def curve(self, *names: str) -> pd.DataFrame:
        """A row for each point of curves of each run: ``run``, ``label``, ``curve``, ``x``, ``value``."""
        for name in names:
            if name not in CURVES:
                raise unknown_name("curve", name, CURVES)
        self.measure(names)
        own = [run.measured.curves.assign(run=run.name) for run in self.runs if len(run.measured.curves)]
        found = _together([self._tables.curves, *own])[["run", *CURVE_COLUMNS]]
        return self._long(found[found["curve"].isin(names)])

    def units(self, run: Run | None = None) -> pd.DataFrame:
        """A row for each unit of each run, or of one; see :func:`~sparse_vae.report.measures.describe_units`."""
        for each in [run] if run else self.runs:
            if each.name not in set(self._tables.units["run"]) and not len(each.measured.units) and each.has_model:
                each.measured.units = measure(each.model, each.dataset, seed=each.config.training.seed,
                                              only=["units"]).units
        own = [each.measured.units.assign(run=each.name) for each in self.runs if len(each.measured.units)]
        found = self._long(_together([self._tables.units, *own]))
        return found[found["run"] == run.name] if run else found

    def _long(self, table: pd.DataFrame) -> pd.DataFrame:
        about = self.frame[["run", "group", "label", "title", "family", "model", "dataset", "latent_dim", "seed"]]
        order = {run.name: number for number, run in enumerate(self.runs)}
        merged = about.merge(table, on="run")
        return merged.sort_values("run", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)


def _listed(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _as_settings(side: str | Mapping[str, object]) -> Mapping[str, object]:
    return {"model": side} if isinstance(side, str) else side


def _together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables; one without rows would turn numbers into objects."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def open_runs(suite: str | None = None, runs: str | Iterable[str] = "*", *,
              train: Iterable[Mapping[str, object]] | Mapping[str, object] = (), data_root: Path | str | None = None,
              needs: Callable[[RunConfig], bool] | None = None) -> RunSet:
    """Runs of a published suite, or runs that are trained now.

    Args:
        suite: its name; None trains what ``train`` lists, here and now, and keeps nothing.
        runs: patterns of names of the suite's runs; ``!`` in front takes out again.
        train: entries as in a suite's file: a model, a data set, settings; lists stand for several runs.
        data_root: where downloaded data lie; None is :func:`~sparse_vae.report.suites.data_folder`.
        needs: leave out the runs whose configuration it says no to.

    Raises:
        SettingError: an unknown suite, or one without results; patterns that fit none of its runs; an entry of
            ``train`` that cannot be used; no run left.
        TableError: a published table that cannot be read.
    """
    data_root = data_root or data_folder()
    if suite is None:
        tables, found = _train_now([train] if isinstance(train, Mapping) else list(train), data_root)
    else:
        root = project_root()
        chosen = load_suite(suite, root)
        tables = read_tables(chosen.folder)
        configs = tables.configs()
        if not configs:
            raise SettingError(f"suite {suite!r} has no published results; make train SUITE={suite}")
        found = [Run(name, configs[name], weights=weights_path(chosen.folder, name), data_root=data_root)
                 for name in matching_names(list(configs), runs)]
    left = [run for run in found if needs is None or needs(run.config)]
    if found and not left:
        raise SettingError(f"none of these {len(found)} runs, the first is {found[0].name}, is of the kind needed")
    return RunSet(left, tables)


def _unusual_settings(kinds: list[Mapping[str, str]]) -> list[str]:
    """For each kind of runs the settings that tell it from the others, for display: ``", epochs 5"``.

    A setting that more than half of them share is not said of those.
    """
    columns = {name: [kind.get(name, "none") for kind in kinds] for name in dict.fromkeys(n for k in kinds for n in k)}
    usual = {name: max(values, key=values.count) for name, values in columns.items()}
    usual = {name: value for name, value in usual.items() if 2 * columns[name].count(value) > len(kinds)}
    titles = {name: name.removeprefix("dataset.").replace("_", " ") for name in columns}
    return ["".join(f", {titles[name]} {value}" for name, value in kind.items() if value != usual.get(name))
            for kind in kinds]


def _train_now(entries: list[Mapping[str, object]], data_root: Path | str) -> tuple[Tables, list[Run]]:
    """Train runs in this process; their measures are taken when they are asked for."""
    found: list[Run] = []
    histories = []
    if not entries:
        raise SettingError("without a suite, `train` must say what to train: a model, a data set, settings")
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise SettingError(f"an entry of `train` must be a mapping of settings; got {entry!r}")
        for wanted in expand_run(dict(entry)):
            config = wanted.config
            data = load_data(config, data_root)
            model, history = train_run(config, data, progress=False)
            name = _unused(wanted.name, {run.name for run in found})
            found.append(Run(name, config, weights=None, data_root=data_root, model=model))
            histories.append(pd.DataFrame(history).assign(run=name))
    tables = Tables()
    if histories:
        tables.histories = pd.concat(histories, ignore_index=True)
    return tables, found


def _unused(name: str, taken: set[str]) -> str:
    """``name``, its folder numbered where several entries share it."""
    group, _, seed = name.rpartition("/")
    names = [name, *(f"{group}-{number}/{seed}" for number in range(2, len(taken) + 2))]
    return next(each for each in names if each not in taken)
