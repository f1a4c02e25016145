"""A run on disk: what was trained, how, and what came of it.

A run is a folder ``<suite>/<dataset>/<model>[-variant]/seed<k>/`` with ``config.json``, ``metrics.json``,
``history.csv``, ``model.safetensors`` and, when a notebook made it, ``train.ipynb``. It appears whole or not at all:
it is written beside its place and renamed into it.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from sparse_vae.checks import ExplainedError, SettingError, unknown_name
from sparse_vae.datasets import Dataset, dataset_settings, load_dataset
from sparse_vae.evaluation import code_usage, summarise
from sparse_vae.files import atomic_path
from sparse_vae.models import LatentVariableModel, make_model, model_settings
from sparse_vae.training import TrainingSettings, TrainingState, describe_environment, train

CHECKPOINT_SECONDS = 10.0
"""A checkpoint is written at the first epoch's end after so long."""


class RunError(ExplainedError, RuntimeError):
    """A run's files are missing, damaged, or belong to something else."""


@dataclass(frozen=True)
class RunConfig:
    """What a run is: the same configuration gives the same result.

    Attributes:
        model, dataset: registered names.
        model_settings, dataset_settings: every setting they take, defaults included.
        training: see :class:`TrainingSettings`.
    """

    model: str
    dataset: str
    model_settings: dict[str, object] = field(default_factory=dict)
    dataset_settings: dict[str, object] = field(default_factory=dict)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    @classmethod
    def from_dict(cls, values: dict) -> RunConfig:
        """The inverse of ``dataclasses.asdict``; settings that are newer than the record have their defaults."""
        current = _defaults(values["model"], values["dataset"])
        return cls(
            values["model"], values["dataset"],
            {**current.model_settings, **values["model_settings"]},
            {**current.dataset_settings, **values["dataset_settings"]},
            TrainingSettings(**values["training"]))


def configure(model: str, dataset: str, **settings) -> RunConfig:
    """A checked configuration from one flat list of settings, of the training, the model and the data set alike.

    A name that several of them take goes to the first in that order (``seed`` is the training's);
    ``dataset.<name>`` says it is the data set's.

    Raises:
        SettingError: an unknown name, with the nearest one, or a value out of range.
    """
    training_names = {f.name for f in fields(TrainingSettings)}
    of_model, of_dataset = model_settings(model), dataset_settings(dataset)
    # The likelihood follows the data unless it is given.
    of_model.pop("likelihood")
    training = {}
    for name, value in settings.items():
        if name in training_names:
            training[name] = value
        elif name in of_model or name == "likelihood":
            of_model[name] = value
        elif name.removeprefix("dataset.") in of_dataset:
            of_dataset[name.removeprefix("dataset.")] = value
        else:
            known = [*sorted(training_names), *of_model, "likelihood", *(f"dataset.{key}" for key in of_dataset)]
            raise unknown_name(f"setting for {model} on {dataset}", name, known)
    if of_dataset.get("csv") is not None:
        of_dataset["csv"] = _path_text("csv", of_dataset["csv"])
    # Building a small twin checks the model's settings before any data is read.
    try:
        make_model(model, (1, 1, 1), **of_model)
    except RuntimeError as error:  # of torch, which lacks the memory
        used = ", ".join(f"{key}={value}" for key, value in of_model.items())
        raise SettingError(f"{model} cannot be built with {used}: {error}") from error
    return RunConfig(model, dataset, of_model, of_dataset, TrainingSettings(**training))


@cache
def _defaults(model: str, dataset: str) -> RunConfig:
    return configure(model, dataset)


def _path_text(name: str, path: object) -> str:
    """A path as the record of a run takes it."""
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise SettingError(f"{name} must be the path of a file; got {path!r} ({type(path).__name__})")
    return os.fspath(path)


@cache
def _cached_dataset(name: str, root: str, settings: str) -> Dataset:
    return load_dataset(name, root=root, **json.loads(settings))


