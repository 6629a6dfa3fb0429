"""An encrypted file: authenticated chunks in an order that cannot be changed, and an end.

The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015) over AES-256-GCM: the nonce of
a chunk is its number and whether it is the last one. So a chunk that was changed, moved, left out,
put twice or cut off is refused, and so is a file that ends early or goes on after its end. The key
of each file is derived by HKDF-SHA-256 from BACKUP_KEY, a salt of its own and the header, which
thereby cannot be changed either.

    "SovereignCore backup\\n" | length (4 bytes) | header (JSON) | chunks of up to 1 MiB + 16

Memory is bounded by the size of a chunk.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from monitoring.backups.errors import DamagedBackup, ForeignBackup, NewerBackup

FORMAT = 1
MAGIC = b"SovereignCore backup\n"
CHUNK_BYTES = 1024 * 1024
_TAG_BYTES = 16
_SALT_BYTES = 32
_LENGTH_BYTES = 4
_MAX_HEADER_BYTES = 64 * 1024
_COUNTER_BYTES = 11  # with the flag, the 12 bytes of a nonce

Header = dict[str, Any]


class EncryptedWriter:
    """Encrypts what is written to `file`. Only `finish` makes it a whole one."""

    def __init__(self, file: BinaryIO, *, key: str, header: Header) -> None:
        salt = secrets.token_bytes(_SALT_BYTES)
        told = {**header, "format": FORMAT, "salt": salt.hex(), "key_check": _check(key, salt)}
        text = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
        prefix = MAGIC + len(text).to_bytes(_LENGTH_BYTES, "big") + text
        self._file, self._cipher = file, _cipher(key, salt, prefix)
        self._count, self._pending = 0, bytearray()
        file.write(prefix)

    def write(self, content: bytes) -> None:
        self._pending += content
        # The last chunk is not known before the end, so a full one waits for what follows it.
        while len(self._pending) > CHUNK_BYTES:
            self._write_chunk(bytes(self._pending[:CHUNK_BYTES]), is_last=False)
            del self._pending[:CHUNK_BYTES]

    def finish(self) -> None:
        self._write_chunk(bytes(self._pending), is_last=True)

    def _write_chunk(self, chunk: bytes, *, is_last: bool) -> None:
        nonce = _nonce(self._count, is_last=is_last)
        self._file.write(self._cipher.encrypt(nonce, chunk, None))
        self._count += 1


class EncryptedReader:
    """Reads what an EncryptedWriter wrote. Raises ForeignBackup, NewerBackup or DamagedBackup."""

    def __init__(self, file: BinaryIO, *, key: str) -> None:
        prefix, self.header = _read_prefix(file)
        salt = bytes.fromhex(self.header["salt"])
        if not constant_time.bytes_eq(
            _check(key, salt).encode(), self.header["key_check"].encode()
        ):
            raise ForeignBackup(
                "This backup was made with another BACKUP_KEY (or its first bytes were changed)."
            )
        self._file, self._cipher = file, _cipher(key, salt, prefix)

    def chunks(self) -> Iterator[bytes]:
        """What was written, every byte of it authenticated before it is given out."""
        size, number = CHUNK_BYTES + _TAG_BYTES, 0
        chunk = self._file.read(size)
        while True:
            following = self._file.read(size)
            try:
                yield self._cipher.decrypt(_nonce(number, is_last=not following), chunk, None)
            except InvalidTag as error:
                raise DamagedBackup(_where(number, is_last=not following)) from error
            if not following:
                return
            chunk, number = following, number + 1


def read_header(file: BinaryIO) -> Header:
    """What anybody can read of a backup. Not authenticated: that takes the key."""
    return _read_prefix(file)[1]


def _read_prefix(file: BinaryIO) -> tuple[bytes, Header]:
    start = file.read(len(MAGIC) + _LENGTH_BYTES)
    if not start.startswith(MAGIC):
        raise ForeignBackup("This is no backup of SovereignCore.")
    length = int.from_bytes(start[len(MAGIC) :], "big")
    text = file.read(min(length, _MAX_HEADER_BYTES))
    try:
        header = orjson.loads(text)
        known = header["format"], bytes.fromhex(header["salt"]), header["key_check"].encode()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedBackup("The backup is damaged: its header cannot be read.") from error
    if not isinstance(known[0], int) or known[0] > FORMAT:
        raise NewerBackup(
            f"This backup has format {known[0]}; this version of SovereignCore knows {FORMAT}."
        )
    return start + text, cast("Header", header)


def _where(number: int, *, is_last: bool) -> str:
    at = f"in its {number + 1}. piece of 1 MiB"
    end = ", the last one there is: it may be cut off" if is_last else ""
    return f"The backup is damaged {at}{end}."


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(_COUNTER_BYTES, "big") + (b"\x01" if is_last else b"\x00")


def _derive(key: str, salt: bytes, info: bytes, length: int) -> bytes:
    derivation = HKDF(algorithm=SHA256(), length=length, salt=salt, info=info)
    return derivation.derive(key.encode())


def _check(key: str, salt: bytes) -> str:
    """Tells a wrong key from damage. Says nothing about the key to who does not have it."""
    return _derive(key, salt, b"sovereigncore.backup.check", 16).hex()


def _cipher(key: str, salt: bytes, prefix: bytes) -> AESGCM:
    return AESGCM(_derive(key, salt, b"sovereigncore.backup.content" + prefix, 32))
