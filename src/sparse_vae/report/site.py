"""The report's website: checked, rendered with Quarto or, without it, as a plain preview, and published.

The pages are rendered where they lie. What they show of the results, ``report/extract.py`` takes out first: Quarto runs
it by itself, so that ``quarto render`` and ``quarto preview`` work without this module.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

from sparse_vae.files import atomic_path, exclusive_folder, replace
from sparse_vae.report import preview, references
from sparse_vae.report.measures import MEASURES
from sparse_vae.report.preview import SiteError
from sparse_vae.report.suites import Suite

BRANCH = "gh-pages"
MINIMUM = (1, 7)
"""The Quarto that is needed."""
COLOURS = re.compile(r"\x1b\[[\d;]*m")
PROGRESS = re.compile(r"\[ *(\d+)/(\d+)\] (\S+)")


@cache
def load_script(root: Path) -> ModuleType:
    """``report/extract.py`` as a module."""
    specification = importlib.util.spec_from_file_location("sparse_vae_extract", root / "report" / "extract.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def describe(suite: Suite) -> None:
    """Write ``results/<suite>/suite.json``: what pages say of a suite, and its executed notebooks, in its order.

    Notebooks that the suite no longer has follow: chapters may still show them. Beside the suites, ``measures.json``
    says what the columns of their tables are.
    """
    there = sorted(path.stem for path in (suite.folder / "figures").glob("*.ipynb"))
    names = [Path(figure.file_name).stem for figure in suite.figures]
    facts = {"name": suite.name, "title": suite.title, "first": suite.first, "second": suite.second,
             "figures": [name for name in names if name in there] + [name for name in there if name not in names]}
    about = {measure.name: {"title": measure.title, "digits": measure.digits, "scale": measure.scale,
                            "description": measure.description} for measure in MEASURES.values()}
    for path, content in ((suite.folder / "suite.json", facts), (suite.folder.parent / "measures.json", about)):
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def check(root: Path, suite: str = "report") -> list[str]:
    """What the pages refer to and what is not there, for a site that is built of ``suite``; see :mod:`.references`."""
    return references.problems(load_script(root), root, suite)


def find_quarto() -> str | None:
    """Path of a Quarto that is recent enough: ``$QUARTO``, or the one on PATH; None where there is none."""
    quarto = shutil.which(os.environ.get("QUARTO") or "quarto")
    if not quarto:
        return None
    answer = subprocess.run([quarto, "--version"], capture_output=True, text=True, check=False)
    version = tuple(map(int, re.findall(r"\d+", answer.stdout)[:2]))
    return quarto if answer.returncode == 0 and version >= MINIMUM else None


def render(suite: Suite, *, plain: bool = False) -> Path:
    """Build the site of a suite into ``_site/``, which is replaced whole; returns its first page.

    Args:
        suite: with published results.
        plain: make the plain preview even where Quarto is installed.

    Raises:
        SiteError: something that pages show is not there, or Quarto fails; the former site stays.
    """
    build, site, quarto = suite.root / "build", suite.root / "_site", None if plain else find_quarto()
    output = build / "site"
    with exclusive_folder(build, on_wait=lambda: print("another process is building the site; waiting for its end …")):
        shutil.rmtree(output, ignore_errors=True)
        if quarto:
            _run_quarto(quarto, suite, output)
        else:
            if not plain:
                print("Quarto 1.7 or later is not installed: building the plain preview of the same pages.")
            preview.render(load_script(suite.root), suite.root, suite.name, output)
        replace(output, site)
    return site / "index.html"


def _run_quarto(quarto: str, suite: Suite, output: Path) -> None:
    page, lines, warnings = "", [], []
    command = [quarto, "render", "--profile", suite.name, "--output-dir", str(output.relative_to(suite.root))]
    with (subprocess.Popen(command, cwd=suite.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True) as process, tqdm(desc="rendering with Quarto", unit="page") as progress):
        assert process.stdout is not None
        for line in process.stdout:
            line = COLOURS.sub("", line)
            lines.append(line)
            if started := PROGRESS.match(line):
                progress.total, page = int(started[2]), f"{started[3]}: "
                progress.update()
            # Quarto only warns of a citation, reference or shortcode that leads nowhere; here it is an error.
            if line.startswith(("WARN", "[WARNING]")):
                warnings.append(page + line)
    if warnings or process.returncode:
        raise SiteError("quarto render failed:\n" + ("".join(warnings) or page + "".join(lines)[-3000:]))


def publish(suite: Suite, *, remote: str = "origin") -> None:
    """Render a suite's site and push it to the branch ``gh-pages`` of ``remote``, made when it is not there.

    The site is one commit on top of what is published; the working tree and the current branch stay as they are. The
    branch is this repository's as well.

    Raises:
        SiteError: no such remote, no author's name in git's settings, or the push is refused.
    """
    root, published = suite.root, f"refs/remotes/{remote}/{BRANCH}"
    _git(root, "remote", "get-url", remote)
    for key in ("user.name", "user.email"):
        if not _git(root, "config", "--default", "", key).strip():
            raise SiteError(f"git has no {key}, which a commit needs: git config --global {key} …")
    render(suite)
    there = _git(root, "ls-remote", remote, f"refs/heads/{BRANCH}").strip()
    if there:
        _git(root, "fetch", "--quiet", remote, f"+refs/heads/{BRANCH}:{published}")
    message = f"Publish suite {suite.name} from {_git(root, 'rev-parse', '--short', 'HEAD').strip()}"
    # Without the file .nojekyll the host would drop folders whose names begin with an underscore.
    _run(root, sys.executable, "-m", "ghp_import", "--no-jekyll", "--remote", remote, "--branch", BRANCH,
         "--message", message, "_site")
    if there and _git(root, "diff", "--name-only", published, BRANCH) == "":
        print(f"{BRANCH} of {remote} is up to date")
        return
    _git(root, "push", "--quiet", remote, BRANCH)
    print(f"published suite {suite.name} to {BRANCH} of {remote}")


def _git(folder: Path, *arguments: str) -> str:
    return _run(folder, "git", *arguments)


def _run(folder: Path, *command: str) -> str:
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if answer.returncode:
        name = " ".join(command[:2]) if command[0] == "git" else command[2]
        raise SiteError(f"{name} failed: {answer.stderr.strip() or answer.stdout.strip()}")
    return answer.stdout
