"""`POST /api/v1/consciousness/process`, the main job, for callers who wait for the whole answer."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from consciousness.models import Query, Status
from tests.stub_engine import StubEngine

URL = "/api/v1/consciousness/process"


def test_a_question_is_answered_counted_and_recorded(as_alice: APIClient, stub: StubEngine) -> None:
    response = as_alice.post(URL, {"prompt": " What is the capital of France? "}, format="json")
    assert response.status_code == 200, response.content
    body = response.json()
    assert "Paris" in body["response"]
    assert body["finish_reason"] == "stop"
    (record,) = stub.ledger
    assert record.body["messages"][-1]["content"] == "What is the capital of France?"
    assert body["usage"] == {
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "total_tokens": record.prompt_tokens + record.completion_tokens,
    }
    query = Query.objects.get(id=body["query_id"])
    assert query.status == Status.COMPLETED
    assert query.content.response == body["response"]
