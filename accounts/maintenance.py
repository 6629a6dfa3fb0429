"""Periodic work on accounts."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session as BrowserSession
from django.utils import timezone

from accounts import outbox
from accounts.models import APIKey, Link, Mail, Registration, Session
from monitoring.batches import delete_in_batches

_OUTBOX_KEPT = timedelta(days=7)
_ADMIN_LOG_KEPT = timedelta(days=400)  # what matters of it is in the audit trail as well


def flush_credentials() -> int:
    """Delete sessions, of tokens and of browsers, and API keys that ended long enough ago."""
    browser = delete_in_batches(BrowserSession.objects.filter(expire_date__lt=timezone.now()))
    sessions = Session.objects.all().delete_ended()
    return browser + sessions + APIKey.objects.all().delete_ended()


def flush_admin_log() -> int:
    """Delete what the admin site noted over a year ago: it quotes names."""
    old = LogEntry.objects.filter(action_time__lt=timezone.now() - _ADMIN_LOG_KEPT)
    return delete_in_batches(old)


def flush_mails() -> int:
    """Delete what waits for nothing any more: mails, links, registrations, files of the outbox."""
    deleted = Registration.objects.all().delete_old() + Link.objects.all().delete_ended()
    deleted += Mail.objects.all().delete_old()
    return deleted + outbox.delete_older_than(timezone.now() - _OUTBOX_KEPT)
