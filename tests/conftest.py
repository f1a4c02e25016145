"""Fixtures that several test files share."""

from __future__ import annotations

import os
import resource
import shutil
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from sparse_vae.datasets import download
from sparse_vae.datasets.download import MIRROR_VARIABLE

HEAVY_FIXTURES = {"browser", "built", "commit", "copied", "copy", "quarto", "run_cells"}
HEAVY_FILES = {"test_defaults", "test_execution", "test_figures", "test_hybrid", "test_kernels", "test_package",
               "test_plots", "test_properties"}
LONGEST = ["test_site", "test_notebooks", "test_execution", "test_defaults", "test_widgets", "test_habits",
           "test_kernels", "test_package"]
NEIGHBOUR_MIRROR = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than there are cores where some wait: for Quarto, a browser, a cluster."""
    return (os.cpu_count() or 1) + ("not heavy" not in config.option.markexpr)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test-fast` leaves out; the longest files come first, so that no process ends with one of them."""
    for item in items:
        if item.path.stem in HEAVY_FILES or HEAVY_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("heavy")
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def real_data(tmp_path_factory) -> Path:
    """A data folder with every downloaded data set in it, filled from a mirror; skips where there is none."""
    mirror = os.environ.get(MIRROR_VARIABLE) or (NEIGHBOUR_MIRROR if NEIGHBOUR_MIRROR.is_dir() else None)
    if mirror is None:
        pytest.skip(f"needs real data: set {MIRROR_VARIABLE} to a mirror of it (data/README.md)")
    root = tmp_path_factory.mktemp("data")
    download(root=root, mirror=mirror, progress=False)
    return root


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """One thread for each test process and what it starts: pytest-xdist runs one process on each core."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def at_once():
    """Call a function on eight threads at once; returns the errors."""
    def run(work: Callable[[], None]) -> list[Exception]:
        start, errors = threading.Barrier(8), []

        def attempt() -> None:
            start.wait(60)
            try:
                work()
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return errors
    return run


@pytest.fixture(scope="session")
def largest_file():
    """A context in which the system refuses to write a file beyond so many bytes, as a full disk refuses to write."""
    @contextmanager
    def limit(size: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return limit


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium: the system's, or the one that Playwright installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        try:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        except sync_api.Error as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no Chromium here (install chromium, or run: playwright install chromium): {error}")
        yield browser
        browser.close()
