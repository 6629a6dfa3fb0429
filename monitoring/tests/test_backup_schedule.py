"""Backups by themselves: made when due, checked, and none deleted before a newer one is checked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from conftest import PASSWORD
from monitoring import jobs
from monitoring.backups import readings, schedule
from monitoring.backups.errors import BackupError
from monitoring.backups.making import make_backup
from monitoring.backups.records import note_verified
from monitoring.models import BackupRecord, Instance
from tests import environment
from tests.backing_up import back_up, ignore
from tests.log_capture import LogCapture

pytestmark = pytest.mark.usefixtures("own_database")

DAY = timedelta(hours=24)


@pytest.fixture
def folder(settings: Settings) -> Path:
    settings.BACKUP_INTERVAL_HOURS = 24
    settings.BACKUP_KEEP = 2
    return Path(settings.BACKUP_DIR)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(timezone.now(), tick=False) as traveller:
        yield traveller


def files(folder: Path) -> list[str]:
    return [path.name for path in schedule.newest_first(folder)]


def test_a_backup_is_made_and_checked_when_due(folder: Path, clock: time_machine.Traveller) -> None:
    assert schedule.run_due() == 2
    record = BackupRecord.objects.get()
    assert files(folder) == [record.file_name]
    assert record.verified_at is not None
    assert schedule.run_due() == 0
    clock.shift(DAY - timedelta(minutes=30))
    assert schedule.run_due() == 0
    clock.shift(timedelta(minutes=30))
    assert schedule.run_due() == 2
    assert len(files(folder)) == 2


@pytest.mark.once
def test_the_oldest_go_when_there_are_enough(folder: Path, clock: time_machine.Traveller) -> None:
    for _ in range(4):
        schedule.run_due()
        clock.shift(DAY)
    made = list(BackupRecord.objects.values_list("file_name", flat=True))
    assert files(folder) == made[:2]


def test_none_goes_before_a_newer_one_was_checked(
    folder: Path, clock: time_machine.Traveller
) -> None:
    made: list[str] = []
    for _ in range(4):
        made.insert(0, back_up().name)
        clock.shift(timedelta(minutes=1))
    note_verified(folder / made[3], made_at=timezone.now())
    assert schedule.prune(folder, keep=2) == 0
    assert files(folder) == made
    note_verified(folder / made[1], made_at=timezone.now())
    assert schedule.prune(folder, keep=2) == 2
    assert files(folder) == made[:2]


@pytest.mark.once
def test_another_platform_s_backups_and_other_files_are_left_alone(
    folder: Path, clock: time_machine.Traveller
) -> None:
    theirs = back_up()
    Instance.objects.all().delete()
    (folder / "notes.txt").write_text("mine")
    (folder / "sovereigncore-20200101T000000Z-00000000.backup").write_bytes(b"not one of ours")
    for _ in range(3):
        clock.shift(DAY)
        schedule.run_due()
    assert schedule.prune(folder, keep=1) == 1
    kept = {path.name for path in folder.iterdir()}
    assert {theirs.name, "notes.txt", "sovereigncore-20200101T000000Z-00000000.backup"} < kept


def test_a_damaged_backup_fails_the_job_and_is_made_again_only_when_due(
    folder: Path, clock: time_machine.Traveller
) -> None:
    path = back_up()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BackupError, match="damaged"):
        schedule.run_due()
    assert told()["last_attempt_failed"] == 1
    clock.shift(timedelta(minutes=30))
    # What is damaged does not count as made.
    assert schedule.run_due() == 2
    assert told()["last_attempt_failed"] == 0


@pytest.mark.once
def test_a_failed_backup_is_tried_again(folder: Path, settings: Settings) -> None:
    key, settings.BACKUP_KEY = settings.BACKUP_KEY, ""
    with pytest.raises(BackupError):
        schedule.run_due()
    assert told()["last_attempt_failed"] == 1
    settings.BACKUP_KEY = key
    assert schedule.run_due() == 2
    assert told()["last_attempt_failed"] == 0


def told() -> dict[str, float]:
    return {
        metric.name.removeprefix("sovereigncore_backup_"): sample.value
        for metric in readings.read()
        for sample in metric.samples
    }


@pytest.mark.once
def test_metrics_tell_of_the_newest_backup(
    folder: Path, clock: time_machine.Traveller, settings: Settings
) -> None:
    assert told() == {
        "enabled": 1,
        "last_success_timestamp_seconds": 0,
        "last_verified_timestamp_seconds": 0,
        "last_size_bytes": 0,
        "last_attempt_failed": 0,
    }
    path = back_up()
    made_at = timezone.now().timestamp()
    assert told()["last_success_timestamp_seconds"] == made_at
    assert told()["last_verified_timestamp_seconds"] == 0
    assert told()["last_size_bytes"] == path.stat().st_size
    clock.shift(60)
    schedule.run_due()
    assert told()["last_verified_timestamp_seconds"] == made_at + 60
    settings.BACKUP_DIR = None
    assert told()["enabled"] == 0


@pytest.mark.once
def test_only_what_is_here_counts(
    folder: Path, clock: time_machine.Traveller, tmp_path: Path
) -> None:
    """One on a stick, or one that stayed on the machine before this one, is on record too."""
    path, _ = make_backup(folder=tmp_path / "stick", with_keys=False, tell=ignore)
    note_verified(path, made_at=timezone.now())
    assert told()["last_success_timestamp_seconds"] == 0
    assert told()["last_verified_timestamp_seconds"] == 0
    assert schedule.run_due() == 2
    made_at = timezone.now().timestamp()
    assert told()["last_success_timestamp_seconds"] == made_at
    assert told()["last_verified_timestamp_seconds"] == made_at
    assert schedule.run_due() == 0
    clock.shift(60)
    (made,) = schedule.ours(folder)
    made.unlink()
    assert told()["last_success_timestamp_seconds"] == 0
    assert schedule.run_due() == 2


def test_one_elsewhere_does_not_hide_a_failure(
    folder: Path, clock: time_machine.Traveller, settings: Settings, tmp_path: Path
) -> None:
    key, settings.BACKUP_KEY = settings.BACKUP_KEY, ""
    with pytest.raises(BackupError):
        schedule.run_due()
    settings.BACKUP_KEY = key
    clock.shift(60)
    make_backup(folder=tmp_path / "stick", with_keys=False, tell=ignore)
    assert told()["last_attempt_failed"] == 1


def test_metrics_are_scraped(client: Client, folder: Path) -> None:
    back_up()
    # The scrape reads in a thread of its own, and so from the suite's own database.
    text = client.get("/metrics").content.decode()
    assert "# TYPE sovereigncore_backup_last_success_timestamp_seconds gauge" in text
    assert 'sovereigncore_stored_metrics_up{reader="backups"} 1.0' in text


@pytest.mark.once
def test_the_job_is_the_worker_s_only_with_a_folder() -> None:
    shown = "import django; django.setup(); from monitoring import jobs; print(*jobs._jobs)"
    listed = []
    for folder in ("", "backups"):
        variables = environment.test_environment(
            "data",
            BACKUP_DIR=folder,
            BACKUP_KEY="k7Qm2VxZp9LrTf4WcYb8NdHs3GjEa6Ru",
            DJANGO_SETTINGS_MODULE="sovereigncore.settings",
        )
        done = subprocess.run(
            [sys.executable, "-c", shown],
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        listed.append("backup" in done.stdout.split())
    assert listed == [False, True]


def test_of_two_workers_one_makes_it(folder: Path, logs: LogCapture) -> None:
    jobs.register("backup", schedule.run_due, interval=schedule.LOOK_EVERY, lease=schedule.LEASE)
    job = next(job for job in jobs.all_jobs() if job.name == "backup")
    try:
        assert jobs.run_if_due(job) == 2
        assert jobs.run_if_due(job) is None
    finally:
        del jobs._jobs["backup"]
    assert len(logs.events("backup_made")) == 1


def test_staff_see_backups_and_change_none(client: Client, folder: Path) -> None:
    client.force_login(User.objects.create_superuser("grace", "grace@example.org", PASSWORD))
    path = back_up()
    page = client.get("/admin/monitoring/backuprecord/")
    assert page.status_code == 200
    assert path.name in page.content.decode()
    record = BackupRecord.objects.get()
    assert client.get(f"/admin/monitoring/backuprecord/{record.pk}/change/").status_code == 200
    assert client.post(f"/admin/monitoring/backuprecord/{record.pk}/delete/").status_code == 403
    assert client.get("/admin/monitoring/backuprecord/add/").status_code == 403
