"""What all API views share: error handling, scopes, rendering, pagination.

`handle_exception` is the single way from an exception to a response.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import orjson
import structlog
from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    UnreadablePostError,
)
from django.utils.dateparse import parse_datetime
from rest_framework import exceptions, negotiation, pagination, permissions, renderers
from rest_framework.request import Request

from sovereigncore import ratelimit
from sovereigncore.errors import (
    TOKEN_PATHS,
    DatabaseUnavailable,
    ServiceError,
    is_openai,
    response_for,
)
from sovereigncore.strict import BodyTooLarge

if TYPE_CHECKING:
    # Views import REST framework's settings, which import this module.
    from rest_framework.views import APIView

log = structlog.get_logger(__name__)

__all__ = [
    "CursorPagination",
    "HasScope",
    "JSONRenderer",
    "NeverRefuse",
    "ServiceError",
    "handle_exception",
    "parameters_of",
]


class NeverRefuse(negotiation.DefaultContentNegotiation):
    """Answers JSON whatever `Accept` says.

    The stock negotiator refuses `Accept: text/event-stream` with 406 because streams are no
    renderer's business.
    """

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> Any:
        return renderers[0], renderers[0].media_type


class JSONRenderer(renderers.BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> bytes:
        if data is None:
            return b""
        # Moments end in Z, as those that serializers write.
        return orjson.dumps(data, default=str, option=orjson.OPT_UTC_Z)


def parameters_of(request: Request, *, known: Collection[str]) -> dict[str, str]:
    """The query's parameters; whoever misspells one is told, and does not get all for some.

    Raises ValidationError for one that is not known, or that is given more than once.
    """
    for name, values in request.query_params.lists():
        if name not in known:
            raise exceptions.ValidationError({name[:64]: ["Unknown field."]})
        if len(values) > 1:
            raise exceptions.ValidationError({name[:64]: ["Given more than once."]})
    return request.query_params.dict()


class CursorPagination(pagination.CursorPagination):
    """`{next, previous, results}`, newest first, `limit` from 1 to 100.

    A list that can be filtered names its parameters in the view's `list_parameters`.
    """

    # With the id, rows of one moment have an order too: without it pages could repeat or miss some.
    ordering = ("-created_at", "-id")
    page_size = 20
    page_size_query_param = "limit"
    max_page_size = 100

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        self.filters_of(request, view)
        return super().paginate_queryset(queryset, request, view) or []

    def filters_of(self, request: Request, view: Any) -> dict[str, str]:
        """The parameters that are not about the page. Raises ValidationError as `parameters_of`."""
        own = (self.cursor_query_param, self.page_size_query_param)
        given = parameters_of(request, known=(*own, *getattr(view, "list_parameters", ())))
        return {name: value for name, value in given.items() if name not in own}

    def get_page_size(self, request: Request) -> int:
        raw = request.query_params.get("limit", str(self.page_size))
        if re.fullmatch("[1-9][0-9]{0,8}", raw) is None or int(raw) > self.max_page_size:
            message = f"A whole number from 1 to {self.max_page_size}."
            raise exceptions.ValidationError({"limit": [message]})
        return int(raw)

    def decode_cursor(self, request: Request) -> Any:
        """The stock one, and its position is a moment as we write them: it goes into a query."""
        foreign = exceptions.ValidationError({"cursor": ["Not a cursor of this list."]})
        given = request.query_params.get(self.cursor_query_param)
        # Base64 decoders skip what is no base64, and the rest would be another page.
        if given is not None and re.fullmatch(r"[A-Za-z0-9+/=_-]+", given) is None:
            raise foreign
        try:
            cursor = super().decode_cursor(request)
        except exceptions.NotFound as error:
            raise foreign from error
        if cursor is None:
            return None
        points_nowhere = not cursor.position and not cursor.offset and not cursor.reverse
        if points_nowhere or (cursor.position and not _is_utc(str(cursor.position))):
            raise foreign
        return cursor


def _is_utc(text: str) -> bool:
    try:
        moment = parse_datetime(text)
    except ValueError:
        return False
    return moment is not None and moment.utcoffset() == timedelta()


@runtime_checkable
class Credential(Protocol):
    """What `request.auth` is on an authenticated request, whichever way it was carried."""

    @property
    def scopes(self) -> frozenset[str]: ...

    def is_live(self) -> bool:
        """Whether the credential still holds now; asks the database."""


class HasScope(permissions.BasePermission):
    """`read` to look, `write` to change; `view.required_scope` overrides both."""

    message = "This credential lacks the scope that the route needs."

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not isinstance(request.auth, Credential):
            return False
        by_method = "read" if request.method in permissions.SAFE_METHODS else "write"
        required = getattr(view, "required_scope", None) or by_method
        return required in request.auth.scopes


def handle_exception(exc: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """REST framework's EXCEPTION_HANDLER. None lets the exception become a logged 500."""
    request: Request = context["request"]
    exc = _translated(exc)
    error = _as_service_error(exc)
    if error is not None:
        status, code, detail = error.status, error.code, error.detail
        errors, headers = error.errors, dict(error.headers)
    elif isinstance(exc, exceptions.ValidationError):
        status, code = _validation_status(request.path)
        detail, errors, headers = "The request fails validation.", field_errors(exc.detail), {}
    elif isinstance(exc, exceptions.APIException):
        status, code, errors = exc.status_code, _code_of(exc, request.path), None
        detail, headers = str(exc.detail), {}
    else:
        return None
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        try:
            _count_refusal(request._request)
        except ratelimit.RateLimited as limited:
            status, code, detail = limited.status, limited.code, limited.detail
            headers = dict(limited.headers)
    return response_for(
        request._request, status=status, code=code, detail=detail, errors=errors, headers=headers
    )


