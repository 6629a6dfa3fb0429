"""Strict input: JSON that is exactly what the contract says, or a clear refusal.

Refused here: bodies over the limit, encodings, bad JSON, depth over 32, NUL and lone surrogates
anywhere, unknown fields, and values of another type than the field's. No coercion.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

import orjson
from django.conf import settings
from django.http import HttpRequest
from django.utils.dateparse import parse_datetime
from rest_framework import serializers
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser, FormParser

from sovereigncore.content_type import CHARSET_REFUSED, INCOMPLETE_BODY
from sovereigncore.errors import ServiceError

MAX_DEPTH = 32
# Its section 5.6, but that a missing offset gets a message of its own.
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


class BodyTooLarge(ServiceError):
    status = 413
    code = "body_too_large"
    default_detail = f"The request body is larger than {settings.MAX_BODY_BYTES} bytes."


class IncompleteBody(ServiceError):
    status = 400
    code = "incomplete_body"
    default_detail = "The body ended before the length that its header promised, or took too long."


class LengthRequired(ServiceError):
    status = 411
    code = "length_required"
    default_detail = "Send a Content-Length; chunked request bodies are not accepted."


class UnsupportedEncoding(ServiceError):
    status = 415
    code = "unsupported_encoding"
    default_detail = "Compressed request bodies are not accepted."


class UnsupportedCharset(ServiceError):
    status = 415
    code = "unsupported_charset"
    default_detail = "Text has to be UTF-8."


def check_body_headers(request: HttpRequest) -> None:
    """Raise a ServiceError for a body that its headers already rule out."""
    headers = request.headers
    if request.META.get(INCOMPLETE_BODY):
        raise IncompleteBody
    if request.META.get(CHARSET_REFUSED):
        raise UnsupportedCharset
    if headers.get("Transfer-Encoding"):
        raise LengthRequired
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedEncoding
    length = headers.get("Content-Length") or "0"
    if not length.isdecimal() or int(length) > settings.MAX_BODY_BYTES:
        raise BodyTooLarge


def check_json(value: object) -> None:
    """Raise ParseError if `value` is nested deeper than MAX_DEPTH or holds a NUL character."""
    stack: list[tuple[object, int]] = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, str):
            if "\x00" in item:
                raise ParseError("The NUL character is not allowed.")
        elif isinstance(item, (dict, list)):
            if depth > MAX_DEPTH:
                raise ParseError(f"The JSON is nested deeper than {MAX_DEPTH} levels.")
            children = [*item, *item.values()] if isinstance(item, dict) else item
            stack.extend((child, depth + 1) for child in children)


class StrictJSONParser(BaseParser):
    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            value = orjson.loads(stream.read())
        except orjson.JSONDecodeError as error:
            raise ParseError(f"Malformed JSON: {error}") from error
        check_json(value)
        return value


class StrictFormParser(FormParser):
    """Form data for the OAuth2 token route; arrays where a scalar belongs are refused."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        form = super().parse(stream, media_type, parser_context)
        repeated = [name for name, values in form.lists() if len(values) > 1]
        if repeated:
            raise ParseError("A parameter is given more than once.")
        value = form.dict()
        if any(0xD800 <= ord(char) <= 0xDFFF for text in value.values() for char in text):
            raise ParseError("The form is not valid UTF-8.")
        check_json(value)
        return value


class StrictCharField(serializers.CharField):
    """Text and nothing else: 5 and true are not text."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class StrictIntegerField(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return data


class StrictFloatField(serializers.FloatField):
    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            self.fail("invalid")
        value = float(data)
        if not math.isfinite(value):
            self.fail("invalid")
        return value


class StrictBooleanField(serializers.BooleanField):
    default_error_messages = {"invalid": "Must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


class StrictDateTimeField(serializers.DateTimeField):
    """A moment with its offset, as RFC 3339 writes it: without one it would be anybody's guess."""

    default_error_messages = {"no_offset": "Write the offset too: 2026-01-31T12:00:00Z."}

    def to_internal_value(self, value: Any) -> datetime:
        if not isinstance(value, str) or _RFC_3339.fullmatch(value) is None:
            self.fail("invalid", format="RFC 3339")
        moment = parse_datetime_strictly(value)
        if moment is None:
            self.fail("invalid", format="RFC 3339")
        if moment.utcoffset() is None:
            self.fail("no_offset")
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            self.fail("invalid", format="RFC 3339")


def parse_datetime_strictly(text: str) -> datetime | None:
    """Django's, with None for what has the form and is no moment: the 30th of February."""
    try:
        return parse_datetime(text)
    except ValueError:
        return None


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it does not know, so that a typo is an error and not a default."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, Mapping):
            self._refuse_type(data)
        unknown = [str(name) for name in data if name not in self.fields]
        if unknown:
            # Bounded: the names are the caller's own text.
            named = {name[:64]: ["Unknown field."] for name in sorted(unknown)[:10]}
            raise serializers.ValidationError(named)
        return super().to_internal_value(data)

    def _refuse_type(self, data: object) -> NoReturn:
        kind = {list: "an array", str: "text", type(None): "null"}.get(type(data), "a scalar")
        raise serializers.ValidationError(
            {"non_field_errors": [f"Expected an object, got {kind}."]}
        )
