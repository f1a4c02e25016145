"""What a model is when nobody says anything: it works, on every data set that needs no download."""

from __future__ import annotations

import pytest

from sparse_vae.checkpoints import train_run
from sparse_vae.configuration import configure, load_data
from sparse_vae.evaluation import batched, code_usage, explained_variance
from sparse_vae.models import MODELS

LEAST = {"digits": 0.5, "smiley": 0.5, "sinusoids": 0.2, "returns": 0.2}
"""Share of the variance of test data that every model explains at its defaults."""


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dataset", ["digits", *(pytest.param(name, marks=pytest.mark.slow) for name in LEAST
                                                 if name != "digits")])
def test_a_model_works_at_its_defaults(dataset, model):
    config = configure(model, dataset)
    data = load_data(config)
    trained, _ = train_run(config, data, progress=False)
    usage = code_usage(trained, data.test.x)
    assert explained_variance(data.test.x, batched(trained.reconstruct, data.test.x)) > LEAST[dataset]
    assert usage["used_dimensions"] >= 2
