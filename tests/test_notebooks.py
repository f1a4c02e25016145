"""The notebooks: stripped, with a cell of commented parameters, and fit for every model and every kind of data."""

from __future__ import annotations

import ast
import base64
import json
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import save_file

from sparse_vae.report import notebook
from sparse_vae.evaluation import summarise
from sparse_vae.models import MODELS
from sparse_vae.report.runs import Run, configure, is_finished, load_data, save_run, train_run
from sparse_vae.report.suites import execute_notebook

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
FIGURES = ["latent_grid", "activations", "reconstruction", "comparison", "explorer"]


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def is_parameters(cell) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


# --- the files


def test_the_notebooks_are_there():
    assert {"train", "datasets", *FIGURES} <= set(NAMES)


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
    cell, = filter(is_parameters, read(name).cells)
    lines = cell.source.splitlines()
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.Assign)
        assert len(statement.targets) == 1
        ast.literal_eval(statement.value)
        line, above = lines[statement.end_lineno - 1], lines[statement.lineno - 2] if statement.lineno > 1 else ""
        assert "  # " in line or above.startswith("# "), line


# --- at its defaults


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_at_its_defaults(name, tmp_path):
    before = {path.name for path in NOTEBOOKS.iterdir()}
    execute_notebook(NOTEBOOKS / f"{name}.ipynb", tmp_path / "executed.ipynb", {}, NOTEBOOKS)
    assert {path.name for path in NOTEBOOKS.iterdir()} == before
    executed = nbformat.read(tmp_path / "executed.ipynb", as_version=4)
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any({"image/png", "text/html"} & output.get("data", {}).keys() for output in outputs)
    assert [output for output in outputs if output.output_type == "error"] == []


# --- on any runs


@pytest.fixture
def run_cells(monkeypatch):
    """Run a notebook's cells in this process with other parameters; returns what was shown, by label."""
    def run(name: str, **parameters) -> dict[str, dict]:
        shown = {}

        def display(data, *, raw, metadata):
            notes = metadata[notebook.KEY]
            assert notes["label"] not in shown
            shown[notes["label"]] = {**notes, **data}

        monkeypatch.setattr(notebook, "display", display)
        namespace = {"__name__": "__main__"}
        for cell in read(name).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, name, "exec"), namespace)
                if is_parameters(cell):
                    assert parameters.keys() <= namespace.keys()
                    namespace.update(parameters)
        check_shown(shown)
        return shown

    return run


def check_shown(shown: dict[str, dict]) -> None:
    for label, part in shown.items():
        if label.startswith("fig-"):
            assert part["fig-cap"].endswith(".")
            assert part["text/plain"] == part["fig-alt"]
            assert len(part["fig-alt"]) > 40
            height, width, _ = imread(BytesIO(base64.b64decode(part["image/png"]))).shape
            assert min(height, width) > 100
        else:
            assert part.get("text/markdown") or part["text/html"]
        words = f"{part.get('fig-alt')} {part.get('text/markdown')}"
        assert "nan" not in words.replace("finance", "").split()


SMALL = {"sinusoids": {"dataset.n_train": 100, "dataset.n_test": 60}, "returns": {"n_days": 300},
         "smiley": {"dataset.n_train": 100, "dataset.n_test": 60}}
DATASETS = ["digits", *SMALL]


def write_runs(folder: Path, dataset: str, models=MODELS, **settings) -> list[str]:
    """A tiny run of every model."""
    folders = []
    for name in models:
        config = configure(name, dataset, **{
            "epochs": 2, "latent_dim": 3, "backbone": "mlp", "hidden_dim": 16, **SMALL.get(dataset, {}), **settings})
        data = load_data(config)
        model, history = train_run(config, data, progress=False)
        seed = config.training.seed
        folders.append(save_run(folder / dataset / name / f"seed{seed}", config, model, history,
                                summarise(model, data)))
    return list(map(str, folders))


