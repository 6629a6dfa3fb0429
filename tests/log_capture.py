"""What the platform logs, as the operator would read it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson


class LogCapture:
    """Everything that went through the platform's own log handler."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """The events, all or those called `name`. Raises ValueError for a line that is no JSON.

        Lines are split as the strictest reader would: at Unicode's line breaks too.
        """
        events = [orjson.loads(line) for line in self.text.splitlines()]
        return [event for event in events if not name or event["event"] == name]


@contextmanager
def captured_logs() -> Iterator[LogCapture]:
    (handler,) = (
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and getattr(handler, "sovereigncore", False)
    )
    stream = io.StringIO()
    before = handler.setStream(stream)
    try:
        yield LogCapture(stream)
    finally:
        handler.setStream(before or handler.stream)