def load_data(config: RunConfig, root: Path | str = "data") -> Dataset:
    """The data set of a configuration; loaded once for each process."""
    return _cached_dataset(config.dataset, str(root), json.dumps(config.dataset_settings, sort_keys=True))


def build_model(config: RunConfig, dataset: Dataset) -> LatentVariableModel:
    """The model of a configuration with the initial weights that its seed gives."""
    settings = {"likelihood": dataset.likelihood, **config.model_settings}
    with torch.random.fork_rng():
        torch.manual_seed(config.training.seed)
        return make_model(config.model, dataset.input_shape, **settings)


class Run:
    """A finished run, read from its folder; weights and data are loaded when first asked for.

    Attributes:
        folder: where it lies.
        config: what it is.
        data_root: where its data set is looked for.
    """

    def __init__(self, folder: Path | str, data_root: Path | str = "data"):
        self.folder = Path(folder)
        self.data_root = data_root
        path = self.folder / "config.json"
        try:
            self.config = RunConfig.from_dict(json.loads(path.read_text()))
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(f"no run in {self.folder}: it has no config.json") from None
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{path} cannot be read as a run's configuration: {error}") from error

    @cached_property
    def metrics(self) -> dict:
        """What was measured at the end of training; a :class:`RunError` if that cannot be read."""
        path = self.folder / "metrics.json"
        try:
            metrics = json.loads(path.read_text())
            if not isinstance(metrics, dict):
                raise TypeError(f"it holds a {type(metrics).__name__}")
        except (OSError, ValueError, TypeError) as error:
            raise _unreadable(path, error) from error
        return metrics

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row for each epoch, see :func:`sparse_vae.training.train`; a :class:`RunError` if it cannot be read."""
        path = self.folder / "history.csv"
        try:
            return pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error

    @cached_property
    def dataset(self) -> Dataset:
        """The data set it was trained on."""
        return load_data(self.config, self.data_root)

    @cached_property
    def model(self) -> LatentVariableModel:
        """The trained model, on the CPU, in evaluation mode."""
        model = build_model(self.config, self.dataset)
        path = self.folder / "model.safetensors"
        try:
            load_weights(model, path)
        except FileNotFoundError:
            raise RunError(f"{path} is missing: published results come without weights; `make train` makes "
                           "them") from None
        return model.eval()

    @property
    def title(self) -> str:
        """What figures call it; the weights are not needed for it."""
        return make_model(self.config.model, (1, 1, 1), **self.config.model_settings).title

    @property
    def family(self) -> str:
        """The title without the settings that it states in brackets, which may follow the size of the code."""
        return re.sub(r" \(.*?\)", "", self.title)


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} is missing or damaged ({error}); train the run again, `make train` does")


def open_runs(folders: Iterable[str], *, models: Iterable[str], dataset: str, settings: dict[str, object],
              data_root: Path | str = "data") -> dict[str, Run]:
    """The runs to draw, by a title that tells them apart; all on one data set.

    Args:
        folders: of finished runs;  when there are none, each of ``models`` is trained on the spot and not kept.
        models, dataset, settings: what to train then.
        data_root: where data sets are looked for.

    Raises:
        RunError: a folder without a run, or runs on different data.
    """
    found = [Run(folder, data_root) for folder in folders] or [
        _train_unkept(configure(model, dataset, **settings), data_root) for model in models]
    if len({(run.config.dataset, json.dumps(run.config.dataset_settings)) for run in found}) > 1:
        raise RunError("runs on different data cannot share a figure: " + ", ".join(str(run.folder) for run in found))
    unique = [run.title for run in found]
    for place in (lambda run: f"{run.folder.parent.name}/{run.folder.name}", lambda run: run.folder):
        unique = [title if unique.count(title) == 1 else f"{run.title}, {place(run)}"
                  for title, run in zip(unique, found, strict=True)]
    return dict(zip(unique, found, strict=True))


def by_title_and_size(runs: Iterable[Run]) -> dict[tuple[str, int], list[Run]]:
    """Runs that differ in their seed alone, together: (title, J) → runs; in the order of titles, then of J.

    Where runs of one title and one J differ in more, the name of the folder that holds their seeds follows the title.
    """
    runs = list(runs)
    titles = list(dict.fromkeys(run.title for run in runs))
    alike: dict[tuple[str, int], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (titles.index(run.title), run.config.model_settings["latent_dim"])):
        alike.setdefault((run.title, run.config.model_settings["latent_dim"]), []).append(run)
    groups: dict[tuple[str, int], list[Run]] = {}
    for (title, J), members in alike.items():
        several = any(_seedless(run.config) != _seedless(members[0].config) for run in members)
        for run in members:
            groups.setdefault((f"{title}, {run.folder.parent.name}" if several else title, J), []).append(run)
    return groups


def _seedless(config: RunConfig) -> RunConfig:
    return replace(config, training=replace(config.training, seed=0))


def _train_unkept(config: RunConfig, data_root: Path | str) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_data(config, data_root)
        model, history = train_run(config, dataset, progress=False)
        run = Run(save_run(Path(folder) / "run", config, model, history, summarise(model, dataset)), data_root)
        # Everything is read before the folder goes.
        _ = run.model, run.history, run.metrics
        return run


def load_weights(model: LatentVariableModel, path: Path) -> None:
    """Read ``path`` (safetensors) into ``model``; a file that does not fit is a :class:`RunError` that says why."""
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise RunError(f"{path} is damaged or not a safetensors file: {error}") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(f"{path} holds the weights of another model or other settings: {error}") from error


def is_finished(folder: Path, config: RunConfig, root: Path | str = ".") -> bool:
    """Whether ``folder`` holds a whole run of exactly this configuration, its weights included.

    A run on a CSV file of one's own that has changed since is not finished; its path is relative to ``root``.
    """
    try:
        run = Run(folder)
        _ = run.metrics, run.history
        with safe_open(run.folder / "model.safetensors", framework="pt"):  # its header must fit its size
            return run.config == config and not is_outdated(run.folder / "metrics.json", config, root)
    except (RunError, SettingError, SafetensorError, OSError):
        return False


def is_outdated(path: Path, config: RunConfig, root: Path | str = ".") -> bool:
    """Whether a file of a run is older than the CSV file that the run is on, whose path is relative to ``root``."""
    csv = config.dataset_settings.get("csv")
    try:
        return csv is not None and path.stat().st_mtime < (Path(root) / csv).stat().st_mtime
    except OSError:
        return False


def _plain(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors as safetensors takes them: contiguous, on the CPU."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


class Checkpoint:
    """The state of an unfinished run in one safetensors file: weights, optimiser, history and configuration.

    Args:
        path: the file; written atomically, at an epoch's end, not more often than every ``every`` seconds.
        config: of the run; a checkpoint of another one is refused.
    """

    def __init__(self, path: Path, config: RunConfig, every: float = CHECKPOINT_SECONDS):
        self.path, self.config, self.every = Path(path), config, every
        self.written = time.monotonic()

    def save(self, state: TrainingState) -> None:
        """Write ``state`` if it is time to (``train`` calls this at each epoch's end)."""
        if time.monotonic() - self.written < self.every:
            return
        tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
        for index, values in state.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        notes = {"config": json.dumps(asdict(self.config)), "history": json.dumps(state.history)}
        with atomic_path(self.path) as temporary:
            save_file(_plain(tensors), temporary, metadata=notes)
        self.written = time.monotonic()

    def _belongs_here(self, notes: dict[str, str]) -> bool:
        try:
            return RunConfig.from_dict(json.loads(notes["config"])) == self.config
        except (ValueError, TypeError, KeyError):
            return False

    def restore(self, state: TrainingState) -> TrainingState:
        """``state`` with the file's values, or as it is where there is no file.

        Raises:
            RunError: the file is damaged, of another model or other settings, or older than the run's CSV file.
        """
        if not self.path.exists():
            return state
        try:
            with safe_open(self.path, framework="pt") as file:
                notes = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except SafetensorError as error:
            raise RunError(f"checkpoint {self.path} is damaged or not a safetensors file ({error}); "
                           "delete it to start the run anew") from error
        if not self._belongs_here(notes):
            raise RunError(f"checkpoint {self.path} belongs to another model or other settings; "
                           "delete it to start the run anew")
        if is_outdated(self.path, self.config):
            raise RunError(f"checkpoint {self.path} is older than {self.config.dataset_settings['csv']}; "
                           "delete it to start the run anew")
        try:
            return self._fill_in(state, tensors, json.loads(notes["history"]))
        except (LookupError, ValueError, TypeError, RuntimeError) as error:
            raise RunError(f"checkpoint {self.path} does not fit its run ({error!r}); "
                           "delete it to start the run anew") from error

    def _fill_in(self, state: TrainingState, tensors: dict[str, torch.Tensor],
                 history: list[dict[str, float]]) -> TrainingState:
        """``state`` with these values; any error says that they do not fit."""
        if [row["epoch"] for row in history] != list(range(1, len(history) + 1)):
            raise ValueError("the epochs of its history are not 1, 2, …")
        split = {"model": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            split[part][rest] = tensor
        state.model.load_state_dict(split["model"])
        optimizer = state.optimizer.state_dict()
        parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
        for name, tensor in split["optimizer"].items():
            index, _, key = name.partition(".")
            parameter = parameters[int(index)]
            if key != "step" and tensor.shape != parameter.shape:
                raise ValueError(f"{name} has the shape {tuple(tensor.shape)}")
            # Fused Adam pairs values by their place in memory: averages must lie as their parameter does.
            laid_out = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
            optimizer["state"].setdefault(int(index), {})[key] = laid_out.detach()
        if any(values.keys() != {"step", "exp_avg", "exp_avg_sq"} for values in optimizer["state"].values()):
            raise ValueError("a part of the optimiser's state is missing")
        state.optimizer.load_state_dict(optimizer)
        state.history, state.epoch = history, len(history)
        return state


def train_run(config: RunConfig, dataset: Dataset, *, checkpoint: Path | str | None = None,
              progress: bool = True) -> tuple[LatentVariableModel, list[dict[str, float]]]:
    """Train what ``config`` says on ``dataset``; with ``checkpoint``, resume from that file and keep it up to date.

    Returns:
        The trained model, on the CPU in evaluation mode, and its history, to which the use of the code on the test
        data at each epoch's end is added: ``test_active_fraction``, ``test_used_dimensions``.
    """
    model = build_model(config, dataset)
    keeper = Checkpoint(Path(checkpoint), config) if checkpoint else None

    def on_epoch(state: TrainingState) -> None:
        usage = code_usage(model, dataset.test.x.to(model.device))
        state.history[-1] |= {f"test_{name}": value for name, value in usage.items()}
        if keeper:
            keeper.save(state)

    history = train(model, dataset, config.training, progress=progress,
                    resume=keeper and keeper.restore, on_epoch=on_epoch)
    return model.cpu().eval(), history


def save_run(folder: Path | str, config: RunConfig, model: LatentVariableModel, history: Iterable[dict[str, float]],
             metrics: dict) -> Path:
    """Write a run; ``folder`` appears whole, in place of an older run there, or not at all.

    The time that training took and what it ran on are added to the metrics.
    """
    folder, history = Path(folder), list(history)
    metrics = {**metrics, "environment": describe_environment(config.training),
               "training_seconds": sum(row["seconds"] for row in history)}
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
        (temporary / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        pd.DataFrame(history).to_csv(temporary / "history.csv", index=False, float_format="%.6g")
        save_file(_plain(model.state_dict()), temporary / "model.safetensors")
    return folder
