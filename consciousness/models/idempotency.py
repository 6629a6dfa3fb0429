"""Requests that carry an `Idempotency-Key`, and their first result."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import models, transaction
from django.db.models import Exists, OuterRef, Q, Value
from django.db.models.functions import Concat
from django.utils import timezone

from consciousness.models.query import Query, QueryContent
from monitoring.batches import delete_in_batches

KEY_LENGTH = 128
KEPT_FOR = timedelta(hours=24)


class IdempotentRequestQuerySet(models.QuerySet["IdempotentRequest"]):
    def for_user(self, user: AbstractBaseUser) -> IdempotentRequestQuerySet:
        """The only way in for views: one's own rows."""
        return self.filter(user_id=user.pk)

    def in_force(self, now: datetime) -> IdempotentRequestQuerySet:
        return self.exclude(_is_over(now))

    def over(self, now: datetime) -> IdempotentRequestQuerySet:
        """Those whose key is free again: kept long enough, or left by a process that is gone."""
        return self.filter(_is_over(now))

    def running(self) -> IdempotentRequestQuerySet:
        return self.filter(status__isnull=True)

    def keep(self, row_id: int, *, status: int, body: str) -> bool:
        """Keep the result of a request that ran. False when it is not to be kept: its row has gone
        with its query, the query's own text was not kept, its conversation being deleted, or it
        names what was forgotten while it ran."""
        text_of_query = QueryContent.objects.filter(query_id=OuterRef("query_id"))
        own = self.running().filter(Q(query__isnull=True) | Exists(text_of_query), id=row_id)
        with transaction.atomic():
            # Whoever forgets waits until it is kept, and finds it then.
            forgotten = own.select_for_update(no_key=True).values_list("body", flat=True).first()
            if forgotten is None or any(object_id in body for object_id in forgotten.split()):
                return False
            return own.update(status=status, body=body) == 1

    def release(self, row_id: int) -> None:
        """Free a key whose request was answered and has no result to be kept."""
        self.running().filter(id=row_id).delete()

    def forget(self, object_id: uuid.UUID) -> None:
        """Delete the results that name an object by its id, such as a fact, and have none kept
        that will. The running first: one that gets its result meanwhile is then among the others.
        """
        self.running().update(body=Concat("body", Value(f"{object_id} ")))
        self.filter(status__isnull=False, body__contains=str(object_id)).delete()

    def delete_over(self) -> int:
        """Those without a result stay as long as others. Their process may have slept, as this one
        has then, and needs its claim when it wakes; and whoever claims the key anew has to find
        what was answered under it. Until then they are in nobody's way."""
        now = timezone.now()
        return delete_in_batches(self.over(now).filter(created_at__lt=now - KEPT_FOR))


def _is_over(now: datetime) -> Q:
    """Conditions on the row itself, so that PostgreSQL looks at them again on a row that changed
    while its deletion waited."""
    of_living_query = Query.objects.filter(id=OuterRef("query_id"), lease_expires_at__gte=now)
    is_abandoned = Q(~Exists(of_living_query), status__isnull=True, lease_expires_at__lt=now)
    return is_abandoned | Q(status__isnull=False, created_at__lt=now - KEPT_FOR)


class IdempotentRequest(models.Model):
    """The first request under a key, and its result. `status` is null while it runs, and `body`
    then has the ids of what was forgotten meanwhile.

    It runs until its own lease and that of its query are over: the query's is renewed while its
    process lives. The result goes with the query it came from.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="idempotent_requests"
    )
    key = models.CharField(max_length=KEY_LENGTH)
    digest = models.BinaryField(max_length=32)
    query = models.ForeignKey(
        Query, on_delete=models.CASCADE, null=True, related_name="idempotent_requests"
    )
    status = models.PositiveSmallIntegerField(null=True)
    body = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)
    lease_expires_at = models.DateTimeField()

    objects = IdempotentRequestQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["created_at"], name="idempotency_retention")]
        constraints = [
            models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_once_a_user")
        ]

    def __str__(self) -> str:
        return str(self.pk)
