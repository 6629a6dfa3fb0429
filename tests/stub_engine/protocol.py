"""How the stub engine writes what it says, byte for byte in the shapes of llama.cpp's server. Pure:
no sockets."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.stub_engine.composing import (
    call_deltas,
    compose_answer,
    compose_calls,
    compose_logprobs,
    compose_vector,
    cut_at_stop,
    read_text,
    split_tokens,
)

MODEL = "stub-model"
CANARY_SECRET = "canary-7c1e-must-never-reach-a-client"
CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH, EMBEDDING_PATH = "/v1/completions", "/v1/embeddings"
MAX_CHOICES = 4  # llama.cpp's own is its number of slots
_NEEDED = {CHAT_PATH: "messages", COMPLETION_PATH: "prompt", EMBEDDING_PATH: "input"}


class BadRequest(ValueError):
    """A request body that llama.cpp refuses with a 400 of this message."""


def parse_request(raw: bytes, path: str) -> dict[str, Any]:
    """The request's JSON object. Raises BadRequest as llama.cpp words it."""
    try:
        body: Any = json.loads(raw)
    except ValueError as error:
        raise BadRequest(f"[json.exception.parse_error.101] parse error: {error}") from error
    needed = _NEEDED[path]
    kinds = list if path == CHAT_PATH else (list, str)
    given = body.get(needed) if isinstance(body, dict) else None
    if not isinstance(given, kinds) or not given:
        raise BadRequest(f"'{needed}' is required")
    n = body.get("n", 1)
    if not isinstance(n, int) or not 1 <= n <= MAX_CHOICES:
        message = f"Value must be between 1 <= value <= {MAX_CHOICES}, but got {n}"
        raise BadRequest(f"Field 'n': {message}")
    return dict(body)


def describe_error(code: int, kind: str, message: str, **more: int) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "type": kind, **more}}


def describe_overlong(prompt_tokens: int, n_ctx: int) -> dict[str, Any]:
    message = (
        f"request ({prompt_tokens} tokens) exceeds the available context size ({n_ctx} tokens)"
    )
    numbers = {"n_prompt_tokens": prompt_tokens, "n_ctx": n_ctx}
    return describe_error(
        400, "exceed_context_size_error", f"{message}, try increasing it", **numbers
    )


def describe_models(n_ctx: int, created: int) -> dict[str, Any]:
    meta = {"vocab_type": 1, "n_vocab": 262144, "n_ctx": n_ctx, "n_ctx_train": 32768, "n_embd": 640}
    meta |= {"n_params": 268098176, "size": 246587904}
    model = {"id": MODEL, "aliases": [MODEL], "tags": [], "object": "model", "created": created}
    return {"object": "list", "data": [model | {"owned_by": "llamacpp", "meta": meta}]}


def describe_properties(n_ctx: int, *, takes_tools: bool) -> dict[str, Any]:
    abilities = {"supports_tools": takes_tools, "supports_tool_calls": takes_tools}
    return {
        "default_generation_settings": {"n_ctx": n_ctx},
        "total_slots": MAX_CHOICES,
        "chat_template_caps": {"supports_system_role": True, **abilities},
    }


