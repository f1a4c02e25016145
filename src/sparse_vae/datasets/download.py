"""Fetching public files: verified, resumable, from their origin or from a mirror.

A file is written next to its place as ``NAME.part`` and moved there once it has been verified, so what lies in its
place is always whole. An interrupted download resumes where it stopped if the server allows it (HTTP Range).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from sparse_vae.datasets.base import DataError
from sparse_vae.files import exclusive_folder, make_folder

MIRROR_VARIABLE = "SPARSE_VAE_MIRROR"
MIRROR_HINT = (f"without internet, set {MIRROR_VARIABLE} to a folder or an http(s) address that holds a copy "
               "(data/README.md shows its layout)")
CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without a byte before a source is given up


class RemoteFile(NamedTuple):
    """A file that a data set needs and where to get it.

    Attributes:
        path: its place under the data folder.
        mirror_path: its place under a mirror.
        urls: its public addresses, in the order in which they are tried.
        problem: what is wrong with a local copy, in words; an empty string if nothing is.
    """

    path: str
    mirror_path: str
    urls: tuple[str, ...]
    problem: Callable[[Path], str]


def md5_problem(path: Path, expected: str) -> str:
    """What is wrong with the file if its md5 is not the expected one, else an empty string."""
    found = md5(path)
    return "" if found == expected else f"its md5 is {found}, expected {expected}"


def md5(path: Path) -> str:
    """The md5 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def local_path(file: RemoteFile, root: str | Path, dataset: str) -> Path:
    """Where the file lies under ``root``; a :class:`DataError` that says how to get it if it does not."""
    path = Path(root) / file.path
    if not path.is_file():
        raise DataError(f"data set {dataset!r} needs {path.name}, which is not in {path.parent}: run `make download` "
                        f"or `sparse-vae download {dataset}`; {MIRROR_HINT}")
    return path


def verified_path(file: RemoteFile, root: str | Path, dataset: str) -> Path:
    """As :func:`local_path`, and a :class:`DataError` too if the file is damaged."""
    path = local_path(file, root, dataset)
    if problem := file.problem(path):
        raise DataError(f"{path} is damaged: {problem}. `sparse-vae download {dataset}` replaces it")
    return path


def fetch(files: Iterable[RemoteFile], root: str | Path = "data", mirror: str | Path | None = None,
          progress: bool = True) -> None:
    """Download the files that are not yet whole under ``root``.

    Args:
        files: what to get.
        root: the data folder, made if need be.
        mirror: a folder or an http(s) address that is used instead of the public addresses; if None, the environment
            variable ``SPARSE_VAE_MIRROR``; if that is not set either, the public addresses.
        progress: whether to show a bar, in bytes.

    Raises:
        DataError: no source has the file whole, or it cannot be written. What had arrived stays as ``NAME.part``.
    """
    mirror = mirror or os.environ.get(MIRROR_VARIABLE)
    for file in files:
        target = Path(root) / file.path
        if _is_whole(file, target):
            continue
        try:
            make_folder(target.parent)
        except OSError as error:
            raise DataError(f"cannot make the folder {target.parent}: {error.strerror}") from error
        waiting = partial(print, f"{target.name}: waiting for another process, which downloads it", file=sys.stderr)
        with exclusive_folder(target.parent, on_wait=waiting):
            if not _is_whole(file, target):
                _fetch_one(file, target, [_mirror_url(mirror, file)] if mirror else file.urls, progress)


def _is_whole(file: RemoteFile, path: Path) -> bool:
    return path.is_file() and not file.problem(path)


def _mirror_url(mirror: str | Path, file: RemoteFile) -> str:
    # a folder becomes a file: address, so that one way of reading serves both
    address = str(mirror)
    if not address.startswith(("http://", "https://")):
        folder = Path(mirror).expanduser()
        if not folder.is_dir():
            raise DataError(f"the mirror {address!r} is neither a folder nor an http(s) address")
        address = folder.resolve().as_uri()
    return f"{address.rstrip('/')}/{urllib.parse.quote(file.mirror_path)}"


def _fetch_one(file: RemoteFile, target: Path, urls: Iterable[str], progress: bool) -> None:
    part = target.with_name(target.name + ".part")
    failures = []
    for url in urls:
        try:
            resumed = _transfer(url, part, progress)
            problem = file.problem(part)
            if problem and resumed:  # the first half may have come from another copy: once more, from the start
                part.unlink()
                _transfer(url, part, progress)
                problem = file.problem(part)
        except _SourceError as error:
            failures.append(f"{url}: {error}")
            continue
        if not problem:
            os.replace(part, target)
            return
        part.unlink()
        failures.append(f"{url}: what it sent is damaged: {problem}")
    raise DataError("\n  ".join([f"could not download {target.name}:", *failures, MIRROR_HINT]))


class _SourceError(Exception):
    """A source that does not answer, does not have the file, or stops before its end."""


def _transfer(url: str, part: Path, progress: bool) -> bool:
    """Write what ``url`` sends to ``part``, after what ``part`` holds already; whether anything was kept."""
    try:
        start = part.stat().st_size if part.exists() else 0
        with _open(url, start) as response:
            # a server without Range, and a folder, answer with the whole file and no status 206
            start = start if response.status == http.client.PARTIAL_CONTENT else 0
            length = int(response.headers.get("Content-Length", 0))  # 0: not known
            with open(part, "ab" if start else "wb") as out, tqdm(
                    desc=part.stem, total=start + length if length else None, initial=start, unit="B", unit_scale=True,
                    unit_divisor=1024, disable=not progress) as bar:
                for chunk in _chunks(response, length):
                    out.write(chunk)
                    bar.update(len(chunk))
    except OSError as error:  # what the network raises is a _SourceError by now: this is the disk
        raise DataError(f"cannot write {part}: {error.strerror}") from error
    return start > 0


def _open(url: str, start: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "sparse-vae"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if start and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _open(url, 0)
        raise _SourceError(f"{error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _SourceError(getattr(error, "reason", None) or error) from error


def _chunks(response: http.client.HTTPResponse, length: int) -> Iterator[bytes]:
    received = 0
    try:
        while chunk := response.read(CHUNK):
            received += len(chunk)
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _SourceError(f"stopped after {received} bytes ({error}); run it again to resume") from error
    if received < length:
        raise _SourceError(f"stopped after {received} of {length} bytes; run it again to resume")
