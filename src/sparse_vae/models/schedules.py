"""Settings that change in the course of training, counted in optimiser steps; ``None`` is the end of training."""

from __future__ import annotations

from typing import NamedTuple

from sparse_vae.checks import check_integer, check_number


class Temperature(NamedTuple):
    """A temperature that moves from ``start`` to ``end`` in geometric steps, then stays."""

    start: float
    end: float
    steps: int

    @classmethod
    def checked(cls, temperature: object, final_temperature: object, anneal_steps: object) -> Temperature:
        """From the settings of a model; no final temperature keeps the first one.

        Raises:
            SettingError: a temperature that is not above 0, or fewer steps than 1.
        """
        start = check_number("temperature", temperature, above=0)
        end = start if final_temperature is None else check_number("final_temperature", final_temperature, above=0)
        return cls(start, end, check_integer("anneal_steps", anneal_steps, minimum=1))

    def at(self, step: int | None) -> float:
        """The temperature at an optimiser step."""
        progress = 1.0 if step is None else min(1.0, step / self.steps)
        return self.start * (self.end / self.start) ** progress


def ramp(step: int | None, steps: int) -> float:
    """A weight that rises linearly to 1 over ``steps``, in (0, 1]."""
    return 1.0 if step is None else min(1.0, (step + 1) / steps)
