"""The only way to a model: one client for any server of the OpenAI protocol.

Answers are always streamed from upstream, also for callers who do not stream, so that received
tokens can be counted and a generation can be ended when nobody waits for it any more.
"""

from __future__ import annotations

import copy
import functools
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2
import orjson
import structlog
from django.conf import settings

from consciousness import bundled_model
from consciousness import engine_errors as errors
from consciousness.engine_connection import Connection
from consciousness.engine_embedding import read_vectors
from consciousness.engine_generation import (
    CHAT_PATH,
    Generation,
    Timeouts,
    bounded_body,
    decoded,
    read_stream,
    refusal,
    unreached,
)
from consciousness.engine_outbound import PinningTransport

_MODELS_TIMEOUT_S = 1.0
_MODELS_FRESH_S = 10.0
_MODELS_BYTES = 1024 * 1024
# What to ask for so that every chunk tells the tokens so far, by the server's `owned_by`. Without
# progress events llama.cpp does not notice, until the whole prompt is read, that its client left:
# a slot stayed busy for up to a minute.
_COUNTING: dict[str, dict[str, Any]] = {
    "llamacpp": {"timings_per_token": True, "return_progress": True},
    "vllm": {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
}
_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})")
_SALTED_SINCE = (0, 11)  # of vLLM
# By `owned_by`, those whose `created` is the moment at which they are asked.
_TELL_THE_TIME = ("llamacpp", "vllm", "sglang")


@dataclass(frozen=True, kw_only=True)
class Model:
    id: str
    owned_by: str
    context_tokens: int | None
    created: int = 0  # Unix time, 0 where it is not known


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is asked of a model: `messages` of a chat, `text` to be continued, or `inputs` to be
    embedded. `options` are further parameters of the protocol, checked by whoever took them from
    a caller. `asker` tells people apart, and not who they are."""

    messages: tuple[Mapping[str, Any], ...] = ()
    text: str = ""
    inputs: tuple[str, ...] = ()
    temperature: float
    max_tokens: int
    options: Mapping[str, Any] = field(default_factory=dict)
    asker: str = ""

    @property
    def path(self) -> str:
        if self.inputs:
            return "/v1/embeddings"
        return CHAT_PATH if self.messages else "/v1/completions"

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        count: int = self.options.get("n", 1)
        return count

    @property
    def alternatives(self) -> int | None:
        """How many to each token are asked for; None where no log probabilities are."""
        given = self.options.get("logprobs")
        # A chat's are a yes and a number beside it, those of a text to be continued a number.
        count: int | None = self.options.get("top_logprobs", 0) if given is True else given
        return count

    @property
    def speaks_of_tools(self) -> bool:
        in_messages = any(
            message.get("role") == "tool" or message.get("tool_calls") for message in self.messages
        )
        return in_messages or "tools" in self.options

    def described(self) -> dict[str, Any]:
        """The protocol's parameters, all that shapes the answer but the model."""
        if self.inputs:
            return {"input": self.inputs, **self.options}
        said = {"messages": self.messages} if self.messages else {"prompt": self.text}
        return {
            **said,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            **self.options,
        }


def _name_request(call: httpx2.Request) -> None:
    """Tell the engine which of our requests it works for, so that its log can be found by that.

    With a number of the call's own: callers may send the same id twice, and vLLM takes ours for its
    own, which must be unique (vllm-project/vllm#10583).
    """
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    if request_id:
        call.headers["X-Request-ID"] = f"{request_id}-{uuid.uuid4().hex[:8]}"


@functools.cache
def _trusted_authorities() -> ssl.SSLContext:
    """The system's certificates, read once: reading takes 50 ms of CPU."""
    return httpx2.create_ssl_context(trust_env=False)


