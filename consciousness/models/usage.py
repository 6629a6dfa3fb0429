"""What a person used on a day (UTC): the quota's ledger, and what `/usage` shows."""

from __future__ import annotations

import uuid
from datetime import date, timedelta

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import models
from django.db.models import F
from django.utils import timezone

from monitoring.batches import delete_in_batches


class UsageDayQuerySet(models.QuerySet["UsageDay"]):
    def for_user(self, user: AbstractBaseUser) -> UsageDayQuerySet:
        """The only way in for views: one's own rows."""
        return self.filter(user_id=user.pk)

    def delete_older_than(self, age: timedelta) -> int:
        return delete_in_batches(self.filter(day__lt=timezone.now().date() - age))

    def reserve(self, *, user_id: uuid.UUID, day: date, tokens: int, quota: int) -> bool:
        """Set `tokens` aside unless that would exceed `quota` (0: no limit); one conditional
        UPDATE, so of many at once no more succeed than fit."""
        row = self.filter(user_id=user_id, day=day)
        if quota:
            row = row.annotate(
                taken=F("prompt_tokens") + F("completion_tokens") + F("reserved_tokens")
            ).filter(taken__lte=quota - tokens)
        taken = {"reserved_tokens": F("reserved_tokens") + tokens}
        if row.update(**taken):
            return True
        self.get_or_create(user_id=user_id, day=day)  # the day's first, or the quota is spent
        return row.update(**taken) == 1

    def settle(
        self,
        *,
        user_id: uuid.UUID,
        day: date,
        reserved: int,
        prompt_tokens: int,
        completion_tokens: int,
        is_cached: bool,
    ) -> None:
        """Turn a reservation into use. In the transaction that finishes the query, which
        happens once."""
        self.filter(user_id=user_id, day=day).update(
            reserved_tokens=F("reserved_tokens") - reserved,
            prompt_tokens=F("prompt_tokens") + prompt_tokens,
            completion_tokens=F("completion_tokens") + completion_tokens,
            requests=F("requests") + 1,
            cache_hits=F("cache_hits") + int(is_cached),
        )

    def correct(
        self, *, user_id: uuid.UUID, day: date, prompt_tokens: int, completion_tokens: int
    ) -> None:
        """Add the differences to what was settled by estimate. In the transaction that replaces the
        estimate."""
        self.filter(user_id=user_id, day=day).update(
            prompt_tokens=F("prompt_tokens") + prompt_tokens,
            completion_tokens=F("completion_tokens") + completion_tokens,
        )


class UsageDay(models.Model):
    """Tokens are the engines' own counts; `reserved_tokens` belong to queries under way."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="usage_days"
    )
    day = models.DateField()
    requests = models.PositiveBigIntegerField(default=0)
    cache_hits = models.PositiveBigIntegerField(default=0)
    prompt_tokens = models.PositiveBigIntegerField(default=0)
    completion_tokens = models.PositiveBigIntegerField(default=0)
    reserved_tokens = models.PositiveBigIntegerField(default=0)

    objects = UsageDayQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["day"], name="usage_retention")]
        constraints = [models.UniqueConstraint(fields=["user", "day"], name="usage_once_a_day")]

    def __str__(self) -> str:
        return f"{self.user_id} {self.day}"

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens
