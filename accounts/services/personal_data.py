"""Everything held about a person: handed over, or erased."""

from __future__ import annotations

import uuid
import zipfile
from collections.abc import Mapping
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import orjson
import structlog
from django.db import connection, transaction

from accounts import holdings, outbox
from accounts.models import User
from accounts.services.administration import check_authority, keep_a_superuser
from monitoring import audit, personal_data

_IN_MEMORY_BYTES = 5 * 1024 * 1024
_README = """\
Everything that this server holds about you, as JSON: one file a kind of record, newest or oldest
first as it is kept. Times are UTC. Passwords, tokens and keys are kept as digests only, which are
of no use to anybody and are left out.
"""

log = structlog.get_logger(__name__)


def export_user(user: User, *, actor_id: uuid.UUID | None) -> IO[bytes]:
    """A ZIP of JSON files, at its beginning. Large ones are on disk until they are closed."""
    file: IO[bytes] = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - the caller's
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", _README)
        for name, rows in personal_data.export(user.id):
            with archive.open(f"{name}.json", "w") as entry:
                _write_rows(entry, rows)
    audit.record("user.exported", actor_id=actor_id, subject_id=user.id)
    file.seek(0)
    return file


def _write_rows(entry: IO[bytes], rows: personal_data.Rows) -> None:
    """A JSON array, a row at a time: nobody's history has to fit into memory."""
    separator = b"[\n"
    for row in rows:
        entry.write(separator + _json(row))
        separator = b",\n"
    entry.write(b"[]\n" if separator == b"[\n" else b"\n]\n")


def _json(row: Mapping[str, Any]) -> bytes:
    return orjson.dumps(dict(row), default=str)


def erase_user(user: User, *, by: User | None) -> dict[str, int]:
    """Erase a person: rows by kind. What happened stays in the audit trail, by id and no name.

    Raises NeedsSuperuser or LastSuperuser.
    """
    check_authority(user, by=by)
    with transaction.atomic():
        keep_a_superuser(user)
        # Whoever writes rows of this person begins with this one too, so nobody waits in a circle.
        User.objects.select_for_update().filter(pk=user.pk).values_list("pk").first()
        addresses = holdings.addresses_of(user)
        erased = personal_data.erase(user.id)
        audit.record("user.erased", actor_id=by.id if by else None, subject_id=user.id)
    outbox.delete_mentioning(addresses)
    transaction.on_commit(_erase_traces)
    log.info("user_erased", user_id=str(user.id))
    return erased


def _erase_traces() -> None:
    """What SQLite still has of deleted rows: `secure_delete` overwrites them in the database, and
    this empties the journal that they went through."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
