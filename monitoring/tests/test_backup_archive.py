"""The file of a backup: what was written comes out, or nothing does."""

from __future__ import annotations

import io
import secrets
import tracemalloc
from collections.abc import Iterator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.backups import cipher
from monitoring.backups.archive import ArchiveReader, ArchiveWriter
from monitoring.backups.cipher import MAGIC, EncryptedReader, EncryptedWriter, read_header
from monitoring.backups.errors import BackupRefused, DamagedBackup, ForeignBackup, NewerBackup
from tests.own_databases import KEY

pytestmark = pytest.mark.once

Entries = list[tuple[str, bytes]]
SMALL: Entries = [("about.json", b"{}"), ("table", b"one\ntwo\n"), ("empty", b"")]
CHUNK = 64  # so that a small file has many
TAG = 16


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cipher, "CHUNK_BYTES", CHUNK)


def archive(entries: Entries, *, key: str = KEY) -> bytes:
    file = io.BytesIO()
    writer = ArchiveWriter(file, key=key, header={"product": "sovereigncore"})
    for name, content in entries:
        with writer.entry(name) as entry:
            entry.write(content)
    writer.finish()
    return file.getvalue()


def read(content: bytes, *, key: str = KEY) -> Entries:
    reader = ArchiveReader(io.BytesIO(content), key=key)
    return [(name, b"".join(blocks)) for name, blocks in reader.entries()]


def body_of(content: bytes) -> int:
    """Where the chunks begin."""
    at = len(MAGIC)
    return at + 4 + int.from_bytes(content[at : at + 4], "big")


def chunks_of(content: bytes) -> tuple[bytes, list[bytes]]:
    start, size = body_of(content), CHUNK + TAG
    return content[:start], [content[at : at + size] for at in range(start, len(content), size)]


@given(st.lists(st.tuples(st.text(min_size=1, max_size=40), st.binary(max_size=3000)), max_size=5))
def test_what_was_written_comes_out(entries: Entries) -> None:
    encodable = [(name.encode("utf-8", "replace").decode(), content) for name, content in entries]
    assert read(archive(encodable)) == encodable


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7])
@pytest.mark.usefixtures("small_chunks")
def test_chunks_of_every_size_come_out(size: int) -> None:
    content, file = secrets.token_bytes(size), io.BytesIO()
    writer = EncryptedWriter(file, key=KEY, header={})
    for at in range(0, size, 5):
        writer.write(content[at : at + 5])
    writer.finish()
    file.seek(0)
    assert b"".join(EncryptedReader(file, key=KEY).chunks()) == content


def test_content_larger_than_a_block_and_hard_to_compress_comes_out() -> None:
    entries = [("noise", secrets.token_bytes(3_500_000)), ("zeros", bytes(9_000_000))]
    assert read(archive(entries)) == entries


def flips(content: bytes) -> Iterator[bytes]:
    for at in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            yield bytes(flipped)


def test_no_bit_can_be_changed_anywhere() -> None:
    content = archive(SMALL)
    assert read(content) == SMALL
    tried = 0
    for damaged in flips(content):
        with pytest.raises(BackupRefused):
            read(damaged)
        tried += 1
    assert tried == len(content) * 8


@pytest.mark.usefixtures("small_chunks")
def test_it_cannot_be_cut_off_anywhere() -> None:
    content = archive([*SMALL, ("noise", secrets.token_bytes(5 * CHUNK))])
    for length in range(len(content)):
        with pytest.raises(BackupRefused):
            read(content[:length])


@pytest.mark.usefixtures("small_chunks")
def test_chunks_cannot_be_moved_left_out_or_repeated() -> None:
    entries = [("noise", secrets.token_bytes(5 * CHUNK))]
    content = archive(entries)
    start, chunks = chunks_of(content)
    assert read(start + b"".join(chunks)) == entries
    assert len(chunks) > 4
    for at in range(len(chunks) - 1):
        moved = [*chunks]
        moved[at], moved[at + 1] = moved[at + 1], moved[at]
        for changed in (moved, chunks[:at] + chunks[at + 1 :], chunks[: at + 1] + chunks[at:]):
            with pytest.raises(DamagedBackup):
                read(start + b"".join(changed))


@pytest.mark.usefixtures("small_chunks")
def test_chunks_of_another_archive_under_the_same_key_do_not_fit() -> None:
    entries = [("noise", secrets.token_bytes(5 * CHUNK))]
    start, chunks = chunks_of(archive(entries))
    _, others = chunks_of(archive(entries))
    with pytest.raises(DamagedBackup):
        read(start + b"".join([chunks[0], others[1], *chunks[2:]]))


@pytest.mark.parametrize("more", [b"\x00", bytes(CHUNK + TAG), archive(SMALL)])
def test_nothing_can_be_added(more: bytes) -> None:
    with pytest.raises(DamagedBackup):
        read(archive(SMALL) + more)


def test_another_key_is_told_from_damage() -> None:
    with pytest.raises(ForeignBackup, match="another BACKUP_KEY"):
        read(archive(SMALL, key=KEY[::-1]))


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00", MAGIC[:-1], b"\x1f\x8b" * 50])
def test_other_files_are_no_backups(content: bytes) -> None:
    with pytest.raises(ForeignBackup, match="no backup of SovereignCore"):
        read(content)


def test_a_format_of_the_future_is_refused_by_name() -> None:
    header = orjson.dumps({"format": 2, "salt": "00" * 32, "key_check": "00"})
    with pytest.raises(NewerBackup, match="format 2"):
        read(MAGIC + len(header).to_bytes(4, "big") + header)


def test_nothing_of_the_content_can_be_read_without_the_key() -> None:
    secret = b"what alice asked" * 20
    content = archive([("table", secret)])
    assert secret[:16] not in content
    assert b"table" not in content[body_of(content) :]
    assert KEY.encode() not in content


def test_the_header_can_be_read_without_the_key() -> None:
    assert read_header(io.BytesIO(archive(SMALL)))["product"] == "sovereigncore"


def test_reading_takes_little_memory_whatever_is_in_it() -> None:
    file = io.BytesIO()
    writer = ArchiveWriter(file, key=KEY, header={})
    with writer.entry("zeros") as entry:
        for _ in range(100):
            entry.write(bytes(1024 * 1024))  # a thousandth of that when compressed
    writer.finish()
    file.seek(0)
    tracemalloc.start()
    try:
        ((_, size),) = [
            (name, sum(map(len, blocks))) for name, blocks in ArchiveReader(file, key=KEY).entries()
        ]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 100 * 1024 * 1024
    assert peak < 16 * 1024 * 1024
