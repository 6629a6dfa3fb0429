"""A backup gives back what was there at one moment, on either database, while others write."""

from __future__ import annotations

import json
import stat
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from pytest_django import Settings

from accounts.models import User
from accounts.services import erase_user
from consciousness.models import Memory
from monitoring import audit
from monitoring.audit import sealing
from monitoring.backups import checking
from monitoring.backups.database import Snapshot, kind
from monitoring.backups.errors import BackupFailed
from monitoring.backups.manifest import Manifest
from monitoring.backups.restoring import take_out_keys
from monitoring.management.commands.backup import as_text
from monitoring.models import AuditEvent, AuditSeal, BackupRecord, Instance
from monitoring.tests.trail import record, sealed
from tests.backing_up import (
    add_user,
    back_up,
    content,
    folder,
    leftovers,
    made,
    names,
    restore,
    wipe,
)
from tests.own_databases import using
from tests.parallel import in_parallel

pytestmark = pytest.mark.usefixtures("own_database")

STRANGE = "Ünï\tcode \\N \\. 'quoted' \"twice\" line\nbreak \u2028 🦊"
WRITERS = 3


def write_all_kinds_of_values() -> None:
    owner = add_user("alice")
    Memory.objects.create(user=owner, text=STRANGE)
    audit.record("user.renamed", actor_id=owner.id, detail={"said": STRANGE, "none": None})
    BackupRecord.objects.create(
        file_name="", started_at="1999-12-31 23:59:59.999999+00", finished_at="0001-01-01 00:00Z",
        size_bytes=2**63 - 1, outcome="made",
    )  # fmt: skip


def test_what_was_saved_comes_back_table_by_table(own_database: str) -> None:
    write_all_kinds_of_values()
    path, manifest = made()
    before = {table.name: table for table in manifest.tables}
    assert before["accounts_user"].rows == 1
    wipe(own_database)
    restored = restore(path, keep_sessions=True)
    after = content()
    told = {name for name in before if before[name] != after.pop(name)}
    assert after == {}
    # The restore itself is on record, and nothing else has changed.
    assert told - {"sqlite_sequence"} == {"monitoring_auditevent"}
    assert AuditEvent.objects.latest("id").action == "backup.restored"
    assert Memory.objects.get().text == STRANGE
    assert restored.manifest == manifest
    assert leftovers() == []


def test_a_restored_database_goes_on_where_it_was(own_database: str) -> None:
    audit.record("user.renamed", actor_id=None)
    head = AuditEvent.objects.latest("id").id
    path = back_up()
    wipe(own_database)
    restore(path)
    # The trail is closed, search works, and no id is given twice.
    with pytest.raises(Exception, match="append-only"), transaction.atomic():
        AuditEvent.objects.filter(id=head).update(action="x")
    owner = add_user("alice")
    Memory.objects.create(user=owner, text="Rex is a dog")
    audit.record("user.renamed", actor_id=owner.id)
    ids = list(AuditEvent.objects.order_by("id").values_list("id", flat=True))
    assert ids[0] <= head < ids[-1]
    assert len(set(ids)) == len(ids)
    call_command("migrate", "--check", verbosity=0)
    call_command("check", "--database=default")


def test_what_came_later_is_kept_aside_and_can_be_had_again(own_database: str) -> None:
    add_user("alice")
    path = back_up()
    add_user("bob")
    restored = restore(path)
    assert names() == ["alice"]
    assert restored.aside
    call_command("restore", undo=restored.aside, yes=True)
    assert names() == ["alice", "bob"]


