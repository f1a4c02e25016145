"""Claims: verdicts on sentences, what a check of all of them names, and how pages show them."""

import itertools
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pypandoc
import pytest

from sparse_vae.checks import SettingError
from sparse_vae.report import claims, site
from sparse_vae.report.claims import (
    ClaimError,
    against,
    check_claims,
    evaluate,
    published_runs,
    together,
    write_verdicts,
)
from sparse_vae.report.execution import draw_suite, train_suite
from sparse_vae.report.suites import load_suite

ROOT = Path(__file__).parents[1]
HEADER = "from sparse_vae.report.claims import Verdict, against, claim\n"
CHECK = """
@claim("{id}", suite="{suite}")
def _(runs):
    found = against(runs, "{first}", "{second}", "{measure}", at={{"latent_dim": [8]}})
    return Verdict(found.lower, found.text, {{"gap": f"{{-found.amount:.1f}}"}})
"""


def write_check(root, *ids, **changes):
    """Add checks to the project's file; by default that the VAE's bound is better than VSC's."""
    path = root / "report" / "claims.py"
    text = path.read_text() if path.exists() else HEADER
    settings = {"suite": "small", "first": "vae", "second": "vsc", "measure": "negative_elbo"} | changes
    path.write_text(text + "".join(CHECK.format(id=id, **settings) for id in ids))


def write_chapter(root, *ids):
    """A chapter that marks a sentence for each id."""
    sentences = " ".join(f"[Sentence *{id}* [with brackets](a.qmd).]{{.claim #{id}}}" for id in ids)
    (root / "report" / "chapter.qmd").write_text(f"---\ntitle: A chapter\n---\n\nBefore. {sentences} After.\n")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """The filters look for the verdicts in the working directory, whatever Quarto has left in this process."""
    monkeypatch.delenv("QUARTO_PROJECT_DIR", raising=False)


@pytest.fixture
def project(tmp_path):
    """A project with one published suite: VAE and VSC with 8 dimensions on MNIST, three seeds of each, with bounds of
    this file's own."""
    for folder in ("report", "experiments", "notebooks", "results/small"):
        (tmp_path / folder).mkdir(parents=True)
    table = pd.read_csv(ROOT / "results" / "paper" / "runs.csv", dtype=str)
    table = table[table["run"].str.match(r"mnist/(vae|vsc)-j8/")]
    middle = table["model"].map({"vae": 108.58, "vsc": 118.81})
    table = table.assign(negative_elbo=middle + 0.03 * (table["seed"].astype(int) - 1), bound_gap=None)
    table.to_csv(tmp_path / "results" / "small" / "runs.csv", index=False)
    return tmp_path


def change(path, run, column, value):
    """Change one number of a table of runs."""
    table = pd.read_csv(path, dtype=str)
    assert (table["run"] == run).sum() == 1
    table.loc[table["run"] == run, column] = str(value)
    table.to_csv(path, index=False)


# --- verdicts


def test_true_false_and_left_out(project):
    write_check(project, "true")
    write_check(project, "false", first="vsc", second="vae")
    write_check(project, "no-run", second="hybrid")
    write_check(project, "no-measure", measure="refit_mse")
    write_check(project, "no-suite", suite="large")
    write_chapter(project, "true", "false", "no-run", "no-measure", "no-suite")
    verdicts = evaluate(project)
    assert {id: verdict["holds"] for id, verdict in verdicts.items()} == {
        "true": True, "false": False, "no-run": None, "no-measure": None, "no-suite": None}
    assert verdicts["true"]["numbers"].startswith("−ELBO (nats): at J = 8 VAE 108.58\xa0±\xa00.02 against VSC 118.81")
    assert verdicts["true"]["values"] == {"gap": "10.2"}
    assert "'hybrid'" in verdicts["no-run"]["numbers"]
    assert "refit_mse" in verdicts["no-measure"]["numbers"]
    assert "'large'" in verdicts["no-suite"]["numbers"]
    assert verdicts["false"] | {"numbers": "", "values": {}} == {
        "holds": False, "numbers": "", "values": {}, "suite": "small", "position": 1, "title": "A chapter",
        "sentence": "Sentence *false* [with brackets](a.qmd).", "chapter": "report/chapter.qmd",
        "check": CHECK.format(id="false", suite="small", first="vsc", second="vae", measure="negative_elbo").lstrip()}


