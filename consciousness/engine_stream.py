"""Reading an engine's event stream: bytes in, chunks out, every size bounded. No I/O of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from consciousness import engine_errors as errors

_MAX_LINE_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One event. Token counts are totals so far, None where the event does not tell."""

    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens so far. `is_estimated` while the engine has not told: then a text chunk counts one."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_estimated: bool = True

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def updated_by(self, chunk: Chunk) -> Usage:
        if chunk.prompt_tokens is not None and chunk.completion_tokens is not None:
            return Usage(
                prompt_tokens=chunk.prompt_tokens,
                completion_tokens=chunk.completion_tokens,
                is_estimated=False,
            )
        if chunk.text and self.is_estimated:
            return replace(self, completion_tokens=self.completion_tokens + 1)
        return self


def chunks_of(parts: Iterable[bytes], *, max_bytes: int) -> Iterator[Chunk]:
    """The chunks of a `text/event-stream` of chat completion chunks, up to `[DONE]`.

    Raises EngineBadReply for anything else and for more than `max_bytes`, and the engine's own
    failure when it sends an error event.
    """
    for line in _lines(parts, max_bytes=max_bytes):
        kind, colon, value = line.partition(b":")
        if not colon or kind not in (b"data", b"error"):
            continue  # blank lines, comments, event names, ids
        value = value.strip()
        if value == b"[DONE]":
            return
        try:
            event = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise errors.EngineBadReply from error
        if kind == b"error":
            event = {"error": event}
        yield _chunk(event)


def _lines(parts: Iterable[bytes], *, max_bytes: int) -> Iterator[bytes]:
    rest, received = b"", 0
    for part in parts:
        received += len(part)
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
        if received > max_bytes or len(rest) > _MAX_LINE_BYTES:
            raise errors.EngineBadReply
    if rest:
        yield rest


def _chunk(event: Any) -> Chunk:
    if not isinstance(event, dict):
        raise errors.EngineBadReply
    if event.get("error"):
        error = event["error"]
        status = error.get("code") if isinstance(error, dict) else None
        raise errors.from_status(status if isinstance(status, int) else 500, event)
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    if not isinstance(first, dict):
        raise errors.EngineBadReply
    delta = first.get("delta")
    prompt_tokens, completion_tokens = _counts(event)
    return Chunk(
        text=_text(delta.get("content")) if isinstance(delta, dict) else "",
        finish_reason=_text(first.get("finish_reason"))[:20],
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


def _text(value: Any) -> str:
    """PostgreSQL has no NUL in text, and a model may write one."""
    return value.replace("\x00", "") if isinstance(value, str) else ""


def _counts(event: dict[str, Any]) -> tuple[int | None, int | None]:
    """(prompt, completion) from `usage`, or from llama.cpp's `timings`, whose prompt count leaves
    out what came from its cache."""
    usage, timings = event.get("usage"), event.get("timings")
    if isinstance(usage, dict):
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    elif isinstance(timings, dict):
        fresh, cached = timings.get("prompt_n"), timings.get("cache_n", 0)
        both = isinstance(fresh, int) and isinstance(cached, int)
        counts = (fresh + cached if both else None, timings.get("predicted_n"))
    else:
        return None, None
    if all(isinstance(count, int) and 0 <= count < 2**31 for count in counts):
        return counts
    return None, None
