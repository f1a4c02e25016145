"""The report's website: staged from ``report/`` and one suite's results, rendered, published.

Most chapters know no suite. Rendering copies them into ``build/site-<suite>/`` beside the suite's executed figure
notebooks, and beside ``_variables.yml``, the values that the text states. Chapters on a study show the figures of that
study's own suite, whichever suite is rendered; its results are published with the project. Quarto renders the
folder where it is installed (:mod:`sparse_vae.report.quarto`); otherwise :mod:`sparse_vae.report.preview` makes plain pages of the
same sources.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import nbformat
import pandas as pd
import yaml
from nbformat import NotebookNode

from sparse_vae.checks import SettingError
from sparse_vae.datasets import describe_datasets
from sparse_vae.files import replace
from sparse_vae.report import preview, quarto
from sparse_vae.report.preview import SiteError
from sparse_vae.report.runs import Run
from sparse_vae.report.suites import Suite, is_drawn, load_suite, read_notebook

BRANCH = "gh-pages"
RAW_HTML = "```{=html}\n", "\n```"
STUDY = re.compile(r"\{\{< var studies\.(\w+)\.")


def _finished_runs(suite: Suite) -> list[Run]:
    """The results of every run of a suite; a missing one is a :class:`SettingError`."""
    missing = [run.name for run in suite.runs if not (suite.folder / run.name / "metrics.json").exists()]
    if missing:
        raise SettingError(f"suite {suite.name!r} has no results for {len(missing)} of {len(suite.runs)} runs, the "
                           f"first is {missing[0]}; make train graphics SUITE={suite.name}")
    return [Run(suite.folder / run.name) for run in suite.runs]


def _listed(values) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _facts(suite: Suite, runs: list[Run]) -> dict:
    """What the text can say of a suite as a whole."""
    environments = [run.metrics["environment"] for run in runs]
    return {"name": suite.name, "title": suite.title, **_amount(runs),
            "datasets": _listed(run.config.dataset for run in runs),
            "epochs": _listed(run.config.training.epochs for run in runs),
            **{key: _listed(environment[key] for environment in environments)
               for key in ("device", "precision", "torch", "machine")}}


def _amount(runs: Iterable[Run]) -> dict:
    seconds = [run.metrics["training_seconds"] for run in runs]
    return {"runs": len(seconds), "minutes": f"{sum(seconds) / 60:.0f}"}


def _facts_of_dataset(name: str, runs: list[Run]) -> dict:
    own = [run for run in runs if run.config.dataset == name]
    wide = [run for run in own if run.config.model_settings["latent_dim"] > 2] or own
    return {"name": name, "description": describe_datasets()[name],
            "epochs": _listed(run.config.training.epochs for run in own),
            "latents": _listed(run.config.model_settings["latent_dim"] for run in wide),
            "seeds": len({run.config.training.seed for run in own}),
            "likelihood": _listed(run.metrics["likelihood"] for run in own)}


def stage(suite: Suite) -> Path:
    """Put the report's sources and the suite's results into one folder, ready to render; returns it.

    Results that are older than the suite are said on stderr.

    Raises:
        SettingError: results that the report shows are missing.
        SiteError: a figure notebook is damaged.
    """
    studies = {name for path in (suite.root / "report").glob("*.qmd") for name in STUDY.findall(path.read_text())}
    suites = {suite.name: suite} | {name: load_suite(name, suite.root) for name in sorted(studies - {suite.name})}
    runs = {name: _finished_runs(each) for name, each in suites.items()}
    facts = {name: _facts(each, runs[name]) for name, each in suites.items()}
    variables = {"suite": facts[suite.name], "first": _facts_of_dataset(suite.first, runs[suite.name]),
                 "second": _facts_of_dataset(suite.second, runs[suite.name]), "studies": facts,
                 "all": _amount(chain.from_iterable(runs.values()))}
    figures = [suite.folder / "figures" / figure.file_name for figure in suite.figures]
    missing = [path.name for path in figures if not path.exists()]
    if missing:
        raise SettingError(f"suite {suite.name!r} lacks {len(missing)} of {len(figures)} figure notebooks, the first "
                           f"is {missing[0]}; make graphics SUITE={suite.name}")
    staged = suite.root / "build" / f"site-{suite.name}"
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(suite.root / "report", staged)
    shutil.copy(suite.root / "_quarto.yml", staged)
    (staged / "notebooks").mkdir()
    for path in (suite.root / "notebooks").glob("exercise_*.ipynb"):  # for readers to download
        shutil.copy(path, staged / "notebooks")
    _add_extra_chapters(staged, figures)
    for path in figures:
        _copy_notebook(path, staged)
    _copy_study_figures(staged, suite)
    for name, each in suites.items():
        if older := _older_than(each, runs[name]):
            print(f"warning: {older}", file=sys.stderr)
    (staged / "_variables.yml").write_text(yaml.safe_dump(variables, allow_unicode=True))
    table = pd.concat([_runs_table(each, runs[name]).assign(suite=name) for name, each in suites.items()])
    table.set_index(["suite", "run"]).to_csv(staged / "runs.csv", float_format="%.6g")
    return staged


def _older_than(suite: Suite, results: list[Run]) -> str:
    """How many results were made with other settings, or figures of other runs or notebooks; nothing if there are none.

    Weights are not looked at: published results come without.
    """
    runs = sum(result.config != run.config for run, result in zip(suite.runs, results, strict=True))
    figures = sum(not is_drawn(figure, suite) for figure in suite.figures)
    counts = " and ".join(f"{n} {what}{'s' * (n > 1)}" for n, what in ((runs, "run"), (figures, "figure")) if n)
    if not counts:
        return ""
    verb, targets = "is" if runs + figures == 1 else "are", "train graphics" if runs else "graphics"
    return f"{counts} {verb} older than the suite: make {targets} SUITE={suite.name}"


def _copy_study_figures(staged: Path, suite: Suite) -> None:
    """Copy in the figure notebooks that chapters show and that other suites drew.

    Raises:
        SettingError: no suite has drawn one.
    """
    for name in sorted(_embedded_names(staged)):
        if (staged / name).exists():
            continue
        sources = sorted((suite.root / "results").glob(f"*/figures/{name}"))
        if not sources:
            raise SettingError(f"a chapter shows {name}, which no suite has drawn: suite {suite.name!r} does not, and "
                               "results/ has it from no other")
        _copy_notebook(sources[0], staged)


def _embedded_names(staged: Path) -> set[str]:
    return set().union(*(preview.embedded_notebooks(path.read_text()) for path in staged.glob("*.qmd")))


def _copy_notebook(path: Path, staged: Path) -> None:
    """Copy in an executed notebook, the figure's name in its title, so that two executions can be told apart.

    Its outputs of HTML become raw HTML in Markdown: for an output of HTML as such, Quarto would have the page load
    libraries from another site.
    """
    notebook = _read_drawn(path)
    if notebook.cells and notebook.cells[0].cell_type == "markdown":
        title, _, text = notebook.cells[0].source.partition("\n")
        notebook.cells[0].source = f"{title} ({path.stem.partition('-')[2]})\n{text}"
    for data in _outputs(notebook):
        if "text/html" in data:
            data["text/markdown"] = RAW_HTML[0] + data.pop("text/html") + RAW_HTML[1]
    nbformat.write(notebook, staged / path.name)


def _restore_html(path: Path) -> None:
    """The inverse for a rendered site's notebook, which readers download and open elsewhere."""
    if "{=html}" not in path.read_text():
        return
    notebook = _read_drawn(path)
    for data in _outputs(notebook):
        if data.get("text/markdown", "").startswith(RAW_HTML[0]):
            data["text/html"] = data.pop("text/markdown").removeprefix(RAW_HTML[0]).removesuffix(RAW_HTML[1])
    nbformat.write(notebook, path)


