"""The site: what chapters show is extracted, checked, rendered with Quarto or without, and opened in a browser."""

import base64
import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from sparse_vae.checks import SettingError
from sparse_vae.report import site

ROOT = Path(__file__).parents[1]
PAGES = [entry["href"].replace(".qmd", ".html")
         for entry in yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]["sidebar"]["contents"]
         if "href" in entry]
OF_EACH_KIND = ["index", "draw", "explore", "features", "train-here", "vae", "vsc", "gamma-sampler", "results",
                "sparse", "claims", "glossary", "api"]
"""Pages that are read in a browser each time; the others by ``make test-slow``."""
NOTEBOOK = "results/tiny/figures/a-x.ipynb"
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(8)
HEAD = "---\ntitle: {}\nsuites: [{}]\n---\n\n"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def code_cell(source, **data):
    return {"cell_type": "code", "source": source.splitlines(keepends=True), "metadata": {},
            "outputs": [{"output_type": "display_data", "data": data, "metadata": {}}] if data else []}


def notebook(*cells):
    return {"cells": [{"cell_type": "markdown", "source": "# A title\n\nWhat is asked."}, *cells], "nbformat": 4}


FIGURE = code_cell('#| label: "fig-a-x"\n#| fig-cap: "A *caption*,\\nlong."\n#| fig-alt: "A \\"b\\" & c"\nprint("```")',
                   **{"image/png": base64.b64encode(PICTURE).decode()})
ROWS = "| a | b |\n|:--|--:|\n| c | 1 |"
TABLE = code_cell('#| label: "tbl-a-x"\n#| tbl-cap: "Numbers."\nshow()', **{"text/markdown": ROWS})
SENTENCE = code_cell('#| label: "finding-x"\nsay()', **{"text/markdown": ["It is ", "so [@key2020]."]})
WIDGET = code_cell('#| label: "widget-x"\nshow_html()', **{"text/html": "<p id=widget>moves</p>"})


