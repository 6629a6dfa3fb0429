"""The Ed25519 key that signs checkpoints, outside the database."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings

_KEY = re.compile("[0-9a-f]{64}")


class UnreadableKey(ValueError):
    """The file of the signing key holds no key."""


def signing_key() -> Ed25519PrivateKey:
    """AUDIT_SIGNING_KEY, or the one in DATA_DIR/audit/signing.key, made when there is none.

    Raises UnreadableKey; OSError where it can be neither read nor written.
    """
    if settings.AUDIT_SIGNING_KEY:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(settings.AUDIT_SIGNING_KEY))
    path = settings.AUDIT_DIR / "signing.key"
    if not path.exists():
        _write_new(path)
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if _KEY.fullmatch(text) is None:
        # Never another one in its place: what it signed would hold no more.
        raise UnreadableKey(f"{path} holds no key: 64 hexadecimal digits.")
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text))


def public_key() -> str:
    """What verifies checkpoints anywhere, as 64 hexadecimal digits. No secret."""
    return public_text(signing_key())


def has_key() -> bool:
    """Whether there is one already, so that asking for the public one makes none."""
    return bool(settings.AUDIT_SIGNING_KEY) or (settings.AUDIT_DIR / "signing.key").exists()


def public_text(key: Ed25519PrivateKey) -> str:
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    return key.public_key().public_bytes(*raw).hex()


def is_public_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None


def _write_new(path: Path) -> None:
    """It appears whole or not at all, and of several writers the first one wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(prefix=".signing-", dir=path.parent)  # mode 600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(Ed25519PrivateKey.generate().private_bytes_raw().hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # unlike a rename, a link does not replace
            os.link(unfinished, path)
    finally:
        Path(unfinished).unlink()
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """A new name in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
