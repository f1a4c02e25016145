"""The notebooks: stripped, readable, and run from top to bottom, on the spot and on a published suite."""

from __future__ import annotations

import ast
import base64
import itertools
import re
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from matplotlib.image import imread

from sparse_vae.checkpoints import train_run
from sparse_vae.configuration import configure, load_data
from sparse_vae.models import MODELS, GenerativeModel
from sparse_vae.report import notebook
from sparse_vae.report.measures import measure
from sparse_vae.report.runs import is_finished, save_run
from sparse_vae.report.suites import expand_run, load_suite, suite_names, template_parameters
from sparse_vae.report.tables import collect

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
DIALECT = ["suite", "runs", "train"]
OF_RUNS = [name for name in NAMES if "suite" in template_parameters(NOTEBOOKS / f"{name}.ipynb")]
MOST_LINES, LONGEST_CELL = 1300, 15


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code_cells(name: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def is_parameters(cell) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


def lines_of(cell) -> int:
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def declared_labels(name: str) -> set[str]:
    """The labels that a notebook's code gives."""
    return {label for cell in code_cells(name) for label in re.findall(r'\blabel="([\w-]+)"', cell.source)}


# --- the files


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stripped(name):
    content = read(name)
    nbformat.validate(content)
    assert content.cells[0].cell_type == "markdown"
    for cell in content.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
        assert cell.metadata.keys() <= {"tags"}
    assert content.metadata.keys() <= {"kernelspec", "language_info"}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_commented_literals(name):
    cell, = filter(is_parameters, code_cells(name))
    lines = cell.source.splitlines()
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.Assign)
        assert len(statement.targets) == 1
        ast.literal_eval(statement.value)
        line, above = lines[statement.end_lineno - 1], lines[statement.lineno - 2] if statement.lineno > 1 else ""
        assert "  # " in line or above.startswith("# "), line


def test_notebooks_that_draw_runs_speak_one_dialect():
    assert len(OF_RUNS) > 20
    for name in OF_RUNS:
        assert list(template_parameters(NOTEBOOKS / f"{name}.ipynb"))[:3] == DIALECT, name


def test_notebooks_are_short_and_text_stands_between_their_cells():
    lines = {name: [lines_of(cell) for cell in code_cells(name)] for name in NAMES}
    assert sum(map(sum, lines.values())) < MOST_LINES
    for name, cells in lines.items():
        assert max(cells) <= LONGEST_CELL, name
        kinds = [cell.cell_type for cell in read(name).cells]
        assert ("code", "code") not in set(itertools.pairwise(kinds)), name


def test_templates_make_every_cell_that_chapters_show():
    made = {f"{label}-{figure.name}" for suite in map(load_suite, suite_names(ROOT)) for figure in suite.figures
            for label in declared_labels(figure.notebook)}
    for path in [ROOT / "index.qmd", *(ROOT / "report").glob("*.qmd")]:
        shown = set(re.findall(r"^\{\{< cell (?!api-)([\w-]+-[\w-]+) >\}\}", path.read_text(), re.MULTILINE))
        assert shown <= made, path.name


# --- run from top to bottom


@pytest.fixture
def run_cells(monkeypatch):
    """Run a notebook's cells in this process with other parameters; returns what was shown, by label.

    With ``brief``, what its defaults train takes two epochs, one seed, few data, and two values of a list at most;
    what they draw, few samples, and no faces.
    """
    def run(name: str, *, brief: bool = False, **parameters) -> dict[str, dict]:
        shown = {}

        def display(data, *, raw, metadata):
            notes = metadata[notebook.KEY]
            assert notes["label"] not in shown
            shown[notes["label"]] = {**notes, **data}

        monkeypatch.setattr(notebook, "display", display)
        monkeypatch.setattr(notebook, "DPI", 100)
        namespace = {"__name__": "__main__", "display": print}  # JupyterLab's display is there without an import
        for cell in code_cells(name):
            exec(compile(cell.source, name, "exec"), namespace)
            if is_parameters(cell):
                assert parameters.keys() <= namespace.keys()
                namespace.update(parameters)
                if brief:
                    shorten(namespace)
        check_shown(shown)
        assert shown.keys() <= declared_labels(name)
        return shown

    return run


BRIEF = {"epochs": 2, "problems": 2, "samples": 400, "datasets": ["digits", "sinusoids", "returns"]}


def shorten(parameters: dict) -> None:
    parameters.update({name: value for name, value in BRIEF.items() if name in parameters})
    for settings in ("settings", "trained"):
        if settings in parameters:
            parameters[settings]["epochs"] = 2
    train = parameters.get("train") or []
    for entry in [train] if isinstance(train, dict) else train:
        for name, values in entry.items():
            if isinstance(values, list) and name != "model":
                entry[name] = values[:1 if name == "seed" else 2]
            elif name.startswith("dataset.n_"):
                entry[name] = min(values, 500)
        models = entry["model"] if isinstance(entry["model"], list) else [entry["model"]]
        if set(models) <= set(MODELS):  # the others have no epochs
            entry["epochs"] = 2


