"""Getting back in: the password reset by mail."""

from __future__ import annotations

import structlog
from django.contrib.auth.hashers import make_password
from django.db import transaction

from accounts import mailing
from accounts.identity import canonical
from accounts.models import APIKey, Kind, Link, Session, User
from accounts.services.links import InvalidLink, end_links
from monitoring import audit, metrics

log = structlog.get_logger(__name__)


def request_reset(*, email: str) -> None:
    """Note that a reset was asked for. Does the same whether or not the address is known: the
    worker looks it up when it sends the mail."""
    mailing.enqueue(Kind.RESET_PASSWORD, canonical(email))
    metrics.PASSWORD_RESETS.labels("requested").inc()


def reset_password(*, link: Link, new_password: str) -> User:
    """Use `link` up and set the password; everything that the old one opened ends, API keys too:
    whoever recovers an account cannot know who made them.

    Raises InvalidLink when another use of the link was quicker.
    """
    user = link.user
    assert user is not None
    hashed = make_password(new_password)  # slow, so before the transaction
    with transaction.atomic():
        if not Link.objects.all().redeem(link):
            raise InvalidLink
        replace_password(user, hashed)
        APIKey.objects.for_user(user).revoke()
        audit.record("password.reset", actor_id=None, subject_id=user.id)
    metrics.PASSWORD_RESETS.labels("completed").inc()
    log.info("password_reset", user_id=str(user.id))
    return user


def replace_password(user: User, hashed: str) -> None:
    """In the caller's transaction: the new hash, the end of all sessions and links, a notice."""
    locked = User.objects.select_for_update().get(pk=user.pk)
    locked.password = hashed
    locked.token_epoch += 1
    locked.save(update_fields=["password", "token_epoch"])
    Session.objects.for_user(locked).revoke()
    end_links(locked)
    mailing.enqueue(Kind.PASSWORD_CHANGED, locked.email, user=locked)
    user.password, user.token_epoch = locked.password, locked.token_epoch
