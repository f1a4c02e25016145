"""What is measured of a trained model: declared once, computed once for each run, by the worker that trained it.

A measure is a column of the table of runs, a curve is a column against another, both declared with the function that
computes them and with what that needs (classes, known sources, a prior, images). They are in ``measures_of_codes``,
``measures_of_priors``, ``measures_of_truth`` and, of single dimensions, ``measures_of_units``; add one there with
:func:`measures`. Runs that are at hand with their weights are measured when it is first asked for, elsewhere its cell
stays empty. What is measured are the test data, of runs that hold out a validation part that part.
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

from sparse_vae.checks import SettingError, unknown_name
from sparse_vae.datasets import Dataset
from sparse_vae.evaluation import USED_RATE, activity_rates, batched, spikes, unit_responses
from sparse_vae.models import GenerativeModel, LatentVariableModel
from sparse_vae.report.freshness import digest_of, reached_from
from sparse_vae.training import epoch_generator

LABELS = 5000
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
    """What is measured: a trained model on its data. What several measures need is computed once.

    Args:
        model: on the CPU, in evaluation mode.
        data: its data set.
        seed: of the run, which every draw follows: labelled observations, noise, samples.
    """

    def __init__(self, model: LatentVariableModel, data: Dataset, seed: int = 0):
        self.model, self.data, self.seed = model, data, seed
        self.part = data.measured
        # That there are classes, a measure asks for that needs them.
        self.x, self.y = self.part.x, self.part.y  # type: Tensor, Tensor  # type: ignore[assignment]

    @cached_property
    def codes(self) -> Tensor:
        """Deterministic codes of what is measured, the test data as a rule, ``(n, latent_dim)``."""
        return batched(self.model.code, self.x)

    @cached_property
    def spikes(self) -> tuple[Tensor, Tensor] | None:
        """P(zⱼ ≠ 0 | x) and E[zⱼ|x], ``(n, latent_dim)`` both, of a posterior with spikes; None of any other."""
        return self._spikes_of(self.x)

    def _spikes_of(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        with torch.no_grad():
            if not isinstance(self.model, GenerativeModel) or spikes(self.model, x[:1]) is None:
                return None
        return batched(lambda batch: torch.stack(spikes(self.model, batch), 1), x).unbind(1)

    @cached_property
    def means(self) -> Tensor:
        """E[z|x], ``(n, latent_dim)``: the codes, but of spikes, which are 0 only if the spike is never on."""
        return self.codes if self.spikes is None else self.spikes[1]

    def means_of(self, x: Tensor) -> Tensor:
        """:attr:`means` of other observations."""
        found = self._spikes_of(x)
        return batched(self.model.code, x) if found is None else found[1]

    @cached_property
    def labelled(self) -> tuple[Tensor, Tensor]:
        """E[z|x] and classes of training observations in the order in which the seed draws them, at most ``LABELS``."""
        from sparse_vae.evaluation import labelled_subset  # imports scikit-learn

        train = self.data.train
        chosen = labelled_subset(train.y, min(LABELS, len(train.y)), self.seed)  # type: ignore[arg-type]
        return self.means_of(train.x[chosen]), train.y[chosen]  # type: ignore[index]

    def bound_of(self, x: Tensor) -> float:
        """One-sample estimate of −ELBO, nats, mean over observations; models with a prior only."""
        generator = epoch_generator(self.seed, 0)
        return batched(
            lambda batch: self.model.negative_elbo(batch, generator=generator),  # type: ignore[operator]
            x).mean().item()

    @cached_property
    def bound(self) -> float:
        """:meth:`bound_of` what is measured."""
        return self.bound_of(self.x)

    @cached_property
    def active(self) -> Tensor:
        """Which dimensions are active for which test observation, bool ``(n, latent_dim)``."""
        if type(self.model).active is LatentVariableModel.active:  # some codes are searched for, which takes its time
            return self.codes != 0
        return batched(self.model.active, self.x)

    @cached_property
    def sparse_codes(self) -> Tensor:
        """The codes, exactly 0 where a dimension is not active, ``(n, latent_dim)``."""
        silent = ~self.active
        return self.codes.masked_fill(silent, 0) if self.codes[silent].any() else self.codes

    @cached_property
    def rates(self) -> Tensor:
        """How often each dimension is active, ``(latent_dim,)``."""
        return activity_rates(self.active)

    @cached_property
    def used(self) -> Tensor:
        """Which dimensions are active often enough to count as used, bool ``(latent_dim,)``."""
        return self.rates >= USED_RATE

    @cached_property
    def order_of_use(self) -> Tensor:
        """The dimensions, the most used first; where rates do not tell them apart, as in a dense code, by the variance
        of their values."""
        variance = self.codes.var(0)
        return torch.argsort(self.rates + 1e-6 * variance / variance.max().clamp(min=1e-12), descending=True)

    @cached_property
    def reconstruction(self) -> Tensor:
        """Test data from their deterministic codes, ``(n, *input_shape)``."""
        return self.reconstruction_of(self.codes)

    def reconstruction_of(self, codes: Tensor) -> Tensor:
        """What other codes, ``(m, latent_dim)``, decode to."""
        return batched(self.model.decode_mean, codes)

    @cached_property
    def responses(self) -> Tensor:
        """What each dimension adds to an observation, with the codes as they are, ``(latent_dim, *input_shape)``."""
        return unit_responses(self.model, self.codes)

    @cached_property
    def sparse_responses(self) -> Tensor:
        """What each dimension adds where it is active, ``(latent_dim, *input_shape)``."""
        return self.responses if self.sparse_codes is self.codes else unit_responses(self.model, self.sparse_codes)

    @cached_property
    def kl(self) -> Tensor:
        """KL of each dimension's posterior to its prior, nats, mean over the test data, ``(latent_dim,)``."""
        return batched(self.model.kl_per_dimension, self.x).mean(0)

    def error_of(self, codes: Tensor) -> float:
        """Mean squared error per feature of what other codes of the test data, ``(n, latent_dim)``, decode to."""
        squares = [(x - batched(self.model.decode_mean, own)).square().sum()
                   for x, own in zip(self.x.split(1000), codes.split(1000), strict=True)]
        return (sum(squares) / self.x.numel()).item()

    def generator(self) -> torch.Generator:
        """A fresh stream of the run's seed."""
        return torch.Generator().manual_seed(self.seed)


