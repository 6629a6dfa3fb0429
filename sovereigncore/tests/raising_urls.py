"""The platform's routes, and some that raise what views may raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest
from django.urls import path
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request

from accounts.views import PublicView
from sovereigncore.errors import ServiceError
from sovereigncore.routing import route
from sovereigncore.urls import handler400, handler403, handler404, handler500
from sovereigncore.urls import urlpatterns as real_urls

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]

ERRORS: dict[str, Callable[[], Exception]] = {
    "bug": lambda: RuntimeError("canary-in-the-bug"),
    "database": lambda: OperationalError("canary: no connection to 10.0.0.1"),
    "interface": lambda: InterfaceError("canary: connection already closed"),
    "validation": lambda: ValidationError({"outer": {"inner": ["First.", "Second."]}}),
    "validation-list": lambda: ValidationError(["Whole."]),
    "api-list": lambda: APIException(["One.", "Two."]),
    "forbidden": lambda: PermissionDenied("canary"),
    "missing": lambda: Http404("canary"),
    "suspicious": lambda: SuspiciousOperation("canary"),
    "bad": lambda: BadRequest("canary"),
    "teapot": lambda: Teapot("Short and stout.", retry_after_s=7),
}


class Teapot(ServiceError):
    status = 418
    code = "teapot"


class RaisingView(PublicView):
    def get(self, request: Request, kind: str) -> NoReturn:
        raise ERRORS[kind]()


def raising_page(request: HttpRequest, kind: str) -> NoReturn:
    raise ERRORS[kind]()


urlpatterns = [
    route("api/v1/raise/<name:kind>", RaisingView.as_view(), "raise"),
    route("v1/raise/<name:kind>", RaisingView.as_view(), "openai-raise"),
    path("page/<str:kind>", raising_page, name="page"),
    *real_urls,
]
