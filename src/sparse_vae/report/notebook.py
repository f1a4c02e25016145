"""What a notebook shows and the report embeds: outputs that carry their label, caption and alternative text.

In a notebook, :func:`show`, :func:`show_table`, :func:`show_html` and :func:`say` display a figure, a table, a piece of
HTML or paragraphs and attach what the report needs to know of them. After the notebook was executed, :func:`annotate`
writes that into the cells as the ``#|`` comments that Quarto reads, so that captions and alternative texts can state
what was measured.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from io import BytesIO
from numbers import Number
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from sparse_vae.report import vega
from sparse_vae.report.figures import DPI

if TYPE_CHECKING:  # its import takes two seconds, in every notebook
    from nbformat import NotebookNode

KEY = "sparse_vae"
GREYS = 64
"""Shades of a saved grey figure: neighbours differ by less than anybody sees, and the file is half as large."""
TOLERANCE = 4.0
"""Largest root mean square difference, of 255, that a palette of 256 colours may make."""


def show(figure: Figure, *, label: str, caption: str, alt: str) -> None:
    """Display a figure; one that is a plot of curves or points also as it answers to a reader.

    Args:
        figure: from :mod:`sparse_vae.report.plots` or :mod:`sparse_vae.report.figures`.
        label: ``fig-…``, its name for cross-references.
        caption: what it shows.
        alt: for who cannot see it: what there is to be seen, and the finding.
    """
    picture = base64.b64encode(png(figure)).decode()
    specification = getattr(figure, "specification", None)
    answers = {vega.MIME: specification} if specification else {}
    display({"image/png": picture, "text/plain": alt, **answers}, raw=True,
            metadata={KEY: {"label": label, "fig-cap": caption, "fig-alt": alt}})


def png(figure: Figure) -> bytes:
    """A figure as a small PNG at least 8 inches wide: grey if it has no colours, else with a palette where that does.
    """
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out: savefig would do it again
    # Never narrower than the figure, so that text has one size on a page; wider rather than cut.
    everything = Bbox.union([figure.bbox_inches, figure.get_tightbbox()])
    figure.savefig(buffer := BytesIO(), format="png", dpi=DPI, facecolor="white", bbox_inches=everything,
                   pil_kwargs={"compress_level": 0})
    picture = Image.open(buffer).convert("RGB")
    pixels = np.asarray(picture)
    if (pixels == pixels[..., :1]).all():
        shades = np.round(pixels[..., 0] * ((GREYS - 1) / 255)) * (255 / (GREYS - 1))
        picture = Image.fromarray(shades.round().astype(np.uint8))
    else:
        fewer = picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        if np.square(np.subtract(  # type: ignore[call-overload]
                pixels, fewer.convert("RGB"), dtype=np.float32)).mean() ** 0.5 <= TOLERANCE:
            picture = fewer
    picture.save(smaller := BytesIO(), format="PNG", optimize=True)
    return smaller.getvalue()


def show_table(table: pd.DataFrame, *, label: str, caption: str) -> None:
    """Display a table as :func:`markdown_table` writes it; ``label`` is ``tbl-…``."""
    display({"text/markdown": markdown_table(table), "text/plain": table.to_string()}, raw=True,
            metadata={KEY: {"label": label, "tbl-cap": caption}})


def markdown_table(table: pd.DataFrame) -> str:
    """A table of ready-made strings and numbers in Markdown, its index first.

    Every level of the index is a column. Columns of numbers are set to the right, what is missing is a dash.
    """
    header = [*(name or "" for name in table.index.names),
              *(", ".join(map(str, name)) if isinstance(name, tuple) else name for name in table.columns)]
    rows = [[_cell(value) for value in row] for row in [header, *(
        [*(key if isinstance(key, tuple) else [key]), *values]
        for key, values in zip(table.index, table.itertuples(index=False), strict=True))]]
    rules = []
    for column in zip(*rows, strict=True):
        # The columns of a wide table get room in proportion to these dashes.
        dashes = "-" * max(map(len, [*column[1:], "---"]))
        is_number = all(cell.lstrip("*")[:1] in "0123456789-−–—+." for cell in column[1:])
        rules.append(f"{dashes}:" if is_number else f":{dashes}")
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "|".join(rules) + "|")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "—"
    if isinstance(value, Number):
        return (f"{value:g}" if isinstance(value, float) else str(value)).replace("-", "−")
    return str(value).replace("|", "\\|")


def say(*paragraphs: str, label: str) -> None:
    """Display paragraphs (Markdown) that state what was measured, their numbers put in by the notebook."""
    text = "\n\n".join(paragraphs)
    display({"text/markdown": text, "text/plain": text}, raw=True, metadata={KEY: {"label": label}})


def listing(names: Iterable[object]) -> str:
    """Names in a sentence; of none, "none".

    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    *others, last = [str(name) for name in names] or ["none"]
    return f"{', '.join(others)} and {last}" if others else last


def number(value: float | None, digits: int = 0) -> str:
    """A number in a sentence, with a minus sign; a dash where there is none.

    >>> number(-1.25, 1)
    '−1.2'
    """
    return "—" if value is None or math.isnan(value) else f"{value:z.{digits}f}".replace("-", "−")


def show_html(html: str, *, label: str, text: str) -> None:
    """Display a piece of HTML, and ``text`` where there is none."""
    display({"text/html": html, "text/plain": text}, raw=True, metadata={KEY: {"label": label}})


def annotate(notebook: NotebookNode, suffix: str) -> NotebookNode:
    """Give every cell with a labelled output its ``#|`` comments; ``suffix`` makes labels unique across notebooks.

    Also takes out what depends on the machine or on chance: progress bars, execution times, papermill's records.

    Raises:
        ValueError: a cell with two labelled outputs, which the report could not tell apart.
    """
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata.get("tags", [])}
        if "injected-parameters" in cell.metadata["tags"]:
            cell.id = "injected-parameters"  # papermill draws one: the same figure would be another file
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        labels = [output.metadata[KEY]["label"] for output in cell.outputs if KEY in output.get("metadata", {})]
        if len(labels) > 1:
            raise ValueError(f"a cell can show one labelled output; got {', '.join(labels)}")
        for output in cell.outputs:
            notes = output.get("metadata", {}).pop(KEY, None)
            if notes:
                notes["label"] = f"{notes['label']}-{suffix}"
                comments = [f"#| {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in notes.items()]
                cell.source = "\n".join([*comments, cell.source])
    notebook.metadata.pop("papermill", None)
    return notebook
