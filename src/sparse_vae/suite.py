"""Suites: a YAML list of runs and of figures over them, executed with papermill on dask.distributed.

A run is one execution of ``notebooks/train.ipynb``, a figure one execution of another notebook over finished runs.
What is there already, made with the same parameters, is skipped. See ``experiments/quick.yml`` for the format.
"""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import string
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import nbformat
import papermill
import yaml
from jupyter_client.provisioning import KernelProvisionerFactory
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm
from traitlets.config import Config

from sparse_vae import kernels
from sparse_vae.checks import SettingError, unknown_name
from sparse_vae.files import atomic_path, exclusive_folder, replace
from sparse_vae.notebook import KEY, annotate
from sparse_vae.runs import RunConfig, configure, is_finished, is_outdated

SUITE_KEYS = ("title", "first", "second", "defaults", "runs", "figures")
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
    """

    name: str
    root: Path
    title: str
    first: str
    second: str
    runs: list[SuiteRun]
    figures: list[SuiteFigure]

    @property
    def folder(self) -> Path:
        """Where its results lie."""
        return self.root / "results" / self.name


class Outcome(NamedTuple):
    """What became of a run or a figure: ``status`` is done, skipped, failed or stopped; ``why`` for the latter two."""

    name: str
    status: str
    seconds: float = 0.0
    why: str = ""


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


def parse_value(text: object) -> object:
    """A setting's value from its text: a Python literal, true, false or null, else the text itself.

    >>> parse_value("1e-3"), parse_value("true"), parse_value("conv")
    (0.001, True, 'conv')
    """
    if not isinstance(text, str):
        return text
    words = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


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
            for run in expand_run({**defaults, **_mapping(entry)}):
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
    return Suite(name, root, content.get("title", name), **shown, runs=list(runs.values()),
                 figures=list(figures.values()))


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


def expand_run(entry: dict) -> Iterator[SuiteRun]:
    """The runs of one entry: every combination of its settings' values, where lists give several."""
    for required in ("model", "dataset"):
        if required not in entry:
            raise SettingError(f"has no {required}")
    for key, value in entry.items():
        if value == []:
            raise SettingError(f"{key} must have at least one value; got []")
    values = [value if isinstance(value, list) else [value] for value in entry.values()]
    for combination in itertools.product(*values):
        settings = {key: parse_value(value) for key, value in zip(entry, combination, strict=True)}
        model, dataset, variant = settings.pop("model"), settings.pop("dataset"), settings.pop("variant", None)
        for key, name in (("model", model), ("dataset", dataset)):
            if not isinstance(name, str):
                raise SettingError(f"{key} must be a name; got {name!r}")
        config = configure(model, dataset, **settings)
        folder = model if variant is None else f"{model}-{_fill_in(str(variant), settings)}"
        parameters = {"model": model, "dataset": dataset, "settings": settings}
        yield SuiteRun(f"{dataset}/{folder}/seed{config.training.seed}", config, parameters)


class _WholeNames(string.Formatter):
    """Takes what stands in braces for one name, the dots in it included."""

    def get_field(self, name: str, positional: tuple, named: dict[str, object]) -> tuple[object, str]:
        return named[name], name


def _fill_in(variant: str, settings: dict[str, object]) -> str:
    try:
        filled = _WholeNames().vformat(variant, (), settings)
    except (LookupError, ValueError, TypeError) as error:
        known = ", ".join(f"{key}={value}" for key, value in settings.items())
        raise SettingError(f"variant {variant!r} must have only names of the run's settings in braces, with formats "
                           f"that fit their values; they are {known or 'none'}") from error
    return _file_name_part("variant", filled)