def _has_classes(data: Dataset) -> bool:
    """Whether there are several classes, each with observations in both parts."""
    return len(data.classes) > 1 and all(
        part.y is not None and len(part.y.unique()) == len(data.classes) for part in (data.train, data.measured))


NEEDS: dict[str, Callable[[LatentVariableModel, Dataset], bool]] = {
    "classes": lambda model, data: _has_classes(data),
    "sources": lambda model, data: len(data.factor_names) > 0,
    "prior": lambda model, data: isinstance(model, GenerativeModel),
    "images": lambda model, data: data.is_image,
    "atoms": lambda model, data: (getattr(model, "decoder_kind", ""), model.likelihood) == ("linear", "gaussian"),
    "classifier": lambda model, data: (getattr(model, "prior", ""), getattr(model, "choice", "")) == (
        "pseudo-inputs", "classifier"),
    "returns": lambda model, data: data.name == "returns" and data.loadings is not None,
    "sinusoids": lambda model, data: data.name == "sinusoids",
}
"""What a measure can ask for."""

UNIT_TEXTS = ("strongest", "histogram", "classes", "nearest", "cosines")
"""The columns of the table of units that hold several numbers, with spaces between them."""

Values = dict[str, "float | tuple[Iterable[float], Iterable[float]] | None"]


class Group(NamedTuple):
    """Measures and curves that one function computes, or columns of the table of units where none are declared."""

    function: Callable[[Subject], dict]
    declared: tuple[Measure | Curve, ...]
    needs: tuple[str, ...]

    def applies(self, model: LatentVariableModel, data: Dataset) -> bool:
        """Whether the model and the data have what is needed."""
        return all(NEEDS[need](model, data) for need in self.needs)


