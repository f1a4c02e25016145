"""What a data set is: tensors in memory, and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from sparse_vae.checks import ExplainedError, SettingError, check_integer


class DataError(ExplainedError, RuntimeError):
    """Data that is missing, damaged or not what it should be, or that cannot be fetched or written."""


@dataclass(frozen=True)
class Split:
    """The training or the test part of a data set, ``n`` samples.

    Attributes:
        x: observations, float32, ``(n, *input_shape)``; images are ``(n, channels, height, width)`` in [0, 1].
        y: class labels, int64 ``(n,)`` indexing ``Dataset.classes``, or None where there are no classes.
        factors: ground-truth sources, float32 ``(n, n_factors)``, or None where they are not known.
        groups: what a fair split must not divide (UCI HAR: the subject), int64 ``(n,)``, or None.

    >>> import torch
    >>> len(Split(torch.zeros(7, 1, 8, 8)))
    7
    """

    x: Tensor
    y: Tensor | None = None
    factors: Tensor | None = None
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> Split:
        """These samples, of everything that is there."""
        parts: dict[str, Any] = {name: None if part is None else part[rows] for name, part in vars(self).items()}
        return replace(self, **parts)


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Attributes:
        name: as registered.
        train, test: the two parts.
        validation: a part of the training data that is held out to choose settings by, see :meth:`hold_out`, or None.
        likelihood: the family that suits the observations, ``"bernoulli"`` (values in [0, 1]) or ``"gaussian"``.
        classes: names of the labels, empty where there are none.
        factor_names: names of the columns of ``Split.factors``, empty where they are not known.
        loadings: what a unit of each source adds to an observation, float32 ``(n_factors, *input_shape)``, where
            observations are sums of that and noise; None elsewhere.
        feature_names: names of the features of vector data, empty otherwise.
        description: one sentence for the report: what it is, where it comes from.

    >>> import torch
    >>> data = Dataset("mine", Split(torch.rand(8, 5)), Split(torch.rand(2, 5)), likelihood="bernoulli")
    >>> data.input_shape, data.is_image, len(data.train)
    ((5,), False, 8)
    """

    name: str
    train: Split
    test: Split
    likelihood: str
    classes: tuple[str, ...] = ()
    factor_names: tuple[str, ...] = ()
    loadings: Tensor | None = None
    feature_names: tuple[str, ...] = ()
    description: str = ""
    validation: Split | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one observation, without the batch dimension."""
        return tuple(self.train.x.shape[1:])

    @property
    def measured(self) -> Split:
        """What measures are taken of: the validation part where there is one, so that test data stay unseen."""
        return self.test if self.validation is None else self.validation

    def hold_out(self, n: int) -> Dataset:
        """The data set with the last ``n`` training samples as its validation part, more where a group (UCI HAR: a
        subject) would be divided.

        Raises:
            SettingError: nothing would be left to train on.

        >>> import torch
        >>> data = Dataset("mine", Split(torch.rand(8, 5)), Split(torch.rand(2, 5)), likelihood="bernoulli").hold_out(3)
        >>> len(data.train), len(data.measured)
        (5, 3)
        """
        first = len(self.train) - check_integer("validation", n, minimum=1, maximum=len(self.train) - 1)
        groups = self.train.groups
        if groups is not None:
            first = int((groups == groups[first]).nonzero()[0, 0])
            if first == 0:
                raise SettingError(f"validation must leave a group of training observations; got {n}, and the "
                                   f"{len(groups)} that there are would go")
        return replace(self, train=self.train[:first], validation=self.train[first:])

    @property
    def is_image(self) -> bool:
        """Whether an observation is an image, ``(channels, height, width)``."""
        return len(self.input_shape) == 3

    @property
    def value_range(self) -> tuple[float, float]:
        """The smallest and the largest value an observation takes: (0, 1), or those of the training data."""
        if self.likelihood == "bernoulli":
            return 0.0, 1.0
        return self.train.x.min().item(), self.train.x.max().item()
