"""Weights on disk, and training that can be resumed: safetensors files, written whole or not at all."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.torch import load, save_file

from sparse_vae.checks import ExplainedError
from sparse_vae.configuration import RunConfig, build_model
from sparse_vae.datasets import Dataset
from sparse_vae.evaluation import code_usage
from sparse_vae.files import atomic_path, read_file
from sparse_vae.models import LatentVariableModel
from sparse_vae.training import TrainingState, train

CHECKPOINT_SECONDS = 10.0
"""A checkpoint is written at the first epoch's end after so long."""
USAGE_OBSERVATIONS = 5000
"""Training observations by which the use of the code is followed."""


class RunError(ExplainedError, RuntimeError):
    """A run's files are missing, damaged, or belong to something else."""


def weights_problem(path: Path) -> str:
    """What is wrong with a safetensors file, to follow its name; an empty string if its header fits its size.

    >>> weights_problem(Path("nowhere.safetensors"))
    'is missing'
    """
    content = b""
    try:
        deserialize(content := read_file(path))
        return ""
    except FileNotFoundError:
        return "is missing"
    except (SafetensorError, OSError) as error:
        if _is_pickle(content):
            return "is a pickle, which could run any code and is not opened; a safetensors file is expected"
        return f"is damaged or not a safetensors file ({error})"


def _is_pickle(content: bytes) -> bool:
    start = content[:9]
    # As torch.save writes it, zipped or not; a safetensors file has the brace of its header in the ninth place.
    return start.startswith(b"PK") or (start.startswith(b"\x80") and not start.endswith(b"{"))


def load_weights(model: LatentVariableModel, path: Path) -> None:
    """Read ``path`` (safetensors) into ``model``; a file that does not fit is a :class:`RunError` that says why."""
    if problem := weights_problem(path):
        raise RunError(f"{path} {problem}")
    try:
        model.load_state_dict(load(read_file(path)))
    except RuntimeError as error:
        raise RunError(f"{path} holds the weights of another model or other settings: {error}") from error


def is_outdated(path: Path, config: RunConfig, root: Path | str = ".") -> bool:
    """Whether a file of a run is older than the CSV file that the run is on, whose path is relative to ``root``."""
    csv = config.dataset_settings.get("csv")
    try:
        return isinstance(csv, str) and path.stat().st_mtime < (Path(root) / csv).stat().st_mtime
    except OSError:
        return False


def save_weights(path: Path, tensors: dict[str, torch.Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata=metadata)


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
        save_weights(self.path, tensors, metadata=notes)
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
        if problem := weights_problem(self.path):
            raise RunError(f"checkpoint {self.path} {problem}; delete it to start the run anew")
        with safe_open(self.path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
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
        split: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimizer": {}}
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
        The trained model, on the CPU in evaluation mode, and its history, to which the use of the code on the first
        ``USAGE_OBSERVATIONS`` training observations at each epoch's end is added: ``train_active_fraction``,
        ``train_used_dimensions``. A classical method has none.

    >>> from sparse_vae.configuration import configure, load_data
    >>> config = configure("vae", "digits", epochs=1, backbone="mlp")
    >>> model, history = train_run(config, load_data(config), progress=False)
    >>> len(history), model.training
    (1, False)
    """
    model = build_model(config, dataset)
    if model.trained_by_fit:
        model.fit(dataset.train.x, seed=config.training.seed)
        return model.eval(), []
    keeper = Checkpoint(Path(checkpoint), config) if checkpoint else None

    def on_epoch(state: TrainingState) -> None:
        usage = code_usage(model, dataset.train.x[:USAGE_OBSERVATIONS].to(model.device))
        state.history[-1] |= {f"train_{name}": value for name, value in usage.items()}
        if keeper:
            keeper.save(state)

    history = train(model, dataset, config.training, progress=progress,
                    resume=keeper.restore if keeper else None, on_epoch=on_epoch)
    return model.cpu().eval(), history
