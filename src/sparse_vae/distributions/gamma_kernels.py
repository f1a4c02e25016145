r"""The compiled loops behind the Gamma distribution: samples, and how a sample moves with its shape.

**Samples** of Gamma(k, 1), k ≥ 1, by Marsaglia & Tsang (2000): k − ⅓ times the cube of a normal number about 1, which
is accepted nineteen times in twenty.

**The gradient** is ∂ ln z/∂k at a fixed quantile. By implicit reparameterization (Figurnov, Mohamed & Mnih 2018) a
sample moves with k such that its quantile u = P(k, z), the regularised lower incomplete gamma function, stays:

    g(k, z) := ∂ ln z/∂k |_u = −(∂P(k, z)/∂k) / (z p(z)),   z p(z) = zᵏ e⁻ᶻ / Γ(k).

Three expressions of it, each where it neither cancels nor converges slowly.

*Lower region*, z ≤ k, and z ≤ 4 for a smaller k. From P = zᵏ e⁻ᶻ Σ zⁿ / Γ(k + 1 + n), term by term,

    g = (1/k) Σₙ zⁿ / (k+1)ₙ · (ψ(k + 1 + n) − ln z),

where every term is positive up to z ≈ k + ½, and little cancels up to 4; as z → 0 it is (ψ(k + 1) − ln z)/k. It is
summed from its end by Horner's rule, ψ falling by 1/(k + n) from step to step.

*Upper region*, above that. With Γ(k, z) = zᵏ e⁻ᶻ W, the complement Q = 1 − P is W z p(z), hence

    g = W (ln z − ψ(k)) + ∂W/∂k,   1/W = z + 1 − k − 1(1 − k)/(z + 3 − k − 2(2 − k)/(z + 5 − k − …)),

Legendre's continued fraction (DLMF 8.9.2), evaluated from its end with its k-derivative carried along.

*Large k, z of its order.* Temme's uniform expansion (1979; DLMF 8.12), with L = ln(z/k), μ = eᴸ − 1, ½η² = μ − L:

    Q = ½ erfc(η √(k/2)) + exp(−½kη²)/√(2πk) · S,   S = Σᵢ k⁻ⁱ Cᵢ(η).

Differentiated, the exponentials cancel against z p(z) = √(k/2π) exp(−½kη²) / Γ*(k):

    g = (Γ*(k)/k) [ μ/η − η/2 + (L − 1/(2k)) S − (1/k) Σᵢ i k⁻ⁱ Cᵢ − (μ/(kη)) Σᵢ k⁻ⁱ Cᵢ′(η) ].

All of it is float64; relative errors stay below 10⁻¹² for k from 10⁻⁵ to 10⁴. The elements of a region are worked on
together, a few hundred at a time, in short loops over arrays that stay in the processor's first cache; numba compiles
them to vector instructions. A machine's first call waits some seconds for that; the result is kept for all later ones.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numba import njit

CHUNK = 256
"""Elements of one region worked on together."""
TEMME_FROM, TEMME_WIDTH = 12.0, 1.1
"""Temme's expansion is used from this k on, for |ln(z/k)| below the width."""
LOWEST_TAIL = 4.0
"""The upper region starts at z = k, but not below this."""
TEMME_ORDERS, TEMME_TERMS = 12, 40

_exactly = njit(nogil=True, cache=True, error_model="numpy")
# A product and a sum may share one rounding.
_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@_exactly
def standard_gamma(source: np.random.Generator, k: np.ndarray, sample: np.ndarray) -> None:
    """Write samples of Gamma(k, 1) to ``sample``: NumPy's own of the same state, in less time.

    Args:
        source: a ``numpy.random.Generator``.
        k, sample: float64 vectors of one length; k ≥ 1, NaN where it is NaN.
    """
    for row in range(len(k)):
        if k[row] == 1:
            sample[row] = source.standard_exponential()
            continue
        mode = k[row] - 1 / 3
        width = 1 / math.sqrt(9 * mode)
        cube, accepted = 0.0, False
        while not accepted:
            normal = source.standard_normal()
            side = 1 + width * normal
            if side <= 0:
                continue
            cube, uniform = side * side * side, source.random()
            # The second comparison lets NaN through, so that a bad shape does not search for ever.
            accepted = (uniform < 1 - 0.0331 * (normal * normal) * (normal * normal)
                        or not math.log(uniform) >= 0.5 * normal * normal + mode * (1 - cube + math.log(cube)))
        sample[row] = mode * cube


