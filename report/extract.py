"""What the chapters show, taken out of executed notebooks and tables of runs. Quarto runs this before it renders.

Needs Python's standard library alone. Reads the suites that chapters name, ``results/<suite>/``, and writes

- ``report/_cells/<label>.md``, a labelled cell as Markdown, for ``{{< cell label >}}`` (``report/cell.lua``);
- ``report/executed/<suite>/``, every executed notebook for download and as a page, its pictures and what its widgets
  load (``report/widgets.py``); the tables of runs and of histories;
- ``_variables.yml`` for ``{{< var … >}}``, and ``report/_cells/claims.json``, the verdicts on the claims.

The site's suite is Quarto's profile, ``quarto render --profile quick``; a chapter's front matter names the suites that
it shows, ``suites: [site, paper]``, where ``site`` is that one. Files whose content stays are not written again.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, reduce
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ("more", "notebooks", "results", "measures", "book")
"""Names for ``{{< cell … >}}`` that are no labels: figures that no chapter shows; all notebooks, tables, measures; the
chapters in one, from ``report/book.py``. Those that begin with ``api-`` are the library's reference, from
``report/api.py``."""
SHORTCODE = re.compile(r"(?<!\{)\{\{< *(cell|var) +(\S+) *>\}\}")
CODE = re.compile(r"^(```+|~~~+).*?^\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)
PICTURES = {"image/svg+xml": ".svg", "image/webp": ".webp", "image/png": ".png"}
LARGE = 20_000
"""Bytes of a PNG above which pages show it as WebP, a quarter of that or less, where the package can make it."""
PLOT = "application/vnd.vegalite.v5+json"
"""A plot that answers to a reader: a Vega-Lite specification, its data in it as CSV."""
TABLES = ("runs.csv", "histories.csv")
WIDGETS = "report/executed/widgets/"
HOSTED = re.compile(r"(?:[a-z+]+://)?(?:[^@/]+@)?(github|gitlab)\.com(?::\d+)?[:/](.+?)(?:\.git)?/?")
"""An address of a public host of repositories: which, and the repository's name there."""
OPTION = re.compile(r"^#\| ([\w-]+): (.*)\n?", re.MULTILINE)


class ReportError(Exception):
    """The chapters ask for what is not there; one problem a line, each with file and line."""


# --- chapters


class Page(NamedTuple):
    """A page: its path below the root, its text, the suites that it names."""

    path: str
    text: str
    suites: list[str]

    def shortcodes(self) -> Iterator[tuple[str, str, str]]:
        """The kind, the argument and the place of every ``{{< cell … >}}`` and ``{{< var … >}}``."""
        for match in SHORTCODE.finditer(self.text):
            yield match[1], match[2], self.place(match.start())

    def place(self, position: int) -> str:
        """File and line, for messages."""
        return f"{self.path}:{self.text.count(chr(10), 0, position) + 1}"


def without_code(text: str) -> str:
    """The text with blanks in place of code, so that positions stay."""
    return CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def read_pages(root: Path) -> list[Page]:
    """The home page and the chapters."""
    pages = []
    for path in [root / "index.qmd", *sorted((root / "report").glob("[!_]*.qmd"))]:
        text = path.read_text(encoding="utf-8")
        pages.append(Page(path.relative_to(root).as_posix(), text, listed(text, "suites")))
    return pages


def listed(text: str, key: str) -> list[str]:
    """The names in ``key: [one, another]`` of a page's front matter."""
    found = re.search(rf"^{key}: *\[(.*?)\]", text.partition("\n---\n")[0], re.MULTILINE | re.DOTALL)
    return re.findall(r"[\w-]+", found[1]) if found else []


# --- notebooks


