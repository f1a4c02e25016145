"""The library's reference: what the docstrings say, as Markdown, for the pages ``report/api-*.qmd``.

A page is short and written by hand; its ``{{< cell api-models >}}`` is made here, whenever the site is built, by
``report/extract.py``. Sources are read, not imported, with Python's standard library alone: pages are there in a fresh
clone where nothing is installed, and cannot be out of date.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOMS = {
    "distributions": ("distributions",),
    "models": ("models", "models.base", "models.autoencoder", "models.sparse_autoencoder", "models.classical",
               "nets"),
    "variational": ("models.vae", "models.vsc", "models.hybrid"),
    "datasets": ("datasets", "datasets.digits", "datasets.mnist", "datasets.smiley", "datasets.sinusoids",
                 "datasets.uci_har", "datasets.returns"),
    "training": ("training", "configuration", "checkpoints", "settings", "checks"),
    "evaluation": ("evaluation",),
    "report": ("report.run_sets", "report.plots", "report.figures", "report.notebook", "report.measures"),
}
"""The modules on each page. Of a package, what its ``__all__`` names and no other page has; of a module, what it
defines without ``_``."""
EQUATIONS = {
    "Gamma": {"the sampler": "gamma-sampler.qmd#eq-gamma-log", "its gradient": "gamma-sampler.qmd#eq-gamma-implicit",
              "the divergence": "hybrid.qmd#eq-gamma-kl"},
    "gamma_log_sample_grad": {"the definition": "gamma-sampler.qmd#eq-gamma-implicit",
                              "series": "gamma-sampler.qmd#eq-gamma-series",
                              "continued fraction": "gamma-sampler.qmd#eq-gamma-fraction",
                              "uniform expansion": "gamma-sampler.qmd#eq-gamma-temme-gradient"},
    "SpikeSlab": {"the density": "vsc.qmd#eq-spike-slab", "the divergence": "vsc.qmd#eq-spike-slab-kl"},
    "SPIKES": {"the estimators": "vsc.qmd#sec-spikes"},
    "sample_spikes": {"the estimators": "vsc.qmd#sec-spikes"},
    "Ternary": {"magnitudes and signs": "hybrid.qmd#eq-hybrid-posteriors"},
    "bernoulli_nll": {"the likelihood": "autoencoders.qmd#eq-bernoulli"},
    "gaussian_nll": {"the likelihood": "autoencoders.qmd#eq-gaussian"},
    "standard_normal_kl": {"the divergence": "vae.qmd#eq-kl"},
    "Autoencoder": {"the objective": "autoencoders.qmd#eq-autoencoder"},
    "L1SparseAutoencoder": {"the five objectives": "sparse.qmd#eq-sparse-five"},
    "KLSparseAutoencoder": {"the five objectives": "sparse.qmd#eq-sparse-five", "the rates": "sparse.qmd#eq-kl-rate"},
    "TopK": {"the five objectives": "sparse.qmd#eq-sparse-five"},
    "BatchTopK": {"the five objectives": "sparse.qmd#eq-sparse-five"},
    "JumpReLU": {"the five objectives": "sparse.qmd#eq-sparse-five"},
    "VAE": {"the bound": "vae.qmd#eq-elbo", "its gradient": "vae.qmd#eq-reparameterisation"},
    "BetaVAE": {"the objective": "vae.qmd#eq-beta"},
    "VSC": {"the posterior": "vsc.qmd#eq-spike-slab", "the learned prior": "vsc.qmd#eq-learned-prior",
            "the objective": "vsc.qmd#eq-vsc-objective"},
    "VSCWarmup": {"warm-up": "vsc.qmd#eq-warm-up"},
    "HybridSparseVAE": {"the model": "hybrid.qmd#eq-hybrid", "the bound": "hybrid.qmd#eq-hybrid-bound",
                        "the exact error": "hybrid.qmd#eq-hybrid-exact"},
    "SparseCoding": {"sparse coding": "sparse.qmd#eq-sparse-coding"},
    "DictionaryLearning": {"sparse coding": "sparse.qmd#eq-sparse-coding"},
    "simulate_returns": {"the market": "finance.qmd#eq-market"},
    "load_returns": {"the market": "finance.qmd#eq-market"},
    "importance_weighted_bounds": {"the bound's gap": "vae.qmd#eq-gap"},
}
"""Where the chapters derive what an object computes."""
SECTIONS = {"Args": "Arguments", "Attributes": "Attributes", "Returns": "Returns", "Raises": "Raises"}
ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`~?\.?([\w.]+)`")
PROPERTIES = ("property", "lazy_property", "cached_property")
SETTING_KINDS = ("Integer", "Number", "Choice", "Flag", "File")


class Entry(NamedTuple):
    """A public object: its name, the module and the statement that define it."""

    name: str
    module: str
    node: ast.stmt
    docstring: str

    @property
    def is_class(self) -> bool:
        """Whether it is one."""
        return isinstance(self.node, ast.ClassDef)


# --- which objects there are


@cache
def _tree(root: Path, module: str) -> tuple[Path, ast.Module]:
    path = root.joinpath("src", "sparse_vae", *module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path, ast.parse(path.read_text(encoding="utf-8"))


def entries(root: Path, room: str) -> list[Entry]:
    """The public objects of a page, each once, those of a module together."""
    found = {}
    elsewhere = {module for other, modules in ROOMS.items() if other != room for module in modules}
    for module in ROOMS[room]:
        for entry in _exported(root, module):
            if entry.module not in elsewhere:
                found.setdefault((entry.module, entry.name), entry)
    modules = list(dict.fromkeys([*ROOMS[room], *(module for module, _ in found)]))
    return sorted(found.values(), key=lambda entry: modules.index(entry.module))


def _exported(root: Path, module: str) -> Iterator[Entry]:
    path, tree = _tree(root, module)
    defined = dict(_definitions(module, tree))
    names = next((ast.literal_eval(node.value) for node in tree.body
                  if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"), None)
    imported = dict(_imports(module, tree))
    if path.name != "__init__.py":
        names = names or [name for name, entry in defined.items()
                          if isinstance(entry.node, ast.ClassDef | ast.FunctionDef)]
    for name in imported if names is None else sorted(names, key=lambda name: imported.get(name, "")):
        home = imported.get(name, module)
        entry = defined.get(name) or dict(_definitions(home, _tree(root, home)[1])).get(name)
        if entry:  # else a constant that nothing describes
            yield entry


def _definitions(module: str, tree: ast.Module) -> Iterator[tuple[str, Entry]]:
    """Classes, functions, and constants that a string describes."""
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, Entry(node.name, module, node, ast.get_docstring(node) or "")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            name = getattr(node.targets[0] if isinstance(node, ast.Assign) else node.target, "id", "_")
            described = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if not name.startswith("_") and (described or isinstance(node, ast.AnnAssign)):
                yield name, Entry(name, module, node, inspect.cleandoc(following.value.value) if described else "")


def _imports(module: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names that a package hands on, and the modules that define them: imported ones, or lazily attached ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparse_vae."):
            yield from ((alias.name, node.module.removeprefix("sparse_vae.")) for alias in node.names)
        elif isinstance(node, ast.keyword) and node.arg == "submod_attrs":
            for part, names in ast.literal_eval(node.value).items():
                yield from ((name, f"{module}.{part}") for name in names)


@cache
def _anchors(root: Path) -> dict[str, str]:
    """Where objects and methods are described: their names, with and without modules and classes, and the place."""
    anchors = {}
    for room in ROOMS:
        for entry in entries(root, room):
            page = f"api-{room}.qmd"
            for name in (entry.name, f"sparse_vae.{entry.module}.{entry.name}"):
                anchors.setdefault(name, f"{page}#{entry.name}")
            for method in _methods(entry):
                for name in (method.name, f"{entry.name}.{method.name}"):
                    anchors.setdefault(name, f"{page}#{entry.name}-{method.name}")
    return anchors


# --- what is said of them


def cells(root: Path) -> dict[str, str]:
    """What ``{{< cell api-index >}}`` and the pages' cells show, by name."""
    return {"api-index": index(root), **{f"api-{room}": reference(root, room) for room in ROOMS}}


