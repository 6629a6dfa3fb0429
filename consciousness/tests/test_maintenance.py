"""Orphans settled once and flagged; old queries deleted, and only those."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from consciousness import maintenance, models, settlement
from consciousness.conversations import hold_conversation
from consciousness.maintenance import delete_old_queries, settle_orphans
from consciousness.models import Conversation, Query, QueryContent, Status
from consciousness.models import query as query_models
from consciousness.tests.asking import a_query
from tests.parallel import in_parallel

_TIMEOUT_S = 20.0


def orphan(user: User, status: Status, *, lease_ended_s_ago: float = 1, **values: object) -> Query:
    ended = timezone.now() - timedelta(seconds=lease_ended_s_ago)
    return a_query(user, status=status, lease_expires_at=ended, **values)


def test_one_that_ran_is_settled_at_its_reservation_and_flagged(alice: User) -> None:
    query = orphan(alice, Status.RUNNING, max_tokens=321, reserved_tokens=400)
    assert settle_orphans() == 1
    query.refresh_from_db()
    assert (query.status, query.error_code) == (Status.FAILED, "orphaned")
    assert (query.prompt_tokens, query.completion_tokens) == (79, 321)
    assert query.is_estimated
    assert query.finished_at is not None


def test_one_that_never_ran_used_nothing(alice: User) -> None:
    query = orphan(alice, Status.QUEUED, max_tokens=321, reserved_tokens=400)
    assert settle_orphans() == 1
    query.refresh_from_db()
    assert (query.status, query.error_code) == (Status.FAILED, "orphaned")
    assert (query.prompt_tokens, query.completion_tokens) == (0, 0)
    assert query.is_estimated


def test_each_is_settled_once(alice: User) -> None:
    for _ in range(3):
        orphan(alice, Status.RUNNING)
    assert settle_orphans() == 3
    assert settle_orphans() == 0


def test_one_that_is_deleted_meanwhile_stops_nothing(alice: User) -> None:
    query = orphan(alice, Status.RUNNING)
    Query.objects.filter(id=query.id).delete()
    assert settlement.settle_orphan(query) is False


@pytest.mark.django_db(transaction=True)
def test_a_conversation_that_goes_on_this_moment_is_kept(alice: User) -> None:
    """Retention finds it idle while a question is being accepted into it."""
    long_ago = timezone.now() - timedelta(days=1000)
    resumed, idle = (
        Conversation.objects.create(user=alice, title="title", updated_at=long_ago)
        for _ in range(2)
    )
    held, looked = threading.Event(), threading.Event()

    def go_on() -> int:
        with transaction.atomic():
            hold_conversation(resumed)
            a_query(alice, conversation=resumed)
            held.set()
            assert looked.wait(_TIMEOUT_S)
        return 0

    def retire() -> int:
        assert held.wait(_TIMEOUT_S)

        def let_go(execute: Any, sql: str, *rest: Any) -> Any:
            if sql.startswith(("BEGIN", "DELETE")) or "FOR UPDATE" in sql:
                looked.set()  # it has found both idle, and is about to wait or to delete
            return execute(sql, *rest)

        with connection.execute_wrapper(let_go):
            return Conversation.objects.all().delete_idle(timedelta(days=30))

    assert in_parallel(2, lambda number: (go_on, retire)[number]()) == [0, 1]
    assert list(Conversation.objects.all()) == [resumed]
    assert resumed.queries.count() == 1
    assert not Conversation.objects.filter(id=idle.id).exists()


def test_those_in_hand_and_those_finished_are_left_alone(alice: User) -> None:
    in_hand = [orphan(alice, status, lease_ended_s_ago=-60) for status in models.ACTIVE]
    finished = [
        orphan(alice, status, completion_tokens=7)
        for status in (Status.COMPLETED, Status.CANCELLED, Status.FAILED)
    ]
    assert settle_orphans() == 0
    for query in (*in_hand, *finished):
        before = (query.status, query.completion_tokens, query.finished_at)
        query.refresh_from_db()
        assert (query.status, query.completion_tokens, query.finished_at) == before


def test_a_lease_that_runs_out_makes_an_orphan(
    alice: User, frozen_time: time_machine.Traveller
) -> None:
    orphan(alice, Status.RUNNING, lease_ended_s_ago=-60)
    frozen_time.shift(60)
    assert settle_orphans() == 0
    frozen_time.shift(1)
    assert settle_orphans() == 1


def test_a_late_finisher_changes_nothing_any_more(alice: User) -> None:
    query = orphan(alice, Status.RUNNING, max_tokens=50, reserved_tokens=150)
    settle_orphans()
    late = Query.objects.all().settle(query.id, status=Status.COMPLETED, completion_tokens=3)
    assert late is False
    query.refresh_from_db()
    assert (query.status, query.completion_tokens) == (Status.FAILED, 50)


def test_many_are_settled_in_batches(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "_BATCH", 2)
    for _ in range(5):
        orphan(alice, Status.QUEUED)
    assert settle_orphans() == 5
    assert not Query.objects.active().exists()


@pytest.mark.django_db(transaction=True)
def test_two_workers_settle_each_orphan_once_between_them(alice: User) -> None:
    for _ in range(10):
        orphan(alice, Status.RUNNING)
    assert sum(in_parallel(4, lambda _number: settle_orphans())) == 10


def test_a_row_is_finished_if_and_only_if_it_is_not_active(alice: User) -> None:
    query = a_query(alice)
    for broken in ({"status": Status.RUNNING}, {"finished_at": None}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Query.objects.filter(id=query.id).update(**broken)


def test_old_ones_are_deleted_with_their_text(alice: User, settings: Settings) -> None:
    settings.RETENTION_DAYS = 30
    now = timezone.now()
    old = a_query(alice, created_at=now - timedelta(days=30, seconds=5))
    young = a_query(alice, created_at=now - timedelta(days=29, hours=23))
    for query in (old, young):
        QueryContent.objects.create(query=query, prompt="text")
    assert delete_old_queries() == 1
    assert list(Query.objects.all()) == [young]
    assert list(QueryContent.objects.values_list("query_id", flat=True)) == [young.id]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.CANCELLED, Status.FAILED])
def test_every_finished_one_is_deleted(alice: User, status: Status) -> None:
    a_query(alice, status=status, created_at=timezone.now() - timedelta(days=1000))
    assert delete_old_queries() == 1
    assert not Query.objects.exists()


@pytest.mark.parametrize("status", models.ACTIVE)
def test_one_that_is_not_finished_is_not_deleted_however_old(alice: User, status: Status) -> None:
    a_query(alice, status=status, created_at=timezone.now() - timedelta(days=1000))
    assert delete_old_queries() == 0
    assert Query.objects.count() == 1


def test_deleting_goes_in_batches(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_models, "_BATCH", 2)
    long_ago = timezone.now() - timedelta(days=1000)
    for _ in range(5):
        QueryContent.objects.create(query=a_query(alice, created_at=long_ago), prompt="text")
    with CaptureQueriesContext(connection) as captured:
        assert delete_old_queries() == 5
    deletes = [
        entry["sql"]
        for entry in captured.captured_queries
        if entry["sql"].startswith('DELETE FROM "consciousness_query"')
    ]
    assert len(deletes) == 3
    assert not Query.objects.exists()
    assert not QueryContent.objects.exists()


def test_nothing_to_do(db: None) -> None:
    assert settle_orphans() == 0
    assert delete_old_queries() == 0
