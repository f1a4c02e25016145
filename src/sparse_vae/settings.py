"""Settings, declared once, as data: what a value may be, what it is when nobody says, and what it means.

A model declares its settings in its class, a data set beside its loader, the training in its dataclass. Checks, what
the command line lists, titles and the records of runs follow from the declarations.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import wraps
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar, cast

from sparse_vae.checks import (
    SettingError,
    allowed_choices,
    allowed_integers,
    allowed_numbers,
    check_choice,
    check_integer,
    check_number,
    unknown_name,
)

Result = TypeVar("Result", covariant=True)


@dataclass(frozen=True)
class Setting:
    """The declaration of a setting; its kinds are below.

    Attributes:
        default: the value when none is given. If it is None, None may be given, too.
        help: what it is, with units, a phrase without a full stop.
        symbol: of a number: titles then say "symbol = value".
        title: of a choice: what titles say, ``{}`` the value, when it is not the default.
        otherwise: what None stands for, computed from the other settings.
    """

    default: object
    help: str
    _: KW_ONLY
    symbol: str = ""
    title: str = ""
    otherwise: Callable[[SimpleNamespace], object] | None = None

    @property
    def allowed(self) -> str:
        """What a value must be, in words."""
        raise NotImplementedError

    def accept(self, name: str, value: object) -> object:
        """``value`` in the form in which it is recorded, or a :class:`SettingError`."""
        raise NotImplementedError

    def check(self, name: str, value: object) -> object:
        """As :meth:`accept`, and None where that is the default."""
        return None if value is None and self.default is None else self.accept(name, value)

    @property
    def field(self) -> Any:
        """A field of a dataclass that is declared by this setting; what type it has, the dataclass says."""
        return dataclasses.field(default=self.default, metadata={"setting": self})


@dataclass(frozen=True, kw_only=True)
class Integer(Setting):
    """An integer in ``[minimum, maximum]``."""

    minimum: int = 1
    maximum: int | None = None

    @property
    def allowed(self) -> str:
        return allowed_integers(self.minimum, self.maximum)

    def accept(self, name: str, value: object) -> int:
        return check_integer(name, value, minimum=self.minimum, maximum=self.maximum)


@dataclass(frozen=True, kw_only=True)
class Number(Setting):
    """A finite number; ``above`` and ``below`` exclude the bound itself, ``minimum`` and ``maximum`` include it."""

    above: float | None = None
    minimum: float | None = None
    below: float | None = None
    maximum: float | None = None

    @property
    def _bounds(self) -> dict[str, float | None]:
        return {name: getattr(self, name) for name in ("above", "minimum", "below", "maximum")}

    @property
    def allowed(self) -> str:
        return allowed_numbers(**self._bounds)

    def accept(self, name: str, value: object) -> float:
        return check_number(name, value, **self._bounds)


@dataclass(frozen=True, kw_only=True)
class Choice(Setting):
    """One of several names."""

    choices: Collection[str]

    @property
    def allowed(self) -> str:
        return allowed_choices(self.choices)

    def accept(self, name: str, value: object) -> str:
        return check_choice(name, value, self.choices)


@dataclass(frozen=True, kw_only=True)
class Flag(Setting):
    """True or false."""

    allowed = "true or false"

    def accept(self, name: str, value: object) -> bool:
        if not isinstance(value, bool):
            raise SettingError(f"{name} must be {self.allowed}; got {value!r}")
        return value


@dataclass(frozen=True, kw_only=True)
class File(Setting):
    """The path of a file, recorded as text."""

    allowed = "the path of a file"

    def accept(self, name: str, value: object) -> str:
        if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
            raise SettingError(f"{name} must be {self.allowed}; got {value!r} ({type(value).__name__})")
        return os.fspath(value)


def defaults(settings: Mapping[str, Setting]) -> dict[str, object]:
    """The default of every setting, by name."""
    return {name: setting.default for name, setting in settings.items()}


def resolve(settings: Mapping[str, Setting], values: Mapping[str, object]) -> SimpleNamespace:
    """The values, defaults for those that are not there, and in the place of None what it stands for."""
    resolved = SimpleNamespace(**{**defaults(settings), **values})
    for name, setting in settings.items():
        if setting.otherwise is not None and getattr(resolved, name) is None:
            setattr(resolved, name, setting.otherwise(resolved))
    return resolved


def check_settings(settings: Mapping[str, Setting], given: Mapping[str, object], *, of: str,
                   together: Callable[[SimpleNamespace], None] | None = None) -> dict[str, object]:
    """The value of every setting: what is given, checked, and else the default.

    Args:
        settings: the declarations.
        given: values by name.
        of: whose settings they are, for the error.
        together: given the resolved values, raises a :class:`SettingError` if they do not go together.

    Raises:
        SettingError: an unknown name, with the nearest one, or a value that is not allowed.

    >>> check_settings({"size": Integer(3, "of something")}, {"size": 0}, of="an example")
    Traceback (most recent call last):
    sparse_vae.checks.SettingError: size must be an integer of at least 1; got 0
    """
    for name in given:
        if name not in settings:
            raise unknown_name(f"setting of {of}", name, settings)
    values = defaults(settings) | {name: settings[name].check(name, value) for name, value in given.items()}
    if together is not None:
        together(resolve(settings, values))
    return values


class TakesSettings(Protocol[Result]):
    """A function of declared settings, as :func:`takes_settings` makes it."""

    settings: Mapping[str, Setting]
    check: Callable[..., dict[str, object]]

    def __call__(self, *positional: Any, **named: Any) -> Result: ...


def takes_settings(settings: Mapping[str, Setting], *, together: Callable[[SimpleNamespace], None] | None = None
                   ) -> Callable[[Callable[..., Result]], TakesSettings[Result]]:
    """Decorate a function so that these settings, its keyword arguments, are checked and have their defaults.

    They may also be given by position, in the order in which they are declared; other arguments are passed on by name.
    The function has ``settings``, and ``check``, which gives the checked values of all of them: :func:`check_settings`.
    """
    def decorate(function: Callable[..., Result]) -> TakesSettings[Result]:
        others = inspect.signature(function).parameters.keys() - settings.keys()

        def check(given: Mapping[str, object], of: str = function.__name__) -> dict[str, object]:
            return check_settings(settings, given, of=of, together=together)

        @wraps(function)
        def call(*positional: Any, **named: Any) -> Result:
            passed = {name: named.pop(name) for name in others & named.keys()}
            given = dict(zip(settings, positional, strict=False))
            if len(positional) > len(settings) or given.keys() & named.keys():
                raise TypeError(f"{function.__name__} takes each of {', '.join(settings)} once")
            return function(**passed, **check(given | named))

        taking = cast(TakesSettings[Result], call)
        taking.settings, taking.check = settings, check
        return taking
    return decorate


def title_of(label: str, settings: Mapping[str, Setting], values: Mapping[str, object]) -> str:
    """The label, then the choices that are not the default, then the numbers that have a symbol.

    >>> title_of("VAE", {"beta": Number(1.0, "weight of the KL", symbol="β")}, {"beta": 4.0})
    'VAE (β = 4)'
    """
    values = vars(resolve(settings, values))
    unusual = [setting.title.format(values[name]) for name, setting in settings.items()
               if setting.title and values[name] != setting.default]
    numbers = [f"{setting.symbol} = {values[name]:g}" for name, setting in settings.items() if setting.symbol]
    return ", ".join([label, *unusual]) + (f" ({', '.join(numbers)})" if numbers else "")


def values_text(values: Mapping[str, object]) -> str:
    """Values of settings as one types them.

    >>> values_text({"epochs": 3, "csv": None})
    'epochs=3 csv=none'
    """
    return " ".join(f"{name}={str(value).lower() if value is None or isinstance(value, bool) else value}"
                    for name, value in values.items())


def setting_lines(settings: Mapping[str, Setting]) -> list[str]:
    """A line for each setting, for people: name and default, what it is, what is allowed.

    >>> setting_lines({"size": Integer(None, "of something, none is all of it")})
    ['size=none  of something, none is all of it (an integer of at least 1, or none)']
    """
    names = {name: values_text({name: setting.default}) for name, setting in settings.items()}
    width = max(map(len, names.values()), default=0)
    return [f"{names[name]:{width}}  {setting.help} ({setting.allowed}{', or none' * (setting.default is None)})"
            for name, setting in settings.items()]
