"""The consciousness routes of the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.contrib.auth.models import AbstractBaseUser
from django.http import HttpResponseBase, StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from consciousness import engines, services, sse
from consciousness.admission import CallerGone, admission
from consciousness.callers import abandonment_of
from consciousness.models import Query
from consciousness.serializers import (
    AnswerResponse,
    HistoryResponse,
    ProcessRequest,
    QueryAnswerResponse,
    QueryRequest,
)
from monitoring.awareness import awareness

_CLIENT_CLOSED_REQUEST = 499  # nginx's word for it; nobody is there to read it


class ProcessView(APIView):
    @extend_schema(request=ProcessRequest, responses=AnswerResponse)
    def post(self, request: Request) -> HttpResponseBase:
        """Ask the model. With `stream: true` the answer comes as server-sent events."""
        form = ProcessRequest(data=request.data)
        form.is_valid(raise_exception=True)
        given = dict(form.validated_data)
        is_stream = given.pop("stream")
        ask = services.Ask(**given, request_id=request.META["REQUEST_ID"])
        if is_stream:
            return _stream(request, ask)
        return _answer_whole(request, ask, lambda answer: dict(AnswerResponse(answer).data))


class QueryView(APIView):
    @extend_schema(request=QueryRequest, responses=QueryAnswerResponse)
    def post(self, request: Request) -> HttpResponseBase:
        """Ask a question, with background if there is any."""
        form = QueryRequest(data=request.data)
        form.is_valid(raise_exception=True)
        ask = services.Ask(
            prompt=form.validated_data["query"],
            context=form.validated_data["context"],
            request_id=request.META["REQUEST_ID"],
        )
        return _answer_whole(
            request,
            ask,
            lambda answer: {**AnswerResponse(answer).data, "timestamp": timezone.now()},
        )


def _answer_whole(
    request: Request, ask: services.Ask, describe: Callable[[services.Answer], dict[str, Any]]
) -> Response:
    try:
        answer = services.process_query(
            user=request.user, ask=ask, is_abandoned=abandonment_of(request._request)
        )
    except CallerGone:
        return Response(status=_CLIENT_CLOSED_REQUEST)
    return Response(describe(answer))


def _stream(request: Request, ask: services.Ask) -> HttpResponseBase:
    is_abandoned = abandonment_of(request._request)
    events = services.stream_query(user=request.user, ask=ask, is_abandoned=is_abandoned)
    try:
        first = sse.first_event(events, is_abandoned)
    except CallerGone:
        events.close()
        return Response(status=_CLIENT_CLOSED_REQUEST)

    def done(answer: services.Answer) -> dict[str, Any]:
        whole = dict(AnswerResponse(answer).data)
        del whole["response"]
        return whole

    response = StreamingHttpResponse(
        sse.EventStream(
            first,
            events,
            done=done,
            is_abandoned=is_abandoned,
            is_live=request.auth.is_live,  # type: ignore[union-attr]
            request_id=ask.request_id,
        ),
        content_type="text/event-stream",
    )
    response["X-Accel-Buffering"] = "no"  # nginx would collect the events otherwise
    return response


class StateView(APIView):
    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        """The platform's readings of itself, and what it decided upon them."""
        return Response(
            {
                **awareness.current().described(),
                "engine": engines.engine_summary(),
                "engines": engines.summary(),
                "queue": admission.snapshot(),
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
                "queue": admission.snapshot(),
            }
        )


class QueryViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Query]
):
    """One's own questions and answers, newest first."""

    serializer_class = HistoryResponse
    lookup_value_regex = "[0-9a-f-]{36}"

    def get_queryset(self) -> Any:
        user = cast("AbstractBaseUser", self.request.user)  # HasScope lets nobody else in
        return Query.objects.all().for_user(user).select_related("content")