@_exactly
def standard_pieces(source: np.random.Generator, k: np.ndarray, sample: np.ndarray, drop: np.ndarray) -> None:
    """Write what ln z of z ~ Gamma(k, 1) is made of, for every k > 0: it is ln ``sample`` − ``drop``.

    Where all shapes are 1 or more these are samples of z itself and 0, else of Gamma(k + 1, 1) and E/k, with E
    exponential of mean 1. Arguments as those of :func:`standard_gamma`.
    """
    smaller = False
    for row in range(len(k)):
        smaller |= not k[row] >= 1
    if not smaller:
        standard_gamma(source, k, sample)
        drop[:] = 0
        return
    standard_gamma(source, k + 1, sample)
    for row in range(len(k)):
        drop[row] = source.standard_exponential() / k[row]


def _temme_series() -> list[list[Fraction]]:
    """Taylor coefficients in η of C₀, C₁, …, by the recurrences of DLMF 8.12.10–12."""
    length = TEMME_TERMS + 2 * TEMME_ORDERS + 2
    alpha = [Fraction(0), Fraction(1), Fraction(1, 3)]  # μ = Σ αₙ ηⁿ
    for n in range(3, length + 2):
        alpha.append((alpha[n - 1] - sum(j * alpha[j] * alpha[n - j + 1] for j in range(2, n))) / (n + 1))
    first = [Fraction(-1, 3), *((n + 2) * alpha[n + 2] for n in range(1, length))]
    series = [first]
    for _ in range(1, TEMME_ORDERS):
        last = series[-1]
        series.append([(n + 2) * last[n + 2] - last[1] * first[n] for n in range(len(last) - 2)])
    return series


_SERIES = _temme_series()
_TEMME = np.array([[float(value) for value in row[:TEMME_TERMS]] for row in _SERIES])
# gᵢ of Γ*(k) = Γ(k) (k/2π)^½ (e/k)ᵏ ~ Σ gᵢ k⁻ⁱ: what keeps the Cᵢ finite at η = 0.
_STIRLING = (1.0, *(float((-1) ** order * row[1]) for order, row in enumerate(_SERIES)))
_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
_LOGARITHM = tuple(2 / (2 * n + 1) for n in range(12))
# η²/L² and μ/L by their series in L, so that they have a value at L = 0.
_SQUARED_ETA = tuple(2 / math.factorial(n + 2) for n in range(22))
_MU = tuple(1 / math.factorial(n + 1) for n in range(22))


@_compiled
def log_sample_gradient(k: np.ndarray, log_z: np.ndarray, z: np.ndarray, tolerance: float,
                        gradient: np.ndarray) -> None:
    """Write g(k, z) of each element to ``gradient``, NaN where k is not positive and finite or ln z is not finite.

    Args:
        k, log_z, z, gradient: float64 vectors of one length; z = exp(log_z).
        tolerance: where series may be cut off, relative to their value.
    """
    # Elements wait here, a row for each of four regions, until there are enough of them.
    rows, waiting = np.empty((4, CHUNK), np.int64), np.zeros(4, np.int64)
    for row in range(len(k)):
        if not (0 < k[row] < math.inf and -math.inf < log_z[row] < math.inf):
            gradient[row] = math.nan
            continue
        if k[row] >= TEMME_FROM and abs(log_z[row] - math.log(k[row])) < TEMME_WIDTH:
            region = 3
        elif z[row] > max(k[row], LOWEST_TAIL):
            region = 2
        elif z[row] > 0.1 * (k[row] + 1):
            region = 1
        else:
            region = 0  # as 1, but few terms are enough
        rows[region, waiting[region]] = row
        waiting[region] += 1
        if waiting[region] == CHUNK:
            _finish(region, rows[region], k, log_z, z, tolerance, gradient)
            waiting[region] = 0
    for region in range(4):
        if waiting[region]:
            _finish(region, rows[region, :waiting[region]], k, log_z, z, tolerance, gradient)


