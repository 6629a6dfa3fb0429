"""Leases of periodic jobs; the audit trail, its seals and archives; records of backups."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from django.db import connection, models
from django.db.models import F, Q
from django.utils import timezone

# How far the clocks of two machines may be apart. What lies ahead by more than its term and this
# was written by a clock that was wrong, and is not waited for.
_CLOCKS_APART = timedelta(minutes=1)


class JobLeaseQuerySet(models.QuerySet["JobLease"]):
    def acquire(
        self,
        name: str,
        *,
        holder: uuid.UUID,
        lease: timedelta,
        interval: timedelta,
        even_if_not_due: bool = False,
    ) -> bool:
        """Take the job for `lease` if it is due and nobody holds it. One conditional UPDATE, so
        of two workers exactly one gets it; a killed holder's lease runs out by itself."""
        now = timezone.now()
        self.get_or_create(name=name, defaults={"due_at": now, "expires_at": now})
        free = self.filter(_is_past("expires_at", now, term=lease), name=name)
        if not even_if_not_due:
            free = free.filter(_is_past("due_at", now, term=interval))
        return free.update(holder=holder, started_at=now, expires_at=now + lease) == 1

    def ran(self, name: str, age: timedelta) -> bool:
        """Whether a run of the job ended no longer than `age` ago."""
        now = timezone.now()
        lately = self.filter(finished_at__gt=now - age, finished_at__lte=now + _CLOCKS_APART)
        return lately.filter(name=name).exists()

    def release(self, name: str, *, holder: uuid.UUID, interval: timedelta, error: str) -> None:
        now = timezone.now()
        ended = {"expires_at": now, "due_at": now + interval, "finished_at": now, "error": error}
        if not error:
            ended["succeeded_at"] = now
        self.filter(name=name, holder=holder).update(**ended)


def _is_past(moment: str, now: datetime, *, term: timedelta) -> Q:
    """Of a moment that was written at most `term` before it. One that lies further ahead was so by
    a clock that has been corrected since."""
    return Q(**{f"{moment}__lte": now}) | Q(**{f"{moment}__gt": now + term + _CLOCKS_APART})


class JobLease(models.Model):
    name = models.CharField(max_length=64, primary_key=True)
    holder = models.UUIDField(null=True)
    expires_at = models.DateTimeField()
    due_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    succeeded_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=200, blank=True, default="")

    objects = JobLeaseQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(finished_at__isnull=True) | Q(started_at__isnull=False),
                name="job_finished_only_if_started",
            )
        ]

    def __str__(self) -> str:
        return self.name


class AuditSeal(models.Model):
    """A batch of events, tied to all batches before it; see monitoring/audit/chaining.py.

    Made once and never changed; deleted with its events once both are in an archive file.
    """

    id = models.BigIntegerField(primary_key=True)  # 1, 2, 3 …: a missing one shows
    first_id = models.BigIntegerField()
    last_id = models.BigIntegerField()
    count = models.PositiveIntegerField()
    ids = models.JSONField()  # [[first, last], …]: exactly the events in it
    sealed_at = models.DateTimeField()
    contents = models.BinaryField(max_length=32)
    chain = models.BinaryField(max_length=32)
    digest = models.BinaryField(max_length=32)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(id__gte=1, count__gte=1, last_id__gte=F("first_id")),
                name="audit_seal_holds_events",
            )
        ]

    def __str__(self) -> str:
        return f"Seal {self.pk}: {self.count} events up to {self.last_id}"


