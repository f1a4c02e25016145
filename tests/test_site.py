"""The site: built from the quick suite at its smallest, and opened in a headless browser."""

import dataclasses
import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import yaml

from sparse_vae.report import preview, quarto, site
from sparse_vae.checks import SettingError
from sparse_vae.report.suites import draw_suite, load_suite, train_suite

ROOT = Path(__file__).parents[1]
PAGES = [chapter["href"].replace(".qmd", ".html")
         for chapter in yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]["sidebar"]["contents"]]


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A copy of the project in which the quick suite, one epoch of each run, is trained and drawn."""
    root = tmp_path_factory.mktemp("project")
    for part in ("experiments", "notebooks", "report", "_quarto.yml"):
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, root / part)
    for study in ("paper", "hybrid", "exercises", "report"):  # what the chapters on studies show
        shutil.copytree(ROOT / "results" / study, root / "results" / study,
                        ignore=shutil.ignore_patterns("*.safetensors"))
    content = yaml.safe_load((root / "experiments" / "quick.yml").read_text())
    for run in content["runs"]:
        run |= {"epochs": 1, "seed": 0}
        if run["dataset"] == "smiley":
            run |= {"dataset.n_train": 200, "dataset.n_test": 100}
    (root / "experiments" / "tiny.yml").write_text(yaml.safe_dump(content))
    suite = load_suite("tiny", root)
    for outcomes in (train_suite(suite), draw_suite(suite)):
        assert {outcome.status for outcome in outcomes} == {"done"}, outcomes
    return suite


@pytest.fixture(scope="session", params=["quarto", "plain"])
def built(request, project):
    """The folder of the built site: Quarto's where it is installed, and the plain preview."""
    if request.param == "quarto" and quarto.find_quarto() is None:
        pytest.skip("Quarto 1.7 or later is not installed: only the plain preview is tested")
    page = site.render(project, plain=request.param == "plain")
    kept = page.parent.with_name(f"_site-{request.param}")
    shutil.copytree(page.parent, kept)
    return kept


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
    parsed = {path.name: _Links(path.read_text()) for path in built.glob("*.html")}
    assert set(PAGES) <= set(parsed)
    for name, page in parsed.items():
        for target in page.targets:
            path, _, fragment = target.partition("#")
            path = path.split("?")[0] or name
            assert (built / path).exists(), f"{name} links to {target}"
            # Quarto's pages of notebooks do not have every anchor that Quarto links to.
            if fragment and path in parsed and not path.endswith("-preview.html"):
                assert fragment in parsed[path].ids, f"{name} links to {target}"


def test_every_image_has_alternative_text(built):
    images = [(page, image) for page in PAGES for image in _Links((built / page).read_text()).images]
    assert len(images) >= 12
    assert all(len(image.get("alt") or "") > 20 for _, image in images), [i for i in images if not i[1].get("alt")]


def test_no_page_names_a_path_of_the_machine_or_an_unresolved_reference(built):
    for path in built.glob("*.html"):
        text = path.read_text()
        assert str(ROOT) not in text
        assert "{{<" not in re.sub(r"<(pre|textarea|code)[\s\S]*?</\1>", "", text), path.name
        assert "?@" not in text
        assert "tmp/pytest" not in text


@pytest.fixture
def address(built):
    """Address of a local server of the site."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=built))
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
  for (const e of document.querySelectorAll("main p, main li, main h2, main td")) {
    if (!e.offsetParent || !e.textContent.trim()) continue;
    const ink = luminance(parse(getComputedStyle(e).color).slice(0, 3));
    const [a, b] = [ink, luminance(ground(e))].sort((x, y) => y - x);
    worst = Math.min(worst, (a + 0.05) / (b + 0.05));
  }
  return worst;
}"""


def _open(context, address, name):
    """A page, loaded, and what went wrong while it loaded."""
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("response", lambda response: problems.append(response.url) if response.status >= 400 else None)
    page.on("request", lambda request: problems.append(f"loads {request.url}")
            if not request.url.startswith((address, "data:")) else None)
    page.goto(f"{address}/{name}", wait_until="networkidle")
    return page, problems


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_pages_load_cleanly_and_are_readable(browser, address, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    for name in PAGES:
        page, problems = _open(context, address, name)
        assert not problems, f"{name}: {problems}"
        # Quarto's dark theme comes with its toggle.
        has_toggle = page.evaluate("typeof window.quartoToggleColorScheme === 'function'")
        if scheme == "dark" and has_toggle and "quarto-dark" not in page.locator("body").get_attribute("class"):
            page.evaluate("window.quartoToggleColorScheme()")
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert overflow <= 0, f"{name} is {overflow} pixels wider than {width}"
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)"), name
        assert page.evaluate(CONTRAST) > 4.5, f"{name} at {scheme}"
        page.close()
    context.close()


