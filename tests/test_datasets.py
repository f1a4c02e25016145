"""Every data set keeps the interface; the generated ones their equations; files are whole or the error says why not."""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import http.server
import struct
import threading
import zipfile
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from sparse_vae.checks import SettingError
from sparse_vae.datasets import (
    DataError,
    Dataset,
    Split,
    dataset_names,
    describe_datasets,
    download,
    load_dataset,
    mnist,
    uci_har,
)
from sparse_vae.datasets.download import MIRROR_VARIABLE, RemoteFile, fetch, md5_problem
from sparse_vae.datasets.returns import OTHER_LOADINGS, REGIMES, read_returns, simulate_returns
from sparse_vae.datasets.sinusoids import AMPLITUDES, SCALE, sinusoid_atoms
from sparse_vae.datasets.smiley import GROUP_OF_SOURCE, GROUPS, SOURCES, render_faces

DOWNLOADED = ["mnist", "fashion-mnist", "uci-har"]
SHAPES = {  # one observation, training size, test size
    "digits": ((1, 8, 8), 1437, 360),
    "mnist": ((1, 28, 28), 60_000, 10_000),
    "fashion-mnist": ((1, 28, 28), 60_000, 10_000),
    "smiley": ((1, 32, 32), 60_000, 20_000),
    "sinusoids": ((128,), 2_000, 1_000),
    "uci-har": ((561,), 7_352, 2_947),
    "returns": ((50,), 4_000, 1_000),
}


# --- what holds for every data set


def tensors(split: Split) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in vars(split).items() if tensor is not None}


@pytest.mark.parametrize("name", dataset_names())
def test_a_data_set_keeps_the_interface(name, request):
    data = load_dataset(name, request.getfixturevalue("real_data") if name in DOWNLOADED else "none")
    assert data.name == name
    assert (data.input_shape, len(data.train), len(data.test)) == SHAPES[name]
    assert data.likelihood in ("bernoulli", "gaussian")
    assert data.description == describe_datasets()[name]
    assert data.description.endswith(".")
    assert data.feature_names == () or (len(data.feature_names),) == data.input_shape
    for split in (data.train, data.test):
        assert all(tensor.is_contiguous() and len(tensor) == len(split) for tensor in tensors(split).values())
        assert split.x.dtype == torch.float32
        assert split.x.isfinite().all()
        if data.likelihood == "bernoulli":
            assert split.x.min() == 0
            assert split.x.max() == 1
        if data.classes:
            assert split.y.dtype == torch.int64
            assert split.y.unique().tolist() == list(range(len(data.classes)))
        else:
            assert split.y is None
        if data.factor_names:
            assert split.factors.dtype == torch.float32
            assert split.factors.shape == (len(split), len(data.factor_names))
        else:
            assert split.factors is None


def test_unknown_names_name_the_nearest():
    with pytest.raises(SettingError, match="unknown data set 'minst'; did you mean 'mnist'"):
        load_dataset("minst")
    with pytest.raises(SettingError, match="did you mean 'smiley'"):
        download(["mnist", "smily"])
    with pytest.raises(SettingError, match="unknown setting of data set 'smiley' 'n_trian'; did you mean 'n_train'"):
        load_dataset("smiley", n_trian=3)
    with pytest.raises(SettingError, match="unknown setting of data set 'digits' 'seed'"):
        load_dataset("digits", seed=0)


@pytest.mark.parametrize(("name", "setting", "value"), [
    ("smiley", "n_train", 0), ("smiley", "n_test", 2.0), ("smiley", "presence", 0), ("smiley", "presence", 1.5),
    ("smiley", "seed", -1),
    ("sinusoids", "n_train", True), ("sinusoids", "length", 38), ("sinusoids", "n_components", 20),
    ("sinusoids", "noise", float("nan")), ("returns", "n_days", 5), ("returns", "n_assets", "50"),
    ("returns", "n_factors", 0), ("returns", "noise", -0.1), ("returns", "test_share", 1),
])
def test_a_setting_that_cannot_be_used_is_named(name, setting, value):
    with pytest.raises(SettingError, match=rf"^{setting} must be"):
        load_dataset(name, **{setting: value})


