"""A backup that was opened: what it is, and its content into a scratch database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from django.conf import settings
from django.db import connection

from monitoring.backups import schema
from monitoring.backups.archive import ArchiveReader, read_json
from monitoring.backups.database import Scratch
from monitoring.backups.errors import BackupFailed, DamagedBackup, ForeignBackup
from monitoring.backups.files import Unpacked
from monitoring.backups.manifest import (
    ABOUT,
    MANIFEST,
    PRODUCT,
    About,
    Manifest,
    differences,
    parse_about,
    parse_manifest,
)

_VENDORS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


class Backup:
    """Raises BackupRefused unless, as far as its start tells, it can be restored here."""

    def __init__(self, file: BinaryIO) -> None:
        reader = ArchiveReader(file, key=the_key())
        self._entries = reader.entries()
        name, blocks = next(self._entries, ("", iter(())))
        if name != ABOUT:
            raise DamagedBackup("The backup does not begin by saying what it is.")
        self.about: About = parse_about(read_json(blocks))
        if self.about.product != PRODUCT:
            raise ForeignBackup(f"This is a backup of {self.about.product!r}.")
        if self.about.vendor != connection.vendor:
            raise ForeignBackup(
                f"This is a backup of a {_VENDORS.get(self.about.vendor)} database;"
                f" DATABASE_URL names a {_VENDORS.get(connection.vendor)} one."
            )
        schema.refuse_unknown(self.about.migrations)

    def unpack(self, scratch: Scratch, files: Unpacked) -> Manifest:
        """Everything in it, compared with what it says was in it. Raises DamagedBackup."""
        manifest: Manifest | None = None
        for name, blocks in self._entries:
            if manifest is not None:
                raise DamagedBackup("The backup goes on after its end.")
            if scratch.takes(name):
                scratch.load(name, blocks)
            elif files.takes(name):
                files.load(name, blocks)
            elif name == MANIFEST:
                manifest = parse_manifest(read_json(blocks))
            else:
                raise DamagedBackup(f"The backup holds something unknown: {name!r}.")
        if manifest is None:
            raise DamagedBackup("The backup does not say what should be in it.")
        wrong = differences(manifest.tables, scratch.tables())
        if files.files != manifest.files:
            wrong.append("the files beside the database are not those that were saved")
        if wrong:
            raise DamagedBackup(f"What the backup gives is not what was saved: {'; '.join(wrong)}.")
        return manifest


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Backup]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise BackupFailed(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        yield Backup(file)


def the_key() -> str:
    key: str = settings.BACKUP_KEY
    if not key:
        raise BackupFailed(
            "BACKUP_KEY is not set. Backups are encrypted with it: put one in `.env`, and a copy of"
            " it where the backups are not."
        )
    return key
