"""Periodic work on accounts."""

from __future__ import annotations

import time

from django.conf import settings
from django.contrib.sessions.models import Session as BrowserSession
from django.utils import timezone

from accounts.models import APIKey, Link, Mail, Registration, Session


def flush_credentials() -> int:
    """Delete sessions, of tokens and of browsers, and API keys that ended long enough ago."""
    browser = BrowserSession.objects.filter(expire_date__lt=timezone.now()).delete()[0]
    sessions = Session.objects.all().delete_ended()
    return browser + sessions + APIKey.objects.all().delete_ended()


def flush_mails() -> int:
    """Delete what waits for nothing any more: mails, links, registrations, files of the outbox."""
    wishes = Registration.objects.all().delete_old()
    return (
        wishes
        + Link.objects.all().delete_ended()
        + Mail.objects.all().delete_old()
        + _flush_outbox()
    )


def _flush_outbox(*, before_days: int = 7) -> int:
    limit_s = time.time() - before_days * 24 * 3600
    old = [path for path in settings.OUTBOX.glob("*.log") if path.stat().st_mtime < limit_s]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
