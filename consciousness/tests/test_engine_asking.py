"""What the engine client sends beyond plain text, and what it refuses to send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from accounts.models import User
from consciousness import bundled_model
from consciousness import engine_errors as errors
from consciousness.asks import Ask
from consciousness.assembly import Assembly
from consciousness.engine import Engine, Model, Prompt
from consciousness.engine_stream import Chunk
from consciousness.prompting import make_plan
from consciousness.tests.raw_server import RawRequest, RawServer, json_reply
from tests.stub_engine import StubEngine

LLAMA = Model(id="m", owned_by="llamacpp", context_tokens=None)
OTHER = Model(id="m", owned_by="vllm", context_tokens=None)
BUNDLED = Model(id=bundled_model.BUNDLED_NAME, owned_by="llamacpp", context_tokens=None)
QUESTION = {"role": "user", "content": "x"}


def prompt(*more: dict[str, Any], **options: Any) -> Prompt:
    return Prompt(messages=(QUESTION, *more), temperature=0, max_tokens=1, options=options)


def sent(stub: StubEngine, asked: Prompt, model: Model) -> Any:
    generation = Engine(url=stub.url, api_key=stub.api_key).generate(asked, model=model)
    list(generation)
    generation.close()
    return stub.ledger[-1].body


@pytest.mark.parametrize(
    ("options", "stops"),
    [
        ({}, None),
        ({"stop": ["a"]}, ["a", *bundled_model.STOPS]),
        ({"response_format": {"type": "json_object"}}, ["\x01"]),
        ({"response_format": {"type": "json_object"}, "stop": ["a"]}, ["a"]),
    ],
)
def test_a_base_model_is_stopped_but_not_in_the_middle_of_json(
    stub: StubEngine, options: dict[str, Any], stops: list[str] | None
) -> None:
    assert sent(stub, prompt(**options), BUNDLED).get("stop") == stops
    assert sent(stub, prompt(**options), LLAMA).get("stop") == options.get("stop")


@pytest.mark.parametrize(
    ("version", "is_told"),
    [
        *(("0.11.0", True), ("v0.12.1rc1.dev5+gabc", True), ("1.0", True)),
        *(("0.10.2", False), ("dev", False), (None, False)),
    ],
)
def test_vllm_is_told_whose_prompt_it_is(
    alice: User, bob: User, version: str | None, is_told: bool
) -> None:
    """So that it reuses them for nobody else. Older ones may refuse to be told."""

    def reply(request: RawRequest) -> bytes:
        if request.line.startswith("GET /version "):
            return json_reply({"version": version})
        return json_reply({"error": {"message": "busy"}}, status="503 Service Unavailable")

    with RawServer(reply) as server:
        engine = Engine(url=server.url, api_key="")
        for user in (alice, bob, alice):
            asked = make_plan(user, Ask(prompt="x"), max_tokens=1).prompt
            with pytest.raises(errors.EngineBusy):
                list(engine.generate(asked, model=OTHER))
        bodies = [json.loads(one.body) for one in server.requests if one.line.startswith("POST")]
    salts = [body.get("cache_salt") for body in bodies]
    if is_told:
        assert salts[0] == salts[2] != salts[1]
        assert str(alice.pk) not in salts[0]
    else:
        assert salts == [None] * 3


TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}
RESULT = {"role": "tool", "content": "4", "tool_call_id": "c"}


@pytest.mark.parametrize(
    ("asked", "at_fault"),
    [
        (prompt(**TOOLS), "tools"),
        (prompt(RESULT, **TOOLS), "tools"),
        (prompt(CALLED), "messages"),
        (prompt(RESULT), "messages"),
    ],
)
def test_tools_are_not_sent_to_a_template_that_leaves_them_out(
    stub: StubEngine, asked: Prompt, at_fault: str
) -> None:
    stub.takes_tools = False
    engine = Engine(url=stub.url, api_key=stub.api_key)
    with pytest.raises(errors.UnsupportedByEngine) as raised:
        engine.generate(asked, model=LLAMA)
    assert list(raised.value.errors or ()) == [at_fault]
    assert not raised.value.is_engines_own  # another one is not asked, and this one is not blamed
    engine.generate(prompt(), model=LLAMA).close()
    engine.generate(asked, model=OTHER).close()


@pytest.mark.parametrize(
    "properties",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        json_reply([]),
        json_reply({}),
        json_reply({"chat_template_caps": None}),
        json_reply({"chat_template_caps": {}}),
        json_reply({"chat_template_caps": {"supports_tools": "?"}}),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n<html>",
        b"",
    ],
)
def test_tools_are_sent_where_nobody_knows_better(properties: bytes) -> None:
    def reply(request: RawRequest) -> bytes:
        if request.line.startswith("GET"):
            return properties
        return b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    with RawServer(reply) as server:
        generation = Engine(url=server.url, api_key="").generate(prompt(**TOOLS), model=LLAMA)
        with pytest.raises(errors.EngineBadReply):
            list(generation)
        generation.close()
        assert server.requests[-1].json["tools"] == TOOLS["tools"]


def test_whether_tools_are_taken_is_asked_once_in_a_while() -> None:
    with RawServer(lambda _request: json_reply({"chat_template_caps": {}})) as server:
        engine = Engine(url=server.url, api_key="")
        for _ in range(3):
            # As it is where there are several.
            engine.behind(lambda: None).generate(prompt(**TOOLS), model=LLAMA).close()
        assert [request.line.split()[1] for request in server.requests].count("/props") == 1


@pytest.mark.parametrize(
    ("words", "parameter"),
    [
        ("This server does not support embeddings. Start it with `--embeddings`", None),
        ("tools param requires --jinja flag", "tools"),
        ("registry.ollama.ai/library/gemma:2b does not support tools", "tools"),
        ('"auto" tool choice requires --enable-auto-tool-choice', "tools"),
        ("Invalid tool_choice: sometimes", "tool_choice"),
        ("Automatic parser generation failed: JSON schema error at #: type", "response_format"),
        ("failed to parse grammar", "response_format"),
        ("Field 'n': Value must be between 1 <= value <= 4, but got 9", "n"),
        ("top_logprobs requires logprobs to be set to true", "logprobs"),
        ("Error: Jinja Exception: after if m.role=='tool' roles must alternate", "messages"),
        ("Conversation roles must alternate user/assistant/user/assistant/... None", "messages"),
        ("Requested sample logprobs of 20, which is greater than max allowed: 5", "logprobs"),
        ("Cannot have 2 or more assistant messages at the end of the list.", "messages"),
        ("The model does not support Embeddings API", None),
    ],
)
def test_what_an_engine_cannot_do_is_the_callers_to_know(words: str, parameter: str | None) -> None:
    """In the words of llama.cpp, Ollama and vLLM; they stay inside."""
    error = errors.from_status(400, {"error": {"message": words, "type": "invalid_request_error"}})
    assert type(error) is errors.UnsupportedByEngine
    assert (error.status, error.code) == (400, "unsupported_parameter")
    assert list(error.errors or ()) == ([parameter] if parameter else [])
    assert words not in json.dumps([error.detail, error.errors])


@pytest.mark.parametrize(
    ("status", "words", "error"),
    [
        (501, "anything", errors.UnsupportedByEngine),
        (422, "unsupported value", errors.UnsupportedByEngine),
        (500, "tools are not supported", errors.EngineBadReply),
        (400, "something else", errors.RefusedByEngine),
        (422, "something else", errors.RefusedByEngine),
        (400, "", errors.EngineBadReply),
        (404, "something else", errors.EngineBadReply),
        (400, "tools require more context than the max", errors.PromptTooLong),
        (500, "input (900 tokens) is too large to process", errors.PromptTooLong),
    ],
)
def test_what_is_no_refusal_of_a_parameter(
    status: int, words: str, error: type[errors.EngineError]
) -> None:
    assert type(errors.from_status(status, {"error": {"message": words}})) is error


IN_LLAMA_CPPS_WORDS = """
------------
While executing CallExpression at line 19, column 27 in source:
...% 2 == 0) -%}↵        {{ raise_exception("Conversation roles must alternate user...
                                           ^
Error: Jinja Exception: Conversation roles must alternate user/assistant/user/assistant/..."""


@pytest.mark.parametrize(
    "words",
    [
        IN_LLAMA_CPPS_WORDS,
        "Jinja Exception: System role not supported",
        "After the optional system message, conversation roles must alternate at row 9, column 9",
    ],
)
def test_messages_that_a_template_refuses_are_no_failure_of_the_engine(words: str) -> None:
    error = errors.from_status(500, {"error": {"message": words, "type": "server_error"}})
    assert type(error) is errors.UnsupportedByEngine
    assert list(error.errors or ()) == ["messages"]
    assert not error.is_fault


@pytest.mark.parametrize("function", [None, "f", ["f"], 5, {}, {"name": None, "arguments": None}])
def test_calls_that_are_none_are_no_fault_of_ours(function: Any) -> None:
    assembly = Assembly()
    for call in ({"index": 0, "id": "c", "function": function}, {"index": 7}, "x", {"index": "0"}):
        assembly.add(Chunk(extra={"tool_calls": [call]}))
    (choice,) = assembly.choices()
    assert choice.extra["tool_calls"] == [
        {"id": "c", "type": "function", "function": {"name": "", "arguments": ""}}
    ]
