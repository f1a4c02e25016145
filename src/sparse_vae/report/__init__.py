"""The publishing half: suites, measures, run sets, claims, notebooks, pages. ``pip install 'sparse-vae[report]'``."""

from importlib.util import find_spec

import lazy_loader

_missing = [name for name in ("dask", "matplotlib", "nbformat", "pandas", "papermill", "seaborn", "yaml")
            if find_spec(name) is None]
if _missing:
    raise ImportError(f"sparse_vae.report needs {', '.join(_missing)}: pip install 'sparse-vae[report]'")

# A module is imported when something of it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "run_sets": ["Run", "RunSet", "open_runs"],
})