def test_site_is_the_suite_that_the_site_is_built_of(project):
    write_check(project, "mine", suite="site")
    assert evaluate(project, "small")["mine"]["holds"] is True
    assert evaluate(project, "other")["mine"] | {"check": ""} == {
        "holds": None, "numbers": "suite 'other' has no published results", "values": {}, "suite": "other",
        "sentence": "", "chapter": "", "title": "", "position": 0, "check": ""}


@pytest.mark.parametrize(("body", "message"), [
    ("return 1 / 0", "claim broken: ZeroDivisionError"),
    ("return runs.frame['no_such']", "claim broken: KeyError"),
    ("return True", "claim broken must return a Verdict"),
    ("return Verdict(None, 'numbers')", "claim broken must return a Verdict"),
    ("return Verdict(True, '')", "claim broken must return a Verdict"),
])
def test_check_that_fails_names_the_claim(project, body, message):
    check = f'@claim("broken", suite="small")\ndef _(runs):\n    {body}\n'
    (project / "report" / "claims.py").write_text(HEADER + check)
    with pytest.raises(ClaimError, match=message):
        evaluate(project)
    assert any(message in problem for problem in check_claims(project))


def test_checks_read_tables_alone(project):
    assert not any(run.has_model for run in published_runs(project, "small"))


# --- comparisons


def test_against_is_a_welch_test(project):
    path = project / "results" / "small" / "runs.csv"
    for model, values in {"vae": (1.0, 2.0, 3.0), "vsc": (2.0, 4.0, 6.0)}.items():
        for seed, value in enumerate(values):
            change(path, f"mnist/{model}-j8/seed{seed}", "negative_elbo", value)
    found = against(published_runs(project, "small"), "vae", "vsc", "negative_elbo")
    # Means 2 and 4, variances of the means 1/3 and 4/3: t = −2 / √(5/3), 50/17 degrees of freedom.
    assert found.text == "−ELBO (nats): VAE 2.00\xa0±\xa00.58 against VSC 4.00\xa0±\xa01.15 (p = 0.221)"
    assert (found.amount, found.lower, found.higher, found.level) == (-2.0, False, False, True)


def test_pairs_are_of_one_seed(project):
    path = project / "results" / "small" / "runs.csv"
    for model, values in {"vae": (1.0, 2.0, 3.0), "vsc": (2.0, 4.0, 6.0)}.items():
        for seed, value in enumerate(values):
            change(path, f"mnist/{model}-j8/seed{seed}", "negative_elbo", value)
    runs = published_runs(project, "small")
    # Differences −1, −2, −3: t = −2 √3, two degrees of freedom.
    assert against(runs, "vae", "vsc", "negative_elbo", paired=True).tests[0].p == pytest.approx(0.0742, abs=1e-4)
    with pytest.raises(SettingError, match=r"no pairs by seed: \[0, 1\] against \[0, 1, 2\]"):
        against(runs, {"model": "vae", "seed": [0, 1]}, "vsc", "negative_elbo", paired=True)


def test_holm_corrects_over_all_comparisons_of_a_claim(project):
    runs = published_runs(project, "small")
    each = [against(runs, "vae", "vsc", measure) for measure in ("negative_elbo", "mean_squared_error")]
    both = together(*each)
    p = [test.p for found in both for test in found.tests]
    assert sorted(test.p_holm for found in both for test in found.tests) == pytest.approx(
        [2 * min(p), max(2 * min(p), max(p))])
    assert all(found.lower and not found.higher and not found.level for found in both)


