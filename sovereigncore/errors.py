"""One error, three shapes, chosen by path: RFC 6749 on token routes, OpenAI under /v1, a page for
browsers, and RFC 9457 problem details everywhere else.

Everything that refuses a request ends in `response_for`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

import orjson
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers

FieldErrors = Mapping[str, Sequence[str]]

TOKEN_PATHS = ("/api/v1/auth/token", "/api/v1/auth/token/refresh")
# Where OpenAI's own servers answer another status than the rest of this API.
_OPENAI_STATUSES = {"context_length_exceeded": 400, "model_not_found": 404}


class ServiceError(Exception):
    """A refusal that callers may see. Subclasses fix `status` and `code`; codes are stable."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    default_detail: ClassVar[str] = "The server failed to handle this request."

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after_s: int | None = None,
        errors: FieldErrors | None = None,
    ) -> None:
        self.detail = detail or self.default_detail
        self.retry_after_s = retry_after_s
        self.errors = errors
        super().__init__(self.detail)

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


class DatabaseUnavailable(ServiceError):
    status = 503
    code = "database_unavailable"
    default_detail = "The database does not answer. Try again shortly."

    def __init__(self) -> None:
        super().__init__(retry_after_s=2)


def problem(
    *,
    status: int,
    code: str,
    detail: str,
    request_id: str,
    errors: FieldErrors | None = None,
) -> dict[str, Any]:
    """The problem object of RFC 9457, also sent as the `error` event of a stream."""
    body: dict[str, Any] = {
        "type": f"urn:sovereigncore:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    if errors:
        body["errors"] = errors
    return body


def openai_error(
    *, status: int, code: str, detail: str, errors: FieldErrors | None = None
) -> dict[str, Any]:
    """OpenAI's error object, also sent in the middle of a stream."""
    param = next(iter(errors), None) if errors else None
    message = f"{param}: {errors[param][0]}" if errors and param else detail
    kind = _openai_type(status, code)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def response_for(
    request: HttpRequest,
    *,
    status: int,
    code: str,
    detail: str,
    errors: FieldErrors | None = None,
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """The error response in the shape that the request's path promises."""
    path = request.path.rstrip("/") or "/"
    request_id = request.META.get("REQUEST_ID", "")
    content_type = "application/json"
    body: dict[str, Any]
    if path in TOKEN_PATHS:
        body = {"error": code, "error_description": detail, "detail": detail}
        if errors:
            body["errors"] = errors
    elif is_openai(path):
        status = _OPENAI_STATUSES.get(code, status)
        body = openai_error(status=status, code=code, detail=detail, errors=errors)
    elif _is_page(request, path):
        response = render(
            request,
            "error.html",
            {"title": HTTPStatus(status).phrase, "detail": detail, "request_id": request_id},
            status=status,
        )
        return _with_headers(response, headers)
    else:
        content_type = "application/problem+json"
        body = problem(
            status=status, code=code, detail=detail, request_id=request_id, errors=errors
        )
    response = HttpResponse(orjson.dumps(body), status=status, content_type=content_type)
    return _with_headers(response, headers)


def _with_headers(response: HttpResponse, headers: Mapping[str, str] | None) -> HttpResponse:
    for name, value in (headers or {}).items():
        response[name] = value
    patch_vary_headers(response, ("Accept",))  # a page or a problem
    response["Content-Length"] = str(len(response.content))  # middleware may answer with this too
    return response


def is_openai(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")


def _is_page(request: HttpRequest, path: str) -> bool:
    return not path.startswith("/api/") and "text/html" in request.headers.get("Accept", "")


def _openai_type(status: int, code: str) -> str:
    """The `type` words that OpenAI's clients know."""
    if code == "insufficient_quota":
        return code
    by_status = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    return by_status.get(status, "invalid_request_error")


# Django's handler400 … handler500, named in `urls.py`, and its CSRF_FAILURE_VIEW.


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return response_for(
        request, status=400, code="bad_request", detail="The request cannot be understood."
    )


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return response_for(request, status=403, code="forbidden", detail="Not allowed.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    detail = "The form is too old or was not sent from this site. Reload the page and try again."
    return response_for(request, status=403, code="csrf_failed", detail=detail)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return response_for(request, status=404, code="not_found", detail="Not found.")


def server_error(request: HttpRequest) -> HttpResponse:
    return response_for(
        request, status=500, code=ServiceError.code, detail=ServiceError.default_detail
    )
