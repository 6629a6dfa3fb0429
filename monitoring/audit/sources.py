"""Where the audit trail is read from: archive files and tables together, or one file by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

import orjson
from django.conf import settings
from django.db import connection
from django.db.models import Exists, OuterRef

from monitoring.audit import append_only, chaining, files, tables
from monitoring.audit.digests import keyed, moment
from monitoring.audit.tables import Row
from monitoring.audit.verification import Report, Verification
from monitoring.models import AuditArchive, AuditEvent, AuditSeal

_SEALS_AT_ONCE = 50
_ATTEMPTS = 3
_ORPHANS_NAMED = 20

Counted = Callable[[Iterable[Row]], Iterable[Row]]


def verify_database(
    begin: Callable[[], Verification], *, with_archives: bool = True, counted: Counted = iter
) -> Report:
    """The whole trail: archive files, then the tables, which may go on growing meanwhile.

    `begin` makes the verification, anew when old rows were archived in the middle of it.
    """
    for _ in range(_ATTEMPTS):
        archived = AuditArchive.objects.count()
        verification = begin()
        _verify_all(verification, with_archives=with_archives, counted=counted)
        if AuditArchive.objects.count() == archived:
            break
    if missing := append_only.missing(connection):
        # No problem by itself: it says what could have been done, and the rest tells what was.
        verification.report.notes.append(
            "WARNING: triggers that keep the trail append-only are not there:"
            f" {', '.join(missing)}."
        )
    return verification.finish()


def verify_file(verification: Verification, path: Path, *, counted: Counted = iter) -> Report:
    """An archive or an export. What it says was before it is taken so; a checkpoint proves it. What
    came after it is no fault of the file, and told."""
    report = verification.report
    try:
        reader = files.Reader(path)
        beginning = reader.beginning
        if beginning.first_seal > 1:
            verification.go_on_from(seal=beginning.first_seal, chain=beginning.previous)
            report.notes.append(f"What was before seal {beginning.first_seal} is not in this file.")
        for seal, rows in reader.batches():
            verification.verify_batch(seal, counted(rows))
        verification.verify_unsealed(counted(reader.unsealed()))
    except (files.BadFile, OSError) as error:
        report.add("archive", 0, f"{path.name}: {error}.")
    return verification.finish(is_part=True)


def count_of_rows(*, with_archives: bool) -> int:
    """About how many there are to verify, without counting them."""
    counts = list(AuditSeal.objects.values_list("count", flat=True))
    if with_archives:
        counts += AuditArchive.objects.values_list("count", flat=True)
    return sum(counts) + AuditEvent.objects.all().unsealed().count()


def batches(*, first: int, last: int) -> Iterator[files.Batch]:
    """The seals from the tables, each with the rows that name it."""
    while seals := list(tables.seals(first=first, last=last, limit=_SEALS_AT_ONCE)):
        rows = tables.sealed(first=seals[0].id, last=seals[-1].id)
        groups = groupby(rows, key=lambda row: row.seal or 0)
        number, group = next(groups, (0, iter(())))
        for seal in seals:
            while 0 < number < seal.id:  # rows of a seal that is not there
                number, group = next(groups, (0, iter(())))
            if number == seal.id:
                yield seal, group
                number, group = next(groups, (0, iter(())))
            else:
                yield seal, iter(())
        first = seals[-1].id + 1


def archive_path(archive: AuditArchive) -> Path:
    # The name alone: what a table says must not lead elsewhere.
    return Path(settings.AUDIT_DIR) / "archive" / Path(archive.file_name).name


def archive_digest(archive: AuditArchive) -> bytes:
    said = [
        *(archive.first_seal, archive.last_seal, archive.last_id, archive.count),
        *(bytes(archive.chain).hex(), archive.file_name, bytes(archive.file_digest).hex()),
        *(archive.size_bytes, moment(archive.archived_at)),
    ]
    return keyed(b"archive:" + orjson.dumps(said))


def _verify_all(verification: Verification, *, with_archives: bool, counted: Counted) -> None:
    head = chaining.head()
    for archive in AuditArchive.objects.order_by("first_seal"):
        if archive.first_seal != verification.next_seal:
            why = f"The archive {archive.file_name} does not follow on the one before it."
            verification.report.add("archive", archive.id, why)
        if archive_digest(archive) != bytes(archive.digest):
            verification.report.add(
                "archive", archive.id, f"The record of {archive.file_name} was changed."
            )
        if with_archives:
            _verify_archive(verification, archive, counted)
        # Whatever is wrong with the file, the rest is judged by itself.
        verification.go_on_from(
            seal=archive.last_seal + 1, chain=bytes(archive.chain), last_id=archive.last_id
        )
    last_seal = head.seal if head else 0
    for seal, rows in batches(first=verification.next_seal, last=last_seal):
        verification.verify_batch(seal, counted(rows))
    verification.verify_unsealed(counted(tables.unsealed(after_seal=last_seal)))
    _name_orphans(verification.report)


def _verify_archive(verification: Verification, archive: AuditArchive, counted: Counted) -> None:
    path, report = archive_path(archive), verification.report
    try:
        if files.digest_of(path)[0] != bytes(archive.file_digest):
            report.add("archive", archive.id, f"The archive {path.name} was changed.")
        reader = files.Reader(path)
        for seal, rows in reader.batches():
            verification.verify_batch(seal, counted(rows))
        for row in reader.unsealed():
            report.add("row", row.id, f"Row {row.id} in {path.name} has no seal.")
    except (files.BadFile, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        report.add("archive", archive.id, f"The archive {path.name} cannot be read: {why}.")
        return
    if (verification.next_seal, verification.chain) != (
        archive.last_seal + 1,
        bytes(archive.chain),
    ):
        report.add("archive", archive.id, f"The archive {path.name} ends otherwise than recorded.")


def _name_orphans(report: Report) -> None:
    known = AuditSeal.objects.filter(id=OuterRef("seal_id"))
    orphans = AuditEvent.objects.exclude(seal=None).exclude(Exists(known)).order_by("id")
    for number, seal in orphans.values_list("id", "seal_id")[:_ORPHANS_NAMED]:
        report.add("row", number, f"Row {number} names seal {seal}, which is not there.")
