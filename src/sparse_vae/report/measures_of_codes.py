"""What is measured of every model: what it reconstructs, how sparse its code is, what its dimensions do."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sparse_vae.evaluation import (
    NOISES,
    active_units,
    add_noise,
    batched,
    dead_fraction,
    explained_variance,
    extent,
    hoyer,
    l0,
    mean_squared_error,
    psnr,
    pursued,
    refitted,
    set_distances,
    smoothness,
    spread,
    ssim,
    treves_rolls,
)
from sparse_vae.models import GenerativeModel
from sparse_vae.nets import count_parameters
from sparse_vae.report.measures import Curve, Measure, Subject, Values, measures
from sparse_vae.training import mean_loss

BINS = 20
NOISE_OBSERVATIONS, NOISE_LEVELS = 500, (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
ENTRIES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128, 256, 512)
DIMENSIONS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256)
"""How many entries or dimensions of a code are kept, beside all of them."""
COMPARED = 2000
"""So many observations have their sets of active dimensions compared, each with each."""
ENTRIES_TRIED, ENTRY_OBSERVATIONS = 2048, 1000
"""So many active entries, of the codes of so many observations, are set to 0, one at a time."""
REFITTED = 1000
"""So many observations have their codes fitted anew."""
TRAINING_OBSERVATIONS = 10_000
TOLERANCE = 0.1
"""A part of a code is as good as the whole while its error is at most this share above that of the whole."""


@measures(
    Measure("loss", "objective (nats)", 2, "the training objective on test data, nats", "lower"),
    Measure("reconstruction_loss", "reconstruction (nats)", 2,
            "the reconstruction term of the objective, with the code the model trains with", "lower"),
    Measure("kl_loss", "weighted KL (nats)", 2, "the KL term of the objective, as weighted there"),
    Measure("negative_elbo", "−ELBO (nats)", 2, "one-sample estimate, every KL with weight 1", "lower"),
    Measure("mean_squared_error", "MSE", 4, "of the reconstruction from the deterministic code, per feature", "lower"),
    Measure("explained_variance", "explained", 3, "share of the variance about the mean that is explained", "higher"),
    Measure("active_fraction", "active (%)", 1, "share of the dimensions that one observation activates", scale=100),
    Measure("used_dimensions", "in use", 1, "dimensions that are active for at least 1% of the observations"),
    Measure("active_units", "active units", 1, "dimensions whose E[z|x] has a variance above 0.01 over the "
            "observations (Burda et al. 2016); of a code without a prior that depends on its scale"),
    Measure("parameters", "parameters", 0, "number of values that gradients train"),
)
def _summary(subject: Subject) -> Values:
    model, x, found = subject.model, subject.x, {}
    if not model.trained_by_fit:
        terms = mean_loss(model, x, seed=subject.seed)
        found = {"loss": terms["total"], "reconstruction_loss": terms["reconstruction"], "kl_loss": terms.get("kl"),
                 "parameters": count_parameters(model)}
    if isinstance(model, GenerativeModel):
        found["negative_elbo"] = subject.bound
    return found | {  # type: ignore[return-value]
        "mean_squared_error": mean_squared_error(x, subject.reconstruction).mean().item(),
        "explained_variance": explained_variance(x, subject.reconstruction),
        "active_fraction": subject.rates.mean().item(),
        "used_dimensions": subject.used.sum().item(),
        "active_units": active_units(subject.means).sum().item()}


@measures(
    Measure("train_mean_squared_error", "MSE, training", 4, f"MSE of the first {TRAINING_OBSERVATIONS:,} training "
            "observations, or as many as there are test data", "lower"),
    Measure("train_negative_elbo", "−ELBO, training (nats)", 2, "−ELBO of the same training observations", "lower"),
    Measure("mse_ratio", "MSE, test/training", 3, "how many times the MSE of training observations that of test data "
            "is; 1 if the two parts are alike and nothing is learned by heart", "lower"),
    Measure("elbo_gap", "−ELBO, test − training (nats)", 2, "how much −ELBO is larger on test data than on training "
            "observations", "lower"),
)
def _generalisation(subject: Subject) -> Values:
    x = subject.data.train.x[:min(TRAINING_OBSERVATIONS, len(subject.x))]
    own = mean_squared_error(subject.x, subject.reconstruction).mean().item()
    error = mean_squared_error(x, batched(subject.model.reconstruct, x)).mean().item()
    found = {"train_mean_squared_error": error, "mse_ratio": own / error if error else None}
    if isinstance(subject.model, GenerativeModel):
        bound = subject.bound_of(x)
        found |= {"train_negative_elbo": bound, "elbo_gap": subject.bound - bound}
    return found


@measures(
    Measure("l0", "L0", 1, "number of dimensions that one observation activates"),
    Measure("l0_deviation", "L0, deviation", 1, "standard deviation over the observations of the number of dimensions "
            "that they activate"),
    Measure("hoyer", "Hoyer", 2, "how unequal the values of one code are, 0 for equal ones and 1 for a single one",
            "higher"),
    Measure("treves_rolls", "Treves–Rolls", 2, "how unequal the values of one code are by the measure of Treves and "
            "Rolls, 0 to 1", "higher"),
    Measure("lifetime_sparseness", "lifetime", 2, "Treves–Rolls over the observations, 0 to 1, mean over the "
            "dimensions that are ever active", "higher"),
    Measure("dead_fraction", "dead (%)", 1, "share of the dimensions that no observation activates", "lower", 100),
    Measure("nonzero_fraction", "non-zero (%)", 1, "share of the values of the codes that are not exactly 0",
            scale=100),
    Measure("used_fraction", "used (%)", 1, "share of the dimensions that at least 1% of the observations activate",
            scale=100),
    Measure("mean_activation", "mean activation", 3, "mean value of the codes"),
    Measure("rarely_active", "below 1%", 1, "dimensions that less than 1% of the observations activate"),
    Measure("sometimes_active", "1% to 99%", 1, "dimensions that 1% to 99% of the observations activate"),
    Measure("always_active", "above 99%", 1, "dimensions that more than 99% of the observations activate"),
    Curve("population_histogram", "share of the observations", "share of the dimensions",
          "how much of the code an observation activates, a histogram"),
    Curve("lifetime_histogram", "share of the dimensions", "share of the observations",
          "how often a dimension is active, a histogram"),
    Curve("size_histogram", "share of the values", "|code| / root mean square",
          "values of active dimensions, each in units of its own root mean square, a histogram"),
)
def _sparsity(subject: Subject) -> Values:
    codes, active, rates = subject.codes, subject.active, subject.rates
    alive = codes[:, active.any(0)]
    squares = codes.square().masked_fill(~active, 0).sum(0)
    root_mean_square = (squares / active.sum(0).clamp(min=1)).sqrt().clamp(min=1e-12)
    return {
        "l0": l0(active).float().mean().item(),
        "l0_deviation": l0(active).float().std(correction=0).item(),
        "hoyer": hoyer(codes).mean().item(),
        "treves_rolls": treves_rolls(codes).mean().item(),
        "lifetime_sparseness": treves_rolls(alive.T).mean().item() if alive.shape[1] else None,
        "dead_fraction": dead_fraction(active),
        "nonzero_fraction": (codes != 0).float().mean().item(),
        "used_fraction": subject.used.float().mean().item(),
        "mean_activation": codes.mean().item(),
        "rarely_active": (rates < 0.01).sum().item(),
        "sometimes_active": ((rates >= 0.01) & (rates <= 0.99)).sum().item(),
        "always_active": (rates > 0.99).sum().item(),
        "population_histogram": _histogram(active.float().mean(1), 1),
        "lifetime_histogram": _histogram(rates, 1),
        "size_histogram": _histogram((codes.abs() / root_mean_square)[active], 3),
    }


def _histogram(values: Tensor, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """The middles of bins over [0, largest], and the share of the values in each."""
    counts, edges = np.histogram(values.numpy(), BINS, (0, largest))
    return (edges[1:] + edges[:-1]) / 2, counts / max(len(values), 1)


@measures(
    Measure("feature_smoothness", "smoothness", 2, "correlation of neighbouring values of what a used dimension adds, "
            "0 for noise, mean over the used dimensions", "higher"),
    Measure("feature_spread", "spread", 2, "root mean square distance of a used dimension's energy from its centre, "
            "1 for noise, mean over the used dimensions", "lower"),
    Measure("feature_extent", "extent (%)", 1, "share of the values of an observation that hold 90% of what a used "
            "dimension adds on average, mean over the used dimensions", "lower", 100),
)
def _features(subject: Subject) -> Values:
    used = subject.responses[subject.used]
    functions = {"feature_smoothness": smoothness, "feature_spread": spread, "feature_extent": extent}
    return {name: function(used).mean().item() if len(used) else None for name, function in functions.items()}


@measures(
    Measure("entry_extent", "extent of an entry (%)", 1, "share of the values of an observation that hold 90% of what "
            "one active entry of its code changes, mean over active entries", "lower", 100),
    Measure("entry_effect", "effect of an entry", 4, "root mean square change of an observation when one active entry "
            "of its code is set to 0, mean over active entries"),
)
def _entries(subject: Subject) -> Values:
    codes = subject.sparse_codes[:ENTRY_OBSERVATIONS]
    pairs = subject.active[:ENTRY_OBSERVATIONS].nonzero()
    if not len(pairs):
        return {}
    rows, units = pairs[torch.randperm(len(pairs), generator=subject.generator())[:ENTRIES_TRIED]].T
    without = codes[rows]
    without[torch.arange(len(rows)), units] = 0
    change = subject.reconstruction_of(codes)[rows] - subject.reconstruction_of(without)
    return {"entry_extent": extent(change).mean().item(),
            "entry_effect": change.square().flatten(1).mean(1).sqrt().mean().item()}


@measures(
    Measure("set_distance", "distance of sets", 3, "Jaccard distance of the sets of dimensions that two observations "
            "activate, mean over pairs; 0 for a dense code"),
    Measure("set_distance_within", "distance of sets, within", 3, "the same over pairs of one class", "lower"),
    Measure("set_distance_between", "distance of sets, between", 3, "the same over pairs of two classes", "higher"),
)
def _sets(subject: Subject) -> Values:
    active = subject.active[:COMPARED]
    distances, pairs = set_distances(active, active), ~torch.eye(len(active), dtype=torch.bool)
    kinds = {"set_distance": pairs}
    if subject.y is not None:
        alike = subject.y[:COMPARED, None] == subject.y[:COMPARED]
        kinds |= {"set_distance_within": pairs & alike, "set_distance_between": pairs & ~alike}
    return {name: distances[kind].mean().item() for name, kind in kinds.items()}


def _denoising_declared() -> list[Measure | Curve]:
    gains, curves = [], []
    for measure_of, title, nothing, digits in (("psnr", "PSNR (dB)", "decibels", 2),
                                               ("ssim", "SSIM", "1 for equal images", 3)):
        for kind in NOISES:
            name, about = kind.replace("-", "_"), f"to the clean original, {kind} noise, {nothing}"
            curves += [Curve(f"{measure_of}_{name}", f"{title}, {kind}", "noise level",
                             f"similarity of reconstructions of noisy copies {about}", "higher"),
                       Curve(f"noisy_{measure_of}_{name}", f"{title} of the noisy, {kind}", "noise level",
                             f"similarity of noisy copies {about}")]
            gains.append(Measure(f"{measure_of}_gain_{name}", f"{title}, gain, {kind}", digits,
                                 "how much more similar to the clean original reconstructions of noisy copies are than "
                                 f"the copies, {kind} noise, mean over its levels where the copies differ", "higher"))
    return gains + curves


@measures(*_denoising_declared())
def _denoising(subject: Subject) -> Values:
    x, (low, high) = subject.x[:NOISE_OBSERVATIONS], subject.data.value_range
    functions = {"psnr": psnr} | ({"ssim": ssim} if subject.data.is_image else {})
    # Without noise: an exact copy has no finite PSNR, so the noisy copies begin at the first level above 0.
    clean = {name: function(x, subject.reconstruction[:len(x)], high - low).mean().item()
             for name, function in functions.items()}
    found = {}  # type: Values
    for kind in NOISES:
        noisy = [add_noise(x, kind, level, value_range=(low, high), seed=subject.seed) for level in NOISE_LEVELS[1:]]
        denoised = [batched(subject.model.reconstruct, copy) for copy in noisy]
        for name, function in functions.items():
            own, others = ([function(x, copy, high - low).mean().item() for copy in copies]
                           for copies in (denoised, noisy))
            key = f"{name}_{kind.replace('-', '_')}"
            gains = [after - before for after, before in zip(own, others, strict=True)]
            gains = [gain for gain in gains if math.isfinite(gain)]  # the PSNR of an exact copy is not
            found |= {key: (NOISE_LEVELS, [clean[name], *own]), f"noisy_{key}": (NOISE_LEVELS[1:], others),
                      f"{name}_gain_{kind.replace('-', '_')}": np.mean(gains) if gains else None}
    return found


@measures(
    Measure("refit_mse", "MSE, refitted", 4, "per feature, with the values of the same active dimensions fitted by "
            "least squares", "lower"),
    Measure("pursuit_mse", "MSE, pursued", 4, "per feature, with as many of the model's own atoms for each "
            "observation, chosen and fitted by orthogonal matching pursuit", "lower"),
    needs=["atoms"],
)
def _refits(subject: Subject) -> Values:
    x, active = subject.x[:REFITTED], subject.active[:REFITTED]
    with torch.no_grad():
        zero, *units = subject.model.decode(torch.cat([torch.zeros(1, active.shape[1]), torch.eye(active.shape[1])]))
        atoms, centred = (torch.stack(units) - zero).flatten(1), (x - zero).flatten(1)
        codes = {"refit_mse": refitted(centred, atoms, active), "pursuit_mse": pursued(centred, atoms, active.sum(1))}
    return {name: (centred - code @ atoms).square().mean().item() for name, code in codes.items()}


@measures(
    Measure("entries_needed", "entries needed", 1, "the fewest of the tried numbers of largest entries of a code whose "
            f"error is at most {TOLERANCE:.0%} above that of the whole code", "lower"),
    Measure("mse_of_largest", "MSE, largest", 4, "per feature, with the largest entry of each code alone", "lower"),
    Curve("error_by_largest", "mean squared error", "entries that are kept",
          "error with the entries of each code alone that would change the decoded observation most", "lower"),
)
def _largest(subject: Subject) -> Values:
    codes = subject.codes
    magnitudes = (codes.abs().sum(0) / (codes != 0).sum(0).clamp(min=1)).clamp(min=1e-12)
    effects = codes.abs() / magnitudes * subject.responses.flatten(1).norm(dim=1)
    ranks = effects.argsort(dim=1, descending=True).argsort(dim=1)
    errors = {count: subject.error_of(codes.masked_fill(ranks >= count, 0))
              for count in _counts(ENTRIES, codes.shape[1])}
    return {"entries_needed": _enough(errors), "mse_of_largest": errors[1],
            "error_by_largest": (list(errors), list(errors.values()))}


@measures(
    Measure("dimensions_needed", "dimensions needed", 1, "the fewest of the tried numbers of most used dimensions "
            f"whose error is at most {TOLERANCE:.0%} above that of the whole code", "lower"),
    Curve("error_by_pruning", "mean squared error", "dimensions that are kept",
          "error with the most used dimensions alone", "lower"),
)
def _pruning(subject: Subject) -> Values:
    codes, order = subject.codes, subject.order_of_use
    errors = {}
    for count in _counts(DIMENSIONS, codes.shape[1]):
        kept = torch.zeros(codes.shape[1]).index_fill_(0, order[:count], 1)
        errors[count] = subject.error_of(codes * kept)
    return {"dimensions_needed": _enough(errors), "error_by_pruning": (list(errors), list(errors.values()))}


def _counts(tried: tuple[int, ...], latent_dim: int) -> list[int]:
    """What is tried of a code of this size: the numbers below it, and all."""
    return [*(count for count in tried if count < latent_dim), latent_dim]


def _enough(errors: dict[int, float]) -> int:
    """The fewest with which the error is as good as with all, the last of them."""
    whole = list(errors.values())[-1]
    return next(count for count, error in errors.items() if error <= (1 + TOLERANCE) * whole)