class AuditArchive(models.Model):
    """A file that holds old seals with their events, which are deleted from the tables."""

    first_seal = models.BigIntegerField(unique=True)
    last_seal = models.BigIntegerField(unique=True)
    last_id = models.BigIntegerField()  # the newest event in it
    count = models.PositiveBigIntegerField()
    chain = models.BinaryField(max_length=32)  # of its last seal: the next one goes on from it
    file_name = models.CharField(max_length=100)
    file_digest = models.BinaryField(max_length=32)  # SHA-256
    size_bytes = models.PositiveBigIntegerField()
    archived_at = models.DateTimeField()
    digest = models.BinaryField(max_length=32)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(last_seal__gte=F("first_seal")), name="audit_archive_holds_seals"
            )
        ]

    def __str__(self) -> str:
        return self.file_name


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    def next_id(self) -> int:
        """The id of the row to be inserted next. Inside a transaction that then does so: SQLite
        lets nobody else write until it ends, PostgreSQL gives each caller another one."""
        table = self.model._meta.db_table
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SELECT nextval(pg_get_serial_sequence(%s, 'id'))", [table])
                return int(cursor.fetchone()[0])
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
            row = cursor.fetchone()
            return int(row[0]) + 1 if row else 1

    def unsealed(self) -> Self:
        return self.filter(seal=None)


class AuditEvent(models.Model):
    """One deed. Rows are only ever added, and sealed once: triggers in the database refuse the
    rest.

    Whom it is about is an id and no foreign key: the row outlives the person's data.
    """

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField()
    action = models.CharField(max_length=64)
    actor_id = models.UUIDField(null=True)
    subject_id = models.CharField(max_length=64, blank=True, default="")
    detail = models.JSONField(default=dict)
    request_id = models.CharField(max_length=64, blank=True, default="")
    digest = models.BinaryField(max_length=32)
    seal = models.ForeignKey(
        AuditSeal, null=True, on_delete=models.PROTECT, related_name="events", db_index=False
    )

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["seal", "id"], name="audit_by_seal"),
            # PostgreSQL does not take the one above for "without a seal, by id".
            models.Index(fields=["id"], condition=Q(seal=None), name="audit_unsealed"),
            # The list by each of its filters, newest first.
            models.Index(fields=["-at", "-id"], name="audit_by_time"),
            models.Index(fields=["action", "-at"], name="audit_by_action"),
            models.Index(fields=["actor_id", "-at"], name="audit_by_actor"),
            models.Index(fields=["subject_id", "-at"], name="audit_by_subject"),
            models.Index(fields=["request_id", "-at"], name="audit_by_request"),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.action}"


class InstanceManager(models.Manager["Instance"]):
    def its_id(self) -> str:
        return str(self.get_or_create(pk=Instance.ONLY)[0].id)


class Instance(models.Model):
    """Which platform this is, however many processes and machines it has: one row."""

    ONLY = 1

    only = models.PositiveSmallIntegerField(primary_key=True, default=ONLY)
    id = models.UUIDField(default=uuid.uuid4, editable=False)

    objects = InstanceManager()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(only=1), name="one_instance")]

    def __str__(self) -> str:
        return str(self.id)


class BackupRecordQuerySet(models.QuerySet["BackupRecord"]):
    def made(self) -> BackupRecordQuerySet:
        return self.filter(outcome=BackupRecord.Outcome.MADE)

    def failed(self) -> BackupRecordQuerySet:
        return self.filter(outcome=BackupRecord.Outcome.FAILED)

    def of(self, paths: Iterable[Path]) -> BackupRecordQuerySet:
        return self.filter(file_name__in=[path.name for path in paths])

    def delete_older_than(self, age: timedelta) -> int:
        """At most one an hour is made, so there are never many."""
        return self.filter(started_at__lt=timezone.now() - age).delete()[0]


class BackupRecord(models.Model):
    """A backup, or the attempt at one. `verified_at`: when it was last restored on trial."""

    ERROR_CHARACTERS = 500

    class Outcome(models.TextChoices):
        MADE = "made"
        FAILED = "failed"
        DAMAGED = "damaged"

    file_name = models.CharField(max_length=255, unique=True)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    size_bytes = models.PositiveBigIntegerField(default=0)
    outcome = models.CharField(max_length=10, choices=Outcome.choices)
    verified_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=ERROR_CHARACTERS, blank=True, default="")

    objects = BackupRecordQuerySet.as_manager()

    class Meta:
        verbose_name = "backup"
        ordering = ["-started_at"]
        indexes = [models.Index(fields=["-started_at"], name="backup_newest")]

    def __str__(self) -> str:
        return self.file_name