@pytest.fixture
def tiny(tmp_path):
    """A project of two pages and two suites, tiny and study, whose claims are taken to be none."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "report", root / "report", ignore=lambda folder, names: [
        name for name in names if name.endswith(".qmd") or name in ("_cells", "executed", "claims.py", "__pycache__")])
    for suite, dataset in (("tiny", "digits"), ("study", "faces")):
        write(root / "results" / suite / "suite.json", {"name": suite, "title": f"the suite {suite}", "first": dataset,
                                                        "second": dataset, "figures": ["a-x"]})
        write(root / "results" / suite / "runs.csv", "run,dataset,latent_dim,epochs,seconds,environment.device\n"
              f"r1,{dataset},2,9,60,cpu\nr2,{dataset},16,10,90,cpu\nr3,{dataset},8,,30,cpu\n")
    write(root / NOTEBOOK, notebook(FIGURE, TABLE, SENTENCE, WIDGET))
    write(root / "results" / "study" / "figures" / "a-x.ipynb", notebook(
        code_cell('#| label: "finding-study"\nsay()', **{"text/markdown": "Studied."})))
    write(root / "index.qmd", HEAD.format("Home", "site")
          + "{{< cell fig-a-x >}}\n\n@fig-a-x, [on](report/one.qmd#sec-b)\n")
    write(root / "report" / "one.qmd", HEAD.format("One", "site, study") + "## B {#sec-b}\n\n{{< cell finding-x >}}\n\n"
          "{{< cell finding-study >}}\n\n{{< var suite.title >}}: {{< var all.runs >}} runs\n\n"
          "`{{{< cell code >}}}`\n\n{{< cell tbl-a-x >}}\n\n{{< cell widget-x >}}\n\n"
          "[table]({{< var suite.table >}}) @tbl-a-x, [home](../index.qmd)\n")
    write(root / "report" / "references.bib", "@book{key2020, title = {A book}, author = {Ann Author}, year = {2020}}")
    config = yaml.safe_load((ROOT / "_quarto.yml").read_text())
    config["website"]["sidebar"]["contents"] = [{"href": href, "text": "A"} for href in ("index.qmd", "report/one.qmd")]
    config["profile"]["default"] = "tiny"
    write(root / "_quarto.yml", yaml.safe_dump(config))
    program(root / ".venv" / "bin" / "python", "echo No module named sparse_vae >&2; exit 1")
    return root


def program(path, script):
    write(path, f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def extracted(root, suite="tiny"):
    script = site.load_script(root)
    script.write(root, script.collect(root, suite))
    return root / "report"


# --- extraction


def test_a_figure_has_its_picture_caption_alternative_text_code_and_notebook(tiny):
    report = extracted(tiny)
    text = (report / "_cells" / "fig-a-x.md").read_text()
    picture = '![](/report/executed/tiny/fig-a-x.png){fig-alt="A &quot;b&quot; &amp; c" loading="lazy"}'
    assert text.startswith(f"::: {{#fig-a-x}}\n\n{picture}\n\nA *caption*, long.\n\n:::\n")
    assert '````python\nprint("```")\n````' in text
    assert "[a-x](/report/executed/tiny/a-x.html)" in text
    assert "(/report/executed/tiny/a-x.ipynb){download" in text
    assert (report / "executed" / "tiny" / "fig-a-x.png").read_bytes() == PICTURE
    assert json.loads((report / "executed" / "tiny" / "a-x.ipynb").read_text())["nbformat"] == 4


def test_a_large_picture_is_shown_as_webp_where_the_package_can_make_it(tiny):
    picture, buffer = Image.effect_noise((300, 300), 60), io.BytesIO()
    picture.save(buffer, "PNG")
    figure = json.loads(json.dumps(FIGURE))
    figure["outputs"][0]["data"]["image/png"] = base64.b64encode(buffer.getvalue()).decode()
    write(tiny / NOTEBOOK, notebook(figure, TABLE, SENTENCE, WIDGET))
    report = extracted(tiny)  # its Python has no package
    assert (report / "executed" / "tiny" / "fig-a-x.png").read_bytes() == buffer.getvalue()
    program(tiny / ".venv" / "bin" / "python", f'exec {sys.executable} "$@"')
    script = site.load_script(tiny)
    files = script.collect(tiny, "tiny", evaluate=False)
    suites, kept = script.modernise(tiny, {name: script.read_suite(tiny, name) for name in ("tiny", "study")})
    shown = suites["tiny"].notebooks[0].pictures["fig-a-x.webp"]
    assert len(shown) < len(buffer.getvalue())
    assert np.abs(np.asarray(Image.open(io.BytesIO(shown)).convert("L"), float) - np.asarray(picture)).mean() < 12
    assert list(kept.values()) == [shown]
    assert files.files["report/executed/tiny/fig-a-x.png"] == buffer.getvalue()


def test_a_plot_has_its_specification_and_its_data_beside_its_picture(tiny):
    plot = json.loads(json.dumps(FIGURE))
    plot["outputs"][0]["data"]["application/vnd.vegalite.v5+json"] = {
        "data": {"values": "x,y\n1,2\n", "format": {"type": "csv"}}, "concat": []}
    write(tiny / NOTEBOOK, notebook(plot, TABLE, SENTENCE, WIDGET))
    report = extracted(tiny)
    text, folder = (report / "_cells" / "fig-a-x.md").read_text(), report / "executed" / "tiny"
    assert '(/report/executed/tiny/fig-a-x.png){.plot fig-alt="' in text
    assert '[data](/report/executed/tiny/fig-a-x.csv){download=""}' in text
    assert text.count('<script type="module" src="/report/executed/widgets/plots.js"></script>') == 1
    assert (folder / "fig-a-x.csv").read_text() == "x,y\n1,2\n"
    assert json.loads((folder / "fig-a-x.json").read_text()) == {
        "data": {"url": "fig-a-x.csv", "format": {"type": "csv"}}, "concat": []}
    assert (folder / "fig-a-x.png").read_bytes() == PICTURE


def test_a_table_has_its_caption_a_sentence_stands_alone_and_html_stays_html(tiny):
    cells = extracted(tiny) / "_cells"
    assert (cells / "tbl-a-x.md").read_text().startswith(f"::: {{#tbl-a-x}}\n\n{ROWS}\n\nNumbers.\n\n:::")
    assert (cells / "finding-x.md").read_text() == "It is so [@key2020].\n"
    assert (cells / "widget-x.md").read_text().startswith("```{=html}\n<p id=widget>moves</p>\n```\n\n[Notebook:")


def test_a_notebook_becomes_a_page_which_is_made_again_only_when_it_changes(tiny):
    page = extracted(tiny) / "executed" / "tiny" / "a-x.html"
    text = page.read_text()
    for part in ("<h1>A title (x)</h1>", "What is asked.", 'src="fig-a-x.png"', 'alt="A &quot;b&quot; &amp; c"',
                 "long.", '<p id=widget>moves</p>', 'href="a-x.ipynb" download'):
        assert part in text
    files = [*(tiny / "report" / "_cells").iterdir(), page]
    before = [file.stat().st_mtime_ns for file in files]
    extracted(tiny)
    assert [file.stat().st_mtime_ns for file in files] == before
    path = tiny / NOTEBOOK
    path.write_text(path.read_text().replace("What is asked", "Another question"))
    extracted(tiny)
    assert "Another question" in page.read_text()


def test_the_page_of_a_notebook_shows_every_output_of_a_cell(tiny):
    cell = code_cell("#| label: finding-x\nsay()", **{"text/markdown": "So.", "text/plain": "So."})
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["1\n", "2\n"]}, *cell["outputs"],
                       {"output_type": "display_data", "data": {"image/svg+xml": "<svg/>"}}]
    write(tiny / NOTEBOOK, notebook(FIGURE, TABLE, WIDGET, cell))
    report = extracted(tiny)
    text = (report / "executed" / "tiny" / "a-x.html").read_text()
    [svg] = (report / "executed" / "tiny").glob("*.svg")
    assert text.index("1\n2") < text.index("So.") < text.index(f'src="{svg.name}"')
    assert svg.read_text() == "<svg/>"
    assert (report / "_cells" / "finding-x.md").read_text() == "So.\n"


def test_what_no_chapter_shows_any_more_goes_and_is_among_further_figures(tiny):
    report = extracted(tiny)
    assert "no further figures" in (report / "_cells" / "more.md").read_text()
    (tiny / "index.qmd").write_text(HEAD.format("Home", "site"))
    (report / "one.qmd").write_text(HEAD.format("One", "site"))
    extracted(tiny)
    more = (report / "_cells" / "more.md").read_text()
    assert "### A: x" in more
    assert "#fig-a-x" in more
    assert not (report / "_cells" / "fig-a-x.md").exists()
    assert "study" not in (report / "_cells" / "notebooks.md").read_text()
    assert not (report / "executed" / "study" / "a-x.html").exists()


def test_variables_state_the_tables(tiny):
    values = json.loads((extracted(tiny).parent / "_variables.yml").read_text())
    assert values["suite"]["name"] == "*tiny*"  # Quarto would take a folder's name for a path
    assert values["suite"] | {"runs": 3, "minutes": "3", "epochs": "9, 10", "device": "cpu"} == values["suite"]
    assert values["first"] == {"name": "digits", "epochs": "9, 10", "latents": "8, 16"}
    assert values["all"] == {"runs": 6, "minutes": "6"}
    assert values["studies"]["study"]["datasets"] == "faces"


BROKEN = {
    "a label that is not there": ("index.qmd", HEAD.format("H", "site, study") + "{{< cell fig-b >}}",
                                  r"index\.qmd:6: no executed notebook of suite tiny or study has .* label fig-b"),
    "a suite that is not there": ("report/one.qmd", HEAD.format("H", "site, studio"),
                                  r"one\.qmd:3: suite 'studio' has no results \(.*suite\.json .* study, tiny have"),
    "no suites": ("report/one.qmd", "---\ntitle: One\n---\n{{< cell fig-a-x >}}", r"one\.qmd:4: .* names their suites"),
    "a chapter to print": ("report/print.qmd", "---\ntitle: P\nchapters: [one, two]\n---\n",
                           r"print\.qmd: there is no chapter two"),
    "a variable": ("report/one.qmd", "{{< var suite.nope >}}", r"one\.qmd:1: there is no variable suite\.nope"),
    "a group of variables": ("report/one.qmd", "\n{{< var suite >}}", r"one\.qmd:2: there is no variable suite"),
    "a damaged notebook": (NOTEBOOK, "[]", r"a-x\.ipynb is damaged .* make graphics SUITE=tiny"),
    "no output": (NOTEBOOK, notebook(code_cell("#| label: x\n1")), "x shows nothing"),
    "a label twice": (NOTEBOOK, notebook(TABLE, TABLE), "tbl-a-x is there twice"),
    "a damaged picture": (NOTEBOOK, notebook(code_cell("#| label: fig-b", **{"image/png": "a"})), "is damaged"),
    "no alternative text": (NOTEBOOK, notebook(code_cell("#| label: fig-b", **{"image/png": ""})),
                            "fig-b has no alternative text"),
    "a label of two suites": ("results/study/figures/a-x.ipynb", notebook(FIGURE, SENTENCE), "a label of"),
    "a table of runs": ("results/tiny/runs.csv", "run,dataset\nr,d\n", "runs.csv cannot be read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_there_is_named_and_nothing_is_written(tiny, case):
    path, content, message = BROKEN[case]
    write(tiny / path, content)
    if case == "a label of two suites":
        write(tiny / "report" / "two.qmd", HEAD.format("Two", "study") + "{{< cell fig-a-x >}}")
        message = r"two\.qmd:6: fig-a-x is a cell of suite study here and of tiny on another page"
    script = site.load_script(tiny)
    with pytest.raises(script.ReportError, match=message):
        script.collect(tiny, "tiny")
    assert site.check(tiny, "tiny")
    assert not (tiny / "report" / "_cells").exists()


@pytest.mark.parametrize(("profile", "status"), [("tiny,draft", 0), ("quick", 1)])
def test_the_script_runs_alone_on_the_standard_library_for_quartos_profile(tiny, profile, status):
    pandoc = site.load_script(ROOT).find_pandoc(ROOT)
    answer = subprocess.run([sys.executable, "-I", "-S", tiny / "report" / "extract.py"], cwd="/", capture_output=True,
                            text=True, env=os.environ | {"QUARTO_PROFILE": profile, "QUARTO_PANDOC": pandoc})
    assert answer.returncode == status, answer.stderr
    assert "suite 'quick' has no results" in answer.stderr if status else not answer.stderr
    assert (tiny / "_variables.yml").exists() != bool(status)


def test_claims_are_checked_where_the_package_is_and_published_ones_are_shown_elsewhere(tiny):
    write(tiny / "results" / "claims.json", {"a": {"holds": True, "values": {"n": "7"}},
                                             "b": {"holds": None, "values": {}}})
    write(tiny / "report" / "one.qmd", "{{< var claims.a.n >}} {{< var claims.b.n >}}")
    values = json.loads((extracted(tiny).parent / "_variables.yml").read_text())
    assert values["claims"] == {"a": {"n": "7"}, "b": {"n": "—"}}  # the sentence of the second is left out
    program(tiny / ".venv" / "bin" / "python",
            'test "$1" = -m || exit 1; cp results/other.json "$6"; echo $4 > asked')
    write(tiny / "results" / "other.json", evaluated := {id: {"values": {"n": "8"}} for id in "ab"})
    extracted(tiny)  # the package is there now, and nothing else has changed
    assert json.loads((tiny / "report" / "_cells" / "claims.json").read_text()) == evaluated
    assert (tiny / "asked").read_text() == "tiny\n"
    (tiny / "asked").unlink()
    extracted(tiny)  # nothing that they rest on has changed
    assert not (tiny / "asked").exists()
    program(tiny / ".venv" / "bin" / "python", "echo division by zero >&2; exit 1")
    write(tiny / "report" / "one.qmd", "text")
    with pytest.raises(site.load_script(tiny).ReportError, match="cannot be checked: division by zero"):
        extracted(tiny)


# --- references


@pytest.mark.parametrize(("text", "problem"), [
    ("[@nobody2020]", "@nobody2020 is not in report/references.bib"), ("see @fig-b.", "@fig-b is not on this page"),
    ("[a](two.qmd)", "the link to two.qmd leads nowhere"), ("[a](#sec-c)", "the link to #sec-c leads nowhere"),
    ("[a](../index.qmd#sec-b)", r"index.qmd has no {#sec-b}"), ("[a](/nothing.csv)", "the link to /nothing.csv"),
    ("![a](nothing.png)", "the link to nothing.png leads nowhere")])
def test_each_reference_that_leads_nowhere_is_named_with_its_line(tiny, text, problem):
    assert site.check(tiny, "tiny") == []
    with open(tiny / "report" / "one.qmd", "a") as page:
        page.write(f"\n`@code` [B](#b-c) [@key2020], a@b.org, {text}\n\n## B, c\n")
    [found] = site.check(tiny, "tiny")
    assert found.startswith("report/one.qmd:22: ")
    assert problem in found


def test_a_reference_in_a_cell_and_the_navigation_are_checked(tiny):
    write(tiny / "report" / "references.bib", "")
    (tiny / "report" / "one.qmd").rename(tiny / "report" / "two.qmd")
    assert [problem.partition(":")[0] for problem in site.check(tiny, "tiny")] == [
        "_quarto.yml", "_quarto.yml", "index.qmd", "report/two.qmd, cell finding-x"]


def test_everything_that_the_published_pages_refer_to_is_there():
    assert site.check(ROOT) == []


# --- in a browser


@contextmanager
def _served(folder):
    """Address of a local server of a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


