"""Where a curve bends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparse_vae.checks import SettingError


def knee(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> int:
    """Index of the point farthest from the straight line between the ends of a curve, both axes scaled to [0, 1].

    That is the knee of Satopää et al. (2011) without their smoothing; of a straight curve it is the first point.

    Args:
        x: increasing, at least three values.
        y: as many.

    Raises:
        SettingError: fewer than three points, or x that does not increase.

    >>> knee([0, 1, 2, 3], [0, 0, 0, 3])
    2
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 3 or len(x) != len(y) or not (np.diff(x) > 0).all():
        raise SettingError(f"a knee needs at least three points with increasing x; got x = {x.tolist()} and {len(y)} y")
    across = (x - x[0]) / (x[-1] - x[0])
    height = (y - y.min()) / max(y.max() - y.min(), np.finfo(float).tiny)
    chord = height[0] + across * (height[-1] - height[0])
    return int(np.abs(height - chord).argmax())
