"""What a run is: every setting declared once, checked where it enters, recorded and read back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from sparse_vae import models
from sparse_vae.checks import SettingError
from sparse_vae.configuration import RunConfig, build_model, configure, load_data
from sparse_vae.datasets import dataset_lines, dataset_names, dataset_settings
from sparse_vae.models import CLASSICAL, MODELS, LatentVariableModel, make_model, model_lines, model_settings
from sparse_vae.models.vae import VAE
from sparse_vae.settings import Choice, File, Integer, Number, Setting, check_settings, takes_settings, title_of
from sparse_vae.training import TRAINING_SETTINGS, TrainingSettings

TINY = {"epochs": 1, "latent_dim": 3, "backbone": "mlp", "hidden_dim": 16, "device": "cpu"}
DECLARED: dict[str, dict[str, Setting]] = {
    **{name: model_settings(name) for name in MODELS | CLASSICAL},
    **{f"data set {name}": dataset_settings(name) for name in dataset_names()},
    "training": TRAINING_SETTINGS}


# --- declarations


@pytest.mark.parametrize("name", DECLARED)
def test_declarations_hold_what_follows_from_them(name):
    for key, setting in DECLARED[name].items():
        assert setting.check(key, setting.default) == setting.default
        assert setting.help
        assert not setting.help.endswith(".")
        with pytest.raises(SettingError, match=f"^{key} must be .*{setting.allowed[:9]}"):
            setting.check(key, object())
        if setting.default is not None:
            with pytest.raises(SettingError, match=f"^{key} must be"):
                setting.check(key, None)


def test_the_lists_for_people_name_every_setting():
    shown, shared = model_lines(), LatentVariableModel.settings
    assert [line for line in shown if not line.startswith(" ")] == [*MODELS, "all of these", *CLASSICAL]
    for name, cls in MODELS.items():
        own = shown[shown.index(name) + 2 + len(cls.suited):][:len(cls.settings) - len(shared)]
        assert [line.strip().partition("=")[0] for line in own] == [key for key in cls.settings if key not in shared]
    [beta] = [line for line in shown if "beta=" in line]
    assert beta.startswith("    beta=4.0  weight of the KL")
    assert beta.endswith("(a finite number at least 0)")
    shown = dataset_lines()
    assert [line for line in shown if not line.startswith(" ")] == dataset_names()
    assert any(line.strip().startswith("csv=none ") and line.endswith("(the path of a file, or none)")
               for line in shown)


def test_values_are_checked_and_none_stands_for_something():
    settings = {"size": Integer(None, "of all", otherwise=lambda values: 2 * values.width, symbol="s"),
                "width": Integer(3, "of one", minimum=0, maximum=9), "share": Number(0.5, "of it", above=0, below=1),
                "kind": Choice("plain", "of them", choices=("plain", "odd"), title="{} kind"),
                "path": File(None, "to it")}
    assert check_settings(settings, {"share": 0.25}, of="x") == {
        "size": None, "width": 3, "share": 0.25, "kind": "plain", "path": None}
    assert title_of("X", settings, {"width": 2}) == "X (s = 4)"
    assert title_of("X", settings, {"size": 5, "kind": "odd"}) == "X, odd kind (s = 5)"
    for given, message in (
            ({"widht": 1}, "unknown setting of x 'widht'; did you mean 'width'"),
            ({"width": 10}, "width must be an integer of at least 0 and at most 9; got 10"),
            ({"share": 1}, "share must be a finite number above 0 and below 1; got 1"),
            ({"kind": 3}, "kind must be one of plain, odd; got 3")):
        with pytest.raises(SettingError, match=message):
            check_settings(settings, given, of="x")

    def refuse(values):
        raise SettingError(f"{values.size} is too large")

    with pytest.raises(SettingError, match="14 is too large"):
        check_settings(settings, {"width": 7}, of="x", together=refuse)


def test_a_function_takes_settings_by_name_or_in_order():
    @takes_settings({"n": Integer(2, "of something"), "noise": Number(0.0, "of it", minimum=0)})
    def draw(n, noise, root="data"):
        return n, noise, root

    assert draw() == (2, 0.0, "data")
    assert draw(3, noise=1, root="here") == (3, 1.0, "here")
    assert draw.check({"n": 4}) == {"n": 4, "noise": 0.0}
    with pytest.raises(SettingError, match="noise must be a finite number at least 0; got -1"):
        draw(3, -1)
    with pytest.raises(SettingError, match="unknown setting of draw 'm'"):
        draw(m=3)
    for positional, named in (((3, 1, 2), {}), ((3,), {"n": 3})):
        with pytest.raises(TypeError, match="draw takes each of n, noise once"):
            draw(*positional, **named)


def test_a_new_model_is_one_class_and_one_line(monkeypatch):
    class Tempered(VAE):
        """VAE with a temperature."""

        label = "Tempered"
        settings: ClassVar = {"heat": Number(1.5, "what it has", above=0, symbol="T")}

    monkeypatch.setitem(models.MODELS, "tempered", Tempered)
    config = configure("tempered", "digits", heat=2, **TINY)
    assert config.title == "Tempered (T = 2)"
    assert RunConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config
    model = build_model(config, load_data(config))
    assert (model.heat, model.latent_dim, model.title) == (2, 3, config.title)
    assert "    heat=1.5  what it has (a finite number above 0)" in model_lines()
    for make in (lambda **given: configure("tempered", "digits", **given),
                 lambda **given: make_model("tempered", (1, 8, 8), **given)):
        with pytest.raises(SettingError, match="heat must be a finite number above 0; got 0"):
            make(heat=0)
        with pytest.raises(SettingError, match="'haet'; did you mean 'heat'"):
            make(haet=1)


# --- configurations


def test_settings_go_where_they_belong():
    config = configure("beta-vae", "sinusoids", beta=2, epochs=3, seed=7, noise=0.5, **{"dataset.seed": 4})
    assert config.training == TrainingSettings(epochs=3, batch_size=32, seed=7)
    assert config.model_settings == {"beta": 2, "latent_dim": 16, "backbone": "auto", "hidden_dim": 400,
                                     "decoder": "network"}
    assert config.dataset_settings["noise"] == 0.5
    assert config.dataset_settings["seed"] == 4
    assert load_data(config).likelihood == "gaussian"
    assert build_model(config, load_data(config)).likelihood == "gaussian"  # the data's, as none was given


@pytest.mark.parametrize(("settings", "message"), [
    ({"latent_dmi": 3}, "unknown setting for vae on sinusoids 'latent_dmi'; did you mean 'latent_dim'"),
    ({"beta": 3}, "unknown setting for vae on sinusoids 'beta'"),
    ({"dataset.nosie": 3}, "did you mean 'dataset.noise'"),
    ({"latent_dim": 0}, "latent_dim must be an integer of at least 1; got 0"),
    ({"latent_dim": 10**30}, f"latent_dim must be an integer of at least 1 and at most 2147483647; got {10**30}"),
    ({"epochs": "many"}, "epochs must be an integer of at least 1; got 'many'"),
    ({"likelihood": "poisson"}, "likelihood must be one of bernoulli, gaussian; got 'poisson'"),
])
def test_a_setting_that_cannot_be_used_is_named(settings, message):
    with pytest.raises(SettingError, match=message):
        configure("vae", "sinusoids", **settings)


def test_a_model_beyond_the_memory_is_named():
    config = configure("vae", "sinusoids", latent_dim=2**31 - 1)  # nothing is built yet
    with pytest.raises(SettingError, match=r"vae cannot be built with .*latent_dim=2147483647.*: "):
        build_model(config, load_data(config))


def test_nothing_is_built_to_check_or_to_name_a_model(monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "__init__", None)
    assert configure("topk", "digits", latent_dim=50, decoder="linear").title == "TopK, linear decoder (k = 5)"
    with pytest.raises(SettingError, match="k must be at most latent_dim, 30; got 31"):
        configure("topk", "digits", latent_dim=30, k=31)
    with pytest.raises(SettingError, match="n_components must be an integer of at least 1 and at most 2; got 3"):
        configure("topk", "sinusoids", n_frequencies=2)


def test_a_path_is_recorded_as_text():
    assert configure("vae", "returns", csv=Path("a/b.csv")).dataset_settings["csv"] == "a/b.csv"
    for value in (2024, "", True):
        with pytest.raises(SettingError, match=f"csv must be the path of a file; got {value!r}"):
            configure("vae", "returns", csv=value)


def test_unknown_names_name_the_nearest():
    with pytest.raises(SettingError, match="unknown model 'vaee'; did you mean 'vae'"):
        configure("vaee", "digits")
    with pytest.raises(SettingError, match="unknown data set 'digit'; did you mean 'digits'"):
        configure("vae", "digit")


@pytest.mark.parametrize("name", MODELS | CLASSICAL)
def test_a_configuration_survives_json(name):
    config = configure(name, "smiley", epochs=3, latent_dim=6, **{"dataset.n_train": 100})
    assert RunConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config


def test_an_older_record_has_the_defaults_of_newer_settings():
    config = configure("vae", "smiley", epochs=3)
    record = asdict(config)
    del record["model_settings"]["hidden_dim"], record["dataset_settings"]["presence"], record["training"]["decay"]
    assert RunConfig.from_dict(record) == config


def test_a_record_is_checked():
    record = asdict(configure("vae", "smiley"))
    for part, setting, value, message in (
            ("model_settings", "gone", 1, "unknown setting for vae on smiley 'gone'"),
            ("dataset_settings", "presence", 2, "presence must be"), ("training", "epochs", 0, "epochs must be")):
        with pytest.raises(SettingError, match=message):
            RunConfig.from_dict({**record, part: {**record[part], setting: value}})


def test_the_seed_decides_the_initial_weights_and_nothing_else_does():
    configs = [configure("vae", "digits", **TINY, seed=seed) for seed in (0, 1)]
    data = load_data(configs[0])
    torch.manual_seed(5)
    untouched = torch.rand(3)
    torch.manual_seed(5)
    zero, one, again = (build_model(config, data).encoder[1].weight for config in (*configs, configs[0]))
    assert torch.equal(torch.rand(3), untouched)
    assert torch.equal(again, zero)
    assert not torch.equal(one, zero)


# --- what suits a model and a data set


def test_what_is_not_given_suits_the_pair(monkeypatch):
    monkeypatch.setattr(MODELS["vae"], "suited", {"": {"epochs": 7, "batch_size": 11, "hidden_dim": 5},
                                                  "digits": {"epochs": 9}})
    of_digits, of_smiley = configure("vae", "digits"), configure("vae", "smiley")
    assert (of_digits.training.epochs, of_digits.training.batch_size) == (9, 11)
    assert (of_smiley.training.epochs, of_smiley.model_settings["hidden_dim"]) == (7, 5)
    assert configure("vae", "digits", epochs=2).training.epochs == 2
    assert "    trained on digits with epochs=9" in model_lines()


@pytest.mark.parametrize("model", [*MODELS, *CLASSICAL])
def test_what_suits_is_allowed(model):
    for dataset in dataset_names():
        configure(model, dataset)
    assert set(MODELS.get(model, LatentVariableModel).suited) <= {"", *dataset_names()}


def test_a_run_of_a_validation_part_is_measured_on_it():
    data = load_data(configure("vae", "digits", validation=100))
    assert (len(data.train), len(data.measured)) == (1337, 100)
