"""What `verify_deployment` asks of the audit trail and of backups: where all is well, and not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from monitoring.audit import append_only, checkpoints
from monitoring.backups import records, schedule
from monitoring.deployment import Finding, Verdict, saved
from monitoring.deployment.trail import ask_audit_trail
from monitoring.models import AuditEvent, AuditSeal, BackupRecord
from monitoring.tests import trail
from tests.backing_up import back_up


def failure(finding: Finding) -> str:
    assert finding.verdict is Verdict.FAILED, finding
    return finding.why


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(timezone.now(), tick=False) as traveller:
        yield traveller


# --- The audit trail -------------------------------------------------------------------------


@pytest.fixture
def changeable(db: None) -> Iterator[None]:
    """As for somebody who took the triggers away."""
    append_only.permit_changes(connection)
    yield
    append_only.forbid_changes(connection)


@pytest.mark.django_db
def test_nothing_has_happened_yet() -> None:
    assert ask_audit_trail().verdict is Verdict.NOT_CHECKED


@pytest.mark.django_db
def test_a_trail_that_is_sealed() -> None:
    trail.sealed(2, 3)
    finding = ask_audit_trail()
    assert finding.verdict is Verdict.OK
    assert finding.why.startswith("seal 2 of ")


@pytest.mark.django_db
def test_events_may_wait_for_a_seal_for_a_while(clock: time_machine.Traveller) -> None:
    trail.sealed(1)
    trail.record(1)
    clock.shift(timedelta(minutes=5))
    assert ask_audit_trail().verdict is Verdict.OK
    clock.shift(timedelta(seconds=1))
    assert "has no seal: see the worker" in failure(ask_audit_trail())


@pytest.mark.usefixtures("changeable")
def test_a_row_of_the_newest_seal_was_changed() -> None:
    *_, last = trail.sealed(2, 2)
    AuditEvent.objects.filter(id=last).update(action="user.erased")
    assert failure(ask_audit_trail()).startswith(f"Row {last} was changed")


@pytest.mark.usefixtures("changeable")
def test_a_row_of_the_newest_seal_is_missing() -> None:
    *_, last = trail.sealed(2, 2)
    AuditEvent.objects.filter(id=last).delete()
    assert failure(ask_audit_trail()).startswith(f"Row {last} is missing")


@pytest.mark.usefixtures("changeable")
def test_the_newest_seal_was_changed() -> None:
    trail.sealed(1, 1)
    AuditSeal.objects.filter(id=2).update(chain=bytes(32))
    assert failure(ask_audit_trail()).startswith("Seal 2 was changed")


@pytest.mark.usefixtures("changeable")
def test_the_seal_before_is_missing() -> None:
    trail.sealed(1, 1)
    AuditEvent.objects.filter(seal=1).delete()
    AuditSeal.objects.filter(id=1).delete()
    assert failure(ask_audit_trail()).startswith("Seal 1 is missing")


@pytest.mark.usefixtures("changeable")
def test_the_trail_was_cut_off() -> None:
    trail.sealed(1, 1)
    AuditEvent.objects.filter(seal=2).delete()
    AuditSeal.objects.filter(id=2).delete()
    assert failure(ask_audit_trail()).startswith("The trail ends at seal 1; seal 2 was written")


@pytest.mark.django_db
def test_checkpoints_that_lie_elsewhere(audit_dir: Path) -> None:
    trail.sealed(1)
    checkpoints.path().unlink()
    finding = ask_audit_trail()
    assert finding.verdict is Verdict.WARNING
    assert finding.why == "no checkpoint in DATA_DIR/audit: ask where the worker runs"


@pytest.mark.django_db
def test_a_checkpoint_of_another_key(settings: Settings) -> None:
    trail.sealed(1)
    settings.AUDIT_SIGNING_KEY = "0123456789abcdef" * 4
    assert "signed by a key that is not this platform's" in failure(ask_audit_trail())


@pytest.mark.django_db
def test_a_checkpoint_that_was_changed() -> None:
    trail.sealed(1)
    text = checkpoints.path().read_text()
    checkpoints.path().write_text(text.replace('"seal":1', '"seal":2'))
    assert failure(ask_audit_trail()) == "the newest checkpoint: its signature does not hold"


@pytest.mark.django_db
def test_checkpoints_that_end(clock: time_machine.Traveller) -> None:
    trail.sealed(1)
    kept = checkpoints.path().read_bytes()
    trail.sealed(1)
    checkpoints.path().write_bytes(kept)
    assert ask_audit_trail().verdict is Verdict.OK  # it is being written
    clock.shift(timedelta(minutes=5, seconds=1))
    assert failure(ask_audit_trail()) == "seal 2 has no checkpoint: see the worker"


# --- Backups ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_database")
def test_the_newest_backup(settings: Settings, clock: time_machine.Traveller) -> None:
    settings.BACKUP_INTERVAL_HOURS = 24
    assert failure(saved.ask_backup()).startswith("there is none in ")
    schedule.run_due()
    finding = saved.ask_backup()
    assert finding.verdict is Verdict.OK
    assert finding.why == "the newest one is 0.0 hours old and was restored on trial"
    clock.shift(timedelta(hours=26))
    assert saved.ask_backup().verdict is Verdict.OK
    clock.shift(timedelta(seconds=1))
    assert failure(saved.ask_backup()) == "the newest one is 26.0 hours old"


@pytest.mark.usefixtures("own_database")
def test_a_backup_that_was_never_restored_on_trial() -> None:
    name = back_up().name
    assert failure(saved.ask_backup()).startswith(f"{name} was never restored on trial")


@pytest.mark.usefixtures("own_database")
def test_a_backup_that_is_damaged_or_could_not_be_made(clock: time_machine.Traveller) -> None:
    records.note_damaged(back_up(), error="cut off")
    assert failure(saved.ask_backup()) == "the newest one is noted as damaged: see the admin site"
    clock.shift(timedelta(minutes=1))
    records.note_failure("next", started_at=timezone.now(), error="no room")
    assert failure(saved.ask_backup()) == "the newest one is noted as failed: see the admin site"


@pytest.mark.usefixtures("own_database")
def test_a_backup_whose_file_is_gone_is_none() -> None:
    back_up().unlink()
    assert BackupRecord.objects.made().exists()
    assert failure(saved.ask_backup()).startswith("there is none in ")


@pytest.mark.django_db
def test_without_backups(settings: Settings) -> None:
    settings.BACKUP_DIR = None
    assert saved.ask_backup().verdict is Verdict.WARNING
    assert saved.ask_backup_place().verdict is Verdict.NOT_CHECKED


def test_where_backups_lie(settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR, settings.BACKUP_DIR = tmp_path, tmp_path / "backups"
    assert failure(saved.ask_backup_place()).startswith("there is no directory ")
    settings.BACKUP_DIR.mkdir()
    beside = saved.ask_backup_place()
    assert beside.verdict is Verdict.WARNING
    assert "on DATA_DIR's file system" in beside.why
    settings.BACKUP_DIR = Path("/proc")  # is a file system of its own
    assert saved.ask_backup_place().verdict is Verdict.OK