def test_a_reader_moves_latents_on_a_page(browser, address):
    context = browser.new_context()
    page, problems = _open(context, address, "explore.html")
    explorers = page.locator(".explorer[data-ready]").all()
    assert len(explorers) == page.locator(".explorer").count() >= 3
    for explorer in explorers:
        picture = "root => root.querySelector('.explorer-view canvas').toDataURL()"
        before = explorer.evaluate(picture)
        slider = explorer.locator("input[type=range]").first
        slider.press("Home")
        slider.press("End")
        assert explorer.evaluate(picture) != before
    assert not problems
    context.close()


def test_results_that_are_missing_are_named(project, tmp_path):
    shutil.copytree(project.root, tmp_path / "project", ignore=shutil.ignore_patterns("_site*", "build"))
    suite = load_suite("tiny", tmp_path / "project")
    study = tmp_path / "project" / "results" / "paper" / "figures" / "code_size-mnist.ipynb"
    study.rename(study.with_name("elsewhere.ipynb"))
    with pytest.raises(SettingError, match=r"a chapter shows code_size-mnist\.ipynb, which no suite has drawn"):
        site.render(suite)
    study.with_name("elsewhere.ipynb").rename(study)
    (suite.folder / "figures" / "activations-first.ipynb").unlink()
    with pytest.raises(SettingError, match=r"activations-first\.ipynb; make graphics SUITE=tiny"):
        site.render(suite)
    (suite.folder / suite.runs[0].name / "metrics.json").unlink()
    with pytest.raises(SettingError, match=f"first is {suite.runs[0].name}; make train graphics SUITE=tiny"):
        site.render(suite)


def test_old_results_are_said_of_the_suite_and_of_the_studies_in_its_chapters(project, monkeypatch, capsys):
    monkeypatch.setattr(site, "_older_than", lambda suite, results: suite.name if suite.name != "paper" else "")
    site.stage(project)
    assert capsys.readouterr().err == "warning: tiny\nwarning: exercises\nwarning: hybrid\n"


# --- on a small scale


@pytest.fixture
def small(tmp_path):
    """A suite of two models and two seeds of each, with results as they are published: without weights."""
    (tmp_path / "experiments").mkdir()
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    (tmp_path / "experiments" / "small.yml").write_text(
        "runs:\n  - {model: vae, dataset: digits, epochs: [1, 2], variant: 'e{epochs}', seed: [0, 1]}\n"
        "figures: [{notebook: datasets, name: all}]")
    suite = load_suite("small", tmp_path)
    for run in suite.runs:
        folder = suite.folder / run.name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(dataclasses.asdict(run.config)))
        (folder / "metrics.json").write_text(json.dumps({
            "negative_elbo": 10.0 * run.config.training.epochs + run.config.training.seed, "mean_squared_error": 1.0,
            "explained_variance": 1.0, "active_fraction": 1.0, "used_dimensions": 1, "training_seconds": 60,
            "likelihood": "bernoulli"}))
    return suite


def test_the_table_averages_runs_that_differ_in_their_seed_alone(small):
    rows = [[cell.strip() for cell in line.split("|")[4:7]] for line in site.results_table(small).splitlines()[2:]]
    assert rows == [["bernoulli", "2", "10.50"], ["bernoulli", "2", "20.50"]]


def test_results_older_than_the_suite_are_counted(small, monkeypatch):
    def older():
        return site._older_than(small, site._finished_runs(small))

    assert older() == "1 figure is older than the suite: make graphics SUITE=small"
    monkeypatch.setattr(site, "is_drawn", lambda figure, suite: True)
    assert older() == ""
    path = small.folder / small.runs[0].name / "config.json"
    path.write_text(path.read_text().replace('"batch_size": 128', '"batch_size": 64'))
    assert older() == "1 run is older than the suite: make train graphics SUITE=small"


def test_what_readers_download_has_its_html_again(tmp_path):
    html = nbformat.v4.new_output("display_data", {"text/html": "<p>\n</p>", "text/plain": "p"})
    cells = [nbformat.v4.new_markdown_cell("# Title\n\ntext"),
             nbformat.v4.new_code_cell("", outputs=[html], execution_count=1, metadata={})]
    (tmp_path / "staged").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "some-figure.ipynb")
    site._copy_notebook(tmp_path / "some-figure.ipynb", tmp_path / "staged")
    copy = tmp_path / "staged" / "some-figure.ipynb"
    assert site._outputs(site.read_notebook(copy)) == [
        {"text/plain": "p", "text/markdown": "```{=html}\n<p>\n</p>\n```"}]
    site._restore_html(copy)
    assert site._outputs(site.read_notebook(copy)) == [dict(html.data)]


