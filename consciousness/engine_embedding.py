"""Reading an engine's answer to an embedding request: not streamed, every size bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2

from consciousness import engine_errors as errors
from consciousness.engine_generation import bounded_body, decoded
from consciousness.engine_stream import Chunk

_MAX_REPLY_BYTES = 32 * 1024 * 1024  # 64 vectors of 16,384 numbers
VECTORS = "vectors"  # the name in a chunk's `extra`


def read_vectors(reply: httpx2.Response, *, count: int) -> Iterator[Chunk]:
    """One chunk: `count` vectors in the order of the inputs, and what reading those took.

    Raises EngineBadReply for anything else.
    """
    body = decoded(bounded_body(reply, max_bytes=_MAX_REPLY_BYTES))
    entries = body.get("data") if isinstance(body, dict) else None
    if not isinstance(entries, list) or len(entries) != count:
        raise errors.EngineBadReply
    vectors = [_vector(entry, at) for at, entry in enumerate(sorted(entries, key=_place))]
    usage = body.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    is_told = isinstance(tokens, int) and 0 <= tokens < 2**31
    yield Chunk(
        extra={VECTORS: vectors},
        finish_reason="stop",
        prompt_tokens=tokens if is_told else None,
        completion_tokens=0,
        counts_all=True,
    )


def _place(entry: Any) -> int:
    place = entry.get("index") if isinstance(entry, dict) else None
    return place if isinstance(place, int) else -1


def _vector(entry: Any, at: int) -> list[float]:
    numbers = entry.get("embedding") if isinstance(entry, dict) else None
    if _place(entry) != at or not isinstance(numbers, list) or not numbers:
        raise errors.EngineBadReply
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise errors.EngineBadReply
    return numbers