def describe_vectors(inputs: list[str]) -> dict[str, Any]:
    tokens = sum(len(split_tokens(text)) for text in inputs)
    entries = [
        {"embedding": compose_vector(text), "index": index, "object": "embedding"}
        for index, text in enumerate(inputs)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"model": MODEL, "object": "list", "usage": usage, "data": entries}


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer, or `choices` equal ones, and how each part of it looks on the wire. `calls` are
    the deltas of tool calls, one a token, in the place of text."""

    id: str
    created: int
    prompt_tokens: int
    cached_tokens: int
    tokens: tuple[str, ...]
    finish_reason: str
    stream: bool
    include_usage: bool
    timings_per_token: bool
    is_chat: bool = True
    choices: int = 1
    logprobs: int = 0
    calls: tuple[dict[str, Any], ...] = ()

    @property
    def places(self) -> range:
        """The choices' indexes in the order in which their tokens come."""
        return range(self.choices - 1, -1, -1)

    def usage(self, predicted: int) -> dict[str, Any]:
        """One choice's, as llama.cpp counts."""
        return {
            "completion_tokens": predicted,
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + predicted,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }

    def timings(self, predicted: int) -> dict[str, Any]:
        """`prompt_n` leaves out what came from the cache: the prompt is prompt_n + cache_n."""
        return {
            "cache_n": self.cached_tokens,
            "prompt_n": self.prompt_tokens - self.cached_tokens,
            "prompt_ms": 1.0,
            "predicted_n": predicted,
            "predicted_ms": float(predicted),
        }

    def completion(self) -> dict[str, Any]:
        """The body of an answer that is not streamed; only text, which is all that is asked for
        in this way."""
        text = "".join(self.tokens)
        said = (
            {"message": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}
        )
        choices = [
            {"finish_reason": self.finish_reason, "index": index, **said}
            for index in range(self.choices)
        ]
        parts = {"usage": self.usage(len(self.tokens)), "timings": self.timings(len(self.tokens))}
        return self._envelope(choices, is_chunk=False) | parts

    def role_events(self) -> list[bytes]:
        if not self.is_chat:
            return []
        delta = {"role": "assistant", "content": None}
        return [self._event([self._choice(delta, index=index)]) for index in self.places]

    def token_event(self, text: str, predicted: int, index: int = 0) -> bytes:
        timings = {"timings": self.timings(predicted)} if self.timings_per_token else {}
        delta: dict[str, Any] = {"content": text}
        if predicted <= len(self.calls):
            delta = {"tool_calls": [self.calls[predicted - 1]]}
        logprobs = compose_logprobs(text, self.logprobs) if self.logprobs else None
        return self._event([self._choice(delta, index=index, logprobs=logprobs)], timings)

    def final_events(self) -> list[bytes]:
        """Each choice's finish reason and its usage if asked for, and the end."""
        events = []
        predicted = len(self.tokens)
        timings, usage = {"timings": self.timings(predicted)}, {"usage": self.usage(predicted)}
        for index in self.places:
            finish = [self._choice({"content": ""}, self.finish_reason, index=index)]
            if not self.is_chat:
                events.append(self._event(finish, usage | timings))
            elif self.include_usage:
                events += [self._event(finish), self._event([], usage | timings)]
            else:
                events.append(self._event(finish, timings))
        return [*events, b"data: [DONE]\n\n"]

    def _choice(
        self,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        *,
        index: int,
        logprobs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"finish_reason": finish_reason, "index": index}
        if not self.is_chat:
            return choice | {"text": delta["content"], "logprobs": logprobs}
        if finish_reason:
            delta = {}
        return choice | {"delta": delta} | ({"logprobs": logprobs} if logprobs else {})

    def _event(self, choices: list[dict[str, Any]], more: dict[str, Any] | None = None) -> bytes:
        chunk = self._envelope(choices, is_chunk=True) | (more or {})
        return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"

    def _envelope(self, choices: Sequence[dict[str, Any]], *, is_chunk: bool) -> dict[str, Any]:
        kind = "chat.completion.chunk" if is_chunk else "chat.completion"
        return {
            "choices": list(choices),
            "created": self.created,
            "id": self.id,
            "model": MODEL,
            "system_fingerprint": "stub",
            "object": kind if self.is_chat else "text_completion",
        }


def plan_generation(body: dict[str, Any], number: int, created: int) -> Generation:
    """What a well-behaved engine answers to `body`; `number` makes the id unique."""
    is_chat = "messages" in body
    said = body["messages"] if is_chat else [{"content": body["prompt"]}]
    counts = [len(split_tokens(read_text(message))) for message in said]
    calls = call_deltas(compose_calls(body), number) if is_chat else []
    answer, was_stopped = cut_at_stop(compose_answer(body), body.get("stop"))
    if calls:
        answer, was_stopped = [str(call["function"].get("arguments")) for call in calls], False
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    # llama.cpp takes -1, like nothing, as no limit.
    bounded = isinstance(limit, int) and 0 <= limit < len(answer)
    ended = "tool_calls" if calls else "stop"
    logprobs = body.get("logprobs")
    return Generation(
        id=f"chatcmpl-stub-{number}",
        created=created,
        prompt_tokens=sum(counts),
        # As if everything before the last message were still in the cache of an earlier turn.
        cached_tokens=sum(counts[:-1]),
        tokens=tuple(answer[:limit] if bounded else answer),
        finish_reason="length" if bounded and not was_stopped else ended,
        stream=body.get("stream") is True,
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        timings_per_token=body.get("timings_per_token") is True,
        is_chat=is_chat,
        choices=body.get("n", 1),
        logprobs=body.get("top_logprobs", 20) if logprobs is True else logprobs or 0,
        calls=tuple(calls),
    )