def check_shown(shown: dict[str, dict]) -> None:
    for label, part in shown.items():
        if label.startswith("fig-"):
            assert part["fig-cap"].endswith(".")
            assert part["text/plain"] == part["fig-alt"]
            assert len(part["fig-alt"]) > 40
            height, width, *_ = imread(BytesIO(base64.b64decode(part["image/png"]))).shape
            assert min(height, width) > 60
        else:
            assert part.get("text/markdown") or part["text/html"]
        words = f"{part.get('fig-alt')} {part.get('text/markdown')}"
        assert "nan" not in words.replace("finance", "").split()


@pytest.mark.parametrize("name", OF_RUNS)
def test_what_a_notebook_trains_at_its_defaults_can_be_trained(name):
    train = template_parameters(NOTEBOOKS / f"{name}.ipynb")["train"]
    for entry in [train] if isinstance(train, dict) else train:
        assert expand_run(entry)


@pytest.mark.parametrize(("name", "brief"), [
    *((name, True) for name in NAMES if name not in OF_RUNS), ("comparison", True),
    *(pytest.param(name, False, marks=pytest.mark.slow) for name in NAMES)])
def test_a_notebook_runs_at_its_defaults(name, brief, run_cells, monkeypatch):
    monkeypatch.chdir(NOTEBOOKS)
    before = {path.name for path in NOTEBOOKS.iterdir()}
    shown = run_cells(name, brief=brief, **({"progress": False} if name == "train" else {}))
    assert {path.name for path in NOTEBOOKS.iterdir()} == before
    assert any({"image/png", "text/html"} & part.keys() for part in shown.values())


