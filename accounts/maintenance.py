"""Periodic work on accounts."""

from __future__ import annotations

from django.contrib.sessions.models import Session as BrowserSession
from django.utils import timezone

from accounts.models import Session


def flush_sessions() -> int:
    """Delete sessions, of tokens and of browsers, that ended long enough ago."""
    browser = BrowserSession.objects.filter(expire_date__lt=timezone.now()).delete()[0]
    return browser + Session.objects.all().delete_ended()