CONTRAST = """() => {
  const luminance = (c) => {
    const [r, g, b] = c.map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.5) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  let worst = 21;
  for (const e of document.querySelectorAll("main p, main li, main h2, main td, main summary, main pre span")) {
    if (!e.offsetParent || !e.textContent.trim()) continue;
    const ink = luminance(parse(getComputedStyle(e).color).slice(0, 3));
    const [a, b] = [ink, luminance(ground(e))].sort((x, y) => y - x);
    worst = Math.min(worst, (a + 0.05) / (b + 0.05));
  }
  return worst;
}"""


def _open(context, address, name, wait_until="networkidle"):
    """A page, loaded, and what went wrong while it loaded."""
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("response", lambda response: problems.append(response.url) if response.status >= 400 else None)
    page.on("request", lambda request: problems.append(f"loads {request.url}")
            if not request.url.startswith((address, "data:")) else None)
    page.goto(f"{address}/{name}", wait_until=wait_until)
    return page, problems


def _check_readable(browser, address, name):
    """A page loads cleanly, and is wide enough and has contrast: in the dark on a telephone, in the light on a desk."""
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page, problems = _open(context, address, name, wait_until="load")
    page.evaluate("Promise.all([...document.images].map(image => (image.loading = 'eager', image.decode())))")
    for width, scheme in ((390, "dark"), (1280, "light")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        # Quarto's dark theme comes with its toggle.
        has_toggle = page.evaluate("typeof window.quartoToggleColorScheme === 'function'")
        if has_toggle and (scheme == "dark") != ("quarto-dark" in page.locator("body").get_attribute("class")):
            page.evaluate("window.quartoToggleColorScheme()")
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert overflow <= 0, f"{overflow} pixels wider than {width}"
        assert page.evaluate(CONTRAST) > 4.5, scheme
    assert not problems
    context.close()


# --- rendering


def test_the_preview_numbers_links_and_copies(tiny):
    page = site.render(_suite(tiny), plain=True)
    home, chapter = page.read_text(), (page.parent / "report" / "one.html").read_text()
    assert 'Figure 1: ' in home
    assert '<a href="#fig-a-x">Figure 1</a>' in home
    assert 'src="report/executed/tiny/fig-a-x.png" loading="lazy" alt="A &quot;b&quot; &amp; c"' in home
    assert 'href="report/one.html#sec-b"' in home
    assert "the suite tiny: 6 runs" in chapter
    assert "(Author 2020)" in chapter
    assert 'href="../report/executed/study/a-x.html"' not in chapter  # a sentence alone
    assert (page.parent / "results" / "tiny" / "runs.csv").exists()
    assert (page.parent / "report" / "executed" / "tiny" / "a-x.html").exists()


def _suite(root, name="tiny"):
    return SimpleNamespace(name=name, root=root)


@pytest.fixture
def quarto():
    if site.find_quarto() is None:
        pytest.skip("Quarto 1.7 or later is not installed")


@pytest.mark.usefixtures("quarto")
def test_quarto_renders_the_suite_of_the_profile_in_a_clone(tiny):
    (tiny / "report" / "one.qmd").write_text(HEAD.format("One", "study") + "{{< cell finding-study >}}\n\n"
                                             "Suite {{< var suite.name >}}, [runs]({{< var suite.table >}}).\n")
    (tiny / "index.qmd").write_text(HEAD.format("Home", "study") + "@nobody2020")
    with pytest.raises(site.SiteError, match=r"index\.qmd: .*nobody2020"):
        site.render(_suite(tiny, "study"))
    assert not (tiny / "_site").exists()
    (tiny / "index.qmd").write_text(HEAD.format("Home", "study"))
    write(tiny / "_site" / "report" / "executed" / "former.txt", "")
    text = (site.render(_suite(tiny, "study")).parent / "report" / "one.html").read_text()
    assert "Studied." in text
    assert "Suite <em>study</em>" in text
    assert 'href="../results/study/runs.csv"' in text
    assert (tiny / "_site" / "results" / "study" / "runs.csv").exists()
    assert not list((tiny / "_site").rglob("former.txt"))


def test_quarto_is_asked_for_the_suite_and_what_it_warns_of_is_an_error_that_names_the_page(tmp_path, monkeypatch):
    write(tmp_path / "_site" / "index.html", "former")
    script = ("test $1 = --version && echo 1.7.0 && exit; echo $* > asked; mkdir -p build/site; "
              "echo new > build/site/index.html")
    progress = "printf '\\033[1m[ 1/2] index.qmd\\033[22m\\n[2/2] report/two.qmd\\n'"
    monkeypatch.setenv("QUARTO", program(tmp_path / "quarto", f"{script}; {progress}; echo '[WARNING] citation x'"))
    with pytest.raises(site.SiteError, match=r"report/two\.qmd: \[WARNING\] citation x"):
        site.render(_suite(tmp_path, "quick"))
    program(tmp_path / "quarto", f"{script}; echo report/one.qmd:7: no label fig-b; exit 1")
    with pytest.raises(site.SiteError, match=r"failed:\nreport/one\.qmd:7: no label fig-b"):
        site.render(_suite(tmp_path, "quick"))
    assert (tmp_path / "_site" / "index.html").read_text() == "former"
    program(tmp_path / "quarto", f"{script}; {progress}")
    assert site.render(_suite(tmp_path, "quick")).read_text() == "new\n"
    assert (tmp_path / "asked").read_text() == "render --profile quick --output-dir build/site\n"


def test_one_process_at_a_time_builds_the_site(tmp_path, monkeypatch, at_once, capsys):
    monkeypatch.setenv("QUARTO", program(
        tmp_path / "quarto", "test $1 = --version && echo 1.7.0 && exit; mkdir build/site build/busy || exit 1; "
                             "sleep 0.02; echo whole > build/site/index.html; rmdir build/busy"))
    assert at_once(lambda: site.render(_suite(tmp_path, "quick"))) == []
    assert (tmp_path / "_site" / "index.html").read_text() == "whole\n"
    assert "another process is building the site" in capsys.readouterr().out


def test_an_old_or_broken_quarto_is_not_used(tmp_path, monkeypatch):
    for answer, usable in (("1.6.42", False), ("1.7.0", True), ("", False)):
        monkeypatch.setenv("QUARTO", program(tmp_path / "quarto", f"echo {answer}"))
        assert (site.find_quarto() is not None) == usable
    monkeypatch.setenv("QUARTO", str(tmp_path / "nothing"))
    assert site.find_quarto() is None


def test_a_suite_is_described_by_what_was_drawn_in_its_order(tmp_path):
    suite = SimpleNamespace(name="s", title="t", first="a", second="b", folder=tmp_path / "s", figures=[
        SimpleNamespace(file_name=f"{name}.ipynb") for name in ("z-1", "a-1", "missing-1")])
    for name in ("a-1", "older-1", "z-1"):
        write(tmp_path / "s" / "figures" / f"{name}.ipynb", "")
    site.describe(suite)
    assert json.loads((tmp_path / "s" / "suite.json").read_text()) == {
        "name": "s", "title": "t", "first": "a", "second": "b", "figures": ["z-1", "a-1", "older-1"]}


# --- the published site


def test_the_chapters_make_one_text():
    script = site.load_script(ROOT)
    book = script._script(ROOT, "book")
    texts = {"one": "---\ntitle: One\n---\n\n# A {#sec-a}\n\n"
                    "See [two](two.qmd), [b](two.qmd#sec-b), [x](x.qmd), @eq-b.\n\n"
                    "```python\n# no heading\n```\n\n{{< cell fig-a >}} {{< var n >}}\n",
             "two": '---\ntitle: "Two"\n---\n\n::: {.callout-note collapse="true"}\n$$\nx\n$$ {#eq-b}\n:::\n'}
    assert script.listed("---\nchapters: [one,\n  two]\n---\n", "chapters") == ["one", "two"]
    assert book.book(texts, script.SHORTCODE, "{} {}".format, script.without_code) == (
        "## One {#chapter-one .chapter}\n\n## A {#sec-a}\n\n"
        "See [two](#chapter-two), [b](#sec-b), [x](x.qmd), [Equation 1](#eq-b).\n\n"
        "```python\n# no heading\n```\n\ncell fig-a var n\n\n"
        "## Two {#chapter-two .chapter}\n\n::: {.callout-note}\n[]{#eq-b} $$ x \\qquad(1) $$\n:::\n")


@pytest.fixture(scope="session", params=["preview", pytest.param("Quarto", marks=pytest.mark.slow)])
def built(request, tmp_path_factory):
    """The published site: as the plain preview, and with ``make test-slow`` also as Quarto renders it."""
    if request.param == "Quarto" and site.find_quarto() is None:
        pytest.skip("Quarto 1.7 or later is not installed")
    root = tmp_path_factory.mktemp("published")
    for name in ("index.qmd", "_quarto.yml"):
        shutil.copy(ROOT / name, root)
    for name in ("report", "results", "notebooks", "experiments", "src"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("_cells", "executed", "__pycache__"))
    if request.param == "preview":  # without the package, pages show the published verdicts: test_claims checks them
        program(root / ".venv" / "bin" / "python",
                f'test "$1" != -m || {{ echo No module named sparse_vae >&2; exit 1; }}; exec {sys.executable} "$@"')
    return site.render(_suite(root, "report"), plain=request.param == "preview").parent


class _Links(HTMLParser):
    """Collects a page's ids, links to files of the site, and images."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets, self.images = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "img":
            self.images.append(attributes)
        for name in ("href", "src"):
            target = attributes.get(name) or ""
            if target and not re.match(r"[a-z]+:", target):
                self.targets.append(target)


def test_every_page_is_there_and_every_link_leads_somewhere(built):
    parsed = {path: _Links(path.read_text()) for path in built.rglob("*.html")}
    assert {built / page for page in PAGES} <= set(parsed)
    assert len(parsed) > len(PAGES) + 50  # pages of notebooks
    for path, page in parsed.items():
        for target in page.targets:
            file, _, fragment = target.partition("#")
            file = Path(os.path.normpath(path.parent / file.split("?")[0])) if file else path
            assert file.exists(), f"{path.relative_to(built)} links to {target}"
            if fragment and file in parsed:
                assert fragment in parsed[file].ids, f"{path.relative_to(built)} links to {target}"


def test_every_image_has_alternative_text(built):
    images = [(page, image) for page in PAGES for image in _Links((built / page).read_text()).images]
    assert len(images) >= 50
    assert all(len(image.get("alt") or "") > 20 for _, image in images), [i for i in images if not i[1].get("alt")]


def test_no_page_names_a_path_of_the_machine_or_an_unresolved_reference(built):
    for path in built.rglob("*.html"):
        text = path.read_text()
        assert str(ROOT) not in text
        assert str(built.parent) not in text
        assert "{{<" not in re.sub(r"<(pre|textarea|code|script)[\s\S]*?</\1>", "", text), path.name
        assert "?@" not in text


@pytest.fixture
def address(built):
    """Address of a local server of the site."""
    with _served(built) as address:
        yield address


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("pages", [
    ["index.html", "report/draw.html", "report/gamma-sampler.html"],
    pytest.param(PAGES, marks=pytest.mark.slow)], ids=["some pages", "every page"])
def test_axe_finds_no_barrier(browser, address, pages, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found, page = {}, browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=theme)
    page.add_init_script("localStorage.setItem('quarto-color-scheme', "
                         f"'{'alternate' if theme == 'dark' else 'default'}')")
    for name in pages:
        page.goto(f"{address}/{name}")
        page.wait_for_load_state("networkidle")
        results = axe.run(page)
        if results.violations_count:
            found[name] = results.generate_report()
    page.close()
    assert not found, "\n".join(f"{name}: {report}" for name, report in found.items())


@pytest.mark.parametrize("name", [
    *(page if Path(page).stem in OF_EACH_KIND else pytest.param(page, marks=pytest.mark.slow) for page in PAGES),
    "report/executed/report/latent_grid-first.html", "report/executed/paper/code_size-mnist.html"])
def test_a_page_loads_cleanly_and_is_readable_in_the_dark_on_a_telephone_and_on_a_desk(browser, address, name):
    _check_readable(browser, address, name)


@pytest.mark.usefixtures("quarto")
def test_what_quarto_makes_of_pages_is_readable(browser, built):
    """A few of them; every page is rendered, and read, by ``make test-slow``."""
    pages = ["index.qmd", "report/draw.qmd", "report/sparse.qmd"]
    subprocess.run([site.find_quarto(), "render", *pages, "--profile", "report", "--output-dir", "build/few"],
                   cwd=built.parent, check=True, capture_output=True)
    with _served(built.parent / "build" / "few") as address:
        for page in pages:
            _check_readable(browser, address, page.replace(".qmd", ".html"))


def test_a_reader_moves_latents_on_a_page(browser, address):
    context = browser.new_context()
    page, problems = _open(context, address, "report/explore.html")
    explorers = page.locator(".widget[data-widget=explorer], .explorer[data-ready]").all()
    assert len(explorers) >= 3
    for explorer in explorers:
        explorer.scroll_into_view_if_needed()
        explorer.locator("input[type=range]").first.wait_for()
        picture = "root => root.querySelector('.explorer-view canvas').toDataURL()"
        slider = explorer.locator("input[type=range]").first
        slider.press("Home")
        lowest = explorer.evaluate(picture)
        slider.press("End")
        assert explorer.evaluate(picture) != lowest
    assert not problems
    context.close()


def test_a_reader_draws_at_home(browser, address):
    context = browser.new_context()
    page, problems = _open(context, address, "index.html")
    loaded = []
    page.on("request", lambda request: loaded.append(request.url))
    pad = page.locator(".widget-pad")
    assert page.locator(".widget-first").is_visible()
    assert not page.locator(".widget-card").count(), "no weights before a reader puts something in"
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 150, steps=5)
    page.mouse.up()
    page.locator(".widget-card .widget-summary").nth(2).wait_for()
    assert "squared error" in page.locator(".widget-card").first.inner_text()
    assert len([url for url in loaded if url.endswith(".safetensors")]) == 3
    assert not problems
    context.close()


def test_a_reader_filters_sorts_plots_and_opens_runs(browser, address):
    context = browser.new_context()
    page, problems = _open(context, address, "report/results.html#suite=hybrid&dataset=mnist")
    count, rows = page.locator("all-results [role=status]"), page.locator(".results-table tbody tr")

    def control(label):
        return page.locator(f"all-results label:has(> span:text-is('{label}')) select")

    table = pd.read_csv(ROOT / "results" / "hybrid" / "runs.csv").query("dataset == 'mnist'")
    count.wait_for()
    assert count.inner_text().startswith(f"{len(table)} of ")
    control("model").select_option(label="hybrid")
    table = table.query("model == 'hybrid'")
    assert count.inner_text().startswith(f"{len(table)} of ")
    page.get_by_role("button", name="MSE", exact=True).click()
    best = table.sort_values("mean_squared_error")["run"].iloc[0]
    assert rows.first.locator("th").inner_text() == best
    points = page.locator("all-results > .plot-frame .mark-symbol path")
    points.first.wait_for()
    assert points.count() == len(table)
    control("y").select_option(label="−ELBO (nats)")
    page.get_by_role("button", name=best).click()
    opened = page.locator(".results-run")
    opened.locator(".plot-frame .mark-line path").first.wait_for()
    for text in (best, "sparse-vae train model=hybrid dataset=mnist"):
        assert text in opened.inner_text()
    kept = page.url
    for text in ("run=mnist", "y=negative_elbo"):
        assert text in kept
    page.goto("about:blank")
    page.goto(kept, wait_until="networkidle")
    assert page.locator(".results-run h3").inner_text() == best
    assert control("model").locator("option:checked").inner_text() == "hybrid"
    control("suite").select_option(label="paper")
    page.get_by_text(f" of {len(pd.read_csv(ROOT / 'results' / 'paper' / 'runs.csv'))} runs").wait_for()
    assert not problems
    context.close()


# --- publishing


def _git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A suite in a repository with a remote; its site is what lies in ``source/``."""
    root = tmp_path / "work"
    root.mkdir()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr(site, "render",
                        lambda suite: shutil.copytree(root / "source", root / "_site", dirs_exist_ok=True))
    _git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    _git(root, "init", "--quiet", "--initial-branch", "main")
    _git(root, "config", "user.name", "A Reader")
    _git(root, "remote", "add", "origin", str(tmp_path / "origin.git"))
    write(root / "source" / "index.html", "one")
    return _suite(root)


def test_publishing_makes_the_branch_and_then_adds_to_it(repository, tmp_path, capsys):
    root, origin = repository.root, tmp_path / "origin.git"
    with pytest.raises(site.SiteError, match=r"git has no user\.email, which a commit needs"):
        site.publish(repository)
    _git(root, "config", "user.email", "reader@example.org")
    _git(root, "add", "source")
    _git(root, "commit", "--quiet", "-m", "Start")
    done = "published suite tiny to gh-pages of origin\n"
    same = "gh-pages of origin is up to date\n"
    for text, commits, said in (("one", "1", done), ("one", "1", same), ("two", "2", done)):
        write(root / "source" / "index.html", text)
        site.publish(repository)
        assert _git(origin, "rev-list", "--count", "gh-pages").strip() == commits
        assert capsys.readouterr().out == said
    assert _git(origin, "ls-tree", "-r", "--name-only", "gh-pages").split() == [".nojekyll", "index.html"]
    assert _git(origin, "show", "gh-pages:index.html") == "two"
    message = f"Publish suite tiny from {_git(root, 'rev-parse', '--short', 'HEAD')}"
    assert _git(origin, "log", "-1", "--format=%cn %ce %s", "gh-pages") == f"A Reader reader@example.org {message}"
    assert _git(root, "branch", "--show-current").strip() == "main"
    assert _git(root, "status", "--porcelain", "source") == " M source/index.html\n"  # as this test left it
    with pytest.raises(site.SiteError, match=r"[Nn]o such remote"):
        site.publish(repository, remote="nowhere")


def test_publishing_adds_to_what_others_published(repository, tmp_path):
    root, origin = repository.root, tmp_path / "origin.git"
    _git(root, "config", "user.email", "reader@example.org")
    _git(root, "commit", "--quiet", "--allow-empty", "-m", "Start")
    site.publish(repository)
    _git(root, "push", "--quiet", "origin", "main:refs/heads/gh-pages", "--force")  # from another clone, say
    write(root / "source" / "index.html", "two")
    site.publish(repository)
    assert _git(origin, "log", "--format=%s", "gh-pages").splitlines()[1] == "Start"
    assert _git(origin, "show", "gh-pages:index.html") == "two"
    hook = origin / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho protected; exit 1\n")
    hook.chmod(0o755)
    write(root / "source" / "index.html", "three")
    with pytest.raises(site.SiteError, match=r"git push failed: .*protected"):
        site.publish(repository)
    assert _git(origin, "show", "gh-pages:index.html") == "two"
    hook.unlink()
    site.publish(repository)
    assert _git(origin, "rev-list", "--count", "gh-pages").strip() == "3"


@pytest.mark.heavy
def test_the_example_of_the_page_add_a_model_works():
    text = (ROOT / "report" / "add-a-model.qmd").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    namespace = {"__name__": "noisy_code"}
    exec(compile(code, "noisy_code.py", "exec"), namespace)
    import torch

    from sparse_vae.datasets import load_dataset
    from sparse_vae.training import TrainingSettings, train

    data = load_dataset("digits")
    torch.manual_seed(0)
    model = namespace["NoisyCodeAutoencoder"](
        data.input_shape, latent_dim=8, code_noise=0.3, likelihood=data.likelihood, backbone="mlp")
    assert model.title_of(model.setting_values) == "Noisy code (s = 0.3)"
    history = train(model, data, TrainingSettings(epochs=3, batch_size=32), progress=False)
    assert history[-1]["train_total"] < history[0]["train_total"]
    with pytest.raises(SettingError, match="code_noise"):
        namespace["NoisyCodeAutoencoder"](data.input_shape, code_noise=-1)
