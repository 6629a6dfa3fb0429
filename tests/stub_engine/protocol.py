"""What the stub engine says, byte for byte in the shapes of llama.cpp's server. Pure: no sockets.

One word is one token, and the same request always gets the same answer.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MODEL = "stub-model"
CANARY_SECRET = "canary-7c1e-must-never-reach-a-client"
CAPITAL_QUESTION = "capital of france"
COUNT_REQUEST = re.compile(r"\bcount to (\d{1,6})\b", re.IGNORECASE)


class BadRequest(ValueError):
    """A request body that llama.cpp refuses with a 400 of this message."""


def parse_request(raw: bytes) -> dict[str, Any]:
    """The request's JSON object. Raises BadRequest as llama.cpp words it."""
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise BadRequest(f"[json.exception.parse_error.101] parse error: {error}") from error
    if (
        not isinstance(body, dict)
        or not isinstance(body.get("messages"), list)
        or not body["messages"]
    ):
        raise BadRequest("'messages' is required")
    return body


def split_tokens(text: str) -> list[str]:
    """One token per word, each with the white space before it: joined they are the text again."""
    return re.findall(r"\s*\S+", text)


def read_text(message: Any) -> str:
    """A message's text; its content may be a string or a list of parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def compose_answer(body: dict[str, Any]) -> list[str]:
    """The whole answer's tokens: "Paris.", "1 2 3 …" for "count to N", or an echo."""
    users = [
        message
        for message in body["messages"]
        if isinstance(message, dict) and message.get("role") == "user"
    ]
    prompt = read_text(users[-1]) if users else ""
    if CAPITAL_QUESTION in prompt.lower():
        return ["Paris."]
    if count := COUNT_REQUEST.search(prompt):
        return split_tokens(" ".join(str(number + 1) for number in range(int(count[1]))))
    return split_tokens(f"Echo: {prompt}")


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


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer, and how each part of it looks on the wire."""

    id: str
    created: int
    prompt_tokens: int
    cached_tokens: int
    tokens: tuple[str, ...]
    finish_reason: str
    stream: bool
    include_usage: bool
    timings_per_token: bool

    def usage(self, predicted: int) -> dict[str, Any]:
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
        """The body of an answer that is not streamed."""
        message = {"role": "assistant", "content": "".join(self.tokens)}
        choice = {"finish_reason": self.finish_reason, "index": 0, "message": message}
        parts = {"usage": self.usage(len(self.tokens)), "timings": self.timings(len(self.tokens))}
        return self._envelope("chat.completion", [choice]) | parts

    def role_event(self) -> bytes:
        return self._event([self._choice({"role": "assistant", "content": None})])

    def token_event(self, text: str, predicted: int) -> bytes:
        timings = {"timings": self.timings(predicted)} if self.timings_per_token else {}
        return self._event([self._choice({"content": text})], timings)

    def final_events(self) -> list[bytes]:
        """The finish reason, the usage if asked for, and the end."""
        predicted = len(self.tokens)
        timings = {"timings": self.timings(predicted)}
        finish = [self._choice({}, self.finish_reason)]
        done = b"data: [DONE]\n\n"
        if not self.include_usage:
            return [self._event(finish, timings), done]
        return [
            self._event(finish),
            self._event([], {"usage": self.usage(predicted)} | timings),
            done,
        ]

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {"finish_reason": finish_reason, "index": 0, "delta": delta}

    def _event(self, choices: list[dict[str, Any]], more: dict[str, Any] | None = None) -> bytes:
        chunk = self._envelope("chat.completion.chunk", choices) | (more or {})
        return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"

    def _envelope(self, kind: str, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "choices": list(choices),
            "created": self.created,
            "id": self.id,
            "model": MODEL,
            "system_fingerprint": "stub",
            "object": kind,
        }


def plan_generation(body: dict[str, Any], number: int, created: int) -> Generation:
    """What a well-behaved engine answers to `body`; `number` makes the id unique."""
    counts = [len(split_tokens(read_text(message))) for message in body["messages"]]
    answer = compose_answer(body)
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    # llama.cpp takes -1, like nothing, as no limit.
    bounded = isinstance(limit, int) and 0 <= limit < len(answer)
    return Generation(
        id=f"chatcmpl-stub-{number}",
        created=created,
        prompt_tokens=sum(counts),
        # As if everything before the last message were still in the cache of an earlier turn.
        cached_tokens=sum(counts[:-1]),
        tokens=tuple(answer[:limit] if bounded else answer),
        finish_reason="length" if bounded else "stop",
        stream=body.get("stream") is True,
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        timings_per_token=body.get("timings_per_token") is True,
    )
