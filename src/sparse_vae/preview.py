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

import nbformat
import pypandoc
import yaml
from nbformat import NotebookNode

COMMENT = re.compile(r"^#\| ([\w-]+): (.*)$", re.MULTILINE)
SHORTCODE = re.compile(r"\{\{< (include|var|embed) (\S+)([^>]*) >\}\}")


def cell_options(cell: NotebookNode) -> dict[str, str]:
    """The ``#|`` comments of a notebook's cell: label, caption, alternative text."""
    return {key: yaml.safe_load(value) for key, value in COMMENT.findall(cell.source)}


def cell_labels(cell: NotebookNode) -> list[str]:
    """The label of a cell, or nothing."""
    return [label for label in [cell_options(cell).get("label")] if cell.cell_type == "code" and label]


def render(staged: Path) -> Path:
    """Make ``staged/_site`` of the ``.qmd`` files in ``staged``; returns it.

    Raises:
        ValueError: a shortcode that leads nowhere; names the page.
    """
    site = staged / "_site"
    site.mkdir()
    for path in [*staged.glob("*.ipynb"), staged / "runs.csv", staged / "preview" / "style.css"]:
        shutil.copy(path, site)
    config = yaml.safe_load((staged / "_quarto.yml").read_text())["website"]
    variables = yaml.safe_load((staged / "_variables.yml").read_text())
    chapters = config["sidebar"]["contents"]
    for chapter in chapters:
        source = staged / chapter["href"]
        shutil.copy(source, site)
        try:
            text = _expand(source.read_text(), staged, variables)
        except (KeyError, StopIteration, OSError) as error:
            raise ValueError(f"{source.name}: {error!r} leads nowhere") from error
        navigation = "".join(
            f'<li><a href="{Path(other["href"]).stem}.html"{" aria-current=page" * (other is chapter)}>{other["text"]}'
            "</a></li>" for other in chapters)
        pypandoc.convert_text(
            text, "html5", format="markdown", outputfile=str(site / f"{source.stem}.html"), cworkdir=str(staged),
            extra_args=["--standalone", "--mathml", "--toc", "--toc-depth=2", "--section-divs",
                        "--template=preview/template.html", "--lua-filter=preview/filter.lua", "--citeproc",
                        "--bibliography=references.bib", f"--variable=site-title:{config['title']}",
                        f"--variable=navigation:{navigation}", f"--variable=source-file:{source.name}"])
    return site


def _expand(text: str, staged: Path, variables: dict) -> str:
    """Replace the shortcodes by what they stand for."""

    def replacement(match: re.Match) -> str:
        kind, target, _ = match.groups()
        if kind == "include":
            return _expand((staged / target).read_text(), staged, variables)
        if kind == "var":
            return str(reduce(lambda value, key: value[key], target.split("."), variables))
        return _embedded(staged, *target.split("#"))

    return SHORTCODE.sub(replacement, text)


def _embedded(staged: Path, notebook: str, label: str) -> str:
    """A notebook's labelled cell as Markdown: its output, its code folded, a link to the notebook."""
    cells = nbformat.read(staged / notebook, as_version=4).cells
    cell = next(cell for cell in cells if label in cell_labels(cell))
    options = cell_options(cell)
    data = next(output["data"] for output in cell.outputs if output.output_type == "display_data")
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
