"""What every request passes through: trusted addresses, a request id, one log line, headers.

No decision about accounts or limits is made here.
"""

from __future__ import annotations

import functools
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import cast

import structlog
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import (
    HttpRequest,
    HttpResponseBase,
    HttpResponseNotAllowed,
    StreamingHttpResponse,
)

from monitoring import metrics
from sovereigncore import errors, forwarding, strict

GetResponse = Callable[[HttpRequest], HttpResponseBase]
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
log = structlog.get_logger(__name__)
access_log = structlog.get_logger("access")


class ForwardedHeadersMiddleware:
    """Replaces REMOTE_ADDR by the caller's address and drops forwarding headers nobody vouches for.

    `request.META["PEER_ADDR"]` keeps the socket's own peer and `request.META["WAS_FORWARDED"]`
    tells whether any such header came, trusted or not: `/metrics` asks both.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        meta = request.META
        peer = meta.get("REMOTE_ADDR", "")
        meta["PEER_ADDR"] = peer
        told = [name for name in meta if forwarding.is_by_a_proxy(name)]
        meta["WAS_FORWARDED"] = bool(told)
        trusted = settings.TRUSTED_PROXIES
        meta["REMOTE_ADDR"] = forwarding.client_address(
            peer, meta.get("HTTP_X_FORWARDED_FOR", ""), trusted
        )
        if told and not forwarding.is_trusted(peer, trusted):
            for name in told:
                del meta[name]
        return self.get_response(request)


class RequestLogMiddleware:
    """Gives the request its id, times it, counts it, and writes its one access line.

    A stream is logged and counted when it ends, with its true duration, so that long answers are
    not recorded as their first byte.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.perf_counter()
        inbound = request.headers.get("X-Request-ID", "")
        request_id = inbound if _REQUEST_ID.fullmatch(inbound) else str(uuid.uuid4())
        request.META["REQUEST_ID"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        metrics.REQUESTS_IN_PROGRESS.inc()
        try:
            response = self.get_response(request)
        except BaseException:
            metrics.REQUESTS_IN_PROGRESS.dec()
            raise
        response["X-Request-ID"] = request_id
        if isinstance(response, StreamingHttpResponse) and not response.is_async:
            response.streaming_content = _Measured(
                cast("Iterator[bytes]", response.streaming_content),
                on_close=functools.partial(self._finish, request, response, started),
            )
        else:
            self._finish(request, response, started)
        return response

    def _finish(self, request: HttpRequest, response: HttpResponseBase, started: float) -> None:
        elapsed_s = time.perf_counter() - started
        metrics.REQUESTS_IN_PROGRESS.dec()
        route = route_name(request)
        metrics.observe_request(route, request.method or "", response.status_code, elapsed_s)
        user = request.META.get("AUTH_USER_ID")
        request_id = request.META["REQUEST_ID"]
        access_log.info(
            "request",
            request_id=request_id,
            method=request.method,
            path=request.path,  # never the query string: tokens get pasted into those
            route=route,
            status=response.status_code,
            duration_ms=round(elapsed_s * 1000, 2),
            address=request.META["REMOTE_ADDR"],
            **({"user_id": user} if user else {}),
        )
        # What this thread logs next belongs to no request, or to another one; that may be under way
        # already, where a stream that everybody forgot is closed late.
        if structlog.contextvars.get_contextvars().get("request_id") == request_id:
            structlog.contextvars.clear_contextvars()


class _Measured:
    """A stream's bytes. Servers close every response, also one that nobody read to its end or
    even began to read, which a generator's `finally` would not notice."""

    def __init__(self, chunks: Iterator[bytes], *, on_close: Callable[[], None]) -> None:
        self._chunks = chunks
        self._on_close = on_close

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self._on_close()


def log_unhandled_error(request: HttpRequest | None = None, **kwargs: object) -> None:
    """Django's signal `got_request_exception`: what nothing answered, in views and middleware
    alike. The only place where it is logged."""
    route = route_name(request) if request else ""
    log.error("unhandled_error", route=route, exc_info=sys.exc_info())


def route_name(request: HttpRequest) -> str:
    """The route's name, never text that the caller chose: it becomes a metric label."""
    match = request.resolver_match
    return (match.view_name or "unnamed") if match else "unmatched"


class HostCheckMiddleware:
    """Refuses a Host that is not ours at once, in the shape the path promises.

    Django would notice only where something asks for the host.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            request.get_host()
        except DisallowedHost:
            return errors.response_for(
                request, status=400, code="bad_host", detail="This host name is not served here."
            )
        return self.get_response(request)


class BodyCheckMiddleware:
    """Refuses a body by its headers, before a byte of it is read and whoever sent it."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            strict.check_body_headers(request)
        except errors.ServiceError as error:
            return errors.response_for(
                request, status=error.status, code=error.code, detail=error.detail
            )
        return self.get_response(request)


class ServiceErrorMiddleware:
    """Answers a refusal that a page raised. REST framework's views answer theirs themselves."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        if not isinstance(exception, errors.ServiceError):
            return None
        return errors.response_for(
            request,
            status=exception.status,
            code=exception.code,
            detail=exception.detail,
            errors=exception.errors,
            headers=exception.headers,
        )


class MethodNotAllowedMiddleware:
    """Gives Django's bare 405 the shape that the path promises."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if not isinstance(response, HttpResponseNotAllowed):
            return response
        return errors.response_for(
            request,
            status=405,
            code="method_not_allowed",
            detail=f'Method "{request.method}" not allowed.',
            headers={"Allow": response["Allow"]},
        )


class NoStoreMiddleware:
    """`Cache-Control: no-store` on errors and on what was answered to a caller with credentials."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        carries_credentials = "HTTP_AUTHORIZATION" in request.META
        is_error = response.status_code >= HTTPStatus.BAD_REQUEST  # it may be over in a moment
        is_private = request.path.startswith(("/api/", "/v1/", "/admin"))
        if carries_credentials or is_private or is_error:
            response.setdefault("Cache-Control", "no-store")
        return response
