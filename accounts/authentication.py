"""From an `Authorization` header to a user and a credential, in one query."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts import api_keys, holders, tokens
from accounts.models import APIKey, Session, User


@dataclass(frozen=True, kw_only=True)
class SessionCredential:
    """`request.auth` of a caller with an access token."""

    session_id: uuid.UUID
    scopes: frozenset[str]

    def is_live(self) -> bool:
        return Session.objects.all().find_live(self.session_id) is not None


@dataclass(frozen=True, kw_only=True)
class KeyCredential:
    """`request.auth` of a caller with an API key."""

    key_id: uuid.UUID
    scopes: frozenset[str]

    def is_live(self) -> bool:
        return APIKey.objects.all().live().filter(id=self.key_id).exists()


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer <access token or API key>`; whatever else is there is refused."""

    def authenticate(
        self, request: Request
    ) -> tuple[User, SessionCredential | KeyCredential] | None:
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        kind, _, text = header.partition(" ")
        if kind.lower() != "bearer" or not text or not text.isascii():
            raise AuthenticationFailed("Send 'Authorization: Bearer <access token or API key>'.")
        user, credential = _by_key(text) if api_keys.is_one(text) else _by_token(text)
        request.META["AUTH_USER_ID"] = str(user.id)
        return user, credential

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _by_token(text: str) -> tuple[User, SessionCredential]:
    refused = AuthenticationFailed("The access token is not valid.")
    try:
        claims = tokens.read(tokens.AccessToken, text)
    except tokens.InvalidToken as error:
        raise refused from error
    holder = holders.of_session(claims.session_id)
    if holder is None or (holder.user.id, holder.user.token_epoch) != (
        claims.user_id,
        claims.epoch,
    ):
        raise refused
    # A role taken away takes its scope out of tokens that were issued before.
    scopes = claims.scopes & holder.user.scopes
    return holder.user, SessionCredential(session_id=claims.session_id, scopes=scopes)


def _by_key(text: str) -> tuple[User, KeyCredential]:
    holder = holders.of_key(api_keys.digest(text))
    if holder is None:
        raise AuthenticationFailed("The API key is not valid.")
    scopes = holder.scopes & holder.user.scopes
    return holder.user, KeyCredential(key_id=holder.credential_id, scopes=scopes)


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = BearerAuthentication
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {
            "type": "oauth2",
            "flows": {
                "password": {
                    "tokenUrl": "/api/v1/auth/token",
                    "refreshUrl": "/api/v1/auth/token/refresh",
                    "scopes": {"read": "look", "write": "change", "admin": "administer"},
                }
            },
        }
