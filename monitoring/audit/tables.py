"""Reading the audit trail as it lies in the tables, however much it is and whatever is in it.

Not through the models: who sealed or verifies must not stumble over a row that somebody spoiled,
and the models take three times as long.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from django.db import connection

from monitoring.audit.append_only import EVENTS, SEALS
from monitoring.audit.chaining import Ranges
from monitoring.audit.digests import text_of

_CHUNK = 2000
_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}) ([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{6})?")
# Text, because PostgreSQL knows moments that Python does not, and SQLite has whatever was written.
_AS_TEXT = {
    "postgresql": "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
    "sqlite": "CAST({} AS TEXT)",  # Django writes UTC
}
_ROW = "id, {at}, action, actor_id, subject_id, detail, request_id, digest, seal_id"
_SEAL = "id, first_id, last_id, count, ids, {sealed_at}, contents, chain, digest"


@dataclass(frozen=True, slots=True)
class Row:
    """`text` is what its digest is made over, empty when that cannot be made out any more."""

    id: int
    text: bytes
    digest: bytes
    seal: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """`ids` and `sealed_at` are empty when they cannot be made out any more."""

    id: int
    first_id: int
    last_id: int
    count: int
    ids: Ranges
    sealed_at: str
    contents: bytes
    chain: bytes
    digest: bytes


def sealed(*, first: int, last: int) -> Iterator[Row]:
    """The rows of these seals, seal by seal, by id."""
    where = "seal_id BETWEEN %s AND %s ORDER BY seal_id, id"
    return _rows(where, [first, last])


def unsealed(*, limit: int | None = None, after_seal: int | None = None) -> Iterator[Row]:
    """The rows without a seal, by id; also those of later seals than `after_seal`."""
    where, values = "seal_id IS NULL", list[int]()
    if after_seal is not None:
        where, values = "(seal_id IS NULL OR seal_id > %s)", [after_seal]
    bound = "" if limit is None else f" LIMIT {limit:d}"
    return _rows(f"{where} ORDER BY id{bound}", values)


def seals(*, first: int, last: int, limit: int) -> Iterator[Seal]:
    """These seals, by number, and no more than `limit`."""
    columns = _SEAL.format(sealed_at=_as_text("sealed_at"))
    query = f"SELECT {columns} FROM {SEALS} WHERE id BETWEEN %s AND %s ORDER BY id LIMIT {limit:d}"  # noqa: S608 - no caller's text
    for number, first_id, last_id, count, ids, sealed_at, *digests in _select(query, [first, last]):
        contents, chain, digest = (_bytes(value) for value in digests)
        yield Seal(
            id=number,
            first_id=first_id,
            last_id=last_id,
            count=count,
            ids=ranges_from(ids),
            sealed_at=_moment_or_nothing(sealed_at),
            contents=contents,
            chain=chain,
            digest=digest,
        )


def ranges_from(stored: Any) -> Ranges:
    """Empty unless they are ascending ranges."""
    try:
        ranges: Ranges = orjson.loads(stored) if isinstance(stored, (str, bytes)) else stored
        newest = -1
        for first, last in ranges:
            if type(first) is not int or type(last) is not int or not newest < first <= last:
                return []
            newest = last
    except (TypeError, ValueError):
        return []
    return ranges


def _rows(where: str, values: list[int]) -> Iterator[Row]:
    columns = _ROW.format(at=_as_text("at"))
    query = f"SELECT {columns} FROM {EVENTS} WHERE {where}"  # noqa: S608 - no caller's text
    for row in _select(query, values):
        yield Row(row[0], _text(row), _bytes(row[7]), row[8])


def _select(query: str, values: list[int]) -> Iterator[tuple[Any, ...]]:
    with connection.chunked_cursor() as cursor:
        cursor.execute(query, values)
        while rows := cursor.fetchmany(_CHUNK):
            yield from rows


def _text(row: tuple[Any, ...]) -> bytes:
    number, at, action, actor_id, subject_id, detail, request_id, *_ = row
    try:
        return text_of(
            number,
            _moment(at),
            action,
            _uuid(actor_id) if actor_id is not None else "",
            subject_id,
            _detail(detail),
            request_id,
        )
    except (AttributeError, TypeError, ValueError):  # orjson's errors are these too
        return b""


# SQLite keeps any spelling of what columns of PostgreSQL have but one of. Another than Django's is
# no row of the platform: it may not be found by what it says, or say two things at once.


def _uuid(stored: Any) -> str:
    if isinstance(stored, uuid.UUID):
        return str(stored)
    found = uuid.UUID(stored)
    if found.hex != stored:
        raise ValueError
    return str(found)


def _detail(stored: Any) -> Any:
    said = orjson.loads(stored)
    if connection.vendor == "sqlite" and json.dumps(said) != stored:
        raise ValueError
    return said


def _as_text(column: str) -> str:
    return _AS_TEXT[connection.vendor].format(column)


def _moment(at: Any) -> str:
    found = _MOMENT.fullmatch(at)
    if found is None:
        raise ValueError
    return f"{found[1]}T{found[2]}{found[3] or '.000000'}+00:00"


def _moment_or_nothing(at: Any) -> str:
    try:
        return _moment(at)
    except (TypeError, ValueError):
        return ""


def _bytes(value: Any) -> bytes:
    return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else b""
