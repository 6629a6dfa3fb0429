"""One running generation: its connection, its reader, its deadlines, its count, its end."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson
import structlog
from django.conf import settings

from consciousness import engine_errors as errors
from consciousness.engine_connection import Connection
from consciousness.engine_stream import Chunk, Tally, Usage, chunks_of, drop_alternatives

_IDLE_S = 0.25  # how soon a vanished caller or a passed deadline is noticed
# More than between two looks lies only where this process stood still, or its caller read nothing.
_LONGEST_LOOK_S = 1.0
# What an engine gets to notice that it is to stop. Until then it is busy and may have sent tokens,
# so neither its slot is free nor the count complete; one that let a deadline pass has had its time,
# and a caller waits to be told.
_LAST_WORDS_S, _LATE_LAST_WORDS_S = 3.0, 0.5
# A token has more pieces than one where its bytes are cut, or a tool's name and arguments parted.
_PIECES_A_TOKEN, _MORE_PIECES = 2, 16
_ERROR_BODY_BYTES = 64 * 1024
# Of any answer, and of a long one, around whose tokens llama.cpp writes half a KiB each.
_MAX_REPLY_BYTES, _TOKEN_BYTES = 32 * 1024 * 1024, 1024
# Kept until the end, at four times the size in memory: 32,768 tokens with ten alternatives each.
_MAX_PROBABILITIES_BYTES = 64 * 1024 * 1024

CHAT_PATH = "/v1/chat/completions"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds. `first_token` and `silence` bound the waiting for any sign of life from the engine,
    before and after the first text, while somebody listens; `total` counts from the call."""

    connect_s: float = field(default_factory=lambda: settings.ENGINE_CONNECT_TIMEOUT_S)
    first_token_s: float = field(default_factory=lambda: settings.ENGINE_FIRST_TOKEN_TIMEOUT_S)
    silence_s: float = field(default_factory=lambda: settings.ENGINE_SILENCE_TIMEOUT_S)
    total_s: float = field(default_factory=lambda: settings.ENGINE_TOTAL_TIMEOUT_S)


Reader = Callable[[httpx2.Response], Iterator[Chunk]]


def read_stream(
    reply: httpx2.Response, *, max_tokens: int = 0, alternatives: int | None = None
) -> Iterator[Chunk]:
    """`max_tokens` are those of all choices; `alternatives`: how many to each token are wanted,
    however many come."""
    if not reply.headers.get("Content-Type", "").startswith("text/event-stream"):
        raise errors.EngineBadReply
    max_bytes = _MAX_PROBABILITIES_BYTES
    if alternatives is None:
        max_bytes = max(_MAX_REPLY_BYTES, max_tokens * _TOKEN_BYTES)
    for chunk in chunks_of(reply.iter_bytes(), max_bytes=max_bytes):
        drop_alternatives(chunk, beyond=alternatives or 0)
        yield chunk


