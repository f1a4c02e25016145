"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