@pytest.fixture(scope="module", params=DATASETS)
def runs_of_every_model(request, tmp_path_factory) -> list[str]:
    return write_runs(tmp_path_factory.mktemp("runs"), request.param)


LABELS = {
    "latent_grid": {"fig-latent-grid", "fig-codes", "fig-traversals", "latent-finding"},
    "activations": {"fig-activations", "tbl-activity"},
    "reconstruction": {"fig-reconstructions", "fig-denoising", "tbl-denoising"},
    "comparison": {"tbl-comparison", "fig-training-curves", "comparison-finding"},
    "explorer": {"explorer"},
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_takes_every_model_on_every_kind_of_data(name, runs_of_every_model, run_cells):
    quick = {"latent_grid": {"steps": 4}, "reconstruction": {"levels": [0.0, 0.5], "observations": 20}}
    shown = run_cells(name, runs=runs_of_every_model, **quick.get(name, {}))
    assert shown.keys() == LABELS[name]
    titles = [Run(folder).title for folder in runs_of_every_model]
    words = [output.get("fig-alt", "") + output.get("text/markdown", "") + output.get("text/html", "")
             for output in shown.values()]
    assert all(any(title in text for text in words) for title in titles)


STUDIES = {
    "features": ("digits", {"tbl-features", "fig-features", "fig-top-observations", "features-finding"}),
    "exercise_largest": ("digits", {"fig-largest", "tbl-largest", "fig-largest-pictures", "largest-finding"}),
    "exercise_selectivity": ("digits", {"tbl-selectivity", "fig-selectivity", "fig-class-means", "fig-selective-units",
                                        "selectivity-finding"}),
    "exercise_overcomplete": ("digits", {"tbl-overcomplete", "fig-overcomplete", "fig-overcomplete-features",
                                         "overcomplete-finding"}),
    "equal_sparsity": ("digits", {"tbl-equal-sparsity", "fig-equal-sparsity", "equal-sparsity-finding"}),
    "factors": ("returns", {"tbl-factors", "fig-loadings", "fig-awake", "tbl-regimes", "tbl-drivers",
                            "factors-finding"}),
    "sparsity": ("digits", {"tbl-sparsity", "fig-sparsity", "sparsity-finding"}),
    "pruning": ("digits", {"tbl-pruning", "fig-pruning", "pruning-finding"}),
    "code_size": ("digits", {"fig-code-size", "tbl-code-size", "size-finding"}),
    "one_image": ("digits", {"fig-one-image", "fig-switched-off", "one-image-finding"}),
    "probes": ("digits", {"tbl-probes", "fig-probes", "probe-finding"}),
    "bounds": ("digits", {"tbl-bounds", "fig-bounds", "bounds-finding"}),
    "collapse": ("digits", {"fig-collapse-training", "fig-collapse-kl", "tbl-collapse", "collapse-finding"}),
    "disentanglement": ("smiley", {"tbl-disentanglement", "fig-disentanglement", "disentanglement-finding"}),
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_takes_every_model(name, tmp_path, run_cells):
    dataset, labels = STUDIES[name]
    published = NOTEBOOKS.parent / "experiments"
    quick = {"code_size": {"reference": str(published / "reference.csv")},
             "probes": {"budgets": [20, 50], "reference": str(published / "reference-probes.csv")},
             "equal_sparsity": {"reference": str(published / "reference-sparse.csv")},
             "bounds": {"samples": [1, 3], "observations": 10}}
    shown = run_cells(name, runs=write_runs(tmp_path, dataset), **quick.get(name, {}))
    assert shown.keys() == labels


def test_the_codes_of_several_data_sets_share_a_table(tmp_path, run_cells):
    runs = [folder for dataset in ("digits", "returns") for folder in write_runs(tmp_path, dataset, ["topk"], k=1)]
    shown = run_cells("sparsity", runs=runs)
    first, second = shown["tbl-sparsity"]["text/markdown"].split("\n")[2:]
    assert first.startswith("| digits | TopK (k = 1) | 33.3 | 1.0 |")
    assert second.startswith("| returns | TopK (k = 1) | ")
    assert "Histograms on digits." in shown["fig-sparsity"]["fig-cap"]
    finding = shown["sparsity-finding"]["text/markdown"]
    assert "On digits, **TopK (k = 1)** has the sparsest code" in finding
    assert "On returns, **TopK (k = 1)** has the sparsest code" in finding


def test_numbers_are_set_beside_published_ones_by_hand(tmp_path, run_cells):
    folder, = write_runs(tmp_path, "digits", models=["vae"])  # J = 3
    path = Path(folder) / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "negative_elbo": 10.0}))
    reference = tmp_path / "reference.csv"
    reference.write_text("dataset,model,latent_dim,negative_elbo,epochs,source\ndigits,VAE,3,12.5,7,someone\n")
    shown = run_cells("code_size", runs=[folder], reference=str(reference))
    row = [cell.strip() for cell in shown["tbl-code-size"]["text/markdown"].splitlines()[2].split("|")]
    assert row[1:7] == ["VAE", "3", "1", "10.00", "12.5", "−2.5"]
    assert "Of 1 published numbers, 1 are reached" in shown["size-finding"]["text/markdown"]
    shown = run_cells("code_size", runs=[folder], reference=str(reference), pairs=[["VAE", "VAE"]])
    assert "| VAE | VAE | 3 | +0.0\xa0±\xa00.0 | +0.00\xa0±\xa00.00 |" in shown["tbl-pairs"]["text/markdown"]
    assert "pairs-finding" not in shown  # one seed


