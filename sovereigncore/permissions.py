"""Who may read the API's own description."""

from __future__ import annotations

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView


class SchemaPermission(BasePermission):
    """Everybody where the docs are shown, staff elsewhere."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return bool(settings.API_DOCS or getattr(request.user, "is_staff", False))
