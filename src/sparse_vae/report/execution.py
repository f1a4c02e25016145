"""Suites executed: notebooks run with papermill, on dask.distributed, in parallel.

A run is one execution of ``notebooks/train.ipynb``, a figure one execution of another notebook over published tables.
What is there already, made of the same things, is skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import nbformat
import papermill
import torch
from jupyter_client.provisioning import KernelProvisionerFactory
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm
from traitlets.config import Config

from sparse_vae.checkpoints import is_outdated
from sparse_vae.checks import SettingError
from sparse_vae.configuration import RunConfig
from sparse_vae.files import atomic_path, exclusive_folder, make_folder, read_file, replace
from sparse_vae.report import kernels, site
from sparse_vae.report.freshness import digest_of, imports_of, reached_from
from sparse_vae.report.measures import measures_fingerprint
from sparse_vae.report.notebook import KEY, annotate
from sparse_vae.report.runs import failings, is_finished, is_measured, measure_again, read_record, warn_of_weights
from sparse_vae.report.suites import Suite, SuiteFigure, SuiteRun, read_notebook, template_parameters
from sparse_vae.report.tables import LONG, collect, read_tables, unpublished, weights_path

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""A kernel's libraries read them when they are loaded; dask sets all of them to 1 for its workers."""
_ONE_AT_A_TIME = threading.Lock()
STATUSES = ("done", "measured", "skipped", "kept", "failed", "stopped")


class Outcome(NamedTuple):
    """What became of a run or a figure: ``status`` is one of :data:`STATUSES`, ``why`` is said for the last three, and
    of a run that is done and useless."""

    name: str
    status: str
    seconds: float = 0.0
    why: str = ""


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
            template, target, parameters, cwd=root, kernel_name="python3", language="python", progress_bar=False,
            config=config, stderr_file=sys.stderr if show_progress else None,
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
    parameters = {**run.parameters, "data_root": "data", "output": os.path.relpath(partial / "run", root),
                  "checkpoint": os.path.relpath(partial / "checkpoint.safetensors", root), "progress": show_progress}
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


def execute_figure(figure: SuiteFigure, suite: Suite, fingerprint: str) -> None:
    """Execute a figure notebook of a suite into its folder of figures, with its ``fingerprint`` noted in it."""
    template = suite.root / "notebooks" / f"{figure.notebook}.ipynb"
    with atomic_path(suite.folder / "figures" / figure.file_name) as temporary:
        execute_notebook(template, temporary, _figure_parameters(figure, suite), suite.root)
        executed = annotate(nbformat.read(temporary, as_version=4), figure.name)
        executed.metadata[KEY] = {"fingerprint": fingerprint}
        nbformat.write(executed, temporary)


def _figure_parameters(figure: SuiteFigure, suite: Suite) -> dict[str, object]:
    known = template_parameters(suite.root / "notebooks" / f"{figure.notebook}.ipynb")
    given = {"suite": suite.name, "runs": figure.runs, "data_root": "data"} if figure.runs else {"data_root": "data"}
    return figure.parameters | {name: value for name, value in given.items() if name in known}


def _texts(value: object) -> Iterator[str]:
    """Every text in lists and mappings within each other, keys apart."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


class Fingerprints:
    """What the figures of a suite are made of, as digests: one changes when something that the figure shows may have.

    They cover the template and its parameters, the published rows and weights of the runs, the files that parameters
    name, and the code of the package's modules that the template imports, directly or not; no times.
    """

    def __init__(self, suite: Suite):
        self.suite = suite
        tables = read_tables(suite.folder)
        self._rows = {}
        for name in ("runs", *LONG):
            table = getattr(tables, name)
            for run, part in table.groupby("run", sort=False):
                self._rows[name, run] = hashlib.sha256(
                    part.dropna(axis="columns", how="all").to_csv(index=False).encode()).hexdigest()

    def of(self, figure: SuiteFigure) -> str:
        """The fingerprint of a figure."""
        suite, template = self.suite, self.suite.root / "notebooks" / f"{figure.notebook}.ipynb"
        parameters = _figure_parameters(figure, suite)
        digest = hashlib.sha256(template.read_bytes())
        digest.update(json.dumps(parameters, sort_keys=True).encode())
        code = "\n".join(cell.source for cell in read_notebook(template).cells if cell.cell_type == "code")
        digest.update(digest_of(reached_from(imports_of(code))).encode())
        for text in _texts([parameters, template_parameters(template)]):
            if "." in text and (path := suite.root / text.removeprefix("../")).is_file():
                digest.update(path.read_bytes())
        for run in figure.runs or []:
            digest.update("".join(self._rows.get((name, run), "") for name in ("runs", *LONG)).encode())
            with suppress(OSError):  # no weights, or damaged ones
                digest.update(read_file(weights_path(suite.folder, run)))
        return digest.hexdigest()

    def is_drawn(self, figure: SuiteFigure) -> bool:
        """Whether the figure's notebook is there, made of what is here now."""
        try:
            notebook = read_notebook(self.suite.folder / "figures" / figure.file_name)
            return notebook.metadata.get(KEY, {}).get("fingerprint") == self.of(figure)
        except (OSError, SettingError):
            return False