def _outputs(notebook: NotebookNode) -> list[dict]:
    return [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]


def _read_drawn(path: Path) -> NotebookNode:
    try:
        return read_notebook(path)
    except SettingError as error:
        raise SiteError(f"{error}; draw it again, `make graphics` does") from error


def _runs_table(suite: Suite, results: list[Run]) -> pd.DataFrame:
    """Settings and measures of every run of a suite, one row each."""
    return pd.json_normalize([{"run": run.name, **asdict(result.config), **result.metrics}
                              for run, result in zip(suite.runs, results, strict=True)])


def results_table(suite: Suite) -> str:
    """The measures of a suite's runs as a Markdown table, mean over the seeds of each model and its settings."""
    table = _runs_table(suite, _finished_runs(suite))
    table["folder"] = table.run.str.rpartition("/")[0]
    table["minutes"], table["active"] = table.training_seconds / 60, 100 * table.active_fraction
    keys = ["dataset", "model", "model_settings.latent_dim", "likelihood", "folder"]
    columns = {"negative_elbo": ("−ELBO (nats)", 2), "mean_squared_error": ("MSE", 4),
               "explained_variance": ("explained variance", 3), "active": ("active (%)", 1),
               "used_dimensions": ("dimensions in use", 1), "minutes": ("minutes per run", 1)}
    groups = table.groupby(keys, sort=False)
    means, seeds = groups[list(columns)].mean(), groups.size()
    lines = ["| data | model | J | likelihood | seeds | " + " | ".join(title for title, _ in columns.values()) + " |",
             "|:--|:--|--:|:--|--:|" + "--:|" * len(columns)]
    for key, row in means.iterrows():
        cells = ["—" if pd.isna(row[name]) else f"{row[name]:.{digits}f}" for name, (_, digits) in columns.items()]
        lines.append("| " + " | ".join(map(str, [*key[:-1], seeds[key], *cells])) + " |")
    return "\n".join(lines)