@pytest.mark.parametrize("name", ["smiley", "sinusoids", "returns"])
def test_the_seed_decides_what_is_generated(name):
    size = {"n_days": 100} if name == "returns" else {"n_train": 100, "n_test": 1}
    first, again, other = (load_dataset(name, seed=seed, **size).train for seed in (0, 0, 1))
    assert all(map(torch.equal, tensors(first).values(), tensors(again).values()))
    assert not torch.equal(first.x, other.x)


@pytest.mark.parametrize("name", ["smiley", "sinusoids"])
def test_the_test_part_does_not_depend_on_the_training_part(name):
    small, large = (load_dataset(name, n_train=n, n_test=20) for n in (10, 30))
    assert torch.equal(small.test.x, large.test.x)
    assert not torch.equal(small.test.x[:10], small.train.x)


def test_the_digits_are_split_by_class():
    data = load_dataset("digits")
    share = data.test.y.bincount() / (data.train.y.bincount() + data.test.y.bincount())
    assert torch.allclose(share, torch.tensor(0.2), atol=0.01)


# --- Smiley


def test_smiley_sources_are_present_in_groups_half_of_the_time():
    data = load_dataset("smiley", n_train=5_000, n_test=1)
    assert data.factor_names == tuple(SOURCES)
    assert data.train.x.unique().tolist() == [0, 1]
    present = data.train.factors != 0
    assert torch.allclose(present.float().mean(0), torch.tensor(0.5), atol=0.03)  # 4 standard errors
    for group in range(len(GROUPS)):
        together = present[:, group == GROUP_OF_SOURCE]
        assert (together.all(1) == together.any(1)).all()


def test_smiley_presence_of_almost_0_and_1():
    bare, dressed = (load_dataset("smiley", n_train=20, n_test=1, presence=p).train for p in (1e-9, 1))
    assert (bare.factors == 0).all()
    assert (bare.x == bare.x[0]).all()
    assert bare.x[0].sum() == 316  # pixel centres within 10 of the middle of a 32×32 grid (Gauss's circle problem)
    assert (dressed.factors != 0).all()


def test_smiley_images_are_drawn_from_their_factors():
    train = load_dataset("smiley", n_train=50, n_test=1).train
    assert np.array_equal(render_faces(train.factors.numpy()), train.x[:, 0].numpy() == 1)


@pytest.fixture(scope="module")
def factors_of_faces() -> np.ndarray:
    return load_dataset("smiley", n_train=2_000, n_test=1).train.factors.numpy()


@pytest.mark.parametrize("source", SOURCES)
def test_every_smiley_source_changes_pixels_where_it_is_present(source, factors_of_faces):
    column = list(SOURCES).index(source)
    low, high = np.zeros((2, 1, len(SOURCES)), dtype=np.float32)
    low[:, column], high[:, column] = -2, 2
    assert (render_faces(low) != render_faces(high)).any()  # alone, the other sources of its group at rest

    factors = factors_of_faces[factors_of_faces[:, column] != 0]
    faces = render_faces(factors)
    without = factors * (GROUP_OF_SOURCE[column] != GROUP_OF_SOURCE)
    assert (render_faces(without) != faces).any(axis=(1, 2)).all()

    low, high, redrawn = factors.copy(), factors.copy(), factors.copy()
    low[:, column], high[:, column] = -2, 2
    redrawn[:, column] = np.random.default_rng(1).standard_normal(len(redrawn))
    assert (render_faces(low) != render_faces(high)).any(axis=(1, 2)).all()
    # a small move may stay within a pixel, but not most of the time for most sources
    assert (render_faces(redrawn) != faces).any(axis=(1, 2)).mean() > 0.4


def test_smiley_by_hand():
    """A brim 16 wide and 3 high, its middle 0.5 pixels below row 6: rows 5 to 8, columns 9 to 24 of 1..32."""
    factors = np.zeros((1, len(SOURCES)), dtype=np.float32)
    factors[0, list(SOURCES).index("hat y")] = 1  # spread 0.5
    face = render_faces(factors)[0]
    rows, columns = np.nonzero(face[4:8])
    assert (rows.min() + 5, rows.max() + 5, columns.min() + 1, columns.max() + 1) == (5, 8, 9, 24)
    assert np.nonzero(face[:4])[0].min() + 1 == 3  # the crown, 2 high, begins at row 3
    assert np.nonzero(face[2])[0].tolist() == list(range(10, 22))  # and is 11 wide: columns 11 to 22


