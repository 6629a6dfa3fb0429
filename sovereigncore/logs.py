"""Logging: one event, one line of JSON on standard error, whatever the input held.

Standard error, because commands answer on standard output. Prompts, tokens, secrets and query
strings must not be passed to a logger; `redaction` cuts what comes all the same.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import structlog

from sovereigncore import redaction

# JSON escapes the control characters of ASCII, but not DEL, those of Latin-1 (terminals obey
# them) and the line breaks of Unicode (some readers of logs do).
_CONTROLS = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}
_MAX_INTEGER_BITS = 63
# What orjson would write by itself and `_encodable` writes in its own way.
_ONLY_JSON = (
    orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)


class _Renderer:
    def __init__(self, secrets: Iterable[str]) -> None:
        self._redactor = redaction.Redactor(secrets)

    def __call__(self, _logger: Any, _name: str, event: structlog.types.EventDict) -> str:
        event = redaction.cut_fields(event)
        try:
            line = orjson.dumps(event, option=_ONLY_JSON)
        except TypeError:
            line = orjson.dumps(_encodable(event))
        return self._redactor.cut(line.decode()).translate(_CONTROLS)


def _cut_traceback(
    _logger: Any, _name: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    if isinstance(event.get("exception"), str):
        event["exception"] = redaction.cut_traceback(event["exception"])
    return event


def _encodable(value: Any) -> Any:
    """`value` as something that is always JSON: lone surrogates cannot be written as UTF-8, huge
    integers not as JSON numbers (nor in decimal, past Python's own limit)."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case bool() | float() | None:
            return value
        case int():
            return value if value.bit_length() <= _MAX_INTEGER_BITS else hex(value)
        case dict():
            return {_encodable(str(key)): _encodable(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_encodable(inner) for inner in value]
        case datetime() | date() | UUID() | Path():
            return str(value)
        case _:
            return _encodable(repr(value))


_SHARED: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(options: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG: `options` is `settings.LOGGING`, with `level` and `secrets`."""
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
                _cut_traceback,
                _Renderer(options["secrets"]),
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
