"""What the platform knows of itself, as far as callers may."""

from __future__ import annotations

from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from consciousness import engines
from consciousness.admission import admission
from monitoring.awareness import awareness


class StateView(APIView):
    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        """The platform's readings of itself, and what it decided upon them."""
        return Response(
            {
                **awareness.current().described(),
                "engine": engines.engine_summary(),
                "engines": engines.summary(),
                "queue": admission.snapshot(engines.capacity()),
                "timestamp": timezone.now(),
            }
        )


class StatusView(APIView):
    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        """Whether questions can be asked now."""
        engine = engines.engine_summary()
        takes_work = engine["status"] == "up" and not awareness.current().is_host_exhausted
        return Response(
            {
                "status": "operational" if takes_work else "degraded",
                "timestamp": timezone.now(),
                "engine": engine,
                "queue": admission.snapshot(engines.capacity()),
            }
        )
