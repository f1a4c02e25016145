"""UCI HAR: what a smartphone at the waist measures while its owner walks, climbs stairs, sits, stands or lies.

D. Anguita, A. Ghio, L. Oneto, X. Parra, J. L. Reyes-Ortiz, *A Public Domain Dataset for Human Activity Recognition
Using Smartphones*, ESANN 2013. Thirty volunteers; windows of 2.56 s (128 readings at 50 Hz), half overlapping.

The archive is read in place. It circulates as ``UCI HAR Dataset.zip`` and wrapped in another zip, with differing
checksums, so the md5 of every member that is read is checked instead. Parsing 10,299 × 561 numbers takes seconds: the
arrays are kept beside the archive in a file named after the archive's md5.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from sparse_vae.datasets.base import DataError, Dataset, Split
from sparse_vae.datasets.download import RemoteFile, local_path, md5
from sparse_vae.files import atomic_path
from sparse_vae.settings import Flag, takes_settings

CLASSES = ("walking", "walking upstairs", "walking downstairs", "sitting", "standing", "laying")
SIGNALS = tuple(f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz")
FOLDER = "UCI HAR Dataset"
MEMBERS = {  # md5 of what is read, under FOLDER
    "features.txt": "fa3902d5c37dade96c27045a7151d13b",
    "train/X_train.txt": "8fac6d9d9463c7a7e3620fc9c5b85e46",
    "train/y_train.txt": "03cde39e4f847aea23d3b106428b67d5",
    "train/subject_train.txt": "890ee3bca62ef477e218f241ae84c898",
    "train/Inertial Signals/body_acc_x_train.txt": "e3087d3b90d9351373fadb5ac16b9b9e",
    "train/Inertial Signals/body_acc_y_train.txt": "e61680ffedb484079d27ada3a09f0c41",
    "train/Inertial Signals/body_acc_z_train.txt": "b2a698af509e6e75ca25b7af4942ec9d",
    "train/Inertial Signals/body_gyro_x_train.txt": "956ab35d94c0323b85ca3dd449314ad3",
    "train/Inertial Signals/body_gyro_y_train.txt": "f4640ec2116609e4cba777ce8195a25e",
    "train/Inertial Signals/body_gyro_z_train.txt": "298dba92b1afb1cd66598f4d9c5d176b",
    "train/Inertial Signals/total_acc_x_train.txt": "e1835d381eddf25f87cdd76b8496a66b",
    "train/Inertial Signals/total_acc_y_train.txt": "b6d4340832e2794ac9e00f7399811268",
    "train/Inertial Signals/total_acc_z_train.txt": "1d468f860be0f9c4a85daf647affb024",
    "test/X_test.txt": "360f04607a5dccb14cc183999ec15dfb",
    "test/y_test.txt": "c7d8b43fbf9500662a3fadc8286f6f85",
    "test/subject_test.txt": "7e5b62d345490918cd5ed4aeacc74673",
    "test/Inertial Signals/body_acc_x_test.txt": "518c13e338855fd91d35e19a239839b0",
    "test/Inertial Signals/body_acc_y_test.txt": "98565e3d20ff203fafab963eb12ba4eb",
    "test/Inertial Signals/body_acc_z_test.txt": "bd16672b40a311b2ce7dbe7f6885a9fb",
    "test/Inertial Signals/body_gyro_x_test.txt": "764c3c88a640f438283b0522513453a5",
    "test/Inertial Signals/body_gyro_y_test.txt": "827df00364700315c2cd8470823c99a5",
    "test/Inertial Signals/body_gyro_z_test.txt": "8077511168efaa1d2b1cada53b8127ce",
    "test/Inertial Signals/total_acc_x_test.txt": "128ac90197f2df2898b0c7a7dd17b99e",
    "test/Inertial Signals/total_acc_y_test.txt": "581719b307415ea5f5fd0bd508624c79",
    "test/Inertial Signals/total_acc_z_test.txt": "c8b3276a850155d67df345709e30087a",
}


@takes_settings({
    "signals": Flag(False, "the nine raw inertial signals of 128 readings instead of the 561 published features"),
})
def load_uci_har(signals: bool, root: str | Path = "data") -> Dataset:
    """Smartphone motion of 30 people in six activities, 7,352 + 2,947 windows of 2.56 s (Anguita et al. 2013).

    The split is the official one, 21 people against 9; ``groups`` says who, 1..30. Values are as published: features
    ``(n, 561)`` in [-1, 1], whose names partly repeat, or signals in the order of ``SIGNALS``, ``(n, 9, 128)``,
    accelerations in units of g and angular velocities in rad/s.
    """
    [file] = uci_har_files()
    archive = local_path(file, root, "uci-har")
    arrays = _arrays(archive, "signals" if signals else "features")
    train, test = (Split(x=torch.from_numpy(arrays[f"{part}_x"]), y=torch.from_numpy(arrays[f"{part}_y"]),
                         groups=torch.from_numpy(arrays[f"{part}_subject"])) for part in ("train", "test"))
    return Dataset("uci-har", train, test, likelihood="gaussian", classes=CLASSES,
                   feature_names=() if signals else tuple(arrays["names"].tolist()))


def uci_har_files() -> list[RemoteFile]:
    """The archive. What comes from the public address is the wrapped one; it is read just the same."""
    return [RemoteFile(
        path="UCI-HAR/UCI HAR Dataset.zip",
        mirror_path="uci-har/UCI HAR Dataset.zip",
        urls=("https://archive.ics.uci.edu/static/public/240/human+activity+recognition+using+smartphones.zip",),
        problem=_problem,
    )]


def _arrays(archive: Path, kind: str) -> dict[str, np.ndarray]:
    cache = archive.with_name(f"{kind}-{md5(archive)[:12]}.npz")
    # a cache that is absent or damaged is made anew
    with contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile), np.load(cache) as arrays:
        return dict(arrays)
    arrays = _parse(archive, kind)
    with contextlib.suppress(OSError), atomic_path(cache) as temporary:  # a folder that cannot be written: no cache
        np.savez(temporary, **arrays)  # type: ignore[arg-type]  # an array might be called allow_pickle
    return arrays


def _parse(archive: Path, kind: str) -> dict[str, np.ndarray]:
    try:
        members = _open(archive)
        arrays = {"names": np.array([line.split()[1] for line in _read(members, "features.txt").splitlines()])}
        for part in ("train", "test"):
            arrays[f"{part}_y"] = _numbers(members, f"{part}/y_{part}.txt").astype(np.int64) - 1
            arrays[f"{part}_subject"] = _numbers(members, f"{part}/subject_{part}.txt").astype(np.int64)
            n = len(arrays[f"{part}_y"])
            if kind == "features":
                x = _numbers(members, f"{part}/X_{part}.txt").reshape(n, -1)
            else:
                x = np.stack([_numbers(members, f"{part}/Inertial Signals/{signal}_{part}.txt").reshape(n, -1)
                              for signal in SIGNALS], axis=1)
            arrays[f"{part}_x"] = x.astype(np.float32)
    except _Damaged as error:
        raise DataError(f"{archive} is damaged: {error}. `sparse-vae download uci-har` replaces it") from error
    return arrays


class _Damaged(Exception):
    """An archive that is not what was published."""


def _problem(path: Path) -> str:
    try:
        members = _open(path)
        for member in MEMBERS:
            _read(members, member)
    except _Damaged as error:
        return str(error)
    return ""


def _open(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
        wrapped = f"{FOLDER}.zip"
        return zipfile.ZipFile(io.BytesIO(archive.read(wrapped))) if wrapped in archive.namelist() else archive
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _Damaged(f"it is not a whole zip archive ({error})") from error


def _read(archive: zipfile.ZipFile, member: str) -> str:
    try:
        content = archive.read(f"{FOLDER}/{member}")
    except KeyError as error:
        raise _Damaged(f"it has no member {FOLDER}/{member}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _Damaged(f"its member {FOLDER}/{member} cannot be unpacked ({error})") from error
    found = hashlib.md5(content).hexdigest()
    if found != MEMBERS[member]:
        raise _Damaged(f"its member {FOLDER}/{member} has md5 {found}, expected {MEMBERS[member]}")
    return content.decode("ascii")


def _numbers(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    return np.fromstring(_read(archive, member), sep=" ")
