"""The library's reference on the site, made of docstrings, and the how-tos, whose lines run."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
THINGS = '''class Thing:
    """A thing; see :func:`make`, 2 * 3, and ``a``.

    Args:
        size: in *m*,
            at least 0.

    >>> 1 + 1
    2
    """

    def __init__(self, size: int = 2, *, odd=False):
        pass

    def grow(self):
        """More."""


def make() -> Thing:
    """One."""
'''


@pytest.fixture(scope="module")
def api():
    specification = importlib.util.spec_from_file_location("sparse_vae_api", ROOT / "report" / "api.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["sparse_vae_api"] = module
    specification.loader.exec_module(module)
    return module


def test_everything_that_packages_export_is_described(api):
    described = {entry.name for room in api.ROOMS for entry in api.entries(ROOT, room)}
    for package in ("sparse_vae", "sparse_vae.distributions", "sparse_vae.models", "sparse_vae.datasets",
                    "sparse_vae.evaluation", "sparse_vae.report"):
        module = importlib.import_module(package)
        public = {name for name in module.__all__
                  if callable(getattr(module, name)) or name in ("MODELS", "CLASSICAL", "SPIKES")}
        assert public <= described, package


def test_objects_are_where_pages_say(api):
    for room in api.ROOMS:
        for entry in api.entries(ROOT, room):
            module = importlib.import_module(f"sparse_vae.{entry.module}")
            assert hasattr(module, entry.name), entry
    assert importlib.import_module("sparse_vae").Gamma.__module__ == "sparse_vae.distributions.gamma"


def test_every_class_and_function_says_what_it_is(api):
    silent = [f"{entry.module}.{entry.name}" for room in api.ROOMS for entry in api.entries(ROOT, room)
              if not entry.docstring and not hasattr(entry.node, "targets") and not hasattr(entry.node, "target")]
    assert not silent


def test_equations_belong_to_objects(api):
    assert api.EQUATIONS.keys() <= {entry.name for room in api.ROOMS for entry in api.entries(ROOT, room)}


def test_reference_needs_no_package_and_no_roles_are_left(api):
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'report')!r}); import api, pathlib; "
    code += f"print(len(api.cells(pathlib.Path({str(ROOT)!r}))), 'sparse_vae' in sys.modules)"
    answer = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [str(len(api.ROOMS) + 1), "False"]
    for text in api.cells(ROOT).values():
        anchors = re.findall(r"^#+ .*\{#(\S+)\}$", text, re.MULTILINE)
        assert anchors
        assert len(set(anchors)) == len(anchors)
        outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        assert not re.search(r":(func|class|meth|mod|data|attr):`", outside)


def test_docstrings_become_markdown(tmp_path, api):
    folder = tmp_path / "src" / "sparse_vae"
    folder.mkdir(parents=True)
    (folder / "things.py").write_text(THINGS)
    module = {"things": ("things",)}
    original, api.ROOMS = api.ROOMS, module
    try:
        text = api.reference(tmp_path, "things")
    finally:
        api.ROOMS = original
    assert "### class Thing {#Thing}" in text
    assert "Thing(size: int = 2, *, odd = False)" in text
    assert r"A thing; see [`make`](api-things.qmd#make), 2 \* 3, and `a`." in text
    assert "**Arguments**\n\n- `size`: in \\*m\\*, at least 0." in text
    assert "```python\n>>> 1 + 1\n2\n```" in text
    assert "#### Thing.grow {#Thing-grow}" in text
    assert "[Source: `src/sparse_vae/things.py`, line 1]" in text


@pytest.mark.heavy
@pytest.mark.parametrize(("page", "expected"), [("use-gamma", r"tensor\(0\.0[45]\d+\) tensor\([12]\."),
                                                ("use-spike-slab", r"tensor\(0\.[3-7]\d+\)\n0\.[6-9]")])
def test_lines_of_how_tos_run(page, expected, capsys):
    text = (ROOT / "report" / f"{page}.qmd").read_text()
    code, = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(code.replace("range(1500)", "range(500)"), f"{page}.py", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert re.search(expected, printed, re.DOTALL), printed