@contextmanager
def _threads_of_worker() -> Iterator[None]:
    """On a dask worker: what runs in the block, kernels included, has all threads that the worker was given, and no
    other task has them meanwhile, so that their number does not depend on what else there is to do."""
    from dask.distributed import get_worker

    try:
        threads = get_worker().state.nthreads
    except ValueError:  # not on a worker
        yield
        return
    with _ONE_AT_A_TIME:
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
        torch.set_num_threads(threads)
        yield


def _attempt(name: str, work: Callable[[], None]) -> Outcome:
    """Do ``work``; an error becomes a failed outcome, whatever it is, so that the others go on."""
    with _threads_of_worker():
        started = time.monotonic()
        try:
            work()
        except PapermillExecutionError as error:
            return Outcome(name, "failed", time.monotonic() - started, f"{error.ename}: {error.evalue}")
        except Exception as error:
            return Outcome(name, "failed", time.monotonic() - started, f"{type(error).__name__}: {error}")
        return Outcome(name, "done", time.monotonic() - started)


def _train_one(run: SuiteRun, folder: Path, root: Path) -> Outcome:
    outcome = _attempt(run.name, lambda: execute_run(run, folder, root))
    return outcome._replace(why=failings(read_record(folder)["measures"])) if outcome.status == "done" else outcome


def _measure_one(run: SuiteRun, folder: Path, root: Path) -> Outcome:
    outcome = _attempt(run.name, lambda: measure_again(folder, root / "data"))
    return outcome._replace(status="measured") if outcome.status == "done" else outcome


def _draw_one(figure: SuiteFigure, suite: Suite, fingerprint: str) -> Outcome:
    return _attempt(figure.file_name, lambda: execute_figure(figure, suite, fingerprint))


def _ignore_interrupts() -> None:
    """Ctrl-C reaches a local cluster's workers too: the command alone acts on it, and ends them."""
    signal.signal(signal.SIGINT, lambda *_: None)


@contextmanager
def local_cluster(jobs: int) -> Iterator[str]:
    """Address of a scheduler on this machine: a single-threaded process for each core, no more than there are jobs."""
    import dask
    from dask.distributed import Client, LocalCluster

    dask.config.set({
        "distributed.worker.daemon": False,  # so that workers can fork kernels
        # A worker only waits for its kernel; watching it wait took a tenth of the processors.
        "distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"})
    # Kernels are killed when their work is done, with the lock of their progress bar, which is then said at the end.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    workers = max(1, min(os.cpu_count() or 1, jobs))
    with LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
                      memory_limit=0, silence_logs="CRITICAL") as cluster:
        with Client(cluster) as client:
            client.run(_ignore_interrupts)
        yield cluster.scheduler_address


@contextmanager
def _client(scheduler: str | None, jobs: int) -> Iterator[Any]:
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

    ended: SimpleQueue = SimpleQueue()  # of futures, and None for an interrupt
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


def _collect_outcomes(names: Iterable[str], skipped: set[str], outcomes: Iterator[Outcome]) -> list[Outcome]:
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
    """Make ``folder`` if need be; raise a :class:`SettingError` if nothing can be written to it."""
    try:
        while True:
            make_folder(folder)
            try:
                with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):  # a name of its own for each command
                    return
            except FileNotFoundError:  # another command has removed the folder, which was empty
                continue
    except OSError as error:
        raise SettingError(f"results cannot be written to {folder}: {error.strerror}") from error


