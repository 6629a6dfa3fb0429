"""What one can do with accounts: log in, refresh, log out, register, bootstrap."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from datetime import timedelta

import structlog
from django.conf import settings
from django.contrib.auth import authenticate
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.utils import timezone

from accounts import tokens
from accounts.identity import canonical
from accounts.models import Session, User
from monitoring import metrics
from monitoring.models import JobLease
from sovereigncore.api import ServiceError

_MAX_AGENT_LENGTH = 200

log = structlog.get_logger(__name__)


class InvalidGrant(ServiceError):
    """401 rather than RFC 6749's 400: first-party clients expect it of a failed login."""

    status = 401
    code = "invalid_grant"
    default_detail = "The credentials are not valid."


class InvalidScope(ServiceError):
    status = 400
    code = "invalid_scope"
    default_detail = "The account does not hold a scope that was asked for."


class RegistrationClosed(ServiceError):
    status = 403
    code = "registration_closed"
    default_detail = "Registration is closed on this server. Ask its operator for an account."


class IdentityTaken(ServiceError):
    status = 409
    code = "identity_taken"
    default_detail = "That name or address is taken."


@dataclass(frozen=True, kw_only=True)
class TokenPair:
    access_token: str
    refresh_token: str
    expires_in_s: int
    scope: str


def log_in(*, request: HttpRequest, username: str, password: str, scope: str | None) -> TokenPair:
    """Start a session and return its tokens.

    Raises InvalidGrant alike for an unknown name, a wrong password and a disabled account, and
    InvalidScope when the account does not hold what was asked for.
    """
    user = authenticate(request, username=username, password=password)
    if not isinstance(user, User):
        metrics.LOGINS.labels("refused").inc()
        log.info("login_refused", address=request.META["REMOTE_ADDR"])
        raise InvalidGrant
    wanted = frozenset(scope.split()) if scope else user.scopes
    if not wanted <= user.scopes:
        raise InvalidScope
    pair = _start_session(user, wanted, request)
    metrics.LOGINS.labels("ok").inc()
    log.info("login", user_id=str(user.id), address=request.META["REMOTE_ADDR"])
    return pair


def _start_session(user: User, scopes: frozenset[str], request: HttpRequest) -> TokenPair:
    now = timezone.now()
    session = Session(
        user=user,
        scope=" ".join(sorted(scopes)),
        epoch=user.token_epoch,
        address=request.META["REMOTE_ADDR"],
        agent=request.headers.get("User-Agent", "").replace("\x00", "")[:_MAX_AGENT_LENGTH],
        created_at=now,
        last_used_at=now,
        expires_at=now + timedelta(days=settings.REFRESH_TOKEN_DAYS),
    )
    pair, token_id = _token_pair(session)
    session.refresh_digest = tokens.digest(token_id)
    with transaction.atomic():
        session.save(force_insert=True)
        User.objects.filter(pk=user.pk).update(last_login=now)
    return pair


def _token_pair(session: Session) -> tuple[TokenPair, str]:
    access, _ = tokens.issue(tokens.AccessToken, session)
    refresh, refresh_id = tokens.issue(tokens.RefreshToken, session)
    left_s = int((session.expires_at - timezone.now()).total_seconds())
    pair = TokenPair(
        access_token=access,
        refresh_token=refresh,
        expires_in_s=min(settings.ACCESS_TOKEN_MINUTES * 60, max(0, left_s)),
        scope=session.scope,
    )
    return pair, refresh_id


def refresh(*, refresh_token: str, scope: str | None = None) -> TokenPair:
    """Exchange a refresh token for a new pair. Of many uses at once exactly one succeeds.

    Raises InvalidGrant for a token that does not hold. One that was spent before is a replay:
    thief and owner cannot be told apart, so the whole session ends.
    """
    try:
        claims = tokens.read(tokens.RefreshToken, refresh_token)
    except tokens.InvalidToken as error:
        raise InvalidGrant("The refresh token is not valid.") from error
    session = Session.objects.all().find_live(claims.session_id)
    if session is None or not claims.belong_to(session):
        raise InvalidGrant("The refresh token is not valid.")
    if scope and frozenset(scope.split()) != frozenset(session.scope.split()):
        raise InvalidScope("A refresh keeps the session's scope.")
    pair, fresh_id = _token_pair(session)
    if not Session.objects.rotate(
        session.id, spent=tokens.digest(claims.token_id), fresh=tokens.digest(fresh_id)
    ):
        Session.objects.filter(id=session.id).revoke()
        log.warning("refresh_token_replayed", user_id=str(session.user_id))
        raise InvalidGrant("The refresh token is not valid.")
    return pair


def log_out(session_id: uuid.UUID) -> None:
    """End a session. Its access tokens are refused from the next request on, everywhere."""
    Session.objects.filter(id=session_id).revoke()


def register(*, username: str, email: str, password: str, full_name: str) -> User:
    """Create an account. Raises RegistrationClosed, or IdentityTaken naming the field."""
    if settings.REGISTRATION_MODE != "open":
        raise RegistrationClosed
    user = User(username=username, email=email, full_name=full_name)
    user.set_password(password)  # slow, so before the transaction: SQLite's writers are one
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError as error:
        raise IdentityTaken(errors=_taken_fields(username, email)) from error
    metrics.REGISTRATIONS.inc()
    log.info("registered", user_id=str(user.id))
    return user


def _taken_fields(username: str, email: str) -> dict[str, list[str]]:
    """Which of the two it was: asked only after the database refused."""
    taken = {}
    if User.objects.filter(username_canonical=canonical(username)).exists():
        taken["username"] = ["This name is taken."]
    if User.objects.filter(email_canonical=canonical(email)).exists():
        taken["email"] = ["This address is taken."]
    return taken


def set_active(user: User, *, is_active: bool) -> None:
    """Enable or disable an account. Disabling ends its sessions at their next request."""
    with transaction.atomic():
        locked = User.objects.select_for_update().get(pk=user.pk)
        locked.is_active = is_active
        locked.token_epoch += 1
        locked.save(update_fields=["is_active", "token_epoch"])


def bootstrap_admin(*, username: str, email: str) -> str | None:
    """Make the first administrator and return the random password; None when there is one.

    Thirty at once make one: each waits for the row that the first one locked.
    """
    password = secrets.token_urlsafe(18)
    admin = User(username=username, email=email, is_staff=True, is_superuser=True)
    admin.set_password(password)  # slow, so before the lock
    try:
        with transaction.atomic():
            _wait_for_turn("accounts.bootstrap")
            if User.objects.filter(is_superuser=True).exists():
                return None
            admin.save(force_insert=True)
    except IntegrityError as error:
        raise IdentityTaken(errors=_taken_fields(username, email)) from error
    return password


def _wait_for_turn(name: str) -> None:
    """Hold a row lock until the transaction ends; SQLite's transactions hold one anyway."""
    now = timezone.now()
    JobLease.objects.get_or_create(name=name, defaults={"due_at": now, "expires_at": now})
    JobLease.objects.select_for_update().get(name=name)
