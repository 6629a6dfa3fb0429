"""What the routes of the OpenAI protocol take, and the Ask that comes of it."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from consciousness.asks import Ask
from consciousness.models import MODEL_ID_LENGTH, Kind
from consciousness.openai_fields import (
    MAX_CHARACTERS,
    TOO_LONG,
    InputField,
    MetadataField,
    ObjectField,
    OneOfField,
    OnlyField,
    PromptField,
    ProtocolSerializer,
    StopField,
)
from consciousness.openai_messages import (
    MAX_TOOLS,
    Messages,
    NameField,
    Tool,
    ToolChoiceField,
    characters_of,
    check_tools,
    sent_on,
)
from sovereigncore.strict import (
    StrictBooleanField,
    StrictCharField,
    StrictFloatField,
    StrictIntegerField,
)

MAX_TOKENS = 32_768
# OpenAI's is "as many as fit". A bound is needed here: tokens are set aside before the work.
CHAT_TOKENS = 1024
COMPLETION_TOKENS = 16  # OpenAI's own
_MAX_CHOICES = 4
_MAX_USER_CHARACTERS = 512
# Those that go to the engine as they are.
_OPTIONS = (
    *("top_p", "stop", "seed", "presence_penalty", "frequency_penalty"),
    *("logprobs", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls"),
)


class StreamOptions(ProtocolSerializer):
    include_usage = StrictBooleanField(required=False)


class JSONSchema(ProtocolSerializer):
    name = NameField()
    description = StrictCharField(required=False, allow_blank=True, trim_whitespace=False)
    schema = ObjectField(required=False)
    strict = StrictBooleanField(required=False)


class ResponseFormat(ProtocolSerializer):
    type = OneOfField("text", "json_object", "json_schema")
    json_schema = JSONSchema(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("json_schema" in attrs) != (attrs["type"] == "json_schema"):
            message = "Belongs to the type json_schema, and only to it."
            raise serializers.ValidationError({"json_schema": [message]})
        return attrs


class ProtocolRequest(ProtocolSerializer):
    """What all of them take. `user` and `metadata` are the caller's own notes: nothing here reads,
    keeps or sends them on."""

    model = StrictCharField(required=False, max_length=MODEL_ID_LENGTH, default="")
    user = StrictCharField(required=False, allow_blank=True, max_length=_MAX_USER_CHARACTERS)


class GeneratingRequest(ProtocolRequest):
    # As a float, which is what a given one becomes: 1 and 1.0 are two keys of the cache.
    temperature = StrictFloatField(min_value=0, max_value=2, default=1.0)
    top_p = StrictFloatField(required=False, min_value=0, max_value=1)
    stop = StopField(required=False)
    seed = StrictIntegerField(required=False, min_value=-(2**63), max_value=2**63 - 1)
    n = StrictIntegerField(min_value=1, max_value=_MAX_CHOICES, default=1)
    presence_penalty = StrictFloatField(required=False, min_value=-2, max_value=2)
    frequency_penalty = StrictFloatField(required=False, min_value=-2, max_value=2)
    max_tokens = StrictIntegerField(required=False, min_value=1, max_value=MAX_TOKENS)
    stream = StrictBooleanField(default=False)
    stream_options = StreamOptions(required=False)
    store = StrictBooleanField(default=True)
    cache = StrictBooleanField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "stream_options" in attrs and not attrs["stream"]:
            raise serializers.ValidationError({"stream_options": ["Only with `stream: true`."]})
        return attrs

    @property
    def is_stream(self) -> bool:
        return bool(self.validated_data["stream"])

    @property
    def includes_usage(self) -> bool:
        return bool(self.validated_data.get("stream_options", {}).get("include_usage"))

    def _asked(self) -> dict[str, Any]:
        """The Ask's arguments that all of these share."""
        given = self.validated_data
        options = {name: given[name] for name in _OPTIONS if name in given}
        if given["n"] > 1:
            options["n"] = given["n"]
        names = ("model", "temperature", "store")
        return {
            **{name: given[name] for name in names},
            "cache": given.get("cache"),
            "options": options,
        }


class ChatRequest(GeneratingRequest):
    messages = Messages()
    max_completion_tokens = StrictIntegerField(required=False, min_value=1, max_value=MAX_TOKENS)
    logprobs = StrictBooleanField(required=False)
    top_logprobs = StrictIntegerField(required=False, min_value=0, max_value=20)
    response_format = ResponseFormat(required=False)
    tools: serializers.BaseSerializer[Any] = serializers.ListSerializer(
        child=Tool(), required=False, max_length=MAX_TOOLS
    )
    tool_choice = ToolChoiceField(required=False)
    parallel_tool_calls = StrictBooleanField(required=False)
    metadata = MetadataField()
    service_tier = OnlyField("auto", "default")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs = super().validate(attrs)
        if characters_of(attrs["messages"]) > MAX_CHARACTERS:
            raise serializers.ValidationError({"messages": [TOO_LONG]})
        limits = {attrs[name] for name in ("max_tokens", "max_completion_tokens") if name in attrs}
        if len(limits) > 1:
            message = "Differs from max_completion_tokens; give one of them."
            raise serializers.ValidationError({"max_tokens": [message]})
        attrs["max_tokens"] = next(iter(limits), CHAT_TOKENS)
        if attrs.get("top_logprobs") and not attrs.get("logprobs"):
            raise serializers.ValidationError({"top_logprobs": ["Only with `logprobs: true`."]})
        check_tools(attrs)
        return attrs

    def ask(self, *, request_id: str) -> Ask:
        given, asked = self.validated_data, self._asked()
        messages = tuple(sent_on(message) for message in given["messages"])
        wanted = given.get("response_format", {"type": "text"})
        if wanted["type"] != "text":
            asked["options"]["response_format"] = wanted
        for name in ("logprobs", "top_logprobs", "tools"):
            if not asked["options"].get(name):
                asked["options"].pop(name, None)
        questions = [message for message in messages if message["role"] == "user"]
        question = (questions or messages)[-1]["content"]
        return Ask(
            **asked,
            kind=Kind.CHAT,
            prompt=question or "",
            messages=messages,
            max_tokens=given["max_tokens"],
            request_id=request_id,
        )


class CompletionRequest(GeneratingRequest):
    prompt = PromptField()
    logprobs = StrictIntegerField(required=False, min_value=1, max_value=5)
    suffix = OnlyField("")
    echo = OnlyField(False)
    best_of = OnlyField(1)

    def ask(self, *, request_id: str) -> Ask:
        given = self.validated_data
        return Ask(
            **self._asked(),
            kind=Kind.COMPLETION,
            prompt=given["prompt"],
            max_tokens=given.get("max_tokens", COMPLETION_TOKENS),
            request_id=request_id,
        )


class EmbeddingRequest(ProtocolRequest):
    input = InputField()
    encoding_format = OneOfField("float", "base64", default="float")
    dimensions = OnlyField()

    def ask(self, *, request_id: str) -> Ask:
        """Texts to be embedded are nobody's question, so none is kept."""
        return Ask(
            kind=Kind.EMBEDDING,
            prompt="",
            inputs=self.validated_data["input"],
            temperature=0,
            max_tokens=0,
            model=self.validated_data["model"],
            store=False,
            cache=False,
            request_id=request_id,
        )
