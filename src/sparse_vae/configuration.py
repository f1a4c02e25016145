"""What a run is: a model, a data set, and every setting of both and of the training.

:func:`configure` makes one from a flat list of settings and checks them; :func:`load_data` and :func:`build_model`
follow it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sparse_vae.checks import SettingError, unknown_name
from sparse_vae.datasets import Dataset, check_dataset_settings, dataset_settings, load_dataset, suited_training
from sparse_vae.models import LatentVariableModel, make_model, model_class, model_settings
from sparse_vae.training import TRAINING_SETTINGS, TrainingSettings


@dataclass(frozen=True)
class RunConfig:
    """What a run is: the same configuration gives the same result.

    Attributes:
        model, dataset: registered names.
        model_settings, dataset_settings: every setting they take, defaults included.
        training: see :class:`TrainingSettings`.

    >>> configure("beta-vae", "digits", beta=4.0).title
    'β-VAE (β = 4)'
    """

    model: str
    dataset: str
    model_settings: dict[str, object] = field(default_factory=dict)
    dataset_settings: dict[str, object] = field(default_factory=dict)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    @classmethod
    def from_dict(cls, values: dict) -> RunConfig:
        """The inverse of ``dataclasses.asdict``; settings that are newer than the record have their defaults."""
        of_dataset = {f"dataset.{name}": value for name, value in dict(values["dataset_settings"]).items()}
        return configure(values["model"], values["dataset"], **values["model_settings"], **values["training"],
                         **of_dataset)

    @property
    def title(self) -> str:
        """What figures and tables call the model; the settings that go with the size of the code are not all in it."""
        return model_class(self.model).title_of(self.model_settings)


def suited_settings(model: str, dataset: str) -> dict[str, object]:
    """What suits a model on a data set where that differs from the defaults of the settings: what suits the data set,
    then what suits the model anywhere, then what suits the two together; the later goes first.

    >>> suited_settings("pca", "mnist")
    {}
    """
    suited = model_class(model).suited
    return {**suited_training(dataset), **suited.get("", {}), **suited.get(dataset, {})}


def configure(model: str, dataset: str, **settings: object) -> RunConfig:
    """A checked configuration from one flat list of settings, of the training, the model and the data set alike.

    A name that several of them take goes to the first in that order (``seed`` is the training's);
    ``dataset.<name>`` says it is the data set's. What is not given is what suits the model on the data set, see
    :func:`suited_settings`, and else the setting's default.

    Raises:
        SettingError: an unknown name, with the nearest one, one that is given twice, or a value out of range.

    >>> config = configure("vsc", "digits", latent_dim=8, epochs=3)
    >>> config.model_settings["latent_dim"], config.training.epochs
    (8, 3)
    """
    of_model, of_dataset = model_settings(model), dataset_settings(dataset)
    for_training: dict[str, Any] = {}
    for_model: dict[str, object] = {}
    for_dataset: dict[str, object] = {}
    for name, value in {**suited_settings(model, dataset), **settings}.items():
        if name in TRAINING_SETTINGS:
            for_training[name] = value
        elif name in of_model:
            for_model[name] = value
        elif (plain := name.removeprefix("dataset.")) in of_dataset:
            if plain in for_dataset:
                raise SettingError(f"{plain} is given twice: as {plain} and as dataset.{plain}")
            for_dataset[plain] = value
        else:
            known = [*sorted(TRAINING_SETTINGS), *of_model, *(f"dataset.{key}" for key in of_dataset)]
            raise unknown_name(f"setting for {model} on {dataset}", name, known)
    checked = model_class(model).check_settings(for_model)
    if "likelihood" not in for_model:
        checked.pop("likelihood", None)  # it follows the data
    return RunConfig(model, dataset, checked, check_dataset_settings(dataset, for_dataset),
                     TrainingSettings(**for_training))


@cache
def _cached_dataset(name: str, root: str, settings: str) -> Dataset:
    return load_dataset(name, root=root, **json.loads(settings))


def load_data(config: RunConfig, root: Path | str = "data") -> Dataset:
    """The data set of a configuration, its validation part held out; loaded once for each process.

    Raises:
        SettingError: the validation part is as large as the training data.

    >>> data = load_data(configure("vae", "digits", validation=137))
    >>> len(data.train), len(data.validation)
    (1300, 137)
    """
    data = _cached_dataset(config.dataset, str(root), json.dumps(config.dataset_settings, sort_keys=True))
    return data.hold_out(config.training.validation) if config.training.validation else data


def build_model(config: RunConfig, dataset: Dataset) -> LatentVariableModel:
    """The model of a configuration with the initial weights that its seed gives.

    >>> config = configure("vae", "digits", latent_dim=3)
    >>> build_model(config, load_data(config)).latent_dim
    3
    """
    settings = config.model_settings
    if "likelihood" in model_settings(config.model):
        settings = {"likelihood": dataset.likelihood, **settings}
    with torch.random.fork_rng():
        torch.manual_seed(config.training.seed)
        return make_model(config.model, dataset.input_shape, **settings)
