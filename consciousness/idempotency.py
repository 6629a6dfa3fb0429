"""`Idempotency-Key`: a request that is sent again has one effect and gets its first result again.

A view opts in with one line, `@idempotent()`, on a handler that takes the request. Handlers that
ask the model give the claim on to their query (`claimed`) and to their stream (`keeping`). Without
the header nothing happens here.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from typing import Any, TypeVar, cast

import orjson
import structlog
from django.db import Error as DatabaseFailure
from django.db import IntegrityError, transaction
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from consciousness import conversations, owners, quota
from consciousness.asks import Answer, Ask
from consciousness.engine_stream import Chunk
from consciousness.models import KEY_LENGTH, IdempotentRequest, Query, Status
from consciousness.models.idempotency import KEPT_FOR, IdempotentRequestQuerySet
from consciousness.sse import Writer
from sovereigncore import ratelimit
from sovereigncore.api import JSONRenderer, ServiceError
from sovereigncore.connections import release_connection

KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
MIN_KEY_LENGTH = 8
# From the claim to the query, whose own lease counts from then on; and all of a handler that asks
# no model.
_LEASE = timedelta(seconds=90)
_RETRY_AFTER_S = 2  # nobody knows how long an answer takes; asking again is cheap
_ATTEMPTS = 3  # each finds the key taken and then free again
_KEY = re.compile(rf"[ -~]{{{MIN_KEY_LENGTH},{KEY_LENGTH}}}")
_CLAIM = "IDEMPOTENCY_CLAIM"  # in `request.META`, where no header can get to
_DOCUMENTED = OpenApiParameter(
    KEY_HEADER,
    {"type": "string", "minLength": MIN_KEY_LENGTH, "maxLength": KEY_LENGTH},
    OpenApiParameter.HEADER,
    description="The same key with the same body gets the first result again, for 24 hours.",
)

Handler = TypeVar("Handler", bound=Callable[..., HttpResponseBase])
# From the kept whole object and the request's body: the events of a stream that says it at once.
ToEvents = Callable[[dict[str, Any], Any], bytes]

log = structlog.get_logger(__name__)


class KeyRefused(ServiceError):
    status = 422  # under /v1 as well, where other validation is 400
    code = "validation_error"
    default_detail = "The request fails validation."


class KeyReused(ServiceError):
    status = 422
    code = "idempotency_key_reused"
    default_detail = "This Idempotency-Key was used for another request."


class InProgress(ServiceError):
    status = 409
    code = "idempotency_in_progress"
    default_detail = "The first request with this Idempotency-Key is still being answered."

    def __init__(self) -> None:
        super().__init__(retry_after_s=_RETRY_AFTER_S)


def idempotent(*, events: ToEvents | None = None) -> Callable[[Handler], Handler]:
    """A handler that honours the header. `events` where it streams: how a replay does."""

    def decorate(handler: Handler) -> Handler:
        @extend_schema(parameters=[_DOCUMENTED])
        @functools.wraps(handler)
        def with_key(view: Any, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if KEY_HEADER not in request.headers:
                return handler(view, request, *args, **kwargs)
            key, digest = _checked_key(request), _digest(request)
            found = _claim_or_find(request.user, key=key, digest=digest)
            if isinstance(found, IdempotentRequest):
                if found.query_id is not None:  # the model was asked, so tokens matter
                    ratelimit.tell_tokens(request._request, quota.standing_of(request.user))
                return _replayed(found, request, events)
            request.META[_CLAIM] = found
            return _held(found, lambda: handler(view, request, *args, **kwargs))

        return cast("Handler", with_key)

    return decorate


def claimed(request: Request, ask: Ask) -> Ask:
    """The ask of a query that is to hold the request's claim, if it has one."""
    claim: Claim | None = request.META.get(_CLAIM)
    return replace(ask, claim_id=claim.id) if claim else ask


def keeping(request: Request, writer: Writer) -> Writer:
    """A writer that keeps what it wrote, if the request has a claim."""
    claim: Claim | None = request.META.get(_CLAIM)
    return _KeepingWriter(writer, claim) if claim else writer