def test_the_study_of_spikes_tells_objective_from_bound(tmp_path, run_cells):
    shown = run_cells("spike_sharpness", variants=[["scaled-sigmoid", 0.5], ["straight-through", 0.5]],
                      settings={"latent_dim": 4, "epochs": 1, "prior": "fixed", "backbone": "mlp", "hidden_dim": 16})
    assert shown.keys() == {"tbl-spike-sharpness", "fig-spike-sharpness", "sharpness-finding"}
    assert "scaled-sigmoid, c = 2" in shown["tbl-spike-sharpness"]["text/markdown"]


def test_a_remedy_of_collapse_is_judged_by_hand(tmp_path, run_cells):
    runs = [folder for seed in (0, 1) for folder in write_runs(tmp_path, "digits", seed=seed) if "vsc" in folder]
    values = {"vsc/seed0": (100.0, 3), "vsc/seed1": (102.0, 3), "vsc-warmup/seed0": (105.0, 1),
              "vsc-warmup/seed1": (107.0, 3)}
    for name, (bound, used) in values.items():
        path = tmp_path / "digits" / name / "metrics.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "negative_elbo": bound, "used_dimensions": used}))
    titles = [Run(folder).title for folder in runs[:2]]
    shown = run_cells("collapse", runs=runs, pairs=[titles])
    # Variances of the means: 1 and 1, so that the difference of 5 nats has the standard error √2; for use, 0 and 1.
    assert "| 3 | −1.0\xa0±\xa01.0 | +5.00\xa0±\xa01.41 |" in shown["tbl-warmup"]["text/markdown"]
    assert ": its bound is worse at J = 3; its number of dimensions in use is level at J = 3." in (
        shown["warmup-finding"]["text/markdown"])


def test_pseudo_inputs_are_shown_with_samples_of_each(tmp_path, run_cells):
    runs = [folder for folder in write_runs(tmp_path, "digits") if "vsc" in folder]
    shown = run_cells("pseudo_inputs", runs=runs[:1], shown=3, draws=2)
    assert shown.keys() == {"fig-pseudo-inputs", "pseudo-inputs-finding"}
    assert "of its 50 pseudo-inputs" in shown["pseudo-inputs-finding"]["text/markdown"]


