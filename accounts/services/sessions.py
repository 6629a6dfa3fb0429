"""Sessions: log in, refresh, log out."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta

import structlog
from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.sessions.models import Session as BrowserSession
from django.db import transaction
from django.db.models import F
from django.http import HttpRequest
from django.utils import timezone

from accounts import tokens
from accounts.models import Link, Session, User
from accounts.services import second_factor
from monitoring import audit, metrics
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


@dataclass(frozen=True, kw_only=True)
class TokenPair:
    access_token: str
    refresh_token: str
    expires_in_s: int
    scope: str


def log_in(
    *,
    request: HttpRequest,
    username: str,
    password: str,
    scope: str | None = None,
    otp: str = "",
) -> TokenPair:
    """Start a session and return its tokens.

    Raises InvalidGrant alike for an unknown name, a wrong password and a disabled account, and
    InvalidScope when the account does not hold what was asked for. Where `admin` needs a code, it
    is left out of the scopes that nobody asked for.
    """
    user = authenticate(request, username=username, password=password)
    if not isinstance(user, User):
        metrics.LOGINS.labels("refused").inc()
        log.info("login_refused", address=request.META["REMOTE_ADDR"])
        raise InvalidGrant
    wanted = frozenset(scope.split()) if scope else user.scopes
    if not wanted <= user.scopes:
        raise InvalidScope
    if "admin" in wanted and second_factor.is_needed(user):
        if otp:
            if second_factor.check_code(user, otp) is None:
                metrics.LOGINS.labels("wrong_code").inc()
                raise InvalidGrant("The one-time code is not valid.")
        elif scope:
            raise InvalidScope("The scope admin needs a one-time code, as the parameter otp.")
        else:
            wanted -= {"admin"}
    pair = start_session(user, wanted, request)
    metrics.LOGINS.labels("ok").inc()
    log.info("login", user_id=str(user.id), address=request.META["REMOTE_ADDR"])
    return pair


def start_session(user: User, scopes: frozenset[str], request: HttpRequest) -> TokenPair:
    """Tokens of a new session for somebody who has proved to be `user`."""
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
        audit.record("session.begun", actor_id=user.id, subject_id=session.id)
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
        with transaction.atomic():
            if Session.objects.filter(pk=session.pk).revoke():
                audit.record("session.replayed", actor_id=None, subject_id=session.id)
        log.warning("refresh_token_replayed", user_id=str(session.user_id))
        raise InvalidGrant("The refresh token is not valid.")
    return pair


def end_session(session: Session, *, actor_id: uuid.UUID) -> None:
    """End a session. Its access tokens are refused from the next request on, everywhere."""
    with transaction.atomic():
        if Session.objects.filter(pk=session.pk).revoke():
            audit.record("session.ended", actor_id=actor_id, subject_id=session.id)


def end_all_sessions(user: User, *, actor_id: uuid.UUID | None) -> None:
    """Sign out everywhere: of what was issued until now nothing holds."""
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(token_epoch=F("token_epoch") + 1)
        Session.objects.for_user(user).revoke()
        audit.record("user.signed_out", actor_id=actor_id, subject_id=user.id)


def end_everybodys_sessions() -> int:
    """Sign out everybody, browsers too, and end every link in a mail: how many there were. For a
    restored database, in which what was ended since would hold again."""
    with transaction.atomic():
        User.objects.update(token_epoch=F("token_epoch") + 1)
        ended = Session.objects.all().revoke() + Link.objects.all().revoke()
        return ended + BrowserSession.objects.all().delete()[0]
