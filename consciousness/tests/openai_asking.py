"""Asking in the OpenAI protocol over HTTP, without OpenAI's client."""

from __future__ import annotations

import json
from typing import Any

from rest_framework.test import APIClient

from consciousness.tests.asking import chunks

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
MODELS = "/v1/models"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city, now.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def chat(client: APIClient, said: str | list[dict[str, Any]] = "Count to 3", **more: Any) -> Any:
    messages = [user(said)] if isinstance(said, str) else said
    return client.post(CHAT, {"messages": messages, **more})


def streamed(client: APIClient, path: str, **body: Any) -> Any:
    response = client.post(path, {**body, "stream": True})
    assert response.status_code == 200, response.content
    return response


def parts_of(response: Any) -> list[Any]:
    """The JSON of each event, and `[DONE]` where it came."""
    events = "".join(chunk.decode() for chunk in chunks(response))
    *blocks, end = events.split("\n\n")
    assert end == ""
    said = [block.removeprefix("data: ") for block in blocks if not block.startswith(":")]
    return [part if part == "[DONE]" else json.loads(part) for part in said]


def error_of(response: Any, status: int, code: str) -> dict[str, Any]:
    """OpenAI's error object and nothing beside it."""
    assert response.status_code == status, response.content[:500]
    assert response["Content-Type"] == "application/json"
    assert len(response.content) < 1024
    body: dict[str, Any] = response.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["code"] == code
    assert isinstance(error["message"], str)
    return error
