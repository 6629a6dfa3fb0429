"""Making a backup. Under its name there is a whole one or nothing, whenever it is interrupted."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import structlog
from django.conf import settings
from django.db import connection
from django.utils import timezone

from monitoring.backups import files, records
from monitoring.backups.archive import ArchiveWriter
from monitoring.backups.database import Snapshot, kind
from monitoring.backups.errors import BackupFailed
from monitoring.backups.failures import EXPECTED, explain
from monitoring.backups.manifest import ABOUT, MANIFEST, PRODUCT, About, AuditHead, Manifest
from monitoring.backups.reading import the_key
from monitoring.backups.schema import APPLIED
from monitoring.backups.scratch import (
    lock_unfinished,
    remove_unfinished,
    scratch_folder,
    sync_folder,
)

Tell = Callable[[str], None]

SUFFIX = ".backup"
PATTERN = f"{PRODUCT}-*{SUFFIX}"
_UNFINISHED = ".partial"
_AUDIT_HEAD = "SELECT id, digest FROM monitoring_auditevent ORDER BY id DESC LIMIT 1"

log = structlog.get_logger(__name__)


def make_backup(*, folder: Path, with_keys: bool, tell: Tell) -> tuple[Path, Manifest]:
    """A backup in `folder`, on record. Raises BackupFailed, which is on record too."""
    started_at = timezone.now()
    name = f"{PRODUCT}-{started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}{SUFFIX}"
    path = folder / name
    try:
        manifest = _make(path, started_at=started_at, with_keys=with_keys, tell=tell)
    except EXPECTED as error:
        told = explain(error)
        records.note_failure(name, started_at=started_at, error=told)
        log.warning("backup_failed", error=type(error).__name__)
        raise BackupFailed(told) from error
    size_bytes = path.stat().st_size
    if not records.note_made(
        name, started_at=started_at, size_bytes=size_bytes, with_keys=with_keys
    ):
        tell("(Not on record: the database's tables are of another version.)")
    log.info("backup_made", file=name, size_bytes=size_bytes, rows=manifest.rows)
    return path, manifest


def _make(path: Path, *, started_at: datetime, with_keys: bool, tell: Tell) -> Manifest:
    key = the_key()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_unfinished(path.parent, f".{PATTERN}{_UNFINISHED}")
    header = {
        "product": PRODUCT,
        "version": settings.VERSION,
        "instance_id": records.instance_id(),
        "created_at": started_at.astimezone(UTC).isoformat(timespec="seconds"),
    }
    with scratch_folder() as folder, _appearing(path) as file:
        beside = files.Files(folder)
        tell("Taking a snapshot of the database …")
        with kind().snapshot(folder) as snapshot:
            if snapshot.left_out:
                tell(f"Left out, for no migration of ours made it: {', '.join(snapshot.left_out)}.")
            tell("Writing …")
            archive = ArchiveWriter(file, key=key, header=header)
            archive.add_json(ABOUT, asdict(_about(snapshot, header, with_keys=with_keys)))
            manifest = Manifest(
                tables=snapshot.write(archive),
                files=beside.add(archive, with_keys=with_keys),
            )
            archive.add_json(MANIFEST, asdict(manifest))
            archive.finish()
    return manifest


def _about(snapshot: Snapshot, header: dict[str, str], *, with_keys: bool) -> About:
    return About(
        **header,
        vendor=connection.vendor,
        migrations=[(app, name) for app, name in snapshot.fetch(APPLIED)],
        layout=snapshot.layout,
        key_prints=files.key_prints(),
        has_keys=with_keys,
        audit_head=_audit_head(snapshot),
    )


def _audit_head(snapshot: Snapshot) -> AuditHead | None:
    rows = snapshot.fetch(_AUDIT_HEAD)
    return AuditHead(id=rows[0][0], digest=bytes(rows[0][1]).hex()) if rows else None


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file of mode 600 that gets its name at the end, once it is on the disk."""
    unfinished = path.with_name(f".{path.name}{_UNFINISHED}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            lock_unfinished(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
            unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