@_compiled
def _finish(region: int, rows: np.ndarray, k: np.ndarray, log_z: np.ndarray, z: np.ndarray, tolerance: float,
            gradient: np.ndarray) -> None:
    """The gradient of the elements of one region, by its formula."""
    own = np.empty((4, len(rows)))
    for j, row in enumerate(rows):
        own[0, j], own[1, j], own[2, j] = k[row], log_z[row], z[row]
    if region == 3:
        _uniform_expansion(own[0], own[1], tolerance, own[3])
    elif region == 2:
        _upper_fraction(own[0], own[1], own[2], tolerance, own[3])
    else:
        _lower_series(own[0], own[1], own[2], tolerance, own[3])
    for j, row in enumerate(rows):
        gradient[row] = own[3, j]


@_compiled
def _lower_series(k: np.ndarray, log_z: np.ndarray, z: np.ndarray, tolerance: float, gradient: np.ndarray) -> None:
    """(1/k) Σ zⁿ/(k + 1)ₙ (ψ(k + 1 + n) − ln z) by Horner's rule, ψ falling by 1/(k + n) from step to step."""
    size, largest_k, largest_ratio = len(k), k[0], 0.0
    for j in range(size):
        largest_k, largest_ratio = max(largest_k, k[j]), max(largest_ratio, z[j] / (k[j] + 1))
    term, n = 1.0, 0  # an upper bound of all zⁿ/(k + 1)ₙ: (z/(k + 1))ⁿ times a product that rises with k
    while term > tolerance or n < 9:
        n += 1
        term *= largest_ratio * (largest_k + 1) / (largest_k + n)
    weight, total = np.empty(size), np.empty(size)
    for j in range(size):
        weight[j] = total[j] = _digamma_of_large(k[j] + (n + 1)) - log_z[j]
    for i in range(n, 0, -1):
        for j in range(size):
            inverse = 1 / (k[j] + i)
            weight[j] -= inverse
            total[j] = total[j] * (z[j] * inverse) + weight[j]
    for j in range(size):
        gradient[j] = total[j] / k[j]


@_compiled
def _upper_fraction(k: np.ndarray, log_z: np.ndarray, z: np.ndarray, tolerance: float, gradient: np.ndarray) -> None:
    """W (ln z − ψ(k)) + ∂W/∂k by Legendre's continued fraction 1/W, from its end."""
    size, largest_k, smallest_z = len(k), 0.0, z[0]
    for j in range(size):
        largest_k, smallest_z = max(largest_k, k[j]), min(smallest_z, z[j])
    # Found by comparison with a reference of 60 digits: the error falls as exp(−4 √(steps · z)).
    needed = (math.log(tolerance) / 4) ** 2
    steps = math.ceil(needed / smallest_z + min(largest_k, TEMME_FROM) / 3) + 3
    value, slope, digamma = np.empty(size), np.empty(size), np.empty(size)
    for j in range(size):
        value[j], slope[j], digamma[j] = z[j] - k[j] + (2 * steps + 1), -1.0, _digamma_of_large(k[j] + 10)
    for n in range(steps, 0, -1):
        for j in range(size):
            inverse = 1 / value[j]
            product = n * (n - k[j]) * inverse
            slope[j] = (slope[j] * product + n) * inverse - 1
            value[j] = z[j] - k[j] - product + (2 * n - 1)
    for i in range(10):
        for j in range(size):
            digamma[j] -= 1 / (k[j] + i)
    for j in range(size):
        gradient[j] = (log_z[j] - digamma[j] - slope[j] / value[j]) / value[j]


