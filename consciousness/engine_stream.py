"""Reading an engine's event stream: bytes in, chunks out, every size bounded. No I/O of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from consciousness import engine_errors as errors

_MAX_LINE_BYTES = 1024 * 1024
_MAX_CHOICES = 16  # more than anybody may ask for
_MAX_DEPTH = 32
_BEYOND_TEXT = ("tool_calls", "reasoning_content", "refusal")


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One choice's part of an event. Token counts are totals so far, of this choice or, where
    `counts_all`, of all choices; None where the event does not tell. `extra` is what is no text:
    tool calls, log probabilities."""

    index: int = 0
    text: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    counts_all: bool = False


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens so far. `is_estimated` while the engine has not told: then each piece of the answer
    counts one. `is_open` once nobody listens any more and there may be more than what was heard:
    the engine may go on, or had accepted and told no count yet. `cached_tokens` are those of the
    prompt that the engine had not to read again."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    is_estimated: bool = True
    is_open: bool = False

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: Usage) -> Usage:
        cached = other.cached_tokens
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens if cached is None else cached,
            is_estimated=self.is_estimated or (other.is_estimated and other.total_tokens > 0),
            is_open=self.is_open or other.is_open,
        )


class Tally:
    """The usage of one generation, from chunks that tell totals.

    llama.cpp tells each choice's own count, vLLM each one's on the way and that of all at the end,
    others only the latter. The prompt is read once, however many choices are asked for.
    """

    def __init__(self) -> None:
        self.usage = Usage()
        self._by_choice: dict[int, int] = {}
        self._of_all = 0

    def doubt(self) -> None:
        """There may be more than what was heard."""
        self.usage = replace(self.usage, is_open=True)

    def add(self, chunk: Chunk) -> None:
        known = self.usage
        if chunk.prompt_tokens is None or chunk.completion_tokens is None:
            is_counted = chunk.completion_tokens is not None  # of embeddings, which say nothing
            if (chunk.text or chunk.extra) and not is_counted and known.is_estimated:
                self.usage = replace(known, completion_tokens=known.completion_tokens + 1)
            return
        if chunk.counts_all:
            self._of_all = chunk.completion_tokens
        else:
            self._by_choice[chunk.index] = chunk.completion_tokens
        cached = chunk.cached_tokens
        self.usage = Usage(
            prompt_tokens=max(known.prompt_tokens, chunk.prompt_tokens),
            completion_tokens=max(self._of_all, sum(self._by_choice.values())),
            cached_tokens=known.cached_tokens if cached is None else cached,
            is_estimated=False,
        )


def chunks_of(parts: Iterable[bytes], *, max_bytes: int) -> Iterator[Chunk]:
    """The chunks of a `text/event-stream` of (chat) completion chunks, up to `[DONE]`.

    Raises EngineBadReply for anything else and for more than `max_bytes`, and the engine's own
    failure when it sends an error event.
    """
    ended = 0
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
        for chunk in _chunks(event, ended):
            ended = chunk.index if chunk.finish_reason else ended
            yield chunk


def drop_alternatives(chunk: Chunk, *, beyond: int) -> None:
    """Leave so many to each token in the log probabilities; where they come in the older form, the
    engine was told their number and keeps to it."""
    logprobs = chunk.extra.get("logprobs")
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        tops = entry.get("top_logprobs") if isinstance(entry, dict) else None
        if isinstance(tops, list):
            del tops[beyond:]


def _lines(parts: Iterable[bytes], *, max_bytes: int) -> Iterator[bytes]:
    rest, received = b"", 0
    for part in parts:
        received += len(part)
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
        if len(rest) > _MAX_LINE_BYTES:
            raise errors.EngineBadReply
        if received > max_bytes:
            raise errors.EngineBadReply(is_fault=False)  # so much may have been asked for
    if rest:
        yield rest


def _chunks(event: Any, ended: int) -> Iterator[Chunk]:
    """`ended`: the choice that ended last, whose count llama.cpp tells next, without its name."""
    if not isinstance(event, dict):
        raise errors.EngineBadReply
    if event.get("error"):
        error = event["error"]
        status = error.get("code") if isinstance(error, dict) else None
        raise errors.from_status(status if isinstance(status, int) else 500, event)
    choices, counts = event.get("choices"), _counts(event)
    if not isinstance(choices, list) or not choices:
        is_one_choices = isinstance(event.get("timings"), dict)
        yield replace(_chunk({"index": ended}, counts), counts_all=not is_one_choices)
        return
    for choice in choices[:_MAX_CHOICES]:
        if not isinstance(choice, dict):
            raise errors.EngineBadReply
        yield _chunk(choice, counts)


def _chunk(choice: dict[str, Any], counts: Mapping[str, Any]) -> Chunk:
    index, delta = choice.get("index"), choice.get("delta")
    delta = delta if isinstance(delta, dict) else {}
    told = {name: delta.get(name) for name in _BEYOND_TEXT} | {"logprobs": choice.get("logprobs")}
    return Chunk(
        index=index if isinstance(index, int) and 0 < index < _MAX_CHOICES else 0,
        # A chat's delta, or a completion's text.
        text=_text(delta.get("content")) or _text(choice.get("text")),
        extra={name: without_nul(value) for name, value in told.items() if value},
        finish_reason=_text(choice.get("finish_reason"))[:20],
        **counts,
    )


def _text(value: Any) -> str:
    """PostgreSQL has no NUL in text, and a model may write one."""
    return value.replace("\x00", "") if isinstance(value, str) else ""


def without_nul(value: Any, depth: int = 0) -> Any:
    """JSON from an engine as it can be kept and sent on; what is nested too deeply is dropped."""
    if isinstance(value, str):
        return _text(value)
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, dict):
        return {_text(name): without_nul(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_nul(inner, depth + 1) for inner in value]
    return value


def _counts(event: dict[str, Any]) -> dict[str, int | None]:
    """From `usage`, or from llama.cpp's `timings`, whose prompt count leaves out what came from its
    cache."""
    usage, timings = event.get("usage"), event.get("timings")
    if isinstance(usage, dict):
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    elif isinstance(timings, dict):
        fresh, cached = timings.get("prompt_n"), timings.get("cache_n", 0)
        both = isinstance(fresh, int) and isinstance(cached, int)
        prompt = fresh + cached if both else None
        completion = timings.get("predicted_n")
    else:
        return {}
    if not (_is_count(prompt) and _is_count(completion)):
        return {}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "cached_tokens": cached if _is_count(cached) else None,
    }


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**31
