"""Shim until merged."""

from __future__ import annotations

from typing import Any

from consciousness.models import Memory


def fact_in(prompt: str) -> str | None:
    return None


def remember(*, user: Any, text: str) -> Memory:
    raise NotImplementedError


def recall(*, user: Any, text: str, at_most: int = 5) -> list[Memory]:
    return []


def rendered(memories: list[Memory]) -> str:
    return ""


def as_data(text: str) -> str:
    return text.replace('"""', "'''")
