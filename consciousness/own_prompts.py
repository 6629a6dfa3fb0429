"""How much of a prompt its engine may be said to have known: what the same person had it read.

An engine keeps what it computed for a prompt and uses it for the next one that begins alike,
whoever asks. Told how many tokens were known, a caller would learn, guess by guess, how somebody
else's prompt begins. So nobody is told more than the length of an own earlier prompt with which
this one begins, and that only where the engine was asked nothing in between: otherwise it may have
let go of the own one, and what it knew would be somebody else's.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from typing import Any

import orjson
from django.core.cache import caches
from django.utils.crypto import salted_hmac

from consciousness.engine import Prompt
from consciousness.engine_stream import Usage

_KEPT_S = 30 * 60
_COUNTED_S = 24 * 60 * 60
_LOOKS = 3  # for the same prompt again, and for where the two turns before it ended


class Reading:
    """A prompt on its way through an engine. Make it before the engine is asked."""

    def __init__(
        self, prompt: Prompt, *, user_id: Any, engine: str, model: str, is_apart: bool
    ) -> None:
        """`is_apart`: whether the engine uses nobody's prompts for anybody else's."""
        self._is_apart = is_apart
        self._counter = f"asked:{engine}"
        self._keys = list(_keys(prompt, user_id=user_id, engine=engine, model=model))[::-1]
        cache = caches["prompts"]
        cache.add(self._counter, secrets.randbits(48), _COUNTED_S)
        # None while Redis is away, and so are the other processes' questions.
        self._number: int | None = cache.incr(self._counter)
        self._is_undisturbed = False

    def note_read(self) -> None:
        """The engine has read it to its end: it sent the first token."""
        newest = caches["prompts"].get(self._counter)
        self._is_undisturbed = newest is not None and newest == self._number

    def cached_tokens(self, usage: Usage) -> int | None:
        """Those that its asker may know of; None where the engine tells none."""
        if usage.cached_tokens is None or usage.is_estimated:
            return None
        if self._is_apart:
            return usage.cached_tokens
        return min(usage.cached_tokens, self._own_tokens(usage))

    def _own_tokens(self, usage: Usage) -> int:
        if not self._is_undisturbed or self._number is None:
            return 0
        cache = caches["prompts"]
        found = (cache.get(key) for key in self._keys[:_LOOKS])
        tokens, number = next((one for one in found if one), (0, None))
        cache.set(self._keys[0], (usage.prompt_tokens, self._number), _KEPT_S)
        return tokens if number == self._number - 1 else 0


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
