"""Putting an answer together from its chunks: text, and what is beyond text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from consciousness.engine_stream import Chunk

_MAX_TOOL_CALLS = 128


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One answer of those asked for (`n`). `extra`: tool calls, log probabilities, reasoning."""

    index: int = 0
    text: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str = ""


class Assembly:
    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}
        self._extras: dict[int, dict[str, Any]] = {}
        self._finish_reasons: dict[int, str] = {}

    def add(self, chunk: Chunk) -> None:
        if chunk.text:
            self._texts.setdefault(chunk.index, []).append(chunk.text)
        for name, value in chunk.extra.items():
            extra = self._extras.setdefault(chunk.index, {})
            merge = _merged_calls if name == "tool_calls" else _joined
            extra[name] = merge(extra.get(name), value)
        if chunk.finish_reason:
            self._finish_reasons[chunk.index] = chunk.finish_reason

    @property
    def has_begun(self) -> bool:
        """Whether a chunk was passed on: an end without a word is one, too."""
        return bool(self._texts or self._extras or self._finish_reasons)

    @property
    def text(self) -> str:
        """The first choice's."""
        return "".join(self._texts.get(0, ()))

    @property
    def extra(self) -> Mapping[str, Any]:
        """The first choice's."""
        return self._extras.get(0, {})

    def choices(self) -> tuple[Choice, ...]:
        """Those that said something or ended, by index; at least the first."""
        indexes = {0, *self._texts, *self._extras, *self._finish_reasons}
        return tuple(
            Choice(
                index=index,
                text="".join(self._texts.get(index, ())),
                extra=self._extras.get(index, {}),
                finish_reason=self._finish_reasons.get(index, ""),
            )
            for index in sorted(indexes)
        )


def _joined(whole: Any, part: Any) -> Any:
    """Text after text, list after list, object by its fields; anything else replaces."""
    if isinstance(whole, str) and isinstance(part, str):
        return whole + part
    if isinstance(whole, list) and isinstance(part, list):
        return whole + part
    if isinstance(whole, dict) and isinstance(part, dict):
        return {**whole, **{name: _joined(whole.get(name), part[name]) for name in part}}
    return whole if part is None else part


def _merged_calls(whole: list[dict[str, Any]] | None, part: Any) -> list[dict[str, Any]]:
    """OpenAI's deltas: each names its call by `index`; names come whole, arguments in pieces."""
    calls = [*(whole or [])]
    for delta in part if isinstance(part, list) else ():
        place = delta.get("index", 0) if isinstance(delta, dict) else None
        if not isinstance(place, int) or not 0 <= place <= min(len(calls), _MAX_TOOL_CALLS):
            continue
        if place == len(calls):
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        known, told = calls[place], delta.get("function")
        told = told if isinstance(told, dict) else {}
        calls[place] = {
            "id": known["id"] or str(delta.get("id") or ""),
            "type": "function",
            "function": {
                "name": known["function"]["name"] or str(told.get("name") or ""),
                "arguments": known["function"]["arguments"] + str(told.get("arguments") or ""),
            },
        }
    return calls