def _translated(exc: Exception) -> Exception:
    """Django's own refusals as REST framework's, so that they are answered and not logged."""
    if isinstance(exc, Http404):
        return exceptions.NotFound()
    if isinstance(exc, PermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(exc, RequestDataTooBig):
        return BodyTooLarge()
    if isinstance(exc, (SuspiciousOperation, UnreadablePostError)):  # too many fields; cut off
        return exceptions.ParseError("The request cannot be understood.")
    return exc


def _count_refusal(request: HttpRequest) -> None:
    """Guessing credentials is limited too, by address; and knocking on closed doors, by account.

    Both are refused before REST framework asks its throttles.
    """
    user_id = request.META.get("AUTH_USER_ID")
    ratelimit.enforce(
        request,
        group="refused",
        rate=settings.RATE_LIMIT_DEFAULT,
        caller=f"user:{user_id}" if user_id else "",
    )


def _validation_status(path: str) -> tuple[int, str]:
    if path.rstrip("/") in TOKEN_PATHS:
        return 400, "invalid_request"  # RFC 6749, section 5.2
    return (400 if is_openai(path) else 422), "validation_error"


def _as_service_error(exc: Exception) -> ServiceError | None:
    if isinstance(exc, ServiceError):
        return exc
    if isinstance(exc, (OperationalError, InterfaceError)):
        log.warning("database_unavailable", error=type(exc).__name__)
        return DatabaseUnavailable()
    return None


def _code_of(exc: exceptions.APIException, path: str) -> str:
    if path.rstrip("/") in TOKEN_PATHS and isinstance(exc, exceptions.ParseError):
        return "invalid_request"
    codes: dict[type[exceptions.APIException], str] = {
        exceptions.ParseError: "malformed_request",
        exceptions.NotAuthenticated: "not_authenticated",
        exceptions.AuthenticationFailed: "invalid_credentials",
        exceptions.PermissionDenied: "forbidden",
        exceptions.NotFound: "not_found",
        exceptions.MethodNotAllowed: "method_not_allowed",
        exceptions.UnsupportedMediaType: "unsupported_media_type",
    }
    return codes.get(type(exc), str(exc.default_code))


def field_errors(detail: Any, prefix: str = "") -> dict[str, list[str]]:
    """REST framework's nested error detail, flattened to `{"field.inner": [message, …]}`."""
    if isinstance(detail, dict):
        flat: dict[str, list[str]] = {}
        for name, inner in detail.items():
            path = prefix if name == "non_field_errors" else f"{prefix}{name}."
            flat.update(field_errors(inner, path))
        return flat
    if isinstance(detail, list) and any(isinstance(inner, (dict, list)) for inner in detail):
        return field_errors(dict(enumerate(detail)), prefix)  # one entry an item, empty where sound
    messages = detail if isinstance(detail, list) else [detail]
    return {prefix.rstrip(".") or "request": [str(message) for message in messages]}