def _add_extra_chapters(staged: Path, figures: list[Path]) -> None:
    """Write ``_more.qmd``: embeds of every labelled cell of the notebooks that no chapter shows."""
    lines, shown = [], _embedded_names(staged)
    for path in figures:
        if path.name in shown:
            continue
        notebook = _read_drawn(path)
        title = path.stem.replace("-", ": ", 1).replace("_", " ")
        lines.append(f"### {title[0].upper()}{title[1:]}\n")
        lines += [f"{{{{< embed {path.name}#{label} echo=true >}}}}\n"
                  for cell in notebook.cells for label in preview.cell_labels(cell)]
    (staged / "_more.qmd").write_text("\n".join(lines) or "This suite has no further figures.\n")


def render(suite: Suite, *, plain: bool = False) -> Path:
    """Build the site of a suite into ``_site/``, which is replaced whole; returns its first page.

    Args:
        suite: with its runs trained and its figures drawn.
        plain: make the plain preview even where Quarto is installed.

    Raises:
        SettingError: results are missing.
        SiteError: Quarto fails; the former site stays.
    """
    staged = stage(suite)
    program = None if plain else quarto.find_quarto()
    if program:
        quarto.render(program, staged)
    else:
        if not plain:
            print("Quarto 1.7 or later is not installed: building the plain preview of the same sources.")
        preview.render(staged)
    for page in (staged / "_site").glob("*.html"):  # Quarto links to cells of tables by an anchor that it does not set
        text = page.read_text()
        if "#cell-tbl-" in text:
            page.write_text(text.replace("#cell-tbl-", "#tbl-"))
    for path in (staged / "_site").glob("*.ipynb"):
        _restore_html(path)
    site = suite.root / "_site"
    replace(staged / "_site", site)
    return site / "index.html"


def publish(suite: Suite, *, remote: str = "origin") -> None:
    """Render a suite's site and push it to the branch ``gh-pages`` of ``remote``, made when it is not there.

    The site is one commit on top of what is published; the working tree and the current branch stay as they are.

    Raises:
        SiteError: no such remote, no author's name in git's settings, or the push is refused.
    """
    url = _git(suite.root, "remote", "get-url", remote).strip()
    author = [option for key in ("user.name", "user.email") for option in ("-c", f"{key}={_author(suite.root, key)}")]
    render(suite)
    if "://" not in url and not url.startswith("/") and "@" not in url:
        url = str((suite.root / url).resolve())
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "site"
        if _git(suite.root, "ls-remote", "--heads", url, BRANCH).strip():
            _git(suite.root, "clone", "--quiet", "--depth", "1", "--branch", BRANCH, url, str(clone))
            for path in clone.iterdir():
                if path.name != ".git":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            _git(suite.root, "init", "--quiet", "--initial-branch", BRANCH, str(clone))
            _git(clone, "remote", "add", "origin", url)
        shutil.copytree(suite.root / "_site", clone, dirs_exist_ok=True)
        # Without this file the host would drop folders whose names begin with an underscore.
        (clone / ".nojekyll").touch()
        _git(clone, "add", "--all")
        if not _git(clone, "status", "--porcelain").strip():
            print(f"{BRANCH} of {remote} is up to date")
            return
        commit = _git(suite.root, "rev-parse", "--short", "HEAD").strip()
        _git(clone, *author, "commit", "--quiet", "-m", f"Publish suite {suite.name} from {commit}")
        _git(clone, "push", "--quiet", "origin", BRANCH)
    print(f"published suite {suite.name} to {BRANCH} of {remote}")


def _author(folder: Path, key: str) -> str:
    value = _git(folder, "config", "--default", "", key).strip()
    if not value:
        raise SiteError(f"git has no {key}, which a commit needs: git config --global {key} …")
    return value


def _git(folder: Path, *arguments: str) -> str:
    answer = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SiteError(f"git {arguments[0]} failed: {answer.stderr.strip() or answer.stdout.strip()}")
    return answer.stdout