def _read_figure(entry: dict, run_names: list[str], root: Path) -> SuiteFigure:
    templates = sorted(path.stem for path in (root / "notebooks").glob("*.ipynb"))
    if entry.get("notebook") not in templates:
        raise unknown_name("notebook", entry.get("notebook"), templates)
    if "name" not in entry:
        raise SettingError("has no name")
    runs = None
    if "runs" in entry:
        patterns = entry["runs"] if isinstance(entry["runs"], list) else [entry["runs"]]
        runs = []
        for pattern in map(str, patterns):
            matching = fnmatch.filter(run_names, pattern.removeprefix("!"))
            if not matching:
                raise unknown_name("run, or pattern that fits no run,", pattern, run_names)
            if pattern.startswith("!"):
                runs = [run for run in runs if run not in matching]
            else:
                runs += [run for run in matching if run not in runs]
        if not runs:
            raise SettingError(f"runs must leave at least one run; got {', '.join(map(str, patterns))}")
    known = _template_parameters(root / "notebooks" / f"{entry['notebook']}.ipynb")
    if runs is not None and "runs" not in known:
        raise SettingError(f"notebook {entry['notebook']} draws no runs; take out runs: …")
    if "data_root" in entry:
        raise SettingError("data_root is the project's data folder for every figure; take it out")
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


def _template_parameters(template: Path) -> list[str]:
    """Names that a notebook's parameters cell assigns."""
    cell = next((cell for cell in read_notebook(template).cells if "parameters" in cell.metadata.get("tags", [])), None)
    if cell is None:
        raise SettingError(f"notebook {template.stem} has no cell with the tag parameters")
    try:
        assigned = [node.targets for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
        return [target.id for targets in assigned for target in targets]
    except (SyntaxError, AttributeError) as error:
        raise SettingError(f"the parameters cell of notebook {template.stem} must be plain Python, one name = value "
                           f"for each: {error}") from error


def execute_notebook(template: Path, target: Path, parameters: dict[str, object], root: Path, *,
                     show_progress: bool = False) -> None:
    """Execute a notebook with papermill, in the project's folder; its progress bar goes to stderr on demand."""
    # Dask tells its workers' malloc to hand memory back at once, and a kernel would inherit it: up to a third of its
    # time would go to page faults.
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    KernelProvisionerFactory.instance().default_provisioner_name = kernels.NAME
    # Sockets in a folder of their own: kernels that start at once cannot take each other's ports.
    with tempfile.TemporaryDirectory(prefix="kernel-") as sockets:
        config = Config({"KernelManager": {"transport": "ipc", "connection_file": f"{sockets}/kernel.json"}})
        papermill.execute_notebook(
            template, target, parameters, cwd=root, kernel_name="python3", progress_bar=False, config=config,
            stderr_file=sys.stderr if show_progress else None,
            shutdown_kernel="immediate")  # its work is done by then; a graceful end takes a second or two


def execute_run(run: SuiteRun, folder: Path, root: Path, *, show_progress: bool = False) -> None:
    """Train one run into ``folder``, resuming where an interrupted one left off.

    Work in progress lies in a hidden folder beside it, which goes when the run is whole. Where another process trains
    the run already, wait for it.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with exclusive_folder(partial, on_wait=lambda: print(f"{run.name}: waiting for another process, which trains it",
                                                         file=sys.stderr)):
        if not is_finished(folder, run.config, root):
            _execute_alone(run, folder, partial, root, show_progress)
        shutil.rmtree(partial)


def _execute_alone(run: SuiteRun, folder: Path, partial: Path, root: Path, show_progress: bool) -> None:
    marker = partial / "config.json"
    if not _can_resume(marker, run.config, root):
        for path in partial.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with atomic_path(marker) as temporary:
        temporary.write_text(json.dumps(asdict(run.config)))
    notebook = partial / "train.ipynb"
    parameters = {**run.parameters, "data_root": "data", "output": _relative(partial / "run", root),
                  "checkpoint": _relative(partial / "checkpoint.safetensors", root), "progress": show_progress}
    execute_notebook(root / "notebooks" / "train.ipynb", notebook, parameters, root, show_progress=show_progress)
    executed = annotate(nbformat.read(notebook, as_version=4), run.name.replace("/", "-"))
    nbformat.write(executed, partial / "run" / "train.ipynb")
    replace(partial / "run", folder)


def _can_resume(marker: Path, config: RunConfig, root: Path) -> bool:
    """Whether work in progress is of this configuration and of the present data."""
    try:
        return json.loads(marker.read_text()) == asdict(config) and not is_outdated(marker, config, root)
    except (OSError, ValueError):
        return False


def execute_figure(figure: SuiteFigure, suite: Suite) -> None:
    """Execute a figure notebook of a suite into its folder of figures."""
    template = suite.root / "notebooks" / f"{figure.notebook}.ipynb"
    parameters = _figure_parameters(figure, suite)
    with atomic_path(suite.folder / "figures" / figure.file_name) as temporary:
        execute_notebook(template, temporary, parameters, suite.root)
        executed = annotate(nbformat.read(temporary, as_version=4), figure.name)
        executed.metadata[KEY] = {"fingerprint": _fingerprint(figure, suite)}
        nbformat.write(executed, temporary)


def _relative(path: Path, root: Path) -> str:
    return os.path.relpath(path, root)


def _figure_parameters(figure: SuiteFigure, suite: Suite) -> dict[str, object]:
    runs = {} if figure.runs is None else {"runs": [_relative(suite.folder / run, suite.root) for run in figure.runs]}
    return {**figure.parameters, **runs, "data_root": "data"}


def _fingerprint(figure: SuiteFigure, suite: Suite) -> str:
    """Changes when the template, the parameters or the runs of a figure do."""
    digest = hashlib.sha256((suite.root / "notebooks" / f"{figure.notebook}.ipynb").read_bytes())
    digest.update(json.dumps(_figure_parameters(figure, suite), sort_keys=True).encode())
    for run in figure.runs or []:
        for part in ("config.json", "metrics.json"):
            digest.update((suite.folder / run / part).read_bytes())
    return digest.hexdigest()


def is_drawn(figure: SuiteFigure, suite: Suite) -> bool:
    """Whether a figure's notebook is there, made of the present template, parameters and runs."""
    try:
        notebook = read_notebook(suite.folder / "figures" / figure.file_name)
        return notebook.metadata.get(KEY, {}).get("fingerprint") == _fingerprint(figure, suite)
    except (OSError, SettingError):
        return False


def _attempt(name: str, work: Callable[[], None]) -> Outcome:
    """Do ``work``; an error becomes a failed outcome, whatever it is, so that the others go on."""
    started = time.monotonic()
    try:
        work()
    except PapermillExecutionError as error:
        return Outcome(name, "failed", time.monotonic() - started, f"{error.ename}: {error.evalue}")
    except Exception as error:
        return Outcome(name, "failed", time.monotonic() - started, f"{type(error).__name__}: {error}")
    return Outcome(name, "done", time.monotonic() - started)


def _train_one(run: SuiteRun, folder: Path, root: Path) -> Outcome:
    return _attempt(run.name, lambda: execute_run(run, folder, root))


def _draw_one(figure: SuiteFigure, suite: Suite) -> Outcome:
    return _attempt(figure.file_name, lambda: execute_figure(figure, suite))


def _ignore_interrupts() -> None:
    """Ctrl-C reaches a local cluster's workers too: the command alone acts on it, and ends them."""
    signal.signal(signal.SIGINT, lambda *_: None)


@contextmanager
def local_cluster(jobs: int) -> Iterator[str]:
    """Address of a scheduler on this machine: a single-threaded process for each core, no more than there are jobs."""
    from dask.distributed import Client, LocalCluster

    workers = max(1, min(os.cpu_count() or 1, jobs))
    with LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
                      memory_limit=0, silence_logs="CRITICAL") as cluster:
        with Client(cluster) as client:
            client.run(_ignore_interrupts)
        yield cluster.scheduler_address