def test_numbers_without_spread_or_seeds_are_compared_as_they_are(project):
    runs = published_runs(project, "small")
    one = against(runs, {"model": "vae", "seed": 0}, {"model": "vsc", "seed": 0}, "negative_elbo")
    assert one.lower
    assert "no test with one run" in one.text
    none = against(runs, {"model": "vae", "seed": [0, 1]}, {"model": "vae", "seed": [1, 2]}, "used_dimensions")
    assert none.level
    assert not none.lower
    assert "no spread" in none.text


@pytest.mark.parametrize(("settings", "message"), [
    ({"at": {"latent_dim": [8, 16]}}, "latent_dim = 16"), ({"at": {"no_such": [1]}}, "no_such")])
def test_every_place_must_be_there(project, settings, message):
    with pytest.raises(SettingError, match=message):
        against(published_runs(project, "small"), "vae", "vsc", "negative_elbo", **settings)


# --- the check of all claims


def finished(project):
    """Keep the verdicts of now."""
    write_verdicts(project / claims.VERDICTS, evaluate(project))
    return project


def test_check_finds_nothing_where_all_is_well(project):
    write_check(project, "true")
    write_chapter(project, "true")
    assert check_claims(finished(project)) == []


def test_one_changed_number_names_claim_chapter_sentence_and_numbers(project):
    write_check(project, "true")
    write_chapter(project, "true")
    finished(project)
    change(project / "results" / "small" / "runs.csv", "mnist/vsc-j8/seed1", "negative_elbo", "50.0")
    false, stale = check_claims(project)
    assert false.startswith("report/chapter.qmd:5: claim true does not hold for suite small: “Sentence *true* [with")
    assert "VAE 108.58" in false
    assert stale.startswith("results/claims.json is older than")
    assert "(true)" in stale


def test_a_claim_that_readme_says_again_is_named_there_too(project):
    write_check(project, "true")
    write_chapter(project, "true")
    finished(project)
    (project / "README.md").write_text("# Title\n\nTrue. <!-- claims: true -->\n")
    assert check_claims(project) == []
    change(project / "results" / "small" / "runs.csv", "mnist/vsc-j8/seed1", "negative_elbo", "50.0")
    assert check_claims(project)[0].startswith("report/chapter.qmd:5, README.md:3: claim true does not hold for suite")
    (project / "README.md").write_text("True. <!-- claims: true, other -->\n")
    assert check_claims(project)[0] == "README.md:1: claim other has no check in report/claims.py"


def test_check_names_a_claim_that_cannot_be_checked(project):
    write_check(project, "absent", second="hybrid")
    write_chapter(project, "absent")
    [problem] = check_claims(finished(project))
    assert "claim absent cannot be checked on suite small" in problem
    assert "'hybrid'" in problem


def test_check_names_marks_without_checks_and_checks_without_marks(project):
    write_check(project, "both", "only-checked")
    write_chapter(project, "both", "only-marked", "both")
    finished(project)
    marked, twice, checked = check_claims(project)
    assert marked == "report/chapter.qmd:5: claim only-marked has no check in report/claims.py"
    assert twice == "report/chapter.qmd:5: claim both is marked twice, first in report/chapter.qmd:5"
    assert checked.endswith("no chapter marks claim only-checked")


def test_check_names_a_claim_with_two_checks(project):
    write_check(project, "both", "both")
    [problem] = check_claims(project)
    assert problem == "report/claims.py: claim both has two checks, in lines 3 and 8"


@pytest.mark.parametrize(("text", "message"), [
    ("[No id.]{.claim}", "a claim is written"), ("No beginning.]{.claim #a}", "a claim is written"),
    ("[Two.]{.claim #a #b}", "a claim is written")])
def test_check_names_a_mark_that_cannot_be_read(project, text, message):
    write_check(project)
    (project / "index.qmd").write_text(f"Line one.\n{text}\n")
    [problem] = check_claims(project)
    assert problem.startswith("index.qmd:2: ")
    assert message in problem


def test_marks_in_code_are_no_marks(project):
    (project / "index.qmd").write_text("`[a]{.claim #a}`\n\n```\n[b]{.claim #b}\n```\n[Of `c[0]`.]{.claim #c}\n")
    assert [(mark.id, mark.sentence, mark.line) for mark in claims.marked_sentences(project)] == [
        ("c", "Of `c[0]`.", 6)]


