"""The one training loop: (model, data, settings) → history.

The data stays on the device, batches are rows gathered by index, and nothing is read back from the device between
two refreshes of the progress bar. Each epoch draws its own random stream from (seed, epoch), so that a run resumed at
an epoch's end goes on exactly as if it had never stopped.
"""

from __future__ import annotations

import ctypes
import math
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sparse_vae.checks import ExplainedError, SettingError
from sparse_vae.datasets.base import Dataset
from sparse_vae.models.base import LatentVariableModel
from sparse_vae.settings import Choice, Flag, Integer, Number, Setting, check_settings

DEVICES = ("auto", "cuda", "mps", "cpu")
PRECISIONS = ("auto", "float32", "bfloat16")
REFRESH_SECONDS = 0.5
EVALUATION_BATCH = 1000


class DivergenceError(ExplainedError, RuntimeError):
    """A term of the loss became NaN or infinite."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; checked when made. Precision holds for products in networks: losses and evaluations are float32.

    >>> TrainingSettings(epochs=3).batch_size
    128
    """

    epochs: int = Integer(25, "passes over the training data").field
    batch_size: int = Integer(128, "observations for each step; an epoch's last batch may be smaller").field
    learning_rate: float = Number(3e-3, "Adam's largest step size", above=0, maximum=1).field
    lr_warmup: float = Number(0.05, "first fraction of the steps, over which the learning rate rises linearly from 0",
                              minimum=0, maximum=1).field
    decay: float = Number(0.95, "last fraction of the steps, over which the learning rate falls linearly to 0",
                          minimum=0, maximum=1).field
    beta2: float = Number(0.99, "decay of Adam's mean of squared gradients", minimum=0, below=1).field
    validation: int = Integer(0, "the last training observations, held out to choose settings by: histories and "
                              "measures are then of them, and test data stay unseen", minimum=0).field
    seed: int = Integer(0, "of the initial weights, the order of the batches and the noise", minimum=0,
                        maximum=2**32 - 1).field
    device: str = Choice("auto", "where to train; auto is the first that there is", choices=DEVICES).field
    precision: str = Choice("auto", "of the networks' products; auto is bfloat16 where the hardware multiplies it "
                            "natively", choices=PRECISIONS).field
    channels_last: bool = Flag(True, "store convolution weights in the layout that is fast for them").field

    def __post_init__(self) -> None:
        check_settings(TRAINING_SETTINGS, vars(self), of="the training")


TRAINING_SETTINGS: dict[str, Setting] = {field.name: field.metadata["setting"] for field in fields(TrainingSettings)}


@dataclass
class TrainingState:
    """Everything that a run has so far; enough to go on from.

    Attributes:
        model, optimizer: with their current values.
        epoch: finished epochs.
        history: one row for each finished epoch, see :func:`train`.
    """

    model: LatentVariableModel
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def resolve_device(device: str) -> torch.device:
    """The device to use; one that is asked for and not there is a :class:`SettingError`."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, is_there in available.items() if is_there)
    if not available[device]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise SettingError(f"device {device!r} is not available here; there is {there}")
    return torch.device(device)


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of the networks' products: see ``TrainingSettings.precision``."""
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
        is_native = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if is_native else torch.float32


