"""How fast Gamma samples and their gradients are, beside torch's (and jax's where it is installed).

Nanoseconds for one element of a tensor of a million, forward (samples) and forward + backward (samples and ∂/∂k), as
medians over rounds in which all take turns; the ratio is that of forward + backward, round by round. The accuracy of
the two is not the same: see the chapter on the sampler.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from sparse_vae.distributions import Gamma

CONCENTRATIONS = (0.05, 0.3, 0.9, 5.0)


def torch_calls(distribution: type, concentration: torch.Tensor) -> tuple[Callable, Callable]:
    """Forward, and forward + backward."""
    one, leaf = torch.ones((), dtype=concentration.dtype), concentration.clone().requires_grad_()

    def both():
        leaf.grad = None
        distribution(leaf, one).rsample().sum().backward()

    return lambda: distribution(concentration, one).rsample(), both


def jax_calls(concentration: torch.Tensor) -> tuple[Callable, Callable]:
    """The same, compiled."""
    import jax

    jax.config.update("jax_enable_x64", True)
    key, values = jax.random.key(0), jax.numpy.asarray(concentration.numpy())
    forward = jax.jit(lambda k: jax.random.gamma(key, k, dtype=k.dtype))
    both = jax.jit(jax.grad(lambda k: forward(k).sum()))
    return lambda: forward(values).block_until_ready(), lambda: both(values).block_until_ready()


def measure(size: int, rounds: int, dtype: torch.dtype, k: float) -> dict[str, list[tuple[float, float]]]:
    """Library → (forward, forward + backward), nanoseconds for an element, one pair for each round."""
    concentration = torch.full((size,), k, dtype=dtype)
    calls = {"torch": torch_calls(torch.distributions.Gamma, concentration), "here": torch_calls(Gamma, concentration)}
    if importlib.util.find_spec("jax"):
        calls["jax"] = jax_calls(concentration)
    found = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, functions in calls.items():
            times = []
            for function in functions:
                started = time.perf_counter()
                function()
                times.append((time.perf_counter() - started) / size * 1e9)
            if number:  # the first round warms up
                found[name].append(tuple(times))
    return found


def peak_bytes(concentration: torch.Tensor) -> int:
    """Most memory in use at once in forward + backward, beyond what there was."""
    _, both = torch_calls(Gamma, concentration)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        both()
    in_use = highest = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            in_use += event.nbytes()
            highest = max(highest, in_use)
    return highest


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000, help="elements of the tensor")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each kind")
    arguments = parser.parse_args()
    available = torch.get_num_threads()
    cases = [(threads, dtype, k) for threads in sorted({1, available}) for dtype in (torch.float32, torch.float64)
             for k in CONCENTRATIONS]
    lines = []
    for threads, dtype, k in tqdm(cases, unit="case"):
        torch.set_num_threads(threads)
        found = measure(arguments.size, arguments.rounds, dtype, k)
        ratios = [theirs[1] / ours[1] for theirs, ours in zip(found["torch"], found["here"], strict=True)]
        medians = {name: map(statistics.median, zip(*pairs, strict=True)) for name, pairs in found.items()}
        times = "  ".join("{} {:4.0f} {:5.0f}".format(name, *both) for name, both in medians.items())
        lines.append(f"  {threads} thread(s)  {str(dtype)[6:]}  k = {k:<5g} {times}   torch / here "
                     f"{statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")
    print(f"\nGamma samples, {arguments.size:,} elements, nanoseconds for one: forward, forward + backward; "
          f"torch {torch.__version__}")
    print(*lines, sep="\n")
    for dtype in (torch.float32, torch.float64):
        concentration = torch.full((arguments.size,), 0.3, dtype=dtype)
        print(f"  peak memory of forward + backward, {str(dtype)[6:]}: "
              f"{peak_bytes(concentration) / concentration.nbytes:.1f} times the tensor")


if __name__ == "__main__":
    main()
