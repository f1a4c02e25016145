"""Published tables: exact, collected whole or not at all, refused with file, line, run and column where they misfit."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import re
import shutil
import threading
import time
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load, load_file

from sparse_vae.checkpoints import RunError, load_weights
from sparse_vae.checks import SettingError, parse_value
from sparse_vae.configuration import RunConfig, build_model, configure, load_data
from sparse_vae.datasets import dataset_names, dataset_settings
from sparse_vae.files import read_file
from sparse_vae.models import CLASSICAL, MODELS, model_settings
from sparse_vae.report import tables
from sparse_vae.report.measures import Measured
from sparse_vae.report.runs import save_run
from sparse_vae.report.suites import Suite, load_suite
from sparse_vae.report.tables import (
    ENVIRONMENT,
    TableError,
    collect,
    read_tables,
    setting_text,
    settings_of,
    unpublished,
    weights_path,
)
from sparse_vae.settings import Choice, File, Flag, Integer, Setting
from sparse_vae.training import TRAINING_SETTINGS

ROOT = Path(__file__).parents[1]
SUITES = sorted(path.parent.name for path in (ROOT / "results").glob("*/runs.csv"))
TINY = {"latent_dim": 3, "backbone": "mlp", "hidden_dim": 16, "epochs": 2}
ENTRIES = [{"model": ["vae", "topk"], "seed": [0, 1], **TINY, "dataset": "digits"},
           {"model": "pca", "dataset": "digits", "latent_dim": 3}]
VAE, VAE_1, TOPK, TOPK_1, PCA = (f"digits/{name}" for name in (
    "vae/seed0", "vae/seed1", "topk/seed0", "topk/seed1", "pca/seed0"))


def write_suite(root: Path, entries: list = ENTRIES, published: tuple = (VAE, TOPK)) -> Suite:
    for folder in ("experiments", "notebooks"):
        (root / folder).mkdir(exist_ok=True)
    cell = nbformat.v4.new_code_cell("suite = runs = train = None", metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), root / "notebooks" / "plain.ipynb")
    (root / "experiments" / "tiny.yml").write_text(yaml.dump(
        {"runs": entries, "published": list(published), "figures": [{"notebook": "plain", "name": "all"}]}))
    return load_suite("tiny", root)


def write_run(suite: Suite, name: str, loss: float | None = 1.5, bias: float | None = None) -> None:
    """A run of the suite as training leaves it, with the weights that it starts from and other numbers."""
    (config,) = (run.config for run in suite.runs if run.name == name)
    model = build_model(config, load_data(config))
    if bias is not None:
        model.state_dict()["encoder.1.bias"].fill_(bias)
    term = {"vae": "kl", "topk": "auxiliary"}.get(config.model)
    total = loss or 0.0
    history = [{"epoch": epoch, "step": 45 * epoch, "seconds": 0.5, "test_total": total / epoch, f"test_{term}": 0.1}
               for epoch in (1, 2)] if term else []
    share = total / 4.5
    curves = pd.DataFrame({"curve": "population_histogram", "x": [0.25, 0.75], "value": [share, 1 - share]})
    units = pd.DataFrame({"unit": range(3), "rate": [1.0, share, 0.0], "strongest": "3 1 2"})
    measured = Measured({"loss": loss, "parameters": 2057233.0, "mig": None}, curves, units, seconds=0.25)
    save_run(suite.runs_folder / name, config, model, history, measured)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FILES_OF_A_SUITE = {"runs.csv", "histories.csv.gz", "curves.csv.gz", "units.csv.gz", "weights.zip"}


def members(suite: Suite) -> dict[str, bytes]:
    with zipfile.ZipFile(suite.folder / "weights.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> Suite:
    """A suite of five runs, all collected; not to be changed."""
    suite = write_suite(tmp_path_factory.mktemp("project"))
    for run in suite.runs:
        write_run(suite, run.name)
    assert collect(suite) == [run.name for run in suite.runs]
    return suite


@pytest.fixture
def suite(collected, tmp_path) -> Suite:
    """A copy of it, to change."""
    shutil.copytree(collected.root, tmp_path / "project")
    return load_suite("tiny", tmp_path / "project")


@pytest.fixture
def untouched(tmp_path) -> Suite:
    """The suite with its runs, of which nothing is collected."""
    suite = write_suite(tmp_path)
    for run in suite.runs:
        write_run(suite, run.name)
    return suite


# --- settings


@pytest.mark.parametrize(("value", "text"), [
    (None, "none"), (True, "true"), (False, "false"), (3, "3"), (0.1, "0.1"), (1.0, "1.0"), (1e-12, "1e-12"),
    ("fixed", "fixed"), ("a,b.csv", "a,b.csv"), ("none", "'none'"), ("True", "'True'"), ("1e3", "'1e3'"),
    ("[1]", "'[1]'"), ("'quoted'", '"\'quoted\'"'), ("", "''"), (" 3", "' 3'"), ("two\nlines", "'two\\nlines'"),
    ("über.csv", "über.csv")])
def test_settings_as_text(value, text):
    assert setting_text(value) == text
    read = parse_value(text)
    assert (read, type(read)) == (value, type(value))


FILES = ["own.csv", "a, b.csv", 'with "quotes".csv', "it's.csv", "none", "True", "12", "1e-3", "[1]", "a\rb", "a\nb",
         "NA", "null", "ünï", "\udce9.csv", "#", "'x'", " blank ", "a\\b"]


def draw(setting: Setting, source: random.Random) -> object:
    """Some value that is allowed, or one that is allowed by itself and not together with others."""
    if setting.default is None and source.random() < 0.3:
        return None
    if isinstance(setting, Flag):
        return source.random() < 0.5
    if isinstance(setting, Choice):
        return source.choice(list(setting.choices))
    if isinstance(setting, File):
        return source.choice(FILES)
    if isinstance(setting, Integer):
        largest = setting.minimum + 10 ** source.randint(0, 9)
        return source.randint(setting.minimum, min(setting.maximum or largest, largest))
    lower = next((bound for bound in (setting.above, setting.minimum) if bound is not None), -1e6)
    upper = next((bound for bound in (setting.below, setting.maximum) if bound is not None), 1e6)
    return source.choice([setting.default or upper / 2, lower + (upper - lower) * source.random()])


def draw_config(model: str, dataset: str, source: random.Random) -> RunConfig:
    of_dataset = {f"dataset.{name}": setting for name, setting in dataset_settings(dataset).items()}
    declared = {**of_dataset, **model_settings(model), **TRAINING_SETTINGS}
    for _ in range(200):
        names = source.sample(sorted(declared), source.randint(0, min(6, len(declared))))
        try:
            return configure(model, dataset, **{name: draw(declared[name], source) for name in names})
        except SettingError:  # these do not go together
            continue
    raise AssertionError(f"no configuration of {model} on {dataset} was found")


def test_configurations_survive_a_table(tmp_path):
    """Of every model on every data set, with settings drawn at random, all in one table."""
    source = random.Random(0)
    configs = {f"{dataset}/{model}/seed{number}": draw_config(model, dataset, source)
               for model in {**MODELS, **CLASSICAL} for dataset in dataset_names() for number in range(3)}
    rows = [{"run": name, "model": config.model, "dataset": config.dataset, **dict.fromkeys(ENVIRONMENT, "1"),
             **{key: setting_text(value) for key, value in settings_of(config).items()}}
            for name, config in configs.items()]
    pd.DataFrame(rows).to_csv(tmp_path / "runs.csv", index=False)
    read = read_tables(tmp_path).configs()
    assert read == configs
    for name, config in configs.items():
        assert {key: type(value) for key, value in settings_of(read[name]).items()} == {
            key: type(value) for key, value in settings_of(config).items()}
    assert len({str(config) for config in configs.values()}) > 0.9 * len(configs)


def test_a_setting_newer_than_the_table_has_its_default(suite):
    path = suite.folder / "runs.csv"
    pd.read_csv(path, dtype=str).drop(columns=["decay", "auxiliary_weight"]).to_csv(path, index=False)
    assert read_tables(suite.folder).configs() == {run.name: run.config for run in suite.runs}


# --- collecting


def test_what_is_collected_is_what_was_measured(collected):
    found = read_tables(collected.folder)
    assert found.configs() == {run.name: run.config for run in collected.runs}
    assert list(found.runs["run"]) == [run.name for run in collected.runs]
    assert set(found.runs["loss"]) == {1.5}
    assert found.runs["mig"].isna().all()
    assert dict(zip(found.runs["run"], found.runs["seconds"], strict=True)) == {
        VAE: 1.0, VAE_1: 1.0, TOPK: 1.0, TOPK_1: 1.0, PCA: 0.25}
    assert found.histories.groupby("run", sort=False)["epoch"].agg(list).to_dict() == {
        name: [1, 2] for name in (VAE, VAE_1, TOPK, TOPK_1)}
    kl = found.histories.set_index("run")["test_kl"]
    assert (kl[[VAE]] == 0.1).all()
    assert kl[[TOPK]].isna().all()
    assert list(found.curves["value"]) == [0.333333, 0.666667] * 5
    assert list(found.units["run"].unique()) == [VAE, TOPK]  # only of those whose weights are published
    assert set(found.units["strongest"]) == {"3 1 2"}
    assert unpublished(collected) == []
    assert contents(collected.folder).keys() == FILES_OF_A_SUITE
    assert list(members(collected)) == [f"{TOPK}.safetensors", f"{VAE}.safetensors"]


def test_integers_stay_integers_and_nothing_is_an_empty_cell(collected):
    header, first, *_ = ((collected.folder / "runs.csv").read_text().splitlines())
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert (row["parameters"], row["loss"], row["mig"], row["latent_dim"]) == ("2057233", "1.5", "", "3")
    assert gzip.decompress((collected.folder / "histories.csv.gz").read_bytes()).decode().splitlines()[1:3] == [
        f"{VAE},1,45,0.5,1.5,0.1,", f"{VAE},2,90,0.5,0.75,0.1,"]


def test_collecting_again_touches_no_file(suite):
    before, stamps = contents(suite.folder), times(suite.folder)
    assert collect(suite) == []
    assert contents(suite.folder) == before
    assert times(suite.folder) == stamps


def test_the_tables_do_not_depend_on_the_order_of_collecting(untouched, collected, tmp_path):
    aside = tmp_path / "aside"
    untouched.runs_folder.rename(aside)
    for name in (PCA, TOPK_1, VAE, VAE_1, TOPK):
        shutil.move(aside / name, untouched.runs_folder / name)
        assert collect(untouched) == [name]
    found, expected = contents(untouched.folder), contents(collected.folder)
    assert found.keys() == expected.keys()
    for name in found:
        if name != "runs.csv":
            assert found[name] == expected[name]
    pd.testing.assert_frame_equal(*(pd.read_csv(where / "runs.csv", dtype=str).drop(columns="environment.commit")
                                    for where in (untouched.folder, collected.folder)))


def test_without_runs_nothing_is_made(tmp_path):
    suite = write_suite(tmp_path)
    assert collect(suite) == []
    assert not suite.folder.exists()
    assert unpublished(suite) == [run.name for run in suite.runs]
    assert len(read_tables(suite.folder).runs) == 0


def test_runs_that_are_not_on_this_machine_stay_published(suite):
    before = read_tables(suite.folder)
    shutil.rmtree(suite.runs_folder)
    assert collect(suite) == []
    write_run(suite, VAE_1, loss=2.5)
    assert collect(suite) == [VAE_1]
    after = read_tables(suite.folder)
    assert after.runs.set_index("run")["loss"].to_dict() == {VAE: 1.5, VAE_1: 2.5, TOPK: 1.5, TOPK_1: 1.5, PCA: 1.5}
    same = after.histories["run"] != VAE_1
    pd.testing.assert_frame_equal(after.histories[same], before.histories[same])
    assert list(after.histories["test_total"][~same]) == [2.5, 1.25]
    pd.testing.assert_frame_equal(after.units, before.units)


def test_what_the_suite_no_longer_has_goes(suite):
    smaller = write_suite(suite.root, [{**ENTRIES[0], "model": "vae"}], published=(VAE_1,))
    assert unpublished(smaller) == [VAE_1]
    assert collect(smaller) == [VAE_1]  # its weights were not published
    found = read_tables(smaller.folder)
    assert list(found.runs["run"]) == [VAE, VAE_1]
    assert set(found.histories["run"]) == set(found.curves["run"]) == {VAE, VAE_1}
    assert set(found.units["run"]) == {VAE_1}
    assert not {"k", "auxiliary_weight"} & set(found.runs)
    assert list(members(smaller)) == [f"{VAE_1}.safetensors"]
    nothing = write_suite(suite.root, [{**ENTRIES[0], "model": "beta-vae"}], published=())
    assert collect(nothing) == []
    assert contents(nothing.folder).keys() == FILES_OF_A_SUITE - {"weights.zip"}
    assert len(read_tables(nothing.folder).runs) == 0


def test_figures_and_other_files_stay(suite):
    for name in ("figures/a.ipynb", "suite.json", "README.md"):
        (suite.folder / name).parent.mkdir(exist_ok=True)
        (suite.folder / name).touch()
    write_run(suite, VAE, loss=0.5)
    collect(suite)
    assert {"figures/a.ipynb", "suite.json", "README.md"} <= contents(suite.folder).keys()


def test_a_run_whose_settings_changed_is_published_anew(suite):
    changed = write_suite(suite.root, [{**ENTRIES[0], "epochs": 3}, ENTRIES[1]])
    four = [VAE, VAE_1, TOPK, TOPK_1]
    before = contents(suite.folder)
    assert collect(changed) == []  # the old runs stay until there are new ones
    assert contents(suite.folder) == before
    assert unpublished(changed) == four
    write_run(changed, TOPK, loss=0.5)
    assert collect(changed) == [TOPK]
    assert unpublished(changed) == [VAE, VAE_1, TOPK_1]
    rows = read_tables(changed.folder).runs.set_index("run")
    assert rows.loc[four, "epochs"].tolist() == ["2", "2", "3", "2"]
    assert collect(changed) == []


def pickled(path: Path) -> None:
    weights = {name: value.clone() for name, value in load_file(path).items()}  # which are a map of the file
    torch.save(weights, path)


DAMAGES = {
    "lost": Path.unlink,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "empty": lambda path: path.write_bytes(b""),
    "a pickle of torch": pickled,
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"weight": [1.0]})),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


ARCHIVES = {"lost": Path.unlink, "truncated": DAMAGES["truncated"], "empty": DAMAGES["empty"],
            "a folder": DAMAGES["a folder"]}
OF_WEIGHTS = [*((name, "member") for name in DAMAGES if name != "a folder"), ("changed", "member"),
              *((name, "archive") for name in ARCHIVES)]


def damage_weights(suite: Suite, damage: str, part: str) -> None:
    """Damage the published weights of the VAE, or the archive that they are in."""
    archive, name = suite.folder / "weights.zip", f"{VAE}.safetensors"
    if part == "archive":
        return ARCHIVES[damage](archive)
    kept, path = members(suite), suite.root / "damaged"
    if damage == "changed":
        whole = archive.read_bytes()
        with zipfile.ZipFile(archive) as file:
            start = file.getinfo(name).header_offset + 2000
        return archive.write_bytes(whole[:start] + bytes(100) + whole[start + 100:])
    path.write_bytes(kept.pop(name))
    DAMAGES[damage](path)
    with zipfile.ZipFile(archive, "w") as file:
        for other, content in kept.items():
            file.writestr(other, content)
        if path.exists():
            file.write(path, name)


@pytest.mark.parametrize(("damage", "part"), [case for case in OF_WEIGHTS if case[0] != "a folder"])
def test_lost_and_damaged_weights_are_published_again(suite, damage, part):
    path = suite.folder / "weights.zip"
    whole, lost = path.read_bytes(), [VAE, TOPK] if part == "archive" else [VAE]
    damage_weights(suite, damage, part)
    assert unpublished(suite) == lost
    assert collect(suite) == lost
    assert path.read_bytes() == whole
    assert unpublished(suite) == collect(suite) == []


def test_a_damaged_archive_stays_where_no_run_is_at_hand(suite):
    (suite.folder / "weights.zip").write_bytes((suite.folder / "weights.zip").read_bytes()[:-1])
    shutil.rmtree(suite.runs_folder)
    before = contents(suite.folder)
    assert collect(suite) == []
    assert contents(suite.folder) == before
    assert unpublished(suite) == [VAE, TOPK]


def test_runs_measured_before_all_measures_were_kept_count_as_unpublished(suite):
    path = suite.folder / "runs.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[table["run"] == PCA, "environment.measures"] = None
    table.to_csv(path, index=False)
    assert unpublished(suite) == [PCA]
    assert collect(suite) == [PCA]


def test_measures_and_notes_that_nobody_knows_are_left_out(suite):
    path = suite.runs_folder / PCA / "measures.json"
    known = json.loads(path.read_text())
    known["measures"]["forgotten"], known["environment"]["colour"] = 2.0, "red"
    path.write_text(json.dumps(known))
    collect(suite)
    assert not {"forgotten", "environment.colour"} & set(read_tables(suite.folder).runs)


def test_a_finished_run_with_a_measure_that_became_none_is_new(suite):
    write_run(suite, PCA, loss=None)
    assert collect(suite) == [PCA]
    assert read_tables(suite.folder).runs.set_index("run")["loss"].isna()[PCA]


# --- whole or not at all


def test_a_value_beyond_half_precision_is_refused_and_nothing_changes(suite):
    before = contents(suite.folder)
    write_run(suite, VAE, loss=0.5)
    write_run(suite, TOPK, loss=0.5, bias=7e4)
    with pytest.raises(RunError, match=rf"weights of {TOPK} cannot be published: encoder\.1\.bias holds 70000"):
        collect(suite)
    assert contents(suite.folder) == before
    write_run(suite, TOPK, loss=0.5)
    assert collect(suite) == [VAE, TOPK]


def test_an_error_in_the_middle_leaves_the_old_tables(suite, monkeypatch):
    before = contents(suite.folder)
    for name in (VAE, TOPK):
        write_run(suite, name, loss=0.5, bias=0.1)
    write = Path.write_bytes

    def fail(path, content):
        if path.name == "weights.zip":
            write(path, content[:1000])
            raise OSError(28, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(OSError, match="No space left"):
            collect(suite)
    assert contents(suite.folder) == before
    assert collect(suite) == [VAE, TOPK]


def test_a_damaged_part_of_a_run_is_no_finished_run(suite):
    before = contents(suite.folder)
    write_run(suite, VAE, loss=0.5)
    (suite.runs_folder / VAE / "units.csv").write_bytes(b"\xff")
    assert collect(suite) == []
    assert contents(suite.folder) == before


@pytest.mark.parametrize("moved", range(5))
def test_a_crash_between_two_files_harms_nobody(suite, monkeypatch, moved):
    """After any number of moves, readers see the new tables, whole, and the next collection ends the work."""
    old = contents(suite.folder)
    for run in suite.runs:
        write_run(suite, run.name, loss=0.5, bias=0.1 if run.name in (VAE, TOPK) else None)
    replace, count = Path.replace, 0

    def crash(path, target):
        nonlocal count
        if target.parent == suite.folder:
            count += 1
            if count > moved:
                raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            collect(suite)
    found = read_tables(suite.folder)
    assert set(found.runs["loss"]) == {0.5}
    for name in (VAE, TOPK):
        bias = load(read_file(weights_path(suite.folder, name)))["encoder.1.bias"]
        assert (bias == torch.tensor(0.1).half()).all()
    assert collect(suite) == []
    now = contents(suite.folder)
    assert now.keys() == old.keys()
    assert set(read_tables(suite.folder).runs["loss"]) == {0.5}


def test_what_a_killed_process_left_is_cleared_away(suite):
    before = contents(suite.folder)
    (suite.folder / ".new-12345678").mkdir()
    shutil.copy(suite.folder / "weights.zip", suite.folder / ".new-12345678")
    assert collect(suite) == []
    assert contents(suite.folder) == before


def test_two_collections_at_once_take_turns(untouched, collected, monkeypatch, capsys):
    started, go, save, found = threading.Event(), threading.Event(), tables._archive, {}

    def slowly(*arguments, **named):
        started.set()
        assert go.wait(30)
        return save(*arguments, **named)

    monkeypatch.setattr(tables, "_archive", slowly)
    workers = [threading.Thread(target=lambda name=name: found.update({name: collect(untouched)})) for name in "ab"]
    workers[0].start()
    assert started.wait(30)
    workers[1].start()
    for _ in range(300):
        if "waiting" in (said := capsys.readouterr().err):
            break
        time.sleep(0.1)
    assert said == "tiny: waiting for another process, which collects its runs\n"
    go.set()
    for worker in workers:
        worker.join(30)
    assert found == {"a": [run.name for run in untouched.runs], "b": []}
    assert contents(untouched.folder).keys() == contents(collected.folder).keys()
    assert unpublished(untouched) == []


def test_a_reader_sees_no_mixture(suite, monkeypatch):
    """Tables that are replaced while they are read are read again."""
    read, calls = tables._read_tables, []

    def interrupted(folder):
        found = read(folder)
        if not calls:
            write_run(suite, VAE, loss=0.5)
            with monkeypatch.context() as patch:
                patch.setattr(tables, "_read_tables", read)
                collect(suite)
        calls.append(found.runs.set_index("run")["loss"][VAE])
        return found

    monkeypatch.setattr(tables, "_read_tables", interrupted)
    assert read_tables(suite.folder).runs.set_index("run")["loss"][VAE] == 0.5
    assert calls == [1.5, 0.5]


# --- weights


def test_published_weights_are_rounded_and_load_as_they_were(collected):
    for name, counts in ((VAE, set()), (TOPK, {"unused_for"})):
        (config,) = (run.config for run in collected.runs if run.name == name)
        read = load(read_file(weights_path(collected.folder, name)))
        assert {key for key, value in read.items() if value.dtype == torch.int64} == counts
        assert {value.dtype for key, value in read.items() if key not in counts} == {torch.float16}
        model, original = (build_model(config, load_data(config)) for _ in range(2))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        load_weights(model, weights_path(collected.folder, name))
        for key, value in model.state_dict().items():
            expected = original.state_dict()[key]
            assert value.dtype == expected.dtype
            assert torch.equal(value, expected.half().to(expected.dtype) if key not in counts else expected)


def test_any_program_reads_the_archive_of_weights(collected):
    """Compressed, in order, of one time."""
    with zipfile.ZipFile(collected.folder / "weights.zip") as archive:
        found = archive.infolist()
    assert [member.filename for member in found] == sorted(f"{name}.safetensors" for name in (VAE, TOPK))
    assert {member.compress_type for member in found} == {zipfile.ZIP_DEFLATED}
    assert {member.date_time for member in found} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(("damage", "part"), OF_WEIGHTS)
def test_damaged_weights_are_refused_and_say_what_they_are(suite, damage, part):
    path, config = weights_path(suite.folder, VAE), suite.runs[0].config
    damage_weights(suite, damage, part)
    problem = "a pickle, which .*; a safetensors file is expected" if "pickle" in damage else "(missing|damaged or )"
    with pytest.raises(RunError, match=rf"results/tiny/weights\.zip/{VAE}\.safetensors is {problem}"):
        load_weights(build_model(config, load_data(config)), path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_with_damaged_weights_is_not_collected_and_named(suite, capsys, damage):
    before = contents(suite.folder)
    DAMAGES[damage](suite.runs_folder / VAE / "model.safetensors")
    assert collect(suite) == []
    assert contents(suite.folder) == before
    problem = "a pickle" if "pickle" in damage else "(missing|damaged)"
    assert re.fullmatch(rf"warning: .*runs/tiny/{VAE}/model\.safetensors is {problem}.*; its run counts as not "
                        r"finished\n", capsys.readouterr().err)


# --- tables that cannot be read


def plain(folder: Path, name: str) -> Path:
    """The file of a table, uncompressed."""
    path = folder / f"{name}.csv"
    if not path.exists():
        packed = folder / f"{name}.csv.gz"
        path.write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    return path


def in_line(number: int, old: str, new: str):
    """Change a line of a file, counted from 1."""
    def change(path: Path) -> None:
        lines = path.read_text().splitlines(keepends=True)
        assert old in lines[number - 1]
        lines[number - 1] = lines[number - 1].replace(old, new, 1)
        path.write_text("".join(lines))
    return change


def cell(run: str, column: str, value: object):
    """Change a cell of the table of runs."""
    def change(path: Path) -> None:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.loc[table["run"] == run, column] = value
        table.to_csv(path, index=False)
    return change


def without(*columns: str):
    return lambda path: pd.read_csv(path, dtype=str).drop(columns=list(columns)).to_csv(path, index=False)


def again(number: int):
    """Repeat a line at the end."""
    return lambda path: path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[number - 1])


def text(content: str | bytes):
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def appended(content: str):
    return lambda path: path.write_text(path.read_text() + content)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(("name", "change", "message"), [
    *((name, change, message) for name in ("runs", "histories", "curves", "units") for change, message in (
        (text(""), "cannot be read as a table: the file is empty"),
        (text("\n1,2\n"), "cannot be read as a table: the first line is empty"),
        (text(b"run\xff\xfe\n"), "cannot be read as a table: 'utf-8' codec can't decode"),
        (as_folder, "cannot be read as a table: .*Is a directory"),
        (text("a,b\n1,2\n"), "lacks the column run; it has a, b"),
        (appended("\n"), r"cannot be read as a table: line \d+ has 0 cells"),
        (appended("<<<<<<< HEAD\n"), r"cannot be read as a table: line \d+ has 1 cells, the header \d+"),
        (lambda path: path.write_text(path.read_text()[:-1]), r"line \d+ is cut off: no newline ends it"),
        (appended('"'), "cannot be read as a table: unexpected end of data"),
        (again(3), r"line \d+: run .* is there twice"),
    )),
    *(("runs", without(column), f"lacks the column {column}; it has run")
      for column in ("model", "dataset", "seed", "latent_dim", "epochs", "seconds", "environment.measures")),
    ("runs", cell(VAE_1, "loss", "low"), f"line 3: loss of run {VAE_1} must be a number; got 'low'"),
    ("runs", cell(VAE_1, "loss", "nan"), f"line 3: loss of run {VAE_1} must be a number; got 'nan'"),
    ("runs", cell(VAE_1, "loss", "inf"), f"line 3: loss of run {VAE_1} must be a number; got 'inf'"),
    ("runs", cell(VAE_1, "loss", "1_0"), f"line 3: loss of run {VAE_1} must be a number; got '1_0'"),
    ("runs", cell(VAE_1, "seconds", "1 s"), f"line 3: seconds of run {VAE_1} must be a number; got '1 s'"),
    ("runs", cell(VAE_1, "run", VAE), f"line 3: run {VAE} is there twice"),
    ("runs", cell(VAE_1, "run", ""), "line 3: run is empty"),
    ("runs", cell(VAE_1, "model", ""), f"line 3: model of run {VAE_1} is empty"),
    ("runs", cell(VAE_1, "seed", ""), f"line 3: seed of run {VAE_1} is empty"),
    ("runs", cell(VAE_1, "model", "vea"), f"line 3: run {VAE_1} has .* cannot be used: unknown model 'vea'; did you"),
    ("runs", cell(VAE_1, "dataset", "digit"), f"line 3: run {VAE_1} has .*unknown data set 'digit'; did you"),
    ("runs", cell(VAE_1, "latent_dim", "-3"), f"line 3: run {VAE_1} .*: latent_dim must be an integer of at least 1"),
    ("runs", cell(VAE_1, "latent_dim", "many"), f"line 3: run {VAE_1} .*: latent_dim must be .*; got 'many'"),
    ("runs", cell(VAE_1, "k", "2"), f"line 3: run {VAE_1} .*: unknown setting for vae on digits 'k'"),
    ("runs", in_line(1, "learning_rate", "lerning_rate"), "line 2: .* 'lerning_rate'; did you mean 'learning_rate'"),
    ("runs", in_line(1, "decay", "epochs"), "has the column epochs twice"),
    ("histories", without("epoch"), "lacks the column epoch; it has run"),
    ("histories", in_line(3, ",0.5,0.75", ",0.5,half"), f"line 3: test_total of run {VAE} must be .*; got 'half'"),
    ("histories", in_line(3, f"{VAE},2", f"{VAE},"), "line 3: epoch is empty"),
    ("histories", in_line(3, f"{VAE},2", f"{VAE},1"), f"line 3: run {VAE}, epoch 1 is there twice"),
    ("histories", in_line(3, VAE, "digits/vea/seed0"), r"line 3: 'digits/vea/seed0' is no run of runs\.csv"),
    ("curves", in_line(2, "0.25", "left"), f"line 2: x of run {VAE} must be a number; got 'left'"),
    ("curves", in_line(2, "population_histogram", ""), "line 2: curve is empty"),
    ("curves", in_line(2, "0.333333", ""), "line 2: value is empty"),
    ("curves", in_line(2, VAE, ""), "line 2: run is empty"),
    ("units", in_line(2, f"{VAE},0", f"{VAE},first"), f"line 2: unit of run {VAE} must be a number; got 'first'"),
    ("units", in_line(3, f"{VAE},1", f"{VAE},0"), f"line 3: run {VAE}, unit 0 is there twice"),
    ("units", without("rate"), "lacks the column rate; it has run, unit, strongest"),
])
def test_a_table_that_cannot_be_read_names_file_and_place(suite, name, change, message):
    path = plain(suite.folder, name)
    change(path)
    before = contents(suite.folder)
    with pytest.raises(TableError, match=rf"(?s){name}\.csv.*{message}"):
        read_tables(suite.folder)
    with pytest.raises(TableError, match=rf"{name}\.csv"):
        collect(suite)
    assert contents(suite.folder) == before


@pytest.mark.parametrize("damage", [
    lambda whole: whole[:-9], lambda _: b"no gzip", lambda whole: whole[:40] + b"x" * 9],
    ids=["truncated", "no archive", "changed"])
def test_packed_curves_that_are_damaged_are_named(suite, damage):
    path = suite.folder / "curves.csv.gz"
    path.write_bytes(damage(path.read_bytes()))
    before = contents(suite.folder)
    for read in (read_tables, lambda _: collect(suite)):
        with pytest.raises(TableError, match=r"curves\.csv\.gz cannot be read as a table"):
            read(suite.folder)
    assert contents(suite.folder) == before


@pytest.mark.parametrize("name", ["histories", "curves", "units"])
def test_long_tables_that_are_not_packed_are_read_and_packed(suite, name):
    before = contents(suite.folder)
    plain(suite.folder, name)
    assert not getattr(read_tables(suite.folder), name).empty
    assert collect(suite) == []
    assert contents(suite.folder) == before


def test_long_tables_without_runs_are_refused(suite):
    (suite.folder / "runs.csv").unlink()
    with pytest.raises(TableError, match=r"runs\.csv is missing, and histories\.csv\.gz is there"):
        read_tables(suite.folder)


def test_a_table_saved_by_a_spreadsheet_is_read(suite):
    before = read_tables(suite.folder)
    for path in suite.folder.glob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    after = read_tables(suite.folder)
    for name in ("runs", "histories", "curves", "units"):
        pd.testing.assert_frame_equal(getattr(after, name), getattr(before, name))


# --- the published suites


@pytest.mark.heavy
@pytest.mark.parametrize("name", [
    name if name in ("report", "selection") else pytest.param(name, marks=pytest.mark.slow) for name in SUITES])
def test_the_published_suites_survive_collecting(name, tmp_path):
    expected = read_tables(ROOT / "results" / name)
    (tmp_path / "results" / name).mkdir(parents=True)
    for path in (ROOT / "results" / name).glob("*.csv*"):
        shutil.copy(path, tmp_path / "results" / name)
    assert len(expected.runs)
    suite = load_suite(name, ROOT)
    suite = Suite(**{**vars(suite), "root": tmp_path})
    assert collect(suite) == []
    again = read_tables(suite.folder)
    kept = expected.runs[expected.runs["run"].isin([run.name for run in suite.runs])]
    frames = [table.set_index("run").dropna(axis="columns", how="all") for table in (again.runs, kept)]
    pd.testing.assert_frame_equal(*frames, check_like=True)


# --- what was measured


def table_of_runs(**columns) -> tables.Tables:
    runs = pd.DataFrame({"run": list("abcd"), "environment.measures": ["one", "one", "two", None], **columns})
    return tables.Tables(runs, curves=pd.DataFrame({"run": ["a"], "curve": ["kl_by_rank"], "x": [0], "value": [1.0]}))


@pytest.mark.parametrize(("values", "expected"), [
    ([1.0, np.nan, np.nan, np.nan], "ab"),  # b was measured by the same source: nothing can be said of it
    ([np.nan, np.nan, 1.0, np.nan], "c"),
    ([np.nan, np.nan, np.nan, 1.0], "d"),
    ([1.0, np.nan, np.nan, 2.0], "abd"),
    ([np.nan] * 4, "abc")])  # the column is there since it was measured, and nothing can be said of any
def test_an_empty_cell_says_whether_the_measure_was_taken(values, expected):
    assert table_of_runs(mig=values).measured("mig") == set(expected)


def test_a_measure_or_curve_that_no_table_has_was_not_taken():
    found = table_of_runs()
    assert found.measured("mig") == set()
    assert found.measured("kl_by_rank") == {"a", "b"}
    assert found.measured("size_histogram") == set()
    assert tables.Tables().measured("mig") == set()
