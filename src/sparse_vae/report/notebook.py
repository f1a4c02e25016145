"""What a notebook shows and the report embeds: outputs that carry their label, caption and alternative text.

In a notebook, :func:`show`, :func:`show_table`, :func:`show_html` and :func:`say` display a figure, a table, a piece of
HTML or a sentence and attach what the report needs to know of it. After the notebook was executed, :func:`annotate`
writes that into the cells as the ``#|`` comments that Quarto reads, so that captions and alternative texts can state
what was measured.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure

if TYPE_CHECKING:  # its import takes two seconds, in every notebook
    from nbformat import NotebookNode

    from sparse_vae.report.runs import Run

KEY = "sparse_vae"
DPI = 160


def show(figure: Figure, *, label: str, caption: str, alt: str) -> None:
    """Display a figure.

    Args:
        figure: from :mod:`sparse_vae.report.figures`.
        label: ``fig-…``, its name for cross-references.
        caption: what it shows.
        alt: for who cannot see it: what there is to be seen, and the finding.
    """
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    picture = base64.b64encode(buffer.getvalue()).decode()
    display({"image/png": picture, "text/plain": alt}, raw=True,
            metadata={KEY: {"label": label, "fig-cap": caption, "fig-alt": alt}})


def show_table(table: pd.DataFrame, *, label: str, caption: str) -> None:
    """Display a table of ready-made strings and numbers, its index first; ``label`` is ``tbl-…``."""
    frame = table.reset_index()
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [frame.columns, *frame.itertuples(index=False)]]
    rules = []
    for column in frame:
        # The columns of a wide table get room in proportion to these dashes.
        dashes = "-" * max(3, *(len(str(value)) for value in frame[column]))
        is_number = all(str(value).lstrip("*")[:1] in "0123456789-−–—+." for value in frame[column])
        rules.append(f"{dashes}:" if is_number else f":{dashes}")
    lines.insert(1, "|" + "|".join(rules) + "|")
    display({"text/markdown": "\n".join(lines), "text/plain": table.to_string()}, raw=True,
            metadata={KEY: {"label": label, "tbl-cap": caption}})


def mean_and_error(values: Sequence[float | None], digits: int) -> str:
    """Mean ± standard error of the mean, as tables write it; the mean alone of equal values, a dash where None is.

    >>> mean_and_error([1.0, 3.0], 1)
    '2.0\xa0±\xa01.0'
    """
    if None in values:
        return "—"
    error = f"\u00a0±\u00a0{np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}" if len(set(values)) > 1 else ""
    return f"{np.mean(values):z.{digits}f}{error}".replace("-", "−")


def change_and_error(first: Sequence[float], second: Sequence[float], digits: int) -> str:
    """Change of the mean from ``first`` to ``second`` ± its standard error (independent samples), as tables write it.

    >>> change_and_error([1.0, 3.0], [1.5, 1.5], 1)
    '−0.5\xa0±\xa01.0'
    """
    change, error = _change(first, second)
    return f"{change:+z.{digits}f}\u00a0±\u00a0{error:.{digits}f}".replace("-", "−")


def _change(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Change of the mean and its standard error, which is 0 for single values."""
    variances = [np.var(values, ddof=1) / len(values) if len(values) > 1 else 0 for values in (first, second)]
    return np.mean(second) - np.mean(first), sum(variances) ** 0.5


def compare_pairs(cells: Mapping[tuple[str, int], Sequence[Run]],
                  pairs: Iterable[tuple[str, str]]) -> tuple[pd.DataFrame, str]:
    """What one model changes against another at every J that both were trained with.

    Args:
        cells: (title, J) → runs, from :func:`sparse_vae.report.runs.by_title_and_size`; all with a bound.
        pairs: of titles: the model to compare with, and the one compared.

    Returns:
        A table of the changes in dimensions in use and in −ELBO, with their standard errors, and sentences that say at
        which J each is better, worse or level, a difference within two standard errors, where both have several seeds;
        an empty table if no pair shares a J.
    """
    rows, verdicts = [], []
    for former, latter in pairs:
        found: dict[str, dict[str, list[str]]] = {}  # what is compared → verdict → J
        for J in [J for title, J in cells if title == former and (latter, J) in cells]:
            used, bounds = ([[run.metrics[measure] for run in cells[title, J]] for title in (former, latter)]
                            for measure in ("used_dimensions", "negative_elbo"))
            rows.append({"model": latter, "against": former, "J": J, "in use": change_and_error(*used, 1),
                         "−ELBO (nats)": change_and_error(*bounds, 2)})
            for what, values, below, above in (("its bound", bounds, "better", "worse"),
                                               ("its number of dimensions in use", used, "smaller", "larger")):
                change, error = _change(*values)
                verdict = "level" if abs(change) <= 2 * error else below if change < 0 else above
                if min(map(len, values)) > 1:  # of a single seed there is no error to judge by
                    found.setdefault(what, {}).setdefault(verdict, []).append(f"{J}")
        if found:
            verdicts.append(f"**{latter}** against {former}: " + "; ".join(
                f"{what} is " + ", ".join(f"{verdict} at J = {' and '.join(sizes)}" for verdict, sizes in parts.items())
                for what, parts in found.items()))
    return pd.DataFrame(rows), ". ".join(verdicts)


def say(text: str, *, label: str) -> None:
    """Display a paragraph (Markdown) that states what was measured, its numbers put in by the notebook."""
    display({"text/markdown": text, "text/plain": text}, raw=True, metadata={KEY: {"label": label}})


def show_html(html: str, *, label: str, text: str) -> None:
    """Display a piece of HTML, and ``text`` where there is none."""
    display({"text/html": html, "text/plain": text}, raw=True, metadata={KEY: {"label": label}})


def annotate(notebook: NotebookNode, suffix: str) -> NotebookNode:
    """Give every cell with a labelled output its ``#|`` comments; ``suffix`` makes labels unique across notebooks.

    Also takes out what depends on the machine: progress bars, execution times, papermill's record of paths.

    Raises:
        ValueError: a cell with two labelled outputs, which the report could not tell apart.
    """
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata.get("tags", [])}
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