class Claim:
    """A key while its first request runs: a result is kept under it, or it is free again."""

    def __init__(self, row: IdempotentRequest) -> None:
        self.id, self._user_id = row.id, row.user_id
        self._is_open = True

    def keep(self, *, status: int, body: bytes) -> None:
        """A database that is away does not take the answer from its caller: then the key is free
        when its lease is over."""
        self._is_open = False
        rows = IdempotentRequest.objects.all()
        try:
            if not rows.keep(self.id, status=status, body=body.decode()):
                rows.release(self.id)
        except DatabaseFailure:
            log.warning("idempotent_result_not_kept")
        finally:
            release_connection()

    def release(self) -> None:
        """Free the key, unless its request was answered."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            own = IdempotentRequest.objects.all().running().filter(id=self.id)
            _free(own, user_id=self._user_id)
        except DatabaseFailure:
            log.warning("idempotency_key_not_released")  # its lease will
        finally:
            release_connection()


def _checked_key(request: Request) -> str:
    key = request.headers[KEY_HEADER]
    if _KEY.fullmatch(key) is None:
        message = f"{MIN_KEY_LENGTH} to {KEY_LENGTH} printable ASCII characters."
        raise KeyRefused(errors={KEY_HEADER: [message]})
    if _says(request, "store", False):
        message = "With `store: false` nothing may be kept, so there is nothing to replay."
        raise KeyRefused(errors={KEY_HEADER: [message]})
    return key


def _says(request: Request, name: str, value: bool) -> bool:
    return isinstance(request.data, dict) and request.data.get(name) is value


def _digest(request: Request) -> bytes:
    """Of what makes it the same request: a trailing slash or the order of fields does not."""
    described = [request.method, request.path.rstrip("/"), request.data]
    return hashlib.sha256(orjson.dumps(described, option=orjson.OPT_SORT_KEYS)).digest()


def _claim_or_find(user: Any, *, key: str, digest: bytes) -> Claim | IdempotentRequest:
    """The claim of a key that was free, or the earlier request whose result is kept under it.

    Of many at once one gets the claim: the unique constraint decides. One that was left by a dead
    process is deleted and claimed anew, not changed, so that its process, should it come back, has
    a claim no more. Raises KeyReused, InProgress.
    """
    own = IdempotentRequest.objects.all().for_user(user)
    try:
        for _ in range(_ATTEMPTS):
            now = timezone.now()
            with contextlib.suppress(IntegrityError), transaction.atomic():
                row = own.create(
                    user=user, key=key, digest=digest, created_at=now, lease_expires_at=now + _LEASE
                )
                return Claim(row)
            earlier = own.in_force(now).filter(key=key).first()
            if earlier is not None:
                return _checked_earlier(earlier, digest)
            _free(own.over(now).filter(key=key), user_id=user.pk)
    finally:
        release_connection()
    raise InProgress


def _free(claims: IdempotentRequestQuerySet, *, user_id: Any) -> None:
    """Delete them, so that their key can be claimed. What was answered under one that has no result
    was not told to its end, or could not be kept, and may be asked again: then that is the turn of
    the conversation, and the answer that went before is none. After a day the key is for something
    else, and that answer stays. In their owner's turn, as all that accepts and finishes queries."""
    kept_since = timezone.now() - KEPT_FOR
    with transaction.atomic():
        if not owners.try_turn(user_id):
            return
        # Locked, or a result might still be kept in between.
        freed = list(claims.select_for_update().only("status", "query_id", "created_at"))
        unheard = Query.objects.filter(
            id__in=[
                claim.query_id
                for claim in freed
                if claim.status is None and claim.created_at >= kept_since
            ],
            status=Status.COMPLETED,
            conversation__isnull=False,
        )
        for query in unheard:
            conversations.take_out(query)
        IdempotentRequest.objects.filter(id__in=[claim.id for claim in freed]).delete()


def _checked_earlier(earlier: IdempotentRequest, digest: bytes) -> IdempotentRequest:
    if bytes(earlier.digest) != digest:
        raise KeyReused
    if earlier.status is None:
        raise InProgress
    return earlier


def _held(claim: Claim, handle: Callable[[], HttpResponseBase]) -> HttpResponseBase:
    """Only a success is kept; after anything else the key is free, so that a retry can succeed."""
    with contextlib.ExitStack() as at_end:
        at_end.callback(claim.release)
        response = handle()
        if isinstance(response, StreamingHttpResponse):
            chunks = cast("Iterator[bytes]", response.streaming_content)
            response.streaming_content = _Held(chunks, on_close=at_end.pop_all().close)
        elif 200 <= response.status_code < 300:
            claim.keep(status=response.status_code, body=_content_of(response))
    return response


def _content_of(response: HttpResponseBase) -> bytes:
    if isinstance(response, Response):
        return JSONRenderer().render(response.data)
    return cast("HttpResponse", response).content


class _Held:
    """A stream's bytes. Servers close every response, also one that nobody read to its end: a key
    that then has no result is free."""

    def __init__(self, chunks: Iterator[bytes], *, on_close: Callable[[], None]) -> None:
        self._chunks, self._on_close = chunks, on_close

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self._on_close()


class _KeepingWriter:
    """Keeps the whole answer before the client is told that it is whole."""

    def __init__(self, writer: Writer, claim: Claim) -> None:
        self._writer, self._claim = writer, claim

    def chunk(self, chunk: Chunk) -> bytes:
        return self._writer.chunk(chunk)

    def whole(self, answer: Answer) -> dict[str, Any]:
        return self._writer.whole(answer)

    def done(self, answer: Answer) -> bytes:
        body = JSONRenderer().render(self._writer.whole(answer))
        self._claim.keep(status=HTTPStatus.OK, body=body)
        return self._writer.done(answer)

    def error(self, error: ServiceError) -> bytes:
        return self._writer.error(error)


def _replayed(
    kept: IdempotentRequest, request: Request, events: ToEvents | None
) -> HttpResponseBase:
    if events is not None and _says(request, "stream", True):
        content = events(orjson.loads(kept.body), request.data)
        response = HttpResponse(content, content_type="text/event-stream")
    else:
        response = HttpResponse(kept.body, status=kept.status, content_type="application/json")
    response[REPLAYED_HEADER] = "true"
    return response
