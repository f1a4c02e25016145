"""Suites: a YAML list of runs and of figures over them, read and checked.

See ``experiments/quick.yml`` for the format; :mod:`sparse_vae.report.execution` trains and draws them.
"""

from __future__ import annotations

import ast
import fnmatch
import itertools
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from sparse_vae.checks import SettingError, parse_value, unknown_name
from sparse_vae.configuration import RunConfig, configure
from sparse_vae.models import CLASSICAL, MODELS, model_settings

SUITE_KEYS = ("title", "first", "second", "defaults", "runs", "published", "figures")
FIGURE_KEYS = ("notebook", "name", "runs")


@dataclass(frozen=True)
class SuiteRun:
    """A run of a suite.

    Attributes:
        name: its folder below the suite's, ``<dataset>/<model>[-variant]/seed<k>``.
        config: what is trained.
        parameters: of the training notebook.
    """

    name: str
    config: RunConfig
    parameters: dict[str, object]


@dataclass(frozen=True)
class SuiteFigure:
    """A figure notebook of a suite.

    Attributes:
        notebook: name of the template in ``notebooks/``.
        name: tells apart the figures that one template makes; ends their labels.
        runs: names of the runs it draws; None for a notebook that draws no runs.
        parameters: further parameters of the notebook.
    """

    notebook: str
    name: str
    runs: list[str] | None
    parameters: dict[str, object] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Name of the executed notebook."""
        return f"{self.notebook}-{self.name}.ipynb"


@dataclass(frozen=True)
class Suite:
    """A checked suite.

    Attributes:
        name: of its file and its folder below ``results/``.
        root: the project's folder.
        title: one line for the report.
        first, second: the two image data sets that the report's chapters show.
        runs, figures: what it consists of.
        published: names of the runs whose weights are published: those that pictures and pages show.
    """

    name: str
    root: Path
    title: str
    first: str
    second: str
    runs: list[SuiteRun]
    figures: list[SuiteFigure]
    published: list[str]

    @property
    def folder(self) -> Path:
        """Where its published results lie."""
        return self.root / "results" / self.name

    @property
    def runs_folder(self) -> Path:
        """Where this machine's own runs of it lie."""
        return self.root / "runs" / self.name


def project_root() -> Path:
    """The nearest folder, from here upwards, that holds ``experiments/`` and ``notebooks/``.

    Raises:
        SettingError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "experiments").is_dir() and (folder / "notebooks").is_dir():
            return folder
    raise SettingError(f"{here} is not inside the project: no experiments/ and notebooks/ in it or above it")


def data_folder() -> Path:
    """Where downloaded data lie: in the project's folder ``data``, or in ``data`` here where there is no project."""
    try:
        return project_root() / "data"
    except SettingError:
        return Path("data")