class Cell(NamedTuple):
    """A cell of an executed notebook; each of its outputs maps media types to text."""

    kind: str
    source: str
    options: dict[str, str]
    outputs: list[dict[str, str]]

    @property
    def data(self) -> dict[str, str]:
        """The output that its label is for: the one in most media types."""
        return max(self.outputs, key=len, default={})

    @property
    def label(self) -> str:
        """Its name for chapters, or nothing."""
        return self.options.get("label", "")

    @property
    def caption(self) -> str:
        """Of a figure or a table; of other outputs nothing."""
        return " ".join((self.options.get("fig-cap") or self.options.get("tbl-cap") or "").split())

    def picture(self, data: dict[str, str]) -> str | None:
        """Name of the file that shows an output, if it is a picture."""
        for kind, suffix in PICTURES.items():
            if kind in data:
                own = self.label and data is self.data
                return (self.label if own else hashlib.sha256(data[kind].encode()).hexdigest()[:12]) + suffix
        return None

    def pictures(self) -> dict[str, bytes]:
        """Names and contents of the files that show its outputs."""
        found = {}
        for data in self.outputs:
            if name := self.picture(data):
                kind = next(kind for kind, suffix in PICTURES.items() if name.endswith(suffix))
                found[name] = data[kind].encode() if kind == "image/svg+xml" else base64.b64decode(data[kind])
        return found

    def plot(self) -> dict[str, bytes]:
        """Names and contents of the files of a plot that answers: its specification and its data."""
        if PLOT not in self.data or not self.label:
            return {}
        specification = json.loads(self.data[PLOT])
        csv_of = specification["data"].pop("values")
        specification["data"] = {"url": f"{self.label}.csv", **specification["data"]}
        return {f"{self.label}.json": json.dumps(specification, ensure_ascii=False, separators=(",", ":")).encode(),
                f"{self.label}.csv": csv_of.encode()}

    def output(self, data: dict[str, str], folder: str = "") -> str:
        """An output as Markdown, a picture as the file in ``folder``."""
        if file := self.picture(data):
            alt = " ".join((self.options.get("fig-alt") or data.get("text/plain", "")).split())
            alt = alt.replace("&", "&amp;").replace('"', "&quot;").replace("\\", "\\\\")
            kind = ".plot " if folder and data is self.data and PLOT in data else ""
            return f'![]({folder}{file}){{{kind}fig-alt="{alt}" loading="lazy"}}'
        if "text/html" in data:
            return fence(data["text/html"], "{=html}")
        return data.get("text/markdown") or fence(data.get("text/plain", ""), "text")


