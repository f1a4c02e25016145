"""Daily returns of assets: a simulated market whose sparse factors are known, or your own CSV file.

The simulated market is a sparse factor model with two hidden regimes. On day t, in percent,

    r_t = f_t B + e_t,   f_tk = a_tk · v(s_t) · N(0, 1),   a_tk ~ Bernoulli(p(s_t)),   e_ti ~ N(0, noise²)

where the regime s_t is a Markov chain (calm or turbulent), and the factor k is active (a = 1) more often and moves more
(volatility v) in turbulent times. B is sparse too: an asset has a home factor and loads on few others.

It is a simulation made to be read, not a model of any market: no means, no trends, no fat tails beyond those of
sleeping factors and regimes, no dependence of the factors on each other; nothing learned from it says anything about
an investment.
"""

from __future__ import annotations

import csv as csv_format
import math
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sparse_vae.datasets.base import DataError, Dataset, Split
from sparse_vae.settings import File, Integer, Number, takes_settings


class Regime(NamedTuple):
    """How a market behaves while the regime lasts."""

    stay: float  # probability that the next day is the same
    activity: float  # probability that a factor is active
    volatility: float  # of an active factor, in percent a day


REGIMES = {"calm": Regime(0.98, 0.1, 1.0), "turbulent": Regime(0.94, 0.4, 2.0)}
OTHER_LOADINGS = 0.1  # probability that an asset loads on a factor that is not its home
MIN_DAYS = 30


MARKET = {
    "n_days": Integer(5_000, "days in both parts together", minimum=MIN_DAYS),
    "n_assets": Integer(50, "assets of the market"),
    "n_factors": Integer(8, "factors of the market"),
    "noise": Number(0.5, "standard deviation of an asset's own moves, in percent a day", minimum=0),
}
SEED = {"seed": Integer(0, "of the simulation", minimum=0)}


@takes_settings({
    **MARKET,
    "test_share": Number(0.2, "share of the days, the last ones, in the test part", minimum=0.05, maximum=0.95),
    **SEED,
    "csv": File(None, "CSV file of your own returns instead of the simulation (see read_returns); regimes and factors "
                "are then unknown, and of the other settings only test_share is used"),
})
def load_returns(n_days: int, n_assets: int, n_factors: int, noise: float, test_share: float, seed: int,
                 csv: str | None) -> Dataset:
    """Daily returns of 50 simulated assets, driven by few factors that wake and sleep with hidden market regimes.

    The training part comes first in time, the test part after it. ``x`` is ``(n, n_assets)``, standardised: every
    asset has mean 0 and standard deviation 1 over the training days. ``factors`` are what the factors did, in percent,
    0 where asleep; ``y`` is the regime. :func:`simulate_returns` gives loadings and unscaled returns of the same
    market.

    >>> load_returns(n_days=100).train.x.shape
    torch.Size([80, 50])
    """
    if csv is None:
        market = simulate_returns(n_days, n_assets, n_factors, noise, seed)
        return _dataset(market.returns, test_share, [f"asset {i + 1}" for i in range(n_assets)], classes=tuple(REGIMES),
                        y=market.regimes, factors=market.factors, loadings=market.loadings)
    assets, returns = read_returns(csv)
    description = f"Daily returns of {len(assets)} assets on {len(returns):,} days, from {Path(csv).name}."
    return _dataset(returns, test_share, assets, description=description)


class Market(NamedTuple):
    """A simulated market: ``returns`` is ``factors @ loadings`` and noise.

    Attributes:
        returns: ``(n_days, n_assets)``, in percent.
        factors: ``(n_days, n_factors)``, in percent, 0 where asleep.
        loadings: ``(n_factors, n_assets)``, mostly 0.
        regimes: ``(n_days,)``, indices into ``REGIMES``.
    """

    returns: np.ndarray
    factors: np.ndarray
    loadings: np.ndarray
    regimes: np.ndarray


