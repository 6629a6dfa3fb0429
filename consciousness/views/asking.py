"""Asking the model: whole answers and streams."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
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
from consciousness.idempotency import claimed, idempotent, keeping
from consciousness.models import Kind
from consciousness.quota import QuotaRefusal
from consciousness.running import RunningQuery
from consciousness.serializers import (
    AnswerResponse,
    ProcessRequest,
    QueryAnswerResponse,
    QueryRequest,
)
from sovereigncore import ratelimit

_CLIENT_CLOSED_REQUEST = 499  # nginx's word for it; nobody is there to read it


class ProcessView(APIView):
    @idempotent(events=sse.process_events)
    @extend_schema(request=ProcessRequest, responses=AnswerResponse)
    def post(self, request: Request) -> HttpResponseBase:
        """Ask the model. With `stream: true` the answer comes as server-sent events."""
        form = ProcessRequest(data=request.data)
        form.is_valid(raise_exception=True)
        given = dict(form.validated_data)
        is_stream = given.pop("stream")
        ask = Ask(**given, kind=Kind.PROCESS, request_id=request.META["REQUEST_ID"])
        if not is_stream:
            return answer_whole(request, ask, _described)
        writer = sse.ProcessWriter(_described, request_id=ask.request_id)
        return answer_streamed(request, ask, lambda _running: writer)


class QueryView(APIView):
    @idempotent()
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
            lambda answer: {**_described(answer), "timestamp": timezone.now()},
        )


def _described(answer: Answer) -> dict[str, Any]:
    return dict(AnswerResponse(answer).data)


@contextlib.contextmanager
def _telling_what_is_left(request: Request) -> Iterator[None]:
    """Who is refused for want of tokens reads in the headers what is left of them."""
    try:
        yield
    except QuotaRefusal as refusal:
        ratelimit.tell_tokens(request._request, refusal.standing)
        raise


def answer_whole(
    request: Request, ask: Ask, describe: Callable[[Answer], dict[str, Any]]
) -> HttpResponseBase:
    try:
        with _telling_what_is_left(request):
            answer = services.process_query(
                user=request.user,
                ask=claimed(request, ask),
                is_abandoned=abandonment_of(request._request),
            )
    except CallerGone:
        return Response(status=_CLIENT_CLOSED_REQUEST)
    ratelimit.tell_tokens(request._request, answer.standing)
    return Response(describe(answer))


def answer_streamed(
    request: Request, ask: Ask, writer: Callable[[RunningQuery], sse.Writer]
) -> HttpResponseBase:
    is_abandoned = abandonment_of(request._request)
    with _telling_what_is_left(request):
        running = services.start_query(
            user=request.user, ask=claimed(request, ask), is_abandoned=is_abandoned
        )
    ratelimit.tell_tokens(request._request, running.standing)
    try:
        return sse.stream_response(
            running,
            keeping(request, writer(running)),
            is_abandoned=is_abandoned,
            is_live=request.auth.is_live,  # type: ignore[union-attr]
        )
    except CallerGone:
        return Response(status=_CLIENT_CLOSED_REQUEST)
