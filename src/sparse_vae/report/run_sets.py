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

import numpy as np
import pandas as pd

from sparse_vae.checkpoints import RunError, load_weights, train_run
from sparse_vae.checks import SettingError, unknown_name
from sparse_vae.configuration import RunConfig, build_model, load_data
from sparse_vae.datasets import Dataset
from sparse_vae.models import LatentVariableModel
from sparse_vae.report.measures import CURVE_COLUMNS, CURVES, MEASURES, Measured, Subject, find_measure, measure
from sparse_vae.report.statistics import LEVEL, Comparison, compare_means, correct, mean_and_error
from sparse_vae.report.suites import expand_run, load_suite, matching_names, project_root
from sparse_vae.report.tables import Tables, read_tables, setting_text, settings_of, weights_path


class Run:
    """One run of a set: what it is, its model where weights are, its data.

    Attributes:
        name: ``<dataset>/<model>[-variant]/seed<k>``.
        config: what it is.
        label: what tells its group from the others of its set, for display.
    """

    def __init__(self, name: str, config: RunConfig, *, weights: Path | None, data_root: Path | str,
                 measured: Measured | None = None, model: LatentVariableModel | None = None):
        self.name, self.config, self.label = name, config, config.title
        self._weights, self._data_root, self._model = weights, data_root, model
        self.measured = measured or Measured()

    @property
    def group(self) -> str:
        """Its name without the seed: what runs that differ in their seed alone share."""
        return self.name.rpartition("/")[0]

    @property
    def has_model(self) -> bool:
        """Whether its weights are at hand."""
        return self._model is not None or (self._weights is not None and self._weights.exists())

    @cached_property
    def dataset(self) -> Dataset:
        """The data set it was trained on."""
        return load_data(self.config, self._data_root)

    @cached_property
    def model(self) -> LatentVariableModel:
        """The trained model with its published weights, on the CPU, in evaluation mode.

        Raises:
            RunError: no weights of this run are published, or they do not fit.
        """
        if self._model is not None:
            return self._model
        if not self.has_model:
            raise RunError(f"the weights of {self.name} are not published; a suite's list `published` says whose are, "
                           "and `make train` makes them")
        model = build_model(self.config, self.dataset)
        load_weights(model, self._weights)
        return model.eval()

    @cached_property
    def subject(self) -> Subject:
        """What measures see of it: codes and active dimensions of the test data, what each dimension adds."""
        return Subject(self.model, self.dataset, self.config.training.seed)


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
        if not self.runs:
            raise SettingError("no run is left of this set")
        self._label()

    def _label(self) -> None:
        groups = {run.group: run for run in self.runs}
        several = len({run.config.model_settings["latent_dim"] for run in groups.values()}) > 1
        datasets = len({run.config.dataset for run in groups.values()}) > 1
        labels = {}
        for group, run in groups.items():
            size = f", J = {run.config.model_settings['latent_dim']}" if several else ""
            title = run.config.title + size + (f", {run.config.dataset}" if datasets else "")
            labels.setdefault(title, []).append(group)
        labels = {group: label + changes for label, sharing in labels.items()
                  for group, changes in _unusual_settings({group: groups[group] for group in sharing}).items()}
        counts = pd.Series(labels).value_counts()
        for run in self.runs:
            label = labels[run.group]
            run.label = label if counts[label] == 1 else f"{label} [{run.group.rpartition('/')[2]}]"

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """See the class; a measure that has not been taken, or that a run cannot have, is NaN."""
        measured = self._tables.runs.set_index("run").reindex(columns=[*MEASURES, "seconds"])
        rows = []
        for run in self.runs:
            known = measured.loc[run.name].to_dict() if run.name in measured.index else dict.fromkeys(MEASURES)
            own = {name: value for name, value in run.measured.values.items() if value is not None}
            rows.append({"run": run.name, "group": run.group, "model": run.config.model, "dataset": run.config.dataset,
                         "title": run.config.title, "label": run.label,
                         "family": re.sub(r" \(.*?\)", "", run.config.title),
                         **settings_of(run.config), **known, **own})
        frame = pd.DataFrame(rows)
        return frame.astype(dict.fromkeys(MEASURES, float))

    def where(self, **settings: object) -> RunSet:
        """The runs whose settings are these: a value, a list of values, or a function that says yes to a value.

        A name with a dot is written with two underscores: ``dataset__seed``.

        Raises:
            SettingError: an unknown name, or no run is left.
        """
        keep = pd.Series(True, index=self.frame.index)
        for name, wanted in settings.items():
            column = name.replace("__", ".")
            if column not in self.frame:
                raise unknown_name("column of the runs", column, self.frame.columns)
            values = self.frame[column]
            if callable(wanted):
                keep &= values.map(wanted).astype(bool)
            else:
                keep &= values.isin(wanted if isinstance(wanted, (list, tuple, set)) else [wanted])
        if not keep.any():
            raise SettingError("no run has " + ", ".join(f"{name} = {value!r}" for name, value in settings.items()))
        return self._subset(self.frame["run"][keep])

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
        keep = self.measure(names).frame[list(names)].notna().all(axis=1)
        if not keep.any():
            raise SettingError(f"none of these {len(self.runs)} runs, the first is {self.runs[0].name}, has the "
                               f"measure{'s' * (len(names) > 1)} {', '.join(names)}")
        return self._subset(self.frame["run"][keep])

    def with_models(self) -> RunSet:
        """The first run of each group whose weights are at hand: what pictures are drawn of.

        Raises:
            RunError: there are none.
        """
        found = {}
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
        """Take measures that are missing, of the runs whose models are at hand; returns the set itself."""
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in CURVES:
                find_measure(name)
        curves = set(zip(self._tables.curves["run"], self._tables.curves["curve"], strict=True))
        for run in self.runs:
            missing = [name for name in names if self._lacks(run, name, curves)]
            if missing and run.has_model:
                found = measure(run.model, run.dataset, seed=run.config.training.seed, only=missing)
                run.measured.values |= found.values
                run.measured.curves = pd.concat([run.measured.curves, found.curves], ignore_index=True)
        self.__dict__.pop("frame", None)
        return self

    def _lacks(self, run: Run, name: str, curves: set[tuple[str, str]]) -> bool:
        if name in CURVES:
            return (run.name, name) not in curves and name not in set(run.measured.curves["curve"])
        return pd.isna(self.frame.loc[self.frame["run"] == run.name, name]).all() and name not in run.measured.values

    def values(self, name: str, by: str | list[str] = "label") -> dict[object, list[float]]:
        """A measure's values over the seeds of each group, in the order of the runs; groups without one are left out.
        """
        self.measure(name)
        groups = self.frame.dropna(subset=[name]).groupby(by, sort=False)[name]
        return {key: list(values) for key, values in groups}

    def means(self, names: Iterable[str], by: str | list[str] = "label") -> pd.DataFrame:
        """Mean of each measure over the seeds of each group; NaN where a group has none."""
        self.measure(names)
        return self.frame.groupby(by, sort=False)[list(names)].mean()

    def table(self, names: Iterable[str], by: str | list[str] = "label", *, seeds: bool = False) -> pd.DataFrame:
        """Mean ± standard error over the seeds of each group, as text, in the units of the measures' titles.

        Args:
            names: of measures, the columns.
            by: what makes a group, the rows: names of columns of ``frame``.
            seeds: a first column with the number of runs.

        Returns:
            Text; a dash where a group has no value. A measure that no run of the set has is left out.
        """
        names = list(names)
        self.measure(names)
        groups = self.frame.groupby(by, sort=False, dropna=False)
        columns = {"seeds": groups.size().astype(str)} if seeds else {}
        for name in names:
            if self.frame[name].notna().any():
                each = find_measure(name)
                columns[each.title] = groups[name].apply(
                    lambda values, each=each: mean_and_error(values.dropna() * each.scale, each.digits))
        table = pd.DataFrame(columns)
        titles = {"label": "model", "title": "model", "family": "model", "latent_dim": "J", "dataset": "data"}
        return table.rename_axis([titles.get(name, name) for name in table.index.names])

    def best(self, name: str, by: str | None = None) -> pd.DataFrame:
        """The group with the best mean of a measure, for each value of ``by`` (a column), and which are level with it.

        Level is what a Welch test, corrected for the number of comparisons, does not tell from the best at 5%, or has
        the same value; of single runs nothing can be tested.

        Returns:
            A row for each value of ``by`` (one row without it): ``label``, ``mean``, ``level`` (labels).

        Raises:
            SettingError: a measure of which neither more nor less is better.
        """
        each = find_measure(name)
        if not each.better:
            raise SettingError(f"of {name} neither more nor less is better")
        self.measure(name)
        rows = []
        parts = self.frame.dropna(subset=[name]).groupby(by, sort=True) if by else [
            (None, self.frame.dropna(subset=[name]))]
        for key, part in parts:
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
        named = [shown[label] for label in level[:3]] + [f"{len(level) - 3} others"] * (len(level) > 3)
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
        """
        self.measure(name)
        sides = [self.where(**({"model": side} if isinstance(side, str) else side)).frame.dropna(subset=[name])
                 for side in (first, second)]
        keys = sorted(set(sides[0][at]) & set(sides[1][at])) if at else [None]
        tests: list[Comparison] = []
        for key in keys:
            values = []
            for side in sides:
                own = side[side[at] == key] if at else side
                values.append(own.set_index("seed")[name])
            if paired:
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
        rows, tests = [], []
        for first, second in pairs:
            sides = [self.where(**({"model": side} if isinstance(side, str) else side)) for side in (first, second)]
            model, against = (" or ".join(dict.fromkeys(side.frame["title"])) for side in sides)
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


def _together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables; one without rows would turn numbers into objects."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def open_runs(suite: str | None = None, runs: str | Iterable[str] = "*", *,
              train: Iterable[Mapping[str, object]] | Mapping[str, object] = (), data_root: Path | str = "data",
              needs: Callable[[RunConfig], bool] | None = None) -> RunSet:
    """Runs of a published suite, or runs that are trained now.

    Args:
        suite: its name; None trains what ``train`` lists, here and now, and keeps nothing.
        runs: patterns of names of the suite's runs; ``!`` in front takes out again.
        train: entries as in a suite's file: a model, a data set, settings; lists stand for several runs.
        data_root: where downloaded data lie.
        needs: leave out the runs whose configuration it says no to.

    Raises:
        SettingError: an unknown suite, patterns that fit none of its runs, no run left.
        TableError: a published table that cannot be read.
    """
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
    return RunSet([run for run in found if needs is None or needs(run.config)], tables)


def _unusual_settings(groups: Mapping[str, Run]) -> dict[str, str]:
    """Group → the settings that most of these groups do not have, for display: ``", prior_presence 0.3"``."""
    own = {group: {name: setting_text(value) for name, value in settings_of(run.config).items() if name != "seed"}
           for group, run in groups.items()}
    columns = {name: [settings.get(name, "none") for settings in own.values()]
               for name in dict.fromkeys(name for settings in own.values() for name in settings)}
    usual = {name: max(values, key=values.count) for name, values in columns.items()}
    return {group: "".join(f", {name} {settings[name]}" for name in settings if settings[name] != usual[name])
            for group, settings in own.items()}


def _train_now(entries: list[Mapping[str, object]], data_root: Path | str) -> tuple[Tables, list[Run]]:
    """Train runs in this process; their measures are taken when they are asked for."""
    found, histories = [], []
    for entry in entries:
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
