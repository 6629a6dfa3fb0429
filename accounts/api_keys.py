"""The form of API keys: `sk-` and 256 random bits. Pure functions."""

from __future__ import annotations

import hashlib
import secrets

_PREFIX = "sk-"
_BYTES = 32
_HINT_LENGTH = 10


def generate() -> str:
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def is_one(text: str) -> bool:
    """Whether `text` is meant as a key: a JWT cannot begin so, it begins with base64 of `{`."""
    return text.startswith(_PREFIX)


def digest(key: str) -> bytes:
    """What the database keeps and finds a key by. A fast hash: nobody can guess 256 bits."""
    return hashlib.sha256(key.encode()).digest()


def hint(key: str) -> str:
    return key[:_HINT_LENGTH]
