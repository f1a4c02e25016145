"""Fingerprints of source code: they change when what is computed may have, not when a comment or a docstring does."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = "sparse_vae"


@cache
def _path(module: str) -> Path | None:
    """The file of a module of this package; None for anything else."""
    if module != PACKAGE and not module.startswith(PACKAGE + "."):
        return None
    base = Path(importlib.util.find_spec(PACKAGE).origin).parent.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def code_of(source: str) -> str:
    """Python source without what does not change what it does: comments, docstrings, layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A string that stands alone is a docstring, of a module, class, function or attribute.
            node.body = [part for part in body if not (isinstance(part, ast.Expr) and isinstance(
                part.value, ast.Constant) and isinstance(part.value.value, str))]
    return ast.dump(tree)


def imports_of(source: str) -> set[str]:
    """The modules of this package that a piece of Python imports, wherever in it, by itself."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {module for module in found if _path(module)}


@cache
def _read(module: str) -> tuple[str, frozenset[str]]:
    source = _path(module).read_text()
    beside = set()
    if _path(module).name == "__init__.py" and "lazy_loader" in source:  # it imports its neighbours on demand
        beside = {f"{module}.{path.stem}" for path in _path(module).parent.glob("*.py") if path.stem != "__init__"}
    return hashlib.sha256(code_of(source).encode()).hexdigest(), frozenset(imports_of(source) | beside)


def reached_from(modules: Iterable[str]) -> set[str]:
    """``modules`` and every module of this package that they import, directly or not."""
    found, waiting = set(), {module for module in modules if _path(module)}
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= _read(module)[1] - found
    return found


def digest_of(modules: Iterable[str]) -> str:
    """A digest of the code of these modules of the package."""
    digest = hashlib.sha256()
    for module in sorted(modules):
        digest.update(f"{module} {_read(module)[0]}\n".encode())
    return digest.hexdigest()
