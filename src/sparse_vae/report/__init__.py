"""The publishing half: suites, measures, run sets, claims, notebooks, pages. ``pip install 'sparse-vae[report]'``."""

import lazy_loader

# A module is imported when something of it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "run_sets": ["Run", "RunSet", "open_runs"],
})
