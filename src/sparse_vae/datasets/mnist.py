"""MNIST and Fashion-MNIST, read by torchvision's classes from verified archives.

Only the archives (``*.gz``) are kept, in torchvision's ``raw`` folder, and their md5 is checked at every load.
torchvision reads the unpacked files and hardly checks them, so they are unpacked into a temporary folder and never
stay. Names, addresses and md5s are torchvision's own.
"""

from __future__ import annotations

import functools
import gzip
import shutil
import tempfile
from pathlib import Path

import torch

from sparse_vae.datasets.base import Dataset, Split
from sparse_vae.datasets.download import RemoteFile, md5_problem, verified_path


def load_mnist(root: str | Path = "data") -> Dataset:
    """Handwritten digits, 60,000 + 10,000 grey images of 28×28 pixels (LeCun, Bottou, Bengio, Haffner 1998).

    Pixels are grey levels 0..255 divided by 255; the split is the official one.
    Source: *Gradient-based learning applied to document recognition*, Proceedings of the IEEE 86(11), 1998.
    """
    from torchvision.datasets import MNIST

    return _load("mnist", MNIST, root, classes=tuple(str(digit) for digit in range(10)))


def load_fashion_mnist(root: str | Path = "data") -> Dataset:
    """Photographs of clothes, 60,000 + 10,000 grey images of 28×28 pixels (Xiao, Rasul, Vollgraf 2017).

    Pixels are grey levels 0..255 divided by 255; the split is the official one.
    Source: *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms*, arXiv:1708.07747.
    """
    from torchvision.datasets import FashionMNIST

    return _load("fashion-mnist", FashionMNIST, root, classes=tuple(FashionMNIST.classes))


def mnist_files() -> list[RemoteFile]:
    """The four archives of MNIST."""
    from torchvision.datasets import MNIST

    return _files("mnist", MNIST)


def fashion_mnist_files() -> list[RemoteFile]:
    """The four archives of Fashion-MNIST."""
    from torchvision.datasets import FashionMNIST

    return _files("fashion-mnist", FashionMNIST)


def _files(name: str, reader: type) -> list[RemoteFile]:
    return [RemoteFile(path=f"{reader.__name__}/raw/{filename}", mirror_path=f"{name}/{filename}",
                       urls=tuple(mirror + filename for mirror in reader.mirrors),
                       problem=functools.partial(md5_problem, expected=md5))
            for filename, md5 in reader.resources]


def _load(name: str, reader: type, root: str | Path, classes: tuple[str, ...]) -> Dataset:
    archives = [verified_path(file, root, name) for file in _files(name, reader)]
    with tempfile.TemporaryDirectory() as scratch:
        unpacked = Path(scratch, reader.__name__, "raw")
        unpacked.mkdir(parents=True)
        for archive in archives:
            with gzip.open(archive) as source, open(unpacked / archive.stem, "wb") as target:
                shutil.copyfileobj(source, target)
        train, test = (reader(scratch, train=train) for train in (True, False))
    return Dataset(name, _split(train), _split(test), likelihood="bernoulli", classes=classes)


def _split(images) -> Split:
    return Split(images.data.unsqueeze(1).to(torch.float32) / 255, images.targets)