@_compiled
def _uniform_expansion(k: np.ndarray, log_z: np.ndarray, tolerance: float, gradient: np.ndarray) -> None:
    """Temme's expansion, differentiated; for k ≥ 12 and |ln z/k| < 1.1."""
    size, smallest_k, widest = len(k), k[0], 0.0
    log_ratio, mu_by_eta, eta = np.empty(size), np.empty(size), np.empty(size)
    for j in range(size):
        log_ratio[j] = log_z[j] - _logarithm(k[j])
        slope_of_eta = math.sqrt(_polynomial(log_ratio[j], _SQUARED_ETA))
        eta[j], mu_by_eta[j] = log_ratio[j] * slope_of_eta, _polynomial(log_ratio[j], _MU) / slope_of_eta
    for j in range(size):
        smallest_k, widest = min(smallest_k, k[j]), max(widest, abs(eta[j]))
    orders = 1
    while orders < TEMME_ORDERS and smallest_k**-orders >= tolerance / 10:
        orders += 1
    sums, values = np.zeros((3, size)), np.empty((2, size))
    correction, weighted, slope = sums
    value, change = values
    for order in range(orders - 1, -1, -1):
        # Later orders matter less and need fewer terms; a term's slope is the larger part of it.
        used = TEMME_TERMS
        while used > 1 and (abs(_TEMME[order, used - 1]) * used * widest ** (used - 2) * smallest_k**-order
                            <= tolerance / 10):
            used -= 1
        values[:] = 0
        for n in range(used - 1, -1, -1):
            for j in range(size):
                change[j] = change[j] * eta[j] + value[j]
                value[j] = value[j] * eta[j] + _TEMME[order, n]
        for j in range(size):
            weighted[j] = weighted[j] / k[j] + order * value[j]
            correction[j] = correction[j] / k[j] + value[j]
            slope[j] = slope[j] / k[j] + change[j]
    for j in range(size):
        inverse = 1 / k[j]
        gradient[j] = _polynomial(inverse, _STIRLING) * inverse * (
            mu_by_eta[j] - eta[j] / 2 + (log_ratio[j] - inverse / 2) * correction[j]
            - inverse * weighted[j] - inverse * mu_by_eta[j] * slope[j])


@_compiled
def _digamma_of_large(x: float) -> float:
    """ψ(x) for x ≥ 10 by its asymptotic series."""
    inverse = 1 / x
    return _logarithm(x) - inverse * (0.5 + inverse * _polynomial(inverse * inverse, _DIGAMMA))


@_compiled
def _logarithm(x: float) -> float:
    """ln x of a normal positive number, as vector instructions can take it: ln m + e ln 2 of x = m 2ᵉ with m from √½
    to √2, and ln m = 2 artanh s = Σ 2/(2n + 1) s²ⁿ⁺¹ with s = (m − 1)/(m + 1)."""
    bits = np.float64(x).view(np.int64)
    # The exponent's bits, of m from 1 to 2; what is added makes those of about √2 and more overflow.
    exponent = (bits + (0x95F6400000000 - 0x3FF0000000000000)) >> 52
    mantissa = np.int64(bits - (exponent << 52)).view(np.float64)
    s = (mantissa - 1) / (mantissa + 1)
    return exponent * math.log(2) + s * _polynomial(s * s, _LOGARITHM)


@_compiled
def _polynomial(x: float, coefficients: tuple[float, ...]) -> float:
    """Σ cₙ xⁿ by Horner's rule; the coefficients are constants of the compiled code."""
    value = coefficients[-1]
    for n in range(len(coefficients) - 2, -1, -1):
        value = value * x + coefficients[n]
    return value
