"""The daily token quota: what is estimated, set aside and left. Days are UTC.

Reserving and settling are conditional UPDATEs of `UsageDay`; nothing here is kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from django.conf import settings
from django.utils import timezone

from consciousness.engine import Prompt
from consciousness.models import UsageDay
from monitoring import metrics
from sovereigncore.api import ServiceError

# Without the model's own tokenizer: English takes four bytes a token and more, other languages and
# code about three. The template's own words come on top.
_BYTES_PER_TOKEN = 3
_TEMPLATE_TOKENS = 100
_TOKENS_PER_MESSAGE = 8


# Nobody knows how long an answer takes; asking again is cheap.
_IN_USE_RETRY_S = 5


class QuotaRefusal(ServiceError):
    """The request may take more tokens than are left of the day's."""

    status = 429

    def __init__(self, detail: str, standing: Standing, *, retry_after_s: int | None) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.standing = standing


class QuotaExhausted(QuotaRefusal):
    """Until midnight; for good where it asks for more than a whole day's."""

    code = "insufficient_quota"
    default_detail = "The daily token quota does not suffice for this request."

    def __init__(self, standing: Standing, *, wanted: int) -> None:
        left = standing.remaining + standing.reserved
        fits_some_day = wanted <= standing.limit
        when = "until midnight UTC" if fits_some_day else "and it fits into no day's"
        super().__init__(
            f"{self.default_detail} It may take {wanted} tokens with the prompt;"
            f" {left} of {standing.limit} are left {when}.",
            standing,
            retry_after_s=standing.reset_s if fits_some_day else None,
        )

    @property
    def headers(self) -> dict[str, str]:
        return {**super().headers, "x-should-retry": "false"}


class QuotaInUse(QuotaRefusal):
    """Until requests that are being answered have ended, which take less than they set aside."""

    code = "quota_in_use"
    default_detail = (
        "The rest of the daily token quota is set aside for requests that are being answered."
    )

    def __init__(self, standing: Standing, *, wanted: int) -> None:
        super().__init__(
            f"{self.default_detail} This one may take {wanted} tokens with the prompt;"
            f" {standing.remaining} of {standing.limit} are left, {standing.reserved} set aside.",
            standing,
            retry_after_s=_IN_USE_RETRY_S,
        )


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A caller's day: `limit` 0 is no limit; `used` counts what is set aside, `reserved`, too."""

    limit: int
    used: int
    reserved: int
    reset_s: int

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)

    def after(self, *, reserved: int, used: int) -> Standing:
        """Once `reserved` tokens have become `used` ones."""
        return replace(
            self, used=self.used - reserved + used, reserved=max(0, self.reserved - reserved)
        )

    def suffices_later(self, tokens: int) -> bool:
        """Whether they may fit once what is set aside has been settled."""
        return self.used - self.reserved + tokens <= self.limit


def limit_of(user: Any) -> int:
    """Tokens a day; 0 for no limit."""
    own: int | None = user.daily_token_quota
    return settings.DAILY_TOKEN_QUOTA if own is None else own


def estimate_tokens(messages: Iterable[Mapping[str, Any]]) -> int:
    """What messages may take in a prompt, without the template's own words. Only the engine can
    count."""
    return sum(
        len(orjson.dumps(message)) // _BYTES_PER_TOKEN + _TOKENS_PER_MESSAGE for message in messages
    )


def estimate_prompt(prompt: Prompt) -> int:
    said = prompt.messages or tuple({"content": text} for text in prompt.inputs or (prompt.text,))
    around = {name: prompt.options[name] for name in ("tools",) if name in prompt.options}
    return _TEMPLATE_TOKENS + estimate_tokens((*said, around))


def reserve(user: Any, *, tokens: int, at: datetime) -> Standing:
    """Set tokens of the day of `at` aside, in the caller's transaction.

    Raises QuotaExhausted, QuotaInUse.
    """
    day, limit = at.date(), limit_of(user)
    reserved = UsageDay.objects.all().reserve(user_id=user.pk, day=day, tokens=tokens, quota=limit)
    standing = _standing(user, limit, at)
    if not reserved:
        metrics.QUOTA_REFUSALS.inc()
        refusal = QuotaInUse if standing.suffices_later(tokens) else QuotaExhausted
        raise refusal(standing, wanted=tokens)
    return standing


def standing_of(user: Any) -> Standing:
    return _standing(user, limit_of(user), timezone.now())


def _standing(user: Any, limit: int, at: datetime) -> Standing:
    row = UsageDay.objects.all().for_user(user).filter(day=at.date()).first()
    midnight = (at + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return Standing(
        limit=limit,
        used=row.total_tokens + row.reserved_tokens if row else 0,
        reserved=row.reserved_tokens if row else 0,
        reset_s=int((midnight - at).total_seconds()) + 1,
    )