# --- sinusoids


def test_sinusoids_are_sums_of_their_atoms():
    data = load_dataset("sinusoids", n_train=100, n_test=10)
    atoms = sinusoid_atoms()
    assert torch.equal(data.train.x, data.train.factors @ atoms)
    assert torch.allclose(atoms @ atoms.T, 64 * torch.eye(38), atol=1e-4)
    t = 2 * np.pi * np.arange(128) / 128
    assert np.allclose(atoms[data.factor_names.index("sin 3")], np.sin(3 * t), atol=1e-6)
    assert np.allclose(atoms[data.factor_names.index("cos 19")], np.cos(19 * t), atol=1e-6)


def test_sinusoids_hold_as_many_frequencies_as_asked():
    factors = load_dataset("sinusoids", n_train=500, n_test=1, n_components=4).train.factors
    amplitude = factors.unflatten(1, (2, 19)).norm(dim=1)  # of each frequency, √(sin² + cos²)
    assert ((amplitude > 0).sum(1) == 4).all()
    assert amplitude[amplitude > 0].min() >= 0.3 / 4 - 1e-6
    assert amplitude.max() <= 1.3 / 4 + 1e-6


def test_sinusoids_with_gamma_amplitudes_are_single_atoms_of_gamma_size():
    factors = load_dataset("sinusoids", n_train=20_000, n_test=1, amplitude_shape=0.3).train.factors
    sines, cosines = factors.chunk(2, dim=1)
    assert not (sines * cosines).any()  # a multiple of π/2 leaves one of the two
    sizes = factors.abs().flatten().topk(3 * len(factors)).values / SCALE
    mean = sum(AMPLITUDES) / 2
    assert sizes.mean().item() == pytest.approx(mean, rel=0.03)
    assert sizes.square().mean().item() == pytest.approx(mean**2 * (1 + 1 / 0.3), rel=0.06)


def test_sinusoids_noise_has_the_asked_size():
    train = load_dataset("sinusoids", n_train=500, n_test=1, noise=0.1).train
    assert (train.x - train.factors @ sinusoid_atoms()).std().item() == pytest.approx(0.1, rel=0.02)


# --- returns


def test_returns_follow_from_factors_and_loadings():
    market = simulate_returns(n_days=200, n_assets=12, n_factors=3, noise=0)
    assert np.allclose(market.returns, market.factors @ market.loadings)
    assert (market.loadings[np.arange(12) % 3, np.arange(12)] != 0).all()  # everyone has its home factor


def test_returns_are_standardised_with_the_training_days():
    data = load_dataset("returns", n_days=500, n_assets=6, n_factors=2, test_share=0.25)
    market = simulate_returns(n_days=500, n_assets=6, n_factors=2)
    assert (len(data.train), len(data.test)) == (375, 125)
    mean, deviation = market.returns[:375].mean(0), market.returns[:375].std(0)
    x = torch.cat([data.train.x, data.test.x])
    assert np.allclose(x * deviation + mean, market.returns, atol=1e-5)
    assert np.allclose(torch.cat([data.train.factors, data.test.factors]), market.factors, atol=1e-5)


def test_returns_regimes_are_as_described():
    market = simulate_returns(n_days=50_000, n_assets=40, n_factors=10)
    for index, regime in enumerate(REGIMES.values()):
        days = np.flatnonzero(market.regimes[:-1] == index)
        assert (market.regimes[days + 1] == index).mean() == pytest.approx(regime.stay, abs=0.005)
        factors = market.factors[market.regimes == index]
        assert (factors != 0).mean() == pytest.approx(regime.activity, abs=0.01)
        assert factors[factors != 0].std() == pytest.approx(regime.volatility, rel=0.02)
    assert (market.loadings != 0).mean() == pytest.approx(0.1 + 0.9 * OTHER_LOADINGS, abs=0.05)
    assert (market.returns - market.factors @ market.loadings).std() == pytest.approx(0.5, rel=0.01)


