"""What is measured of a trained model: declared once, computed once for each run, by the worker that trained it.

A measure is a column of the table of runs, a curve is a column against another, both declared with the function that
computes them and with what that needs (classes, known sources, a prior, images). Add one with :func:`measures`; runs
that are at hand with their weights are measured when it is first asked for, elsewhere its cell stays empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sparse_vae.checks import unknown_name
from sparse_vae.datasets import Dataset
from sparse_vae.evaluation import activity_rates, batched, summarise
from sparse_vae.models import LatentVariableModel
from sparse_vae.report.freshness import digest_of, reached_from

CURVE_COLUMNS = ("curve", "x", "value")


class Measure(NamedTuple):
    """A number of each run, a column of the table.

    Attributes:
        name: the column's key.
        title: what tables and axes call it.
        digits: after the point, in tables.
        description: what it is, in what units, one sentence without a full stop.
        better: "higher", "lower", or "" where neither is.
        scale: what titles state it in: 100 for per cent of a share.
    """

    name: str
    title: str
    digits: int
    description: str
    better: str = ""
    scale: float = 1.0


class Curve(NamedTuple):
    """A measure against something, for each run: ``x_title`` names what; other attributes as of :class:`Measure`."""

    name: str
    title: str
    x_title: str
    description: str
    better: str = ""
    scale: float = 1.0


class Subject:
    """What is measured: a trained model on its data. Codes and reconstructions are computed once.

    Args:
        model: on the CPU, in evaluation mode.
        data: its data set.
        seed: of the run, which every draw follows: labelled observations, noise, samples.
    """

    def __init__(self, model: LatentVariableModel, data: Dataset, seed: int = 0):
        self.model, self.data, self.seed = model, data, seed
        self.x = data.test.x

    @cached_property
    def codes(self) -> Tensor:
        """Deterministic codes of the test data, ``(n, latent_dim)``."""
        return batched(self.model.code, self.x)

    @cached_property
    def train_codes(self) -> Tensor:
        """Deterministic codes of the training data, ``(n, latent_dim)``."""
        return batched(self.model.code, self.data.train.x)

    @cached_property
    def active(self) -> Tensor:
        """Which dimensions are active for which test observation, bool ``(n, latent_dim)``."""
        return batched(self.model.active, self.x)

    @cached_property
    def rates(self) -> Tensor:
        """How often each dimension is active, ``(latent_dim,)``."""
        return activity_rates(self.active)

    @cached_property
    def reconstruction(self) -> Tensor:
        """Test data from their deterministic codes, ``(n, *input_shape)``."""
        return batched(self.model.decode_mean, self.codes)

    def generator(self) -> torch.Generator:
        """A fresh stream of the run's seed."""
        return torch.Generator().manual_seed(self.seed)


NEEDS: dict[str, Callable[[LatentVariableModel, Dataset], bool]] = {
    "classes": lambda model, data: len(data.classes) > 1,
    "sources": lambda model, data: len(data.factor_names) > 0,
    "prior": lambda model, data: model.generative,
    "images": lambda model, data: data.is_image,
}
"""What a measure can ask for."""

Values = dict[str, "float | tuple[Iterable[float], Iterable[float]] | None"]


class Group(NamedTuple):
    """Measures and curves that one function computes."""

    function: Callable[[Subject], Values]
    declared: tuple[Measure | Curve, ...]
    needs: tuple[str, ...]

    def applies(self, model: LatentVariableModel, data: Dataset) -> bool:
        """Whether the model and the data have what is needed."""
        return all(NEEDS[need](model, data) for need in self.needs)


GROUPS: list[Group] = []
MEASURES: dict[str, Measure] = {}
CURVES: dict[str, Curve] = {}


def measures(*declared: Measure | Curve, needs: Iterable[str] = ()) -> Callable:
    """Register a function ``(subject) → {name: value}`` with the measures and curves that it computes.

    The value of a curve is a pair (x, values); None is what cannot be said of this run.
    """
    def register(function: Callable[[Subject], Values]) -> Callable[[Subject], Values]:
        for need in needs:
            if need not in NEEDS:
                raise unknown_name("need of a measure", need, NEEDS)
        GROUPS.append(Group(function, declared, tuple(needs)))
        for each in declared:
            (CURVES if isinstance(each, Curve) else MEASURES)[each.name] = each
        return function
    return register


