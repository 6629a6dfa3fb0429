"""Sealing: every row under exactly one seal, whatever order transactions end in."""

from __future__ import annotations

import threading
from datetime import timedelta
from io import StringIO

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.utils import timezone
from pytest_django import Settings
from structlog.testing import capture_logs

from monitoring import audit, jobs
from monitoring.audit import append_only, chaining, checkpoints, digests, sealing
from monitoring.audit.sealing import RowsDoNotHold, SealedElsewhere, seal_audit, seal_batch
from monitoring.models import AuditEvent, AuditSeal
from monitoring.tests.trail import record, sealed
from tests.parallel import in_parallel

TIMEOUT_S = 20.0


def seals() -> list[tuple[int, list[list[int]]]]:
    return list(AuditSeal.objects.order_by("id").values_list("id", "ids"))


def test_it_is_a_job_that_runs_every_ten_seconds() -> None:
    (job,) = [job for job in jobs.all_jobs() if job.name == "seal_audit"]
    assert job.interval == timedelta(seconds=10)


@pytest.mark.django_db
def test_new_rows_are_sealed_and_sealed_ones_left_alone() -> None:
    first = record(3)
    assert seal_audit() == 3
    before = list(AuditEvent.objects.order_by("id").values())
    assert seal_audit() == 0
    assert list(AuditEvent.objects.order_by("id").values()) == before
    second = record(2)
    assert seal_audit() == 2
    assert seals() == [(1, [[first[0], first[-1]]]), (2, [[second[0], second[-1]]])]
    assert list(AuditEvent.objects.order_by("id").values_list("seal_id", flat=True)) == [
        *(1, 1, 1, 2, 2)
    ]


@pytest.mark.django_db
def test_an_idle_job_is_not_run() -> None:
    assert not sealing.is_needed()
    record(1)
    assert sealing.is_needed()
    seal_audit()
    assert not sealing.is_needed()


@pytest.mark.django_db
def test_many_rows_are_sealed_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "BATCH", 3)
    record(8)
    assert seal_audit() == 8
    assert list(AuditSeal.objects.order_by("id").values_list("count", flat=True)) == [3, 3, 2]


@pytest.mark.django_db
def test_one_run_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "BATCH", 2)
    monkeypatch.setattr(sealing, "_BATCHES_A_RUN", 2)
    record(5)
    assert seal_audit() == 4
    assert seal_audit() == 1


@pytest.mark.django_db
def test_the_head_is_the_newest_seal() -> None:
    assert chaining.head() is None
    ids = sealed(2, 3)
    head = chaining.head()
    assert head is not None
    assert (head.seal, head.last_id) == (2, ids[-1])
    assert head.chain == bytes(AuditSeal.objects.get(id=2).chain)


@pytest.mark.django_db
def test_each_seal_depends_on_all_rows_before_it() -> None:
    sealed(2, 2)
    one, two = AuditSeal.objects.order_by("id")
    chain = chaining.chain_of(
        bytes(one.chain),
        seal=2,
        ids=two.ids,
        sealed_at=digests.moment(two.sealed_at),
        contents=bytes(two.contents),
    )
    assert chain == bytes(two.chain)
    other = chaining.chain_of(
        bytes(32),
        seal=2,
        ids=two.ids,
        sealed_at=digests.moment(two.sealed_at),
        contents=bytes(two.contents),
    )
    assert other != chain


def test_ids_are_written_as_ranges() -> None:
    assert chaining.ranges_of([]) == []
    assert chaining.ranges_of([1, 2, 3, 7, 9, 10]) == [[1, 3], [7, 7], [9, 10]]


@pytest.mark.django_db(transaction=True)
def test_of_two_sealers_at_once_one_seals_and_none_twice() -> None:
    record(40)

    def seal(_number: int) -> int:
        try:
            return seal_batch()
        except SealedElsewhere:
            return 0

    assert sorted(in_parallel(4, seal)) == [0, 0, 0, 40]
    assert AuditSeal.objects.count() == 1
    assert not AuditEvent.objects.all().unsealed().exists()