def write_csv(path: Path, change=lambda rows: rows, n: int = 40) -> Path:
    rows = [["date", "gold", "oil"]]
    rows += [[str(date(2024, 1, 1) + timedelta(days=day)), f"{day % 7}.5", f"-{day % 5}"] for day in range(n)]
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(change(rows))
    return path


def test_returns_from_a_csv_file(tmp_path):
    path = write_csv(tmp_path / "mine.csv")
    names, returns = read_returns(path)
    assert names == ["gold", "oil"]
    assert returns[9].tolist() == [2.5, -4]
    data = load_dataset("returns", csv=str(path))
    assert (len(data.train), len(data.test)) == (32, 8)
    assert torch.allclose(data.train.x.mean(0), torch.zeros(2), atol=1e-6)
    assert data.feature_names == ("gold", "oil")
    assert "2 assets on 40 days, from mine.csv" in data.description


def cell(row: int, column: int, text: str):
    def change(rows):
        rows[row][column] = text
        return rows
    return change


@pytest.mark.parametrize(("change", "message"), [
    (cell(4, 2, ""), "line 5, column 'oil': the value is missing"),
    (cell(4, 1, "NaN"), "line 5, column 'gold': the value is missing"),
    (cell(4, 1, "two"), "line 5, column 'gold': 'two' is not a number"),
    (cell(4, 1, "inf"), "line 5, column 'gold': 'inf' is not finite"),
    (cell(4, 0, "4/1/24"), "line 5, column 'date': '4/1/24' is not a date"),
    (cell(4, 0, "2024-01-03"), "line 5: 2024-01-03 occurs twice"),
    (cell(4, 0, "2024-01-01"), "line 5: 2024-01-01 comes after 2024-01-03"),
    (cell(0, 2, "gold"), "line 1: every asset needs a name of its own"),
    (lambda rows: [*rows[:9], rows[9][:2], *rows[10:]], "line 10: 2 columns, but the first row has 3"),
    (lambda rows: [row[:1] for row in rows], "at least one of returns"),
    (lambda rows: [], "at least one of returns"),
    (lambda rows: rows[:20], "19 days; at least 30"),
    (lambda rows: [rows[0], *([*row[:2], "0.1"] for row in rows[1:])], "'oil' do not vary in the 32 training days"),
    (cell(40, 2, "1e300"), "'oil' cannot be divided by their standard deviation in the 32 training days"),
    (cell(4, 2, "1e308"), "'oil' cannot be divided"),
])
def test_a_csv_file_that_cannot_be_used_names_the_place(tmp_path, change, message):
    path = write_csv(tmp_path / "mine.csv", change)
    with pytest.raises(DataError) as error:
        load_dataset("returns", csv=path)
    assert message in str(error.value)


