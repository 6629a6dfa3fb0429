"""One's own sessions."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import services
from accounts.models import Session
from accounts.serializers import SessionResponse
from accounts.views.asking import asking_user


class SessionViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[Session]):
    """Where one is logged in, newest first."""

    serializer_class = SessionResponse
    queryset = Session.objects.none()

    def get_queryset(self) -> QuerySet[Session]:
        return Session.objects.for_user(asking_user(self.request)).live()

    @extend_schema(responses={204: None})
    def end(self, request: Request, **kwargs: Any) -> Response:
        """End one session."""
        services.end_session(self.get_object(), actor_id=asking_user(request).id)
        return Response(status=204)

    @extend_schema(operation_id="auth_sessions_destroy_all", responses={204: None})
    def end_all(self, request: Request) -> Response:
        """End every session, this one too."""
        user = asking_user(request)
        services.end_all_sessions(user, actor_id=user.id)
        return Response(status=204)
