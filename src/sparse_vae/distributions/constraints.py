"""What parameters must satisfy; torch's own constraints let infinity through."""

from __future__ import annotations

import math

from torch import Tensor
from torch.distributions.constraints import Constraint


class _Finite(Constraint):
    """(−∞, ∞)."""

    def check(self, value: Tensor) -> Tensor:
        return value.abs() < math.inf


class _PositiveAndFinite(Constraint):
    """(0, ∞)."""

    def check(self, value: Tensor) -> Tensor:
        return (value > 0) & (value < math.inf)


finite, positive_and_finite = _Finite(), _PositiveAndFinite()
