"""What links in mails are worth."""

from __future__ import annotations

from accounts.models import Link, Purpose
from sovereigncore.api import ServiceError


class InvalidLink(ServiceError):
    status = 400
    code = "invalid_token"
    default_detail = "This link is not valid any more. Ask for a new one."


def find_link(purpose: Purpose, token: str) -> Link:
    """The link of `token` while it holds. Raises InvalidLink."""
    link = Link.objects.all().find_live(purpose, token)
    if link is None or (link.user is not None and not link.user.is_active):
        raise InvalidLink
    return link
