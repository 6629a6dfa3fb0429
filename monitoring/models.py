"""Leases of periodic jobs, and the audit trail's rows."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.db import models
from django.db.models import Q
from django.utils import timezone


class JobLeaseQuerySet(models.QuerySet["JobLease"]):
    def acquire(
        self, name: str, *, holder: uuid.UUID, lease: timedelta, even_if_not_due: bool = False
    ) -> bool:
        """Take the job for `lease` if it is due and nobody holds it. One conditional UPDATE, so
        of two workers exactly one gets it; a killed holder's lease runs out by itself."""
        now = timezone.now()
        self.get_or_create(name=name, defaults={"due_at": now, "expires_at": now})
        free = self.filter(name=name, expires_at__lte=now)
        if not even_if_not_due:
            free = free.filter(due_at__lte=now)
        return free.update(holder=holder, started_at=now, expires_at=now + lease) == 1

    def ran(self, name: str, age: timedelta) -> bool:
        """Whether a run of the job ended no longer than `age` ago."""
        return self.filter(name=name, finished_at__gt=timezone.now() - age).exists()

    def release(self, name: str, *, holder: uuid.UUID, interval: timedelta, error: str) -> None:
        now = timezone.now()
        ended = {"expires_at": now, "due_at": now + interval, "finished_at": now, "error": error}
        if not error:
            ended["succeeded_at"] = now
        self.filter(name=name, holder=holder).update(**ended)


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


class AuditEvent(models.Model):
    """One deed. Rows are only ever added: triggers in the database refuse the rest.

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

    class Meta:
        indexes = [
            models.Index(fields=["actor_id", "-id"], name="audit_by_actor"),
            models.Index(fields=["subject_id", "-id"], name="audit_by_subject"),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.action}"
