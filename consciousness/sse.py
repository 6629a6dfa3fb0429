"""Server-sent events of a query, per the contract: `token` events, then `done` or `error`."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import orjson
import structlog
from django.db import InterfaceError, OperationalError

from consciousness.admission import CallerGone
from consciousness.services import Answer, Events, release_connection
from sovereigncore.api import ServiceError
from sovereigncore.errors import DatabaseUnavailable, problem

HEARTBEAT_S = 10.0
RECHECK_S = 4.0  # open streams of a revoked credential end within five seconds

log = structlog.get_logger(__name__)


class CredentialRevoked(ServiceError):
    status = 401
    code = "credential_revoked"
    default_detail = "The credential was revoked while the answer was being written."


def event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(data, default=str))


def first_event(events: Events, is_abandoned: Callable[[], bool]) -> str | Answer:
    """Wait for the first real event, before a response is begun, so that a failure until then is
    still an ordinary error response."""
    for item in events:
        if item is not None:
            return item
        if is_abandoned():
            raise CallerGone
    raise AssertionError("a stream of events ends with its answer")


class EventStream:
    """The bytes of the response. Ends early, cancelling the query, when the client has gone.

    Closing it cancels the query also when nobody began to read: a generator that was never begun
    has no `finally` to run.
    """

    def __init__(
        self,
        first: str | Answer,
        events: Events,
        *,
        done: Callable[[Answer], dict[str, Any]],
        is_abandoned: Callable[[], bool],
        is_live: Callable[[], bool],
        request_id: str,
    ) -> None:
        self._events = events
        self._done = done
        self._is_abandoned = is_abandoned
        self._is_live = is_live
        self._request_id = request_id
        self._bytes = self._written(first)

    def __iter__(self) -> Iterator[bytes]:
        return self._bytes

    def close(self) -> None:
        self._bytes.close()
        self._events.close()

    def _written(self, item: str | Answer | None) -> Generator[bytes]:
        written_s = checked_s = time.monotonic()
        try:
            while not isinstance(item, Answer):
                now = time.monotonic()
                if self._is_abandoned():
                    return
                if now - checked_s > RECHECK_S:
                    checked_s = now
                    _check_credential(self._is_live)
                if item:
                    written_s = now
                    yield event("token", {"text": item})
                elif now - written_s > HEARTBEAT_S:
                    written_s = now
                    yield b": still working\n\n"
                item = next(self._events)
            yield event("done", self._done(item))
        except (ServiceError, OperationalError, InterfaceError) as error:
            yield event("error", _problem(error, self._request_id))
        except CallerGone:
            return
        except Exception as error:  # too late for the 500 that it is
            log.exception("unhandled_error")
            yield event("error", _problem(error, self._request_id))
        finally:
            self._events.close()


def _check_credential(is_live: Callable[[], bool]) -> None:
    if not is_live():
        raise CredentialRevoked
    release_connection()


def _problem(error: Exception, request_id: str) -> dict[str, Any]:
    known = error if isinstance(error, ServiceError) else ServiceError()
    if isinstance(error, (OperationalError, InterfaceError)):
        known = DatabaseUnavailable()
    return problem(status=known.status, code=known.code, detail=known.detail, request_id=request_id)