def test_the_annealed_sigmoid_is_told_from_the_others(tmp_path, run_cells):
    runs = [folder for end in (None, 0.25)
            for folder in write_runs(tmp_path / str(end), "digits", estimator="scaled-sigmoid", temperature=0.5,
                                     final_temperature=end, prior="fixed", models=["vsc"])]
    table = run_cells("spike_sharpness", runs=runs)["tbl-spike-sharpness"]["text/markdown"]
    assert "scaled-sigmoid, c = 2 " in table
    assert "scaled-sigmoid, c = 2 → 4 " in table


def test_recovery_is_measured_for_every_model_beside_the_classical_solvers(tmp_path, run_cells):
    runs = write_runs(tmp_path, "sinusoids")
    shown = run_cells("sparse_recovery", runs=runs, counts=[6], shown=3)
    assert shown.keys() == {"tbl-recovery", "fig-recovery-atoms", "recovery-finding"}
    rows = {cells[0]: cells[1:] for line in shown["tbl-recovery"]["text/markdown"].splitlines()[2:]
            for cells in [[cell.strip() for cell in line.strip("|").split("|")]]}
    assert all(f"{Run(folder).title}, J = 3" in rows for folder in runs)
    # Three frequencies, each of a sine and a cosine: six coefficients on the true dictionary are the signal.
    error, zeros, _, recall, f1, amplitude_error = rows["OMP on the true sinusoids, 6 coefficients"]
    assert (zeros, recall, amplitude_error) == (f"{100 * 32 / 38:.1f}", "1.00", "0.00")
    assert float(error) < 0.1 < 0.9 < float(f1)


def test_pruning_counts_what_is_needed_by_hand(tmp_path, run_cells):
    run, = write_runs(tmp_path, "digits", models=["vae"], decoder="linear", likelihood="gaussian")
    model = Run(run).model
    with torch.no_grad():  # only latent 1 has a code and an effect: one dimension is enough
        model.encoder[-1].weight[[0, 2]] = 0
        model.encoder[-1].bias[:] = 0
        model.encoder[-1].weight[3:] = 0
        model.decoder[0].weight[:, [0, 2]] = 0
    save_file(model.state_dict(), Path(run) / "model.safetensors")
    row = run_cells("pruning", runs=[run], counts=[1, 2])["tbl-pruning"]["text/markdown"].splitlines()[2]
    assert [cell.strip() for cell in row.split("|")][-2] == "1.0"


def test_the_tradeoff_of_a_penalty_by_hand(tmp_path, run_cells):
    runs = [run for weight in (0.01, 0.1, 1.0) for run in write_runs(
        tmp_path / str(weight), "digits", models=["sparse-autoencoder-l1"], sparsity_weight=weight)]

    def finding(*errors):
        for run, error in zip(runs, errors, strict=True):
            path = Path(run) / "metrics.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "mean_squared_error": error}))
        shown = run_cells("exercise_tradeoff", runs=runs)
        assert shown.keys() == {"tbl-tradeoff", "fig-tradeoff", "tradeoff-finding"}
        return shown["tradeoff-finding"]["text/markdown"]

    # Scaled: 0, 1/8, 1; the chord has 1/2 in the middle.
    assert "for **L1** it is at 0.1, where the error is 0.2000 (from 0.1000 at the smallest weight to 0.9000" in (
        finding(0.1, 0.2, 0.9))
    assert "**L1** has none: over all weights the error stays between 0.1000 and 0.1010" in finding(0.1, 0.101, 0.1)