class Notebook(NamedTuple):
    """An executed notebook of a suite, and the files that its pictures, its plots and its widgets become.

    Pictures and plots lie beside it; the paths of the widgets' files are those below the root.
    """

    suite: str
    path: Path
    cells: list[Cell]
    pictures: dict[str, bytes]
    widgets: dict[str, bytes]

    @property
    def name(self) -> str:
        """Name of the template and of the figure, ``latent_grid-first``."""
        return self.path.stem

    @property
    def folder(self) -> str:
        """Where its files lie, seen from the root of the site."""
        return f"/report/executed/{self.suite}/"

    @property
    def links(self) -> str:
        """Where a reader finds it, and where its template runs in the browser."""
        binder = binder_address(origin(self.path.parents[3]), f"notebooks/{self.name.partition('-')[0]}.ipynb")
        return (f"[{self.name}]({self.folder}{self.name}.html) "
                f'([download]({self.folder}{self.name}.ipynb){{download=""}}'
                f"{f', [run in Binder]({binder})' if binder else ''})")

    def as_page(self) -> str:
        """The whole notebook as a page."""
        title, parts = self.name, []
        for cell in self.cells:
            if cell.kind == "markdown":
                if heading := re.match(r"# (.*)\n*", cell.source):
                    title, cell = f"{heading[1]} ({self.name.partition('-')[2]})", cell._replace(
                        source=cell.source[heading.end():])
                parts.append(cell.source)
                continue
            parts.append(fence(cell.source, "python"))
            for data in cell.outputs:
                caption = f"\n\n[{cell.caption}]{{.caption}}" if cell.caption else ""
                output = cell.output(data).replace('="/report/', '="../../../report/')
                parts.append(f"::: {{#{cell.label} .output}}\n{output}{caption}\n:::"
                             if cell.label and data is cell.data else output)
        return "\n\n".join([f"---\ntitle: {json.dumps(title, ensure_ascii=False)}\nfile: {self.name}.ipynb\n---",
                            *parts])

    def as_include(self, cell: Cell) -> str:
        """A labelled cell for a chapter: a figure or table with its caption, its code and a way to the notebook.

        Pieces of HTML come with the way to the notebook, sentences alone.
        """
        data = f' · [data]({self.folder}{cell.label}.csv){{download=""}}' if PLOT in cell.data else ""
        output, link = cell.output(cell.data, self.folder), f"[Notebook: {self.links}{data}]{{.notebook-link}}"
        if not cell.caption:
            return f"{output}\n\n{link}\n" if "text/html" in cell.data else f"{output}\n"
        code = "\n\n".join([fence('<details class="code-fold"><summary>Code</summary>', "{=html}"),
                            fence(cell.source, "python"), fence("</details>", "{=html}")])
        script = fence(f'<script type="module" src="/{WIDGETS}plots.js"></script>', "{=html}") + "\n" if data else ""
        return (f"::: {{#{cell.label}}}\n\n{output}\n\n{cell.caption}\n\n:::\n\n"
                f"::: {{.cell-source}}\n{link}\n\n{code}\n:::\n{script}")


    def as_printed(self, cell: Cell) -> str:
        """A labelled cell for print, without its code; nothing for a widget."""
        output = cell.output(cell.data, self.folder).replace(' loading="lazy"', "").replace("{.plot ", "{")
        if cell.caption:
            return f"::: {{#{cell.label}}}\n\n{output}\n\n{cell.caption}\n\n:::\n"
        return "" if "text/html" in cell.data else f"{output}\n"


@cache
def origin(root: Path) -> str:
    """The address of the repository's remote ``origin``; nothing where there is none."""
    try:
        answer = subprocess.run(["git", "remote", "get-url", "origin"], cwd=root, capture_output=True, text=True)
    except OSError:  # no git, no such folder
        return ""
    return answer.stdout.strip()


def binder_address(repository: str, file: str) -> str:
    """Where Binder opens a file of a repository in JupyterLab; nothing for one that it cannot reach.

    >>> binder_address("git@github.com:somebody/sparse-vae.git", "notebooks/train.ipynb")
    'https://mybinder.org/v2/gh/somebody/sparse-vae/HEAD?urlpath=lab/tree/notebooks/train.ipynb'
    """
    match = HOSTED.fullmatch(repository)
    if not match:
        return ""
    kind, name = ("gh", match[2]) if match[1] == "github" else ("gl", quote(match[2], safe=""))
    return f"https://mybinder.org/v2/{kind}/{name}/HEAD?urlpath=lab/tree/{file}"


def fence(text: str, language: str) -> str:
    """A block of code, or of raw HTML, whatever is in it."""
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}{language}\n{text.strip(chr(10))}\n{ticks}"


def read_notebook(path: Path) -> Notebook:
    """An executed notebook.

    Raises:
        ReportError: it is damaged, or a labelled cell shows nothing.
    """
    try:
        cells = [_read_cell(cell) for cell in json.loads(path.read_bytes())["cells"]]
        pictures = _pictures(cells)
        widgets = _lay_out_widgets(path, cells)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ReportError(f"{_shown(path)} is damaged or not a notebook ({error}); draw it again: make graphics "
                          f"SUITE={path.parts[-3]}") from error
    labels = [cell.label for cell in cells if cell.label]
    for cell in cells:
        if cell.label and (not cell.data or labels.count(cell.label) > 1):
            raise ReportError(f"{_shown(path)}: the cell {cell.label} "
                              + ("is there twice" if cell.data else "shows nothing"))
        if cell.label.startswith("fig-") and cell.picture(cell.data) and not cell.options.get("fig-alt"):
            raise ReportError(f"{_shown(path)}: the figure {cell.label} has no alternative text")
    return Notebook(path.parts[-3], path, cells, pictures, widgets)


