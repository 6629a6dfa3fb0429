"""From an `Authorization` header to a user and a credential, in one query."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts import tokens
from accounts.models import Session, User


@dataclass(frozen=True, kw_only=True)
class SessionCredential:
    """`request.auth` of a caller with an access token."""

    session_id: uuid.UUID
    scopes: frozenset[str]

    def is_live(self) -> bool:
        return Session.objects.all().find_live(self.session_id) is not None


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer <access token>`; anything else that is not absent is refused."""

    def authenticate(self, request: Request) -> tuple[User, SessionCredential] | None:
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        kind, _, text = header.partition(" ")
        if kind.lower() != "bearer" or not text or not text.isascii():
            raise AuthenticationFailed("Send 'Authorization: Bearer <access token>'.")
        try:
            claims = tokens.read(tokens.AccessToken, text)
        except tokens.InvalidToken as error:
            raise AuthenticationFailed("The access token is not valid.") from error
        user = User.objects.of_live_session(claims.session_id)
        if user is None or (user.id, user.session_epoch) != (claims.user_id, claims.epoch):
            raise AuthenticationFailed("The access token is not valid.")
        request.META["AUTH_USER_ID"] = str(user.id)
        return user, SessionCredential(
            session_id=claims.session_id,
            # A role taken away takes its scope out of tokens that were issued before.
            scopes=claims.scopes & user.scopes,
        )

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


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
