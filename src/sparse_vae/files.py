"""Files and folders that appear whole or not at all, or are held by one process at a time, or lie in ZIP archives."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def replace(new: Path, path: Path) -> None:
    """Move ``new``, a file or a folder, to ``path`` on the same disk, in place of what is there."""
    if not path.is_dir():
        os.replace(new, path)
        return
    # A folder cannot be renamed onto one that is not empty: the old one steps aside first.
    old = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.old")
    os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make the folder ``path`` if need be; that another process makes or removes it meanwhile does not matter."""
    while True:
        try:
            return path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # also where it was removed just after that: then once more
            with suppress(FileNotFoundError):
                if not stat.S_ISDIR(path.lstat().st_mode) and not path.is_dir():  # a file, or a link to none
                    raise


def read_file(path: Path) -> bytes:
    """What a file holds, or a member of a ZIP archive, which is named as if the archive were a folder.

    Raises:
        OSError: it is missing, a :class:`FileNotFoundError`, or it or its archive cannot be read.
    """
    archive = next((parent for parent in path.parents if parent.is_file()), None)
    if archive is None:
        return path.read_bytes()
    try:
        with zipfile.ZipFile(archive) as file:
            return file.read(path.relative_to(archive).as_posix())
    except KeyError as error:
        raise FileNotFoundError(*error.args) from error
    except Exception as error:  # of many kinds, by what is damaged
        raise OSError(*error.args) from error


@contextmanager
def exclusive_folder(path: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Make the folder ``path`` if need be and hold it: another process that asks for it waits until the block ends, and
    calls ``on_wait`` first.

    The block may remove the folder. On a file system that knows no locks for folders nobody waits.
    """
    while True:
        make_folder(path)
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # who held it has removed it just now
            continue
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:  # no locks here
                pass
            if _is_at(path, handle):
                yield
                return
        finally:
            os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    """Whether what is open lies there still."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` when the block ends without an error.

    What is written there, a file or a folder, lies in the same folder, which is made if need be, and has the same
    suffix. If the block fails, it is removed and ``path`` stays as it was; so a reader never sees half of it.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "numbers.csv"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("1,2,3")
    >>> target.read_text()
    '1,2,3'
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