GROUPS: list[Group] = []
UNIT_COLUMNS: list[Group] = []
MEASURES: dict[str, Measure] = {}
CURVES: dict[str, Curve] = {}


def _checked(needs: Iterable[str]) -> tuple[str, ...]:
    needs = tuple(needs)
    for need in needs:
        if need not in NEEDS:
            raise unknown_name("need of a measure", need, NEEDS)
    return needs


def measures(*declared: Measure | Curve, needs: Iterable[str] = ()) -> Callable:
    """Register a function ``(subject) → {name: value}`` with the measures and curves that it computes.

    The value of a curve is a pair (x, values). None, NaN and infinite values, and what is not in the mapping, are
    what cannot be said of this run: they are left out.

    Raises:
        SettingError: an unknown need, or a name that another function has.
    """
    needs = _checked(needs)
    for each in declared:
        if each.name in MEASURES or each.name in CURVES:
            raise SettingError(f"measure {each.name!r} is there already")

    def register(function: Callable[[Subject], Values]) -> Callable[[Subject], Values]:
        GROUPS.append(Group(function, declared, needs))
        for each in declared:
            (CURVES if isinstance(each, Curve) else MEASURES)[each.name] = each  # type: ignore[assignment]
        return function
    return register


def unit_columns(*, needs: Iterable[str] = ()) -> Callable:
    """Register a function ``(subject) → {column: values}`` that describes each latent dimension; None for no column.

    Raises:
        SettingError: an unknown need.
    """
    needs = _checked(needs)

    def register(function: Callable[[Subject], dict]) -> Callable[[Subject], dict]:
        UNIT_COLUMNS.append(Group(function, (), needs))
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
    """Measure a trained model on the test part of its data, or on the validation part where one is held out.

    Args:
        model: trained; on the CPU, in evaluation mode.
        data: what it was trained on.
        seed: of the run.
        only: names of measures, curves, or "units": what is computed together with them comes along, nothing else is
            computed; None: everything that applies.

    Raises:
        SettingError: ``only`` has a name that is not known.
    """
    started, subject = time.perf_counter(), Subject(model, data, seed)
    wanted = None if only is None else set(only)
    for name in wanted or ():
        if name not in MEASURES and name not in CURVES and name != "units":
            raise unknown_name("measure", name, [*MEASURES, *CURVES, "units"])
    values, curves = {}, []
    for group in GROUPS:
        names = [each.name for each in group.declared]
        if not group.applies(model, data) or (wanted is not None and wanted.isdisjoint(names)):
            continue
        found = group.function(subject)
        for name in names:
            if name not in CURVES:
                values[name] = _number(found.get(name))
            elif found.get(name) is not None:
                x, y = (np.asarray(part, float) for part in found[name])
                known = np.isfinite(y)
                curves.append(pd.DataFrame({"curve": name, "x": x[known], "value": y[known]}))
    units = describe_units(subject) if wanted is None or "units" in wanted else pd.DataFrame()
    table = pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=CURVE_COLUMNS)
    return Measured(values, table, units, time.perf_counter() - started)


def _number(value: float | None) -> float | None:
    """A number for JSON; what is none is left out."""
    return None if value is None or not np.isfinite(value) else float(value)


def describe_units(subject: Subject) -> pd.DataFrame:
    """A row for each latent dimension, with the columns that apply."""
    columns = {"unit": range(subject.model.latent_dim)}
    for group in UNIT_COLUMNS:
        if group.applies(subject.model, subject.data):
            columns |= group.function(subject)
    return pd.DataFrame(columns)


def measures_fingerprint() -> str:
    """Changes when the source of a measure does, comments and docstrings apart."""
    ours = ("sparse_vae.report.measures", "sparse_vae.evaluation")
    return digest_of(m for m in reached_from(["sparse_vae.report.measures"]) if m.startswith(ours))[:12]


# Last, since they register with what is above; in this order columns stand in tables.
import sparse_vae.report.measures_of_codes  # noqa: E402
import sparse_vae.report.measures_of_priors  # noqa: E402
import sparse_vae.report.measures_of_truth  # noqa: E402
import sparse_vae.report.measures_of_units  # noqa: E402, F401
