"""The training loop: what it learns, what it records, how it resumes and how it fails."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from sparse_vae.checkpoints import Checkpoint
from sparse_vae.checks import SettingError
from sparse_vae.configuration import build_model, configure, load_data
from sparse_vae.datasets import Dataset, Split, load_dataset
from sparse_vae.models import MODELS, make_model
from sparse_vae.training import (
    DivergenceError,
    TrainingSettings,
    describe_environment,
    epoch_generator,
    mean_loss,
    resolve_device,
    resolve_precision,
    train,
)

ON_CPU = {"device": "cpu", "precision": "float32"}


def first(data: Dataset, n_train: int, n_test: int) -> Dataset:
    """The first observations of each part, so that a test is quick."""
    return replace(data, train=Split(data.train.x[:n_train]), test=Split(data.test.x[:n_test]))


def numbered(n: int = 10, features: int = 3) -> Dataset:
    """Observations told apart by their first feature, 0, 1/n, 2/n, …"""
    x = torch.rand(n, features, generator=torch.Generator().manual_seed(0))
    x[:, 0] = torch.arange(n) / n
    return Dataset("numbered", Split(x), Split(x[:4]), likelihood="bernoulli")


def autoencoder(features: int = 3, **settings):
    torch.manual_seed(0)
    return make_model("autoencoder", (features,), latent_dim=2, hidden_dim=8, **settings)


def train_on(data: Dataset, model=None, **settings):
    model = model or autoencoder(data.input_shape[0])
    history = train(model, data, TrainingSettings(**{**ON_CPU, "epochs": 2, "batch_size": 4, **settings}),
                    progress=False)
    return model, history


# --- settings


def test_the_defaults():
    settings = TrainingSettings()
    assert (settings.epochs, settings.device, settings.precision, settings.channels_last) == (25, "auto", "auto", True)


@pytest.mark.parametrize(("setting", "value", "allowed"), [
    *((name, value, "an integer of at least 1")
      for name in ("epochs", "batch_size") for value in (0, -3, 2.0, "25", True, None, math.nan)),
    *(("learning_rate", value, "a finite number above 0 and at most 1")
      for value in (0, -1e-3, 1.5, math.nan, math.inf, "1e-3", None, True, [0.1])),
    *((name, value, "a finite number at least 0 and at most 1")
      for name in ("lr_warmup", "decay") for value in (-0.1, 1.1, "half")),
    *(("beta2", value, "a finite number at least 0 and below 1") for value in (-0.1, 1, None)),
    *(("validation", value, "an integer of at least 0") for value in (-1, 0.1, None)),
    *(("seed", value, "an integer of at least 0") for value in (-1, 2**32, 0.5, "0")),
    *(("device", value, "one of auto, cuda, mps, cpu") for value in ("gpu", "cuda:0", 0, None, ["cpu"])),
    *(("precision", value, "one of auto, float32, bfloat16") for value in ("float16", 32)),
    *(("channels_last", value, "true or false") for value in ("yes", 1, None)),
])
def test_a_setting_that_cannot_be_used_is_named(setting, value, allowed):
    with pytest.raises(SettingError) as error:
        TrainingSettings(**{setting: value})
    message = str(error.value)
    assert message.startswith(f"{setting} must be {allowed}")
    assert repr(value) in message


@pytest.mark.parametrize(("setting", "value"), [
    ("epochs", 1), ("learning_rate", 1), ("learning_rate", 1e-9), ("decay", 0), ("decay", 1), ("seed", 2**32 - 1)])
def test_a_setting_at_its_bound_is_taken(setting, value):
    assert getattr(TrainingSettings(**{setting: value}), setting) == value


def test_a_number_beyond_the_largest_float_is_refused():
    with pytest.raises(SettingError, match=r"learning_rate must be a finite number .* beyond the largest float"):
        TrainingSettings(learning_rate=10**400)


def test_a_device_that_is_absent_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"
    for device in ("cuda", "mps"):
        with pytest.raises(SettingError, match=f"device '{device}' is not available here; there is cpu"):
            train_on(numbered(), device=device)


def test_auto_takes_the_fastest_device(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"


def test_precision_is_as_asked():
    cpu = torch.device("cpu")
    assert resolve_precision("bfloat16", cpu) == torch.bfloat16
    assert resolve_precision("float32", cpu) == torch.float32
    environment = describe_environment(TrainingSettings(device="cpu", precision="bfloat16"))
    assert (environment["device"], environment["precision"]) == ("cpu", "bfloat16")


# --- the loop


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_training_lowers_the_loss(name, precision):
    data = first(load_dataset("digits"), 580, 1).hold_out(100)
    torch.manual_seed(0)
    # A warm-up, and the rise of a KL, end within these 45 steps.
    schedule = {"vsc-warmup": {"warmup_steps": 5, "ramp_steps": 5}, "hybrid": {"kl_ramp_steps": 5}}.get(name, {})
    model = make_model(name, data.input_shape, latent_dim=8, **schedule)
    before = mean_loss(model, data.validation.x)
    settings = TrainingSettings(epochs=3, batch_size=32, learning_rate=2e-3, device="cpu", precision=precision)
    history = train(model, data, settings, progress=False)
    totals = [before["total"], *(row["validation_total"] for row in history)]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] < 0.8 * totals[0]
    assert history[-1]["validation_total"] == pytest.approx(mean_loss(model, data.validation.x)["total"], rel=1e-6)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_bfloat16_is_used_where_asked():
    _, full = train_on(numbered(), precision="float32")
    _, half = train_on(numbered(), precision="bfloat16")
    assert half[-1]["train_total"] != full[-1]["train_total"]
    assert half[-1]["train_total"] == pytest.approx(full[-1]["train_total"], rel=0.02)  # 8 bits of mantissa


@pytest.mark.parametrize("parts", [["train"], ["train", "validation"]])
def test_the_history_has_a_row_for_each_epoch(parts):
    data = load_dataset("digits")
    if "validation" in parts:
        data = data.hold_out(37)
    model = make_model("vae", data.input_shape, backbone="mlp")
    history = train(model, data, TrainingSettings(epochs=2, batch_size=128, device="cpu"), progress=False)
    terms = ("total", "reconstruction", "kl")
    columns = ["epoch", "step", "seconds", *(f"{part}_{term}" for part in parts for term in terms)]
    assert [list(row) for row in history] == [columns, columns]
    steps = 12 if parts == ["train"] else 11  # 1437 = 11·128 + 29
    assert [(row["epoch"], row["step"]) for row in history] == [(1, steps), (2, 2 * steps)]
    for row, part in itertools.product(history, parts):
        assert row[f"{part}_total"] == pytest.approx(row[f"{part}_reconstruction"] + row[f"{part}_kl"], rel=1e-5)


def test_settings_that_ask_for_a_validation_part_hold_it_out():
    asked, held = (train_on(data, **settings)[1] for data, settings in (
        (numbered(), {"validation": 3}), (numbered().hold_out(3), {})))
    assert [row["validation_total"] for row in asked] == [row["validation_total"] for row in held]


def test_the_test_part_is_not_looked_at():
    unseen = replace(numbered(), test=Split(torch.full((4, 3), torch.nan)))
    histories = [train_on(data)[1] for data in (numbered(), unseen)]
    assert [row["train_total"] for row in histories[0]] == [row["train_total"] for row in histories[1]]


def test_the_loop_is_the_plain_loop():
    """The slow, obvious twin: gather a batch, loss, backward, step."""
    data = numbered()
    trained, history = train_on(data, epochs=3, learning_rate=1e-3, lr_warmup=0, decay=0, beta2=0.95, seed=5)
    twin = autoencoder()
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3, betas=(0.9, 0.95))
    for epoch in (1, 2, 3):
        order = torch.randperm(10, generator=epoch_generator(5, epoch))
        losses = []
        for start in (0, 4, 8):
            batch = data.train.x[order[start:start + 4]]
            loss = twin.loss(batch).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += [loss.item()] * len(batch)
        assert history[epoch - 1]["train_total"] == pytest.approx(sum(losses) / 10, rel=1e-6)
    for parameter, expected in zip(trained.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(parameter, expected, atol=1e-6)


def test_an_epoch_sees_every_observation_once_in_an_order_of_its_own():
    class Recorder(MODELS["autoencoder"]):
        def loss(self, x, *, step=None, generator=None):
            if self.training:
                seen.append((step, x[:, 0].tolist()))
            return super().loss(x)

    seen, data = [], numbered()
    train_on(data, Recorder((3,), latent_dim=2, hidden_dim=8))
    assert [step for step, _ in seen] == [0, 1, 2, 3, 4, 5]
    assert [len(values) for _, values in seen] == [4, 4, 2, 4, 4, 2]
    one, two = ([value for _, values in part for value in values] for part in (seen[:3], seen[3:]))
    assert sorted(one) == sorted(two) == data.train.x[:, 0].tolist()
    assert one != two


def test_the_learning_rate_rises_and_falls():
    rates = []
    settings = TrainingSettings(epochs=4, batch_size=1, lr_warmup=0.4, decay=0.5, learning_rate=0.01, **ON_CPU)
    train(autoencoder(), numbered(), settings, progress=False,
          on_epoch=lambda state: rates.append(state.optimizer.param_groups[0]["lr"]))
    # 40 steps, the first 16 rise: step 9 has 10/16 of 0.01; the last 20 fall: 29 and 39 have (40 − step)/20.
    assert rates == pytest.approx([0.01 * 10 / 16, 0.01, 0.01 * 11 / 20, 0.01 / 20])


def test_the_mean_loss_is_over_observations_not_batches():
    data = numbered(1500)
    model = autoencoder()
    with torch.no_grad():
        assert mean_loss(model, data.train.x)["total"] == pytest.approx(model.loss(data.train.x).total.item(), rel=1e-5)


def test_an_epochs_stream_depends_on_seed_and_epoch_alone():
    def draw(seed, epoch):
        return torch.rand(4, generator=epoch_generator(seed, epoch)).tolist()

    drawn = draw(3, 7)
    torch.manual_seed(99)
    draw(3, 6)
    assert draw(3, 7) == drawn
    assert len({tuple(draw(seed, epoch)) for seed in range(5) for epoch in range(5)}) == 25


def test_the_seed_decides_the_order():
    histories = [train_on(numbered(), seed=seed)[1][-1]["train_total"] for seed in (0, 0, 1)]
    assert histories[0] == histories[1] != histories[2]


@pytest.mark.parametrize("channels_last", [True, False])
def test_channels_last_stores_the_convolutions_as_asked(channels_last):
    data = Dataset("images", Split(torch.rand(8, 3, 8, 8)), Split(torch.rand(4, 3, 8, 8)), likelihood="bernoulli")
    model, _ = train_on(data, make_model("vae", (3, 8, 8), backbone="conv"), channels_last=channels_last)
    weight = model.encoder[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_progress_shows_the_terms(capsys):
    train(autoencoder(), numbered(), TrainingSettings(epochs=2, **ON_CPU), progress=True)
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown
    assert "total=" in shown
    assert "reconstruction=" in shown
    train_on(numbered())
    assert capsys.readouterr().err == ""


# --- data and likelihood


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_bernoulli_likelihood_needs_values_between_0_and_1(part):
    data = replace(numbered(), **{part: Split(torch.tensor([[-0.5, 0, 1], [0, 1.25, 1]]))})
    with pytest.raises(SettingError, match=r"'bernoulli' needs values in \[0, 1\]; numbered has -0.5 … 1.25$"):
        train_on(data)
    train_on(data, autoencoder(likelihood="gaussian"))


# --- divergence


@pytest.mark.parametrize("name", MODELS)
def test_data_too_large_for_float32_diverge(name):
    x = 1e30 * torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    data = Dataset("huge", Split(x), Split(x), likelihood="gaussian")
    model = make_model(name, (6,), likelihood="gaussian")
    with pytest.raises(DivergenceError, match=r"in epoch 1: .*'reconstruction' is (inf|nan).*learning_rate=1,"):
        train_on(data, model, learning_rate=1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_divergence_names_the_epoch_the_term_and_the_settings(bad):
    class Breaking(MODELS["vae"]):
        def loss(self, x, *, step=None, generator=None):
            loss = super().loss(x, generator=generator)
            return loss._replace(kl=loss.kl * bad) if step == 4 else loss

    with pytest.raises(DivergenceError) as error:
        train_on(numbered(), Breaking((3,)), epochs=9, seed=11)  # three steps an epoch
    message = str(error.value)
    assert message.startswith(f"training diverged in epoch 2: of the loss's terms, 'kl' is {bad}.")
    assert all(part in message for part in ("epochs=9", "batch_size=4", "learning_rate=0.003", "seed=11"))


def test_a_validation_loss_that_diverges_stops_the_run_before_its_epoch_counts():
    class Breaking(MODELS["autoencoder"]):
        def loss(self, x, *, step=None, generator=None):
            loss = super().loss(x)
            return loss if self.training or len(finished) < 2 else loss._replace(total=loss.total * math.nan)

    finished = []
    with pytest.raises(DivergenceError, match=r"epoch 3: .*'total' is nan"):
        train(Breaking((3,)), numbered().hold_out(4), TrainingSettings(epochs=5, **ON_CPU),
              on_epoch=lambda state: finished.append(state.epoch), progress=False)
    assert finished == [1, 2]


# --- resuming


SETTINGS = {"epochs": 4, "latent_dim": 4, "device": "cpu"}


class Killed(Exception):
    pass


def train_to(config, checkpoint: Checkpoint | None = None, kill_after: int | None = None):
    """A whole run, or one that ends after so many epochs; everything that must be the same twice."""
    def on_epoch(state):
        states.append(state)
        if checkpoint:
            checkpoint.save(state)
        if state.epoch == kill_after:
            raise Killed

    states, data = [], first(load_data(config), 300, 50)
    model = build_model(config, data)
    history = train(model, data, config.training, resume=checkpoint and checkpoint.restore, on_epoch=on_epoch,
                    progress=False)
    optimizer = states[-1].optimizer.state_dict()["state"]
    values = {**model.state_dict(), **{f"{i}.{name}": value for i, part in optimizer.items()
                                       for name, value in part.items()}}
    return values, [{key: value for key, value in row.items() if key != "seconds"} for row in history], len(states)


def assert_same_bits(first, second):
    assert first[1] == second[1]
    assert first[0].keys() == second[0].keys()
    assert all(torch.equal(first[0][name], second[0][name]) for name in first[0])


@pytest.mark.parametrize(("name", "dataset", "backbone"), [
    *((name, "digits", "auto") for name in MODELS), ("vae", "sinusoids", "mlp")])
def test_a_killed_run_resumes_to_the_same_bits(name, dataset, backbone, tmp_path):
    config = configure(name, dataset, backbone=backbone, **SETTINGS)
    whole = train_to(config)
    for kill_after in (1, 3):  # killed twice
        with pytest.raises(Killed):
            train_to(config, Checkpoint(tmp_path / "c.safetensors", config, every=0), kill_after)
    resumed = train_to(config, Checkpoint(tmp_path / "c.safetensors", config, every=0))
    assert (whole[2], resumed[2]) == (4, 1)
    assert_same_bits(resumed, whole)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_a_run_killed_by_the_system_resumes_to_the_same_bits(tmp_path):
    path, epochs = tmp_path / "c.safetensors", 6
    settings = {**SETTINGS, "epochs": epochs, "backbone": "mlp", "hidden_dim": 50}
    config = configure("vae", "digits", **settings)
    script = f"""