def test_two_penalties_are_compared_at_the_nearest_sparseness(tmp_path, run_cells):
    runs = [folder for name, own in (("l1", {"sparsity_weight": [0.01, 0.5]}), ("kl", {"target_rate": [0.1, 0.4]}))
            for setting, values in own.items() for value in values
            for folder in write_runs(tmp_path / f"{name}{value}", "digits", models=[f"sparse-autoencoder-{name}"],
                                     **{setting: value})]
    shown = run_cells("exercise_penalties", runs=runs, shown=3)
    assert shown.keys() == {"tbl-penalties", "fig-penalties", "fig-penalties-training", "fig-penalties-features",
                            "penalties-finding"}
    lines = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in shown["tbl-penalties"]["text/markdown"].splitlines()[2:]]
    sparseness = {row[0]: float(row[3]) for row in lines}
    l1, kl = ([title for title in sparseness if penalty in title] for penalty in ("L1", "KL"))
    smallest = min(abs(sparseness[a] - sparseness[b]) for a in l1 for b in kl)
    finding = shown["penalties-finding"]["text/markdown"]
    pair = [title for title in sparseness if f"**{title}** ({sparseness[title]:.2f})" in finding]
    assert abs(sparseness[pair[0]] - sparseness[pair[1]]) <= smallest + 0.011  # two decimals each


def test_published_codes_stand_beside_ours(tmp_path, run_cells):
    folder, = write_runs(tmp_path, "digits", models=["vae"])  # J = 3
    reference = tmp_path / "reference.csv"
    reference.write_text("dataset,model,latent_dim,probe,labels,accuracy,source\n"
                         "digits,somebody's,3,nearest,20,0.5,someone\ndigits,another's,4,nearest,20,0.6,someone\n")
    shown = run_cells("probes", runs=[folder], budgets=[20, 50], probes=["cosine", "euclidean"],
                      reference=str(reference))
    lines = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in shown["tbl-probes"]["text/markdown"].splitlines()]
    assert lines[0][1:5] == ["nearest, cosine, 20 labels", "nearest, cosine, 50 labels",
                             "nearest, Euclidean, 20 labels", "nearest, Euclidean, 50 labels"]
    assert lines[3:] == [["published: somebody's, J = 3", "50.0", "—", "50.0", "—", "—", "—"]]


def test_your_own_returns_have_factors_but_no_truth(tmp_path, run_cells):
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(80, 3, generator=random) + torch.randn(80, 1, generator=random)
    days = [f"2024-{1 + day // 28:02}-{1 + day % 28:02}" for day in range(80)]
    path = tmp_path / "mine.csv"
    path.write_text("date,one,two,three\n" + "\n".join(
        f"{day}," + ",".join(f"{value:.4f}" for value in row.tolist()) for day, row in zip(days, rows, strict=True)))
    settings = {"latent_dim": 2, "epochs": 2, "batch_size": 16, "decoder": "linear", "dataset.csv": str(path)}
    shown = run_cells("factors", models=["vae", "vsc"], settings=settings)
    assert {"tbl-factors", "fig-loadings", "tbl-drivers", "factors-finding"} <= shown.keys()
    assert "tbl-regimes" not in shown
    assert "three" in shown["tbl-drivers"]["text/markdown"]
    assert "truth" not in shown["tbl-factors"]["text/markdown"] + shown["tbl-factors"]["tbl-cap"]


@pytest.mark.parametrize("settings", [{}, {"decoder": "linear", "likelihood": "gaussian"}, {"magnitude": "normal"}])
def test_a_hybrid_code_is_taken_apart(settings, tmp_path, run_cells):
    runs = write_runs(tmp_path, "digits", models=["hybrid"], **settings)
    shown = run_cells("hybrid_code", runs=runs, observations=[4], partial_sums=[1, 2])
    assert shown.keys() == {"fig-hybrid-code", "fig-partial-sums", "tbl-shapes", "hybrid-code-finding"}


