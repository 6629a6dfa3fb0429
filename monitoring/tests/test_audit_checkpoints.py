"""Signed checkpoints outside the database: never torn, bounded, and never papered over."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from monitoring.audit import append_only, checkpoints, sealing, signing
from monitoring.audit.checkpoints import BadCheckpoint, CheckpointConflict
from monitoring.audit.sealing import seal_audit
from monitoring.models import AuditEvent, AuditSeal
from monitoring.tests.test_audit_verification import verified
from monitoring.tests.trail import record, sealed
from tests.parallel import in_parallel

pytestmark = pytest.mark.django_db


def file() -> Path:
    return checkpoints.path()


def seals_in_file() -> list[int]:
    return [checkpoints.parse(line).seal for line in checkpoints.lines(file())]


def test_each_run_writes_the_newest_seal_down(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed(2, 2)
    assert seals_in_file() == [1, 2]
    monkeypatch.setattr(sealing, "BATCH", 1)
    record(3)
    seal_audit()
    assert seals_in_file() == [1, 2, 5]
    seal_audit()
    assert seals_in_file() == [1, 2, 5]


def test_it_is_for_its_owner_only(audit_dir: Path) -> None:
    sealed(1)
    assert file().stat().st_mode & 0o777 == 0o600
    assert audit_dir.stat().st_mode & 0o777 == 0o700


def test_one_that_a_crash_left_unwritten_is_written_next(monkeypatch: pytest.MonkeyPatch) -> None:
    record(2)
    assert sealing.seal_batch() == 2
    assert sealing.is_needed()
    assert seal_audit() == 0
    assert seals_in_file() == [1]


def test_a_torn_line_is_no_line_and_is_replaced() -> None:
    sealed(1)
    whole = file().read_bytes()
    file().write_bytes(whole + whole[: len(whole) // 2])
    assert seals_in_file() == [1]
    verified()
    sealed(1)
    assert seals_in_file() == [1, 2]
    verified()


def test_a_file_with_nothing_but_a_torn_line_begins_anew() -> None:
    sealed(1)
    file().write_bytes(file().read_bytes()[:50])
    assert sealing.is_needed()
    seal_audit()
    assert seals_in_file() == [1]


def test_a_lost_file_is_begun_anew_with_the_newest_seal() -> None:
    sealed(1, 1)
    file().unlink()
    assert sealing.is_needed()
    seal_audit()
    assert seals_in_file() == [2]
    verified()


def test_a_spoiled_line_is_told_and_sealing_goes_on() -> None:
    sealed(1)
    file().write_bytes(b"spoiled\n")
    record(1)
    assert sealing.is_needed()
    with pytest.raises(BadCheckpoint):
        seal_audit()
    assert not AuditEvent.objects.all().unsealed().exists()
    assert sealing.is_needed()


def test_a_full_disk_is_an_error_and_no_half_line(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed(1)
    write = os.pwrite
    record(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda where, line, at: write(where, line[:20], at))
        with pytest.raises(OSError, match="No space") as raised:
            seal_audit()
    assert raised.value.errno == errno.ENOSPC
    assert seals_in_file() == [1]
    seal_audit()
    assert seals_in_file() == [1, 2]


def test_two_files_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch, audit_dir: Path) -> None:
    monkeypatch.setattr(checkpoints, "_MAX_BYTES", 800)  # two lines
    sealed(*[1] * 9)
    assert sorted(path.name for path in audit_dir.glob("*.jsonl")) == [
        *("checkpoints.1.jsonl", "checkpoints.jsonl")
    ]
    kept = seals_in_file()
    assert kept == list(range(kept[0], 10))
    assert 3 <= len(kept) <= 6
    verified()


def test_between_two_files_nothing_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed(1)
    file().rename(checkpoints.older_path(file()))  # and then it was killed
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.seal == 1
    assert not sealing.is_needed()


# --- A trail that is not the one that was written down -----------------------------------------


def cut(last_seal: int) -> None:
    append_only.permit_changes(connection)
    AuditEvent.objects.exclude(seal_id__lte=last_seal).delete()
    AuditSeal.objects.filter(id__gt=last_seal).delete()


def test_a_trail_that_was_cut_is_not_papered_over() -> None:
    sealed(1, 1, 1)
    before = file().read_bytes()
    cut(1)
    with pytest.raises(CheckpointConflict, match="ends at seal 1; seal 3 was written down"):
        seal_audit()
    record(1)
    with pytest.raises(CheckpointConflict, match="ends at seal 2; seal 3 was written down"):
        seal_audit()
    record(1)
    with pytest.raises(CheckpointConflict, match="Seal 3 is not the one"):
        seal_audit()
    record(1)
    with pytest.raises(CheckpointConflict, match="Seal 3 is not the one"):
        seal_audit()
    assert file().read_bytes() == before
    assert not AuditEvent.objects.all().unsealed().exists(), "sealing goes on meanwhile"


def test_moved_away_as_the_docs_say_they_are_begun_anew() -> None:
    sealed(1, 1, 1)
    cut(1)
    file().rename(file().with_name("checkpoints-until-2026-01-31.jsonl"))
    sealed(1)
    assert seals_in_file() == [2]
    verified()


# --- The key -----------------------------------------------------------------------------------


def test_the_key_is_made_once(audit_dir: Path) -> None:
    assert not signing.has_key()
    keys = in_parallel(8, lambda _: signing.public_key())
    assert len(set(keys)) == 1
    assert signing.has_key()
    assert (audit_dir / "signing.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in audit_dir.iterdir()] == ["signing.key"]


def test_it_can_be_given(settings: Settings, audit_dir: Path) -> None:
    # RFC 8032, section 7.1, the first test.
    settings.AUDIT_SIGNING_KEY = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert signing.has_key()
    assert signing.public_key() == public
    assert not audit_dir.exists()
    sealed(1)
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.key == public
    verified("--public-key", public)


@pytest.mark.parametrize("text", ["", "abc", "z" * 64, "a" * 63, "\xff"])
def test_a_spoiled_key_is_never_replaced(audit_dir: Path, text: str) -> None:
    audit_dir.mkdir()
    (audit_dir / "signing.key").write_text(text, encoding="latin-1")
    with pytest.raises(signing.UnreadableKey):
        signing.public_key()
    assert (audit_dir / "signing.key").read_text(encoding="latin-1") == text


@pytest.mark.parametrize(
    "change",
    [
        {"seal": 2},
        {"last_id": 99},
        {"chain": "00" * 32},
        {"at": "2020-01-01T00:00:00.000000+00:00"},
        {"key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"},
        {"signature": "00" * 64},
        {"signature": ""},
        {"signature": 5},
        {"seal": "1"},
        {"extra": 1},
    ],
)
def test_every_field_is_signed(change: dict[str, Any]) -> None:
    import orjson

    sealed(1)
    (line,) = checkpoints.lines(file())
    assert checkpoints.parse(line).seal == 1
    with pytest.raises(BadCheckpoint):
        checkpoints.parse(orjson.dumps({**orjson.loads(line), **change}))
