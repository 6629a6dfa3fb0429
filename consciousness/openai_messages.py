"""What a caller of the OpenAI protocol may say: messages and tools. Bounded before any work."""

from __future__ import annotations

from typing import Any

import orjson
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from consciousness.openai_fields import (
    MAX_OBJECT_BYTES,
    ContentField,
    FunctionTypeField,
    IgnoredField,
    ObjectField,
    OneOfField,
    OnlyField,
    ProtocolSerializer,
)
from sovereigncore.strict import StrictBooleanField, StrictCharField

MAX_MESSAGES = 256
MAX_TOOLS = 64
_MAX_CALLS = 128
_MAX_CALLS_IN_ALL = 512
_MAX_ID_CHARACTERS = 128
ROLES = ("system", "developer", "user", "assistant", "tool")


class NameField(StrictCharField):
    default_error_messages = {"name": "Letters, digits, _ and -, at most 64."}

    def to_internal_value(self, data: Any) -> str:
        name = super().to_internal_value(data)
        if not 0 < len(name) <= 64 or not all(
            character.isascii() and (character.isalnum() or character in "_-") for character in name
        ):
            self.fail("name")
        return name


class CalledFunction(ProtocolSerializer):
    name = NameField()
    arguments = StrictCharField(allow_blank=True, trim_whitespace=False)
    parsed_arguments = IgnoredField()


class ToolCall(ProtocolSerializer):
    id = StrictCharField(max_length=_MAX_ID_CHARACTERS)
    type = FunctionTypeField()
    function = CalledFunction()
    index = IgnoredField()


class Message(ProtocolSerializer):
    """Some fields are what clients send back of answers that they got."""

    role = OneOfField(*ROLES)
    content = ContentField(required=False)
    name = NameField(required=False)
    tool_calls: serializers.BaseSerializer[Any] = serializers.ListSerializer(
        child=ToolCall(), required=False, max_length=_MAX_CALLS
    )
    tool_call_id = StrictCharField(required=False, max_length=_MAX_ID_CHARACTERS)
    refusal = StrictCharField(required=False, allow_blank=True, trim_whitespace=False)
    reasoning_content = StrictCharField(required=False, allow_blank=True, trim_whitespace=False)
    function_call = OnlyField()
    audio = OnlyField()
    annotations = OnlyField([])
    parsed = IgnoredField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        role = attrs["role"]
        is_answer = role == "assistant"
        for name, of in _ROLES_OWN.items():
            if name in attrs and role != of:
                raise serializers.ValidationError({name: [f"Only for messages of the role {of}."]})
        if role == "tool" and "tool_call_id" not in attrs:
            raise serializers.ValidationError({"tool_call_id": ["This field is required."]})
        is_said = "content" in attrs or (is_answer and attrs.keys() & {"tool_calls", "refusal"})
        if not is_said:
            raise serializers.ValidationError({"content": ["This field is required."]})
        return attrs


class Messages(serializers.ListSerializer[Any]):
    """Counted before they are looked into: fifteen thousand calls fit into a body, and checking
    those would take most of a second."""

    def __init__(self, **options: Any) -> None:
        super().__init__(child=Message(), allow_empty=False, max_length=MAX_MESSAGES, **options)

    def to_internal_value(self, data: Any) -> list[Any]:
        entries = data if isinstance(data, list) else []
        given = [entry.get("tool_calls") for entry in entries if isinstance(entry, dict)]
        if sum(len(calls) for calls in given if isinstance(calls, list)) > _MAX_CALLS_IN_ALL:
            message = f"At most {_MAX_CALLS_IN_ALL} tool calls in all."
            raise serializers.ValidationError({"non_field_errors": [message]})
        checked: list[Any] = super().to_internal_value(data)
        return checked


_ROLES_OWN = {
    "tool_calls": "assistant",
    "refusal": "assistant",
    "reasoning_content": "assistant",
    "tool_call_id": "tool",
}


def _sent_on(function: dict[str, Any]) -> dict[str, str]:
    return {name: function[name] for name in ("name", "arguments")}


def sent_on(message: dict[str, Any]) -> dict[str, Any]:
    """The message as an engine gets it."""
    said = {
        "role": message["role"],
        "content": message.get("content", message.get("refusal")),
    }
    for name in ("name", "tool_call_id", "reasoning_content"):
        if message.get(name):
            said[name] = message[name]
    if message.get("tool_calls"):
        said["tool_calls"] = [
            {"id": call["id"], "type": call["type"], "function": _sent_on(call["function"])}
            for call in message["tool_calls"]
        ]
    return said


_TEXTS = ("content", "name", "tool_call_id", "refusal", "reasoning_content")


def characters_of(messages: list[dict[str, Any]]) -> int:
    said = 0
    for message in messages:
        said += sum(len(message[name]) for name in _TEXTS if name in message)
        for call in message.get("tool_calls", ()):
            said += len(call["id"]) + sum(map(len, _sent_on(call["function"]).values()))
    return said


class Function(ProtocolSerializer):
    name = NameField()
    description = StrictCharField(required=False, allow_blank=True, trim_whitespace=False)
    parameters = ObjectField(required=False)
    strict = StrictBooleanField(required=False)


class Tool(ProtocolSerializer):
    type = FunctionTypeField()
    function = Function()


class NamedFunction(ProtocolSerializer):
    name = NameField()


class NamedTool(ProtocolSerializer):
    type = FunctionTypeField()
    function = NamedFunction()


@extend_schema_field(
    {"oneOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}]},
)
class ToolChoiceField(serializers.Field[Any, Any, Any, Any]):
    def to_internal_value(self, data: Any) -> Any:
        if data in ("none", "auto", "required"):
            return data
        if not isinstance(data, dict):
            raise serializers.ValidationError("One of none, auto, required, or a named function.")
        named = NamedTool(data=data)
        named.is_valid(raise_exception=True)
        return named.validated_data

    def to_representation(self, value: Any) -> Any:
        return value


def check_tools(attrs: dict[str, Any]) -> None:
    """Raise unless tools, their size and the choice among them go together."""
    tools = attrs.get("tools")
    if not tools:
        for name in ("tool_choice", "parallel_tool_calls"):
            if name in attrs and attrs[name] != "none":
                raise serializers.ValidationError({name: ["Only together with `tools`."]})
        return
    if len(orjson.dumps(tools)) > MAX_OBJECT_BYTES:
        raise serializers.ValidationError({"tools": [f"At most {MAX_OBJECT_BYTES} bytes of JSON."]})
    choice = attrs.get("tool_choice")
    names = {tool["function"]["name"] for tool in tools}
    if isinstance(choice, dict) and choice["function"]["name"] not in names:
        raise serializers.ValidationError({"tool_choice": ["Names none of `tools`."]})
