"""Clients that others use for the OpenAI protocol, pointed at the running platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.platform import Platform, running_platform
from tests.stub_engine import MODEL, StubEngine

pytestmark = pytest.mark.clients

SAID = [{"role": "user", "content": "Count to 3"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Of a city.", "parameters": CITY},
}


@pytest.fixture(scope="module")
def stub() -> Iterator[StubEngine]:
    with StubEngine() as engine:
        yield engine


@pytest.fixture(scope="module")
def platform(stub: StubEngine) -> Iterator[Platform]:
    with running_platform(stub) as running:
        yield running


@pytest.fixture(scope="module")
def key(platform: Platform) -> str:
    body = {"name": "a program", "scopes": ["read", "write"]}
    with platform.client(platform.register_and_log_in("program")) as http:
        made: str = http.post("/api/v1/keys", json=body).json()["key"]
    return made


@pytest.fixture
def ledger(stub: StubEngine) -> StubEngine:
    stub.reset()
    return stub


class TestLiteLLM:
    @pytest.fixture
    def completion(
        self, platform: Platform, key: str, ledger: StubEngine, monkeypatch: pytest.MonkeyPatch
    ) -> Any:
        """Its `completion`, asking here. Without the variable it fetches its price list from the
        network when it is imported."""
        monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        import litellm

        def complete(**more: Any) -> Any:
            where = {"api_base": f"{platform.url}/v1", "api_key": key}
            return litellm.completion(
                **{"model": f"openai/{MODEL}", "messages": SAID, **where, **more}
            )

        return complete

    def test_a_chat(self, completion: Any, stub: StubEngine) -> None:
        answer = completion(temperature=0, max_tokens=50, user="u-1")
        assert answer.choices[0].message.content == "1 2 3"
        assert answer.choices[0].finish_reason == "stop"
        (record,) = stub.ledger
        assert answer.usage.completion_tokens == record.completion_tokens
        assert answer.usage.prompt_tokens == record.prompt_tokens

    def test_a_stream(self, completion: Any, stub: StubEngine) -> None:
        chunks = list(completion(stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "1 2 3"
        assert chunks[-1].usage.completion_tokens == stub.ledger[0].completion_tokens

    def test_a_call(self, completion: Any) -> None:
        asked = [{"role": "user", "content": "How is the weather in Paris?"}]
        answer = completion(messages=asked, tools=[WEATHER])
        message = answer.choices[0].message
        assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Paris"}
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
        last = completion(messages=[*asked, message, result], tools=[WEATHER])
        assert last.choices[0].message.content == "The tool says: sunny"

    def test_an_error(self, completion: Any, stub: StubEngine) -> None:
        import litellm

        with pytest.raises(litellm.NotFoundError):
            completion(model="openai/no-such-model")
        with pytest.raises(litellm.ContextWindowExceededError):
            completion(messages=[{"role": "user", "content": "word " * 9000}])


class TestLangChain:
    @pytest.fixture
    def chat(self, platform: Platform, key: str, ledger: StubEngine) -> Any:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=MODEL, base_url=f"{platform.url}/v1", api_key=key)

    def test_a_chat(self, chat: Any, stub: StubEngine) -> None:
        answer = chat.invoke([("system", "Be brief."), ("user", "Count to 3")])
        assert answer.content == "1 2 3"
        (record,) = stub.ledger
        assert answer.usage_metadata["output_tokens"] == record.completion_tokens
        assert answer.usage_metadata["input_tokens"] == record.prompt_tokens

    def test_a_stream(self, chat: Any, stub: StubEngine) -> None:
        whole: Any = None
        for chunk in chat.stream("Count to 3", stream_usage=True):
            whole = chunk if whole is None else whole + chunk
        assert whole.content == "1 2 3"
        assert whole.usage_metadata["output_tokens"] == stub.ledger[0].completion_tokens

    def test_a_call(self, chat: Any) -> None:
        from langchain_core.messages import HumanMessage, ToolMessage

        with_tool = chat.bind_tools([WEATHER])
        asked = HumanMessage("How is the weather in Paris?")
        answer = with_tool.invoke([asked])
        (call,) = answer.tool_calls
        assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
        result = ToolMessage("sunny", tool_call_id=call["id"])
        assert with_tool.invoke([asked, answer, result]).content == "The tool says: sunny"

    def test_an_answer_of_a_schema(self, chat: Any) -> None:
        schema = {"title": "Place", "description": "A city.", **CITY}
        asked = chat.with_structured_output(schema, method="json_schema")
        assert asked.invoke("Where is Paris?") == {"city": "Paris"}

    def test_embeddings(self, platform: Platform, key: str, ledger: StubEngine) -> None:
        from langchain_openai import OpenAIEmbeddings

        embeddings = OpenAIEmbeddings(
            model=MODEL,
            base_url=f"{platform.url}/v1",
            api_key=key,
            # It would send the token numbers of OpenAI's own models otherwise.
            check_embedding_ctx_length=False,
        )
        first, second = embeddings.embed_documents(["a", "b c"])
        assert len(first) == len(second)
        assert ledger.ledger[0].prompt_tokens == 3

    def test_completions(self, platform: Platform, key: str, ledger: StubEngine) -> None:
        from langchain_openai import OpenAI

        model = OpenAI(model=MODEL, base_url=f"{platform.url}/v1", api_key=key)
        assert model.invoke("Count to 3") == "1 2 3"
        assert "".join(model.stream("Count to 3")) == "1 2 3"
