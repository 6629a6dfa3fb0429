"""`/v1/embeddings`: vectors, what they cost, and what remains of the texts: nothing."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness import engine_embedding, services
from consciousness.admission import CallerGone
from consciousness.asks import Ask
from consciousness.models import Kind, Query, QueryContent, Status, UsageDay
from consciousness.tests.asking import QUERIES, assert_nothing_runs
from consciousness.tests.openai_asking import EMBEDDINGS, error_of
from consciousness.tests.raw_server import RawServer
from tests.stub_engine import CANARY_SECRET, MODEL, Behaviour, StubEngine
from tests.stub_engine.composing import compose_vector


def embed(client: APIClient, given: Any, **more: Any) -> Any:
    return client.post(EMBEDDINGS, {"input": given, **more})


def test_the_answer_is_the_protocols(as_alice: APIClient, alice: User, stub: StubEngine) -> None:
    response = embed(as_alice, ["a", "b c d"])
    assert response.status_code == 200, response.content
    assert response.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": compose_vector(text)}
            for index, text in enumerate(["a", "b c d"])
        ],
        "model": MODEL,
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    (record,) = stub.ledger
    assert record.body == {"input": ["a", "b c d"], "model": MODEL, "encoding_format": "float"}
    query = Query.objects.get()
    assert (query.kind, query.status) == (Kind.EMBEDDING, Status.COMPLETED)
    assert (query.prompt_tokens, query.completion_tokens) == (4, 0)
    assert not query.is_estimated
    day = UsageDay.objects.get(user=alice)
    assert (day.requests, day.total_tokens, day.reserved_tokens) == (1, 4, 0)
    assert_nothing_runs(stub)


def test_the_texts_are_not_kept(as_alice: APIClient, stub: StubEngine) -> None:
    assert embed(as_alice, "canary").status_code == 200
    assert not QueryContent.objects.exists()
    (row,) = as_alice.get(QUERIES).json()["results"]
    assert (row["kind"], row["prompt"], row["response"]) == ("embedding", None, None)
    assert "canary" not in json.dumps(row)


def test_base64_is_the_same_in_single_precision(as_alice: APIClient, stub: StubEngine) -> None:
    (entry,) = embed(as_alice, "a", encoding_format="base64").json()["data"]
    packed = base64.b64decode(entry["embedding"], validate=True)
    numbers = struct.unpack(f"<{len(packed) // 4}f", packed)
    assert list(numbers) == pytest.approx(compose_vector("a"), abs=1e-6)


def test_the_same_again_is_asked_again(as_alice: APIClient, stub: StubEngine) -> None:
    for _ in range(2):
        assert embed(as_alice, "a").status_code == 200
    assert len(stub.ledger) == 2


def test_a_model_without_embeddings_says_so(as_alice: APIClient, stub: StubEngine) -> None:
    stub.has_embeddings = False
    error = error_of(embed(as_alice, "a"), 400, "unsupported_parameter")
    assert error["type"] == "invalid_request_error"
    assert "--embeddings" not in error["message"]
    query = Query.objects.get()
    assert (query.status, query.error_code) == (Status.FAILED, "unsupported_parameter")
    assert query.total_tokens == 0
    assert_nothing_runs(stub)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (Behaviour.HTML, 502, "engine_bad_reply"),
        (Behaviour.HALF_JSON, 502, "engine_bad_reply"),
        (Behaviour.DIE_MID_STREAM, 502, "engine_bad_reply"),
        (Behaviour.ERROR_500_WITH_SECRET, 502, "engine_bad_reply"),
        (Behaviour.UNAUTHORIZED_401, 502, "engine_misconfigured"),
        (Behaviour.HANG_BEFORE_HEADERS, 504, "engine_timeout"),
        (Behaviour.HANG_MID_STREAM, 504, "engine_timeout"),
        (Behaviour.LOADING_503, 503, "engine_loading"),
    ],
)
def test_an_engine_that_misbehaves(
    as_alice: APIClient, stub: StubEngine, behaviour: Behaviour, status: int, code: str
) -> None:
    stub.behave(behaviour)
    error = error_of(embed(as_alice, ["a", "b"]), status, code)
    assert CANARY_SECRET not in json.dumps(error)
    assert Query.objects.get().status == Status.FAILED
    assert_nothing_runs(stub)


def test_an_answer_without_end_is_cut_off(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_embedding, "_MAX_REPLY_BYTES", 2**20)
    stub.behave(Behaviour.HUGE_LINE)
    error_of(embed(as_alice, "a"), 502, "engine_bad_reply")
    assert_nothing_runs(stub)


def replying(body: Any) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return f"{head}\r\nConnection: close\r\n\r\n".encode() + content


def entry(index: Any, vector: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": vector}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        [entry(0, [1.0])],
        [entry(0, [1.0]), entry(0, [1.0])],
        [entry(0, [1.0]), entry(2, [1.0])],
        [entry(0, [1.0]), entry(1, [])],
        [entry(0, [1.0]), entry(1, "AAAA")],
        [entry(0, [1.0]), entry(1, [None])],
        [entry(0, [1.0]), entry(1, [[1.0]])],
        [entry(0, [1.0]), "x"],
        [entry(0, [1.0]), entry("1", [1.0])],
        [entry(0, [1.0]), entry(1, [1.0]), entry(2, [1.0])],
    ],
)
def test_vectors_that_are_none(as_alice: APIClient, settings: Settings, data: Any) -> None:
    models = {"data": [{"id": "m", "owned_by": "x"}]}
    with RawServer(
        lambda request: replying(models if request.line.startswith("GET") else {"data": data})
    ) as server:
        settings.ENGINE_URL = server.url
        error_of(embed(as_alice, ["a", "b"]), 502, "engine_bad_reply")


def test_vectors_in_another_order_are_put_in_order_and_may_come_without_a_count(
    as_alice: APIClient, settings: Settings
) -> None:
    models = {"data": [{"id": "m", "owned_by": "x"}]}
    vectors = {"data": [entry(1, [2]), entry(0, [1e300])]}
    with RawServer(
        lambda request: replying(models if request.line.startswith("GET") else vectors)
    ) as server:
        settings.ENGINE_URL = server.url
        answer = embed(as_alice, ["a", "b"]).json()
        packed = embed(as_alice, ["a", "b"], encoding_format="base64")
    assert [entry["embedding"] for entry in answer["data"]] == [[1e300], [2]]
    assert answer["usage"]["prompt_tokens"] == 0
    assert packed.status_code == 200


def test_a_caller_who_leaves_ends_it(alice: User, stub: StubEngine) -> None:
    stub.behave(Behaviour.HANG_BEFORE_HEADERS)
    ask = Ask(kind=Kind.EMBEDDING, prompt="", inputs=("a",), max_tokens=0, store=False)
    with pytest.raises(CallerGone):
        services.process_query(user=alice, ask=ask, is_abandoned=lambda: stub.active > 0)
    assert_nothing_runs(stub)
    assert stub.ledger[0].disconnected
    assert Query.objects.get().status == Status.CANCELLED


def test_the_quota_is_asked_first(
    as_alice: APIClient, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 1000
    response = embed(as_alice, "word " * 1000)
    assert response["x-should-retry"] == "false"
    error_of(response, 429, "insufficient_quota")
    assert stub.ledger == []
    told = embed(as_alice, "a b")
    assert told["x-ratelimit-remaining-tokens"] == "998"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a", None]}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": ["a"] * 65}, "input"),
        ({"input": "x" * 200_001}, "input"),
        ({"input": ["x" * 100_000, "x" * 100_001]}, "input"),
        ({"input": "a", "dimensions": 5}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "user": 5}, "user"),
        ({"input": "a", "store": True}, "store"),
        ({"input": "a", "inputs": "b"}, "inputs"),
    ],
)
def test_what_is_not_understood_is_named(
    as_alice: APIClient, stub: StubEngine, body: dict[str, Any], param: str
) -> None:
    error = error_of(as_alice.post(EMBEDDINGS, body), 400, "validation_error")
    assert error["param"] == param
    assert stub.ledger == []
    assert not Query.objects.exists()
