"""How routes are written: API routes, pages, and the routes of viewsets."""

from __future__ import annotations

import re
from collections.abc import Callable

from django.http import HttpResponseBase
from django.urls import re_path
from django.urls.resolvers import URLPattern
from django.views.decorators.csrf import csrf_exempt
from rest_framework.routers import Route, SimpleRouter

_PARAMETERS = {
    "uuid": "[0-9a-f-]{36}",
    "name": "[A-Za-z0-9_-]{1,64}",
    "any": ".{1,200}?",  # slashes too; but a last one is the route's
}


def route(path: str, view: Callable[..., HttpResponseBase], name: str) -> URLPattern:
    """`path` with an optional trailing slash; `<uuid:x>`, `<name:x>` and `<any:x>` become
    parameters.

    No API route looks at cookies, so there is nothing that a forged request could use.
    """
    pattern = re.sub(
        r"<(\w+):(\w+)>", lambda found: f"(?P<{found[2]}>{_PARAMETERS[found[1]]})", path
    )
    return re_path(rf"^{pattern}/?$", csrf_exempt(view), name=name)


def page_route(path: str, view: Callable[..., HttpResponseBase], name: str) -> URLPattern:
    """A page with a form: it takes cookies, so its forms carry a CSRF token."""
    return re_path(rf"^{path}/?$", view, name=name)


class Router(SimpleRouter):
    """Routes of viewsets: a trailing slash or none, and DELETE on a list where a viewset has
    `destroy_all`."""

    def __init__(self) -> None:
        super().__init__(use_regex_path=True)
        self.trailing_slash = "/?"
        whole = self.routes[0]
        assert isinstance(whole, Route)
        mapping = {**whole.mapping, "delete": "destroy_all"}
        self.routes = [whole._replace(mapping=mapping), *self.routes[1:]]