def modernise(root: Path, suites: dict[str, Suite]) -> tuple[dict[str, Suite], dict[str, bytes]]:
    """The suites with the large pictures of their notebooks as WebP, and files that keep these for the next time.

    Pictures stay as they are where the package, which has Pillow, is not there.
    """
    folder, waiting = root / "report" / "_cells" / "pictures", {}
    notebooks = [notebook for suite in suites.values() for notebook in suite.notebooks]
    outputs = [data for notebook in notebooks for cell in notebook.cells for data in cell.outputs
               if len(data.get("image/png", "")) > LARGE * 4 / 3]
    names = [folder / f"{hashlib.sha256(data['image/png'].encode()).hexdigest()[:20]}.webp" for data in outputs]
    for data, name in zip(outputs, names, strict=True):
        if not name.exists():
            waiting[name] = base64.b64decode(data["image/png"])
    for name, picture in waiting.items():
        _write(name.with_suffix(".png"), picture)
    program = ("import sys\nfrom PIL import Image\nfor name in sys.stdin.read().splitlines():\n"
               "    picture = Image.open(name)\n"
               "    picture.save(name[:-3] + 'part', 'WEBP', quality=85, method=4)\n")
    if waiting:
        paths = "\n".join(str(name.with_suffix(".png")) for name in waiting)
        subprocess.run([find_python(root), "-c", program], input=paths, text=True, capture_output=True)
    for name in waiting:
        name.with_suffix(".png").unlink()
        if name.with_suffix(".part").exists():
            name.with_suffix(".part").replace(name)
    for data, name in zip(outputs, names, strict=True):
        if name.exists():
            del data["image/png"]
            data["image/webp"] = base64.b64encode(name.read_bytes()).decode()
    kept = {name.relative_to(root).as_posix(): name.read_bytes() for name in names if name.exists()}
    return {name: suite._replace(notebooks=[notebook._replace(pictures=_pictures(notebook.cells))
                                            for notebook in suite.notebooks]) for name, suite in suites.items()}, kept


def _pictures(cells: list[Cell]) -> dict[str, bytes]:
    return {name: content for cell in cells for name, content in (cell.pictures() | cell.plot()).items()}


def _lay_out_widgets(path: Path, cells: list[Cell]) -> dict[str, bytes]:
    """Put the widgets of a notebook, in place, as pages show them; returns their files."""
    files = {}
    for cell in cells:
        for data in cell.outputs:
            if "text/html" in data:
                data["text/html"], own = _script(path.parents[3], "widgets").lay_out(
                    data["text/html"], path.parents[3], path.parts[-3], cell.label)
                files |= own
    return files


def _read_cell(cell: dict) -> Cell:
    source = _text(cell["source"])
    if cell["cell_type"] != "code":
        return Cell(cell["cell_type"], source, {}, [])
    options = {key: _value(text) for key, text in OPTION.findall(source)}
    outputs = [output.get("data") or {"text/plain": output.get("text", "")} for output in cell["outputs"]]
    return Cell("code", OPTION.sub("", source), options,
                [{kind: json.dumps(value) if isinstance(value, dict) else _text(value) for kind, value in data.items()}
                 for data in outputs])


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)


