"""What consciousness routes take and give."""

from __future__ import annotations

import re
import uuid
from typing import Any

import orjson
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from consciousness.asks import NEW_CONVERSATION, Answer
from consciousness.models import (
    MODEL_ID_LENGTH,
    TITLE_LENGTH,
    Conversation,
    Kind,
    Memory,
    Query,
    Status,
    UsageDay,
)
from monitoring.governor import Mode, ThermalState
from sovereigncore.strict import (
    StrictBooleanField,
    StrictCharField,
    StrictDateTimeField,
    StrictFloatField,
    StrictIntegerField,
    StrictSerializer,
)

MAX_PROMPT_CHARACTERS = 10_000


class ConversationField(StrictCharField):
    """The id of one of the caller's conversations, or `new`."""

    default_error_messages = {"not_one": "The id of a conversation, or 'new'."}

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if text == NEW_CONVERSATION:
            return text
        try:
            return str(uuid.UUID(text))
        except ValueError:
            self.fail("not_one")


class ProcessRequest(StrictSerializer):
    prompt = StrictCharField(max_length=MAX_PROMPT_CHARACTERS)
    temperature = StrictFloatField(min_value=0, max_value=2, default=0.7)
    max_tokens = StrictIntegerField(min_value=1, max_value=4096, default=500)
    model = StrictCharField(required=False, max_length=MODEL_ID_LENGTH, default="")
    conversation = ConversationField(required=False, default="")
    use_memory = StrictBooleanField(default=True)
    cache = StrictBooleanField(required=False, allow_null=True, default=None)
    store = StrictBooleanField(default=True)
    stream = StrictBooleanField(default=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["conversation"] and not attrs["store"]:
            message = "A conversation keeps its turns, so `store` cannot be false."
            raise serializers.ValidationError({"store": [message]})
        return attrs


@extend_schema_field({"oneOf": [{"type": "string"}, {"type": "object"}]})
class ContextField(serializers.Field[Any, Any, Any, Any]):
    """Background for a question: text, or an object that is shown to the model as JSON."""

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, dict):
            text = orjson.dumps(data).decode()
        elif isinstance(data, str):
            text = data.strip()
        else:
            raise serializers.ValidationError("Must be text or an object.")
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise serializers.ValidationError(f"At most {MAX_PROMPT_CHARACTERS} characters.")
        return text

    def to_representation(self, value: Any) -> Any:
        return value


class QueryRequest(StrictSerializer):
    query = StrictCharField(max_length=MAX_PROMPT_CHARACTERS)
    # REST framework's own `context` attribute is not a field; the class collects fields by type.
    context = ContextField(required=False, default="")  # type: ignore[assignment]


class TokensResponse(serializers.Serializer[Any]):
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField(allow_null=True)


class RecalledMemory(serializers.Serializer[Memory]):
    id = serializers.UUIDField()
    text = serializers.CharField()


class AnswerResponse(serializers.Serializer[Answer]):
    response = serializers.CharField()
    silicon_id = serializers.CharField(source="state.silicon_id")
    consciousness_level = serializers.FloatField(
        source="state.consciousness_level", min_value=0, max_value=1
    )
    thermal_state = serializers.ChoiceField(
        source="state.thermal_state", choices=[state.value for state in ThermalState]
    )
    cognitive_mode = serializers.ChoiceField(
        source="state.cognitive_mode", choices=[mode.value for mode in Mode]
    )
    processing_time_ms = serializers.IntegerField()
    request_id = serializers.CharField()
    query_id = serializers.UUIDField()
    model = serializers.CharField()
    usage = TokensResponse()
    finish_reason = serializers.CharField()
    cached = serializers.BooleanField()
    conversation = serializers.UUIDField(allow_null=True)
    turns_dropped = serializers.IntegerField()
    memories_used = RecalledMemory(many=True)
    memory_stored = RecalledMemory(allow_null=True)


class QueryAnswerResponse(AnswerResponse):
    timestamp = serializers.DateTimeField()


class HistoryResponse(serializers.ModelSerializer[Query]):
    usage = TokensResponse(source="*")
    prompt = serializers.CharField(source="content.prompt", default=None)
    response = serializers.CharField(source="content.response", default=None)

    class Meta:
        model = Query
        fields = (
            *("id", "kind", "conversation", "status", "model", "engine"),
            *("temperature", "max_tokens", "usage", "is_estimated", "is_cached", "finish_reason"),
            *("error_code", "processing_time_ms", "request_id"),
            *("created_at", "finished_at", "prompt", "response"),
        )


class HistoryFilter(StrictSerializer):
    """Query parameters, which are text."""

    status = serializers.ChoiceField(required=False, choices=Status.values)
    kind = serializers.ChoiceField(required=False, choices=Kind.values)
    model = StrictCharField(required=False, max_length=MODEL_ID_LENGTH)
    conversation = serializers.UUIDField(required=False)
    after = StrictDateTimeField(required=False, help_text="asked at or after this moment")
    before = StrictDateTimeField(required=False, help_text="asked before this moment")

    def lookups(self) -> dict[str, Any]:
        names = {"after": "created_at__gte", "before": "created_at__lt"}
        return {names.get(name, name): value for name, value in self.validated_data.items()}


class ConversationRequest(StrictSerializer):
    title = StrictCharField(max_length=TITLE_LENGTH)


class ConversationResponse(serializers.ModelSerializer[Conversation]):
    class Meta:
        model = Conversation
        fields = ("id", "title", "created_at", "updated_at")


class ConversationMessage(serializers.Serializer[Any]):
    role = serializers.ChoiceField(["user", "assistant"])
    content = serializers.CharField()
    query_id = serializers.UUIDField()
    status = serializers.ChoiceField(Status.values)
    created_at = serializers.DateTimeField()


class _DigitsField(serializers.IntegerField):
    """A number as a query parameter, with one spelling, and one message for all that it is not."""

    def __init__(self, *, max_value: int, **options: Any) -> None:
        message = f"A whole number from 1 to {max_value}."
        options["error_messages"] = {"invalid": message, "max_value": message}
        super().__init__(min_value=1, max_value=max_value, **options)

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, str) or re.fullmatch("[1-9][0-9]{0,8}", data) is None:
            self.fail("invalid")
        return int(data)


class UsageRequest(StrictSerializer):
    days = _DigitsField(required=False, max_value=366, default=30)


class UsageDayResponse(serializers.ModelSerializer[UsageDay]):
    class Meta:
        model = UsageDay
        fields = (
            *("day", "requests", "cache_hits"),
            *("prompt_tokens", "completion_tokens", "total_tokens"),
        )


class QuotaResponse(serializers.Serializer[Any]):
    """Null where there is no limit."""

    limit = serializers.IntegerField(allow_null=True)
    used = serializers.IntegerField()
    remaining = serializers.IntegerField(allow_null=True)
    reset_s = serializers.IntegerField()


class UsageResponse(serializers.Serializer[Any]):
    quota = QuotaResponse()
    days = UsageDayResponse(many=True)