def find_measure(name: str) -> Measure:
    """The measure of that name; an unknown one is a :class:`~sparse_vae.checks.SettingError`."""
    if name not in MEASURES:
        raise unknown_name("measure", name, MEASURES)
    return MEASURES[name]


@dataclass
class Measured:
    """What was measured of a run: ``values`` by measure, ``curves`` (curve, x, value), ``units`` (one row for each)."""

    values: dict[str, float | None] = field(default_factory=dict)
    curves: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=CURVE_COLUMNS))
    units: pd.DataFrame = field(default_factory=pd.DataFrame)
    seconds: float = 0.0


def measure(model: LatentVariableModel, data: Dataset, *, seed: int = 0,
            only: Iterable[str] | None = None) -> Measured:
    """Measure a trained model on the test part of its data.

    Args:
        model: trained; on the CPU, in evaluation mode.
        data: what it was trained on.
        seed: of the run.
        only: names of measures, curves, or "units": nothing else is computed; None: everything that applies.
    """
    started, subject = time.perf_counter(), Subject(model, data, seed)
    wanted = None if only is None else set(only)
    values, curves = {}, []
    for group in GROUPS:
        names = {each.name for each in group.declared}
        if not group.applies(model, data) or (wanted is not None and not names & wanted):
            continue
        found = group.function(subject)
        for name in names:
            if name not in CURVES:
                values[name] = _number(found.get(name))
            elif found.get(name) is not None:
                x, y = found[name]
                curves.append(pd.DataFrame({"curve": name, "x": np.asarray(x, float), "value": np.asarray(y, float)}))
    units = describe_units(subject) if wanted is None or "units" in wanted else pd.DataFrame()
    table = pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=CURVE_COLUMNS)
    return Measured(values, table, units, time.perf_counter() - started)


def _number(value: float | None) -> float | None:
    """A number for JSON; what is none is left out."""
    return None if value is None or not np.isfinite(value) else float(value)


def measures_fingerprint() -> str:
    """Changes when the source of a measure does, comments and docstrings apart."""
    here = "sparse_vae.report.measures"
    return digest_of({here, *(m for m in reached_from([here]) if m.startswith("sparse_vae.evaluation"))})[:12]


@measures(
    Measure("loss", "objective (nats)", 2, "the training objective on test data, nats", "lower"),
    Measure("reconstruction_loss", "reconstruction (nats)", 2,
            "the reconstruction term of the objective, with the code the model trains with", "lower"),
    Measure("kl_loss", "KL (nats)", 2, "the KL term of the objective, as weighted there"),
    Measure("negative_elbo", "−ELBO (nats)", 2, "one-sample estimate, every KL with weight 1", "lower"),
    Measure("mean_squared_error", "MSE", 4, "of the reconstruction from the deterministic code, per feature", "lower"),
    Measure("explained_variance", "explained", 3, "share of the variance about the mean that is explained", "higher"),
    Measure("active_fraction", "active (%)", 1, "share of the dimensions that one observation activates", scale=100),
    Measure("used_dimensions", "in use", 1, "dimensions that are active for at least 1% of the observations"),
    Measure("parameters", "parameters", 0, "number of trained values"),
)
def _summary(subject: Subject) -> Values:
    found = summarise(subject.model, subject.data, seed=subject.seed)
    terms = found.pop("loss")
    return found | {"loss": terms["total"], "reconstruction_loss": terms["reconstruction"], "kl_loss": terms.get("kl")}


def describe_units(subject: Subject) -> pd.DataFrame:
    """A row for each latent dimension: how often it is active and the test observations that activate it most."""
    strongest = subject.codes.abs().argsort(dim=0, descending=True)[:9].T
    return pd.DataFrame({"unit": range(subject.model.latent_dim), "rate": subject.rates.numpy(),
                         "strongest": [" ".join(map(str, row)) for row in strongest.tolist()]})
