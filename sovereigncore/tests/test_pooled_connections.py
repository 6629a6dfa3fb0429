"""What the PostgreSQL backend takes out of its pool."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from django.db.backends.postgresql import base

from sovereigncore.backends.postgresql.base import DatabaseWrapper
from sovereigncore.database import BoundedConnection


class Wrapper(DatabaseWrapper):
    pool = Mock(max_size=4)


def connections_of(monkeypatch: pytest.MonkeyPatch, *, ended: int) -> list[Any]:
    """Those that will be taken, the first of them ended."""
    taken = [Mock(BoundedConnection, was_ended=number < ended) for number in range(9)]
    monkeypatch.setattr(base.DatabaseWrapper, "get_new_connection", Mock(side_effect=taken))
    return taken


def test_connections_that_were_ended_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = connections_of(monkeypatch, ended=3)
    assert Wrapper({}).get_new_connection({}) is connections[3]
    assert [each.close.called for each in connections[:4]] == [True, True, True, False]


def test_as_many_as_the_pool_holds_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a proxy that says something to each new connection."""
    connections = connections_of(monkeypatch, ended=9)
    assert Wrapper({}).get_new_connection({}) is connections[4]
    assert not connections[4].close.called
