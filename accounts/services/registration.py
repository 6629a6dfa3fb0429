"""How accounts come to be."""

from __future__ import annotations

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction

from accounts.identity import canonical
from accounts.models import User
from monitoring import audit, metrics
from sovereigncore.api import ServiceError

log = structlog.get_logger(__name__)


class RegistrationClosed(ServiceError):
    status = 403
    code = "registration_closed"
    default_detail = "Registration is closed on this server. Ask its operator for an account."


class IdentityTaken(ServiceError):
    status = 409
    code = "identity_taken"
    default_detail = "That name or address is taken."


def register(*, username: str, email: str, password: str, full_name: str) -> User:
    """Create an account. Raises RegistrationClosed, or IdentityTaken naming the field."""
    if settings.REGISTRATION_MODE != "open":
        raise RegistrationClosed
    user = User(username=username, email=email, full_name=full_name)
    user.set_password(password)  # slow, so before the transaction: SQLite's writers are one
    try:
        with transaction.atomic():
            user.save(force_insert=True)
            audit.record("user.registered", actor_id=user.id, subject_id=user.id)
    except IntegrityError as error:
        raise IdentityTaken(errors=taken_fields(username, email)) from error
    metrics.REGISTRATIONS.inc()
    log.info("registered", user_id=str(user.id))
    return user


def taken_fields(username: str, email: str) -> dict[str, list[str]]:
    """Which of the two it was: asked only after the database refused."""
    taken = {}
    if User.objects.filter(username_canonical=canonical(username)).exists():
        taken["username"] = ["This name is taken."]
    if User.objects.filter(email_canonical=canonical(email)).exists():
        taken["email"] = ["This address is taken."]
    return taken