@functools.cache
def _nobody_trusted() -> ssl.SSLContext:
    """For engines without TLS."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class _Known:
    """What an engine said of itself, each with the moment at which it did."""

    models: tuple[float, tuple[Model, ...]] = (float("-inf"), ())
    told: dict[str, tuple[float, bool]] = field(default_factory=dict)  # by path


class Engine:
    """One upstream. Safe to share between threads."""

    def __init__(self, *, url: str, api_key: str) -> None:
        """Raises EngineMisconfigured for a URL that is none."""
        connections = httpx2.HTTPTransport(
            verify=_trusted_authorities() if url.startswith("https:") else _nobody_trusted(),
            trust_env=False,
            # A connection a request: ending a generation means closing its connection, and a
            # kept one may be dead after the engine was restarted.
            limits=httpx2.Limits(max_keepalive_connections=0, max_connections=1024),
        )
        try:
            self._http = httpx2.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
                follow_redirects=False,
                trust_env=False,  # no proxy from the environment may see a prompt
                transport=PinningTransport(connections),
                event_hooks={"request": [_name_request]},
                # None: what is set with one user's answer would go out with another's question.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        except httpx2.InvalidURL as error:
            raise errors.EngineMisconfigured from error
        self._known = _Known()
        self._admit: Callable[[], None] = lambda: None

    def behind(self, admit: Callable[[], None]) -> Engine:
        """The same upstream, with all that is known of it; each generation first calls `admit`, and
        raises what that raises."""
        same = copy.copy(self)
        same._admit = admit
        return same

    def models(self, *, fresh: bool = False, timeout_s: float | None = None) -> tuple[Model, ...]:
        """The models served, first the default one; asked anew every ten seconds.

        An answer may take `timeout_s`, by default a second. Raises EngineUnavailable,
        EngineLoading, EngineBusy, EngineBadReply, EngineMisconfigured.
        """
        asked_at_s, known = self._known.models
        if not fresh and time.monotonic() - asked_at_s < _MODELS_FRESH_S:
            return known
        try:
            reply, body = self._ask("/v1/models", timeout_s=timeout_s or _MODELS_TIMEOUT_S)
        except httpx2.HTTPError as error:
            raise unreached(error) from error
        if reply.status_code != httpx2.codes.OK:
            raise refusal(reply, body)
        models = _parse_models(decoded(body))
        self._known.models = (time.monotonic(), models)
        return models

    def _ask(self, path: str, *, timeout_s: float) -> tuple[httpx2.Response, bytes]:
        """A reply and its body, which come in time or never. Raises httpx2.HTTPError."""
        connection = Connection()
        # The client's timeouts are for each read alone: a byte now and then, or one early hint
        # after the other, would be read for ever.
        deadline = threading.Timer(timeout_s, connection.end)
        deadline.name, deadline.daemon = "engine-deadline", True
        deadline.start()
        trace = {"trace": connection.watch}
        try:
            with self._http.stream("GET", path, timeout=timeout_s, extensions=trace) as reply:
                return reply, bounded_body(reply, max_bytes=_MODELS_BYTES)
        finally:
            deadline.cancel()

    def generate(
        self, prompt: Prompt, *, model: Model, timeouts: Timeouts | None = None
    ) -> Generation:
        """Start a generation. Close it, whatever happens.

        Raises UnsupportedByEngine where it is known beforehand.
        """
        if prompt.speaks_of_tools and not self._can_use_tools(model):
            raise errors.UnsupportedByEngine("tools" if "tools" in prompt.options else "messages")
        self._admit()
        if prompt.inputs:
            return self._embed(prompt, model=model, timeouts=timeouts or Timeouts())
        body = {
            **prompt.described(),
            "model": model.id,
            "stream": True,
            "stream_options": {"include_usage": True},
            **_COUNTING.get(model.owned_by, {}),
        }
        if prompt.asker and self.keeps_people_apart(model):
            body["cache_salt"] = prompt.asker
        if body.get("logprobs") is True:
            # Without a number llama.cpp tells twenty, and with 0 no probability at all.
            body["top_logprobs"] = prompt.alternatives or 1
        if model.id == bundled_model.BUNDLED_NAME:
            body.update(_bundled_stops(prompt.options))
        return Generation(
            self._http,
            orjson.dumps(body),
            timeouts or Timeouts(),
            path=prompt.path,
            read=functools.partial(
                read_stream,
                max_tokens=prompt.max_tokens * prompt.choices,
                alternatives=prompt.alternatives,
            ),
            max_tokens=prompt.max_tokens,
            choices=prompt.choices,
        )

    def keeps_people_apart(self, model: Model) -> bool:
        """Whether the server, told whose a prompt is, uses it for nobody else: vLLM does, and its
        first versions that could refused where an older part of it was at work."""
        if model.owned_by != "vllm":
            return False
        return self._tells("/version", _takes_salt, otherwise=False)

    def _embed(self, prompt: Prompt, *, model: Model, timeouts: Timeouts) -> Generation:
        """One chunk with all vectors; see engine_embedding."""
        body = {**prompt.described(), "model": model.id, "encoding_format": "float"}
        read = functools.partial(read_vectors, count=len(prompt.inputs))
        return Generation(self._http, orjson.dumps(body), timeouts, path=prompt.path, read=read)

    def _can_use_tools(self, model: Model) -> bool:
        """llama.cpp leaves tools out, in silence, where the model's template has no place for
        them. Other servers, and those that do not tell, are left to refuse them."""
        if model.owned_by != "llamacpp":
            return True
        return self._tells("/props", _takes_tools, otherwise=True)

    def _tells(
        self, path: str, read: Callable[[Mapping[str, Any]], bool], *, otherwise: bool
    ) -> bool:
        """What `read` finds in the server's answer, asked for anew every ten seconds; `otherwise`
        where none comes."""
        asked_at_s, known = self._known.told.get(path, (float("-inf"), otherwise))
        if time.monotonic() - asked_at_s < _MODELS_FRESH_S:
            return known
        try:
            _, reply = self._ask(path, timeout_s=_MODELS_TIMEOUT_S)
        except httpx2.HTTPError:
            return otherwise
        body = decoded(reply)
        known = read(body if isinstance(body, dict) else {})
        self._known.told[path] = (time.monotonic(), known)
        return known


def _takes_salt(told: Mapping[str, Any]) -> bool:
    version = told.get("version")
    found = _VERSION.match(version) if isinstance(version, str) else None
    return found is not None and (int(found[1]), int(found[2])) >= _SALTED_SINCE


def _takes_tools(told: Mapping[str, Any]) -> bool:
    can = told.get("chat_template_caps")
    return not isinstance(can, dict) or can.get("supports_tools") is not False


def _bundled_stops(options: Mapping[str, Any]) -> dict[str, Any]:
    """A caller's own stops replace the server's, and a base model would go on asking itself. In
    JSON its blank line may stand between two tokens; there a grammar tells the end, and what no
    JSON holds takes the server's stops away."""
    if "response_format" in options:
        return {"stop": options.get("stop") or ["\x01"]}
    return {"stop": [*options["stop"], *bundled_model.STOPS]} if "stop" in options else {}


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
                created=_created_s(entry),
            )
        )
    if not models:
        raise errors.EngineBadReply
    return tuple(models)


def _created_s(entry: Mapping[str, Any]) -> int:
    """The same whenever and by whichever process it is asked for; 0 where it is not known."""
    if entry.get("owned_by") in _TELL_THE_TIME:
        is_bundled = entry["id"] == bundled_model.BUNDLED_NAME
        return bundled_model.BUNDLED_CREATED_S if is_bundled else 0
    return made if isinstance(made := entry.get("created"), int) else 0


def _is_model_id(value: Any) -> bool:
    """Text that can be shown, sent back and kept: PostgreSQL has no NUL in text."""
    return isinstance(value, str) and bool(value) and "\x00" not in value


@functools.lru_cache(maxsize=8)
def _engine(url: str, api_key: str) -> Engine:
    return Engine(url=url, api_key=api_key)


def default_engine() -> Engine:
    return _engine(settings.ENGINE_URL, settings.ENGINE_API_KEY)
