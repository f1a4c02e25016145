"""MNIST and Fashion-MNIST, read from verified archives.

Only the archives (``*.gz``) are kept, in the folder where torchvision keeps them, and their md5 is checked at every
load. Names, addresses and md5s are those that torchvision has.
"""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparse_vae.datasets.base import Dataset, Split
from sparse_vae.datasets.download import RemoteFile, md5_problem, verified_path
from sparse_vae.settings import takes_settings

CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
ARCHIVES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
            "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
MD5S = {
    "mnist": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
              "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
    "fashion-mnist": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
                      "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"),
}
FOLDERS = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}
ADDRESSES = {"mnist": ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
             "fashion-mnist": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)}


@takes_settings({})
def load_mnist(root: str | Path = "data") -> Dataset:
    """Handwritten digits, 60,000 + 10,000 grey images of 28×28 pixels (LeCun, Bottou, Bengio, Haffner 1998).

    Pixels are grey levels 0..255 divided by 255; the split is the official one.
    Source: *Gradient-based learning applied to document recognition*, Proceedings of the IEEE 86(11), 1998.
    """
    return _load("mnist", root, classes=tuple(str(digit) for digit in range(10)))


@takes_settings({})
def load_fashion_mnist(root: str | Path = "data") -> Dataset:
    """Photographs of clothes, 60,000 + 10,000 grey images of 28×28 pixels (Xiao, Rasul, Vollgraf 2017).

    Pixels are grey levels 0..255 divided by 255; the split is the official one.
    Source: *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms*, arXiv:1708.07747.
    """
    return _load("fashion-mnist", root, classes=CLOTHES)


def archives_of(name: str) -> list[RemoteFile]:
    """The four archives of one of the two."""
    return [RemoteFile(path=f"{FOLDERS[name]}/{archive}", mirror_path=f"{name}/{archive}",
                       urls=tuple(address + archive for address in ADDRESSES[name]),
                       problem=functools.partial(md5_problem, expected=md5))
            for archive, md5 in zip(ARCHIVES, MD5S[name], strict=True)]


def _load(name: str, root: str | Path, classes: tuple[str, ...]) -> Dataset:
    values = [_read(verified_path(file, root, name)) for file in archives_of(name)]
    train, test = (Split(images.unsqueeze(1).to(torch.float32) / 255, labels.to(torch.int64))
                   for images, labels in (values[:2], values[2:]))
    return Dataset(name, train, test, likelihood="bernoulli", classes=classes)


def _read(archive: Path) -> Tensor:
    """The values in a file of the format IDX: three bytes, the number of dimensions, their sizes, one byte a value."""
    with gzip.open(archive) as file:
        content = bytearray(file.read())
    sizes = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + sizes.nbytes).reshape(sizes))
