"""CONTRIBUTING.md works: its files are written, its changes made and its commands run, in a copy of the project."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
BY_HAND = ["make setup", "make update_web"]
"""How the blocks begin that nobody runs here: they install, or build all pages."""
LINES = 80
"""So many lines of text and code are a screen, or little more."""


class Block(NamedTuple):
    """A block of code of a section; ``path`` is the file that the line before it names, if there is one."""

    language: str
    path: str
    code: str
    by_hand: bool


BLOCK = re.compile(r"(?P<before>[^\n]*)\n(?:\n|(?P<mark><!-- by hand: [^\n]*-->\n))?"
                   r"```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


def sections() -> dict[str, list[Block]]:
    """The blocks of each section, by its heading."""
    _, *parts = re.split(r"^## (.*)\n", PAGE.read_text(), flags=re.MULTILINE)
    return {heading: [_block(match) for match in BLOCK.finditer(text)]
            for heading, text in zip(parts[::2], parts[1::2], strict=True)}


def _block(match: re.Match) -> Block:
    path = re.search(r"`([\w./-]+)`[^`]*:$", match["before"])
    return Block(match["language"], path[1] if path else "", match["code"], bool(match["mark"]))


SECTIONS = sections()


def test_only_what_installs_or_builds_all_pages_is_left_to_hands():
    assert [block.code.split("  ")[0].strip() for blocks in SECTIONS.values() for block in blocks
            if block.by_hand] == BY_HAND


def test_each_section_is_a_screen():
    for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE):
        assert part.count("\n") <= LINES, part.partition("\n")[0]


# --- a copy to follow the page in


@pytest.fixture
def copy(tmp_path) -> Path:
    """The project's files as they are, without what is ignored; ``make`` there takes this environment as installed."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            check=True, capture_output=True, text=True).stdout
    root = tmp_path / "project"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # not one that is being deleted
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", str(root)], check=True)
    (root / ".venv").symlink_to(sys.prefix)
    programs = tmp_path / "bin"
    programs.mkdir()
    _program(programs / "make", f'exec {shutil.which("make")} --old-file=.venv/installed "$@"')
    _program(programs / "sparse-vae", f'exec {sys.executable} -m sparse_vae "$@"')
    _program(programs / "pytest", f'exec {sys.executable} -m pytest -q -p no:cacheprovider "$@"')
    _program(programs / "python", f'exec {sys.executable} "$@"')
    return root


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def run(root: Path, *command: str) -> str:
    """Run a command in the copy, with the copy's package; returns what it printed."""
    ours = ("PYTEST_", "MAKE", "COV_")  # of the process that runs this test
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"PATH": f"{root.parent / 'bin'}:{environment['PATH']}", "PYTHONPATH": str(root / "src"),
                    "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, f"{' '.join(command)}\n{answer.stdout}\n{answer.stderr}"
    return answer.stdout


def follow(root: Path, section: str) -> str:
    """Do what a section says; returns what its commands printed."""
    printed = []
    for block in SECTIONS[section]:
        file = root / block.path
        if block.by_hand:
            continue
        if block.language == "bash":
            # make uses its own PATH, with .venv/bin in front: there the commands of the copy have to be as well
            code = re.sub(r"^make (.*)$", 'make \\1 PATH="$PATH"', block.code, flags=re.MULTILINE)
            printed.append(run(root, "bash", "-e", "-u", "-o", "pipefail", "-c", code))
        elif block.language == "diff":
            file.write_text(changed(file.read_text(), block.code))
        elif block.path:
            file.write_text((file.read_text() if file.exists() else "") + block.code)
        else:
            assert block.language == "python"
            printed.append(run(root, "python", "-c", block.code))
    return "\n".join(printed)


def changed(text: str, difference: str) -> str:
    """The text with a change as CONTRIBUTING writes it: each piece of what was there is there once."""
    for piece in difference.split("@@\n"):
        lines = piece.splitlines(keepends=True)
        before, after = ("".join(line[1:] for line in lines if line[0] in (" ", sign)) for sign in "-+")
        places = [match.start() for match in re.finditer(rf"^(?={re.escape(before)})", text, re.MULTILINE)]
        assert len(places) == 1, f"not there once, as whole lines: {before}"
        text = text[:places[0]] + after + text[places[0] + len(before):]
    return text


