"""What must not stand in a log, taken out of it: a second line of defence.

The first is that secrets, prompts and query strings are not passed to a logger. But libraries quote
in their errors what they were given, and a database quotes rows: that is cut here, at the last
moment, whatever way it came.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

import orjson

REDACTED = "[redacted]"
# What would be found, and cut out, where it is just a word: `ollama` as a key for an engine that
# wants any, a database's password that is its name.
_SHORTEST = 6
_WORD = re.compile(r"[a-z_-]*")

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)|secret|token|api_?key|authorization|cookie|credential|otp|seed|dsn"
    r"|prompt|private|signature",
    re.IGNORECASE,
)
# How secrets look that nobody knows beforehand: tokens, API keys, passwords in URLs.
_LOOKS_SECRET = re.compile(
    r"eyJ[\w-]{4,}(\.[\w-]*){1,2}"
    r"|\bsk-[\w-]{8,}"
    r"|(?<=[Bb]earer )[\w.~+/=-]{4,}"
    r"|(?<=://)[^\s/@\"\\]*:[^\s/@\"\\]*(?=@)"
    r"|(?<=password=)[^\s\"\\]+"
)
_HINTS = ("eyJ", "sk-", "earer ", "://", "password=")  # cheaper to look for than the pattern
# What databases quote: rows in the first, the statement with its values in the second, a value in
# the third.
_QUOTED_ROWS = re.compile(
    r"^(DETAIL|CONTEXT|HINT|LINE \d+):.*|(?<=invalid input syntax for type ).*", re.MULTILINE
)


class Redactor:
    """Knows the secrets of this installation, in every form that they may be written in."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {
            form
            for secret in secrets
            for text in (secret, unquote(secret), quote(secret, safe=""))
            for form in (text, orjson.dumps(text)[1:-1].decode())
            if len(text) >= _SHORTEST and not _WORD.fullmatch(text)
        }
        # The longest first: one may be a part of another.
        self._known = sorted(known, key=len, reverse=True)

    def cut(self, line: str) -> str:
        """`line`, a JSON text, without what is secret. It stays one."""
        left = self._cut_text(line)
        if left == line or _parsed(left) is not None:
            return left
        # The secret began or ended like an escape beside it: `00` after `\\u00`.
        told = _parsed(line)
        return left if told is None else orjson.dumps(self._cut_value(told)).decode()

    def _cut_text(self, text: str) -> str:
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, REDACTED)
        if any(hint in text for hint in _HINTS):
            text = _LOOKS_SECRET.sub(REDACTED, text)
        return text

    def _cut_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._cut_text(value)
        if isinstance(value, dict):
            return {self._cut_text(name): self._cut_value(inner) for name, inner in value.items()}
        return [self._cut_value(inner) for inner in value] if isinstance(value, list) else value


def _parsed(text: str) -> Any:
    """None where it is no JSON."""
    with contextlib.suppress(orjson.JSONDecodeError):
        return orjson.loads(text)
    return None


def cut_fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """`event` with nothing but numbers in fields whose names speak of secrets."""
    return {name: _cut_field(str(name), value) for name, value in event.items()}


@functools.lru_cache(maxsize=512)
def _speaks_of_secrets(name: str) -> bool:
    return _SECRET_KEY.search(name) is not None


def _cut_field(name: str, value: Any) -> Any:
    if isinstance(value, bool | int | float | None):
        return value  # `prompt_tokens` are no secret
    if _speaks_of_secrets(name):
        return REDACTED
    return cut_fields(value) if isinstance(value, dict) else value


def cut_traceback(text: str) -> str:
    return _QUOTED_ROWS.sub(REDACTED, text)
