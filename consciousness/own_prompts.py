"""How much of a prompt its engine may be said to have known: what the same person had it read.

An engine keeps what it computed for a prompt and uses it for the next one that begins alike,
whoever asks. Told how many tokens were known, a caller would learn, guess by guess, how somebody
else's prompt begins. So nobody is told more than the length of an own earlier prompt with which
this one begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import orjson
from django.core.cache import caches
from django.utils.crypto import salted_hmac

from consciousness.engine import Prompt
from consciousness.engine_stream import Usage

_KEPT_S = 30 * 60
_LOOKS = 3  # for the same prompt again, and for where the two turns before it ended


def cached_tokens(
    usage: Usage, prompt: Prompt, *, user_id: Any, engine: str, model: str
) -> int | None:
    """Those of `prompt`, which `engine` has read to its end, that its asker may know of."""
    if usage.cached_tokens is None or usage.is_estimated:
        return None
    cache = caches["prompts"]
    keys = list(_keys(prompt, user_id=user_id, engine=engine, model=model))[::-1]
    own = next((tokens for key in keys[:_LOOKS] if (tokens := cache.get(key))), 0)
    cache.set(keys[0], usage.prompt_tokens, _KEPT_S)
    return min(usage.cached_tokens, own)


def _keys(prompt: Prompt, *, user_id: Any, engine: str, model: str) -> Iterator[str]:
    """Of the beginnings that may have been whole prompts, the shortest first and `prompt` last."""
    around = (str(user_id), engine, model, prompt.options, prompt.text)
    digest = hashlib.sha256(orjson.dumps(around, option=orjson.OPT_SORT_KEYS))
    for number, message in enumerate(prompt.messages):
        if number and message.get("role") == "assistant":
            yield _key(digest.digest())
        digest.update(orjson.dumps(message, option=orjson.OPT_SORT_KEYS))
    yield _key(digest.digest())


def _key(digest: bytes) -> str:
    return salted_hmac("consciousness.own_prompts", digest, algorithm="sha256").hexdigest()
