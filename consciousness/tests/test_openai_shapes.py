"""What the API's description says of the OpenAI protocol's answers is what is answered."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml
from rest_framework.test import APIClient

from consciousness.tests.openai_asking import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MODELS,
    WEATHER,
    user,
)
from tests.stub_engine import MODEL, StubEngine

pytestmark = pytest.mark.once

SAID = {"messages": [user("Count to 2")]}
ASKED: list[tuple[str, str, dict[str, Any]]] = [
    (CHAT, "ChatCompletion", SAID),
    (CHAT, "ChatCompletion", {**SAID, "n": 2, "logprobs": True, "top_logprobs": 2}),
    (CHAT, "ChatCompletion", {**SAID, "tools": [WEATHER]}),
    (COMPLETIONS, "TextCompletion", {"prompt": "Count to 2"}),
    (COMPLETIONS, "TextCompletion", {"prompt": "Count to 2", "logprobs": 2}),
    (EMBEDDINGS, "EmbeddingList", {"input": ["a", "b"]}),
    (EMBEDDINGS, "EmbeddingList", {"input": "a", "encoding_format": "base64"}),
]


@pytest.fixture
def document(anonymous: APIClient, db: None) -> dict[str, Any]:
    schema = anonymous.get("/api/schema").content
    loaded: dict[str, Any] = yaml.load(schema, Loader=yaml.CSafeLoader)
    return loaded


def check(document: dict[str, Any], name: str, value: Any) -> None:
    """Valid, and without a field that is not described."""
    schemas = {
        key: {**schema, "additionalProperties": False} if schema["type"] == "object" else schema
        for key, schema in document["components"]["schemas"].items()
        if "type" in schema
    }
    # What one field's schema leaves open stays open.
    whole = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
    jsonschema.Draft202012Validator(whole).validate(value)


@pytest.mark.parametrize(("path", "name", "body"), ASKED)
def test_answers(
    as_alice: APIClient,
    stub: StubEngine,
    document: dict[str, Any],
    path: str,
    name: str,
    body: dict[str, Any],
) -> None:
    response = as_alice.post(path, body)
    assert response.status_code == 200, response.content
    check(document, name, response.json())
    told = document["paths"][path]["post"]
    assert told["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith(name)
    assert told["tags"] == ["openai"]


def test_models(as_alice: APIClient, stub: StubEngine, document: dict[str, Any]) -> None:
    check(document, "ModelList", as_alice.get(MODELS).json())
    check(document, "ListedModel", as_alice.get(f"{MODELS}/{MODEL}").json())


def test_the_check_would_notice(document: dict[str, Any]) -> None:
    listed = {"id": "a", "object": "model", "created": 1, "owned_by": "b"}
    check(document, "ListedModel", listed)
    for wrong in ({**listed, "more": 1}, {**listed, "created": "1"}, {**listed, "object": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            check(document, "ListedModel", wrong)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"messages", "tools", "response_format", "stop", "stream_options", "cache"}),
        (COMPLETIONS, {"prompt", "logprobs", "stop", "stream"}),
        (EMBEDDINGS, {"input", "encoding_format", "model"}),
    ],
)
def test_what_is_taken_is_described(document: dict[str, Any], path: str, fields: set[str]) -> None:
    body = document["paths"][path]["post"]["requestBody"]
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert fields <= set(document["components"]["schemas"][name]["properties"])
