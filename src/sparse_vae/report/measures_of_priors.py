"""What is measured of models with a prior: what a code is charged, bounds, spikes against their prior, samples."""

from __future__ import annotations

from copy import copy

import torch

from sparse_vae.evaluation import Components, batched, importance_weighted_bounds, sample_quality, spikes
from sparse_vae.report.measures import Curve, Measure, Subject, Values, measures
from sparse_vae.training import EVALUATION_BATCH

BOUND_OBSERVATIONS, BOUND_SAMPLES = 500, (1, 10, 100, 500)
BOUND_VALUES = 500 * 784
"""Larger observations than MNIST's are so much fewer: each is decoded hundreds of times."""
SAMPLES, COMPONENTS, NEIGHBOUR = 4000, 50, 3
COMPONENT_OBSERVATIONS = 10_000
SAMPLE_SPACE = f"in the space of the first {COMPONENTS} principal components of the training data, {SAMPLES:,} of both"


@measures(
    Measure("kl_total", "KL (nats)", 2, "KL of the posterior to the prior with weight 1, mean over the observations"),
    Curve("kl_by_rank", "KL (nats)", "dimension, most charged first",
          "KL of each dimension's posterior to its prior, mean over the observations, sorted"),
    needs=["prior"],
)
def _charges(subject: Subject) -> Values:
    return {"kl_total": subject.kl.sum().item(),
            "kl_by_rank": (range(1, len(subject.kl) + 1), subject.kl.sort(descending=True).values)}


@measures(
    Measure("importance_weighted_bound", "bound (nats)", 2,
            f"importance-weighted bound on −ln p(x) with K = {BOUND_SAMPLES[-1]} samples, of the first "
            f"{BOUND_OBSERVATIONS} observations, nats", "lower"),
    Measure("bound_gap", "gap (nats)", 2, f"what K = {BOUND_SAMPLES[-1]} samples gain over one, nats", "lower"),
    Curve("importance_weighted_bounds", "bound (nats)", "samples K",
          "importance-weighted bounds on −ln p(x), nats", "lower"),
    needs=["prior"],
)
def _bounds(subject: Subject) -> Values:
    n = min(BOUND_OBSERVATIONS, BOUND_VALUES // subject.x[0].numel())
    bounds = importance_weighted_bounds(subject.model, subject.x[:n], BOUND_SAMPLES, generator=subject.generator())
    return {"importance_weighted_bound": bounds[-1].item(), "bound_gap": (bounds[0] - bounds[-1]).item(),
            "importance_weighted_bounds": (BOUND_SAMPLES, bounds)}


@measures(
    Measure("spike_rate", "spikes on (%)", 1, "probability that a spike is on, γ, mean over dimensions and "
            "observations", scale=100),
    Measure("prior_rate", "spikes on, prior (%)", 1, "the same under the prior: its setting or, of a learned prior, "
            "γ of the pseudo-inputs, weighted by how often each is chosen, which training holds at α", scale=100),
    Measure("rate_ratio", "γ / α", 2, "how many times the rate that was asked for (α or π₀) spikes are on"),
    needs=["prior"],
)
def _spikes(subject: Subject) -> Values:
    if subject.spikes is None:
        return {}
    model = subject.model
    rate, asked = subject.spikes[0].mean().item(), getattr(model, "alpha", None) or model.prior_presence
    prior = asked
    if getattr(model, "prior", None) == "pseudo-inputs":
        with torch.no_grad():
            prior = (batched(model.choices, subject.x).mean(0) @ spikes(model, model.pseudo_inputs)[0]).mean().item()
    return {"spike_rate": rate, "prior_rate": prior, "rate_ratio": rate / asked}  # type: ignore[dict-item, operator]


@measures(
    Measure("optimal_choice_elbo", "−ELBO, best choice (nats)", 2, "−ELBO of the same weights with the pseudo-inputs "
            "chosen by the bound instead of the classifier", "lower"),
    Measure("choice_gap", "cost of the classifier (nats)", 2, "how much the classifier's choice of pseudo-inputs adds "
            "to −ELBO over the best one", "lower"),
    needs=["classifier"],
)
def _choice(subject: Subject) -> Values:
    model = copy(subject.model)  # shares the weights
    model.choice = "optimal"  # type: ignore[assignment]
    optimal = Subject(model, subject.data, subject.seed).bound  # from the same noise
    return {"optimal_choice_elbo": optimal, "choice_gap": subject.bound - optimal}


@measures(
    Measure("sample_detection", "samples told (%)", 1, "share of samples of the prior and test data whose nearest "
            "neighbour is of their own kind, 50% if nothing tells them apart (Lopez-Paz & Oquab 2017), "
            + SAMPLE_SPACE, "lower", 100),
    Measure("sample_distance", "samples, Fréchet", 2, "squared Fréchet distance of samples of the prior from test data "
            "(Heusel et al. 2017), " + SAMPLE_SPACE, "lower"),
    Measure("sample_precision", "samples, precision (%)", 1, f"share of the samples of the prior that are as near to "
            f"some test observation as its neighbour number {NEIGHBOUR} (Kynkäänniemi et al. 2019), " + SAMPLE_SPACE,
            "higher", 100),
    Measure("sample_recall", "samples, recall (%)", 1, "share of the test observations that are as near to some sample "
            "of the prior, " + SAMPLE_SPACE, "higher", 100),
    Measure("data_detection", "training data told (%)", 1, "samples told, with training data for samples: the floor",
            scale=100),
    Measure("data_distance", "training data, Fréchet", 2, "samples, Fréchet, with training data for samples"),
    needs=["prior", "images"],
)
def _samples(subject: Subject) -> Values:
    generator, train = subject.generator(), subject.data.train.x
    count = min(SAMPLES, len(subject.x), len(train))
    if count <= NEIGHBOUR:
        return {}
    space = Components.of(train[:COMPONENT_OBSERVATIONS], COMPONENTS)
    known, others = (space.coordinates(x[torch.randperm(len(x), generator=generator)[:count]])
                     for x in (subject.x, train))
    with torch.no_grad():
        drawn = torch.cat([
            space.coordinates(subject.model.sample(len(part), generator=generator))  # type: ignore[operator]
            for part in torch.arange(count).split(EVALUATION_BATCH)])
    found, floor = (sample_quality(known, points, NEIGHBOUR) for points in (drawn, others))
    return {"sample_detection": found.detection, "sample_distance": found.frechet, "sample_precision": found.precision,
            "sample_recall": found.recall, "data_detection": floor.detection, "data_distance": floor.frechet}
