"""What `/v1/chat/completions` refuses: before any work, and naming what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from consciousness.models import Query
from consciousness.tests.openai_asking import CHAT, WEATHER, chat, error_of, user
from tests.stub_engine import StubEngine

pytestmark = pytest.mark.once

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
LARGE = {"description": "x" * 65_536}


def message(role: str = "user", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, **more}]}


def with_tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", **function}}]}


MESSAGES: dict[str, tuple[Any, str]] = {
    "none": ({}, "messages"),
    "null": ({"messages": None}, "messages"),
    "empty": ({"messages": []}, "messages"),
    "text": ({"messages": "hi"}, "messages"),
    "a number": ({"messages": 5}, "messages"),
    "true": ({"messages": True}, "messages"),
    "an object": ({"messages": user("hi")}, "messages"),
    "257": ({"messages": [user("hi")] * 257}, "messages"),
    "200,001 characters": ({"messages": [user("x" * 200_001)]}, "messages"),
    "200,001 characters together": (
        {"messages": [user("x" * 1000)] * 200 + [user("x")]},
        "messages",
    ),
    "200,001 characters in parts": (
        message(content=[{"type": "text", "text": "x" * 100_000}] * 2),
        "messages",
    ),
    "200,001 characters of arguments": (
        message(
            "assistant",
            tool_calls=[{**CALL, "function": {"name": "f", "arguments": "x" * 200_000}}],
        ),
        "messages",
    ),
    "a null in the list": ({"messages": [user("hi"), None]}, "messages.1"),
    "a text in the list": ({"messages": ["hi"]}, "messages.0"),
    "no role": ({"messages": [{"content": "hi"}]}, "messages.0.role"),
    "another role": (message("function", content="hi"), "messages.0.role"),
    "a role in capitals": (message("User", content="hi"), "messages.0.role"),
    "a role in a list": ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role"),
    "a long role": (message("x" * 100_000, content="hi"), "messages.0.role"),
    "the second one is bad": (
        {"messages": [user("hi"), {"role": "x", "content": "hi"}]},
        "messages.1.role",
    ),
    "no content": (message(), "messages.0.content"),
    "content null": (message(content=None), "messages.0.content"),
    "content number": (message(content=5), "messages.0.content"),
    "content object": (message(content={"type": "text", "text": "x"}), "messages.0.content"),
    "no parts": (message(content=[]), "messages.0.content"),
    "a part that is text": (message(content=["x"]), "messages.0.content"),
    "an image": (
        message(content=[{"type": "image_url", "image_url": {"url": "http://10.0.0.1"}}]),
        "messages.0.content",
    ),
    "a part with more": (
        message(content=[{"type": "text", "text": "x", "more": 1}]),
        "messages.0.content",
    ),
    "a part whose text is none": (
        message(content=[{"type": "text", "text": None}]),
        "messages.0.content",
    ),
    "an answer of nothing": (message("assistant"), "messages.0.content"),
    "a result of nothing": (message("tool", content="4"), "messages.0.tool_call_id"),
    "a result without content": (message("tool", tool_call_id="c"), "messages.0.content"),
    "a user's calls": (message(content="x", tool_calls=[CALL]), "messages.0.tool_calls"),
    "a user's result": (message(content="x", tool_call_id="c"), "messages.0.tool_call_id"),
    "a bad name": (message(content="x", name="a b"), "messages.0.name"),
    "a long name": (message(content="x", name="a" * 65), "messages.0.name"),
    "an unknown field": (message(content="x", weight=1), "messages.0.weight"),
    "a sound that was said": (
        message("assistant", content="x", audio={"id": "a"}),
        "messages.0.audio",
    ),
    "a call of another type": (
        message("assistant", tool_calls=[{**CALL, "type": "custom"}]),
        "messages.0.tool_calls.0.type",
    ),
    "a call whose arguments are none": (
        message("assistant", tool_calls=[{**CALL, "function": {"name": "f", "arguments": {}}}]),
        "messages.0.tool_calls.0.function.arguments",
    ),
    "a call without an id": (
        message("assistant", tool_calls=[{**CALL, "id": ""}]),
        "messages.0.tool_calls.0.id",
    ),
    "513 calls together": (
        {"messages": [{"role": "assistant", "tool_calls": [CALL] * 57}] * 9},
        "messages",
    ),
    "129 calls": (message("assistant", tool_calls=[CALL] * 129), "messages.0.tool_calls"),
}

PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "temperature low": ({"temperature": -0.1}, "temperature"),
    "temperature high": ({"temperature": 2.1}, "temperature"),
    "temperature text": ({"temperature": "1"}, "temperature"),
    "top_p high": ({"top_p": 1.1}, "top_p"),
    "presence_penalty": ({"presence_penalty": 2.1}, "presence_penalty"),
    "frequency_penalty": ({"frequency_penalty": -2.1}, "frequency_penalty"),
    "max_tokens zero": ({"max_tokens": 0}, "max_tokens"),
    "max_tokens high": ({"max_tokens": 32_769}, "max_tokens"),
    "max_completion_tokens high": ({"max_completion_tokens": 32_769}, "max_completion_tokens"),
    "both, and different": ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    "n zero": ({"n": 0}, "n"),
    "n five": ({"n": 5}, "n"),
    "n true": ({"n": True}, "n"),
    "seed fraction": ({"seed": 1.5}, "seed"),
    "seed 2**63": ({"seed": 2**63}, "seed"),
    "seed 10**30": ({"seed": 10**30}, "seed"),
    "stop number": ({"stop": 5}, "stop"),
    "stop empty": ({"stop": ""}, "stop"),
    "stop empty in a list": ({"stop": ["a", ""]}, "stop"),
    "stop five": ({"stop": ["a"] * 5}, "stop"),
    "stop long": ({"stop": "x" * 101}, "stop"),
    "stop nested": ({"stop": [["a"]]}, "stop"),
    "logprobs number": ({"logprobs": 1}, "logprobs"),
    "top_logprobs alone": ({"top_logprobs": 1}, "top_logprobs"),
    "top_logprobs high": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "stream text": ({"stream": "true"}, "stream"),
    "stream_options alone": ({"stream_options": {"include_usage": True}}, "stream_options"),
    "stream_options unknown": (
        {"stream": True, "stream_options": {"include": True}},
        "stream_options.include",
    ),
    "format text": ({"response_format": "json"}, "response_format"),
    "format unknown": ({"response_format": {"type": "xml"}}, "response_format.type"),
    "format without its schema": (
        {"response_format": {"type": "json_schema"}},
        "response_format.json_schema",
    ),
    "format with a schema too many": (
        {"response_format": {**SCHEMA, "type": "json_object"}},
        "response_format.json_schema",
    ),
    "schema without a name": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        "response_format.json_schema.name",
    ),
    "schema that is none": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": "{}"}}},
        "response_format.json_schema.schema",
    ),
    "schema large": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": LARGE}}},
        "response_format.json_schema.schema",
    ),
    "tools object": ({"tools": WEATHER}, "tools"),
    "tools 65": ({"tools": [WEATHER] * 65}, "tools"),
    "tools large": (with_tool(description="x" * 65_536), "tools"),
    "tools large together": (
        {"tools": [WEATHER, *with_tool(description="x" * 65_400)["tools"]]},
        "tools",
    ),
    "tool of another type": ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
    "tool without a function": ({"tools": [{"type": "function"}]}, "tools.0.function"),
    "tool with a bad name": (with_tool(name="a b"), "tools.0.function.name"),
    "tool with parameters that are none": (
        with_tool(parameters=[]),
        "tools.0.function.parameters",
    ),
    "tool_choice alone": ({"tool_choice": "auto"}, "tool_choice"),
    "tool_choice unknown": ({"tools": [WEATHER], "tool_choice": "any"}, "tool_choice"),
    "tool_choice of no tool": (
        {
            "tools": [WEATHER],
            "tool_choice": {"type": "function", "function": {"name": "get_wether"}},
        },
        "tool_choice",
    ),
    "tool_choice without a name": (
        {"tools": [WEATHER], "tool_choice": {"type": "function"}},
        "tool_choice.function",
    ),
    "parallel_tool_calls alone": ({"parallel_tool_calls": True}, "parallel_tool_calls"),
    "model long": ({"model": "m" * 129}, "model"),
    "model number": ({"model": 5}, "model"),
    "user long": ({"user": "u" * 513}, "user"),
    "metadata list": ({"metadata": []}, "metadata"),
    "metadata number": ({"metadata": {"a": 5}}, "metadata.a"),
    "metadata 17": ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
    "metadata long name": ({"metadata": {"n" * 65: ""}}, "metadata"),
    "service_tier flex": ({"service_tier": "flex"}, "service_tier"),
    "store text": ({"store": "yes"}, "store"),
    "cache number": ({"cache": 1}, "cache"),
    "logit_bias": ({"logit_bias": {"5": 1}}, "logit_bias"),
    "a parameter of process": ({"prompt": "hi"}, "prompt"),
    "a typo": ({"temprature": 1}, "temprature"),
    "an unknown null": ({"temprature": None}, "temprature"),
    "dunder": ({"__proto__": {}}, "__proto__"),
}


def refused(client: APIClient, body: Any, param: str) -> None:
    response = client.post(CHAT, json.dumps(body), content_type="application/json")
    error = error_of(response, 400, "validation_error")
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert error["message"].startswith(f"{param}: ")
    assert not Query.objects.exists()


@pytest.mark.parametrize(("body", "param"), MESSAGES.values(), ids=MESSAGES)
def test_messages_that_are_none(
    as_alice: APIClient, stub: StubEngine, body: Any, param: str
) -> None:
    refused(as_alice, body, param)
    assert stub.ledger == []


@pytest.mark.parametrize(("more", "param"), PARAMETERS.values(), ids=PARAMETERS)
def test_parameters_that_are_none(
    as_alice: APIClient, stub: StubEngine, more: dict[str, Any], param: str
) -> None:
    refused(as_alice, {"messages": [user("hi")], **more}, param)
    assert stub.ledger == []


def test_the_most_that_is_accepted(as_alice: APIClient, stub: StubEngine) -> None:
    stub.n_ctx = 1_000_000
    said = [user("x" * 781) for _ in range(255)] + [user("x" * (200_000 - 255 * 781))]
    more = {
        "stop": ["x" * 100] * 4,
        "metadata": {"n" * 64: "v" * 512, **{str(number): "" for number in range(15)}},
        "tools": [WEATHER] * 64,
        "user": "u" * 512,
    }
    response = chat(as_alice, said, **more)
    assert response.status_code == 200, response.content[:300]
    assert len(stub.ledger[0].body["messages"]) == 256
