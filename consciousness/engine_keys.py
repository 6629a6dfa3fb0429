"""API keys of engines at rest: sealed with a key derived from SECRET_KEY, so that a copy of the
database alone opens none of them."""

from __future__ import annotations

import base64
import functools

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class SealBroken(Exception):
    """Sealed under another SECRET_KEY, or tampered with: the key has to be entered again."""


def seal(api_key: str) -> bytes:
    """The API key as the database keeps it; no key is no bytes."""
    return _fernet(settings.SECRET_KEY).encrypt(api_key.encode()) if api_key else b""


def unseal(sealed: bytes) -> str:
    """Raises SealBroken."""
    if not sealed:
        return ""
    try:
        return _fernet(settings.SECRET_KEY).decrypt(sealed).decode()
    except InvalidToken as error:
        raise SealBroken from error


@functools.lru_cache(maxsize=2)
def _fernet(secret_key: str) -> Fernet:
    derivation = HKDF(
        algorithm=SHA256(), length=32, salt=None, info=b"consciousness.upstream.api_key"
    )
    return Fernet(base64.urlsafe_b64encode(derivation.derive(secret_key.encode())))
