"""Retention: old batches go to files that verify, whatever breaks in between; the rest stays."""

from __future__ import annotations

import gzip
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from pytest_django import Settings

from monitoring import jobs
from monitoring.audit import append_only, archiving, files
from monitoring.audit.archiving import DamagedTrail, archive_audit
from monitoring.audit.sealing import seal_audit
from monitoring.models import AuditArchive, AuditEvent, AuditSeal
from monitoring.tests.test_audit_verification import first, tamper, verified, verify
from monitoring.tests.trail import record, sealed

pytestmark = pytest.mark.django_db

OLD, LATER = timedelta(days=31), timedelta(days=10)


@pytest.fixture(autouse=True)
def _retention(settings: Settings) -> None:
    settings.AUDIT_RETENTION_DAYS = 30


@pytest.fixture
def ids() -> list[int]:
    """Seals 1 and 2 with seven rows are old enough; seal 3 with five is not; one row has none."""
    now = timezone.now()
    with time_machine.travel(now - OLD, tick=True):
        found = sealed(4, 3)
    with time_machine.travel(now - LATER, tick=True):
        found += sealed(5)
    return found + record(1)


def archives(audit_dir: Path) -> list[Path]:
    return sorted((audit_dir / "archive").glob("*"))


def test_it_is_a_job_that_runs_daily() -> None:
    (job,) = [job for job in jobs.all_jobs() if job.name == "archive_audit"]
    assert job.interval == timedelta(days=1)


def test_nothing_is_archived_unless_asked_for(ids: list[int], settings: Settings) -> None:
    settings.AUDIT_RETENTION_DAYS = 0
    assert archive_audit() == 0
    assert AuditEvent.objects.count() == 13


def test_old_batches_go_to_a_file_and_the_trail_goes_on(ids: list[int], audit_dir: Path) -> None:
    assert archive_audit() == 7
    assert list(AuditEvent.objects.order_by("id").values_list("id", flat=True)) == ids[7:]
    assert list(AuditSeal.objects.values_list("id", flat=True)) == [3]
    archive = AuditArchive.objects.get()
    assert (archive.first_seal, archive.last_seal, archive.count) == (1, 2, 7)
    (path,) = archives(audit_dir)
    assert path.name == archive.file_name
    assert path.stat().st_mode & 0o777 == 0o600
    said = verified()
    assert (said["seals"], said["sealed"], said["unsealed"]) == (3, 12, 1)
    assert seal_audit() == 1
    assert verified()["last_seal"] == 4


def test_the_file_holds_whatever_the_rows_held(ids: list[int], audit_dir: Path) -> None:
    before = list(AuditEvent.objects.order_by("id").values()[:7])
    archive_audit()
    reader = files.Reader(archives(audit_dir)[0])
    rows = [row for _, rows in reader.batches() for row in rows]
    assert [(row.id, row.digest, row.seal) for row in rows] == [
        (row["id"], bytes(row["digest"]), row["seal_id"]) for row in before
    ]


def test_an_archive_can_be_verified_by_itself(ids: list[int], audit_dir: Path) -> None:
    archive_audit()
    said = verified("--file", str(archives(audit_dir)[0]))
    assert (said["sealed"], said["unsealed"]) == (7, 0)


def test_once_archived_nothing_is_left_to_do(ids: list[int], audit_dir: Path) -> None:
    archive_audit()
    assert archive_audit() == 0
    assert len(archives(audit_dir)) == 1


def test_the_newest_seal_stays_whatever_its_age() -> None:
    with time_machine.travel(timezone.now() - OLD, tick=True):
        sealed(2)
    assert archive_audit() == 0
    assert AuditEvent.objects.count() == 2


def test_large_trails_make_several_files(
    ids: list[int], audit_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "_ROWS_A_FILE", 3)
    monkeypatch.setattr(archiving, "_ROWS_AT_ONCE", 1)
    assert archive_audit() == 7
    assert [path.name for path in archives(audit_dir)] == [
        "audit-000000001-000000001.jsonl.gz",
        "audit-000000002-000000002.jsonl.gz",
    ]
    assert verified()["sealed"] == 12


class Killed(BaseException):
    pass


