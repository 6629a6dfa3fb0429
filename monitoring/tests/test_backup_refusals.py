"""What must not be restored is refused before anything is touched; what is in use is left alone."""

from __future__ import annotations

import contextlib
import errno
import resource
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from monitoring.backups import checking, making
from monitoring.backups.archive import ArchiveReader, ArchiveWriter, read_json
from monitoring.backups.errors import (
    BackupFailed,
    BackupRefused,
    DamagedBackup,
    DatabaseInUse,
    ForeignBackup,
    NewerBackup,
)
from monitoring.backups.failures import explain
from monitoring.backups.manifest import About
from monitoring.models import AuditEvent, BackupRecord
from tests.backing_up import add_user, back_up, content, folder, leftovers, restore
from tests.own_databases import KEY

pytestmark = pytest.mark.usefixtures("own_database")


@contextlib.contextmanager
def nothing_changes() -> Iterator[None]:
    """Neither a row nor, on SQLite, a byte."""
    before, _ = content(), leftovers()
    path = Path(connection.settings_dict["NAME"])
    connection.close()
    bytes_before = path.read_bytes() if connection.vendor == "sqlite" else b""
    yield
    assert content() == before
    if connection.vendor == "sqlite":
        connection.close()
        assert path.read_bytes() == bytes_before
    assert leftovers() == []
    assert list(folder().parent.glob("*before*")) == []


def rewritten(path: Path, change: Any, *, key: str = KEY) -> Path:
    """The backup as somebody with the key would have written it: `change` gets name and content of
    each entry and gives both, or None for none."""
    other = path.with_name(f"{path.stem}-other.backup")
    with path.open("rb") as source, other.open("wb") as target:
        reader = ArchiveReader(source, key=KEY)
        writer = ArchiveWriter(target, key=key, header={"instance_id": ""})
        for name, blocks in reader.entries():
            entry = change(name, b"".join(blocks))
            if entry is not None:
                with writer.entry(entry[0]) as written:
                    written.write(entry[1])
        writer.finish()
    return other


def with_about(path: Path, **changes: Any) -> Path:
    with path.open("rb") as file:
        _, blocks = next(ArchiveReader(file, key=KEY).entries())
        about = replace(About(**read_json(blocks)), **changes)
    return rewritten(
        path,
        lambda name, held: (name, orjson.dumps(asdict(about)) if name == "about.json" else held),
    )


@pytest.mark.once
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_backup_that_was_cut_off_is_refused(share: float) -> None:
    path = back_up()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with nothing_changes(), pytest.raises(BackupRefused):
        restore(path)


def test_a_damaged_backup_is_refused_and_on_record() -> None:
    path = back_up()
    spoilt = bytearray(path.read_bytes())
    spoilt[-40] ^= 4
    path.write_bytes(spoilt)
    with nothing_changes(), pytest.raises(DamagedBackup):
        restore(path)
    with pytest.raises(CommandError, match="damaged"):
        call_command("verify_backup", str(path))
    record = BackupRecord.objects.get()
    assert (record.outcome, record.verified_at) == ("damaged", None)
    assert "damaged" in record.error


def test_a_backup_under_another_key_is_refused(settings: Settings) -> None:
    path = back_up()
    settings.BACKUP_KEY = KEY[::-1]
    with nothing_changes(), pytest.raises(ForeignBackup, match="another BACKUP_KEY"):
        restore(path)


def test_a_backup_of_a_newer_version_is_refused_by_name() -> None:
    path = back_up()
    migrations = [["accounts", "9999_from_the_future"]]
    newer = with_about(path, migrations=migrations)
    with nothing_changes(), pytest.raises(NewerBackup, match=r"accounts\.9999_from_the_future"):
        restore(newer)


def test_a_backup_of_another_product_is_refused() -> None:
    other = with_about(back_up(), product="somethingelse")
    with nothing_changes(), pytest.raises(ForeignBackup, match="somethingelse"):
        restore(other)


def test_a_backup_of_another_kind_of_database_is_refused() -> None:
    other = with_about(back_up(), vendor={"sqlite": "postgresql"}.get(connection.vendor, "sqlite"))
    with nothing_changes(), pytest.raises(ForeignBackup, match="DATABASE_URL"):
        restore(other)


