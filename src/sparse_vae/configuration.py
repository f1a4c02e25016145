"""What a run is: a model, a data set, and every setting of both and of the training.

:func:`configure` makes one from a flat list of settings and checks them; :func:`load_data` and :func:`build_model`
follow it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

import torch

from sparse_vae.checks import SettingError, unknown_name
from sparse_vae.datasets import Dataset, dataset_settings, load_dataset
from sparse_vae.models import LatentVariableModel, make_model, model_settings
from sparse_vae.training import TrainingSettings


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

    @property
    def title(self) -> str:
        """What figures and tables call the model; the settings that go with the size of the code are not all in it."""
        return make_model(self.model, (1, 1, 1), **self.model_settings).title


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