@pytest.fixture
def staged(tmp_path):
    """A folder with one page to come, ``page.qmd``, and a figure notebook."""
    shutil.copytree(ROOT / "report" / "preview", tmp_path / "preview")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "references.bib").touch()
    (tmp_path / "runs.csv").touch()
    (tmp_path / "_quarto.yml").write_text("website: {title: t, sidebar: {contents: [{href: page.qmd, text: p}]}}")
    (tmp_path / "_variables.yml").write_text("suite: {name: tiny}")
    cells = [nbformat.v4.new_code_cell("#| label: fig-a", metadata={}), nbformat.v4.new_markdown_cell("text")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "some-figure.ipynb")
    (tmp_path / "broken-figure.ipynb").write_text("[]")
    return tmp_path


@pytest.mark.parametrize(("shortcode", "message"), [
    ("var suite.nope", "'nope'"), ("var suite.name.x", "indices must be integers"),
    ("include _nothing.qmd", "No such file"), ("embed some-figure.ipynb#fig-b", "no cell has the label 'fig-b'"),
    ("embed some-figure.ipynb", "no cell has the label ''"), ("embed some-figure.ipynb#fig-a", "'text/markdown'"),
    ("embed nothing.ipynb#fig-a", "No such file"),
    ("embed broken-figure.ipynb#fig-a", r"broken-figure\.ipynb is damaged or not a notebook")])
def test_the_plain_preview_names_what_leads_nowhere_and_the_page(staged, shortcode, message):
    (staged / "page.qmd").write_text(f"Before\n\n{{{{< {shortcode} >}}}}\n")
    with pytest.raises(site.SiteError, match=rf"page\.qmd: {{{{< {shortcode} >}}}} leads nowhere: .*{message}"):
        preview.render(staged)


def test_a_copied_notebook_has_its_name_in_a_title_of_text_alone(staged):
    (staged / "copies").mkdir()
    site._copy_notebook(staged / "some-figure.ipynb", staged / "copies")
    cells = nbformat.read(staged / "copies" / "some-figure.ipynb", as_version=4).cells
    assert [cell.source for cell in cells] == ["#| label: fig-a", "text"]
    with pytest.raises(site.SiteError, match=r"broken-figure\.ipynb is damaged or not a notebook.*draw it again"):
        site._copy_notebook(staged / "broken-figure.ipynb", staged / "copies")


def test_a_figure_whose_name_is_part_of_anothers_is_shown_too(staged):
    (staged / "page.qmd").write_text("{{< embed awesome-figure.ipynb#fig-a >}}")
    site._add_extra_chapters(staged, [staged / "some-figure.ipynb"])
    assert "{{< embed some-figure.ipynb#fig-a echo=true >}}" in (staged / "_more.qmd").read_text()
    (staged / "page.qmd").write_text("{{< embed some-figure.ipynb#fig-a >}}")
    site._add_extra_chapters(staged, [staged / "some-figure.ipynb"])
    assert "embed" not in (staged / "_more.qmd").read_text()