def test_verdicts_that_cannot_be_read_are_named(project):
    write_check(project, "true")
    write_chapter(project, "true")
    (project / claims.VERDICTS).write_text("{")
    assert check_claims(project)[0].startswith("results/claims.json is no JSON")


def test_verdicts_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "claims.json"
    write_verdicts(path, {"a": {"holds": None}})
    before = path.read_text()
    assert json.loads(before) == {"a": {"holds": None}}
    with pytest.raises(TypeError):
        write_verdicts(path, {"a": {"holds": np.array([1])}})
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_command_writes_the_verdicts_of_a_suite(project, monkeypatch, capsys):
    write_check(project, "mine", suite="site")
    options = ["--suite", "small", "--output", "out/claims.json"]
    monkeypatch.chdir(project)
    assert claims.main(options) == 0
    written = (project / "out" / "claims.json").read_text()
    assert json.loads(written)["mine"]["holds"] is True
    write_check(project, "mine")
    assert claims.main(options) == 1
    assert "claim mine has two checks" in capsys.readouterr().err
    assert (project / "out" / "claims.json").read_text() == written


# --- pages


VERDICTS = {id: {"holds": holds, "numbers": f"1 < {number}", "values": {"gap": "1.5"}, "suite": "small",
                 "sentence": f"Sentence *{id}*, {{{{< var claims.{id}.gap >}}}}.", "chapter": f"report/{id}.qmd",
                 "title": f"About {id}", "position": number, "check": "def _(runs):\n    return Verdict(…)\n"}
            for number, (id, holds) in enumerate({"true": True, "false": False, "absent": None}.items())}
PAGE = """
First. [It *is*.]{.claim #true} [It is not.]{.claim #false} Last.

Before. [Not here.]{.claim #absent}

[Not here.]{.claim #absent}
[Nor here.]{.claim #absent}

[Unknown.]{.claim #unknown}
"""


def show(folder, text, to="html5", *options):
    """A page made by pandoc with the filter: its text and the warnings."""
    write_verdicts(folder / "report" / "_cells" / "claims.json", VERDICTS)
    answer = subprocess.run(
        [pypandoc.get_pandoc_path(), "--from=markdown", f"--to={to}", "--wrap=none", *options,
         f"--lua-filter={ROOT / 'report' / 'claims.lua'}"],
        input=text, cwd=folder, capture_output=True, text=True, check=True)
    return answer.stdout, answer.stderr


def test_pages_show_verdicts(tmp_path):
    page, warnings = show(tmp_path, PAGE)
    assert ('<span id="true" class="claim">It <em>is</em>.<sup><a href="../report/claims.html#true" '
            'class="claim-check" aria-label="checked: how" title="1 &lt; 0">✓</a></sup></span>') in page
    assert ('<span id="false" class="claim claim-false">It is not. <a href="../report/claims.html#false" '
            'class="claim-check" aria-label="not so: how it was checked">— not so in these results: 1 &lt; 1.</a>'
            '</span>') in page
    assert "here" not in page
    assert page.count("<p>") == 3
    assert "<p>Before. </p>" in page or "<p>Before.</p>" in page
    assert '<span id="unknown" class="claim">Unknown.</span>' in page
    assert "claim unknown has no verdict" in warnings


def test_plain_text_has_no_links(tmp_path):
    page, _ = show(tmp_path, PAGE, "plain")
    assert page.split("\n\n")[0] == "First. It is. It is not. — not so in these results: 1 < 1. Last."


def test_links_lead_from_the_home_page(tmp_path):
    page, _ = show(tmp_path, PAGE, "html5", "--metadata=project-offset:.")
    assert 'href="./report/claims.html#true"' in page


