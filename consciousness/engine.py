"""The only code that talks to a model: one client for any server of the OpenAI protocol.

Answers are always streamed from upstream, also for callers who do not stream, so that received
tokens can be counted and a generation can be ended when nobody waits for it any more.
"""

from __future__ import annotations

import contextlib
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
from consciousness.engine_stream import Chunk, Usage, chunks_of

_IDLE_S = 0.25  # how soon a vanished caller or a passed deadline is noticed
_MODELS_TIMEOUT_S = 1.0
_MODELS_FRESH_S = 10.0
_MODELS_BYTES = 1024 * 1024
_ERROR_BODY_BYTES = 64 * 1024
_MAX_REPLY_BYTES = 32 * 1024 * 1024
# What to ask for so that every chunk tells the tokens so far, by the server's `owned_by`.
_COUNTING: dict[str, dict[str, Any]] = {
    "llamacpp": {"timings_per_token": True},
    "vllm": {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Model:
    id: str
    owned_by: str
    context_tokens: int | None


@dataclass(frozen=True, kw_only=True)
class Prompt:
    messages: tuple[dict[str, str], ...]
    temperature: float
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds. `first_token` and `silence` bound the waiting for any sign of life from the engine,
    before and after the first text; `total` counts from the call."""

    connect_s: float = field(default_factory=lambda: settings.ENGINE_CONNECT_TIMEOUT_S)
    first_token_s: float = field(default_factory=lambda: settings.ENGINE_FIRST_TOKEN_TIMEOUT_S)
    silence_s: float = field(default_factory=lambda: settings.ENGINE_SILENCE_TIMEOUT_S)
    total_s: float = field(default_factory=lambda: settings.ENGINE_TOTAL_TIMEOUT_S)


class Engine:
    """One upstream. Safe to share between threads."""

    def __init__(self, *, url: str, api_key: str) -> None:
        self._http = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            follow_redirects=False,
            trust_env=False,  # no proxy from the environment may see a prompt
            # A connection a request: ending a generation means closing its connection, and a
            # kept one may be dead after the engine was restarted.
            limits=httpx2.Limits(max_keepalive_connections=0, max_connections=1024),
        )
        self._models: tuple[float, tuple[Model, ...]] = (float("-inf"), ())

    def models(self, *, fresh: bool = False) -> tuple[Model, ...]:
        """The models served, first the default one; asked anew every ten seconds.

        Raises EngineUnavailable, EngineLoading, EngineBadReply, EngineMisconfigured.
        """
        asked_at_s, known = self._models
        if not fresh and time.monotonic() - asked_at_s < _MODELS_FRESH_S:
            return known
        until_s = time.monotonic() + _MODELS_TIMEOUT_S
        try:
            with self._http.stream("GET", "/v1/models", timeout=_MODELS_TIMEOUT_S) as reply:
                body = _bounded_body(reply, max_bytes=_MODELS_BYTES, until_s=until_s)
        except httpx2.HTTPError as error:
            raise errors.EngineUnavailable from error
        if reply.status_code != httpx2.codes.OK:
            raise _refusal(reply, body)
        models = _parse_models(_decoded(body))
        self._models = (time.monotonic(), models)
        return models

    def generate(
        self, prompt: Prompt, *, model: Model, timeouts: Timeouts | None = None
    ) -> Generation:
        """Start a generation. Close it, whatever happens."""
        body = {
            "model": model.id,
            "messages": prompt.messages,
            "temperature": prompt.temperature,
            "max_tokens": prompt.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **_COUNTING.get(model.owned_by, {}),
        }
        return Generation(self._http, orjson.dumps(body), timeouts or Timeouts())


class Generation:
    """One running generation: iterate for chunks; None means "nothing yet", a few times a second.

    A thread reads from the engine, so that the caller's thread is free to notice that its client
    has gone, whatever the engine does. `usage` and `finish_reason` are valid at any time and mean
    what has been received so far.
    """

    def __init__(self, http: httpx2.Client, body: bytes, timeouts: Timeouts) -> None:
        self._http, self._body, self._timeouts = http, body, timeouts
        # Bounded: a caller that reads slowly slows the engine instead of filling memory.
        self._received: queue.Queue[Chunk | Exception | None] = queue.Queue(maxsize=64)
        self._closing = threading.Event()
        self._disconnect: Callable[[], None] = lambda: None
        self.usage = Usage()
        self.finish_reason = ""
        self.first_token_after_s: float | None = None
        self._has_answered = False
        self._started_s = self._last_s = time.monotonic()
        self._reader = threading.Thread(target=self._read, name="engine-reader", daemon=True)
        self._reader.start()

    def __iter__(self) -> Iterator[str | None]:
        while True:
            try:
                item = self._received.get(timeout=_IDLE_S)
            except queue.Empty:
                self._check_deadlines()
                yield None
                continue
            if item is None:
                if not self.finish_reason:
                    raise errors.EngineBadReply  # it stopped without having finished
                return
            if isinstance(item, Exception):
                raise item
            self._account(item)
            self._check_deadlines()
            if item.text:
                yield item.text

    def _account(self, chunk: Chunk) -> None:
        self._last_s = time.monotonic()
        if chunk.text and self.first_token_after_s is None:
            self.first_token_after_s = self._last_s - self._started_s
        self.usage = self.usage.updated_by(chunk)
        self.finish_reason = chunk.finish_reason or self.finish_reason

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        waited = self.first_token_after_s is None
        allowed_s = self._timeouts.first_token_s if waited else self._timeouts.silence_s
        if now - self._last_s > allowed_s or now - self._started_s > self._timeouts.total_s:
            raise errors.EngineTimeout

    def close(self) -> None:
        """End the generation upstream if it still runs: closing the connection frees its slot."""
        self._closing.set()
        self._disconnect()
        # Bounded: a thread inside connect() cannot be woken, but ends with the connect timeout.
        self._reader.join(self._timeouts.connect_s + 1)

    # --- the reader's thread ---------------------------------------------------------------

    def _read(self) -> None:
        end: Exception | None = None
        try:
            self._stream()
        except errors.EngineError as error:
            end = error
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            end = errors.EngineUnavailable()
        except httpx2.TimeoutException:
            end = errors.EngineTimeout()
        except httpx2.HTTPError as error:
            log.warning("engine_connection_failed", error=type(error).__name__)
            # Gone before it said anything, as when it is restarted; or broken off in the middle.
            end = errors.EngineBadReply() if self._has_answered else errors.EngineUnavailable()
        except Exception as error:  # the waiting thread must hear of it, whatever it is
            end = error
        self._hand_over(end)

    def _stream(self) -> None:
        limits = self._timeouts
        # The waiting thread enforces the deadlines; these only end a reader it left behind.
        read_s = max(limits.first_token_s, limits.silence_s) + 5
        with self._http.stream(
            "POST",
            "/v1/chat/completions",
            content=self._body,
            headers={"Content-Type": "application/json", "Accept": "text/event-stream"},
            timeout=httpx2.Timeout(read_s, connect=limits.connect_s, pool=limits.connect_s),
            extensions={"trace": self._watch_connection},
        ) as reply:
            self._has_answered = True
            if reply.status_code != httpx2.codes.OK:
                raise _refusal(reply, _bounded_body(reply, max_bytes=_ERROR_BODY_BYTES))
            if not reply.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise errors.EngineBadReply
            for chunk in chunks_of(reply.iter_bytes(), max_bytes=_MAX_REPLY_BYTES):
                if not self._hand_over(chunk):
                    return

    def _watch_connection(self, event: str, info: dict[str, Any]) -> None:
        # TLS takes the socket over from TCP.
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._disconnect = functools.partial(_shut_down, info["return_value"])
            if self._closing.is_set():
                self._disconnect()

    def _hand_over(self, item: Chunk | Exception | None) -> bool:
        """False when nobody listens any more."""
        while not self._closing.is_set():
            try:
                self._received.put(item, timeout=_IDLE_S)
            except queue.Full:
                continue
            return True
        return False


def _shut_down(stream: Any) -> None:
    """Wake the reader out of recv() and tell the engine, which a mere close() would not do."""
    with contextlib.suppress(OSError):  # it is closed already
        stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def _bounded_body(
    reply: httpx2.Response, *, max_bytes: int, until_s: float = float("inf")
) -> bytes:
    """The body, cut off where it is too large or takes too long: then it decodes to nothing."""
    body = b""
    for part in reply.iter_bytes():
        body += part
        if len(body) > max_bytes or time.monotonic() > until_s:
            break
    return body


def _refusal(reply: httpx2.Response, body: bytes) -> errors.EngineError:
    return errors.from_status(
        reply.status_code, _decoded(body), retry_after=reply.headers.get("Retry-After", "")
    )


def _decoded(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _parse_models(body: Any) -> tuple[Model, ...]:
    entries = body.get("data") if isinstance(body, dict) else None
    models = []
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or not _is_model_id(entry.get("id")):
            continue
        meta = entry.get("meta")
        window = meta.get("n_ctx") if isinstance(meta, dict) else entry.get("max_model_len")
        models.append(
            Model(
                id=entry["id"],
                owned_by=owner if isinstance(owner := entry.get("owned_by"), str) else "",
                context_tokens=window if isinstance(window, int) else None,
            )
        )
    if not models:
        raise errors.EngineBadReply
    return tuple(models)


def _is_model_id(value: Any) -> bool:
    """Text that can be shown, sent back and kept: PostgreSQL has no NUL in text."""
    return isinstance(value, str) and bool(value) and "\x00" not in value


@functools.lru_cache(maxsize=8)
def _engine(url: str, api_key: str) -> Engine:
    return Engine(url=url, api_key=api_key)


def default_engine() -> Engine:
    return _engine(settings.ENGINE_URL, settings.ENGINE_API_KEY)


def ask_engine() -> None:
    """The health probe: raises EngineError when the engine does not answer."""
    default_engine().models(fresh=True)
