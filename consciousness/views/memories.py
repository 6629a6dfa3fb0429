"""One's own facts."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.models import AbstractBaseUser
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, viewsets
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from consciousness import memory
from consciousness.idempotency import idempotent
from consciousness.memory_serializers import (
    MemoryRequest,
    MemoryResponse,
    MemorySearchRequest,
)
from consciousness.models import Memory
from sovereigncore.api import CursorPagination


class MemoryViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Memory]
):
    """Facts that one asked to be remembered, newest first."""

    serializer_class = MemoryResponse
    queryset = Memory.objects.none()
    lookup_value_regex = "[0-9a-f-]{36}"
    list_parameters = ("search",)

    def get_queryset(self) -> QuerySet[Memory]:
        return Memory.objects.for_user(self._user)

    @property
    def _user(self) -> AbstractBaseUser:
        return cast("AbstractBaseUser", self.request.user)  # HasScope lets nobody else in

    @extend_schema(parameters=[OpenApiParameter("search", str)])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """All facts, newest first; with `search`, those that share a word with it, best first, on
        one page."""
        paginator = cast("CursorPagination", self.paginator)
        form = MemorySearchRequest(data={"search": "", **paginator.filters_of(request, self)})
        form.is_valid(raise_exception=True)
        wanted = form.validated_data["search"]
        if not wanted:
            return super().list(request, *args, **kwargs)
        if "cursor" in request.query_params:
            raise ValidationError({"cursor": ["A search has one page."]})
        limit = paginator.get_page_size(request)
        found = memory.search(user=self._user, text=wanted, at_most=limit)
        results = MemoryResponse(found, many=True).data
        return Response({"next": None, "previous": None, "results": results})

    @idempotent()
    @extend_schema(request=MemoryRequest, responses={201: MemoryResponse})
    def create(self, request: Request) -> Response:
        """Have a fact remembered. The same one again is the same one, with a new `updated_at`."""
        form = MemoryRequest(data=request.data)
        form.is_valid(raise_exception=True)
        noted = memory.remember(user=self._user, **form.validated_data)
        return Response(MemoryResponse(noted).data, status=201)

    @extend_schema(request=MemoryRequest, responses=MemoryResponse)
    def partial_update(self, request: Request, **kwargs: Any) -> Response:
        """Change what a fact says."""
        fact = self.get_object()
        form = MemoryRequest(data=request.data)
        form.is_valid(raise_exception=True)
        return Response(MemoryResponse(memory.revise(memory=fact, **form.validated_data)).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, **kwargs: Any) -> Response:
        """Have a fact forgotten."""
        memory.forget(memory=self.get_object())
        return Response(status=204)