def test_a_csv_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*nowhere.csv: No such file"):
        load_dataset("returns", csv=tmp_path / "nowhere.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        load_dataset("returns", csv=tmp_path / "binary.csv")


# --- MNIST, on archives of three training and two test images


def idx(values: np.ndarray) -> bytes:
    """Bytes of the IDX format: a magic number (unsigned bytes, number of dimensions), the sizes, the values."""
    return gzip.compress(struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes())


@pytest.fixture
def tiny_mnist(tmp_path, monkeypatch) -> Path:
    """A data folder with a tiny MNIST, whose md5s are known."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    md5s = []
    for part, n in (("train", 3), ("t10k", 2)):
        images = (np.arange(n * 28 * 28) % 256).astype(np.uint8).reshape(n, 28, 28)
        for name, values in ((f"{part}-images-idx3-ubyte.gz", images),
                             (f"{part}-labels-idx1-ubyte.gz", np.arange(n, dtype=np.uint8) + 7)):
            content = idx(values)
            (raw / name).write_bytes(content)
            md5s.append(hashlib.md5(content).hexdigest())
    monkeypatch.setitem(mnist.MD5S, "mnist", md5s)
    return tmp_path


def test_mnist_is_read_as_it_is_written(tiny_mnist):
    data = load_dataset("mnist", root=tiny_mnist)
    assert data.train.y.tolist() == [7, 8, 9]
    assert data.train.x.shape == (3, 1, 28, 28)
    assert (data.train.x[0, 0, 0, :3] * 255).tolist() == [0, 1, 2]
    assert data.test.x.max() == 1
    assert sorted(path.name for path in tiny_mnist.rglob("*") if path.is_file()) == [
        "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz",
        "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]


def test_a_missing_file_says_how_to_get_it(tiny_mnist):
    (tiny_mnist / "MNIST/raw/train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as error:
        load_dataset("mnist", root=tiny_mnist)
    for part in ("train-labels-idx1-ubyte.gz", str(tiny_mnist / "MNIST/raw"), "make download",
                 "sparse-vae download mnist", MIRROR_VARIABLE):
        assert part in str(error.value)


def test_a_truncated_file_is_named_with_both_md5s(tiny_mnist):
    path = tiny_mnist / "MNIST/raw/train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(DataError) as error:
        load_dataset("mnist", root=tiny_mnist)
    for part in (str(path), hashlib.md5(content).hexdigest(), hashlib.md5(content[:-10]).hexdigest()):
        assert part in str(error.value)


# --- UCI HAR


def test_uci_har_as_published(real_data):
    data = load_dataset("uci-har", root=real_data)
    assert data.train.x.abs().max() == 1
    assert data.train.y[0] == data.classes.index("standing")
    assert data.train.x[0, :2].tolist() == pytest.approx([0.28858451, -0.020294171])
    assert data.train.groups.unique().numel() == 21
    assert data.test.groups.unique().tolist() == [2, 4, 9, 10, 12, 13, 18, 20, 24]
    assert data.feature_names[-1] == "angle(Z,gravityMean)"


def test_uci_har_signals(real_data):
    data = load_dataset("uci-har", root=real_data, signals=True)
    features = load_dataset("uci-har", root=real_data)
    assert data.input_shape == (9, 128)
    assert torch.equal(data.train.y, features.train.y)
    gravity = data.train.x[:, 6:].mean(dim=2).norm(dim=1)  # total acceleration, in g
    assert gravity.median().item() == pytest.approx(1, abs=0.05)
    with pytest.raises(SettingError, match="signals must be true or false"):
        load_dataset("uci-har", root=real_data, signals=1)


@pytest.fixture
def tiny_har(tmp_path, monkeypatch) -> Path:
    """A data folder with a UCI HAR of two features, three training and two test windows."""
    contents = {"features.txt": "1 mean\n2 mean\n"}
    for part, n in (("train", 3), ("test", 2)):
        contents[f"{part}/X_{part}.txt"] = "".join(f"  {i}.5e-001 -{i}.0e+000\n" for i in range(n))
        contents[f"{part}/y_{part}.txt"] = "".join(f"{i + 1}\n" for i in range(n))
        contents[f"{part}/subject_{part}.txt"] = "7\n" * n
    monkeypatch.setattr(uci_har, "MEMBERS", {name: hashlib.md5(text.encode()).hexdigest()
                                             for name, text in contents.items()})
    (tmp_path / "UCI-HAR").mkdir()
    with zipfile.ZipFile(tmp_path / "UCI-HAR/UCI HAR Dataset.zip", "w") as archive:
        for name, text in contents.items():
            archive.writestr(f"UCI HAR Dataset/{name}", text)
    return tmp_path


def test_uci_har_is_read_from_its_archive_wrapped_or_not_and_from_the_cache(tiny_har):
    direct = load_dataset("uci-har", root=tiny_har)
    assert torch.equal(direct.train.x, torch.tensor([[0.05, 0], [0.15, -1], [0.25, -2]]))
    assert direct.train.y.tolist() == [0, 1, 2]
    assert direct.test.groups.tolist() == [7, 7]
    assert direct.feature_names == ("mean", "mean")

    [cache] = (tiny_har / "UCI-HAR").glob("*.npz")
    assert torch.equal(load_dataset("uci-har", root=tiny_har).test.x, direct.test.x)
    cache.write_bytes(cache.read_bytes()[:100])
    assert torch.equal(load_dataset("uci-har", root=tiny_har).test.x, direct.test.x)

    archive = tiny_har / "UCI-HAR/UCI HAR Dataset.zip"
    inner = archive.read_bytes()
    with zipfile.ZipFile(archive, "w") as outer:
        outer.writestr("UCI HAR Dataset.zip", inner)
        outer.writestr("UCI HAR Dataset.names", "notes")
    assert torch.equal(load_dataset("uci-har", root=tiny_har).train.x, direct.train.x)


def test_a_damaged_uci_har_archive_is_named_even_beside_a_cache(tiny_har):
    load_dataset("uci-har", root=tiny_har)
    archive = tiny_har / "UCI-HAR/UCI HAR Dataset.zip"
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"UCI HAR Dataset.zip is damaged: it is not a whole zip archive"):
        load_dataset("uci-har", root=tiny_har)
    with zipfile.ZipFile(archive, "w") as changed:
        changed.writestr("UCI HAR Dataset/features.txt", "1 median\n")
    with pytest.raises(DataError, match=r"features.txt has md5 \w+, expected \w+"):
        load_dataset("uci-har", root=tiny_har)
    archive.unlink()
    with pytest.raises(DataError, match="sparse-vae download uci-har"):
        load_dataset("uci-har", root=tiny_har)


# --- fetching

CONTENT = bytes(range(256)) * 40


def remote(*urls: str) -> RemoteFile:
    problem = functools.partial(md5_problem, expected=hashlib.md5(CONTENT).hexdigest())
    return RemoteFile("Set/some file.gz", "set/some file.gz", urls, problem)


@pytest.fixture(autouse=True)
def _no_mirror_and_no_proxy(monkeypatch, request):
    if "real_data" not in request.fixturenames:
        monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    """A local web server with the file; ``ranges`` and ``sends`` say how it behaves, ``starts`` what it was asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/set/some%20file.gz":
                return self.send_error(404, "no such file")
            asked = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            self.server.starts.append(asked)
            start = asked if self.server.ranges else 0
            if start >= len(CONTENT):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(self.server.content[start:start + self.server.sends])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.ranges, server.sends, server.starts, server.content = True, len(CONTENT), [], CONTENT
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folder_mirror(tmp_path) -> Path:
    (tmp_path / "mirror/set").mkdir(parents=True)
    (tmp_path / "mirror/set/some file.gz").write_bytes(CONTENT)
    return tmp_path / "mirror"


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_fetch_from_a_folder(folder_mirror, tmp_path, capsys):
    root = tmp_path / "root"
    fetch([remote()], root, mirror=folder_mirror)
    assert files_in(root) == {"some file.gz": CONTENT}
    assert "some file.gz" in capsys.readouterr().err
    (folder_mirror / "set/some file.gz").unlink()
    fetch([remote()], root, mirror=folder_mirror, progress=False)  # it is there: the mirror is not asked
    assert capsys.readouterr().err == ""


def test_many_may_download_at_once(server, tmp_path, capsys, at_once):
    file = remote(server.address + "/set/some%20file.gz")
    assert at_once(lambda: fetch([file], tmp_path / "root", progress=False)) == []
    assert files_in(tmp_path / "root") == {"some file.gz": CONTENT}
    assert server.starts == [0]
    assert set(capsys.readouterr().err.splitlines()) <= {
        "some file.gz: waiting for another process, which downloads it"}


def test_the_mirror_can_come_from_the_environment(folder_mirror, tmp_path, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, str(folder_mirror))
    fetch([remote()], tmp_path / "root", progress=False)
    assert files_in(tmp_path / "root") == {"some file.gz": CONTENT}


def test_a_damaged_file_in_place_is_replaced(folder_mirror, tmp_path):
    place = tmp_path / "root/Set/some file.gz"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"half")
    fetch([remote()], tmp_path / "root", folder_mirror, progress=False)
    assert place.read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_resumes(server, tmp_path, ranges):
    server.ranges, server.sends = ranges, 1000
    with pytest.raises(DataError, match=r"127.0.0.1.*stopped after 1000 of 10240 bytes; run it again to resume"):
        fetch([remote()], tmp_path, server.address, progress=False)
    assert files_in(tmp_path) == {"some file.gz.part": CONTENT[:1000]}
    server.sends = len(CONTENT)
    fetch([remote()], tmp_path, server.address, progress=False)
    assert files_in(tmp_path) == {"some file.gz": CONTENT}
    assert server.starts == [0, 1000]


