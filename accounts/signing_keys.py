"""Rotating the keys that sign tokens, so that nobody is logged out.

Three steps, with a reload of every web process after each: a new key is first only accepted
everywhere, then it signs, and the old ones go when the last token that they signed has ended. Pure
functions on the text of `JWT_SIGNING_KEYS`: `id:key,id:key`, the first one signs.
"""

from __future__ import annotations

import base64
import re
import secrets
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_MADE_AT = "k%Y%m%dt%H%M%S"  # the id of a key tells when it was made
_HMAC_BYTES = 32
_RSA_BITS = 3072


class CannotRotate(Exception):
    """Why the step cannot be taken; names ids, never keys."""


def prepare(text: str, *, algorithm: str, now: datetime) -> str:
    """With a new key at the end, where it is accepted and does not sign."""
    made = f"{now.astimezone(UTC):{_MADE_AT}}:{_new_key(algorithm)}"
    return ",".join([*_items(text), made])


def activate(text: str) -> str:
    """With the last key at the front, where it signs."""
    items = _items(text)
    first_made, last_made = _made_at(items[0]), _made_at(items[-1])
    is_older = first_made is not None and (last_made is None or last_made < first_made)
    if len(items) == 1 or is_older:
        raise CannotRotate("There is no prepared key. Run `rotate_keys prepare` first.")
    if "PUBLIC KEY" in items[-1]:
        raise CannotRotate(f"{_id(items[-1])} is a public key and cannot sign.")
    return ",".join([items[-1], *items[:-1]])


def retire(
    text: str, *, lifetime: timedelta, now: datetime, activated_at: datetime | None = None
) -> str:
    """With the signing key only. Raises CannotRotate while tokens of the others may hold, which
    signed until `activated_at`, or until the present one was made where that is not known."""
    first = _items(text)[0]
    signs_since = max(filter(None, (_made_at(first), activated_at)), default=None)
    if signs_since is not None and now - signs_since < lifetime:
        left = signs_since + lifetime
        raise CannotRotate(
            f"Tokens signed by older keys may hold until {left:%Y-%m-%d %H:%M} UTC."
            " Wait, or add --now to log their holders out."
        )
    return first


def ids(text: str) -> list[str]:
    return [_id(item) for item in _items(text)]


def replaced_in_dotenv(content: str, text: str) -> str:
    """The content of a `.env` with the line of JWT_SIGNING_KEYS replaced; all else as it is."""
    line = re.compile(r"^((?:export )?JWT_SIGNING_KEYS=).*$", re.MULTILINE)
    return line.sub(lambda found: found[1] + text, content, count=1)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]


def _id(item: str) -> str:
    return item.partition(":")[0]


def _made_at(item: str) -> datetime | None:
    try:
        return datetime.strptime(_id(item), _MADE_AT).replace(tzinfo=UTC)
    except ValueError:
        return None


def _new_key(algorithm: str) -> str:
    if algorithm == "HS256":
        return secrets.token_hex(_HMAC_BYTES)
    pem = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return base64.b64encode(pem).decode()