def train_suite(suite: Suite, *, scheduler: str | None = None) -> list[Outcome]:
    """Train what is neither published nor finished here, then publish what is finished, also after an interrupt.

    A run that this machine has, and that was measured by measures that have changed since, is measured again.

    Args:
        suite: from :func:`~sparse_vae.report.suites.load_suite`.
        scheduler: address of a dask scheduler whose workers see the project's folder; None starts a local cluster.

    Returns:
        One outcome for each run, in the suite's order.
    """
    for folder in (suite.runs_folder, suite.folder):
        check_writable(folder)
    missing, tasks = set(unpublished(suite)), []
    # The first seed of everything comes first, so that a suite that is stopped half-way can be looked at.
    for run in sorted(suite.runs, key=lambda run: run.config.training.seed):
        folder = suite.runs_folder / run.name
        if is_finished(folder, run.config, suite.root):
            if not is_measured(folder):
                tasks.append((run.name, _measure_one, (run, folder, suite.root)))
        elif run.name in missing:
            warn_of_weights(folder)
            tasks.append((run.name, _train_one, (run, folder, suite.root)))
    names = [run.name for run in suite.runs]
    try:
        return _collect_outcomes(names, set(names) - {task[0] for task in tasks}, _execute(tasks, scheduler, "run"))
    finally:
        collect(suite)
        if suite.folder.is_dir():  # something is published
            site.describe(suite)


def draw_suite(suite: Suite, *, scheduler: str | None = None) -> list[Outcome]:
    """Execute the figure notebooks that are not up to date; arguments and result as :func:`train_suite`.

    Nothing is trained: figures are drawn from what is published. A figure whose runs are not all published as the suite
    asks for them, as while a suite trains, stays as it is: its outcome is "kept", or "failed" where there is none.

    Raises:
        SettingError: figures need runs, and none is published.
    """
    check_writable(suite.folder)
    prints = Fingerprints(suite)
    to_draw = [figure for figure in suite.figures if not prints.is_drawn(figure)]
    rows = read_tables(suite.folder).runs.set_index("run")
    measured_by = rows["environment.measures"]
    if former := int((measured_by.notna() & (measured_by != measures_fingerprint())).sum()):
        print(f"warning: {former} runs were measured before the measures changed, and figures show what was measured; "
              f"where runs/{suite.name} has them, make train SUITE={suite.name} measures them again", file=sys.stderr)
    if rows.empty and (needed := [run for figure in to_draw for run in figure.runs or []]):
        raise SettingError(f"no run that the figures need is published, the first is {needed[0]}; "
                           f"train them first: make train SUITE={suite.name}")
    known, waiting = {}, set(unpublished(suite))
    for figure in to_draw:
        if missing := [run for run in figure.runs or [] if run in waiting]:
            there = (suite.folder / "figures" / figure.file_name).exists()
            known[figure.file_name] = Outcome(figure.file_name, "kept" if there else "failed", why=(
                f"of its {len(figure.runs or [])} runs {len(missing)} are not published as the suite asks for them, "
                f"the first is {missing[0]}; to draw it: make train graphics SUITE={suite.name}"))
    tasks = [(figure.file_name, _draw_one, (figure, suite, prints.of(figure)))
             for figure in to_draw if figure.file_name not in known]
    names = [figure.file_name for figure in suite.figures]
    outcomes = _collect_outcomes(names, set(names) - {task[0] for task in tasks}, _execute(tasks, scheduler, "figure"))
    site.describe(suite)
    return [known.get(outcome.name, outcome) for outcome in outcomes]


def outcome_table(outcomes: list[Outcome]) -> str:
    """The outcomes as text: what ran, what failed and why."""
    width = max((len(outcome.name) for outcome in outcomes), default=0)
    lines = [f"{o.name:{width}}  {o.status:7}  {o.seconds:6.0f} s  {o.why.splitlines()[0] if o.why else ''}".rstrip()
             for o in outcomes]
    counts = {status: sum(o.status == status for o in outcomes) for status in STATUSES}
    return "\n".join([*lines, ", ".join(f"{n} {status}" for status, n in counts.items() if n)])
