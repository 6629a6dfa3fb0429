"""Asking the model: whole answers and streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpResponseBase
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from consciousness import services, sse
from consciousness.admission import CallerGone
from consciousness.asks import Answer, Ask
from consciousness.callers import abandonment_of
from consciousness.models import Kind
from consciousness.serializers import (
    AnswerResponse,
    ProcessRequest,
    QueryAnswerResponse,
    QueryRequest,
)
from sovereigncore import ratelimit

_CLIENT_CLOSED_REQUEST = 499  # nginx's word for it; nobody is there to read it


class ProcessView(APIView):
    @extend_schema(request=ProcessRequest, responses=AnswerResponse)
    def post(self, request: Request) -> HttpResponseBase:
        """Ask the model. With `stream: true` the answer comes as server-sent events."""
        form = ProcessRequest(data=request.data)
        form.is_valid(raise_exception=True)
        given = dict(form.validated_data)
        is_stream = given.pop("stream")
        ask = Ask(**given, kind=Kind.PROCESS, request_id=request.META["REQUEST_ID"])
        if not is_stream:
            return answer_whole(request, ask, lambda answer: AnswerResponse(answer).data)
        return answer_streamed(
            request, ask, sse.ProcessWriter(_described_end, request_id=ask.request_id)
        )


class QueryView(APIView):
    @extend_schema(request=QueryRequest, responses=QueryAnswerResponse)
    def post(self, request: Request) -> HttpResponseBase:
        """Ask a question, with background if there is any."""
        form = QueryRequest(data=request.data)
        form.is_valid(raise_exception=True)
        ask = Ask(
            kind=Kind.QUERY,
            prompt=form.validated_data["query"],
            context=form.validated_data["context"],
            use_memory=True,
            request_id=request.META["REQUEST_ID"],
        )
        return answer_whole(
            request,
            ask,
            lambda answer: {**AnswerResponse(answer).data, "timestamp": timezone.now()},
        )


def _described_end(answer: Answer) -> dict[str, Any]:
    """The whole object less what the tokens before it said."""
    whole = dict(AnswerResponse(answer).data)
    del whole["response"]
    return whole


def answer_whole(
    request: Request, ask: Ask, describe: Callable[[Answer], dict[str, Any]]
) -> HttpResponseBase:
    try:
        answer = services.process_query(
            user=request.user, ask=ask, is_abandoned=abandonment_of(request._request)
        )
    except CallerGone:
        return Response(status=_CLIENT_CLOSED_REQUEST)
    ratelimit.tell_tokens(request._request, answer.standing)
    return Response(describe(answer))


def answer_streamed(request: Request, ask: Ask, writer: sse.Writer) -> HttpResponseBase:
    is_abandoned = abandonment_of(request._request)
    running = services.start_query(user=request.user, ask=ask, is_abandoned=is_abandoned)
    ratelimit.tell_tokens(request._request, running.standing)
    try:
        return sse.stream_response(
            running,
            writer,
            is_abandoned=is_abandoned,
            is_live=request.auth.is_live,  # type: ignore[union-attr]
        )
    except CallerGone:
        return Response(status=_CLIENT_CLOSED_REQUEST)
