"""Places for what is not finished: private, and cleaned up after whoever was killed.

Owners hold a lock on what is theirs, which the kernel drops with the process; what nobody holds is
litter.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

_PREFIX = "scratch-"
_LOCK = "lock"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in DATA_DIR, where the database's content is at home already: what is in it is not
    encrypted and must not be written anywhere else."""
    home: Path = settings.DATA_DIR
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for litter in home.glob(f"{_PREFIX}*"):
        _remove_if_left(litter)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_if_left(folder: Path) -> None:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:  # being made or removed at this moment, or none of ours
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


def lock_unfinished(descriptor: int) -> None:
    """Say that somebody is writing this file."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def remove_unfinished(folder: Path, pattern: str) -> None:
    """Files that nobody is writing any more."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in it last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
