"""What a model is when nobody says anything: it works, on every data set that needs no download."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparse_vae.checkpoints import train_run
from sparse_vae.checks import parse_value
from sparse_vae.configuration import configure, load_data
from sparse_vae.evaluation import batched, code_usage, explained_variance
from sparse_vae.models import MODELS

LEAST = {"digits": 0.5, "smiley": 0.5, "sinusoids": 0.2, "returns": 0.2}
"""Share of the variance of test data that every model explains at its defaults."""
SEEDS = {"digits": 20}
"""On how many seeds, where it is not one."""
BRIEF = {"epochs": 6}
"""Of the 60 that suit the digits."""
SCHEDULE = {"vsc-warmup": {"warmup_steps": 10, "ramp_steps": 10}}
"""What takes longer than that at the defaults."""
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "report").glob("*.qmd"))]
EXAMPLES = [settings for page in PAGES
            for settings in re.findall(r"\nsparse-vae train (model=[^#\n]+)", page.read_text())
            if re.search(f"dataset=({'|'.join(LEAST)})", settings) and "noisy-code" not in settings]
"""Of the pages, on data that need no download, by models of the package."""


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("dataset", "seed", "least", "brief"), [
    pytest.param("digits", 0, 0.3, True, id="digits in brief"),
    *(pytest.param(dataset, seed, least, False, marks=pytest.mark.slow, id=f"{dataset} {seed}")
      for dataset, least in LEAST.items() for seed in range(SEEDS.get(dataset, 1)))])
def test_a_model_works_at_its_defaults(dataset, seed, least, brief, model):
    works(configure(model, dataset, seed=seed, **(BRIEF | SCHEDULE.get(model, {}) if brief else {})), least)


def test_the_pages_have_examples():
    assert len(EXAMPLES) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("settings", EXAMPLES)
def test_an_example_of_the_pages_gives_a_model_that_works(settings):
    values = {key: parse_value(value) for key, value in (setting.split("=") for setting in settings.split())}
    values.pop("dataset.csv", None)  # the reader's own
    model, dataset = values.pop("model"), values.pop("dataset")
    works(configure(model, dataset, **values), LEAST[dataset])


def works(config, least):
    data = load_data(config)
    trained, _ = train_run(config, data, progress=False)
    usage = code_usage(trained, data.test.x)
    assert explained_variance(data.test.x, batched(trained.reconstruct, data.test.x)) > least
    assert usage["used_dimensions"] >= 2