@pytest.mark.django_db
def test_rows_that_another_sealer_took_meanwhile_are_left_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lease failed, and the other one's seal has another number."""
    ids = record(3)
    take = chaining.ranges_of

    def steal(numbers: list[int]) -> list[list[int]]:
        with monkeypatch.context() as patch:
            patch.setattr(chaining, "ranges_of", take)
            patch.setattr(sealing, "BATCH", 1)
            seal = AuditSeal.objects.create(
                **{**_seal_of(ids[0]), "id": 7}  # committed or not, the rows are taken
            )
            AuditEvent.objects.filter(id=ids[0]).update(seal=seal)
        return take(numbers)

    with monkeypatch.context() as patch:
        patch.setattr(chaining, "ranges_of", steal)
        with pytest.raises(SealedElsewhere):
            seal_batch()
    assert not AuditSeal.objects.exists()
    assert AuditEvent.objects.all().unsealed().count() == 3


def _seal_of(number: int) -> dict[str, object]:
    return {
        "first_id": number,
        "last_id": number,
        "count": 1,
        "ids": [[number, number]],
        "sealed_at": timezone.now(),
        "contents": b"",
        "chain": b"",
        "digest": b"",
    }


@pytest.mark.django_db(transaction=True)
def test_a_row_that_is_seen_late_is_sealed_late() -> None:
    """On PostgreSQL a slow transaction's row appears after rows with greater ids were sealed. On
    SQLite nobody else writes while it lasts, and its row is simply the first."""
    is_written, may_commit = threading.Event(), threading.Event()

    def slowly() -> None:
        try:
            with transaction.atomic():
                audit.record("key.revoked", actor_id=None)
                is_written.set()
                assert may_commit.wait(TIMEOUT_S)
        finally:
            connections.close_all()

    slow = threading.Thread(target=slowly)
    if connection.vendor == "postgresql":
        slow.start()
        assert is_written.wait(TIMEOUT_S)
        early = sealed(3)
        may_commit.set()
    else:
        may_commit.set()
        slow.start()
    slow.join(TIMEOUT_S)
    late = AuditEvent.objects.get(action="key.revoked")
    assert late.seal_id is None
    if connection.vendor == "postgresql":
        assert late.id < early[0]
    assert seal_audit() == 1
    assert seals()[-1][1] == [[late.id, late.id]]
    call_command("verify_audit", stdout=StringIO())


@pytest.mark.django_db
@pytest.mark.parametrize("die_at", ["seal", "rows", "checkpoint"])
def test_a_sealer_that_dies_leaves_nothing_half_done(
    monkeypatch: pytest.MonkeyPatch, die_at: str
) -> None:
    sealed(2)
    record(3)

    class Killed(BaseException):
        pass

    def die(*args: object, **kwargs: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if die_at == "seal":
            patch.setattr(AuditSeal, "save", die)
        elif die_at == "rows":
            patch.setattr("django.db.models.query.QuerySet.update", die)
        else:
            patch.setattr(checkpoints, "_append", die)
        with pytest.raises(Killed):
            seal_audit()
    is_sealed = die_at == "checkpoint"
    assert AuditSeal.objects.count() == (2 if is_sealed else 1)
    assert AuditEvent.objects.all().unsealed().count() == (0 if is_sealed else 3)
    assert sealing.is_needed()
    assert seal_audit() == (0 if is_sealed else 3)
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.seal == 2
    assert not sealing.is_needed()


@pytest.mark.django_db
def test_rows_that_do_not_hold_are_sealed_and_the_job_fails_for_a_while() -> None:
    first, second = record(2)
    append_only.permit_changes(connection)
    AuditEvent.objects.filter(id=second).update(action="key.revoked")
    with time_machine.travel(timezone.now(), tick=False) as clock, capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(RowsDoNotHold, match=f"1 rows, the first is {second}"):
                seal_audit()
            assert seals() == [(1, [[first, second]])]
            assert not checkpoints.is_behind()
            clock.shift(timedelta(minutes=9))
        clock.shift(timedelta(minutes=9))
        assert seal_audit() == 0
    told = [(each["id"], each["log_level"]) for each in logs if "does_not_hold" in each["event"]]
    assert told == [(second, "error")] * 2


@pytest.mark.django_db
def test_another_key_than_the_newest_seals_is_told(settings: Settings) -> None:
    with capture_logs() as logs:
        sealing.warn_if_key_changed()
        sealed(1)
        sealing.warn_if_key_changed()
        assert logs == []
        settings.AUDIT_KEY = "another-key-0123456789-0123456789-0123"
        sealing.warn_if_key_changed()
    assert [(each["event"], each["seal"]) for each in logs] == [("audit_key_changed", 1)]
