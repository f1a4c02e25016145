"""Checks of user input, shared by every place where it enters.

Each raises an error that names the setting, the value it got and what is allowed.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_INTEGER = 2**31 - 1


class ExplainedError(Exception):
    """An error that its message explains in full; the command line prints that and no traceback."""


class SettingError(ExplainedError, ValueError):
    """A setting, name or value that a user gave and that cannot be used."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> SettingError:
    """The error for a name that is not registered: lists what there is and the nearest name.

    >>> print(unknown_name("model", "vea", ["autoencoder", "vae"]))
    unknown model 'vea'; did you mean 'vae'? Known: autoencoder, vae
    """
    known = list(known)
    nearest = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return SettingError(f"unknown {kind} {name!r}; {hint}Known: {', '.join(known)}")


def allowed_choices(choices: Iterable[str]) -> str:
    """What :func:`check_choice` asks for, in words."""
    return f"one of {', '.join(choices)}"


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """``value`` if it is one of ``choices``, else a :class:`SettingError`.

    >>> check_choice("likelihood", "gaussian", ["bernoulli", "gaussian"])
    'gaussian'
    """
    choices = list(choices)
    if value not in choices:
        raise SettingError(f"{name} must be {allowed_choices(choices)}; got {value!r}")
    return value


def allowed_integers(minimum: int, maximum: int | None = None) -> str:
    """What :func:`check_integer` asks for, in words."""
    return f"an integer of at least {minimum}" + ("" if maximum is None else f" and at most {maximum}")


def check_integer(name: str, value: object, *, minimum: int, maximum: int | None = None) -> int:
    """``value`` if it is an integer in ``[minimum, maximum]``, else a :class:`SettingError`.

    Without a ``maximum``, what does not fit into 32 bits is refused: nothing that is counted here is so large.

    >>> check_integer("epochs", 3, minimum=1)
    3
    """
    if maximum is None and isinstance(value, int) and value > LARGEST_INTEGER:
        maximum = LARGEST_INTEGER
    allowed = allowed_integers(minimum, maximum)
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingError(f"{name} must be {allowed}; got {value!r} ({type(value).__name__})")
    if value < minimum or (maximum is not None and value > maximum):
        raise SettingError(f"{name} must be {allowed}; got {value!r}")
    return value


def allowed_numbers(*, above: float | None = None, minimum: float | None = None, below: float | None = None,
                    maximum: float | None = None) -> str:
    """What :func:`check_number` asks for, in words."""
    bounds = {"above": above, "at least": minimum, "below": below, "at most": maximum}
    given = [f"{words} {bound}" for words, bound in bounds.items() if bound is not None]
    return " ".join(["a finite number", " and ".join(given)]).strip()


def check_number(name: str, value: object, *, above: float | None = None, minimum: float | None = None,
                 below: float | None = None, maximum: float | None = None) -> float:
    """``value`` as a float if it is finite and within the bounds, else a :class:`SettingError`.

    ``above`` and ``below`` exclude the bound itself, ``minimum`` and ``maximum`` include it.

    >>> check_number("rate", 1, above=0, maximum=1)
    1.0
    """
    allowed = allowed_numbers(above=above, minimum=minimum, below=below, maximum=maximum)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SettingError(f"{name} must be {allowed}; got {value!r} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:
        raise SettingError(f"{name} must be {allowed}; got an integer beyond the largest float") from None
    if (not math.isfinite(number) or (above is not None and value <= above)
            or (minimum is not None and value < minimum) or (below is not None and value >= below)
            or (maximum is not None and value > maximum)):
        raise SettingError(f"{name} must be {allowed}; got {value!r}")
    return number


def check_same_shape(**tensors: Tensor) -> None:
    """A :class:`SettingError` that names the shapes if they differ; torch would broadcast some that do."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise SettingError(f"{' and '.join(shapes)} must have one shape; got {' and '.join(map(str, shapes.values()))}")


def parse_value(text: object) -> object:
    """A setting's value from its text: a Python literal, true, false or null, else the text itself.

    >>> parse_value("1e-3"), parse_value("true"), parse_value("conv")
    (0.001, True, 'conv')
    """
    if not isinstance(text, str):
        return text
    words = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
