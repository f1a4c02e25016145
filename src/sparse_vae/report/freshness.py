"""Fingerprints of source code: they change when what is computed may have, not when a comment, a docstring or a type
does."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = "sparse_vae"


@cache
def _path(module: str) -> Path | None:
    """The file of a module of this package; None for anything else."""
    if module != PACKAGE and not module.startswith(PACKAGE + "."):
        return None
    base = Path(__file__).parents[1].joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def code_of(source: str) -> str:
    """Python source without what does not change what it does: comments, docstrings, annotations, layout.

    The same text in every version of Python.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A string that stands alone is a docstring, of a module, class, function or attribute.
            body[:] = [part for part in body if not (isinstance(part, ast.Expr) and isinstance(
                part.value, ast.Constant) and isinstance(part.value.value, str)) and not (
                isinstance(part, ast.If) and isinstance(part.test, ast.Name) and part.test.id == "TYPE_CHECKING")]
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)  # that there is one may make a field of a dataclass
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        # What Python 3.12 adds to the same code: a list of type parameters, empty parts of an f-string.
        if getattr(node, "type_params", None) == []:
            del node.type_params  # type: ignore[attr-defined]
        if isinstance(node, ast.JoinedStr):
            node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    return ast.dump(tree, **({"show_empty": True} if sys.version_info >= (3, 13) else {}))


def imports_of(source: str) -> set[str]:
    """The modules of this package that a piece of Python imports, wherever in it, by itself."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found |= _whole(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if _path(f"{node.module}.{alias.name}"):
                    found |= {node.module, *_whole(f"{node.module}.{alias.name}")}
                else:
                    lazy = _lazy_names(node.module)
                    found |= {node.module, lazy[alias.name]} if alias.name in lazy else _whole(node.module)
    return {module for module in found if _path(module)}


def _whole(module: str) -> set[str]:
    """A module and, if it is a package that imports its parts when they are asked for, all of these."""
    return {module, *_lazy_names(module).values()}


@cache
def _lazy_names(module: str) -> dict[str, str]:
    """The names that a package takes from its parts on demand, with ``lazy_loader.attach``: name → module."""
    path = _path(module)
    found: dict[str, str] = {}
    if path is None or path.name != "__init__.py":
        return {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "attach":
            for part in [*node.args[1:], *(keyword.value for keyword in node.keywords)]:
                parts = ast.literal_eval(part)
                if isinstance(parts, dict):
                    found |= {name: f"{module}.{part}" for part, names in parts.items() for name in names}
                else:  # whole modules
                    found |= {name: f"{module}.{name}" for name in parts or []}
    return found


@cache
def _read(module: str) -> tuple[str, frozenset[str]]:
    """A digest of a module's code, and what it imports; with a package belong the files in it that are no Python."""
    path = _path(module)
    assert path is not None
    source = path.read_text()
    digest = hashlib.sha256(code_of(source).encode())
    if path.name == "__init__.py":
        for other in sorted(path.parent.iterdir()):
            if other.is_file() and other.suffix not in (".py", ".pyc"):
                digest.update(other.read_bytes())
    return digest.hexdigest(), frozenset(imports_of(source))


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
