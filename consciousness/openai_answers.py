"""How the OpenAI protocol writes answers. What an engine said is text and data here, taken field
by field: what the protocol does not know goes no further."""

from __future__ import annotations

import base64
import sys
import time
import uuid
from array import array
from collections.abc import Mapping
from typing import Any

from consciousness.asks import Answer
from consciousness.assembly import Choice
from consciousness.engine import Model
from consciousness.engine_embedding import VECTORS
from consciousness.engine_stream import Usage

CHAT_PREFIX, COMPLETION_PREFIX = "chatcmpl", "cmpl"


def head(kind: str, prefix: str, query_id: uuid.UUID, model: str) -> dict[str, Any]:
    """What each answer and each part of one begins with. The id is the query's in the history."""
    return {
        "id": f"{prefix}-{query_id.hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": None,
    }


def chat_completion(answer: Answer) -> dict[str, Any]:
    return {
        **head("chat.completion", CHAT_PREFIX, answer.query_id, answer.model),
        "choices": [_chat_choice(choice) for choice in answer.choices],
        "usage": described_usage(answer.usage),
    }


def _chat_choice(choice: Choice) -> dict[str, Any]:
    extra = choice.extra
    calls = [
        {name: call[name] for name in ("id", "type", "function")}
        for call in extra.get("tool_calls", ())
    ]
    message = {
        "role": "assistant",
        "content": None if calls and not choice.text else choice.text,
        "refusal": text_or_none(extra.get("refusal")),
        **({"tool_calls": calls} if calls else {}),
        **reasoning(extra),
    }
    return {
        "index": choice.index,
        "message": message,
        "logprobs": chat_logprobs(extra),
        "finish_reason": choice.finish_reason,
    }


def text_completion(answer: Answer) -> dict[str, Any]:
    return {
        **head("text_completion", COMPLETION_PREFIX, answer.query_id, answer.model),
        "choices": [
            {
                "index": choice.index,
                "text": choice.text,
                "logprobs": completion_logprobs(choice.extra),
                "finish_reason": choice.finish_reason,
            }
            for choice in answer.choices
        ],
        "usage": described_usage(answer.usage),
    }


def described_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
    }


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def reasoning(extra: Mapping[str, Any]) -> dict[str, str]:
    """No field of OpenAI's, but what reasoning models behind llama.cpp and vLLM have made one."""
    said = text_or_none(extra.get("reasoning_content"))
    return {"reasoning_content": said} if said else {}


def chat_logprobs(extra: Mapping[str, Any]) -> dict[str, Any] | None:
    entries = _logprob_entries(extra)
    if entries is None:
        return None
    told = [
        {**_token(entry), "top_logprobs": [_token(top) for top in _tops(entry)]}
        for entry in entries
    ]
    return {"content": told, "refusal": None}


def completion_logprobs(extra: Mapping[str, Any], *, offset: int = 0) -> dict[str, Any] | None:
    """The older protocol's parallel lists; `offset` is the text's own in a stream. llama.cpp
    answers in the newer form here too."""
    entries = _logprob_entries(extra)
    if entries is None:
        given = extra.get("logprobs")
        names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        return {name: given.get(name) for name in names} if isinstance(given, dict) else None
    tokens = [_token(entry)["token"] for entry in entries]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [_token(entry)["logprob"] for entry in entries],
        "top_logprobs": [
            {_token(top)["token"]: _token(top)["logprob"] for top in _tops(entry)}
            for entry in entries
        ],
        "text_offset": offsets,
    }


def _logprob_entries(extra: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    given = extra.get("logprobs")
    entries = given.get("content") if isinstance(given, dict) else None
    if not isinstance(entries, list):
        return None
    return [entry for entry in entries if isinstance(entry, dict)]


def _tops(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    tops = entry.get("top_logprobs")
    return [top for top in tops if isinstance(top, dict)] if isinstance(tops, list) else []


def _token(entry: Mapping[str, Any]) -> dict[str, Any]:
    token, logprob, parts = entry.get("token"), entry.get("logprob"), entry.get("bytes")
    return {
        "token": token if isinstance(token, str) else "",
        # What has no probability at all is -9999 in the protocol.
        "logprob": logprob if isinstance(logprob, (int, float)) else -9999.0,
        "bytes": parts if isinstance(parts, list) else None,
    }


def embedding_list(answer: Answer, *, is_base64: bool) -> dict[str, Any]:
    vectors: list[list[float]] = answer.choices[0].extra[VECTORS]
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _base64(vector) if is_base64 else vector,
            }
            for index, vector in enumerate(vectors)
        ],
        "model": answer.model,
        "usage": {
            "prompt_tokens": answer.usage.prompt_tokens,
            "total_tokens": answer.usage.total_tokens,
        },
    }


def _base64(vector: list[float]) -> str:
    """Single precision, little endian, as OpenAI packs them."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def described_model(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by or "unknown",
    }
