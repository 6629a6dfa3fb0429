"""What password hashing has to know of a request, which it never sees."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

from accounts import hashing


class CallerAddressMiddleware:
    """Tells `hashing` who makes it work, from wherever a password is hashed."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        token = hashing.caller_address.set(request.META["REMOTE_ADDR"])
        try:
            return self.get_response(request)
        finally:
            hashing.caller_address.reset(token)
