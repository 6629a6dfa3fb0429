"""What a backup holds beside the database: files that the data belongs with, and, when asked, keys.

Not in it: logs, the model, mails written to the outbox, and the database file, which the database's
own part of the backup is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from django.conf import settings

from monitoring.backups.archive import ArchiveWriter, Digesting
from monitoring.backups.errors import DamagedBackup
from monitoring.backups.manifest import FILES, KEYS, File

FOLDERS = ("audit",)  # of DATA_DIR: the audit trail's checkpoints and archives
_KEY_FILES = "*.key"  # in these folders; secrets like those of `.env`
_SECRETS = ("SECRET_KEY", "AUDIT_KEY", "AUDIT_SIGNING_KEY", "ENGINE_API_KEY", "METRICS_TOKEN")
# Data made with these cannot be read or checked with others.
_PRINTED = ("SECRET_KEY", "AUDIT_KEY")
_PRINT_BYTES = 8


class Files:
    """Files that go with a snapshot of the database, which is to be taken after this is made.

    What lies in a folder itself tells of the database (the audit trail's checkpoints) and is copied
    before: a snapshot may know more than a checkpoint, and must not know less. What lies deeper is
    referred to by the database (archives of its rows), and is there before the rows are gone.
    """

    def __init__(self, folder: Path) -> None:
        self._copies: dict[str, Path] = {}
        for path in _files(of=Path.glob):
            if not path.match(_KEY_FILES):
                copy = folder / f"file-{len(self._copies)}"
                shutil.copyfile(path, copy)
                self._copies[_name(path)] = copy

    def add(self, archive: ArchiveWriter, *, with_keys: bool) -> list[File]:
        deeper = {_name(path): path for path in _files(of=Path.rglob)}
        found = {**{name: path for name, path in deeper.items() if _is_deep(name)}, **self._copies}
        written = []
        for name, path in sorted(found.items()):
            with path.open("rb") as file:
                written.append(_as_file(name, archive.add_file(name, file)))
        for name, content in _keys().items() if with_keys else ():
            with archive.entry(KEYS + name) as entry:
                entry.write(content)
            written.append(_as_file(KEYS + name, entry))
        return written


def _files(*, of: Callable[[Path, str], Iterator[Path]]) -> list[Path]:
    found = [path for name in FOLDERS for path in sorted(of(settings.DATA_DIR / name, "*"))]
    return [path for path in found if path.is_file() and not path.is_symlink()]


def _name(path: Path) -> str:
    return FILES + path.relative_to(settings.DATA_DIR).as_posix()


def _is_deep(name: str) -> bool:
    return name.removeprefix(FILES).count("/") > 1


def key_prints() -> dict[str, str]:
    """Tell whether two secrets are the same, without saying what they are."""
    return {name: _print(getattr(settings, name)) for name in _PRINTED}


def changed_keys(prints: dict[str, str]) -> list[str]:
    return [name for name in _PRINTED if prints.get(name) != _print(getattr(settings, name))]


class Unpacked:
    """Files of a backup under `folder`, until they get their place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: list[File] = []

    def takes(self, name: str) -> bool:
        return name.startswith((FILES, KEYS))

    def load(self, name: str, blocks: Iterator[bytes]) -> None:
        path = self._folder / _checked(name)
        # One by one: `parents=True` would leave all but the last to the umask.
        for parent in reversed(path.relative_to(self._folder).parents):
            (self._folder / parent).mkdir(mode=0o700, exist_ok=True)
        seen = Digesting()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for block in blocks:
                seen.add(block)
                file.write(block)
        self.files.append(_as_file(name, seen))

    def put_in_place(self, *, stamp: str) -> None:
        """Give each folder its place, the present one being kept aside. Keys stay unpacked: see
        `put_keys`."""
        for name in FOLDERS:
            change_folder(name, self._folder / FILES / name, stamp=stamp)

    def put_keys(self, *, stamp: str) -> Path:
        """Put keys where nothing uses them by itself: the folder."""
        target: Path = settings.DATA_DIR / f"keys-of-backup-{stamp}"
        (self._folder / KEYS).rename(target)
        return target


def change_folder(name: str, successor: Path, *, stamp: str) -> None:
    here = settings.DATA_DIR / name
    if here.exists():
        here.rename(aside(name, stamp))
    if successor.is_dir():
        successor.rename(here)
    # They are in no backup and belong to the machine: it signs on as who it was, also when an undo
    # brings back a folder that still has a key from before it was changed.
    for key in aside(name, stamp).glob(_KEY_FILES):
        here.mkdir(mode=0o700, exist_ok=True)
        shutil.copy2(key, here / key.name)


def aside(name: str, stamp: str) -> Path:
    kept: Path = settings.DATA_DIR / f"{name}.before-restore-{stamp}"
    return kept


def _keys() -> dict[str, bytes]:
    """`.env` as it is, and each secret by its name, wherever it came from: usable as NAME_FILE."""
    found = {name: getattr(settings, name) for name in _SECRETS}
    found["JWT_SIGNING_KEYS"] = settings.JWT_KEYS_TEXT
    keys = {name: value.encode() for name, value in found.items() if value}
    for path in _files(of=Path.glob):
        if path.match(_KEY_FILES):
            keys[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    if settings.DOTENV_FILE.is_file():
        keys[".env"] = settings.DOTENV_FILE.read_bytes()
    return keys


def _print(value: str) -> str:
    return hashlib.sha256(b"sovereigncore.backup.key_print" + value.encode()).hexdigest()[
        : _PRINT_BYTES * 2
    ]


def _as_file(name: str, seen: Digesting) -> File:
    return File(name=name, size_bytes=seen.size, sha256=seen.sha256)


def _checked(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DamagedBackup(f"The backup holds a file of an impossible name: {name!r}.")
    return path
