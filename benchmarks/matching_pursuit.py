"""How fast the matching-pursuit autoencoder trains, as ratios measured side by side in one process, round by round.

Images per second of forward + backward + step, in float32 on one thread, on noise in the shape of MNIST:

1. the package's pursuit, by the Gram matrix, with its gradient worked out by hand;
2. the same codes held fixed, without a gradient through the pursuit (which costs accuracy);
3. the pursuit as the paper writes it down: residuals times the whole dictionary, k times, differentiated by autograd.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from sparse_vae.models.matching_pursuit import MatchingPursuit
from sparse_vae.training import TrainingSettings, make_optimizer

FEATURES = 784


class Fixed(MatchingPursuit):
    """Codes without a gradient."""

    def code(self, x: Tensor) -> Tensor:
        return super().code(x).detach()


class Plain(MatchingPursuit):
    """As the paper writes it down."""

    def code(self, x: Tensor) -> Tensor:
        atoms, left = self.dictionary.weight.T, x - self.dictionary.bias
        code = x.new_zeros(len(x), self.latent_dim)
        for _ in range(self.k):
            value, pick = (left @ atoms.T).max(1)
            step = F.one_hot(pick, self.latent_dim) * value[:, None]
            code, left = code + step, left - step @ atoms
        return code


KINDS = {"by the Gram matrix": MatchingPursuit, "without its gradient": Fixed, "residuals, autograd": Plain}


def rate(cls: type[MatchingPursuit], x: Tensor, batch: int, latent_dim: int, k: int) -> float:
    """Images per second."""
    torch.manual_seed(0)
    model = cls((FEATURES,), latent_dim=latent_dim, k=k, decoder="linear", likelihood="gaussian")
    model.prepare(x)
    optimizer = make_optimizer(model, TrainingSettings())
    started = time.perf_counter()
    for part in x.split(batch):
        optimizer.zero_grad()
        model.loss(part).total.backward()
        optimizer.step()
    return len(x) / (time.perf_counter() - started)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latent-dim", type=int, default=256, help="atoms")
    parser.add_argument("--k", type=int, default=26, help="steps of the pursuit")
    parser.add_argument("--images", type=int, default=2048, help="images in one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x = torch.rand(arguments.images, FEATURES, generator=torch.Generator().manual_seed(0))
    lines = []
    for batch in tqdm((128, 1024), unit="batch size"):
        found = {name: [] for name in KINDS}
        for number in range(arguments.rounds + 1):
            for name, cls in KINDS.items():
                measured = rate(cls, x, batch, arguments.latent_dim, arguments.k)
                if number:  # the first round warms up
                    found[name].append(measured)
        for name, rates in found.items():
            ratios = [own / last for own, last in zip(rates, found["residuals, autograd"], strict=True)]
            lines.append(f"  batches of {batch:<5} {name:22} {statistics.median(rates):8.0f} images/s, "
                         f"{statistics.median(ratios):5.2f} of the last (from {min(ratios):.2f} to {max(ratios):.2f})")
    print(f"\nmatching pursuit, {arguments.latent_dim} atoms, k = {arguments.k}, one thread")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
