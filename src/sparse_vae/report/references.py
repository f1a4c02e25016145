"""Whether everything that the report's pages refer to is there, found out in a second, without rendering."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

LINK = re.compile(r"\]\(([^()\s]+)\)")
REFERENCE = re.compile(r"(?<![\w@\\])@\{?([A-Za-z][\w:.-]*\w)")
IDENTIFIER = re.compile(r"\{[^{}\n]*#([\w-]+)")
HEADING = re.compile(r"^#+ ([^{\n]+)$", re.MULTILINE)
CROSS_REFERENCE = re.compile(r"(fig|tbl|sec|eq)-")


def problems(script: ModuleType, root: Path, suite: str) -> list[str]:
    """What the pages refer to and what is not there, one line each with page and line; nothing if all is well.

    Cells, variables, citations, cross-references, links within the site, the entries of the navigation.

    Args:
        script: ``report/extract.py``.
        suite: that the site is built of.
    """
    try:
        extract = script.collect(root, suite, evaluate=False)
    except script.ReportError as error:
        return str(error).splitlines()
    pages = {page.path: page for page in script.read_pages(root)}
    whole = {path: script.without_code(expand(script, page.text, extract)) for path, page in pages.items()}
    identifiers = {path: {*IDENTIFIER.findall(text), *map(_slug, HEADING.findall(text))}
                   for path, text in whole.items()}
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", (root / "report" / "references.bib").read_text(), re.MULTILINE))
    entries = yaml.safe_load((root / "_quarto.yml").read_text())["website"]["sidebar"]["contents"]
    linked = {entry["href"] for entry in entries if "href" in entry}
    found = [f"_quarto.yml: the navigation leads to {href}, which is not there" for href in sorted(linked - set(pages))]
    found += [f"_quarto.yml: the navigation lacks {path}" for path in sorted(set(pages) - linked)]
    for path, page in pages.items():
        own = script.without_code(expand(script, page.text, extract, cells=False))
        shown = {f"cell {name}": script.without_code(extract.files[f"report/_cells/{name}.md"].decode())
                 for kind, name, _ in page.shortcodes() if kind == "cell"}
        for place, text in {"": own, **shown}.items():
            for position, problem in [*_references(text, identifiers[path], keys),
                                      *_links(text, path, root, identifiers, {*extract.files, *extract.pages})]:
                line = f"{path}:{text.count(chr(10), 0, position) + 1}"
                found.append(f"{path}, {place}: {problem}" if place else f"{line}: {problem}")
    return found


def expand(script: ModuleType, text: str, extract: Any, *, cells: bool = True) -> str:
    """The text with cells and variables in place of their shortcodes; lines stay where there are no ``cells``.

    Braces in threes show a shortcode as it is written.
    """

    def replacement(match: re.Match) -> str:
        if match[1] == "cell":
            return extract.files[f"report/_cells/{match[2]}.md"].decode() if cells else ""
        return str(reduce(dict.__getitem__, match[2].split("."), extract.variables))

    return script.SHORTCODE.sub(replacement, text).replace("{{{<", "{{<").replace(">}}}", ">}}")


def _references(text: str, identifiers: set[str], keys: set[str]) -> Iterator[tuple[int, str]]:
    for match in REFERENCE.finditer(text):
        if CROSS_REFERENCE.match(match[1]):
            if match[1] not in identifiers:
                yield match.start(), f"@{match[1]} is not on this page"
        elif match[1] not in keys:
            yield match.start(), f"@{match[1]} is not in report/references.bib"


def _links(text: str, path: str, root: Path, identifiers: dict[str, set[str]],
           generated: set[str]) -> Iterator[tuple[int, str]]:
    for match in LINK.finditer(text):
        if re.match(r"[a-z]+:", match[1]):
            continue
        target, _, fragment = match[1].partition("#")
        base = "" if target.startswith("/") else os.path.dirname(path)
        file = os.path.normpath(os.path.join(base, target.lstrip("/"))) if target else path
        if file not in identifiers and file not in generated and not (root / file).is_file():
            yield match.start(), f"the link to {match[1]} leads nowhere"
        elif fragment and file in identifiers and fragment not in identifiers[file]:
            yield match.start(), f"the link to {match[1]} leads nowhere: {file} has no {{#{fragment}}}"


def _slug(heading: str) -> str:
    """The identifier that pandoc gives a heading."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s.-]", "", heading.lower()).strip())
