"""One's own API keys."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import services
from accounts.models import APIKey
from accounts.serializers import CreatedKeyResponse, KeyRequest, KeyResponse
from accounts.views.asking import asking_credential, asking_user


class KeyViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[APIKey]):
    """Keys for programs: as `Authorization: Bearer sk-…` wherever an access token goes."""

    serializer_class = KeyResponse
    queryset = APIKey.objects.none()

    def get_queryset(self) -> QuerySet[APIKey]:
        return APIKey.objects.for_user(asking_user(self.request))

    @extend_schema(request=KeyRequest, responses={201: CreatedKeyResponse})
    def create(self, request: Request) -> Response:
        """Make a key. The answer is the only place where it is ever shown."""
        form = KeyRequest(data=request.data)
        form.is_valid(raise_exception=True)
        row, key = services.create_key(
            asking_user(request), by=asking_credential(request), **form.validated_data
        )
        return Response({**KeyResponse(row).data, "key": key}, status=201)

    @extend_schema(responses={204: None})
    def revoke(self, request: Request, **kwargs: Any) -> Response:
        """Revoke a key: its next request is refused. It stays listed for a while."""
        services.revoke_key(self.get_object(), actor_id=asking_user(request).id)
        return Response(status=204)
