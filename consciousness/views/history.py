"""One's own questions and answers, conversations and usage."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from django.contrib.auth.models import AbstractBaseUser
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from consciousness import conversations, quota
from consciousness.models import ACTIVE, Conversation, Query, QueryContent, UsageDay
from consciousness.serializers import (
    ConversationMessage,
    ConversationRequest,
    ConversationResponse,
    HistoryFilter,
    HistoryResponse,
    UsageDayResponse,
    UsageRequest,
    UsageResponse,
)
from sovereigncore.api import CursorPagination, ServiceError, parameters_of

ID_PATTERN = "[0-9a-f-]{36}"


class QueryActive(ServiceError):
    status = 409
    code = "query_active"
    default_detail = "This query is still being answered; it can be deleted when it is finished."


class NewestActivityFirst(CursorPagination):
    ordering = ("-updated_at", "-id")


class OldestFirst(CursorPagination):
    ordering = ("created_at", "id")


class _Owned(viewsets.GenericViewSet[Any]):
    lookup_value_regex = ID_PATTERN

    @property
    def asker(self) -> AbstractBaseUser:
        return cast("AbstractBaseUser", self.request.user)  # HasScope lets nobody else in


class QueryViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, _Owned):
    """One's own questions and answers, newest first."""

    serializer_class = HistoryResponse
    list_parameters = tuple(HistoryFilter().fields)

    def get_queryset(self) -> Any:
        return Query.objects.all().for_user(self.asker).select_related("content")

    @extend_schema(parameters=[HistoryFilter])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """With filters: a day or a moment, a status, a model."""
        return super().list(request, *args, **kwargs)

    def filter_queryset(self, queryset: Any) -> Any:
        if self.action != "list":
            return queryset
        paginator = cast("CursorPagination", self.paginator)
        form = HistoryFilter(data=paginator.filters_of(self.request, self))
        form.is_valid(raise_exception=True)
        return queryset.filter(**form.lookups())

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete one with its text. What it used stays counted.

        Where its question is its conversation's title, the next one gives it; a conversation of
        which nothing is left goes too.
        """
        query = self.get_object()
        if query.status in ACTIVE:
            raise QueryActive
        conversations.delete_query(query)
        return Response(status=204)

    @extend_schema(operation_id="consciousness_queries_destroy_all")
    def destroy_all(self, request: Request) -> Response:
        """Delete every finished one with its text, and all conversations. Takes no filters."""
        for name in request.query_params:  # who sends one does not mean all
            raise ValidationError({name[:64]: ["All are deleted; there is nothing to choose."]})
        conversations.delete_history(self.asker)
        return Response(status=204)


class ConversationViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, _Owned):
    """One's own conversations, the latest first. `process` begins them."""

    serializer_class = ConversationResponse
    pagination_class = NewestActivityFirst

    def get_queryset(self) -> Any:
        return Conversation.objects.all().for_user(self.asker)

    @extend_schema(request=ConversationRequest, responses=ConversationResponse)
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Rename."""
        form = ConversationRequest(data=request.data)
        form.is_valid(raise_exception=True)
        conversation = self.get_object()
        conversations.rename_conversation(conversation, title=form.validated_data["title"])
        return Response(ConversationResponse(conversation).data)

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete one with the texts of its turns."""
        conversations.delete_conversation(self.get_object())
        return Response(status=204)

    @extend_schema(responses=ConversationMessage(many=True))
    @action(detail=True, pagination_class=OldestFirst)
    def messages(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """What was said, oldest first: two messages a turn; `limit` counts turns."""
        turns = Query.objects.filter(conversation=self.get_object(), content__isnull=False)
        page = self.paginate_queryset(turns.select_related("content"))
        messages = [message for query in page or () for message in _messages_of(query)]
        return self.get_paginated_response(ConversationMessage(messages, many=True).data)


def _messages_of(query: Query) -> list[dict[str, Any]]:
    content: QueryContent = query.content
    common = {"query_id": query.id, "created_at": query.created_at, "status": query.status}
    said = [("user", content.prompt)]
    if content.response:
        said.append(("assistant", content.response))
    return [{**common, "role": role, "content": text} for role, text in said]


class UsageView(APIView):
    @extend_schema(parameters=[UsageRequest], responses=UsageResponse)
    def get(self, request: Request) -> Response:
        """Requests, tokens and cache hits by day (UTC), newest first; and what is left today."""
        form = UsageRequest(data=parameters_of(request, known=UsageRequest().fields))
        form.is_valid(raise_exception=True)
        user = cast("AbstractBaseUser", request.user)
        since = timezone.now().date() - timedelta(days=form.validated_data["days"] - 1)
        days = UsageDay.objects.all().for_user(user).filter(day__gte=since).order_by("-day")
        standing = quota.standing_of(user)
        return Response(
            {
                "quota": {
                    "limit": standing.limit or None,
                    "used": standing.used,
                    "remaining": standing.remaining if standing.limit else None,
                    "reset_s": standing.reset_s,
                },
                "days": UsageDayResponse(days, many=True).data,
            }
        )
