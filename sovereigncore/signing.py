"""Signing keys for access and refresh tokens, as written in `JWT_SIGNING_KEYS`.

Newest first: the first key signs, all of them verify, so that keys rotate without logging anybody
out. Needs no settings, so that settings can use it.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from sovereigncore.environment import weakness_of_secret

_KID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MIN_HMAC_CHARACTERS = 32  # RFC 7518, section 3.2: as long as the hash's output
_MIN_RSA_BITS = 2048  # RFC 7518, section 3.3


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """One key pair, or one shared secret twice. `private` is None for a retired public key."""

    kid: str
    private: RSAPrivateKey | str | None
    public: RSAPublicKey | str

    def __repr__(self) -> str:  # keeps the secret out of tracebacks and settings dumps
        return f"SigningKey({self.kid})"


def parse_signing_keys(text: str, *, algorithm: str) -> dict[str, SigningKey]:
    """`kid:key,kid:key` → keys by id, in the order given.

    An RS256 key is a PEM (its line breaks may be written as `\\n`) or the base64 of one; keys
    after the first may be public ones. Raises ValueError, without the key, for anything else.
    """
    keys: dict[str, SigningKey] = {}
    for number, item in enumerate(text.split(","), start=1):
        kid, colon, material = item.strip().partition(":")
        if not colon or _KID.fullmatch(kid) is None:
            raise ValueError(f"entry {number} is not kid:key, kid of A-Z a-z 0-9 _ -")
        if kid in keys:
            raise ValueError(f"the key id {kid!r} is used twice")
        keys[kid] = _rsa_key(kid, material) if algorithm == "RS256" else _hmac_key(kid, material)
    if next(iter(keys.values())).private is None:
        raise ValueError("the first key signs, so it must be a private one")
    return keys


def _hmac_key(kid: str, material: str) -> SigningKey:
    weakness = weakness_of_secret(material, min_length=_MIN_HMAC_CHARACTERS)
    if weakness:
        raise ValueError(f"the key {kid!r}: {weakness}")
    return SigningKey(kid=kid, private=material, public=material)


def _rsa_key(kid: str, material: str) -> SigningKey:
    pem = material.replace("\\n", "\n").strip()
    if not pem.startswith("-----BEGIN"):
        try:
            pem = base64.b64decode(pem, validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ValueError(f"the key {kid!r} is neither a PEM nor base64 of one") from error
    private: object = None
    try:
        if "PRIVATE KEY" in pem:
            private = serialization.load_pem_private_key(pem.encode(), password=None)
            public: object = private.public_key()
        else:
            public = serialization.load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the key {kid!r} cannot be read: {type(error).__name__}") from error
    if not isinstance(public, RSAPublicKey) or public.key_size < _MIN_RSA_BITS:
        raise ValueError(f"the key {kid!r} is not an RSA key of {_MIN_RSA_BITS} bits or more")
    return SigningKey(
        kid=kid, private=private if isinstance(private, RSAPrivateKey) else None, public=public
    )