class _Loader(yaml.SafeLoader):
    """YAML in which a key that a mapping has twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise SettingError(f"line {key.start_mark.line + 1}: {key.value} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def suite_names(root: Path) -> list[str]:
    """The suites there are."""
    return sorted(path.stem for path in (root / "experiments").glob("*.yml"))


def load_suite(name: str, root: Path | None = None) -> Suite:
    """Read and check ``experiments/<name>.yml``.

    Raises:
        SettingError: no such suite, or something in it that cannot be used; names the file and the entry.
    """
    root = root or project_root()
    if not re.fullmatch(r"[\w-]+", name):
        raise SettingError(f"a suite's name has letters, digits, - and _ alone, and no .yml; got {name!r}")
    path = root / "experiments" / f"{name}.yml"
    if not path.is_file():
        raise unknown_name("suite", name, suite_names(root))
    try:
        content = yaml.load(path.read_text(), _Loader)
        return _check_suite(name, root, content)
    except (SettingError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"{path.relative_to(root)}: {error}") from error


def _check_suite(name: str, root: Path, content: object) -> Suite:
    if not isinstance(content, dict):
        raise SettingError(f"a suite is a mapping with {', '.join(SUITE_KEYS)}; got {type(content).__name__}")
    for key in content:
        if key not in SUITE_KEYS:
            raise unknown_name("entry", key, SUITE_KEYS)
    if not content.get("runs"):
        raise SettingError("a suite needs a list of runs")
    with _located("defaults"):
        defaults = _mapping(content.get("defaults") or {})
    runs: dict[str, SuiteRun] = {}
    for number, entry in enumerate(_listed("runs", content["runs"]), 1):
        with _located(f"run {number}"):
            for run in expand_run(_mapping(entry), defaults):
                if run.name in runs:
                    raise SettingError(f"two runs would lie in {run.name}; tell them apart with variant: …")
                runs[run.name] = run
    figures: dict[str, SuiteFigure] = {}
    for number, entry in enumerate(_listed("figures", content.get("figures") or []), 1):
        with _located(f"figure {number}"):
            figure = _read_figure(_mapping(entry), list(runs), root)
            if figure.file_name in figures:
                raise SettingError(f"two figures would lie in {figure.file_name}; give them different names")
            figures[figure.file_name] = figure
    datasets = list(dict.fromkeys(run.config.dataset for run in runs.values()))
    shown = {role: content.get(role, datasets[min(index, len(datasets) - 1)])
             for index, role in enumerate(("first", "second"))}
    for dataset in shown.values():
        if dataset not in datasets:
            raise unknown_name("data set among the suite's runs", dataset, datasets)
    with _located("published"):
        published = matching_names(list(runs), content.get("published", []))
    return Suite(name, root, content.get("title", name), **shown, runs=list(runs.values()),
                 figures=list(figures.values()), published=published)


@contextmanager
def _located(place: str) -> Iterator[None]:
    """Put the place in front of a setting's error."""
    try:
        yield
    except SettingError as error:
        raise SettingError(f"{place}: {error}") from error


def _mapping(entry: object) -> dict[str, object]:
    if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
        raise SettingError(f"must be a mapping of settings; got {entry!r}")
    return entry


def _listed(name: str, entries: object) -> list:
    if not isinstance(entries, list):
        raise SettingError(f"{name} must be a list; got {entries!r}")
    return entries


def _file_name_part(name: str, text: object) -> str:
    if "/" in str(text):
        raise SettingError(f"{name} becomes part of a file name and must not contain /; got {text!r}")
    return str(text)


def expand_run(entry: dict, defaults: dict | None = None) -> Iterator[SuiteRun]:
    """The runs of one entry: every combination of its settings' values, where lists give several.

    Defaults are for the settings that the entry does not give; one that only other models take is left out. A value
    may be that of another setting, named in braces: ``dataset.seed: "{seed}"`` draws new data for every seed.
    """
    given, entry = entry, {**(defaults or {}), **entry}
    for required in ("model", "dataset"):
        if required not in entry:
            raise SettingError(f"has no {required}")
    for key, value in entry.items():
        if value == []:
            raise SettingError(f"{key} must have at least one value; got []")
    values = [value if isinstance(value, list) else [value] for value in entry.values()]
    for combination in itertools.product(*values):
        settings: dict[str, Any] = {key: parse_value(value) for key, value in zip(entry, combination, strict=True)}
        model, dataset, variant = settings.pop("model"), settings.pop("dataset"), settings.pop("variant", None)
        settings |= {key: parse_value(_fill_in(key, value, settings)) for key, value in settings.items()
                     if isinstance(value, str) and re.fullmatch(r"\{[a-z][\w.]*\}", value)}
        for key, name in (("model", model), ("dataset", dataset)):
            if not isinstance(name, str):
                raise SettingError(f"{key} must be a name; got {name!r}")
        settings = {key: value for key, value in settings.items() if key in given or _is_for(key, model)}
        config = configure(model, dataset, **settings)
        folder = model
        if variant is not None:
            folder += "-" + _file_name_part("variant", _fill_in("variant", str(variant), settings))
        parameters = {"model": model, "dataset": dataset, "settings": settings}
        yield SuiteRun(f"{dataset}/{folder}/seed{config.training.seed}", config, parameters)


def _is_for(setting: str, model: str) -> bool:
    """Whether a model takes a setting, or no model does: it is then the training's or the data set's."""
    others = {**MODELS, **CLASSICAL}
    return setting in model_settings(model) or not any(setting in model_settings(name) for name in others)


