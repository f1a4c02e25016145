"""What keeps the project in order: set-up, pre-commit, workflows, the changelog, and notebooks that open with a click.

The workflows run elsewhere: here their schema is checked, and that they say what the project's own files say.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

import sparse_vae
from sparse_vae.report import site

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


# --- make setup


PYTHON = """\
#!/bin/sh
case "$*" in
    *"-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp "$0" .venv/bin/pip;;
    *"-c from importlib"*) test -n "$IS_THERE" && echo "torch==$IS_THERE";;
    *"-c import sys"*) exit 0;;
    *) echo "$*" >> log;;
esac
"""


def set_up(folder: Path, *arguments: str, torch: str = "") -> list[str]:
    """What ``make setup`` asks of pip, in a project that has this torch already; nothing is installed."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "constraints-torch.txt"):
        shutil.copy2(ROOT / name, folder / name)
    python = folder / "some-python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    quarto = folder / "bin" / "quarto"
    quarto.parent.mkdir()
    quarto.write_text("#!/bin/sh\n")
    quarto.chmod(0o755)
    environment = {"PATH": f"{quarto.parent}:{os.environ['PATH']}", "IS_THERE": torch}
    command = ["make", *arguments, f"PYTHON={python}"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    _, *asked = (folder / "log").read_text().splitlines()  # the first brings pip itself up to date
    return asked


INSTALL = "install --constraint constraints.txt --constraint .venv/torch.txt --editable .[test]"


@pytest.mark.parametrize("target", ["setup", "pip"])
def test_set_up_installs_the_tested_versions(tmp_path, target):
    assert set_up(tmp_path, target) == [INSTALL]
    assert (tmp_path / ".venv" / "torch.txt").read_text() == (ROOT / "constraints-torch.txt").read_text()


def test_torch_alone_comes_from_another_index(tmp_path):
    first, second = set_up(tmp_path, "setup", "TORCH_INDEX=https://example.org/cpu")
    assert re.fullmatch(r"install --index-url https://example\.org/cpu torch==[\d.]+ torchvision==[\d.]+", first)
    assert second == INSTALL


@pytest.mark.parametrize("index", [[], ["TORCH_INDEX=https://example.org/cpu"]])
def test_a_torch_that_is_there_stays(tmp_path, index):
    assert set_up(tmp_path, "setup", *index, torch="2.6.0+cpu") == [INSTALL]
    assert (tmp_path / ".venv" / "torch.txt").read_text() == "torch==2.6.0+cpu\n"


def test_every_dependency_has_a_version_that_was_tested():
    """Each is pinned once; torch and what comes with it apart, so that another torch can take its place."""
    pinned = {}
    for name in ("constraints.txt", "constraints-torch.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if not line.startswith("#"):
                package, _ = line.split("==")
                assert package not in pinned
                pinned[re.sub(r"[-_.]+", "-", package).lower()] = name
    extras = [need for needs in PROJECT["optional-dependencies"].values() for need in needs]
    for need in [*PROJECT["dependencies"], *extras]:
        package = re.match(r"[\w-]+", need)[0].replace("_", "-").lower()
        if package != "sparse-vae":
            expected = "constraints-torch.txt" if package.startswith("torch") else "constraints.txt"
            assert pinned[package] == expected, package


# --- one click


@pytest.mark.parametrize("path", ["environment.yml", "binder/environment.yml"])
def test_conda_brings_torch_and_pip_leaves_it(path):
    environment = read(ROOT / path)
    names = [need for need in environment["dependencies"] if isinstance(need, str)]
    oldest = next(need for need in PROJECT["dependencies"] if need.startswith("torch")).removeprefix("torch")
    assert {f"pytorch{oldest}", f"pytorch-cpu{oldest}"} & set(names)
    script = ROOT / "binder" / "postBuild"
    asked = script.read_text() if path.startswith("binder") else (ROOT / path).read_text()
    assert "--constraint constraints.txt" in asked
    assert "constraints-torch.txt" not in asked
    assert os.access(script, os.X_OK)


def test_the_dev_container_calls_what_there_is():
    content = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    targets = set(re.findall(r"^([a-z_]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [content["postCreateCommand"], *(port["label"] for port in content["portsAttributes"].values())]
    assert {target for text in texts for target in re.findall(r"make (\w+)", text)} <= targets
    assert all((ROOT / name).is_file() for name in content["customizations"]["codespaces"]["openFiles"])


# --- workflows


@pytest.mark.parametrize(("schema", "paths"), [
    ("github-issue-forms", FORMS), ("github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"])])
def test_what_github_reads_keeps_its_schema(schema, paths):
    answer = subprocess.run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *paths],
                            capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


def test_workflows_call_targets_that_there_are():
    targets = set(re.findall(r"^([a-z_]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = [target for path in WORKFLOWS for job in read(path)["jobs"].values() for step in job["steps"]
              for target in re.findall(r"^make ([a-z_]+)", step.get("run", ""), re.MULTILINE)]
    assert {"setup", "test", "lint", "update_web"} <= set(called) <= targets


def test_the_oldest_versions_that_are_allowed_are_tested():
    matrix = {entry["versions"]: entry for entry in read(GITHUB / "workflows" / "tests.yml")
              ["jobs"]["test"]["strategy"]["matrix"]["include"]}
    assert PROJECT["requires-python"] == f">={matrix['oldest']['python']}"
    needs = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    for package, version in re.findall(r"(\w+)==([\d.]+)\.\*", matrix["oldest"]["torch"]):
        assert f"{package}>={version}" in [need.partition("  ")[0] for need in needs]


def test_one_quarto_everywhere():
    text = "".join(path.read_text() for path in [*WORKFLOWS, ROOT / ".devcontainer" / "devcontainer.json"])
    versions = set(re.findall(r"version\"?: \"?(\d+\.\d+\.\d+)", text))
    assert len(versions) == 1
    assert tuple(map(int, versions.pop().split(".")))[:2] >= site.MINIMUM


# --- pre-commit


@pytest.fixture
def commit(tmp_path):
    """A repository with the project's hooks; returns a function that runs them all on its files."""
    root = tmp_path / "project"
    root.mkdir()
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        shutil.copy2(ROOT / name, root / name)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                                "PRE_COMMIT_HOME": str(tmp_path / "cache")}
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)

    def run(**more: str) -> tuple[int, str]:
        subprocess.run(["git", "add", "--all"], cwd=root, check=True)
        answer = subprocess.run(["pre-commit", "run", "--all-files"], cwd=root, env=environment | more,
                                capture_output=True, text=True, check=False)
        return answer.returncode, answer.stdout

    run.root = root
    return run


def notebook_with_an_output() -> str:
    output = nbformat.v4.new_output("stream", text="1\n")
    cell = nbformat.v4.new_code_cell("print(1)", outputs=[output], execution_count=1)
    return nbformat.writes(nbformat.v4.new_notebook(cells=[cell])) + "\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


FAULTS = [  # hook, what it says of a file, the file
    ("ruff", "F401", "src/unused.py", "import os\n"),
    ("mypy", "src/sizes.py:1: error: Incompatible types", "src/sizes.py", "size: int = '1'\n"),
    ("nbstripout", "files were modified by this hook", "notebooks/one.ipynb", notebook_with_an_output()),
    ("check-yaml", "experiments/mine.yml", "experiments/mine.yml", "a: [\n"),
    ("github-workflows", ".github/workflows/mine.yml", ".github/workflows/mine.yml", "jobs: {}\n"),
    ("end-of-file", "Fixing report/end.qmd", "report/end.qmd", "text"),
    ("trailing-whitespace", "Fixing report/blank.qmd", "report/blank.qmd", "text \n"),
    ("large-files", "report/large.txt", "report/large.txt", "text\n" * 300_000),
]


def test_each_hook_catches_what_it_is_for(commit):
    for _, _, path, text in FAULTS:
        write(commit.root / path, text)
    status, printed = commit()
    assert status == 1
    said = dict(re.findall(r"- hook id: ([\w-]+)\n(.*?)(?=\n\S[^\n]*\.{3,}|\Z)", printed, re.DOTALL))
    assert list(said) == [hook for hook, *_ in FAULTS], printed
    for hook, words, path, _ in FAULTS:
        assert words in said[hook]
        others = [other for _, _, other, _ in FAULTS if other != path]
        assert not [other for other in others if other in said[hook]], hook
    cell, = nbformat.read(commit.root / "notebooks" / "one.ipynb", as_version=4).cells
    assert (cell.outputs, cell.execution_count) == ([], None)


def test_the_project_passes_its_own_hooks_and_results_stay_as_they_were_written(commit):
    for name in tracked():
        if not name.startswith("results/"):
            (commit.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, commit.root / name)
    text = notebook_with_an_output().rstrip()
    result = write(commit.root / "results" / "mine" / "figures" / "one.ipynb", text)
    status, printed = commit(SKIP="mypy")  # which reads all that the package imports, and is half of `make lint`
    assert status == 0, printed
    assert result.read_text() == text


# --- changelog


def test_the_changelog_ends_with_the_present_version_or_what_follows_it():
    text = (ROOT / "CHANGELOG.md").read_text()
    unreleased, *versions = re.findall(r"^## \[(.*?)\]", text, re.MULTILINE)
    assert unreleased == "Unreleased"
    assert versions[0] == sparse_vae.__version__
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == sparse_vae.__version__
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_links_of_the_pages_for_contributors_lead_somewhere():
    for path in [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", GITHUB / "pull_request_template.md"]:
        text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        headings = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
                    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
        for target, fragment in re.findall(r"\]\(([^()\s#:]*)(?:#([\w-]+))?\)", text):
            assert target or fragment in headings, fragment
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize(("address", "place"), [
    ("https://github.com/somebody/some-name", "gh/somebody/some-name"),
    ("https://github.com/somebody/some.name.git", "gh/somebody/some.name"),
    ("https://somebody:secret@github.com/somebody/some-name.git", "gh/somebody/some-name"),  # without what is secret
    ("git@github.com:somebody/some-name.git", "gh/somebody/some-name"),
    ("ssh://git@github.com:22/somebody/some-name", "gh/somebody/some-name"),
    ("https://gitlab.com/a/group/some-name/", "gl/a%2Fgroup%2Fsome-name"),
    ("https://example.org/github.com/some-name", None), ("../origin.git", None), ("", None),
])
def test_notebooks_open_in_binder_where_the_repository_is_public(tmp_path, address, place):
    script = site.load_script(ROOT)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    if address:
        subprocess.run(["git", "remote", "add", "origin", address], cwd=tmp_path, check=True)
    path = tmp_path / "results" / "quick" / "figures" / "latent_grid-first.ipynb"
    notebook = script.Notebook("quick", path, [], {}, {})
    expected = f"https://mybinder.org/v2/{place}/HEAD?urlpath=lab/tree/notebooks/latent_grid.ipynb"
    assert re.findall(r"\[run in Binder\]\((.*?)\)", notebook.links) == ([expected] if place else [])
