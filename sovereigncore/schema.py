"""The OpenAPI document, as far as it is not generated."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.views import SpectacularAPIView
from rest_framework.authentication import BaseAuthentication

from sovereigncore.permissions import SchemaPermission

Endpoint = tuple[str, str, str, Any]


def without_trailing_slash(endpoints: list[Endpoint]) -> list[Endpoint]:
    """Every route takes a trailing slash or none; the document shows the form without."""
    return [(path.rstrip("/"), regex, method, view) for path, regex, method, view in endpoints]


class SchemaView(SpectacularAPIView):
    """The OpenAPI document: for everybody where the docs are shown, for staff elsewhere."""

    permission_classes = (SchemaPermission,)

    def get_authenticators(self) -> list[BaseAuthentication]:
        """None where it is public: a stale credential is not even looked at."""
        if settings.API_DOCS:
            return []
        found: list[BaseAuthentication] = super().get_authenticators()
        return found
