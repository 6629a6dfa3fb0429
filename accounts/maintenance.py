"""Periodic work on accounts."""

from __future__ import annotations

from django.contrib.sessions.models import Session as BrowserSession
from django.utils import timezone

from accounts.models import APIKey, Session


def flush_credentials() -> int:
    """Delete sessions, of tokens and of browsers, and API keys that ended long enough ago."""
    browser = BrowserSession.objects.filter(expire_date__lt=timezone.now()).delete()[0]
    sessions = Session.objects.all().delete_ended()
    return browser + sessions + APIKey.objects.all().delete_ended()