@pytest.mark.parametrize("keep_sessions", [False, True])
def test_going_back_is_on_record_and_ends_sessions(
    own_database: str, staff: User, keep_sessions: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = back_up()
    add_user("alice")
    epoch = User.objects.get(username="alice").token_epoch
    restored = restore(path)
    bob = add_user("bob")
    erase_user(bob, by=staff)
    call_command("restore", undo=restored.aside, yes=True, keep_sessions=keep_sessions)
    told = capsys.readouterr().out
    assert "Done after the last restore, and undone now: 1 user.erased." in told
    assert f"Erase these accounts again: {bob.id}" in told
    assert User.objects.get(username="alice").token_epoch == epoch + (not keep_sessions)
    event = AuditEvent.objects.latest("id")
    assert event.action == "backup.undone"
    assert event.detail == {"kept_as": restored.aside, "sessions_kept": keep_sessions}
    listed = [path.read_text() for path in (folder().parent / "restores").iterdir()]
    assert sorted(f"again: {bob.id}" in text for text in listed) == [False, True]


def test_it_is_a_snapshot_while_others_write(own_database: str) -> None:
    """Writers make a user, a fact and an audit row in one transaction: in every backup there are as
    many of each."""
    stop = threading.Event()
    backups: list[tuple[Path, Manifest]] = []

    def write() -> None:
        with transaction.atomic():
            user = add_user(f"w{uuid.uuid4().hex}")
            Memory.objects.create(user=user, text="a fact")
            audit.record("user.registered", actor_id=user.id, subject_id=user.id)

    def work(number: int) -> None:
        with using(own_database):
            try:
                if number == 0:
                    backups.extend(made() for _ in range(3))
                else:
                    while not stop.wait(0.005):  # SQLite lets nobody in between who only writes
                        write()
            finally:
                stop.set()

    in_parallel(1 + WRITERS, work)
    counts = []
    for path, manifest in backups:
        rows = {table.name: table.rows for table in manifest.tables}
        counts.append(rows["accounts_user"])
        assert rows["consciousness_memory"] == rows["accounts_user"]
        assert checking.check_backup(path).manifest == manifest
    assert counts[0] < counts[-1] < User.objects.count()
    restore(backups[-1][0])
    assert User.objects.count() == Memory.objects.count() == counts[-1]
    assert AuditEvent.objects.filter(action="user.registered").count() == counts[-1]


@pytest.mark.once
def test_files_are_private_and_whole(settings: Settings) -> None:
    path = back_up()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]
    record = BackupRecord.objects.get()
    assert (record.file_name, record.size_bytes) == (path.name, path.stat().st_size)
    assert (record.outcome, record.verified_at) == ("made", None)
    assert leftovers() == []