def test_rows_that_are_not_those_that_were_saved_are_named() -> None:
    """Somebody with the key could write them, and so could a mistake of ours."""
    add_user("alice")
    path = back_up()

    def change(name: str, held: bytes) -> tuple[str, bytes]:
        return name, held.replace(b"alice@example.org", b"mallo@example.org")

    other = rewritten(path, change)
    with nothing_changes(), pytest.raises(DamagedBackup, match="accounts_user has other content"):
        restore(other)


@pytest.mark.once
@pytest.mark.parametrize("name", ["manifest.json", "about.json"])
def test_a_backup_that_does_not_describe_itself_is_refused(name: str) -> None:
    other = rewritten(back_up(), lambda each, held: None if each == name else (each, held))
    with nothing_changes(), pytest.raises(DamagedBackup):
        restore(other)


@pytest.mark.once
def test_a_file_of_a_backup_cannot_be_put_elsewhere() -> None:
    def change(name: str, held: bytes) -> tuple[str, bytes]:
        return ("files/../../escaped", held) if name == "keys/AUDIT_KEY" else (name, held)

    other = rewritten(back_up(with_keys=True), change)
    with nothing_changes(), pytest.raises(DamagedBackup, match="impossible name"):
        restore(other)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="cannot be read"):
        restore(tmp_path / "nothing")


def test_a_database_in_use_is_left_alone(own_database: str) -> None:
    path = back_up()
    with nothing_changes(), somebody_using(own_database) as told:
        with pytest.raises(DatabaseInUse, match=told):
            restore(path)
        with pytest.raises(CommandError, match=told):
            call_command("restore", undo="before_restore_x", yes=True)
    restore(path)


@contextlib.contextmanager
def somebody_using(name: str) -> Iterator[str]:
    """Gives what the refusal must say."""
    if connection.vendor == "sqlite":
        with contextlib.closing(sqlite3.connect(name)) as other:
            other.execute("PRAGMA journal_mode=WAL")
            other.execute("SELECT count(*) FROM accounts_user").fetchone()
            yield "Another process has"
        return
    url = {key: connection.settings_dict[key.upper()] for key in ("host", "port", "user")}
    password = connection.settings_dict["PASSWORD"]
    with psycopg.connect(
        **url, password=password, dbname=name, application_name="somebody", connect_timeout=5
    ):
        yield "somebody .user "


@contextlib.contextmanager
def file_sizes_up_to(size_bytes: int) -> Iterator[None]:
    """A full disk, as far as one process can have one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size_bytes", [0, 4096, 16_000])
def test_a_full_disk_leaves_nothing_and_is_told(size_bytes: int, settings: Settings) -> None:
    for _ in range(20):
        AuditEvent.objects.create(at=timezone.now(), digest=secrets.token_bytes(2000))
    with file_sizes_up_to(size_bytes), pytest.raises(BackupFailed, match="no room left"):
        back_up()
    assert list(folder().glob("*")) == []
    assert leftovers() == []
    back_up()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_has_several_names(number: int) -> None:
    assert "no room left" in explain(OSError(number, "whatever"))


def test_of_a_backup_that_failed_there_is_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/backups")

    monkeypatch.setattr(making, "remove_unfinished", fail)
    with pytest.raises(CommandError, match="Permission denied"):
        call_command("backup")
    record = BackupRecord.objects.get()
    assert (record.outcome, record.size_bytes) == ("failed", 0)
    assert "Permission denied" in record.error


@pytest.mark.once
def test_what_is_asked_about_is_not_taken_for_a_backup_of_ours(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"junk" * 100)
    with pytest.raises(CommandError, match="no backup of SovereignCore"):
        call_command("verify_backup", str(junk))
    assert not BackupRecord.objects.exists()
    # One that a restored database does not know was made when it says so itself.
    path = back_up()
    made_at = BackupRecord.objects.get().finished_at
    BackupRecord.objects.all().delete()
    checking.check_backup(path)
    record = BackupRecord.objects.get()
    assert abs(record.finished_at - made_at) < timedelta(seconds=2)
    assert record.verified_at is not None


def test_a_check_touches_nothing() -> None:
    path = back_up()
    before = content()
    checking.check_backup(path)
    after = content()
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"monitoring_backuprecord"}
    assert leftovers() == []