def reference(root: Path, room: str) -> str:
    """The objects of a room, below the modules that define them."""
    parts, module = [], ""
    for entry in entries(root, room):
        if entry.module != module:
            module = entry.module
            parts += [f"## {_escape(module)} {{#module-{module.replace('.', '-')}}}",
                      _prose(root, ast.get_docstring(_tree(root, module)[1]) or "")]
        parts += _describe(root, entry)
    return "\n\n".join(filter(None, parts)) + "\n"


def index(root: Path) -> str:
    """Every object with the first sentence of its docstring."""
    parts = []
    for room in ROOMS:
        parts.append(f"## {room.capitalize()} {{#{room}}}")
        parts.append("\n".join(
            f"- [`{entry.name}`](api-{room}.qmd#{entry.name}): {_prose(root, _summary(entry))}"
            for entry in entries(root, room)))
    return "\n\n".join(parts) + "\n"


def _summary(entry: Entry) -> str:
    return " ".join(entry.docstring.partition("\n\n")[0].split()) or "a registry: classes by name"


def _describe(root: Path, entry: Entry) -> Iterator[str]:
    path = _tree(root, entry.module)[0].relative_to(root).as_posix()
    kind, signature = "class " if entry.is_class else "", _signature(entry)
    summary, _, rest = entry.docstring.partition("\n\n")
    yield f"### {kind}{_escape(entry.name)} {{#{entry.name}}}"
    yield _docstring(root, summary)
    yield '::: {.callout-note .api-entry collapse="true" appearance="minimal"}'  # a reference is for finding first
    line, *more = signature.splitlines()
    yield f"## `{line}{'…)' if more else ''}` {{#{entry.name}-signature}}"
    if more:
        yield f"```python\n{signature}\n```"
    if entry.name in EQUATIONS:
        yield "Equations: " + ", ".join(f"[{text}]({link})" for text, link in EQUATIONS[entry.name].items()) + "."
    yield from (_docstring(root, rest), _settings_table(entry.node))
    for method in _methods(entry):
        yield f"#### {_escape(entry.name)}.{_escape(method.name)} {{#{entry.name}-{method.name}}}"
        yield f"```python\n{_call(method)}\n```"
        yield _docstring(root, ast.get_docstring(method) or "")
    yield f"[Source: `{path}`, line {entry.node.lineno}]{{.notebook-link}}"
    yield ":::"