def test_an_ablation_names_what_differs(tmp_path, run_cells):
    runs = [folder for seed in (0, 1) for prior in ("fixed", "pseudo-inputs") for folder in write_runs(
        tmp_path / prior, "digits", models=["vsc"], prior=prior, n_pseudo_inputs=4, seed=seed)]
    shown = run_cells("ablation", runs=[*runs, *write_runs(tmp_path / "more", "digits", models=["vsc"], prior="fixed",
                                                           n_pseudo_inputs=4, epochs=1)])
    lines = shown["tbl-ablation"]["text/markdown"].splitlines()[2:]
    assert [line.split("|")[1:3] for line in lines] == [
        [" as most ", " 2 "], [" prior pseudo-inputs ", " 2 "], [" epochs 1 ", " 1 "]]
    assert "Most runs: prior fixed, epochs 2." in shown["tbl-ablation"]["tbl-cap"]


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_latent_grids_take_one_dimension_and_two(latent_dim, tmp_path, run_cells):
    runs = write_runs(tmp_path, "digits", latent_dim=latent_dim)
    assert run_cells("latent_grid", runs=runs[:1], steps=3).keys() == LABELS["latent_grid"] - {"fig-traversals"}


def test_the_comparison_averages_over_seeds_by_hand(tmp_path, run_cells):
    runs = [folder for seed in (0, 1) for folder in write_runs(tmp_path, "digits", seed=seed)]
    for folder in runs:  # the first model's error is 0.1 and 0.3: mean 0.2, standard error 0.1
        path = Path(folder) / "metrics.json"
        metrics = json.loads(path.read_text())
        path.write_text(json.dumps({**metrics, "mean_squared_error": 0.1 if folder.endswith("seed0") else 0.3}))
    table = run_cells("comparison", runs=runs)["tbl-comparison"]["text/markdown"].splitlines()
    assert len(table) == 2 + len(MODELS)
    column = [cell.strip() for cell in table[0].split("|")].index("MSE")
    assert [row.split("|")[column].strip() for row in table[2:]] == ["0.2000\xa0±\xa00.1000"] * len(MODELS)


def test_the_activations_say_what_they_show(tmp_path, run_cells):
    figure = run_cells("activations", runs=write_runs(tmp_path, "digits"))["fig-activations"]
    assert "mean code for each class" in figure["fig-cap"]
    assert "share of the observations" in figure["fig-cap"]
    sources = run_cells("activations", runs=write_runs(tmp_path, "sinusoids"))["fig-activations"]
    assert "mean code for each source present" in sources["fig-cap"]


@pytest.mark.parametrize("dataset", ["digits", "sinusoids"])
@pytest.mark.parametrize("name", MODELS)
def test_the_training_notebook_keeps_its_run(name, dataset, tmp_path, run_cells):
    settings = {"epochs": 2, "latent_dim": 2, "backbone": "mlp", "hidden_dim": 16, **SMALL.get(dataset, {})}
    folder = tmp_path / dataset / name / "seed0"
    shown = run_cells("train", model=name, dataset=dataset, settings=settings, output=str(folder), progress=False)
    assert shown.keys() == {"fig-training", "fig-run-reconstructions", "tbl-run-metrics"}
    assert is_finished(folder, configure(name, dataset, **settings))
    assert ("from the prior" in shown["fig-run-reconstructions"]["fig-alt"]) == MODELS[name].generative


def test_the_training_notebook_keeps_nothing_unless_asked(tmp_path, run_cells, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_cells("train", settings={"epochs": 1, "latent_dim": 2, "backbone": "mlp"}, progress=False)
    assert list(tmp_path.iterdir()) == []


# --- what notebooks show


def test_a_table_is_markdown(monkeypatch):
    import pandas as pd

    shown = []
    monkeypatch.setattr(notebook, "display", lambda data, **named: shown.append((data, named["metadata"])))
    table = pd.DataFrame({"loss": ["1.5", "−2"], "family": ["a", "b"]}, index=pd.Index(["x", "y"], name="model"))
    notebook.show_table(table, label="tbl-t", caption="Some.")
    (data, metadata), = shown
    assert data["text/markdown"].splitlines() == [
        "| model | loss | family |", "|:---|---:|:---|", "| x | 1.5 | a |", "| y | −2 | b |"]
    assert metadata == {notebook.KEY: {"label": "tbl-t", "tbl-cap": "Some."}}


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
