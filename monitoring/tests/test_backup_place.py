"""The place of an SQLite file: held alone, and at every moment with a whole database in it."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from monitoring.backups.errors import DatabaseInUse
from monitoring.backups.sqlite_place import Place, is_kept

pytestmark = pytest.mark.once


@pytest.fixture
def live(tmp_path: Path, settings: Settings) -> Path:
    settings.DATA_DIR = tmp_path
    return made(tmp_path / "db.sqlite3", "old")


@pytest.fixture
def successor(tmp_path: Path) -> Path:
    return made(tmp_path / "successor", "new")


def made(path: Path, text: str) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE said (text)")
        database.execute("INSERT INTO said VALUES (?)", [text])
        database.commit()
    return path


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """As the platform does: in WAL mode, with the newest rows in the journal."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("INSERT INTO said VALUES ('newest')")
        yield database


def said(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [text for (text,) in database.execute("SELECT text FROM said")]


def test_the_former_file_is_kept_whole(live: Path, successor: Path) -> None:
    with Place(live) as place:
        aside = place.replace_by(successor, stamp="1")
    assert said(live) == ["new"]
    assert said(live.with_name(aside)) == ["old"]
    assert sorted(path.name for path in live.parent.iterdir()) == [
        "db.sqlite3", "db.sqlite3.before-restore-1", "run.lock",
    ]  # fmt: skip


def test_what_is_still_in_the_journal_of_a_killed_process_is_kept_with_its_file(
    live: Path, successor: Path
) -> None:
    with writing(live):
        # As after a SIGKILL: the journal is there and nobody has the file open.
        copies = {path.name: path.read_bytes() for path in live.parent.glob("db.sqlite3*")}
    assert len(copies["db.sqlite3-wal"]) > 0
    for name, held in copies.items():
        live.with_name(name).write_bytes(held)
    with Place(live) as place:
        aside = place.replace_by(successor, stamp="1")
    assert said(live) == ["new"]
    assert said(live.with_name(aside)) == ["old", "newest"]


def test_a_journal_without_its_file_is_not_taken_for_the_new_one_s(
    live: Path, successor: Path
) -> None:
    with writing(live):
        journal = live.with_name("db.sqlite3-wal").read_bytes()
    live.unlink()
    live.with_name("db.sqlite3-wal").write_bytes(journal)
    with Place(live) as place:
        assert place.replace_by(successor, stamp="1") == ""
    assert said(live) == ["new"]


def test_a_spoilt_file_is_no_obstacle(live: Path, successor: Path) -> None:
    live.write_bytes(b"not a database" * 1000)
    with Place(live) as place:
        aside = place.replace_by(successor, stamp="1")
    assert said(live) == ["new"]
    assert live.with_name(aside).read_bytes() == b"not a database" * 1000


def test_who_has_the_file_open_is_not_robbed_of_it(live: Path) -> None:
    with writing(live), pytest.raises(DatabaseInUse, match="open"), Place(live):
        pass
    with Place(live):
        pass


def test_while_it_is_held_nobody_gets_in(live: Path) -> None:
    with (
        Place(live),
        closing(sqlite3.connect(live, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("SELECT text FROM said")
    assert said(live) == ["old"]


def test_the_running_platform_is_named(live: Path) -> None:
    with (live.parent / "run.lock").open("w") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DatabaseInUse, match="process 4711"), Place(live):
            pass


def test_holding_it_changes_no_byte(live: Path) -> None:
    with writing(live):
        pass
    before = live.read_bytes()
    with Place(live):
        pass
    assert live.read_bytes() == before


@pytest.mark.parametrize("step", ["link", "replace"])
def test_killed_on_the_way_there_is_still_the_old_one(
    live: Path, successor: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*{"link": (os, "link"), "replace": (Path, "replace")}[step], kill)
        with pytest.raises(Killed), Place(live) as place:
            place.replace_by(successor, stamp="1")
    assert said(live) == ["old"]
    with Place(live) as place:
        place.replace_by(successor, stamp="2")
    assert said(live) == ["new"]


def test_what_a_killed_restore_left_is_removed_by_the_next(live: Path) -> None:
    left = made(live.with_name("db.sqlite3.restoring-12345678"), "half")
    with Place(live):
        assert not left.exists()


def test_without_hard_links_it_works_too(
    live: Path, successor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch, Place(live) as place:
        patch.setattr(os, "link", refuse)
        aside = place.replace_by(successor, stamp="1")
    assert (said(live), said(live.with_name(aside))) == (["new"], ["old"])


@pytest.mark.parametrize(
    "name",
    ["db.sqlite3", "db.sqlite3.before-restore-1-wal", "other.before-restore-1", "successor"],
)
def test_only_what_was_kept_is_taken_for_it(live: Path, successor: Path, name: str) -> None:
    live.with_name(name).touch()
    live.with_name("db.sqlite3.before-restore-1").touch()
    assert not is_kept(live.with_name(name), live)
    assert is_kept(live.with_name("db.sqlite3.before-restore-1"), live)
