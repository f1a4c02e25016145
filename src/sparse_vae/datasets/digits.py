"""scikit-learn's handwritten digits: small, real, and there without a download."""

from __future__ import annotations

import numpy as np
import torch

from sparse_vae.datasets.base import Dataset, Split
from sparse_vae.settings import takes_settings

N_TEST = 360  # a fifth of 1,797
SPLIT_SEED = 0


@takes_settings({})
def load_digits() -> Dataset:
    """Real handwritten digits, 1,797 grey images of 8×8 pixels, that come with scikit-learn (UCI Optdigits).

    They are the test part of *Optical Recognition of Handwritten Digits* (E. Alpaydin and C. Kaynak, UCI Machine
    Learning Repository, 1998). Pixels are counts 0..16, divided by 16 here. The split, 1,437 for training and 360 for
    testing, is stratified by class and always the same; it is ours, there is no official one.

    >>> load_digits().classes
    ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """
    from sklearn.datasets import load_digits as read_digits
    from sklearn.model_selection import train_test_split

    digits = read_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images, digits.target, test_size=N_TEST, stratify=digits.target, random_state=SPLIT_SEED)
    return Dataset(
        name="digits",
        train=_split(x_train, y_train),
        test=_split(x_test, y_test),
        # Seventeen grey levels on 64 pixels: as Bernoulli means they would carry so few nats that a code hardly pays.
        likelihood="gaussian",
        classes=tuple(str(digit) for digit in range(10)),
    )


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(torch.tensor(images / 16, dtype=torch.float32).unsqueeze(1), torch.tensor(labels, dtype=torch.int64))