@contextmanager
def _client(scheduler: str | None, jobs: int) -> Iterator[object]:
    """A client of the scheduler at that address, or of a local cluster."""
    from dask.distributed import Client

    with nullcontext(scheduler) if scheduler else local_cluster(jobs) as address:
        try:
            client = Client(address, timeout="10s")
        except (OSError, ValueError) as error:
            raise SettingError(f"no dask scheduler answers at {address!r}: {error}") from error
        with client:
            yield client


@contextmanager
def _on_interrupt(react: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls ``react`` in the block: an exception at any point could leave a lock of dask's taken for ever."""
    if threading.current_thread() is not threading.main_thread():  # which alone receives signals
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: react())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _execute(tasks: list[tuple[str, Callable, tuple]], scheduler: str | None, unit: str) -> Iterator[Outcome]:
    """The outcomes of tasks (name, function, arguments), as they come, from the cluster's workers."""
    if not tasks:
        return
    from dask.distributed import KilledWorker

    ended = SimpleQueue()  # of futures, and None for an interrupt
    with (_on_interrupt(lambda: ended.put(None)), _client(scheduler, len(tasks)) as client,
          tqdm(total=len(tasks), unit=unit, dynamic_ncols=True) as bar):
        futures = {client.submit(function, *arguments, pure=False): name for name, function, arguments in tasks}
        for future in futures:
            future.add_done_callback(ended.put)
        for _ in futures:
            future = ended.get()
            if future is None:
                raise KeyboardInterrupt
            try:
                outcome = future.result()
            except KilledWorker as error:
                outcome = Outcome(futures[future], "failed", why=f"its workers died again and again: {error}")
            except Exception as error:
                outcome = Outcome(futures[future], "failed", why=f"{type(error).__name__}: {error}")
            bar.update()
            bar.write(f"{outcome.status:7} {outcome.seconds:6.0f} s  {outcome.name}")
            sys.stdout.flush()  # into a pipe it would else wait for more
            yield outcome


