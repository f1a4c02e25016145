"""Settings that change in the course of training, counted in optimiser steps; ``None`` is the end of training."""

from __future__ import annotations

from sparse_vae.settings import Integer, Number

SCHEDULES = {
    "temperature": Number(0.5, "τ of relaxed samples, at the start of training", above=0),
    "final_temperature": Number(None, "τ at the end, reached in geometric steps; none is the one at the start", above=0,
                                otherwise=lambda settings: settings.temperature),
    "anneal_steps": Integer(5000, "optimiser steps over which τ moves"),
    "kl_ramp_steps": Integer(1000, "optimiser steps over which the weight of what the code costs rises to 1"),
}


def annealed(step: int | None, start: float, end: float, steps: int) -> float:
    """A value that moves from ``start`` to ``end``, both above 0, in geometric steps, then stays."""
    progress = 1.0 if step is None else min(1.0, step / steps)
    return start * (end / start) ** progress


def ramp(step: int | None, steps: int) -> float:
    """A weight that rises linearly to 1 over ``steps``, in (0, 1]."""
    return 1.0 if step is None else min(1.0, (step + 1) / steps)
