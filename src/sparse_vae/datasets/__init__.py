"""The data sets: ``load_dataset(name)`` gives tensors in memory, classes and, where they are known, the true sources.

To add one, write a file with a function that returns a :class:`Dataset` and add a line to the registry below.
It declares its settings (:func:`sparse_vae.settings.takes_settings`), the first line of its docstring is its
description; it takes ``root``, the data folder, only if it reads files.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sparse_vae.checks import unknown_name
from sparse_vae.datasets import digits, mnist, returns, sinusoids, smiley, uci_har
from sparse_vae.datasets.base import DataError, Dataset, Split
from sparse_vae.datasets.download import RemoteFile, fetch
from sparse_vae.settings import Setting, TakesSettings, setting_lines, values_text

__all__ = ["DataError", "Dataset", "Split", "check_dataset_settings", "dataset_lines", "dataset_names",
           "dataset_settings", "describe_datasets", "download", "load_dataset", "suited_training"]


class _Entry(NamedTuple):
    load: TakesSettings[Dataset]
    files: Callable[[], list[RemoteFile]] | None = None  # what has to be downloaded first
    suited: Mapping[str, object] = {}  # settings of the training that suit it, where they differ from the defaults


_REGISTRY = {
    "digits": _Entry(digits.load_digits, suited={"epochs": 60, "batch_size": 32}),
    "mnist": _Entry(mnist.load_mnist, partial(mnist.archives_of, "mnist")),
    "fashion-mnist": _Entry(mnist.load_fashion_mnist, partial(mnist.archives_of, "fashion-mnist")),
    "smiley": _Entry(smiley.load_smiley),
    "sinusoids": _Entry(sinusoids.load_sinusoids, suited={"epochs": 60, "batch_size": 32}),
    "uci-har": _Entry(uci_har.load_uci_har, uci_har.uci_har_files, suited={"epochs": 40, "batch_size": 32}),
    "returns": _Entry(returns.load_returns, suited={"epochs": 60, "batch_size": 32}),
}


def dataset_names() -> list[str]:
    """The names that :func:`load_dataset` knows.

    >>> dataset_names()[:3]
    ['digits', 'mnist', 'fashion-mnist']
    """
    return list(_REGISTRY)


def describe_datasets() -> dict[str, str]:
    """A sentence about every data set, by name; nothing is loaded.

    >>> describe_datasets()["digits"][:24]
    'Real handwritten digits,'
    """
    return {name: _description(entry) for name, entry in _REGISTRY.items()}


def dataset_settings(name: str) -> Mapping[str, Setting]:
    """The settings a data set takes.

    >>> list(dataset_settings("sinusoids"))[:3]
    ['n_train', 'n_test', 'length']
    """
    return _entry(name).load.settings


def check_dataset_settings(name: str, given: Mapping[str, object]) -> dict[str, object]:
    """The value of every setting of a data set, checked; nothing is loaded.

    >>> check_dataset_settings("returns", {"n_days": 100})["n_days"]
    100
    """
    return _entry(name).load.check(given, of=f"data set {name!r}")


def dataset_lines() -> list[str]:
    """What there is, for people: every data set with its settings."""
    def lines(entry: _Entry) -> list[str]:
        suited = [f"trained with {values_text(entry.suited)}"] if entry.suited else []
        return [_description(entry), *suited, *setting_lines(entry.load.settings)]

    return [line for name, entry in _REGISTRY.items() for line in [name, *(f"    {text}" for text in lines(entry))]]


def suited_training(name: str) -> Mapping[str, object]:
    """Settings of the training that suit a data set, whatever the model, where they differ from the defaults.

    >>> suited_training("mnist")
    {}
    """
    return _entry(name).suited


def load_dataset(name: str, root: str | Path = "data", **settings: object) -> Dataset:
    """The data set of that name, in memory.

    The same name and settings give the same tensors, which are contiguous; all but labels and groups are float32.

    Args:
        name: one of :func:`dataset_names`.
        root: the data folder, for the data sets that are downloaded.
        settings: those of the data set, :func:`dataset_settings`; each has a default.

    Raises:
        SettingError: an unknown name, an unknown setting, or a value that cannot be used.
        DataError: files that are missing or damaged.

    >>> load_dataset("digits").train.x.shape
    torch.Size([1437, 1, 8, 8])
    """
    entry, values = _entry(name), check_dataset_settings(name, settings)
    data = entry.load(**values, **({"root": root} if entry.files else {}))
    return data if data.description else dataclasses.replace(data, description=_description(entry))


def download(names: str | Iterable[str] | None = None, root: str | Path = "data", mirror: str | Path | None = None,
             progress: bool = True) -> None:
    """Download what the named data sets need (by default all of them).

    Files that are there and whole are left alone; a data set that needs no files is ready as it is. ``root``,
    ``mirror`` and ``progress`` are those of :func:`sparse_vae.datasets.download.fetch`.

    Raises:
        SettingError: an unknown name.
        DataError: a file that cannot be had or written.

    >>> download("digits")  # comes with scikit-learn: nothing to fetch
    """
    if names is None:
        names = dataset_names()
    elif isinstance(names, str):
        names = [names]
    for entry in [_entry(name) for name in names]:  # all names are looked up before anything is downloaded
        if entry.files:
            fetch(entry.files(), root, mirror, progress)


def _entry(name: str) -> _Entry:
    if name not in _REGISTRY:
        raise unknown_name("data set", name, _REGISTRY)
    return _REGISTRY[name]


def _description(entry: _Entry) -> str:
    return (inspect.getdoc(entry.load) or "").partition("\n")[0]