def describe_environment(settings: TrainingSettings) -> dict[str, str | int]:
    """What a training with these settings runs on here: what may change the last digits of its numbers."""
    device = resolve_device(settings.device)
    return {"device": device.type, "precision": str(resolve_precision(settings.precision, device)).split(".")[1],
            "threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}


def epoch_generator(seed: int, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random stream of one epoch, a function of (seed, epoch) alone.

    >>> torch.rand(1, generator=epoch_generator(0, 1)) == torch.rand(1, generator=epoch_generator(0, 1))
    tensor([True])
    """
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) & (2**63 - 1))


def mean_loss(model: LatentVariableModel, x: Tensor, *, seed: int = 0) -> dict[str, float]:
    """The loss's named terms over a whole split, in float32, nats summed over features, mean over observations."""
    generator = epoch_generator(seed, 0, x.device)
    totals: dict[str, Tensor] = {}
    with torch.no_grad():
        for batch in x.split(EVALUATION_BATCH):
            for name, term in model.loss(batch, generator=generator)._asdict().items():
                totals[name] = totals.get(name, 0) + term * len(batch)
    return {name: (total / len(x)).item() for name, total in totals.items()}


def _check_finite(terms: dict[str, float], epoch: int, settings: TrainingSettings) -> None:
    diverged = [f"{name!r} is {value}" for name, value in terms.items() if not math.isfinite(value)]
    if diverged:
        used = ", ".join(f"{key}={value}" for key, value in asdict(settings).items())
        raise DivergenceError(f"training diverged in epoch {epoch + 1}: of the loss's terms, {', '.join(diverged)}. "
                              f"A smaller learning_rate often helps. Settings: {used}")


def _check_unit_interval(dataset: Dataset) -> None:
    parts = dataset.train.x, dataset.test.x
    low, high = min(x.min().item() for x in parts), max(x.max().item() for x in parts)
    if low < 0 or high > 1:
        raise SettingError(f"likelihood 'bernoulli' needs values in [0, 1]; {dataset.name} has {low:g} … {high:g}")


def _keep_freed_memory() -> None:
    """Let the allocator keep what a step has freed for the next one, as far as pieces of up to 32 MiB go. By default
    glibc hands them back to the system after every step and gets them anew, page by page: a tenth of a step's time and
    more on a virtual machine. Holds for the process; does nothing where the C library is another one."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            trim_threshold, mmap_threshold = -1, -3  # of <malloc.h>
            library.mallopt(trim_threshold, 2**30)
            library.mallopt(mmap_threshold, 2**25)


def make_optimizer(model: LatentVariableModel, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Adam, in its fused form: one call for all parameters."""
    return torch.optim.Adam(model.parameters(), lr=settings.learning_rate, betas=(0.9, settings.beta2), fused=True)


def learning_rate(step: int, total_steps: int, settings: TrainingSettings) -> float:
    """The step size at an optimiser step, counted from 0: it rises, stays, and falls, in straight lines.

    >>> settings = TrainingSettings(learning_rate=0.1, lr_warmup=0.2, decay=0.5)
    >>> [round(learning_rate(step, 10, settings), 2) for step in range(10)]
    [0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.08, 0.06, 0.04, 0.02]
    """
    risen = (step + 1) / max(1.0, settings.lr_warmup * total_steps)
    left = (total_steps - step) / max(1.0, settings.decay * total_steps)
    return settings.learning_rate * min(1.0, risen, left)


def _train_epoch(state: TrainingState, x: Tensor, settings: TrainingSettings, dtype: torch.dtype,
                 progress: tqdm) -> dict[str, float]:
    """One pass over ``x``; returns the mean of each term over the epoch, as the parameters moved."""
    model, optimizer, device = state.model, state.optimizer, x.device
    generator = epoch_generator(settings.seed, state.epoch + 1, device)
    order = torch.randperm(len(x), generator=generator, device=device)
    steps_per_epoch = math.ceil(len(x) / settings.batch_size)
    total_steps = settings.epochs * steps_per_epoch
    names: tuple[str, ...] = ()
    totals, seen, refreshed = torch.zeros((), device=device), 0, time.monotonic()
    for index, rows in enumerate(order.split(settings.batch_size)):
        step = state.epoch * steps_per_epoch + index
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total_steps, settings)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = model.loss(x[rows], step=step, generator=generator)
        optimizer.zero_grad()
        loss.total.backward()  # type: ignore[attr-defined]  # each model has a loss of its own, with this field
        optimizer.step()
        names, seen = loss._fields, seen + len(rows)
        totals = totals + torch.stack(loss).detach() * len(rows)
        if time.monotonic() - refreshed > REFRESH_SECONDS:
            means = dict(zip(names, (totals / seen).tolist(), strict=True))
            _check_finite(means, state.epoch, settings)
            progress.set_postfix({name: f"{value:.2f}" for name, value in means.items()}, refresh=False)
            progress.update(step - progress.n)
            refreshed = time.monotonic()
    means = dict(zip(names, (totals / seen).tolist(), strict=True))
    _check_finite(means, state.epoch, settings)
    progress.set_postfix({name: f"{value:.2f}" for name, value in means.items()}, refresh=False)
    progress.update((state.epoch + 1) * steps_per_epoch - progress.n)
    return means


def train(model: LatentVariableModel, dataset: Dataset, settings: TrainingSettings | None = None, *,
          resume: Callable[[TrainingState], TrainingState] | None = None,
          on_epoch: Callable[[TrainingState], None] | None = None, progress: bool = True) -> list[dict[str, float]]:
    """Train ``model`` in place.

    Args:
        model: with initial weights; moved to the device and left there.
        dataset: its training part is fitted, its validation part only measured; it is held out here where the settings
            ask for one that the data set does not have yet. Of the test part the range alone is looked at.
        settings: see :class:`TrainingSettings`; None for the defaults.
        resume: given the fresh state, returns the state to go on from (a checkpoint's), or the same one.
        on_epoch: called with the state at each epoch's end; keeps checkpoints.
        progress: show a bar with the loss's terms and the time left.

    Returns:
        The history, one row for each epoch: ``epoch``, ``step`` (optimiser steps so far), ``seconds`` (training alone),
        then ``train_<term>``, its mean over the epoch, as the parameters move, and with a validation part
        ``validation_<term>`` at the epoch's end, in nats.

    Raises:
        SettingError: values outside [0, 1] for a Bernoulli likelihood; before the first step.
        DivergenceError: a term is NaN or infinite; names the epoch, the term and the settings.

    >>> from sparse_vae import load_dataset, make_model
    >>> data = load_dataset("digits")
    >>> model = make_model("vsc", data.input_shape, likelihood=data.likelihood, latent_dim=4, backbone="mlp")
    >>> history = train(model, data, TrainingSettings(epochs=1), progress=False)
    >>> history[-1]["epoch"], "train_total" in history[-1]
    (1, True)
    """
    settings = settings or TrainingSettings()
    if settings.validation and dataset.validation is None:
        dataset = dataset.hold_out(settings.validation)
    if model.likelihood == "bernoulli":
        _check_unit_interval(dataset)
    _keep_freed_memory()
    device = resolve_device(settings.device)
    model.to(device)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    dtype = resolve_precision(settings.precision, device)
    state = TrainingState(model, make_optimizer(model, settings))
    if resume is not None:
        state = resume(state)
    x_train = dataset.train.x.to(device)
    x_validation = None if dataset.validation is None else dataset.validation.x.to(device)
    if state.epoch == 0:
        model.prepare(x_train, generator=epoch_generator(settings.seed, 0, device))
    steps_per_epoch = math.ceil(len(x_train) / settings.batch_size)
    with tqdm(total=settings.epochs * steps_per_epoch, initial=state.epoch * steps_per_epoch, unit="step",
              disable=not progress, dynamic_ncols=True) as bar:
        while state.epoch < settings.epochs:
            bar.set_description(f"epoch {state.epoch + 1}/{settings.epochs}", refresh=False)
            started = time.perf_counter()
            model.train()
            train_terms = _train_epoch(state, x_train, settings, dtype, bar)
            seconds = time.perf_counter() - started
            model.eval()
            terms = {f"train_{name}": value for name, value in train_terms.items()}
            if x_validation is not None:
                held_out = mean_loss(model, x_validation, seed=settings.seed)
                _check_finite(held_out, state.epoch, settings)
                terms |= {f"validation_{name}": value for name, value in held_out.items()}
            state.epoch += 1
            state.history.append({"epoch": state.epoch, "step": state.epoch * steps_per_epoch, "seconds": seconds,
                                  **terms})
            if on_epoch is not None:
                on_epoch(state)
    return state.history
