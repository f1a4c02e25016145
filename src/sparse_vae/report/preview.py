"""The plain preview: the report's pages made with pandoc alone, for machines without Quarto.

It understands what the chapters use, the shortcodes ``include``, ``var`` and ``embed``, citations and
cross-references, and nothing more: no search, no theme, no notebook pages. ``report/preview/`` holds its template, its
filter and its style.
"""

from __future__ import annotations

import base64
import re
import shutil
from functools import reduce
from pathlib import Path

import pypandoc
import yaml
from nbformat import NotebookNode

from sparse_vae.checks import ExplainedError, SettingError
from sparse_vae.report.suites import read_notebook

COMMENT = re.compile(r"^#\| ([\w-]+): (.*)$", re.MULTILINE)
SHORTCODE = re.compile(r"\{\{< (include|var|embed) (\S+)([^>]*) >\}\}")


class SiteError(ExplainedError, RuntimeError):
    """The site could not be rendered or published."""


def cell_options(cell: NotebookNode) -> dict[str, str]:
    """The ``#|`` comments of a notebook's cell: label, caption, alternative text."""
    return {key: yaml.safe_load(value) for key, value in COMMENT.findall(cell.source)}


def cell_labels(cell: NotebookNode) -> list[str]:
    """The label of a cell, or nothing."""
    return [label for label in [cell_options(cell).get("label")] if cell.cell_type == "code" and label]


def embedded_notebooks(text: str) -> set[str]:
    """File names of the notebooks that a page embeds cells of."""
    return {target.partition("#")[0] for kind, target, _ in SHORTCODE.findall(text) if kind == "embed"}


def render(staged: Path) -> Path:
    """Make ``staged/_site`` of the ``.qmd`` files in ``staged``; returns it.

    Raises:
        SiteError: a shortcode that leads nowhere, or what pandoc refuses; names the page.
    """
    site = staged / "_site"
    site.mkdir()
    for path in [*staged.glob("*.ipynb"), staged / "runs.csv", staged / "preview" / "style.css"]:
        shutil.copy(path, site)
    shutil.copytree(staged / "notebooks", site / "notebooks")
    config = yaml.safe_load((staged / "_quarto.yml").read_text())["website"]
    variables = yaml.safe_load((staged / "_variables.yml").read_text())
    chapters = config["sidebar"]["contents"]
    for chapter in chapters:
        source = staged / chapter["href"]
        shutil.copy(source, site)
        try:
            text = _expand(source.read_text(), staged, variables)
        except SiteError as error:
            raise SiteError(f"{source.name}: {error}") from error
        navigation = "".join(
            f'<li><a href="{Path(other["href"]).stem}.html"{" aria-current=page" * (other is chapter)}>{other["text"]}'
            "</a></li>" for other in chapters)
        options = ["--standalone", "--mathml", "--toc", "--toc-depth=2", "--section-divs",
                   "--template=preview/template.html", "--lua-filter=preview/filter.lua", "--citeproc",
                   "--bibliography=references.bib", f"--variable=site-title:{config['title']}",
                   f"--variable=navigation:{navigation}", f"--variable=source-file:{source.name}"]
        try:
            pypandoc.convert_text(text, "html5", format="markdown", outputfile=str(site / f"{source.stem}.html"),
                                  cworkdir=str(staged), extra_args=options)
        except RuntimeError as error:
            raise SiteError(f"{source.name}: {error}") from error
    return site


def _expand(text: str, staged: Path, variables: dict) -> str:
    """Replace the shortcodes by what they stand for."""

    def replacement(match: re.Match) -> str:
        kind, target, _ = match.groups()
        try:
            if kind == "include":
                return _expand((staged / target).read_text(), staged, variables)
            if kind == "var":
                return str(reduce(lambda value, key: value[key], target.split("."), variables))
            notebook, _, label = target.partition("#")
            return _embedded(staged, notebook, label)
        except (LookupError, TypeError, OSError, SettingError, yaml.YAMLError) as error:
            raise SiteError(f"{match[0]} leads nowhere: {error}") from error

    return SHORTCODE.sub(replacement, text)


def _embedded(staged: Path, notebook: str, label: str) -> str:
    """A notebook's labelled cell as Markdown: its output, its code folded, a link to the notebook."""
    cell = next((cell for cell in read_notebook(staged / notebook).cells if label in cell_labels(cell)), None)
    if cell is None:
        raise LookupError(f"no cell has the label {label!r}")
    options = cell_options(cell)
    data = next((output["data"] for output in cell.outputs if output.output_type == "display_data"), {})
    code = COMMENT.sub("", cell.source).strip("\n")
    source = f'[Notebook: {notebook}]({notebook}){{.notebook download=""}}'
    details = f"<details><summary>Code</summary>\n\n```python\n{code}\n```\n\n</details>\n\n{source}"
    if "image/png" in data:
        picture = staged / "_site" / f"{label}.png"
        picture.write_bytes(base64.b64decode(data["image/png"]))
        alt = options["fig-alt"].replace('"', "&quot;")
        return (f'::: {{#{label} .figure}}\n\n![]({label}.png){{alt="{alt}"}}\n\n'
                f"[{options['fig-cap']}]{{.caption}}\n\n{details}\n\n:::\n")
    if "tbl-cap" in options:
        return (f"::: {{#{label} .table}}\n\n[{options['tbl-cap']}]{{.caption}}\n\n{data['text/markdown']}\n\n"
                f"{details}\n\n:::\n")
    return f"{data['text/markdown']}\n\n{source}\n"
