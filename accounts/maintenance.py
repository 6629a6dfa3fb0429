"""Periodic work on accounts."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.sessions.models import Session as BrowserSession
from django.utils import timezone

from accounts import outbox
from accounts.models import APIKey, Link, Mail, Registration, Session

_OUTBOX_KEPT = timedelta(days=7)


def flush_credentials() -> int:
    """Delete sessions, of tokens and of browsers, and API keys that ended long enough ago."""
    browser = BrowserSession.objects.filter(expire_date__lt=timezone.now()).delete()[0]
    sessions = Session.objects.all().delete_ended()
    return browser + sessions + APIKey.objects.all().delete_ended()


def flush_mails() -> int:
    """Delete what waits for nothing any more: mails, links, registrations, files of the outbox."""
    deleted = Registration.objects.all().delete_old() + Link.objects.all().delete_ended()
    deleted += Mail.objects.all().delete_old()
    return deleted + outbox.delete_older_than(timezone.now() - _OUTBOX_KEPT)
