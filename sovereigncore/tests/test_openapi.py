"""The OpenAPI document: valid, complete, and true about who needs a credential."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from drf_spectacular.validation import validate_schema
from rest_framework.test import APIClient

from sovereigncore.tests.permission_table import ROUTES

pytestmark = pytest.mark.once

DOCUMENTED_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
# The document itself and its viewer; pages; and what only probes and scrapers ask.
NOT_API = {
    *("schema", "docs", "home", "to-admin", "live", "ready", "health", "metrics"),
    *(name for name in ROUTES if name.endswith("-page")),
}


def _named(path: str) -> str:
    return path.replace("{name}", "{username}")


@pytest.fixture
def document(anonymous: APIClient, db: None) -> dict[str, Any]:
    response = anonymous.get("/api/schema")
    assert response.status_code == 200
    loaded: dict[str, Any] = yaml.load(response.content, Loader=yaml.CSafeLoader)
    return loaded


def test_it_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    validate_schema(document)  # type: ignore[no-untyped-call]


def test_every_api_route_is_in_it_with_its_methods_and_nothing_else(
    document: dict[str, Any],
) -> None:
    documented = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    offered = {
        (
            method,
            re.sub("{(query|memory|conversation|session|key|link)}", "{id}", route.path).replace(
                "{name}", "{username}"
            ),
        )
        for name, route in ROUTES.items()
        for method, statuses in route.methods.items()
        if name not in NOT_API and method in DOCUMENTED_METHODS and 405 not in statuses
    }
    assert documented == offered


def test_it_says_who_needs_a_credential(document: dict[str, Any]) -> None:
    open_to_all = {route.path for route in ROUTES.values() if 401 not in route.expected("OPTIONS")}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            schemes = [name for entry in operation.get("security", []) for name in entry]
            assert schemes == ([] if path in open_to_all else ["bearer"]), path


def test_what_can_be_sent_again_says_by_which_header(document: dict[str, Any]) -> None:
    """All that asks the model or notes a fact, and nothing else; but nothing of embeddings is
    kept, so there is nothing to be sent again."""
    documented = {
        (method, path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for parameter in operation.get("parameters", [])
        if (parameter["in"], parameter["name"]) == ("header", "Idempotency-Key")
    }
    promised = {
        (method, path)
        for path, operations in document["paths"].items()
        for method in operations
        if method == "post"
        and path.startswith(("/api/v1/consciousness/", "/v1/"))
        and path != "/v1/embeddings"
    }
    assert documented == promised
    assert ("post", "/api/v1/consciousness/process") in promised
    for method, path in documented:
        (parameter,) = [
            parameter
            for parameter in document["paths"][path][method]["parameters"]
            if parameter["in"] == "header"
        ]
        assert parameter["schema"] == {"type": "string", "minLength": 8, "maxLength": 128}
        assert not parameter.get("required")


def test_each_operation_is_named_and_described(document: dict[str, Any]) -> None:
    operations = [operation for entry in document["paths"].values() for operation in entry.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert [entry["operationId"] for entry in operations if not entry.get("description")] == []


def test_it_is_generated_without_a_complaint(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", "/dev/null")
    assert "warning" not in capsys.readouterr().err.lower()
