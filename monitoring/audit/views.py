"""`/api/v1/audit`: the audit trail for staff.

The one module of this app that knows the project's shared modules: an API route needs its pages,
its strict input and its errors.
"""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from monitoring.models import AuditEvent
from sovereigncore.api import CursorPagination
from sovereigncore.strict import StrictCharField, StrictDateTimeField, StrictSerializer


class AuditFilter(StrictSerializer):
    """Query parameters, which are text."""

    action = StrictCharField(required=False, max_length=64, help_text="such as key.created")
    actor = serializers.UUIDField(required=False, help_text="who did it")
    subject = StrictCharField(required=False, max_length=64, help_text="whom or what it is about")
    request_id = StrictCharField(required=False, max_length=64, help_text="X-Request-ID")
    since = StrictDateTimeField(required=False, help_text="at or after this moment")
    until = StrictDateTimeField(required=False, help_text="before this moment")

    def lookups(self) -> dict[str, Any]:
        names = {
            "actor": "actor_id",
            "subject": "subject_id",
            "since": "at__gte",
            "until": "at__lt",
        }
        return {names.get(name, name): value for name, value in self.validated_data.items()}


@extend_schema_field(str)
class _Hexadecimal(serializers.Field[bytes, Any, str, Any]):
    def to_representation(self, value: bytes) -> str:
        return bytes(value).hex()


class AuditEventResponse(serializers.ModelSerializer[AuditEvent]):
    actor = serializers.UUIDField(source="actor_id", allow_null=True)
    subject = serializers.CharField(source="subject_id")
    seal = serializers.IntegerField(source="seal_id", allow_null=True)
    digest = _Hexadecimal()

    class Meta:
        model = AuditEvent
        fields = (
            *("id", "at", "action", "actor", "subject", "detail", "request_id"),
            *("digest", "seal"),
        )


class _NewestFirst(CursorPagination):
    ordering = ("-at", "-id")


class AuditView(generics.ListAPIView[AuditEvent]):
    required_scope = "admin"
    serializer_class = AuditEventResponse
    pagination_class = _NewestFirst
    list_parameters = tuple(AuditFilter().fields)

    def get_queryset(self) -> Any:
        paginator = cast("CursorPagination", self.paginator)
        form = AuditFilter(data=paginator.filters_of(self.request, self))
        form.is_valid(raise_exception=True)
        return AuditEvent.objects.filter(**form.lookups())

    @extend_schema(parameters=[AuditFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Who did what to whom, newest first; for staff. What is archived is in files."""
        return super().get(request, *args, **kwargs)