@pytest.mark.parametrize("die_at", ["file", "row", "prune", "between"])
def test_what_a_killed_job_left_is_gone_on_with(
    ids: list[int], audit_dir: Path, monkeypatch: pytest.MonkeyPatch, die_at: str
) -> None:
    def die(*args: Any, **kwargs: Any) -> None:
        raise Killed

    steps = 0

    def die_later(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 2:
            raise Killed
        return prunable(*args, **kwargs)

    prunable = append_only.prunable
    monkeypatch.setattr(archiving, "_ROWS_AT_ONCE", 1)
    with monkeypatch.context() as patch:
        target, name, action = {
            "file": (archiving, "_check", die),
            "row": (AuditArchive, "save", die),
            "prune": (append_only, "prunable", die),
            "between": (append_only, "prunable", die_later),
        }[die_at]
        patch.setattr(target, name, action)
        with pytest.raises(Killed):
            archive_audit()
    assert AuditEvent.objects.count() == {"between": 13 - 4}.get(die_at, 13)
    assert verified()["sealed"] == 12
    assert archive_audit() == {"between": 3}.get(die_at, 7)
    assert len(archives(audit_dir)) == AuditArchive.objects.count() == 1
    assert verified()["sealed"] == 12


def test_what_does_not_verify_is_not_deleted(ids: list[int], audit_dir: Path) -> None:
    tamper(f"UPDATE monitoring_auditevent SET action = 'key.revoked' WHERE id = {ids[2]}")
    append_only.forbid_changes(connection)
    with pytest.raises(DamagedTrail, match=f"Row {ids[2]} was changed"):
        archive_audit()
    assert AuditEvent.objects.count() == 13
    assert not AuditArchive.objects.exists()
    assert archives(audit_dir) == []


# --- Tampering with archives -------------------------------------------------------------------


def test_a_missing_archive_is_named_and_the_rest_verified(ids: list[int], audit_dir: Path) -> None:
    archive_audit()
    (path,) = archives(audit_dir)
    path.unlink()
    said = verify()
    assert first(said)[0] == "archive"
    assert said["problem_count"] == 1
    assert said["sealed"] == 5
    assert verified("--skip-archives")["sealed"] == 5


def test_a_changed_archive_is_found_and_the_row_named(ids: list[int], audit_dir: Path) -> None:
    archive_audit()
    (path,) = archives(audit_dir)
    with gzip.open(path, "rt") as file:
        text = file.read()
    with gzip.open(path, "wt") as file:
        file.write(text.replace('"detail":{"n":2}', '"detail":{"n":3}', 1))
    said = verify()
    assert [(each["kind"], each["id"]) for each in said["problems"]][1] == ("row", ids[2])
    assert first(verify("--file", str(path))) == ("row", ids[2])


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text", "no end", "swapped"])
def test_a_damaged_archive_is_told_and_breaks_nothing(
    ids: list[int], audit_dir: Path, damage: str
) -> None:
    archive_audit()
    (path,) = archives(audit_dir)
    packed = path.read_bytes()
    lines = gzip.decompress(packed).splitlines(keepends=True)
    middle = len(packed) // 2
    path.write_bytes(
        {
            "truncated": packed[:middle],
            "flipped": packed[:middle] + bytes([packed[middle] ^ 1]) + packed[middle + 1 :],
            "empty": b"",
            "text": b"no archive",
            "no end": gzip.compress(b"".join(lines[:-1])),
            "swapped": gzip.compress(b"".join([*lines[:2], lines[3], lines[2], *lines[4:]])),
        }[damage]
    )
    assert first(verify())[0] == "archive"
    assert verify("--file", str(path), "--without-checkpoints")["problem_count"] >= 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE monitoring_auditarchive SET count = count + 1",
        "UPDATE monitoring_auditarchive SET last_id = 1",
        "UPDATE monitoring_auditarchive SET file_name = '../../other'",
        "DELETE FROM monitoring_auditarchive",
    ],
)
def test_a_changed_record_of_an_archive_is_found(ids: list[int], statement: str) -> None:
    archive_audit()
    tamper(statement)
    assert first(verify())[0] in {"archive", "seal"}


# --- The guard ---------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [AuditSeal, AuditArchive])
@pytest.mark.parametrize("verb", ["UPDATE {} SET last_id = last_id", "DELETE FROM {}"])
def test_seals_and_archives_are_append_only_too(ids: list[int], table: Any, verb: str) -> None:
    archive_audit()
    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(verb.format(table._meta.db_table))


def test_rows_that_are_archived_can_be_deleted_in_a_prunable_transaction_only(
    ids: list[int],
) -> None:
    def delete(**of: Any) -> None:
        with transaction.atomic():
            AuditEvent.objects.filter(**of)._raw_delete("default")

    with append_only.prunable(connection, last_seal=1):
        for beyond in ({"seal_id": 2}, {"seal": None}):
            with pytest.raises(DatabaseError, match="append-only"):
                delete(**beyond)
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            AuditEvent.objects.filter(seal_id=1).update(action="key.revoked")
        delete(id=ids[0])
    assert AuditEvent.objects.count() == 12
    with pytest.raises(DatabaseError, match="append-only"):
        delete(id=ids[1])


def test_a_prunable_transaction_that_fails_leaves_the_triggers(ids: list[int]) -> None:
    with pytest.raises(Killed), append_only.prunable(connection, last_seal=1):
        raise Killed
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        AuditEvent.objects.filter(seal_id=1)._raw_delete("default")
