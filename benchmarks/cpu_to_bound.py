"""How many CPU-seconds of training a bound on −ELBO costs, beside the recipe that the report's runs had before.

Each task trains the same model twice for each seed, on one thread, with the former recipe and with the present one. The
bound is measured on the test data after every epoch, and the measuring is not counted; a training that does not reach
it counts its full time. The two take turns, and the ratio is that of their sums over the seeds.

By default each model is trained once, on a tenth of MNIST, and the bound is what the former recipe ends with: this
checks the code more than it measures. With ``--full`` all of MNIST is used, with three seeds and the bounds below: it
takes hours. Needs MNIST: ``make download``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import NamedTuple

import torch
from tqdm import tqdm

from sparse_vae.configuration import RunConfig, build_model, configure
from sparse_vae.datasets import Dataset, load_dataset
from sparse_vae.evaluation import batched
from sparse_vae.training import TrainingState, epoch_generator, train

FORMER = {"lr_warmup": 0.0, "decay": 0.4, "beta2": 0.999, "device": "cpu"}
PRESENT = {"lr_warmup": 0.05, "decay": 0.95, "beta2": 0.99, "device": "cpu"}
SHARE = 10
"""Without ``--full``, one observation in so many."""


class Task(NamedTuple):
    """A model, the bound in nats, the most that the ratio should be, and how the two recipes differ."""

    title: str
    model: dict[str, object]
    bound: float
    largest_ratio: float
    former: dict[str, object]
    present: dict[str, object]


TASKS = [
    Task("convolutional VAE, J = 16", {"model": "vae", "latent_dim": 16, "backbone": "conv"}, 101.5, 0.4,
         {"epochs": 25, "learning_rate": 1e-3}, {"epochs": 12, "learning_rate": 4e-3}),
    Task("MLP VAE, J = 50", {"model": "vae", "latent_dim": 50, "backbone": "mlp"}, 101.8, 0.55,
         {"epochs": 20, "learning_rate": 2e-3}, {"epochs": 14, "learning_rate": 5e-3}),
    Task("VSC, J = 200", {"model": "vsc", "latent_dim": 200, "backbone": "mlp"}, 103.6, 0.75,
         {"epochs": 20, "learning_rate": 2e-3}, {"epochs": 16, "learning_rate": 3e-3}),
]


class Point(NamedTuple):
    """CPU-seconds of training so far, and −ELBO in nats."""

    seconds: float
    bound: float


def train_and_measure(config: RunConfig, data: Dataset) -> list[Point]:
    """A point for each epoch."""
    model, points = build_model(config, data), []
    spent, started = 0.0, time.process_time()

    def on_epoch(state: TrainingState) -> None:
        nonlocal spent, started
        spent += time.process_time() - started
        generator = epoch_generator(config.training.seed, 0)
        bounds = batched(lambda batch: model.negative_elbo(batch, generator=generator), data.test.x)
        points.append(Point(spent, bounds.mean().item()))
        started = time.process_time()

    train(model, data, config.training, on_epoch=on_epoch, progress=False)
    return points


def seconds_to(bound: float, points: list[Point]) -> tuple[float, bool]:
    """CPU-seconds until the bound was reached, or all of them, and whether it was."""
    return next(((point.seconds, True) for point in points if point.bound <= bound), (points[-1].seconds, False))


def compare(task: Task, data: Dataset, seeds: int, bound: float | None, bar: tqdm) -> str:
    """A line for the task; without a bound it is what the former recipe ends with, for each seed."""
    found: dict[str, list[tuple[float, bool]]] = {"former": [], "present": []}
    for seed in range(seeds):
        points = {}
        for name, recipe in (("former", FORMER | task.former), ("present", PRESENT | task.present)):
            points[name] = train_and_measure(configure(dataset="mnist", seed=seed, **task.model, **recipe), data)
            bar.update()
        for name, curve in points.items():
            found[name].append(seconds_to(points["former"][-1].bound if bound is None else bound, curve))
    totals = {name: sum(seconds for seconds, _ in each) for name, each in found.items()}
    reached = {name: sum(is_reached for _, is_reached in each) for name, each in found.items()}
    said = ", ".join(f"{name} {totals[name] / seeds:.0f} s ({reached[name]} of {seeds} reach it)" for name in found)
    goal = "" if bound is None else f", to be at most {task.largest_ratio}"
    target = "what the former ends with" if bound is None else f"{bound} nats"
    return f"  {task.title}, {target}: {said}; present / former {totals['present'] / totals['former']:.2f}{goal}"


def main() -> None:
    """Measure and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="the data folder")
    parser.add_argument("--full", action="store_true", help="all of MNIST, three seeds, the bounds of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, seeds = load_dataset("mnist", root=arguments.root), 3 if arguments.full else 1
    if not arguments.full:
        data = replace(data, train=data.train[::SHARE], test=data.test[::SHARE])
    with tqdm(total=len(TASKS) * seeds * 2, unit="training") as bar:
        lines = [compare(task, data, seeds, task.bound if arguments.full else None, bar) for task in TASKS]
    print(f"\nCPU-seconds to a bound on −ELBO, one thread, {len(data.train):,} training images, {seeds} seed(s), "
          f"torch {torch.__version__}")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