import time
from dataclasses import replace
import torch
from sparse_vae.datasets import Split
from sparse_vae.checkpoints import Checkpoint
from sparse_vae.configuration import build_model, configure, load_data
from sparse_vae.training import train
torch.set_num_threads(2)
config = configure("vae", "digits", **{settings!r})
data, keeper = load_data(config), Checkpoint({str(path)!r}, config, every=0)
data = replace(data, train=Split(data.train.x[:300]), test=Split(data.test.x[:50]))
def on_epoch(state):
    keeper.save(state)
    print(state.epoch, flush=True)
    time.sleep(60 * (state.epoch == 3))  # so that it cannot end before it is killed
train(build_model(config, data), data, config.training, on_epoch=on_epoch, progress=False)
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        while int(child.stdout.readline() or -1) < 3:
            assert child.poll() is None
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    resumed = train_to(config, Checkpoint(path, config, every=0))
    assert resumed[2] == epochs - 3  # so many were left to do
    assert_same_bits(resumed, train_to(config))


def test_a_finished_checkpoint_trains_no_more(tmp_path):
    config = configure("autoencoder", "digits", backbone="mlp", **SETTINGS)
    keeper = Checkpoint(tmp_path / "c.safetensors", config, every=0)
    whole = train_to(config, keeper)
    data = first(load_data(config), 300, 50)
    model = build_model(config, data)
    history = train(model, data, config.training, resume=keeper.restore, progress=False)
    assert len(history) == 4
    assert all(torch.equal(value, whole[0][name]) for name, value in model.state_dict().items())


def test_checkpoints_keep_their_distance(tmp_path):
    config = configure("autoencoder", "digits", backbone="mlp", **SETTINGS)
    train_to(config, Checkpoint(tmp_path / "c.safetensors", config, every=3600))
    assert list(tmp_path.iterdir()) == []