@pytest.mark.parametrize("left", [b"from another file", CONTENT, CONTENT + b"and more"])
def test_what_was_left_of_another_download_does_no_harm(server, tmp_path, left):
    (tmp_path / "Set").mkdir()
    (tmp_path / "Set/some file.gz.part").write_bytes(left)
    fetch([remote()], tmp_path, server.address, progress=False)
    assert files_in(tmp_path) == {"some file.gz": CONTENT}


def test_sources_are_tried_in_order(server, tmp_path):
    nowhere = f"{server.address}/nowhere.gz"
    fetch([remote(nowhere, f"{server.address}/set/some%20file.gz")], tmp_path, progress=False)
    assert files_in(tmp_path) == {"some file.gz": CONTENT}
    with pytest.raises(DataError, match="404 no such file"):
        fetch([remote(nowhere)], tmp_path / "other", progress=False)
    assert files_in(tmp_path / "other") == {}


def test_without_a_network_the_error_names_address_and_mirror(tmp_path):
    with pytest.raises(DataError) as error:
        fetch([remote("http://127.0.0.1:9/some%20file.gz")], tmp_path, progress=False)
    for part in ("some file.gz", "http://127.0.0.1:9/some%20file.gz: ", "refused", MIRROR_VARIABLE):
        assert part in str(error.value)
    assert files_in(tmp_path) == {}