class Generation:
    """One running generation: iterate for chunks that say something; None means "nothing yet", a
    few times a second.

    A thread reads from the engine, so that the caller's thread is free to notice that its client
    has gone, whatever the engine does. `usage` and `finish_reason` are valid at any time and mean
    what has been received so far.
    """

    def __init__(
        self,
        http: httpx2.Client,
        body: bytes,
        timeouts: Timeouts,
        *,
        path: str = CHAT_PATH,
        read: Reader = read_stream,
        max_tokens: int | None = None,
        choices: int = 1,
    ) -> None:
        """`max_tokens` are those of each of the `choices` asked for."""
        self._http, self._path, self._body, self._timeouts = http, path, body, timeouts
        self._read_reply = read
        self._max_tokens, self._choices = max_tokens, choices
        # Bounded: a caller that reads slowly slows the engine instead of filling memory.
        self._received: queue.Queue[Chunk | Exception | None] = queue.Queue(maxsize=64)
        self._has_ended = False  # the end was taken out of `_received`
        self._closing = threading.Event()  # nobody wants the answer any more
        self._deaf = threading.Event()  # nor to hear how far it came
        self._connection = Connection()
        self._tally = Tally()
        self._begun: set[int] = set()  # choices
        self._finish_reasons: dict[int, str] = {}
        self._is_cut = False  # the engine went on beyond `max_tokens`
        self.first_token_after_s: float | None = None
        self._has_answered = self._has_accepted = False
        self._is_late = False
        self._started_s = self._last_s = self._looked_s = self._heard_s = time.monotonic()
        self._slept_s = 0.0
        # With the request's id, which the engine and what is logged here are to name.
        read_with_context = functools.partial(contextvars.copy_context().run, self._read)
        self._reader = threading.Thread(target=read_with_context, name="engine-reader", daemon=True)
        self._reader.start()

    @property
    def usage(self) -> Usage:
        return self._tally.usage

    @property
    def finish_reason(self) -> str:
        """The first choice's."""
        return self._finish_reasons.get(0, "")

    @property
    def tokens_per_second(self) -> float | None:
        """From the first token to the last; None where there is no time between them."""
        if self.first_token_after_s is None:
            return None
        took_s = self._last_s - self._started_s - self.first_token_after_s
        tokens = self.usage.completion_tokens - 1
        return tokens / took_s if tokens > 0 and took_s > 0 else None

    def __iter__(self) -> Iterator[Chunk | None]:
        while True:
            try:
                item = self._take(timeout_s=_IDLE_S)
            except queue.Empty:
                self._check_deadlines()
                yield None
                continue
            if item is None:
                self._check_ends()
                return
            if isinstance(item, Exception):
                raise item
            self._check_deadlines()
            if self._is_beyond_limit(item):
                yield from self._cut()
                return
            if item.text or item.extra or item.finish_reason:
                yield item

    def _take(self, *, timeout_s: float) -> Chunk | Exception | None:
        """The next chunk, accounted for, or the end: None or what went wrong."""
        item = self._received.get(timeout=timeout_s)
        if isinstance(item, Chunk):
            self._account(item)
        else:
            self._has_ended = True
        return item

    def _account(self, chunk: Chunk) -> None:
        self._heard_s = self._awake_s()
        self._last_s = self._looked_s
        if chunk.text or chunk.extra:
            self._begun.add(chunk.index)
            if self.first_token_after_s is None:
                self.first_token_after_s = self._last_s - self._started_s
        self._tally.add(chunk)
        if chunk.finish_reason and not self._is_cut:
            self._finish_reasons[chunk.index] = chunk.finish_reason

    def _is_beyond_limit(self, chunk: Chunk) -> bool:
        """Whether this is more of the answer than was asked for. A last event that only counts is
        not: llama.cpp's may hold a token more than was said. Of an engine that does not count while
        it answers, pieces are counted, with room for one that cuts them small."""
        if self._max_tokens is None or not (chunk.text or chunk.extra):
            return False
        limit = self._max_tokens * self._choices
        if self.usage.is_estimated:
            limit = limit * _PIECES_A_TOKEN + _MORE_PIECES
        return self.usage.completion_tokens > limit

    def _cut(self) -> Iterator[Chunk]:
        """The end that an engine which kept to the limit would have told."""
        log.warning("engine_ignores_max_tokens", max_tokens=self._max_tokens)
        self._is_cut = True
        for index in range(self._choices):
            if index not in self._finish_reasons:
                self._finish_reasons[index] = "length"
                yield Chunk(index=index, finish_reason="length")

    def _check_ends(self) -> None:
        """Each answer that was asked for has begun and ended. Ollama knows no `n` and gives one."""
        missing = set(range(self._choices)) - self._finish_reasons.keys()
        if missing and (0 in missing or missing & self._begun):
            raise errors.EngineBadReply
        if missing:
            raise errors.UnsupportedByEngine("n")

    def _awake_s(self) -> float:
        """Now, by a clock that stands still while nobody listens. A process that was stopped looks
        at its clock a moment before it reads what the engine said meanwhile: that is no silence."""
        now = time.monotonic()
        self._slept_s += max(0.0, now - self._looked_s - _LONGEST_LOOK_S)
        self._looked_s = now
        return now - self._slept_s

    def _check_deadlines(self) -> None:
        now, has_begun = self._awake_s(), self.first_token_after_s is not None
        limits = self._timeouts
        is_silent = now - self._heard_s > (limits.silence_s if has_begun else limits.first_token_s)
        if is_silent or self._looked_s - self._started_s > limits.total_s:
            self._is_late = True
            # One that writes and writes was asked for a long answer.
            has_failed = not has_begun and now - self._started_s > limits.total_s
            raise errors.EngineTimeout(is_fault=is_silent or has_failed)

    def close(self) -> None:
        """End the generation upstream if it still runs: closing the connection frees its slot.

        Half of it is closed first, which the engine sees as well, so that the tokens it sent until
        then are still received and counted.
        """
        self._closing.set()
        self._connection.end(socket.SHUT_WR)
        self._hear_last_words()
        self._deaf.set()
        self._connection.end()
        # Bounded: a thread inside connect() cannot be woken, but ends with the connect timeout.
        self._reader.join(self._timeouts.connect_s + 1)

    def _hear_last_words(self) -> None:
        until_s = time.monotonic() + (_LATE_LAST_WORDS_S if self._is_late else _LAST_WORDS_S)
        with contextlib.suppress(queue.Empty):
            while not self._has_ended and time.monotonic() < until_s:
                self._take(timeout_s=max(0.0, until_s - time.monotonic()))
        # It may go on; or it had accepted, and so begun to read the prompt, and told no count yet.
        if not self._has_ended or (self._has_accepted and self._tally.usage.is_estimated):
            self._tally.doubt()

    # --- the reader's thread ---------------------------------------------------------------

    def _read(self) -> None:
        end: Exception | None = None
        try:
            self._stream()
        except errors.EngineError as error:
            end = error
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            end = unreached(error)
        except httpx2.TimeoutException:
            end = errors.EngineTimeout()
        except httpx2.HTTPError as error:
            if not self._closing.is_set():
                log.warning("engine_connection_failed", error=type(error).__name__)
            # Gone before it said anything, as when it is restarted; or broken off in the middle.
            end = errors.EngineBadReply() if self._has_answered else errors.EngineUnavailable()
        except Exception as error:  # the waiting thread must hear of it, whatever it is
            end = error
        self._hand_over(end)

    def _stream(self) -> None:
        limits = self._timeouts
        # The waiting thread enforces the deadlines; this only ends a reader it left behind. Sooner,
        # the engine would pass for one that has ended, and what it went on to send for nothing.
        read_s = limits.total_s + 5
        with self._http.stream(
            "POST",
            self._path,
            content=self._body,
            headers={
                "Content-Type": "application/json",
                "Accept": "text/event-stream, application/json",
            },
            timeout=httpx2.Timeout(read_s, connect=limits.connect_s, pool=limits.connect_s),
            extensions={"trace": self._connection.watch},
        ) as reply:
            self._has_answered = True
            if reply.status_code != httpx2.codes.OK:
                raise refusal(reply, bounded_body(reply, max_bytes=_ERROR_BODY_BYTES))
            self._has_accepted = True
            for chunk in self._read_reply(reply):
                if not self._hand_over(chunk):
                    return

    def _hand_over(self, item: Chunk | Exception | None) -> bool:
        """False when nobody listens any more."""
        while not self._deaf.is_set():
            try:
                self._received.put(item, timeout=_IDLE_S)
            except queue.Full:
                continue
            return True
        return False


def bounded_body(reply: httpx2.Response, *, max_bytes: int) -> bytes:
    """The body, cut off where it is too large: then it decodes to nothing."""
    body = bytearray()
    for part in reply.iter_bytes():
        body += part
        if len(body) > max_bytes:
            break
    return bytes(body)


def unreached(error: httpx2.HTTPError) -> errors.EngineUnavailable:
    """A timeout may be a moment's; no connection at all is an engine that is not there."""
    return errors.EngineUnavailable(is_unreachable=isinstance(error, httpx2.ConnectError))


def refusal(reply: httpx2.Response, body: bytes) -> errors.EngineError:
    return errors.from_status(
        reply.status_code, decoded(body), retry_after=reply.headers.get("Retry-After", "")
    )


def decoded(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