def test_a_page_lists_all_claims_in_order(tmp_path):
    page, _ = show(tmp_path, "::: {.all-claims}\n:::\n", "html5", "--toc", "--standalone", "--metadata=title:x")
    places = [page.index(f'<h2 id="in-{id}">About {id}</h2>') for id in VERDICTS]
    assert places == sorted(places)
    assert 'href="#in-false"' in page
    assert "Sentence <em>true</em>, 1.5." in page
    assert '<div id="absent" class="claim-entry">' in page
    for words in ("✓ It holds", "✗ It does not hold in these results", "Left out here"):
        assert f"<strong>{words}</strong>" in page
    assert page.count("numbers and check</summary>") == 3
    assert 'href="../report/true.html#true"' in page


def test_bars_are_as_long_as_their_numbers():
    text = "::: {.bars}\n- VAE [8.0]{.bar}\n- VSC [12%]{.bar}\n- none [—]{.bar}\n:::\n\n[3]{.bar}\n"
    page = pypandoc.convert_text(text, "html5", "markdown", extra_args=[f"--lua-filter={ROOT / 'report' / 'bars.lua'}"])
    assert '<span class="bar" style="--share: 0.667">8.0</span>' in page
    assert '<span class="bar" style="--share: 1.000">12%</span>' in page
    assert '<span class="bar">—</span>' in page
    assert '<span class="bar">3</span>' in page


def test_missing_verdicts_are_an_error(tmp_path):
    answer = subprocess.run(
        [pypandoc.get_pandoc_path(), "--from=markdown", f"--lua-filter={ROOT / 'report' / 'claims.lua'}"],
        input=PAGE, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode
    assert "report/_cells/claims.json is not there" in answer.stderr


# --- this repository


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The repository's chapters, checks and published tables."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "results", root / "results", ignore=shutil.ignore_patterns("figures", "weights.zip"))
    (root / "report").mkdir()
    for path in [*ROOT.glob("*.qmd"), *ROOT.glob("report/*.qmd"), ROOT / claims.CHECKS]:
        shutil.copy(path, root / path.relative_to(ROOT))
    return root


def test_all_claims_hold_on_the_published_suites(copied):
    assert check_claims(copied) == []
    assert len(claims.load_claims(copied)) >= 12
    chapters = [verdict["chapter"] for verdict in json.loads((ROOT / claims.VERDICTS).read_text()).values()]
    runs = [chapter for chapter, _ in itertools.groupby(chapters)]
    assert len(runs) == len(set(runs)), "checks of one chapter stand together, for its heading on the page of claims"


@pytest.mark.slow
def test_a_changed_table_is_named_in_this_repository(copied):
    path = copied / "results" / "paper" / "runs.csv"
    before = path.read_text()
    change(path, "mnist/vae-j50/seed0", "negative_elbo", "200.0")
    problems = check_claims(copied)
    path.write_text(before)
    assert any("claim vae-ahead-of-rare-spikes does not hold for suite paper" in problem for problem in problems)


@pytest.mark.slow
def test_pages_of_the_quick_suite_with_another_seed_mark_what_does_not_hold_there(tmp_path):
    root = tmp_path / "copy"
    for name in ("experiments", "notebooks", "report", "results", "src"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("_cells", "executed", "quick"))
    for name in ("index.qmd", "_quarto.yml"):
        shutil.copy(ROOT / name, root)
    path = root / "experiments" / "quick.yml"
    path.write_text(path.read_text().replace("defaults: {", "defaults: {seed: 1, ").replace("seed0", "seed1"))
    suite = load_suite("quick", root)
    assert {outcome.status for outcome in (*train_suite(suite), *draw_suite(suite))} == {"done"}
    site.render(suite, plain=True)
    found = Counter()
    for id, verdict in json.loads((root / "report" / "_cells" / "claims.json").read_text()).items():
        page = (root / "_site" / verdict["chapter"].replace(".qmd", ".html")).read_text()
        assert (f'id="{id}" class="claim"' in page) == (verdict["holds"] is True), id
        assert (f'id="{id}" class="claim claim-false"' in page) == (verdict["holds"] is False), id
        if verdict["suite"] == "quick":
            found[verdict["holds"]] += 1
    assert found[True] + found[False], "claims about what the suite has trained"
    assert found[None], "claims about data sets that it has not"
