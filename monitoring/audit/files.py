"""Part of the audit trail as a file: JSON lines, whole batches, for archives and exports.

A line says its `kind`: first a `trail`, then each `seal` followed by its `event`s, in an export
also the events that have no seal yet, and an `end` that tells how many there were. A name that ends
in `.gz` is compressed. Readers need neither the database nor a secret.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from monitoring.audit.digests import text_of
from monitoring.audit.signing import sync_directory
from monitoring.audit.tables import Row, Seal, ranges_from

_FORMAT = 1
_EVENT = ("id", "at", "action", "actor_id", "subject_id", "detail", "request_id")


class BadFile(ValueError):
    """No file of the trail, or a damaged one."""


@dataclass(frozen=True, kw_only=True)
class Written:
    path: Path
    seals: int
    events: int
    size_bytes: int
    digest: bytes


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """`previous`: the chain before its first seal."""

    first_seal: int
    previous: bytes


Batch = tuple[Seal, Iterator[Row]]


def write(
    path: Path, beginning: Beginning, batches: Iterable[Batch], unsealed: Iterable[Row] = ()
) -> Written:
    """A file of mode 600 that appears whole or not at all, in place of one that is there.

    Raises OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            # Without a time in it the same trail is the same file.
            packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else None
            counts = _write_lines(packed or raw, beginning, batches, unsealed)
            if packed is not None:
                packed.close()
            raw.flush()
            os.fsync(raw.fileno())
        digest, size = digest_of(Path(unfinished))
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    return Written(path=path, seals=counts[0], events=counts[1], size_bytes=size, digest=digest)


def digest_of(path: Path) -> tuple[bytes, int]:
    """SHA-256 of the file as it is, and its size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest(), path.stat().st_size


def _write_lines(
    file: IO[bytes] | gzip.GzipFile,
    beginning: Beginning,
    batches: Iterable[Batch],
    unsealed: Iterable[Row],
) -> tuple[int, int]:
    file.write(_line("trail", _beginning_said(beginning)))
    seals = events = 0
    for seal, rows in batches:
        file.write(_line("seal", _seal_said(seal)))
        seals += 1
        for row in rows:
            file.write(_line("event", _event_said(row)))
            events += 1
    for row in unsealed:
        file.write(_line("event", _event_said(row)))
        events += 1
    file.write(_line("end", {"seals": seals, "events": events}))
    return seals, events


def _line(kind: str, said: dict[str, Any]) -> bytes:
    return orjson.dumps({"kind": kind, **said}, option=orjson.OPT_APPEND_NEWLINE)


def _beginning_said(beginning: Beginning) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "first_seal": beginning.first_seal,
        "previous": beginning.previous.hex(),
    }


def _seal_said(seal: Seal) -> dict[str, Any]:
    return {
        "seal": seal.id,
        "first_id": seal.first_id,
        "last_id": seal.last_id,
        "count": seal.count,
        "ids": seal.ids,
        "sealed_at": seal.sealed_at,
        "contents": seal.contents.hex(),
        "chain": seal.chain.hex(),
        "digest": seal.digest.hex(),
    }


def _event_said(row: Row) -> dict[str, Any]:
    # A row that cannot be made out has no text, and stays so.
    said = dict(zip(_EVENT, orjson.loads(row.text), strict=True)) if row.text else {"id": row.id}
    return {**said, "digest": row.digest.hex(), "seal": row.seal}


class Reader:
    """Reads a file in one pass: `beginning`, then each of `batches` before the next, then
    `unsealed`. Each raises BadFile where the file is damaged or says what `write` does not, and so
    does its end when it is missing, tells another count or is not the last line."""

    def __init__(self, path: Path) -> None:
        self._lines = _lines(path)
        self._line: dict[str, Any] = {}
        self._written, self._number = b"", 0
        self._seals = self._events = 0
        first = self._next()
        if first.get("kind") != "trail" or first.get("format") != _FORMAT:
            raise BadFile("it is no file of an audit trail that this version reads")
        with _as_bad_file():
            self.beginning = Beginning(
                first_seal=int(first["first_seal"]), previous=bytes.fromhex(first["previous"])
            )
        self._check_spelling("trail", _beginning_said(self.beginning))
        self._next()

    def batches(self) -> Iterator[Batch]:
        while self._line["kind"] == "seal":
            with _as_bad_file():
                seal = _seal_from(self._line)
            self._check_spelling("seal", _seal_said(seal))
            self._seals += 1
            self._next()
            rows = self._rows(seal.id)
            yield seal, rows
            for _ in rows:  # those that nobody wanted
                pass

    def unsealed(self) -> Iterator[Row]:
        yield from self._rows(None)
        if self._line["kind"] != "end":
            raise BadFile(f"a line of kind {self._line['kind']!r} is out of place")
        if (self._line.get("seals"), self._line.get("events")) != (self._seals, self._events):
            raise BadFile("lines are missing, or there are more than it tells")
        self._check_spelling("end", {"seals": self._seals, "events": self._events})
        if next(self._lines, None) is not None:
            raise BadFile("something comes after its end")

    def _rows(self, seal: int | None) -> Iterator[Row]:
        while self._line["kind"] == "event" and self._line.get("seal") == seal:
            with _as_bad_file():
                row = _row_from(self._line)
            self._check_spelling("event", _event_said(row))
            self._events += 1
            self._next()
            yield row

    def _check_spelling(self, kind: str, said: dict[str, Any]) -> None:
        # Another reader must not see what this one does not: a key twice, one that nobody knows.
        if _line(kind, said) != self._written:
            raise BadFile(f"line {self._number} is not as the platform writes it")

    def _next(self) -> dict[str, Any]:
        self._written, line = next(self._lines, (b"", None))
        self._number += 1
        if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
            raise BadFile("it ends too early" if line is None else "a line is no object")
        self._line = line
        return line


@contextlib.contextmanager
def _as_bad_file() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile("a line lacks something, or is spoiled") from error


def _lines(path: Path) -> Iterator[tuple[bytes, Any]]:
    """Each line as it is, and what it says."""
    opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115
    with opened as file:
        try:
            for line in file:
                yield line, orjson.loads(line)
        except (EOFError, gzip.BadGzipFile, zlib.error, orjson.JSONDecodeError) as error:
            raise BadFile(f"it is damaged: {type(error).__name__}") from error


def _seal_from(line: dict[str, Any]) -> Seal:
    return Seal(
        id=int(line["seal"]),
        first_id=line["first_id"],
        last_id=line["last_id"],
        count=line["count"],
        ids=ranges_from(line["ids"]),
        sealed_at=str(line["sealed_at"]),
        contents=bytes.fromhex(line["contents"]),
        chain=bytes.fromhex(line["chain"]),
        digest=bytes.fromhex(line["digest"]),
    )


def _row_from(line: dict[str, Any]) -> Row:
    text = text_of(*(line[name] for name in _EVENT)) if "at" in line else b""
    return Row(int(line["id"]), text, bytes.fromhex(line["digest"]), line["seal"])