def test_an_author_without_a_name_does_not_publish(small, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr(site, "render", None)
    _git(small.root, "init", "--quiet")
    _git(small.root, "remote", "add", "origin", str(small.root))
    _git(small.root, "config", "user.name", "A Reader")
    with pytest.raises(site.SiteError, match=r"git has no user\.email, which a commit needs"):
        site.publish(small)


def write_program(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_what_quarto_only_warns_of_is_an_error_that_names_the_page(tmp_path):
    for page in ("one", "two"):
        (tmp_path / f"{page}.qmd").touch()
    program = write_program(tmp_path / "quarto", "printf '  output-file: one.html\\n  output-file: two.html\\n'\n"
                            "printf '\\033[39m[WARNING] Citeproc: citation x not found\\n'")
    with pytest.raises(site.SiteError, match=r"two\.qmd: \[WARNING\] Citeproc: citation x"):
        quarto.render(program, tmp_path, processes=1)


def test_pages_are_shared_among_processes_of_quarto(tmp_path):
    staged = tmp_path / "staged"
    staged.mkdir()
    for page, text in {"index": "", "_part": "", "one": "", "large": "{{< embed a-b.ipynb#fig-a >}}"}.items():
        (staged / f"{page}.qmd").write_text(text)
    (staged / "a-b.ipynb").write_text(" " * 5_000_000)
    # Like Quarto: each page, a file that all have, a home page in any case, and an entry of the search for each page.
    program = write_program(tmp_path / "quarto", """
        shift; mkdir -p _site/libs; echo redirect > _site/index.html; echo common > _site/libs/style.css
        while [ "$1" != --no-execute ]; do
            echo "  output-file: ${1%.qmd}.html"; echo "page $*" > _site/${1%.qmd}.html
            entries="$entries${entries:+, }\\"$1\\""; shift
        done
        echo "[$entries]" > _site/search.json""")
    quarto.render(program, staged, processes=2)
    found = {str(path.relative_to(staged / "_site")): path.read_text() for path in (staged / "_site").rglob("*.*")}
    assert set(found) == {"index.html", "one.html", "large.html", "libs/style.css", "search.json"}
    assert found["large.html"] == "page large.qmd --no-execute\n"  # as much work as the other two together
    assert found["index.html"].startswith("page index.qmd")
    assert sorted(json.loads(found["search.json"])) == ["index.qmd", "large.qmd", "one.qmd"]
    assert {path.name for path in tmp_path.iterdir()} == {"staged", "quarto"}
    failing = write_program(tmp_path / "quarto", 'echo "  output-file: ${2%.qmd}.html"; echo no good; exit 1')
    with pytest.raises(site.SiteError, match=r"index\.qmd:(?s:.*)no good\n(?s:.*)large\.qmd:(?s:.*)no good"):
        quarto.render(failing, staged, processes=2)


def test_an_old_or_broken_quarto_is_not_used(tmp_path, monkeypatch):
    for answer, usable in (("1.6.42", False), ("1.7.0", True), ("", False)):
        monkeypatch.setenv("QUARTO", write_program(tmp_path / "quarto", f"echo {answer}"))
        assert (quarto.find_quarto() is not None) == usable
    monkeypatch.setenv("QUARTO", str(tmp_path / "nothing"))
    assert quarto.find_quarto() is None


def _git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_publishing_makes_the_branch_and_then_adds_to_it(project, tmp_path, monkeypatch):
    monkeypatch.setattr(quarto, "find_quarto", lambda: None)
    _git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    root = project.root
    _git(root, "init", "--quiet", "--initial-branch", "main")
    for key, value in (("user.name", "A Reader"), ("user.email", "reader@example.org")):
        _git(root, "config", key, value)
    _git(root, "add", "experiments")
    _git(root, "commit", "--quiet", "-m", "Start")
    _git(root, "remote", "add", "origin", str(tmp_path / "origin.git"))
    site.publish(project)
    files = _git(tmp_path / "origin.git", "ls-tree", "-r", "--name-only", "gh-pages").split("\n")
    assert {"index.html", ".nojekyll"} <= set(files)
    site.publish(project)  # nothing new
    assert _git(tmp_path / "origin.git", "rev-list", "--count", "gh-pages").strip() == "1"
    (root / "report" / "index.qmd").write_text((root / "report" / "index.qmd").read_text() + "\nOne more line.\n")
    site.publish(project)
    assert _git(tmp_path / "origin.git", "rev-list", "--count", "gh-pages").strip() == "2"
    assert _git(root, "branch", "--show-current").strip() == "main"
    with pytest.raises(site.SiteError, match=r"[Nn]o such remote"):
        site.publish(project, remote="nowhere")


def test_the_published_results_are_whole_and_the_readme_states_them(tmp_path):
    suite = load_suite("report", ROOT)
    for folder in ("report", "results/report", "results/paper", "results/hybrid", "results/exercises",
                   "experiments", "notebooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.safetensors", ".*"))
    shutil.copy(ROOT / "_quarto.yml", tmp_path)
    site.render(dataclasses.replace(suite, root=tmp_path), plain=True)
    assert set(PAGES) <= {path.name for path in (tmp_path / "_site").iterdir()}
    assert site.results_table(suite) in (ROOT / "README.md").read_text()
    tracked = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True).stdout
    assert not re.search(r"safetensors|results/(quick|local)/", tracked)


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
    history = train(model, data, TrainingSettings(epochs=3, batch_size=32), progress=False)
    assert history[-1]["test_total"] < history[0]["test_total"]
    with pytest.raises(SettingError, match="code_noise"):
        namespace["NoisyCodeAutoencoder"](data.input_shape, code_noise=-1)
