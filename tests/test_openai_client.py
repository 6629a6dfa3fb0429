"""OpenAI's own Python client, pointed at the running platform."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.platform import Platform, running_platform
from tests.stub_engine import MODEL, Behaviour, StubEngine
from tests.stub_engine.composing import compose_vector

pytestmark = pytest.mark.xdist_group(__name__)

CAPITAL = "What is the capital of France?"
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city, now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def said(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def make_key(platform: Platform, token: str, *scopes: str) -> str:
    body = {"name": "a program", "scopes": list(scopes)}
    with platform.client(token) as http:
        key: str = http.post("/api/v1/keys", json=body).json()["key"]
    return key


@pytest.fixture
def token(platform: Platform) -> str:
    return platform.register_and_log_in(f"user-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def client_with(platform: Platform) -> Iterator[Callable[..., OpenAI]]:
    """Clients as a program would make them; each with the retries that are its default."""
    clients: list[OpenAI] = []

    def build(credential: str, **options: Any) -> OpenAI:
        client = OpenAI(base_url=f"{platform.url}/v1", api_key=credential, timeout=30, **options)
        clients.append(client)
        return client

    yield build
    for client in clients:
        client.close()


@pytest.fixture
def client(platform: Platform, token: str, client_with: Callable[..., OpenAI]) -> OpenAI:
    return client_with(make_key(platform, token, "read", "write"))


def test_a_chat(client: OpenAI, live_stub: StubEngine) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=said(CAPITAL), temperature=0)
    assert answer.choices[0].message.content == "Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == MODEL
    assert answer.usage is not None
    (record,) = live_stub.ledger
    assert answer.usage.prompt_tokens == record.prompt_tokens
    assert answer.usage.completion_tokens == record.completion_tokens == 1


def test_an_access_token_is_as_good_as_a_key(
    token: str, client_with: Callable[..., OpenAI]
) -> None:
    answer = client_with(token).chat.completions.create(model=MODEL, messages=said(CAPITAL))
    assert answer.choices[0].message.content == "Paris."


def test_the_conversation_goes_on_with_the_clients_own_message(
    client: OpenAI, live_stub: StubEngine
) -> None:
    messages = said("Count to 3")
    for text in ("Count to 4", "Count to 5"):
        answer = client.chat.completions.create(model=MODEL, messages=messages)
        # As its documentation shows it: the object itself goes back.
        messages += [answer.choices[0].message, *said(text)]  # type: ignore[list-item]
    roles = [message["role"] for message in live_stub.ledger[-1].body["messages"]]
    assert roles == ["user", "assistant", "user"]
    dumped: Any = answer.choices[0].message.model_dump()
    messages += [dumped, *said(CAPITAL)]
    again = client.chat.completions.create(model=MODEL, messages=messages)
    assert again.choices[0].message.content == "Paris."


def test_a_stream_with_usage(client: OpenAI, live_stub: StubEngine) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=said("Count to 5"),
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == "1 2 3 4 5"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.usage for chunk in chunks} == {None}
    assert last.choices == []
    assert last.usage is not None
    (record,) = live_stub.ledger
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (
        record.prompt_tokens,
        record.completion_tokens,
    )
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in [*chunks, last]}) == 1


def test_the_clients_own_stream_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=said("Count to 3"), n=2) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert [choice.message.content for choice in final.choices] == ["1 2 3", "1 2 3"]


def test_a_stream_that_is_left_ends_the_generation(client: OpenAI, live_stub: StubEngine) -> None:
    live_stub.behave(Behaviour.ENDLESS, token_delay_s=0.01)
    with client.chat.completions.create(model=MODEL, messages=said("x"), stream=True) as stream:
        next(iter(stream))
    assert live_stub.wait_idle()
    assert live_stub.ledger[0].disconnected


class Place(BaseModel):
    city: str
    inhabitants: int


def test_an_answer_of_a_schema_is_parsed(client: OpenAI, live_stub: StubEngine) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=said("Tell me about Paris"), response_format=Place
    )
    assert answer.choices[0].message.parsed == Place(city="Paris", inhabitants=1)
    sent = live_stub.ledger[0].body["response_format"]["json_schema"]
    assert (sent["name"], sent["strict"]) == ("Place", True)


@pytest.mark.parametrize("is_stream", [False, True])
def test_tools_there_and_back(client: OpenAI, live_stub: StubEngine, is_stream: bool) -> None:
    messages = said("How is the weather in Paris?")
    if is_stream:
        with client.chat.completions.stream(
            model=MODEL, messages=messages, tools=[WEATHER]
        ) as stream:
            message = stream.get_final_completion().choices[0].message
    else:
        answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
        assert answer.choices[0].finish_reason == "tool_calls"
        message = answer.choices[0].message  # type: ignore[assignment]
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result: ChatCompletionMessageParam = {
        "role": "tool",
        "tool_call_id": call.id,
        "content": "sunny, 22 degrees",
    }
    messages += [message, result]  # type: ignore[list-item]
    last = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    assert last.choices[0].message.content == "The tool says: sunny, 22 degrees"
    sent = live_stub.ledger[-1].body["messages"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == call.id


def test_models(client: OpenAI) -> None:
    (model,) = list(client.models.list())
    assert (model.id, model.object) == (MODEL, "model")
    assert client.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/no-such:1b")


def test_completions(client: OpenAI) -> None:
    whole = client.completions.create(model=MODEL, prompt="Count to 3", logprobs=1)
    assert whole.choices[0].text == "1 2 3"
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.tokens == ["1", " 2", " 3"]
    stream = client.completions.create(model=MODEL, prompt="Count to 3", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "1 2 3"


def test_embeddings(client: OpenAI, live_stub: StubEngine) -> None:
    """The client asks for base64 by itself and unpacks it."""
    answer = client.embeddings.create(model=MODEL, input=["a", "b c"])
    vectors = [entry.embedding for entry in answer.data]
    for vector, text in zip(vectors, ["a", "b c"], strict=True):
        assert vector == pytest.approx(compose_vector(text), abs=1e-6)
    assert answer.usage.prompt_tokens == live_stub.ledger[0].prompt_tokens == 3
    plain = client.embeddings.create(model=MODEL, input="a", encoding_format="float")
    assert plain.data[0].embedding == compose_vector("a")


def test_several_choices_and_a_stop(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=said("Count to 9"), n=2, stop=[" 4"]
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert [choice.message.content for choice in answer.choices] == ["1 2 3", "1 2 3"]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6


def test_log_probabilities(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=said("Count to 1"), logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [entry.token for entry in logprobs.content] == ["1"]
    assert len(logprobs.content[0].top_logprobs) == 2


def test_a_server_that_is_busy_is_asked_once_more_when_it_said(
    client: OpenAI, live_stub: StubEngine
) -> None:
    live_stub.enqueue(Behaviour.LOADING_503)
    answer = client.chat.completions.create(model=MODEL, messages=said(CAPITAL))
    assert answer.choices[0].message.content == "Paris."
    refused, answered = live_stub.ledger
    assert (refused.status, answered.status) == (503, 200)
    assert answered.started_at - refused.started_at >= 2  # its Retry-After


@pytest.fixture(scope="module")
def limited(live_stub: StubEngine) -> Iterator[Platform]:
    """Four requests an hour: two accounts register and log in with those of this address."""
    with running_platform(live_stub, DAILY_TOKEN_QUOTA="50", RATE_LIMIT_DEFAULT="4/h") as platform:
        yield platform


def test_a_used_up_quota_is_not_asked_again(limited: Platform, live_stub: StubEngine) -> None:
    live_stub.reset()
    token = limited.register_and_log_in("poor")
    with (
        OpenAI(base_url=f"{limited.url}/v1", api_key=token) as client,
        pytest.raises(openai.RateLimitError) as raised,
    ):
        client.chat.completions.create(model=MODEL, messages=said("x"))
    assert raised.value.code == "insufficient_quota"
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert live_stub.ledger == []
    requests = [line for line in limited.log_lines() if "/v1/chat/completions" in line]
    assert len(requests) == 1


def test_the_rate_limit_is_its_error_class(limited: Platform) -> None:
    token = limited.register_and_log_in("eager")
    with OpenAI(base_url=f"{limited.url}/v1", api_key=token, max_retries=0) as client:
        for _ in range(4):
            client.models.list()
        with pytest.raises(openai.RateLimitError) as raised:
            client.models.list()
    assert raised.value.code == "rate_limited"
    assert int(raised.value.response.headers["Retry-After"]) > 1


def test_each_status_is_its_error_class(
    platform: Platform, token: str, live_stub: StubEngine, client_with: Callable[..., OpenAI]
) -> None:
    good = client_with(make_key(platform, token, "read", "write"), max_retries=0)
    reader = client_with(make_key(platform, token, "read"), max_retries=0)
    stranger = client_with("sk-" + "x" * 43, max_retries=0)

    def refusal(client: OpenAI, **more: Any) -> openai.APIStatusError:
        with pytest.raises(openai.APIStatusError) as raised:
            client.chat.completions.create(**{"model": MODEL, "messages": said("x"), **more})
        return raised.value

    error = refusal(stranger)
    assert type(error) is openai.AuthenticationError
    error = refusal(reader)
    assert (type(error), error.code) == (openai.PermissionDeniedError, "forbidden")
    error = refusal(good, model="gpt-4o")
    assert (type(error), error.code) == (openai.NotFoundError, "model_not_found")
    error = refusal(good, temperature=3)
    assert (type(error), error.param) == (openai.BadRequestError, "temperature")
    error = refusal(good, messages=said("word " * 9000))
    assert (type(error), error.code) == (openai.BadRequestError, "context_length_exceeded")
    live_stub.enqueue(Behaviour.HTML)
    error = refusal(good)
    assert (type(error), error.code) == (openai.InternalServerError, "engine_bad_reply")
    with pytest.raises(openai.NotFoundError):
        good.responses.create(model=MODEL, input="x")


def test_a_failure_in_the_middle_of_a_stream_is_an_error(
    client: OpenAI, live_stub: StubEngine
) -> None:
    live_stub.behave(Behaviour.DIE_MID_STREAM)
    stream = client.chat.completions.create(model=MODEL, messages=said("Count to 9"), stream=True)
    before = [next(stream).choices[0].delta.content for _ in range(3)]
    assert before == ["", "1", " 2"]
    with pytest.raises(openai.APIError) as raised:
        next(stream)
    assert raised.value.code == "engine_bad_reply"


def test_what_was_said_stands_in_the_history(
    platform: Platform, token: str, client: OpenAI
) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=said(CAPITAL))
    kept = client.chat.completions.create(model=MODEL, messages=said("secret"), store=False)
    with platform.client(token) as http:
        secret, row = http.get("/api/v1/consciousness/queries").json()["results"]
    assert answer.id == "chatcmpl-" + row["id"].replace("-", "")
    assert (row["prompt"], row["response"]) == (CAPITAL, "Paris.")
    assert kept.id == "chatcmpl-" + secret["id"].replace("-", "")
    assert (secret["prompt"], secret["response"]) == (None, None)