def _collect(names: Iterable[str], skipped: set[str], outcomes: Iterator[Outcome]) -> list[Outcome]:
    """One outcome for each name; what an interrupt (Ctrl-C) left undone is stopped."""
    found = {name: Outcome(name, "skipped") for name in skipped}
    try:
        for outcome in outcomes:
            found[outcome.name] = outcome
    except KeyboardInterrupt:
        for name in names:
            found.setdefault(name, Outcome(name, "stopped", why="interrupted"))
    return [found[name] for name in names]


def check_writable(folder: Path) -> None:
    """Raise a :class:`SettingError` if nothing can be written to ``folder``."""
    try:
        with atomic_path(folder / ".writable") as temporary:
            temporary.touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise SettingError(f"results cannot be written to {folder}: {error.strerror}") from error


def train_suite(suite: Suite, *, scheduler: str | None = None) -> list[Outcome]:
    """Train what is not finished.

    Args:
        suite: from :func:`load_suite`.
        scheduler: address of a dask scheduler whose workers see the project's folder; None starts a local cluster.

    Returns:
        One outcome for each run, in the suite's order.
    """
    check_writable(suite.folder)
    finished = {run.name for run in suite.runs if is_finished(suite.folder / run.name, run.config, suite.root)}
    # The first seed of everything comes first, so that a suite that is stopped half-way can be looked at.
    tasks = [(run.name, _train_one, (run, suite.folder / run.name, suite.root))
             for run in sorted(suite.runs, key=lambda run: run.config.training.seed) if run.name not in finished]
    return _collect([run.name for run in suite.runs], finished, _execute(tasks, scheduler, "run"))


def draw_suite(suite: Suite, *, scheduler: str | None = None) -> list[Outcome]:
    """Execute the figure notebooks that are not up to date; arguments and result as :func:`train_suite`.

    Raises:
        SettingError: a run that a figure needs is not finished.
    """
    check_writable(suite.folder)
    to_draw = [figure for figure in suite.figures if not is_drawn(figure, suite)]
    needed = {run for figure in to_draw for run in figure.runs or []}
    missing = [run.name for run in suite.runs
               if run.name in needed and not is_finished(suite.folder / run.name, run.config, suite.root)]
    if missing:
        raise SettingError(f"{len(missing)} runs that the figures need are not finished, the first is {missing[0]}; "
                           f"train them first: make train SUITE={suite.name}")
    names = [figure.file_name for figure in suite.figures]
    tasks = [(figure.file_name, _draw_one, (figure, suite)) for figure in to_draw]
    return _collect(names, set(names) - {task[0] for task in tasks}, _execute(tasks, scheduler, "figure"))


def outcome_table(outcomes: list[Outcome]) -> str:
    """The outcomes as text: what ran, what failed and why."""
    width = max((len(outcome.name) for outcome in outcomes), default=0)
    lines = [f"{o.name:{width}}  {o.status:7}  {o.seconds:6.0f} s  {o.why.splitlines()[0] if o.why else ''}".rstrip()
             for o in outcomes]
    counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "failed", "stopped")}
    return "\n".join([*lines, ", ".join(f"{n} {status}" for status, n in counts.items() if n)])
