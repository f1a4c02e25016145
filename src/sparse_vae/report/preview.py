"""The plain preview: the same pages made with pandoc alone, for machines without Quarto.

It understands what the chapters use, cells, variables, citations, cross-references and claims, and nothing more: no
search and no theme. ``report/preview/`` holds its template, its filter and its style.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import ModuleType

import pypandoc
import yaml

from sparse_vae.checks import ExplainedError
from sparse_vae.report.references import LINK, expand


class SiteError(ExplainedError, RuntimeError):
    """The site could not be rendered or published."""


def render(script: ModuleType, root: Path, suite: str, output: Path) -> None:
    """Make the site of a suite in the folder ``output``.

    Args:
        script: ``report/extract.py``.

    Raises:
        SiteError: a cell or variable that is not there, or what pandoc refuses; names the page.
    """
    try:
        extract = script.collect(root, suite)
    except script.ReportError as error:
        raise SiteError(str(error)) from error
    script.write(root, extract)
    shutil.copytree(root / "report" / "executed", output / "report" / "executed")
    website = yaml.safe_load((root / "_quarto.yml").read_text())["website"]
    entries = website["sidebar"]["contents"]
    for page in script.read_pages(root):
        source, to_root = root / page.path, "../" * page.path.count("/")
        text = LINK.sub(lambda match, to_root=to_root: match[0].replace("](/", f"]({to_root}"),  # type: ignore[misc]
                        expand(script, page.text, extract)).replace('="/report/', f'="{to_root}report/')
        for target in [source.name, *LINK.findall(text)]:
            _copy(source.parent / target.partition("#")[0], root, output)
        navigation = "".join(
            f'<li><a href="{to_root}{Path(other["href"]).with_suffix(".html")}"'
            f'{" aria-current=page" * (other["href"] == page.path)}>{other["text"]}</a></li>'
            if "href" in other else f'<li class="group">{other["text"]}</li>' for other in entries)
        folder = root / "report"
        options = ["--standalone", "--mathml", "--toc", "--toc-depth=2", "--section-divs", "--wrap=none",
                   f"--template={folder}/preview/template.html", f"--lua-filter={folder}/claims.lua",
                   f"--lua-filter={folder}/bars.lua", f"--lua-filter={folder}/preview/filter.lua", "--citeproc",
                   f"--bibliography={folder}/references.bib",
                   f"--variable=source-file:{source.name}", f"--variable=site-title:{website['title']}",
                   f"--variable=navigation:{navigation}", f"--metadata=project-offset:{'..' if to_root else '.'}",
                   f"--include-after-body={folder}/landmarks.html",
                   f"--variable=style:{(folder / 'preview' / 'style.css').read_text()}"]
        try:
            pypandoc.convert_text(text, "html5", format="markdown", extra_args=options,
                                  cworkdir=str(root),  # where the filter of claims looks for verdicts
                                  outputfile=str((output / page.path).with_suffix(".html")))
        except RuntimeError as error:
            raise SiteError(f"{page.path}: {error}") from error


def _copy(file: Path, root: Path, output: Path) -> None:
    """Copy a file that a page leads to, to its place in the site."""
    file = Path(os.path.normpath(file))
    if file.is_file() and file.is_relative_to(root):
        target = output / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