def rows(root: Path) -> dict[str, dict[str, str]]:
    """The published runs of the suite that CONTRIBUTING writes, by name."""
    with open(root / "results" / "mine" / "runs.csv", newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_a_change_that_does_not_fit_is_an_error():
    assert changed("a\nb\n", " a\n+c\n@@\n-b\n") == "a\nc\n"
    assert changed("aa\na\nb\n", " a\n+c\n") == "aa\na\nc\nb\n"
    for text in ("b\n", "aa\n", "a\na\n"):
        with pytest.raises(AssertionError, match="not there once"):
            changed(text, " a\n+c\n")


# --- what it says, done


@pytest.mark.slow
def test_add_a_model(copy):
    printed = follow(copy, "Add a model")
    assert "denoising" in printed
    assert "input_noise=0.3" in printed
    config, = (copy / "runs" / "local" / "digits").glob("denoising-*/seed0/config.json")
    assert '"input_noise": 0.5' in config.read_text()
    assert int(re.search(r"(\d+) passed", printed)[1]) >= 10  # one for each shape of data and likelihood, and others


@pytest.mark.slow
def test_add_a_data_set(copy):
    printed = follow(copy, "Add a data set")
    assert "Thirty measurements of the cell nuclei" in printed
    assert list((copy / "runs" / "local" / "breast-cancer").glob("vae-*/seed0/model.safetensors"))
    assert "1 passed" in printed


@pytest.mark.slow
def test_add_a_measure(copy):
    printed = follow(copy, "Add a measure")
    assert printed.count("1 passed") == 2
    assert re.search(r"^ +participation +in use$", printed, re.MULTILINE)


@pytest.mark.slow
def test_add_a_figure_and_a_chapter_and_change_a_number(copy):
    follow(copy, "Add a figure")
    before, figure = rows(copy), copy / "results" / "mine" / "figures" / "unequal-digits.ipynb"
    drawn = figure.read_text()
    assert {name: row["epochs"] for name, row in before.items()} == {
        "digits/autoencoder/seed0": "1", "digits/vae/seed0": "1"}
    assert "image/png" in drawn

    follow(copy, "Add a chapter")
    assert "Dimensions in use: 8 of 8" in (copy / "results" / "claims.json").read_text()

    printed = follow(copy, "Change a published number")
    trained = re.findall(r"^digits/(\w+)/seed0 +done", printed, re.MULTILINE)
    assert sorted(trained) == ["autoencoder", "vae", "vae"]  # both with the new setting, then the one taken away
    after = rows(copy)
    assert after.keys() == before.keys()
    assert {row["epochs"] for row in after.values()} == {"2"}
    assert all(after[name]["mean_squared_error"] != row["mean_squared_error"] for name, row in before.items())
    assert figure.read_text() != drawn


def test_release_a_version(copy, tmp_path):
    def git(*arguments: str, folder: Path = copy) -> str:
        return run(folder, "git", *arguments).strip()

    git("init", "--quiet", "--bare", "--initial-branch", "main", str(tmp_path / "origin.git"))
    git("config", "user.name", "A Reader")
    git("config", "user.email", "reader@example.org")
    git("remote", "add", "origin", str(tmp_path / "origin.git"))
    git("add", "CHANGELOG.md", "CITATION.cff", "src")
    git("commit", "--quiet", "--message", "Start")
    follow(copy, "Release a version")
    assert git("rev-parse", "main", folder=tmp_path / "origin.git") == git("rev-parse", "v1.0.0^{commit}")
    assert set(git("show", "--name-only", "--format=", "HEAD").split()) == {
        "CHANGELOG.md", "CITATION.cff", "src/sparse_vae/__init__.py"}
    assert run(copy, "python", "-c", "import sparse_vae; print(sparse_vae.__version__)") == "1.0.0\n"
    assert "\nversion: 1.0.0\ndate-released: 20" in (copy / "CITATION.cff").read_text()
    assert re.search(r"\n## \[Unreleased\]\n\n## \[1\.0\.0\] - 20\d\d-\d\d-\d\d\n", (copy / "CHANGELOG.md").read_text())