def _methods(entry: Entry) -> list[ast.FunctionDef]:
    """Its public methods and properties that say something."""
    return [node for node in entry.node.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
            and ast.get_docstring(node)] if entry.is_class else []


def _signature(entry: Entry) -> str:
    node = entry.node
    if isinstance(node, ast.FunctionDef):
        return _call(node)
    if not entry.is_class:
        return ast.unparse(node).partition(" = ")[0]
    constructor = next((method for method in node.body if getattr(method, "name", "") == "__init__"), None)
    if constructor:
        return _call(constructor, node.name)
    fields = [f"{ast.unparse(field.target)}: {ast.unparse(field.annotation)}{_default(field.value)}"
              for field in node.body if isinstance(field, ast.AnnAssign) and not _is_of_class(field)]
    return _wrap(node.name, fields, "") if fields else f"class {node.name}({', '.join(map(ast.unparse, node.bases))})"


def _is_of_class(field: ast.AnnAssign) -> bool:
    """Whether a field belongs to the class and not to its instances."""
    return "ClassVar" in ast.unparse(field.annotation)


def _default(value: ast.expr | None) -> str:
    """A default as it is written, a declared setting's own, and of a factory only that there is one."""
    if value is None:
        return ""
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Call):
        value = value.value.args[0]
    text = ast.unparse(value)
    return " = …" if text.startswith("field(") else f" = {text}"


