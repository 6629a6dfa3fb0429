"""Named entries in one compressed and encrypted stream, written and read from start to end.

    length of name (2 bytes) | name | blocks (4 bytes of length, content) … | 0 (4 bytes)
    … 0 (2 bytes)

A tar would need the size of each entry before its content, which nobody knows of a table.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from monitoring.backups.cipher import EncryptedReader, EncryptedWriter, Header
from monitoring.backups.errors import DamagedBackup

BLOCK_BYTES = 1024 * 1024
_MAX_JSON_BYTES = 64 * 1024 * 1024
_LEVEL = 1  # four times as fast as zlib's default, for files a tenth larger
_NAME_BYTES, _LENGTH_BYTES = 2, 4


class Digesting:
    """Size and SHA-256 of what goes through."""

    def __init__(self) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()

    def add(self, content: bytes) -> None:
        self.size += len(content)
        self._sha256.update(content)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


class Entry(Digesting):
    """What is being written under one name."""

    def __init__(self, archive: ArchiveWriter) -> None:
        super().__init__()
        self._archive, self._pending = archive, bytearray()

    def write(self, content: bytes) -> None:
        self.add(content)
        self._pending += content
        if len(self._pending) >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self._archive.put(len(self._pending).to_bytes(_LENGTH_BYTES, "big"))
            self._archive.put(bytes(self._pending))
            self._pending.clear()


class ArchiveWriter:
    def __init__(self, file: BinaryIO, *, key: str, header: Header) -> None:
        self._encrypted = EncryptedWriter(file, key=key, header=header)
        self._compressor = zlib.compressobj(_LEVEL)

    @contextlib.contextmanager
    def entry(self, name: str) -> Iterator[Entry]:
        encoded = name.encode()
        self.put(len(encoded).to_bytes(_NAME_BYTES, "big") + encoded)
        entry = Entry(self)
        yield entry
        entry.flush()
        self.put(bytes(_LENGTH_BYTES))

    def add_json(self, name: str, content: Any) -> None:
        with self.entry(name) as entry:
            entry.write(orjson.dumps(content, option=orjson.OPT_INDENT_2))

    def add_file(self, name: str, file: BinaryIO) -> Digesting:
        with self.entry(name) as entry:
            while block := file.read(BLOCK_BYTES):
                entry.write(block)
        return entry

    def put(self, content: bytes) -> None:
        self._encrypted.write(self._compressor.compress(content))

    def finish(self) -> None:
        self.put(bytes(_NAME_BYTES))
        self._encrypted.write(self._compressor.flush())
        self._encrypted.finish()


class ArchiveReader:
    """Raises DamagedBackup, ForeignBackup or NewerBackup, now or while entries are read."""

    def __init__(self, file: BinaryIO, *, key: str) -> None:
        encrypted = EncryptedReader(file, key=key)
        self.header = encrypted.header
        self._chunks = encrypted.chunks()
        self._inflater = zlib.decompressobj()
        self._buffer, self._holds_back = bytearray(), False

    def entries(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Name and blocks of each entry, in the order of writing. The blocks of one must be taken
        before the next one is asked for; after the last, everything has been authenticated."""
        while length := self._number(_NAME_BYTES):
            name = self._read(length).decode()
            yield name, self._blocks()
        self._expect_end()

    def _blocks(self) -> Iterator[bytes]:
        while length := self._number(_LENGTH_BYTES):
            yield self._read(length)

    def _number(self, size: int) -> int:
        return int.from_bytes(self._read(size), "big")

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._inflate_more()
        content = bytes(self._buffer[:size])
        del self._buffer[:size]
        return content

    def _inflate_more(self) -> None:
        """A little at a time: one chunk may hold a thousand times its size."""
        tail = self._inflater.unconsumed_tail
        if not tail and not self._holds_back:
            tail = next(self._chunks, b"")
            if not tail or self._inflater.eof:
                raise DamagedBackup("The backup is damaged: it ends in the middle.")
        try:
            inflated = self._inflater.decompress(tail, BLOCK_BYTES)
        except zlib.error as error:
            raise DamagedBackup("The backup is damaged: it cannot be decompressed.") from error
        self._holds_back = len(inflated) == BLOCK_BYTES
        self._buffer += inflated

    def _expect_end(self) -> None:
        while not self._inflater.eof:
            self._inflate_more()
        if self._buffer or self._inflater.unused_data or any(self._chunks):
            raise DamagedBackup("The backup is damaged: it goes on after its end.")


def read_json(blocks: Iterator[bytes]) -> Any:
    text = bytearray()
    for block in blocks:
        text += block
        if len(text) > _MAX_JSON_BYTES:
            raise DamagedBackup("The backup is damaged: a description in it has no end.")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DamagedBackup("The backup is damaged: it cannot describe itself.") from error
