"""Rendering with Quarto, which uses one core: several processes share the pages among them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from sparse_vae.report.preview import SiteError, embedded_notebooks

COLOURS = re.compile(r"\x1b\[[\d;]*m")
HOME = "index.qmd"
MINIMUM = (1, 7)
MOST_PROCESSES = 4
"""Each takes about half a GiB of memory."""


def find_quarto() -> str | None:
    """Path of a Quarto that is recent enough: ``$QUARTO``, or the one on PATH; None where there is none."""
    quarto = shutil.which(os.environ.get("QUARTO") or "quarto")
    if not quarto:
        return None
    answer = subprocess.run([quarto, "--version"], capture_output=True, text=True, check=False)
    version = tuple(map(int, re.findall(r"\d+", answer.stdout)[:2]))
    return quarto if answer.returncode == 0 and version >= MINIMUM else None


def render(quarto: str, staged: Path, processes: int | None = None) -> None:
    """Make ``staged/_site`` of the ``.qmd`` files in ``staged``.

    Args:
        quarto: from :func:`find_quarto`.
        staged: a Quarto website's folder.
        processes: how many share the work; by default one for each core, four at most.

    Raises:
        SiteError: Quarto fails, or warns of something; names the page.
    """
    shares = _share(staged, processes or min(os.cpu_count() or 1, MOST_PROCESSES))
    # Processes that render one project at the same time would spoil each other's files.
    folders = [staged, *(staged.with_name(f"{staged.name}-{number}") for number in range(1, len(shares)))]
    for copy in folders[1:]:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(staged, copy)
    with (tqdm(total=sum(map(len, shares)), desc="rendering with Quarto", unit="page") as progress,
          ThreadPoolExecutor(len(shares)) as pool):
        problems = pool.map(lambda folder, pages: _render_pages(quarto, folder, pages, progress), folders, shares)
    if found := "".join(problems):
        raise SiteError(f"quarto render failed in {staged}:\n{found}")
    for copy in folders[1:]:
        _merge(copy / "_site", staged / "_site")
        shutil.rmtree(copy)


def _share(staged: Path, processes: int) -> list[list[str]]:
    """The pages for each process, about as much work for each; the first has the home page."""
    work = {}
    for path in staged.glob("*.qmd"):
        if not path.name.startswith("_"):
            sizes = [(staged / name).stat().st_size for name in embedded_notebooks(path.read_text())]
            work[path.name] = 1 + len(sizes) + 1.5 * sum(sizes) / 1e6  # about proportional to the time it takes
    shares: list[list[str]] = [[] for _ in range(min(processes, len(work)))]
    for page in sorted(work, key=lambda page: (-work[page], page)):
        min(shares, key=lambda share: sum(map(work.get, share))).append(page)
    return sorted(shares, key=lambda share: HOME not in share)


def _render_pages(quarto: str, folder: Path, pages: list[str], progress: tqdm) -> str:
    """Render pages, named one by one in one call, and return what went wrong.

    Given the whole project, Quarto hands pandoc a record of every notebook in a single environment variable, and Linux
    refuses one of 128 KiB, some 35 notebooks.
    """
    page, output, warnings = pages[0], [], []
    with subprocess.Popen([quarto, "render", *pages, "--no-execute"], cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            line = COLOURS.sub("", line)
            output.append(line)
            if line.startswith("  output-file: "):  # the first that Quarto says of a page
                page = Path(line.split()[1]).with_suffix(".qmd").name
                progress.update()
            # Quarto only warns of a citation, reference or shortcode that leads nowhere; here it is an error.
            if line.startswith(("WARN", "[WARNING]")):
                warnings.append(f"{page}: {line}")
    if warnings or not process.returncode:
        return "".join(warnings)
    return f"{page}: {''.join(output)[-3000:]}"


def _merge(part: Path, site: Path) -> None:
    """Add to a rendered site what it lacks of another part of it, and the part's entries of the search."""
    entries = [entry for folder in (site, part) for entry in json.loads((folder / "search.json").read_text())]
    (site / "search.json").write_text(json.dumps(entries, ensure_ascii=False, indent=2))
    for path in part.rglob("*"):
        target = site / path.relative_to(part)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
