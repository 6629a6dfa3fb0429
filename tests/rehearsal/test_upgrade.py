"""From one version to the next while people go on working."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.rehearsal.load import loaded
from tests.rehearsal.next_version import COLUMN, TABLE, make_next_version
from tests.rehearsal.rolling import restart_each
from tests.rehearsal.topology import Topology, topology

pytestmark = pytest.mark.rehearsal

_MEMORIES = "/api/v1/consciousness/memories"


@pytest.fixture(scope="module")
def parts() -> Iterator[Topology]:
    """Of its own: it ends as another version."""
    with topology() as up:
        yield up


def _columns(parts: Topology) -> set[str]:
    with psycopg.connect(parts.environment["DATABASE_URL"]) as connection:
        found = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s", [TABLE]
        ).fetchall()
    return {name for (name,) in found}


def _remember(parts: Topology, text: str) -> None:
    with parts.client("alice") as http:
        made = http.post(_MEMORIES, json={"text": text})
        assert made.status_code == 201, made.text
        listed = http.get(_MEMORIES).json()["results"]
    assert text in {memory["text"] for memory in listed}


def test_an_upgrade_under_load_fails_no_request(parts: Topology, tmp_path: Path) -> None:
    root = make_next_version(tmp_path / "next")
    assert COLUMN not in _columns(parts)
    with loaded(parts) as load:
        load.wait_for(20)
        parts.manage("migrate", "--verbosity=0", root=root)
        assert COLUMN in _columns(parts)
        _remember(parts, "The old code writes to the new table.")
        load.wait_for(load.done.total() + 20)
        restart_each(parts, root=root)
        _remember(parts, "The new code writes to it.")
        load.wait_for(load.done.total() + 20)
    load.check()
