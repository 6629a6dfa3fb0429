"""What every request passes through: trusted addresses, a request id, one log line, headers.

No decision about accounts or limits is made here.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import cast

import structlog
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse

from monitoring import metrics
from sovereigncore import errors, forwarding

GetResponse = Callable[[HttpRequest], HttpResponseBase]
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
_FORWARDED = (
    *("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST"),
    *("HTTP_X_FORWARDED_PORT", "HTTP_X_REAL_IP", "HTTP_FORWARDED"),
)
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
        meta["WAS_FORWARDED"] = any(name in meta for name in _FORWARDED)
        trusted = settings.TRUSTED_PROXIES
        meta["REMOTE_ADDR"] = forwarding.client_address(
            peer, meta.get("HTTP_X_FORWARDED_FOR", ""), trusted
        )
        if meta["WAS_FORWARDED"] and not forwarding.is_trusted(peer, trusted):
            for name in _FORWARDED:
                meta.pop(name, None)
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
            response.streaming_content = self._until_the_end(
                cast("Iterator[bytes]", response.streaming_content), request, response, started
            )
        else:
            self._finish(request, response, started)
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """Django calls this for what no view or handler answered: the only place it is logged."""
        log.error("unhandled_error", route=route_name(request), exc_info=exception)

    def _until_the_end(
        self,
        chunks: Iterator[bytes],
        request: HttpRequest,
        response: StreamingHttpResponse,
        started: float,
    ) -> Iterator[bytes]:
        try:
            yield from chunks
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
            self._finish(request, response, started)

    def _finish(self, request: HttpRequest, response: HttpResponseBase, started: float) -> None:
        elapsed_s = time.perf_counter() - started
        metrics.REQUESTS_IN_PROGRESS.dec()
        route = route_name(request)
        metrics.observe_request(route, request.method or "", response.status_code, elapsed_s)
        user = request.META.get("AUTH_USER_ID")
        access_log.info(
            "request",
            method=request.method,
            path=request.path,  # never the query string: tokens get pasted into those
            route=route,
            status=response.status_code,
            duration_ms=round(elapsed_s * 1000, 2),
            address=request.META["REMOTE_ADDR"],
            **({"user_id": user} if user else {}),
        )


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


class NoStoreMiddleware:
    """`Cache-Control: no-store` on whatever was answered to a caller with credentials."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        carries_credentials = "HTTP_AUTHORIZATION" in request.META
        if carries_credentials or request.path.startswith(("/api/", "/v1/", "/admin")):
            response.setdefault("Cache-Control", "no-store")
        return response