SUITE = """
defaults: {epochs: 1, latent_dim: 4, backbone: mlp, hidden_dim: 16, batch_size: 64}
runs:
  - {dataset: digits, model: MODELS}
  - {dataset: digits, model: [vae, vsc], seed: 1}
  - {dataset: digits, model: [vae, vsc], latent_dim: 8, variant: j8}
  - {dataset: digits, model: sparse-autoencoder-l1, sparsity_weight: [0.1, 1.0], variant: "w{sparsity_weight}"}
  - {dataset: digits, model: sparse-autoencoder-kl, target_rate: 0.3, variant: r}
  - {dataset: digits, model: [topk, sparse-autoencoder-l1], decoder: linear, likelihood: gaussian, variant: atoms}
  - dataset: digits
    model: vsc
    prior: fixed
    estimator: [scaled-sigmoid, straight-through]
    temperature: 0.5
    variant: "t-{estimator}"
  - {dataset: digits, model: dictionary, learned_from: 100, sweeps: 1}
  - {dataset: smiley, model: [vae, vsc], dataset.n_train: 100, dataset.n_test: 60}
  - {dataset: sinusoids, model: [vae, hybrid, cosines], dataset.n_train: 100, dataset.n_test: 60}
  - {dataset: returns, model: [vae, vsc, pca], dataset.n_days: 300}
published: "*/seed0"
""".replace("MODELS", str(list(MODELS)))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project whose suite ``tiny``, with every model and several kinds of data, is trained and published."""
    root = tmp_path_factory.mktemp("project")
    (root / "notebooks").mkdir()
    (root / "experiments").mkdir()
    for path in (ROOT / "experiments").glob("reference*.csv"):
        (root / "experiments" / path.name).write_text(path.read_text())
    (root / "experiments" / "tiny.yml").write_text(SUITE)
    suite = load_suite("tiny", root)
    for run in suite.runs:
        data = load_data(run.config)
        model, history = train_run(run.config, data, progress=False)
        measured = measure(model, data, seed=run.config.training.seed)
        save_run(suite.runs_folder / run.name, run.config, model, history, measured)
    assert len(collect(suite)) == len(suite.runs)
    return root


ALIKE = ["batchtopk", "matryoshka", "jumprelu", "gated", "matching-pursuit", "vaease", "vsc-warmup"]
"""Models that notebooks draw as they draw others; all models stand in the comparison."""
PLAIN = ["digits/*/seed*", "!digits/*-*/*", "digits/topk-atoms/*"]
"""Runs on the digits without variants, but for a linear decoder."""
DRAWN_FOR_EACH_RUN = ["exercise_selectivity", "reconstruction", "activations", "features"]
"""Notebooks with a panel, or rows of pictures, for each run."""


@pytest.mark.parametrize("name", OF_RUNS)
def test_a_notebook_shows_a_published_suite(name, project, run_cells, monkeypatch):
    monkeypatch.chdir(project / "notebooks")
    runs = [*(PLAIN if name in DRAWN_FOR_EACH_RUN else ["*"]), *(f"!digits/{model}/*" for model in ALIKE)]
    assert run_cells(name, suite="tiny", runs=runs).keys() == declared_labels(name)


def test_the_comparison_shows_every_model(project, run_cells, monkeypatch):
    monkeypatch.chdir(project / "notebooks")
    runs = ["digits/*/seed*", "!digits/*-*/*", *(f"digits/{model}/*" for model in MODELS)]
    table = run_cells("comparison", suite="tiny", runs=runs)["tbl-comparison"]["text/markdown"]
    titles = {configure(model, "digits", latent_dim=4).title for model in MODELS}
    assert all(f"| {title} |" in table for title in titles)
    assert "±" in table


def test_your_own_returns_have_factors_but_no_truth(tmp_path, run_cells):
    days = [f"2024-{1 + day // 28:02}-{1 + day % 28:02}" for day in range(80)]
    rows = [f"{day},{number % 7 - 3},{number % 5 - 2},{number % 3 - number % 7}" for number, day in enumerate(days)]
    (path := tmp_path / "mine.csv").write_text("date,one,two,three\n" + "\n".join(rows))
    own = {"dataset": "returns", "dataset.csv": str(path), "latent_dim": 2}
    train = [{"model": ["vae", "vsc"], "epochs": 2, "batch_size": 16, "decoder": "linear", **own},
             {"model": "pca", **own}]
    shown = run_cells("factors", train=train)
    assert {"tbl-factors", "fig-loadings", "factors-finding"} <= shown.keys()
    assert "tbl-regimes" not in shown
    assert "truth" not in shown["tbl-factors"]["text/markdown"]


ONE_OF_EACH_KIND = ["topk", "vae", "vsc-warmup", "hybrid", "pca"]


@pytest.mark.parametrize("name", [
    name if name in ONE_OF_EACH_KIND else pytest.param(name, marks=pytest.mark.slow) for name in (*MODELS, "pca")])
def test_the_training_notebook_keeps_its_run(name, tmp_path, run_cells):
    settings = {"latent_dim": 2} | ({"epochs": 1, "backbone": "mlp", "hidden_dim": 16} if name in MODELS else {})
    folder = tmp_path / "digits" / name / "seed0"
    shown = run_cells("train", model=name, settings=settings, output=str(folder), progress=False)
    assert shown.keys() == declared_labels("train") - (set() if name in MODELS else {"fig-training"})
    assert is_finished(folder, configure(name, "digits", **settings))
    assert ("from the prior" in shown["fig-run-reconstructions"]["fig-alt"]) == (
        name in MODELS and issubclass(MODELS[name], GenerativeModel))


# --- what notebooks show


def test_annotations_by_hand():
    def output(**named):
        return nbformat.v4.new_output("display_data", data={"text/plain": "x"}, **named)

    notes = {"label": "fig-a", "fig-cap": 'A "β" caption.', "fig-alt": "Two\nlines."}
    labelled = nbformat.v4.new_code_cell("draw()", outputs=[
        nbformat.v4.new_output("stream", name="stderr", text="0%"),
        nbformat.v4.new_output("stream", name="stdout", text="said"), output(metadata={notebook.KEY: notes})])
    labelled.metadata = nbformat.NotebookNode({"tags": ["parameters"], "papermill": {"duration": 1.0}})
    plain = nbformat.v4.new_code_cell("x = 1")
    text = nbformat.v4.new_markdown_cell("# Title", metadata={"papermill": {"start_time": "now"}})
    content = nbformat.v4.new_notebook(cells=[text, labelled, plain], metadata={"papermill": {"input_path": "/here"}})
    annotated = notebook.annotate(content, "first")
    assert annotated.cells[1].source == ('#| label: "fig-a-first"\n#| fig-cap: "A \\"β\\" caption."\n'
                                         '#| fig-alt: "Two\\nlines."\ndraw()')
    assert [part.get("name") for part in annotated.cells[1].outputs] == ["stdout", None]
    assert annotated.cells[1].outputs[1].metadata == {}
    assert annotated.cells[1].metadata == {"tags": ["parameters"]}
    assert annotated.cells[2].source == "x = 1"
    assert "papermill" not in nbformat.writes(annotated)


def test_two_labels_in_a_cell_are_refused():
    shown = [nbformat.v4.new_output("display_data", metadata={notebook.KEY: {"label": label}})
             for label in ("tbl-a", "a-finding")]
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("draw()", outputs=shown)])
    with pytest.raises(ValueError, match="a cell can show one labelled output; got tbl-a, a-finding"):
        notebook.annotate(content, "first")
