"""Erasing what somebody asked, however much it is."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from consciousness.models import Conversation, Query, QueryContent
from consciousness.tests.asking import a_query
from monitoring import batches, personal_data


def test_much_is_erased_in_batches(alice: User, bob: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """A web process waits two seconds for a statement: what takes longer would never be erased."""
    monkeypatch.setattr(batches, "SIZE", 2)
    for user in (alice, alice, alice, alice, alice, bob):
        conversation = Conversation.objects.create(user=user, title="title")
        QueryContent.objects.create(query=a_query(user, conversation=conversation), prompt="text")
    with CaptureQueriesContext(connection) as captured:
        erased = personal_data.erase(alice.pk)
    for table in ("consciousness_query", "consciousness_conversation"):
        deletes = [
            entry["sql"]
            for entry in captured.captured_queries
            if entry["sql"].startswith("DELETE ") and entry["sql"].split()[2] == f'"{table}"'
        ]
        assert len(deletes) == 3, table
    assert erased["conversations"] == 5
    assert {query.user_id for query in Query.objects.all()} == {bob.pk}
    assert QueryContent.objects.count() == Conversation.objects.count() == 1