@takes_settings({**MARKET, **SEED})
def simulate_returns(n_days: int, n_assets: int, n_factors: int, noise: float, seed: int) -> Market:
    """The simulated market; the settings are those of :func:`load_returns`.

    >>> market = simulate_returns(n_days=100, n_assets=10, n_factors=3)
    >>> market.returns.shape, market.loadings.shape
    ((100, 10), (3, 10))
    """
    random = np.random.default_rng(seed)
    home = np.arange(n_assets) % n_factors == np.arange(n_factors)[:, None]
    loads = home | (random.random((n_factors, n_assets)) < OTHER_LOADINGS)
    signs = random.choice([-1, 1], size=loads.shape)
    loadings = loads * signs * random.uniform(0.5, 1.5, loads.shape)

    stay, activity, volatility = np.array(list(REGIMES.values())).T
    regimes = np.zeros(n_days, dtype=np.int64)
    luck = random.random(n_days)
    for day in range(1, n_days):
        yesterday = regimes[day - 1]
        regimes[day] = yesterday if luck[day] < stay[yesterday] else 1 - yesterday

    active = random.random((n_days, n_factors)) < activity[regimes, None]
    factors = active * volatility[regimes, None] * random.standard_normal((n_days, n_factors))
    returns = factors @ loadings + noise * random.standard_normal((n_days, n_assets))
    return Market(returns, factors, loadings, regimes)


def read_returns(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Names of the assets and their returns, ``(n_days, n_assets)``, from a CSV file.

    The first row holds the names of the columns, the first column ISO dates (2024-01-31) that increase; every other
    column is an asset, every other cell a number, in any unit.

    Raises:
        DataError: the file is missing or breaks a rule; the message names the file, the line and the column.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv_format.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv_format.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from error

    header = [name.strip() for name in rows[0][1]] if rows else []
    assets = header[1:]
    if not assets:
        raise DataError(f"{path} needs a column of dates and at least one of returns, separated by commas; "
                        f"its first row has {len(header)}")
    if len(set(assets)) < len(assets) or "" in assets:
        raise DataError(f"{path}, line {rows[0][0]}: every asset needs a name of its own; got {', '.join(assets)}")
    days, returns = [], []
    for line, row in rows[1:]:
        place = f"{path}, line {line}"
        if len(row) != len(header):
            raise DataError(f"{place}: {len(row)} columns, but the first row has {len(header)}")
        days.append(_date(row[0], f"{place}, column {header[0]!r}"))
        if len(days) > 1 and days[-1] <= days[-2]:
            complaint = "occurs twice" if days[-1] == days[-2] else f"comes after {days[-2]}, which is later"
            raise DataError(f"{place}: {days[-1]} {complaint}; dates must increase")
        returns.append([_number(text, f"{place}, column {asset!r}")
                        for asset, text in zip(assets, row[1:], strict=True)])
    if len(days) < MIN_DAYS:
        raise DataError(f"{path} has {len(days)} days; at least {MIN_DAYS} are needed")
    return assets, np.array(returns)


def _date(text: str, place: str) -> date:
    try:
        return datetime.fromisoformat(text.strip()).date()
    except ValueError as error:
        raise DataError(f"{place}: {text!r} is not a date like 2024-01-31") from error


def _number(text: str, place: str) -> float:
    if text.strip().lower() in ("", "na", "n/a", "nan", "null"):
        raise DataError(f"{place}: the value is missing")
    try:
        number = float(text)
    except ValueError as error:
        raise DataError(f"{place}: {text!r} is not a number") from error
    if not math.isfinite(number):
        raise DataError(f"{place}: {text!r} is not finite")
    return number


def _dataset(returns: np.ndarray, test_share: float, assets: list[str], y: np.ndarray | None = None,
             factors: np.ndarray | None = None, loadings: np.ndarray | None = None, classes: tuple[str, ...] = (),
             description: str = "") -> Dataset:
    n_train = len(returns) - round(test_share * len(returns))
    training = returns[:n_train]
    still = np.ptp(training, axis=0) == 0
    if still.any():
        raise DataError(f"the returns of {assets[still.argmax()]!r} do not vary in the {n_train} training days")
    with np.errstate(all="ignore"):
        mean, deviation = training.mean(axis=0), training.std(axis=0)
        returns = ((returns - mean) / deviation).astype(np.float32)
    finite = np.isfinite(returns).all(axis=0) & np.isfinite(deviation)
    if not finite.all():
        raise DataError(f"the returns of {assets[finite.argmin()]!r} cannot be divided by their standard deviation in "
                        f"the {n_train} training days: one of the numbers is too large, or all are too small")

    def split(days: slice) -> Split:
        return Split(x=torch.from_numpy(returns[days]),
                     y=None if y is None else torch.tensor(y[days]),
                     factors=None if factors is None else torch.tensor(factors[days], dtype=torch.float32))

    names = () if factors is None else tuple(f"factor {k + 1}" for k in range(factors.shape[1]))
    return Dataset("returns", split(slice(n_train)), split(slice(n_train, None)), likelihood="gaussian",
                   classes=classes, factor_names=names, feature_names=tuple(assets), description=description,
                   loadings=None if loadings is None else torch.tensor(loadings / deviation, dtype=torch.float32))