def _value(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return text.strip("'\" ")


# --- suites


class Suite(NamedTuple):
    """What is published of a suite: what it says of itself, its runs, its notebooks in the suite's order."""

    facts: dict
    runs: list[dict[str, str]]
    notebooks: list[Notebook]


def read_suite(root: Path, name: str) -> Suite:
    """The published results of a suite.

    Raises:
        ReportError: there are none, or some of its figures are missing; names what makes them.
    """
    folder = root / "results" / name
    try:
        facts = json.loads((folder / "suite.json").read_text(encoding="utf-8"))
        with open(folder / "runs.csv", newline="", encoding="utf-8") as file:
            runs = list(csv.DictReader(file))
        suite = Suite(facts, runs, [read_notebook(folder / "figures" / f"{name}.ipynb") for name in facts["figures"]])
        variables({name: suite}, name)  # has what they need
    except FileNotFoundError as error:
        there = ", ".join(path.parent.name for path in sorted((root / "results").glob("*/suite.json"))) or "none"
        raise ReportError(f"suite {name!r} has no results ({_shown(Path(error.filename))} is not there), but {there} "
                          f"have; make train graphics SUITE={name}") from error
    except (ValueError, LookupError) as error:
        raise ReportError(f"{_shown(folder)}: suite.json or runs.csv cannot be read: {error!r}") from error
    return suite


def variables(suites: dict[str, Suite], site: str) -> dict:
    """What ``{{< var … >}}`` states: of the site's suite, of its two data sets, of every suite, of all together."""
    own = suites[site]
    return {"suite": _facts(own), "studies": {name: _facts(suite) for name, suite in suites.items()},
            "all": _amount([run for suite in suites.values() for run in suite.runs]),
            **{role: _facts_of_dataset(own.facts[role], own.runs) for role in ("first", "second")}}


def _facts(suite: Suite) -> dict:
    # Quarto takes a value that is the name of a file or folder, such as report, for a path: not so in asterisks.
    name, title = suite.facts["name"], suite.facts["title"]
    return {"name": f"*{name}*", "title": title, "table": f"/results/{name}/runs.csv", **_amount(suite.runs),
            "datasets": _listed(suite.runs, "dataset"), "epochs": _listed(suite.runs, "epochs"),
            **{key: _listed(suite.runs, f"environment.{key}") for key in ("device", "precision", "torch", "machine")}}


def _amount(runs: list[dict]) -> dict:
    return {"runs": len(runs), "minutes": f"{sum(float(run['seconds'] or 0) for run in runs) / 60:.0f}"}


def _facts_of_dataset(name: str, runs: list[dict]) -> dict:
    own = [run for run in runs if run["dataset"] == name]
    wide = [run for run in own if float(run["latent_dim"] or 0) > 2] or own
    return {"name": name, "epochs": _listed(own, "epochs"), "latents": _listed(wide, "latent_dim")}


def _listed(runs: list[dict], column: str) -> str:
    values = {run[column] for run in runs if run.get(column)}
    return ", ".join(sorted(values, key=lambda value: (len(value), value) if value.isdigit() else (0, value)))


# --- claims


def verdicts(root: Path, site: str) -> tuple[str, dict]:
    """The verdicts on the claims, and a digest of what they rest on.

    They are evaluated where the package can be imported; elsewhere ``results/claims.json`` has the published ones.

    Raises:
        ReportError: a check fails.
    """
    kept, folder = root / "results" / "claims.json", root / "report" / "_cells"
    source = [*root.glob("results/*/*.csv*"), *root.glob("src/sparse_vae/report/*.py"), *root.glob("report/claims.*"),
              root / "index.qmd", *root.glob("report/*.qmd"), *([kept] if kept.exists() else [])]
    digest = hashlib.sha256(site.encode())
    for path in sorted(source):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    file, mark = folder / "claims.json", folder / "claims.digest"
    if mark.exists() and mark.read_text() == digest.hexdigest() and file.exists():
        return digest.hexdigest(), json.loads(file.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "claims.json"
        answer = subprocess.run([find_python(root), "-m", "sparse_vae.report.claims",
                                 "--suite", site, "--output", output], cwd=root, capture_output=True, text=True)
        if not answer.returncode:
            return digest.hexdigest(), json.loads(output.read_text(encoding="utf-8"))
    if "No module named" in answer.stderr and "claims.py cannot be read" not in answer.stderr:
        return "", published_verdicts(root)  # not to be kept: the package may come
    raise ReportError(f"the claims cannot be checked: {answer.stderr.strip()}")


def published_verdicts(root: Path) -> dict:
    """What ``results/claims.json`` says; nothing if it is not there."""
    kept = root / "results" / "claims.json"
    return json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}


# --- everything


class Extract(NamedTuple):
    """All that is to be written: files below the root, pages of notebooks as Markdown."""

    files: dict[str, bytes]
    pages: dict[str, str]
    variables: dict


def collect(root: Path, site: str, *, evaluate: bool = True) -> Extract:
    """Resolve every cell and variable of every page, without writing.

    Args:
        site: the suite that the site is built of.
        evaluate: the claims; otherwise the published verdicts are taken.

    Raises:
        ReportError: all that is not there, each with the page and the line.
    """
    pages, problems, suites = read_pages(root), [], {}
    for place, name in [("", site), *((page.place(page.text.find("suites:")), name)
                                      for page in pages for name in page.suites if name != "site")]:
        if name not in suites:
            try:
                suites[name] = read_suite(root, name)
            except ReportError as error:
                problems.append(f"{place}: {error}" if place else str(error))
    if problems:
        raise ReportError("\n".join(dict.fromkeys(problems)))
    if evaluate:
        with ThreadPoolExecutor() as pool:  # each waits for a program of its own
            modern, checked = pool.submit(modernise, root, suites), pool.submit(verdicts, root, site)
        (suites, kept), (digest, claims) = modern.result(), checked.result()
    else:  # what is only checked needs no pictures
        kept, digest, claims = {}, "", published_verdicts(root)
    values = variables(suites, site) | {"claims": {id: dict(claim["values"]) for id, claim in claims.items()}}
    labels = {name: {cell.label: (notebook, cell) for notebook in suite.notebooks for cell in notebook.cells
                     if cell.label} for name, suite in suites.items()}
    shown: dict[str, tuple[Notebook, Cell]] = {}
    reference: dict[str, str] = {}
    for page in pages:
        own = [site if name == "site" else name for name in page.suites]
        for kind, argument, place in page.shortcodes():
            if kind == "var":
                problems += _unknown_variable(argument, values, claims, place)
            elif argument in GENERATED:
                continue
            elif argument.startswith("api-"):
                reference = reference or _script(root, "api").cells(root)
                problems += [] if argument in reference else [f"{place}: report/api.py makes no {argument}"]
            else:
                found = next((labels[name][argument] for name in own if argument in labels[name]), None)
                if not own:
                    problems.append(f"{place}: a page that shows cells names their suites in front, suites: [site]")
                elif not found:
                    problems.append(f"{place}: no executed notebook of suite {' or '.join(own)} has a cell with the "
                                    f"label {argument}")
                elif shown.setdefault(argument, found)[0] is not found[0]:
                    problems.append(f"{place}: {argument} is a cell of suite {found[0].suite} here and of "
                                    f"{shown[argument][0].suite} on another page; their names must differ")
    if problems:
        raise ReportError("\n".join(problems))
    cells = reference | {label: notebook.as_include(cell) for label, (notebook, cell) in shown.items()}
    shown_notebooks = [notebook for notebook, _ in shown.values()]
    cells["more"] = _more([notebook for notebook in suites[site].notebooks if notebook not in shown_notebooks])
    published = {name: [notebook for notebook in suite.notebooks if name == site or notebook in shown_notebooks]
                 for name, suite in suites.items()}
    cells["notebooks"] = "\n".join(
        f"## {name}: {suites[name].facts['title']} {{#{name}}}\n\n" + "".join(f"- {each.links}\n" for each in notebooks)
        for name, notebooks in published.items() if notebooks)
    cells["results"], cells["measures"] = _results(suites), _measures(root)
    cells["book"] = _book(root, {page.path: page.text for page in pages}, shown, cells, values)
    files = kept | {f"report/_cells/{name}.md": text.encode() for name, text in cells.items()}
    for name in ["measures.json", *(f"{name}/{table}" for name in suites for table in TABLES)]:
        path = root / "results" / name
        if (packed := path.with_name(f"{path.name}.gz")).exists():
            files[f"report/executed/{name}"] = gzip.decompress(packed.read_bytes())
        elif path.exists():
            files[f"report/executed/{name}"] = path.read_bytes()
    files["_variables.yml"] = _json(values)  # which is YAML too
    files["report/_cells/claims.json"], files["report/_cells/claims.digest"] = _json(claims), digest.encode()
    files |= {WIDGETS + path.name: path.read_bytes() for pattern in ("*.js", "*.css")
              for path in (root / "src" / "sparse_vae" / "report" / "widgets").glob(pattern)}
    texts = {}
    for notebook in (notebook for notebooks in published.values() for notebook in notebooks):
        place = notebook.folder.lstrip("/")
        texts[f"{place}{notebook.name}.html"] = notebook.as_page()
        files[f"{place}{notebook.name}.ipynb"] = notebook.path.read_bytes()
        files |= notebook.widgets | {place + name: content for name, content in notebook.pictures.items()}
    return Extract(files, texts, values)


def _book(root: Path, texts: dict[str, str], shown: dict[str, tuple[Notebook, Cell]], cells: dict[str, str],
          values: dict) -> str:
    """The chapters that ``report/print.qmd`` lists, in one text."""
    def printed(kind: str, name: str) -> str:
        if kind == "var":
            return str(reduce(dict.__getitem__, name.split("."), values))
        return shown[name][0].as_printed(shown[name][1]) if name in shown else cells.get(name, "")

    names = listed(texts.get("report/print.qmd", ""), "chapters")
    if missing := [name for name in names if f"report/{name}.qmd" not in texts]:
        raise ReportError(f"report/print.qmd: there is no chapter {', '.join(missing)}")
    return _script(root, "book").book({name: texts[f"report/{name}.qmd"] for name in names}, SHORTCODE, printed,
                                      without_code)


def _results(suites: dict[str, Suite]) -> str:
    """A list of the tables for download, and where the page "All results" comes to life."""
    rows = ["| suite | runs | data sets | tables (CSV) |", "|:--|--:|:--|:--|"]
    for name, suite in suites.items():
        links = [f'[{table[:-4]}](/report/executed/{name}/{table}){{download="{name}-{table}"}}' for table in TABLES]
        datasets = _listed(suite.runs, "dataset")
        rows.append(f"| *{name}*: {suite.facts['title']} | {len(suite.runs)} | {datasets} | {', '.join(links)} |")
    element = (f'<all-results data-suites="{" ".join(suites)}"><p>With JavaScript, the tables can be filtered, sorted '
               f'and plotted here.</p></all-results>\n<script type="module" src="/{WIDGETS}results.js"></script>')
    return "\n".join([*rows, "", fence(element, "{=html}")])


def _measures(root: Path) -> str:
    """A list of all measures, with what each is."""
    path = root / "results" / "measures.json"
    about = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    entries = []
    for name, measure in sorted(about.items(), key=lambda item: item[1]["title"].lower()):
        sentence = measure["description"]
        entries.append(f"{measure['title']}\n: {sentence[:1].upper()}{sentence[1:]}. `{name}`\n")
    return "\n".join(entries)


@cache
def _script(root: Path, name: str) -> ModuleType:
    """Another script of the folder ``report``."""
    specification = importlib.util.spec_from_file_location(f"sparse_vae_{name}", root / "report" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def _unknown_variable(name: str, values: dict, claims: dict, place: str) -> list[str]:
    """What is wrong with a variable: nothing if all is well."""
    keys, value = name.split("."), values
    if keys[0] == "claims" and len(keys) == 3 and claims.get(keys[1], {}).get("holds", False) is None:
        values["claims"][keys[1]].setdefault(keys[2], "—")  # its sentence is left out
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return [] if value is not None and not isinstance(value, dict) else [f"{place}: there is no variable {name}"]


def _more(notebooks: list[Notebook]) -> str:
    parts = []
    for notebook in notebooks:
        title = notebook.name.replace("-", ": ", 1).replace("_", " ")
        parts += [f"### {title[0].upper()}{title[1:]}\n",
                  *(notebook.as_include(cell) for cell in notebook.cells if cell.label)]
    return "\n".join(parts) or "This suite has no further figures.\n"


def _json(content: dict) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


def write(root: Path, extract: Extract) -> None:
    """Write what changed, make the pages of notebooks that changed, and remove what nothing shows any more."""
    for name, content in extract.files.items():
        _write(root / name, content)
    expected = {root / name for name in [*extract.files, *_write_pages(root, extract.pages), *_write_library(root)]}
    for folder in ("_cells", "executed"):
        for path in (root / "report" / folder).rglob("*.*"):
            if path.is_file() and path not in expected:
                path.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def _write_pages(root: Path, pages: dict[str, str]) -> list[str]:
    """Pages of notebooks, by pandoc; a comment at the end of each says what it was made from. Returns their names."""
    tools = [root / "report" / "preview" / name for name in ("notebooks.lua", "template.html", "style.css")]
    tools_digest = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in tools)
    marks = {name: f"<!-- {hashlib.sha256(tools_digest + text.encode()).hexdigest()} -->\n".encode()
             for name, text in pages.items()}
    stale = [name for name, mark in marks.items()
             if not (root / name).exists() or not (root / name).read_bytes().endswith(mark)]
    with tempfile.TemporaryDirectory() as temporary:
        files = []
        for number, name in enumerate(stale):
            file = Path(temporary) / f"{number}.md"
            file.write_text(pages[name], encoding="utf-8")
            files.append(file)
        shares = [files[start::2] for start in range(2) if files[start::2]]
        running = [subprocess.Popen([find_pandoc(root), "lua", *tools, *share]) for share in shares]
        if any([process.wait() for process in running]):
            raise ReportError("pandoc cannot make pages of notebooks; it must be 3.0 or later")
        for name, file in zip(stale, files, strict=True):
            _write(root / name, file.with_suffix(".html").read_bytes() + marks[name])
    return list(pages)


def _write_library(root: Path) -> list[str]:
    """Vega for the plots that answer, as vl-convert brings it; without it they stay pictures. Returns its name."""
    name = f"{WIDGETS}vega.js"
    if not (root / name).exists():
        program = ("import sys, vl_convert; sys.stdout.reconfigure(encoding='utf-8')\n"
                   "print(vl_convert.javascript_bundle('globalThis.vegaEmbed = vegaEmbed;'))")
        answer = subprocess.run([find_python(root), "-c", program], capture_output=True)
        if answer.returncode:
            return []
        _write(root / name, answer.stdout)
    return [name]


def find_python(root: Path) -> Path | str:
    """The Python that the package is installed for."""
    python = root / ".venv" / "bin" / "python"
    return python if python.exists() else sys.executable


def find_pandoc(root: Path) -> str:
    """The pandoc to make pages with: $QUARTO_PANDOC, the one that Quarto brings, the package's, the one on PATH.

    Raises:
        ReportError: there is none.
    """
    installed = [*Path(os.environ.get("QUARTO_BIN_PATH", os.devnull)).glob("tools/**/pandoc"),
                 *(path for prefix in (root / ".venv", Path(sys.prefix))
                   for path in prefix.glob("lib/*/site-packages/pypandoc/files/pandoc"))]
    pandoc = os.environ.get("QUARTO_PANDOC") or next(map(str, installed), None) or shutil.which("pandoc")
    if not pandoc:
        raise ReportError("pages of notebooks are made with pandoc, which Quarto and the package bring; there is none")
    return pandoc


def _shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def main() -> int:
    """Extract what the site of Quarto's profile shows; 1 if something is missing."""
    site = (os.environ.get("QUARTO_PROFILE") or "report").split(",")[0]
    try:
        write(ROOT, collect(ROOT, site))
    except ReportError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
