"""What every problem of RFC 9457 has to look like."""

from __future__ import annotations

from typing import Any

REQUEST_ID = "test-request-0001"


def check_problem(response: Any, status: int, code: str, title: str) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert response["Content-Length"] == str(len(response.content))
    body: dict[str, Any] = response.json()
    assert body.pop("type") == f"urn:sovereigncore:error:{code}"
    assert body.pop("title") == title
    assert body.pop("status") == status
    assert body.pop("code") == code
    assert body.pop("request_id") == response["X-Request-ID"] == REQUEST_ID
    assert isinstance(body["detail"], str)
    return body
