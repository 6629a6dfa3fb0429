"""Access and refresh tokens: simplejwt's token classes on keys that rotate.

The header must be exactly what we write: one algorithm, a key id from the list, a type. Anything
that points at other keys (`jku`, `jwk`, `x5u`, `x5c`) or changes the rules (`crit`) is refused.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from django.conf import settings
from jwt.algorithms import RSAAlgorithm
from rest_framework_simplejwt import tokens
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenError

from accounts.models import Session

_MAX_TOKEN_LENGTH = 4096
# Base64 decoders skip what is no base64, so that a token would hold with any text mixed in.
_COMPACT_JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_CLAIMS = ["exp", "iat", "aud", "iss", "sub", "jti", "sid", "epoch", "scope"]


class InvalidToken(Exception):
    """The token does not hold; why is nobody's business outside."""


class KeyedTokenBackend(TokenBackend):
    """Signs with the newest key and verifies with the one that `kid` names."""

    def __init__(self, *, header_type: str) -> None:
        super().__init__(
            settings.JWT_ALGORITHM,
            audience=settings.JWT_AUDIENCE,
            issuer=settings.PUBLIC_BASE_URL,
        )
        self._header_type = header_type

    def encode(self, payload: dict[str, Any]) -> str:
        key = next(iter(settings.JWT_KEYS.values()))
        assert key.private is not None  # settings refuse a first key that cannot sign
        return jwt.encode(
            {**payload, "aud": self.audience, "iss": self.issuer},
            key.private,
            algorithm=self.algorithm,
            headers={"kid": key.kid, "typ": self._header_type},
        )

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            if set(header) != {"alg", "kid", "typ"} or header["typ"] != self._header_type:
                raise TokenBackendError("unexpected header")
            key = settings.JWT_KEYS.get(header["kid"])
            if key is None:
                raise TokenBackendError("unknown key")
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=[self.algorithm],
                audience=self.audience,
                issuer=self.issuer,
                options={"require": _CLAIMS, "strict_aud": True},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise TokenBackendError("invalid token") from error
        return claims


class _SessionToken(tokens.Token):
    header_type: ClassVar[str]

    def get_token_backend(self) -> TokenBackend:
        return KeyedTokenBackend(header_type=self.header_type)

    @property
    def token_backend(self) -> TokenBackend:
        return self.get_token_backend()


class AccessToken(_SessionToken):
    token_type = "access"  # noqa: S105 - a kind of token, not a token
    header_type = "at+jwt"  # RFC 9068
    lifetime = timedelta(minutes=settings.ACCESS_TOKEN_MINUTES)


class RefreshToken(_SessionToken):
    token_type = "refresh"  # noqa: S105
    header_type = "rt+jwt"
    lifetime = timedelta(days=settings.REFRESH_TOKEN_DAYS)


@dataclass(frozen=True, kw_only=True)
class Claims:
    session_id: uuid.UUID
    user_id: uuid.UUID
    epoch: int
    token_id: str
    scopes: frozenset[str]

    def belong_to(self, session: Session) -> bool:
        return session.user_id == self.user_id and session.epoch == self.epoch


def issue(kind: type[AccessToken] | type[RefreshToken], session: Session) -> tuple[str, str]:
    """A signed token of `session` and its id. A refresh token ends with its session: seven days
    after login, however often it is exchanged."""
    token = kind()
    token["sub"] = str(session.user_id)
    token["sid"] = str(session.id)
    token["epoch"] = session.epoch
    token["scope"] = session.scope
    token["exp"] = min(token["exp"], int(session.expires_at.timestamp()))
    return str(token), token["jti"]


def read(kind: type[AccessToken] | type[RefreshToken], text: str) -> Claims:
    """The verified claims of `text`. Raises InvalidToken for anything else than our own."""
    if len(text) > _MAX_TOKEN_LENGTH or _COMPACT_JWS.fullmatch(text) is None:
        raise InvalidToken
    try:
        token = kind(text)  # type: ignore[arg-type]
        return Claims(
            session_id=uuid.UUID(token["sid"]),
            user_id=uuid.UUID(token["sub"]),
            epoch=int(token["epoch"]),
            token_id=str(token["jti"]),
            scopes=frozenset(str(token["scope"]).split()),
        )
    except (TokenError, ValueError, TypeError, OverflowError, AttributeError) as error:
        raise InvalidToken from error


def digest(token_id: str) -> bytes:
    """What the database keeps of a refresh token."""
    return hashlib.sha256(token_id.encode()).digest()


def jwks() -> dict[str, list[dict[str, Any]]]:
    """The public keys as RFC 7517 describes; empty while tokens are signed with a shared secret."""
    if settings.JWT_ALGORITHM != "RS256":
        return {"keys": []}
    return {
        "keys": [
            {
                **RSAAlgorithm.to_jwk(key.public, as_dict=True),
                "kid": key.kid,
                "use": "sig",
                "alg": settings.JWT_ALGORITHM,
            }
            for key in settings.JWT_KEYS.values()
            if isinstance(key.public, RSAPublicKey)
        ]
    }