class _WholeNames(string.Formatter):
    """Takes what stands in braces for one name, the dots in it included."""

    def get_field(self, name: str, positional: Sequence[object], named: Mapping[str, object]) -> tuple[object, str]:
        return named[name], name


def _fill_in(name: str, text: str, settings: dict[str, object]) -> str:
    """``text`` with the values of settings where their names stand in braces."""
    try:
        return _WholeNames().vformat(text, (), settings)
    except (LookupError, ValueError, TypeError) as error:
        known = ", ".join(f"{key}={value}" for key, value in settings.items())
        raise SettingError(f"{name} {text!r} must have only names of the run's settings in braces, with formats "
                           f"that fit their values; they are {known or 'none'}") from error


def matching_names(names: list[str], patterns: str | Iterable[str]) -> list[str]:
    """The names that fit one of the patterns, in the patterns' order; a pattern that begins with ! takes out again.

    Raises:
        SettingError: a pattern that fits none, or what is neither text nor a list.

    >>> matching_names(["a/vae/seed0", "a/vae/seed1", "a/vsc/seed0"], ["a/*", "!*/seed1"])
    ['a/vae/seed0', 'a/vsc/seed0']
    """
    if not isinstance(patterns, (str, list, tuple)):
        raise SettingError(f"patterns of names are text, or a list of texts; got {patterns!r}")
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else map(str, patterns):
        fitting = fnmatch.filter(names, pattern.removeprefix("!"))
        if not fitting:
            raise unknown_name("run, or pattern that fits no run,", pattern, names)
        if pattern.startswith("!"):
            found = [name for name in found if name not in fitting]
        else:
            found += [name for name in fitting if name not in found]
    return found


def _read_figure(entry: dict, run_names: list[str], root: Path) -> SuiteFigure:
    templates = sorted(path.stem for path in (root / "notebooks").glob("*.ipynb"))
    if entry.get("notebook") not in templates:
        raise unknown_name("notebook", entry.get("notebook"), templates)
    if "name" not in entry:
        raise SettingError("has no name")
    runs = None
    if "runs" in entry:
        runs = matching_names(run_names, entry["runs"])
        if not runs:
            raise SettingError(f"runs must leave at least one run; got {entry['runs']}")
    known = template_parameters(root / "notebooks" / f"{entry['notebook']}.ipynb")
    if runs is not None and "runs" not in known:
        raise SettingError(f"notebook {entry['notebook']} draws no runs; take out runs: …")
    for given in ("suite", "data_root"):
        if given in entry:
            raise SettingError(f"{given} is the same for every figure of a suite; take it out")
    for key in entry:
        if key not in FIGURE_KEYS and key not in known:
            raise unknown_name(f"parameter of notebook {entry['notebook']}", key, known)
    parameters = {key: parse_value(value) for key, value in entry.items() if key not in FIGURE_KEYS}
    return SuiteFigure(entry["notebook"], _file_name_part("name", entry["name"]), runs, parameters)


def read_notebook(path: Path) -> NotebookNode:
    """A notebook; a file that is none is a :class:`SettingError` that names it."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (ValueError, TypeError, LookupError, AttributeError, nbformat.ValidationError) as error:
        raise SettingError(f"{path} is damaged or not a notebook: {str(error).partition(chr(10))[0]}") from error
    return notebook


def template_parameters(template: Path) -> dict[str, object]:
    """What a notebook's parameters cell assigns: name → default."""
    cell = next((cell for cell in read_notebook(template).cells if "parameters" in cell.metadata.get("tags", [])), None)
    if cell is None:
        raise SettingError(f"notebook {template.stem} has no cell with the tag parameters")
    try:
        assigned = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
        return {target.id: ast.literal_eval(node.value)  # type: ignore[attr-defined]  # an error is caught
                for node in assigned for target in node.targets}
    except (SyntaxError, AttributeError, ValueError) as error:
        raise SettingError(f"the parameters cell of notebook {template.stem} must be plain Python, one name = value "
                           f"for each: {error}") from error
