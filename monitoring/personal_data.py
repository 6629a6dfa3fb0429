"""What is held about a person: a registry that apps fill in `AppConfig.ready()`.

Each app tells how its own tables are exported and erased; nobody else knows them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Holding:
    """`export` yields rows that a person can read; `erase` returns how many rows went.

    `export` never yields what proves who somebody is: hashes, digests, secrets.
    """

    name: str
    export: Callable[[uuid.UUID], Rows]
    erase: Callable[[uuid.UUID], int] = lambda _user_id: 0


_holdings: dict[str, Holding] = {}


def register(holding: Holding) -> None:
    _holdings[holding.name] = holding


def export(user_id: uuid.UUID) -> Iterator[tuple[str, Rows]]:
    """The name and the rows of every holding."""
    for holding in _holdings.values():
        yield holding.name, holding.export(user_id)


def erase(user_id: uuid.UUID) -> dict[str, int]:
    """Erase everything held about a person, in the caller's transaction: rows by holding.

    In the opposite order of registration, so that an account goes after what belongs to it.
    """
    return {holding.name: holding.erase(user_id) for holding in reversed(_holdings.values())}
