"""How the OpenAI protocol writes a running query: chunks of one id, usage if asked for, `[DONE]`.

A failure in the middle is an error event and no `[DONE]`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import orjson

from consciousness.asks import Answer
from consciousness.engine_stream import Chunk
from consciousness.openai_answers import (
    CHAT_PREFIX,
    COMPLETION_PREFIX,
    chat_completion,
    chat_logprobs,
    completion_logprobs,
    described_usage,
    head,
    reasoning,
    text_completion,
    text_or_none,
)
from consciousness.running import RunningQuery
from sovereigncore.api import ServiceError
from sovereigncore.errors import openai_error

_DONE = b"data: [DONE]\n\n"
_CHAT_KIND, _COMPLETION_KIND = "chat.completion.chunk", "text_completion"


def _event(data: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(data)


class _Writer(ABC):
    kind: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, running: RunningQuery, *, includes_usage: bool) -> None:
        self._running, self._includes_usage = running, includes_usage
        self._head = head(self.kind, self.prefix, running.query_id, running.model)

    def chunk(self, chunk: Chunk) -> bytes:
        return b"".join(self._part([choice]) for choice in self._choices(chunk))

    def done(self, answer: Answer) -> bytes:
        if not self._includes_usage:
            return _DONE
        return self._part([], usage=described_usage(answer.usage)) + _DONE

    @abstractmethod
    def whole(self, answer: Answer) -> dict[str, Any]: ...

    def _from_the_start(self, whole: dict[str, Any]) -> dict[str, Any]:
        """Its moment is the stream's first, whatever it is by now."""
        return {**whole, "created": self._head["created"]}

    def error(self, error: ServiceError) -> bytes:
        return _event(
            openai_error(
                status=error.status, code=error.code, detail=error.detail, errors=error.errors
            )
        )

    def _part(self, choices: list[dict[str, Any]], *, usage: Any = None) -> bytes:
        told = {"usage": usage} if self._includes_usage else {}
        # Another engine may have taken over before the first part.
        return _event({**self._head, "model": self._running.model, "choices": choices, **told})

    @abstractmethod
    def _choices(self, chunk: Chunk) -> list[dict[str, Any]]: ...


class ChatWriter(_Writer):
    kind, prefix = _CHAT_KIND, CHAT_PREFIX

    def __init__(self, running: RunningQuery, *, includes_usage: bool) -> None:
        super().__init__(running, includes_usage=includes_usage)
        self._begun = 0  # choices

    def whole(self, answer: Answer) -> dict[str, Any]:
        return self._from_the_start(chat_completion(answer))

    def _choices(self, chunk: Chunk) -> list[dict[str, Any]]:
        choices = []
        # llama.cpp begins with the last one, and OpenAI's client fails unless they come in order.
        while self._begun <= chunk.index:
            role = {"role": "assistant", "content": "", "refusal": None}
            choices.append(_choice(self._begun, role))
            self._begun += 1
        if delta := _delta(chunk):
            choices.append(_choice(chunk.index, delta, logprobs=chat_logprobs(chunk.extra)))
        if chunk.finish_reason:
            choices.append(_choice(chunk.index, {}, finish_reason=chunk.finish_reason))
        return choices


def _choice(
    index: int, delta: dict[str, Any], *, logprobs: Any = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _delta(chunk: Chunk) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if chunk.text or "logprobs" in chunk.extra:
        delta["content"] = chunk.text
    if refusal := text_or_none(chunk.extra.get("refusal")):
        delta["refusal"] = refusal
    if calls := _call_deltas(chunk.extra.get("tool_calls")):
        delta["tool_calls"] = calls
    return {**delta, **reasoning(chunk.extra)}


def _call_deltas(given: Any) -> list[dict[str, Any]]:
    calls = []
    for entry in given if isinstance(given, list) else ():
        place = entry.get("index", 0) if isinstance(entry, dict) else None
        if not isinstance(place, int) or place < 0:
            continue
        call: dict[str, Any] = {"index": place}
        if name := text_or_none(entry.get("id")):
            call |= {"id": name, "type": "function"}
        function = entry.get("function")
        if isinstance(function, dict):
            parts = {name: function.get(name) for name in ("name", "arguments")}
            call["function"] = {k: part for k, part in parts.items() if isinstance(part, str)}
        calls.append(call)
    return calls


class CompletionWriter(_Writer):
    kind, prefix = _COMPLETION_KIND, COMPLETION_PREFIX

    def __init__(self, running: RunningQuery, *, includes_usage: bool) -> None:
        super().__init__(running, includes_usage=includes_usage)
        self._written: dict[int, int] = {}  # characters, by choice

    def whole(self, answer: Answer) -> dict[str, Any]:
        return self._from_the_start(text_completion(answer))

    def _choices(self, chunk: Chunk) -> list[dict[str, Any]]:
        offset = self._written.get(chunk.index, 0)
        self._written[chunk.index] = offset + len(chunk.text)
        return [
            {
                "index": chunk.index,
                "text": chunk.text,
                "logprobs": completion_logprobs(chunk.extra, offset=offset),
                "finish_reason": chunk.finish_reason or None,
            }
        ]


def chat_events(whole: dict[str, Any], request: dict[str, Any]) -> bytes:
    """The events of an answer that is whole already, to a request for a stream."""
    choices = []
    for choice in whole["choices"]:
        index, message = choice["index"], choice["message"]
        delta = {name: said for name, said in message.items() if said and name != "role"}
        if calls := message.get("tool_calls"):
            delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(calls)]
        choices += [
            _choice(index, {"role": message["role"], "content": "", "refusal": None}),
            _choice(index, delta, logprobs=choice["logprobs"]),
            _choice(index, {}, finish_reason=choice["finish_reason"]),
        ]
    return _events(_CHAT_KIND, choices, whole, request)


def completion_events(whole: dict[str, Any], request: dict[str, Any]) -> bytes:
    """The same of a completion."""
    return _events(_COMPLETION_KIND, whole["choices"], whole, request)


def _events(
    kind: str, choices: list[dict[str, Any]], whole: dict[str, Any], request: dict[str, Any]
) -> bytes:
    head = {name: whole[name] for name in ("id", "created", "model", "system_fingerprint")}
    head["object"] = kind
    includes_usage = bool((request.get("stream_options") or {}).get("include_usage"))
    told = {"usage": None} if includes_usage else {}
    parts = [{**head, "choices": [choice], **told} for choice in choices]
    if includes_usage:
        parts.append({**head, "choices": [], "usage": whole["usage"]})
    return b"".join(map(_event, parts)) + _DONE
