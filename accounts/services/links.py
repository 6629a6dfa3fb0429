"""What links in mails are worth."""

from __future__ import annotations

from accounts.models import Kind, Link, Mail, Purpose, Registration, User
from sovereigncore.api import ServiceError


class InvalidLink(ServiceError):
    status = 400
    code = "invalid_token"
    default_detail = "This link is not valid any more. Ask for a new one."


class WrongPassword(ServiceError):
    status = 403
    code = "wrong_password"
    default_detail = "The current password is not right."


def find_link(purpose: Purpose, token: str) -> Link:
    """The link of `token` while it holds. Raises InvalidLink."""
    link = Link.objects.all().find_live(purpose, token)
    if link is None or (link.user is not None and not link.user.is_active):
        raise InvalidLink
    if link.registration is not None and not Registration.objects.all().is_newest(
        link.registration
    ):
        raise InvalidLink
    return link


def end_links(user: User) -> None:
    """End what was mailed to the user, and what waits to be: of a password or address that is no
    more. In the caller's transaction."""
    Link.objects.filter(user=user).revoke()
    Mail.objects.all().pending().filter(user=user, kind=Kind.CHANGE_ADDRESS).delete()
