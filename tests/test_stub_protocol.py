"""What the stub engine says beyond text, in the shapes that llama.cpp's server was seen to use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.stub_engine import Behaviour, StubEngine
from tests.test_stub_engine import ask, connect, only_record, read_events

pytestmark = pytest.mark.once

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": CITY}}


@pytest.fixture
def engine() -> Iterator[StubEngine]:
    with StubEngine() as stub:
        yield stub


@pytest.fixture
def client(engine: StubEngine) -> Iterator[httpx2.Client]:
    with connect(engine.url, engine.api_key) as http:
        yield http


def test_each_choice_has_its_own_count_and_end(engine: StubEngine, client: httpx2.Client) -> None:
    fields: dict[str, Any] = {"stream_options": {"include_usage": True}, "timings_per_token": True}
    events = read_events(ask(client, "count to 2", stream=True, n=2, **fields))
    choices = [event["choices"][0] for event in events if event["choices"]]
    assert [choice["index"] for choice in choices] == [1, 0, 1, 0, 1, 0, 1, 0]
    usages = [event["usage"]["completion_tokens"] for event in events if not event["choices"]]
    assert usages == [2, 2]
    assert only_record(engine).completion_tokens == 4


def test_more_choices_than_slots_are_refused(client: httpx2.Client) -> None:
    refused = ask(client, n=5)
    assert refused.status_code == 400
    assert "Value must be between 1 <= value <= 4" in refused.json()["error"]["message"]


def test_a_stop_ends_the_answer_before_it(client: httpx2.Client) -> None:
    for stop in (" 4", ["x", " 4"]):
        choice = ask(client, "count to 9", stop=stop).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("1 2 3", "stop")


def test_calls_come_in_pieces(client: httpx2.Client) -> None:
    events = read_events(ask(client, "weather in Paris?", tools=[TOOL], stream=True))
    (first, *rest), finish = [event["choices"][0]["delta"] for event in events[1:-1]], events[-1]
    (head,) = first["tool_calls"]
    assert (head["index"], head["type"]) == (0, "function")
    assert head["function"] == {"name": "weather", "arguments": ""}
    pieces = [delta["tool_calls"][0]["function"]["arguments"] for delta in rest]
    assert json.loads("".join(pieces)) == {"city": "Paris"}
    assert finish["choices"][0]["finish_reason"] == "tool_calls"


def test_a_tools_answer_ends_the_calling(client: httpx2.Client) -> None:
    said = [{"role": "user", "content": "x"}, {"role": "tool", "content": "sunny"}]
    answer = ask(client, messages=said, tools=[TOOL]).json()
    assert answer["choices"][0]["message"]["content"] == "The tool says: sunny"


def test_json_is_what_was_asked_for(client: httpx2.Client) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}}
    answer = ask(client, "Where is Paris?", response_format=wanted).json()
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"city": "Paris"}


def test_completions(engine: StubEngine, client: httpx2.Client) -> None:
    whole = client.post("/v1/completions", json={"prompt": "count to 2"}).json()
    assert (whole["object"], whole["choices"][0]["text"]) == ("text_completion", "1 2")
    body = {"prompt": "count to 2", "stream": True, "logprobs": 1}
    events = read_events(client.post("/v1/completions", json=body))
    assert [event["choices"][0]["text"] for event in events] == ["1", " 2", ""]
    assert events[0]["choices"][0]["logprobs"]["content"][0]["token"] == "1"
    assert events[-1]["usage"]["completion_tokens"] == 2
    assert client.post("/v1/completions", json={"messages": []}).status_code == 400
    assert [record.completion_tokens for record in engine.ledger] == [2, 2, 0]


def test_embeddings(engine: StubEngine, client: httpx2.Client) -> None:
    answer = client.post("/v1/embeddings", json={"input": ["a b", "c"]}).json()
    assert [entry["index"] for entry in answer["data"]] == [0, 1]
    assert len({len(entry["embedding"]) for entry in answer["data"]}) == 1
    assert only_record(engine).prompt_tokens == answer["usage"]["prompt_tokens"] == 3
    engine.has_embeddings = False
    refused = client.post("/v1/embeddings", json={"input": "a"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (501, "not_supported_error")
    engine.reset()
    engine.enqueue(Behaviour.LOADING_503)
    assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 503
    assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200


def test_properties_say_whether_tools_are_taken(engine: StubEngine, client: httpx2.Client) -> None:
    assert client.get("/props").json()["chat_template_caps"]["supports_tools"] is True
    engine.takes_tools = False
    assert client.get("/props").json()["chat_template_caps"]["supports_tools"] is False
