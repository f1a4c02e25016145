"""How fast the training loop is, as ratios measured side by side in one process, round by round.

1. Images per second of the convolutional VAE on MNIST, against the plain loop over
   ``DataLoader(datasets.MNIST(transform=ToTensor()), shuffle=True)`` with the same network, in torch's own layers, and
   the same threads and batch size.
2. The same for two single-threaded processes side by side, which is how suites are trained, images/s of both together.
3. The loop's own cost over bare forward + backward + step on one batch that stays in memory.

Quote the medians; the spread says how quiet the machine was. Needs MNIST: ``make download``.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms
from tqdm import tqdm

from sparse_vae.datasets import Dataset, Split, load_dataset
from sparse_vae.models import make_model
from sparse_vae.training import TrainingSettings, TrainingState, make_optimizer, resolve_precision, train

BATCH = 128


def make_vae(channels_last: bool) -> torch.nn.Module:
    """The convolutional VAE of the report."""
    torch.manual_seed(0)
    model = make_model("vae", (1, 28, 28), latent_dim=16)
    return model.to(memory_format=torch.channels_last) if channels_last else model


def loader_rate(root: Path, images: int) -> float:
    """Images per second of the plain DataLoader loop."""
    data = Subset(datasets.MNIST(root, transform=transforms.ToTensor()), range(images))
    model = make_vae(channels_last=False)
    last = model.decoder[-1]  # the one layer that the package computes itself
    model.decoder[-1] = torch.nn.ConvTranspose2d(last.in_channels, last.out_channels, last.kernel_size, last.stride,
                                                 last.padding, last.output_padding)
    optimizer = torch.optim.Adam(model.parameters())
    started = time.perf_counter()
    for x, _ in DataLoader(data, batch_size=BATCH, shuffle=True):
        optimizer.zero_grad()
        model.loss(x).total.backward()
        optimizer.step()
    return images / (time.perf_counter() - started)


def loop_rate(x: torch.Tensor) -> float:
    """Images per second of the package's loop, without the evaluation on test data that ends an epoch."""
    data = Dataset("mnist", Split(x), Split(x[:BATCH]), "bernoulli")
    history = train(make_vae(channels_last=False), data, TrainingSettings(epochs=1, device="cpu", batch_size=BATCH),
                    progress=False)
    return len(x) / history[0]["seconds"]


def _start_worker(barrier: Barrier) -> None:
    global at_once
    torch.set_num_threads(1)
    at_once = barrier


def _rate_at_once(x: torch.Tensor) -> float:
    at_once.wait()  # so that each of the two has one
    return loop_rate(x)


def pair_rate(x: torch.Tensor, pair: Pool) -> float:
    """Images per second of two processes together, each of which trains on ``x`` on one thread."""
    return sum(pair.map(_rate_at_once, [x, x], chunksize=1))


def bare_rate(x: torch.Tensor) -> float:
    """Images per second of forward + backward + step on one batch, in the layout and precision that the loop uses."""
    model, batch = make_vae(channels_last=True), x[:BATCH].clone()
    state = TrainingState(model, make_optimizer(model, TrainingSettings()))
    dtype = resolve_precision("auto", torch.device("cpu"))
    steps = len(x) // BATCH
    started = time.perf_counter()
    for _ in range(steps):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = model.loss(batch)
        state.optimizer.zero_grad()
        loss.total.backward()
        state.optimizer.step()
    return steps * BATCH / (time.perf_counter() - started)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="the data folder")
    parser.add_argument("--images", type=int, default=12800, help="images in one measurement")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each kind")
    arguments = parser.parse_args()
    x = load_dataset("mnist", root=arguments.root).train.x[:arguments.images]
    rates = {"plain DataLoader loop": [], "training loop": [], "two processes": [], "bare steps": []}
    context = multiprocessing.get_context("spawn")
    with (tempfile.TemporaryDirectory() as scratch,
          context.Pool(2, initializer=_start_worker, initargs=(context.Barrier(2),)) as pair):
        raw = Path(scratch, "MNIST", "raw")
        raw.mkdir(parents=True)
        for archive in Path(arguments.root, "MNIST", "raw").glob("*.gz"):
            with gzip.open(archive) as source, open(raw / archive.stem, "wb") as target:
                shutil.copyfileobj(source, target)
        # The first round warms up and is not counted.
        for number in tqdm(range(arguments.rounds + 1), unit="round"):
            measured = loader_rate(Path(scratch), len(x)), loop_rate(x), pair_rate(x, pair), bare_rate(x)
            if number:
                for rate, found in zip(measured, rates.values(), strict=True):
                    found.append(rate)
        pair.close()
        pair.join()

    print(f"\nconvolutional VAE on MNIST, {torch.get_num_threads()} threads, batches of {BATCH}, "
          f"{resolve_precision('auto', torch.device('cpu'))}, torch {torch.__version__}")
    for name, found in rates.items():
        print(f"  {name:22} {statistics.median(found):8.0f} images/s (from {min(found):.0f} to {max(found):.0f})")

    def ratio(numerator: str, denominator: str) -> str:
        ratios = [a / b for a, b in zip(rates[numerator], rates[denominator], strict=True)]
        return f"{statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})"

    print(f"  training loop / plain DataLoader loop: {ratio('training loop', 'plain DataLoader loop')}")
    print(f"  two single-threaded processes / plain DataLoader loop: {ratio('two processes', 'plain DataLoader loop')}")
    print(f"  bare steps / training loop (1.00 is no overhead): {ratio('bare steps', 'training loop')}")
    print(f"  peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
