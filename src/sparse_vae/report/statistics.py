"""Means, errors and differences over seeds, as the report states them.

With few seeds a difference of means has a t distribution with few degrees of freedom: for three, two standard errors
are no test. Differences are tested by Welch's test, or a paired one where runs share their seeds, and corrected for
their number (Holm 1979).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from sparse_vae.checks import SettingError

LEVEL = 0.05
TAIL = 0.1
ROUNDING = 1e-12
"""A spread that is smaller, relative to the values, is an error of their arithmetic."""
NO_BREAK_SPACE = "\u00a0"


class Comparison(NamedTuple):
    """A difference of two means, its 95% interval, its p value, and that after Holm's correction; NaN of single values.
    """

    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    n: tuple[int, int]

    @property
    def differs(self) -> bool:
        """Whether the difference is told from 0 at 5%, after the correction."""
        return bool(self.p_holm < LEVEL)

    def as_text(self, digits: int, scale: float = 1.0) -> str:
        """The difference and its interval as tables write them, in bold where it is told from 0; "—" where it is none.

        >>> Comparison(-1.25, -2.5, 0.0, 0.05, 0.05, (3, 3)).as_text(1)
        '−1.2\xa0(−2.5\xa0to\xa0+0.0)'
        """
        difference, low, high = (f"{scale * value:+z.{digits}f}".replace("-", "−")
                                 for value in (self.difference, self.low, self.high))
        if np.isnan(self.difference):
            return "—"
        shown = f"**{difference}**" if self.differs else difference
        return shown if np.isnan(self.low) else f"{shown} ({low} to {high})".replace(" ", NO_BREAK_SPACE)


def compare_means(first: Sequence[float], second: Sequence[float], *, paired: bool = False) -> Comparison:
    """The mean of ``first`` minus that of ``second``, by Welch's test, or by a paired one.

    Without spread (single values, equal values, pairs that all differ by the same) there is a difference and no test.

    Raises:
        SettingError: pairs of unequal number.

    >>> compare_means([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]).difference
    -2.0
    """
    counts = len(first), len(second)
    if paired and counts[0] != counts[1]:
        raise SettingError(f"a paired comparison needs as many values on both sides; got {counts[0]} and {counts[1]}")
    difference = float(np.mean(first) - np.mean(second)) if min(counts) else np.nan
    size = np.abs([*first, *second]).max(initial=0.0)
    spread = [np.subtract(first, second)] if paired else [first, second]
    if min(counts) < 2 or all(np.ptp(values) <= ROUNDING * size for values in spread):
        return Comparison(difference, np.nan, np.nan, np.nan, np.nan, counts)
    with warnings.catch_warnings():
        # SciPy fears for its precision where the values of one side are equal; their variance is 0 all the same.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        test = stats.ttest_rel(first, second) if paired else stats.ttest_ind(first, second, equal_var=False)
    low, high = test.confidence_interval(1 - LEVEL)
    return Comparison(difference, float(low), float(high), float(test.pvalue), float(test.pvalue), counts)


class Convergence(NamedTuple):
    """How much a loss fell in the last tenth of its epochs, mean over the seeds, and the standard error over the seeds
    of where it ended; NaN of a single seed."""

    fall: float
    error: float

    @property
    def converged(self) -> bool:
        """Whether it fell by no more than the error; of a single seed that cannot be said, and it counts as so."""
        return not self.fall > self.error


def convergence(losses: Sequence[Sequence[float]]) -> Convergence:
    """Whether a loss still fell at the end: one sequence for each seed, one value for each epoch.

    The last tenth of the epochs is one epoch at least.

    Raises:
        SettingError: no sequence, or one of a single epoch.

    >>> convergence([[3.0, 1.0], [3.5, 1.2]]).converged
    False
    """
    if not losses or min(map(len, losses)) < 2:
        raise SettingError(f"convergence needs two epochs or more of each seed; got {[len(own) for own in losses]}")
    falls = [own[-1 - max(1, round(TAIL * len(own)))] - own[-1] for own in losses]
    ends = [own[-1] for own in losses]
    error = np.std(ends, ddof=1) / len(ends) ** 0.5 if len(ends) > 1 else np.nan
    return Convergence(float(np.mean(falls)), float(error))


def correct(tests: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with p values corrected for their number by Holm's step-down procedure.

    >>> [test.p_holm for test in correct([Comparison(0, 0, 0, p, p, (3, 3)) for p in (0.01, 0.04, 0.03)])]
    [0.03, 0.06, 0.06]
    """
    known = [index for index, test in enumerate(tests) if not np.isnan(test.p)]
    corrected, largest = list(tests), 0.0
    for rank, index in enumerate(sorted(known, key=lambda index: tests[index].p)):
        largest = max(largest, min(1.0, (len(known) - rank) * tests[index].p))
        corrected[index] = tests[index]._replace(p_holm=largest)
    return corrected


def mean_and_error(values: Sequence[float], digits: int) -> str:
    """Mean ± standard error of the mean, as tables write it; a dash of no value, NaN being none.

    The mean stands alone where there is one value, or where all are equal. Where the error would be all zeros both have
    more digits, so that it shows one that is not.

    >>> mean_and_error([1.0, 3.0], 1), mean_and_error([1.0, 1.006], 1)
    ('2.0\xa0±\xa01.0', '1.003\xa0±\xa00.003')
    """
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    if not len(known):
        return "—"
    spread = len(known) > 1 and np.ptp(known) > ROUNDING * np.abs(known).max()
    error = known.std(ddof=1) / len(known) ** 0.5 if spread else 0.0
    if spread and float(f"{error:.{digits}f}") == 0:
        digits = -int(f"{error:.0e}".partition("e")[2])  # of the error as it is rounded
    mean = f"{known.mean():z.{digits}f}".replace("-", "−")
    return f"{mean}{NO_BREAK_SPACE}±{NO_BREAK_SPACE}{error:.{digits}f}" if spread else mean
