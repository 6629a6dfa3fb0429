"""Logging: one event, one line of JSON on standard error, whatever the input held.

Standard error, because commands answer on standard output. Prompts, tokens, secrets and query
strings must not be passed to a logger; this module does not search for them.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog

_LINE_BREAKS = {0x2028: "\\u2028", 0x2029: "\\u2029", 0x85: "\\u0085"}


def _render(_logger: Any, _name: str, event: structlog.types.EventDict) -> str:
    # JSON escapes control characters, but leaves line breaks of Unicode that some readers obey.
    text = orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode(
        "utf-8", "replace"
    )
    return text.translate(_LINE_BREAKS)


def _make_encodable(
    _logger: Any, _name: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Lone surrogates cannot be written as UTF-8; huge integers not as JSON numbers."""
    return {key: _encodable(value) for key, value in event.items()}


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 63:
        return str(value)
    return value


_SHARED: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(options: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG: `options` is `settings.LOGGING`, `{"level": "INFO"}`."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder(allow=[])],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _make_encodable,
                _render,
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        if getattr(old, "sovereigncore", False):
            root.removeHandler(old)
    handler.sovereigncore = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(options["level"])
    for name, level in (
        # Each request has its own access line already; these would repeat it, with the path.
        ("django.request", "CRITICAL"),
        ("django.security", "CRITICAL"),
        ("httpx2", "WARNING"),
        ("httpcore2", "WARNING"),
        # A refused start is told by the command itself.
        ("django.db.backends", "INFO"),
    ):
        logging.getLogger(name).setLevel(level)
