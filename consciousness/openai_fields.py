"""The OpenAI protocol's own kinds of values: a message's content, `stop`, objects of a bounded
size. Strict like every other field, but that null means "not given"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from sovereigncore.strict import StrictCharField, StrictSerializer

MAX_CHARACTERS = 200_000  # of all that is said in one request
MAX_INPUTS = 64
TOO_LONG = f"At most {MAX_CHARACTERS} characters in all."
_MAX_METADATA = 16
MAX_STOPS = 4
_MAX_STOP_CHARACTERS = 100
MAX_OBJECT_BYTES = 64 * 1024  # of tools or of a schema: they cost the engine before any token does


class ProtocolSerializer(StrictSerializer):
    """A null is a parameter that is not given; clients send one for each that they know."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            data = {
                name: value
                for name, value in data.items()
                if value is not None or name not in self.fields
            }
        return super().to_internal_value(data)


class _Field(serializers.Field[Any, Any, Any, Any]):
    """One that is never written."""

    def to_representation(self, value: Any) -> Any:
        return value


class OneOfField(serializers.ChoiceField):
    """One of a few words. What was given instead is not repeated: it may be long."""

    def __init__(self, *words: str, **options: Any) -> None:
        super().__init__(words, **options)
        self.error_messages["invalid_choice"] = f"Must be one of {', '.join(words)}."

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid_choice", input="")
        return super().to_internal_value(data)


@extend_schema_field({"type": "string", "const": "function"})
class FunctionTypeField(OneOfField):
    def __init__(self) -> None:
        super().__init__("function")


_TEXT_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
    "additionalProperties": False,
}


@extend_schema_field({"oneOf": [{"type": "string"}, {"type": "array", "items": _TEXT_PART}]})
class ContentField(_Field):
    """Text, or a list of text parts, which become lines of one text."""

    default_error_messages = {
        "type": "Must be text or a list of text parts.",
        "part": "Only parts of the type 'text' are understood here, with their text.",
    }

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, str):
            return data
        if not isinstance(data, list) or not data:
            self.fail("type")
        for part in data:
            is_text = isinstance(part, dict) and part.keys() == {"type", "text"}
            if not is_text or part["type"] != "text" or not isinstance(part["text"], str):
                self.fail("part")
        return "\n".join(part["text"] for part in data)


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "minLength": 1, "maxLength": _MAX_STOP_CHARACTERS},
            {
                "type": "array",
                "maxItems": MAX_STOPS,
                "items": {"type": "string", "minLength": 1, "maxLength": _MAX_STOP_CHARACTERS},
            },
        ]
    }
)
class StopField(_Field):
    default_error_messages = {
        "invalid": f"Must be text or up to {MAX_STOPS} texts,"
        f" each of 1 to {_MAX_STOP_CHARACTERS} characters."
    }

    def to_internal_value(self, data: Any) -> list[str]:
        stops = [data] if isinstance(data, str) else data
        if not isinstance(stops, list) or len(stops) > MAX_STOPS:
            self.fail("invalid")
        if not all(
            isinstance(stop, str) and 0 < len(stop) <= _MAX_STOP_CHARACTERS for stop in stops
        ):
            self.fail("invalid")
        return stops


@extend_schema_field({"type": "object"})
class ObjectField(_Field):
    """A JSON object of at most MAX_OBJECT_BYTES; what it means is the engine's business."""

    default_error_messages = {
        "type": "Must be an object.",
        "size": f"At most {MAX_OBJECT_BYTES} bytes of JSON.",
    }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("type")
        if len(orjson.dumps(data)) > MAX_OBJECT_BYTES:
            self.fail("size")
        return data


@extend_schema_field({})
class IgnoredField(_Field):
    """What clients add to an answer that they got, and send back with it."""

    def __init__(self) -> None:
        super().__init__(required=False)

    def to_internal_value(self, data: Any) -> None:
        return None


@extend_schema_field({})
class OnlyField(_Field):
    """A parameter of the protocol that is understood with one value, its default, and no other."""

    default_error_messages = {"unsupported": "This is not supported here."}

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(required=False, **options)
        self._values = values

    def to_internal_value(self, data: Any) -> Any:
        if not any(type(data) is type(value) and data == value for value in self._values):
            self.fail("unsupported")
        return data


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "maxLength": MAX_CHARACTERS},
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1},
        ]
    }
)
class PromptField(_Field):
    default_error_messages = {
        "invalid": "Must be text, or a list of one text.",
        "blank": "Must not be empty.",
        "max_length": TOO_LONG,
    }

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, list) and len(data) == 1:
            data = data[0]
        if not isinstance(data, str):
            self.fail("invalid")
        if not data:
            self.fail("blank")
        if len(data) > MAX_CHARACTERS:
            self.fail("max_length")
        return data


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_INPUTS},
        ]
    }
)
class InputField(_Field):
    default_error_messages = {
        "invalid": f"Must be text or 1 to {MAX_INPUTS} texts; token numbers are not understood.",
        "blank": "Must not be empty.",
        "max_length": TOO_LONG,
    }

    def to_internal_value(self, data: Any) -> tuple[str, ...]:
        texts = [data] if isinstance(data, str) else data
        if not isinstance(texts, list) or not 0 < len(texts) <= MAX_INPUTS:
            self.fail("invalid")
        if not all(isinstance(text, str) for text in texts):
            self.fail("invalid")
        if not all(texts):
            self.fail("blank")
        if sum(map(len, texts)) > MAX_CHARACTERS:
            self.fail("max_length")
        return tuple(texts)


class MetadataField(serializers.DictField):
    child = StrictCharField(allow_blank=True, max_length=512)

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, **options)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (
            len(data) > _MAX_METADATA or any(len(str(name)) > 64 for name in data)
        ):
            message = f"At most {_MAX_METADATA} entries, with names of at most 64 characters."
            raise serializers.ValidationError(message)
        return super().to_internal_value(data)