def test_commands_say_what_they_do(
    own_database: str, settings: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call_command("backup", output=str(tmp_path / "elsewhere"))
    (path,) = (tmp_path / "elsewhere").iterdir()
    assert f"{path}: {as_text(path.stat().st_size)}; " in capsys.readouterr().out
    call_command("verify_backup", str(path))
    assert "Good: all " in capsys.readouterr().out
    record = BackupRecord.objects.get()
    assert record.verified_at is not None
    with pytest.raises(CommandError, match="Add --yes"):
        call_command("restore", str(path))
    add_user("bob")
    call_command("restore", str(path), yes=True)
    assert names() == []
    assert "--undo" in capsys.readouterr().out
    call_command("backup")
    call_command("verify_backup", newest=True)
    settings.BACKUP_DIR = None
    with pytest.raises(CommandError, match="--output"):
        call_command("backup")
    with pytest.raises(CommandError, match="name a file"):
        call_command("verify_backup", newest=True)


@pytest.mark.parametrize(
    ("size_bytes", "told"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (48_000, "46.9 KiB"),
        (1024**2, "1.0 MiB"),
        (582 * 1024**2, "582.0 MiB"),
        (5000 * 1024**3, "5000.0 GiB"),
    ],
)
def test_sizes_are_told_in_a_unit_that_fits(size_bytes: int, told: str) -> None:
    assert as_text(size_bytes) == told


def test_without_a_key_there_are_no_backups(settings: Settings) -> None:
    settings.BACKUP_KEY = ""
    with pytest.raises(BackupFailed, match="BACKUP_KEY is not set"):
        back_up()
    assert not folder().exists()
    record = BackupRecord.objects.get()
    assert (record.outcome, record.error[:10]) == ("failed", "BACKUP_KEY")


@pytest.mark.once
def test_checkpoints_of_the_audit_trail_go_with_the_database(settings: Settings) -> None:
    folder = settings.DATA_DIR / "audit"
    (folder / "archive").mkdir(parents=True)
    (folder / "checkpoints").write_text("as it was")
    (folder / "archive" / "rows").write_text("old")
    path, manifest = made()
    assert [file.name for file in manifest.files] == [
        "files/audit/archive/rows",
        "files/audit/checkpoints",
    ]
    (folder / "checkpoints").write_text("later")
    (folder / "another").write_text("later")
    restored = restore(path)
    assert texts(folder) == {"checkpoints": "as it was", "archive/rows": "old"}
    modes = {stat.S_IMODE(each.stat().st_mode) for each in (folder, folder / "archive")}
    assert modes == {0o700}
    call_command("restore", undo=restored.aside, yes=True)
    assert texts(folder) == {"checkpoints": "later", "another": "later", "archive/rows": "old"}


def test_the_audit_trail_of_a_restored_database_is_whole_and_goes_on(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed(3, 2)
    record(1)
    path = back_up()
    record(4)
    sealing.seal_audit()
    restored = restore(path)
    assert sealing.seal_audit() > 1  # what had no seal yet, and what tells of the restore
    call_command("verify_audit", json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["sound"], found["unsealed"]) == (True, 0), found
    call_command("restore", undo=restored.aside, yes=True)
    call_command("verify_audit")


def texts(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


@pytest.mark.once
def test_checkpoints_are_never_newer_than_the_database(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is made while the backup is would tell of rows that the snapshot has not got."""
    checkpoints = settings.DATA_DIR / "audit" / "checkpoints"
    checkpoints.parent.mkdir()
    checkpoints.write_text("before")
    snapshot = kind().snapshot

    @contextmanager
    def slow_snapshot(folder: Path) -> Iterator[Snapshot]:
        with snapshot(folder) as taken:
            checkpoints.write_text("after")
            yield taken

    with monkeypatch.context() as patch:
        patch.setattr(kind(), "snapshot", slow_snapshot)
        path = back_up()
    restore(path)
    assert checkpoints.read_text() == "before"


@pytest.mark.once
def test_the_machine_keeps_the_key_that_it_signs_with(settings: Settings) -> None:
    key = settings.DATA_DIR / "audit" / "signing.key"
    key.parent.mkdir()
    key.write_text("secret")
    key.chmod(0o600)
    path, manifest = made()
    assert manifest.files == []
    restore(path)
    assert key.read_text() == "secret"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    path, manifest = made(with_keys=True)
    assert "keys/audit/signing.key" in {file.name for file in manifest.files}
    folder = take_out_keys(path)
    assert (folder / "audit" / "signing.key").read_text() == "secret"


@pytest.mark.once
def test_an_undo_does_not_bring_back_a_key_that_was_changed(settings: Settings) -> None:
    key = settings.DATA_DIR / "audit" / "signing.key"
    key.parent.mkdir()
    key.write_text("stolen")
    path, _ = made()
    restored = restore(path)
    key.write_text("new")
    call_command("restore", undo=restored.aside, yes=True)
    assert key.read_text() == "new"


@pytest.mark.once
def test_keys_are_in_it_only_when_asked_for(settings: Settings, tmp_path: Path) -> None:
    settings.DOTENV_FILE = tmp_path / ".env"
    settings.DOTENV_FILE.write_text("SECRET_KEY=x\n")
    _, manifest = made()
    assert manifest.files == []
    path, manifest = made(with_keys=True)
    named = {file.name for file in manifest.files}
    assert {"keys/.env", "keys/SECRET_KEY", "keys/AUDIT_KEY", "keys/JWT_SIGNING_KEYS"} <= named
    folder = take_out_keys(path)
    assert (folder / "AUDIT_KEY").read_text() == settings.AUDIT_KEY
    assert (folder / ".env").read_text() == "SECRET_KEY=x\n"
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert settings.DOTENV_FILE.read_text() == "SECRET_KEY=x\n"


@pytest.mark.once
def test_other_keys_than_the_data_was_written_with_are_refused_first(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    add_user("alice")
    path, former = back_up(with_keys=True), settings.AUDIT_KEY
    add_user("bob")
    settings.AUDIT_KEY = former[::-1]
    with pytest.raises(CommandError, match=r"AUDIT_KEY: another one .* --only-keys"):
        call_command("restore", str(path), yes=True)
    call_command("restore", str(path), only_keys=True)
    (folder,) = settings.DATA_DIR.glob("keys-of-backup-*")
    assert str(folder) in capsys.readouterr().out
    assert (folder / "AUDIT_KEY").read_text() == former
    assert names() == ["alice", "bob"]
    assert leftovers() == []
    settings.AUDIT_KEY = (folder / "AUDIT_KEY").read_text()
    call_command("restore", str(path), yes=True)
    assert names() == ["alice"]
    settings.AUDIT_KEY = former[::-1]
    call_command("restore", str(path), yes=True, other_keys=True)
    assert "AUDIT_KEY is another one" in capsys.readouterr().out


@pytest.mark.once
def test_a_backup_without_keys_says_so() -> None:
    with pytest.raises(CommandError, match="without --with-keys"):
        call_command("restore", str(back_up()), only_keys=True)


def test_who_is_who_survives(own_database: str) -> None:
    mine = Instance.objects.its_id()
    path = back_up()
    wipe(own_database)
    restore(path)
    assert Instance.objects.its_id() == mine


def test_an_older_backup_is_brought_up_to_date(
    own_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    add_user("alice")
    call_command("migrate", "monitoring", "0004", verbosity=0)
    call_command("migrate", "accounts", "0005", verbosity=0)
    assert "daily_token_quota" not in columns("accounts_user")
    path = back_up()
    call_command("migrate", verbosity=0)
    call_command("restore", str(path), yes=True)
    assert "older version" in capsys.readouterr().out
    call_command("migrate", "--check", verbosity=0)
    assert User.objects.get().daily_token_quota is None


def columns(table: str) -> set[str]:
    with connection.cursor() as cursor:
        described = connection.introspection.get_table_description(cursor, table)
    return {column.name for column in described}


def test_what_was_undone_is_told(
    own_database: str, staff: User, capsys: pytest.CaptureFixture[str]
) -> None:
    alice = add_user("alice")
    path = back_up()
    erase_user(alice, by=staff)
    call_command("restore", str(path), yes=True)
    told = capsys.readouterr().out
    assert "1 backup.made, 1 user.erased" in told
    assert f"Erase these accounts again: {alice.id}" in told


def test_tables_of_somebody_else_keep_nobody_from_restoring(
    own_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQLite's come along with the file; PostgreSQL's are left out, which is said."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE reports (text varchar(20))")
        cursor.execute("INSERT INTO reports VALUES ('theirs')")
    call_command("backup")
    told = "Left out, for no migration of ours made it: reports" in capsys.readouterr().out
    call_command("verify_backup", newest=True)
    (path,) = folder().iterdir()
    call_command("restore", str(path), yes=True)
    is_there = "reports" in connection.introspection.table_names()
    assert (told, is_there) == {"sqlite": (False, True), "postgresql": (True, False)}[
        connection.vendor
    ]


@pytest.mark.parametrize(
    "name", ["db.sqlite3", "before_restore_1", "sovereigncore_scratch_1", "../db.sqlite3"]
)
def test_only_a_database_that_was_kept_can_be_gone_back_to(own_database: str, name: str) -> None:
    add_user("alice")
    with pytest.raises(CommandError, match="that a restore has kept aside"):
        call_command("restore", undo=name, yes=True)
    with pytest.raises(CommandError, match="Add --yes"):
        call_command("restore", undo=name)
    assert names() == ["alice"]


def texts_of_checkpoints(settings: Settings) -> str:
    return Path(settings.AUDIT_DIR, "checkpoints.jsonl").read_text()


@pytest.mark.parametrize("is_wiped", [False, True])
def test_the_audit_trail_is_sound_after_a_restore(
    own_database: str, settings: Settings, is_wiped: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.AUDIT_DIR = settings.DATA_DIR / "audit"
    audit.record("user.renamed", actor_id=None)
    sealing.seal_audit()
    audit.record("user.renamed", actor_id=None)
    path = back_up()
    call_command("verify_backup", str(path))
    newest = AuditSeal.objects.get()
    told = f"ends with event {AuditEvent.objects.latest('id').id - 1}; seal 1, {newest.chain.hex()}"
    assert told in capsys.readouterr().out
    sealing.seal_audit()
    assert '"seal":2' in texts_of_checkpoints(settings)
    if is_wiped:
        wipe(own_database)
    restore(path)
    assert '"seal":2' not in texts_of_checkpoints(settings)
    call_command("verify_audit")
    sealing.seal_audit()
    call_command("verify_audit")
    assert AuditSeal.objects.count() == 2