def _call(node: ast.FunctionDef, name: str = "") -> str:
    if any(ast.unparse(decorator) in PROPERTIES for decorator in node.decorator_list):
        return f"{node.name}: {ast.unparse(node.returns)}" if node.returns else node.name
    arguments = node.args
    # Python has no list of these: each is unparsed alone, then they are put together.
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    parts = [f"{ast.unparse(each)}{_default(value)}" for each, value in zip(positional, defaults, strict=True)]
    if arguments.vararg:
        parts.append(f"*{ast.unparse(arguments.vararg)}")
    elif arguments.kwonlyargs:
        parts.append("*")
    parts += [f"{ast.unparse(each)}{_default(value)}"
              for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg:
        parts.append(f"**{ast.unparse(arguments.kwarg)}")
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and not name else ""
    return _wrap(name or node.name, [part for part in parts if part not in ("self", "cls")], returns)


def _wrap(name: str, parts: list[str], returns: str) -> str:
    line = f"{name}({', '.join(parts)}){returns}"
    return line if len(line) <= 90 else f"{name}(\n    " + ",\n    ".join(parts) + f",\n){returns}"


def _settings_table(node: ast.stmt) -> str:
    """The settings that a class or a function declares, as a table; nothing if there are none."""
    declarations = [value for value in ast.walk(node) if isinstance(value, ast.Dict)
                    and any(_is_setting(each) for each in value.values)]
    rows = [(key.value, call) for declaration in declarations[:1]
            for key, call in zip(declaration.keys, declaration.values, strict=True) if key and _is_setting(call)]
    rows += [(field.target.id, field.value.value) for field in getattr(node, "body", [])
             if isinstance(field, ast.AnnAssign) and isinstance(field.value, ast.Attribute)
             and _is_setting(field.value.value)]
    if not rows:
        return ""
    lines = [f"| `{name}` | `{ast.unparse(call.args[0])}` | {_cell_of_table(call)} |" for name, call in rows]
    return "\n".join(["| Setting | Default | Meaning |", "|:--|:--|:------------|", *lines])


def _is_setting(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") in SETTING_KINDS


def _cell_of_table(call: ast.Call) -> str:
    text = call.args[1]
    return _escape(ast.literal_eval(text) if isinstance(text, ast.Constant) else ast.unparse(text)).replace("|", r"\|")


# --- docstrings


def _docstring(root: Path, text: str) -> str:
    """A docstring as Markdown: prose, lists of arguments, errors and so on, examples."""
    parts = []
    for block in re.split(r"\n\s*\n", text):
        title, _, rest = block.partition(":\n")
        if block.startswith(">>>"):
            parts.append(f"```python\n{block}\n```")
        elif title in SECTIONS and rest.startswith(" "):
            parts += [f"**{SECTIONS[title]}**", _items(root, inspect.cleandoc("\n" + rest), title)]
        else:
            parts.append(_prose(root, block))
    return "\n\n".join(parts)


def _items(root: Path, text: str, title: str) -> str:
    """The entries of a section as a list; what returns says is prose."""
    if title == "Returns":
        return _prose(root, text)
    lines = []
    for item in re.split(r"\n(?=\S)", text):
        names, colon, meaning = item.partition(": ")
        shown = ", ".join(f"`{name.strip()}`" for name in names.split(",")) if colon else _prose(root, item)
        lines.append(f"- {shown}" + (f": {_prose(root, ' '.join(meaning.split()))}" if colon else ""))
    return "\n".join(lines)


def _prose(root: Path, text: str) -> str:
    """Text with links in place of roles, and nothing in it that Markdown would take for something else."""
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        if block.startswith("    "):
            blocks.append(f"```text\n{inspect.cleandoc(chr(10) + block)}\n```")
        elif block.startswith(">>>"):
            blocks.append(f"```python\n{block}\n```")
        else:
            pieces = re.split(r"(:\w+:`[^`]+`|``.+?``|`[^`]+`)", block)
            blocks.append("".join(_code(root, piece) if number % 2 else _escape(piece)
                                  for number, piece in enumerate(pieces)))
    return "\n\n".join(blocks)


def _code(root: Path, piece: str) -> str:
    if role := ROLE.fullmatch(piece):
        place = _anchors(root).get(role[1]) or _anchors(root).get(role[1].rpartition(".")[2])
        name = role[1].rpartition(".")[2] if piece.partition("`")[2].startswith("~") else role[1]
        return f"[`{name}`]({place})" if place else f"`{name}`"
    return f"`{piece.strip('`')}`"


def _escape(text: str) -> str:
    return re.sub(r"([@$*_~^<\\])", r"\\\1", text)