def test_a_mirror_that_is_wrong_damaged_or_incomplete(server, folder_mirror, tmp_path):
    with pytest.raises(DataError, match="'no/such/folder' is neither a folder nor an http"):
        fetch([remote()], tmp_path / "root", "no/such/folder", progress=False)
    server.content = CONTENT[::-1]
    with pytest.raises(DataError, match=r"what it sent is damaged: its md5 is \w+, expected \w+"):
        fetch([remote()], tmp_path / "root", server.address, progress=False)
    (folder_mirror / "set/some file.gz").unlink()
    with pytest.raises(DataError, match=r"some%20file.gz: .*No such file"):
        fetch([remote()], tmp_path / "root", folder_mirror, progress=False)
    assert files_in(tmp_path / "root") == {}


def test_a_full_disk(folder_mirror, tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full, which plays the full disk")
    (tmp_path / "root/Set").mkdir(parents=True)
    (tmp_path / "root/Set/some file.gz.part").symlink_to(full)
    with pytest.raises(DataError, match=r"cannot write .*some file.gz.part: No space left on device"):
        fetch([remote()], tmp_path / "root", folder_mirror, progress=False)


def test_a_folder_that_cannot_be_written(folder_mirror, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot make the folder .*file/Set"):
        fetch([remote()], tmp_path / "file", folder_mirror, progress=False)
    (tmp_path / "root/Set/some file.gz.part").mkdir(parents=True)  # root may write everywhere, but not to a folder
    with pytest.raises(DataError, match=r"cannot write .*some file.gz.part: Is a directory"):
        fetch([remote()], tmp_path / "root", folder_mirror, progress=False)


# --- the validation part


def test_the_validation_part_is_the_last_of_the_training_data():
    data = load_dataset("digits")
    held = data.hold_out(137)
    assert torch.equal(torch.cat([held.train.x, held.validation.x]), data.train.x)
    assert torch.equal(held.validation.y, data.train.y[-137:])
    assert (held.measured, data.measured) == (held.validation, data.test)


def test_a_validation_part_divides_no_group():
    groups = torch.tensor([3, 3, 5, 5, 5, 8])
    data = Dataset("grouped", Split(torch.rand(6, 2), groups=groups), Split(torch.rand(2, 2)), likelihood="bernoulli")
    assert data.hold_out(1).validation.groups.tolist() == [8]
    assert data.hold_out(2).validation.groups.tolist() == [5, 5, 5, 8]
    with pytest.raises(SettingError, match="validation must leave a group of training observations; got 5"):
        data.hold_out(5)


@pytest.mark.parametrize("n", [1437, 5000])
def test_a_validation_part_leaves_something_to_train_on(n):
    with pytest.raises(SettingError, match=f"validation must be an integer of at least 1 and at most 1436; got {n}"):
        load_dataset("digits").hold_out(n)
