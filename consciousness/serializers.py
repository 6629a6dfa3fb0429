"""What consciousness routes take and give."""

from __future__ import annotations

from typing import Any

import orjson
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from consciousness.models import MODEL_ID_LENGTH, Query
from consciousness.services import Answer
from monitoring.governor import Mode, ThermalState
from sovereigncore.strict import (
    StrictBooleanField,
    StrictCharField,
    StrictFloatField,
    StrictIntegerField,
    StrictSerializer,
)

MAX_PROMPT_CHARACTERS = 10_000


class ProcessRequest(StrictSerializer):
    prompt = StrictCharField(max_length=MAX_PROMPT_CHARACTERS)
    temperature = StrictFloatField(min_value=0, max_value=2, default=0.7)
    max_tokens = StrictIntegerField(min_value=1, max_value=4096, default=500)
    model = StrictCharField(required=False, max_length=MODEL_ID_LENGTH, default="")
    store = StrictBooleanField(default=True)
    stream = StrictBooleanField(default=False)


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


class UsageResponse(serializers.Serializer[Any]):
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()


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
    usage = UsageResponse()
    finish_reason = serializers.CharField()
    cached = serializers.SerializerMethodField()
    conversation = serializers.SerializerMethodField()

    def get_cached(self, answer: Answer) -> bool:
        """Whether the answer came from the cache. There is no cache yet, so it never does."""
        return False

    def get_conversation(self, answer: Answer) -> str | None:
        """The conversation's id. There are no conversations yet."""
        return None


class QueryAnswerResponse(AnswerResponse):
    timestamp = serializers.DateTimeField()


class HistoryResponse(serializers.ModelSerializer[Query]):
    usage = UsageResponse(source="*")
    prompt = serializers.CharField(source="content.prompt", default=None)
    response = serializers.CharField(source="content.response", default=None)

    class Meta:
        model = Query
        fields = (
            *("id", "status", "model", "temperature", "max_tokens", "usage", "is_estimated"),
            *("finish_reason", "error_code", "processing_time_ms", "request_id"),
            *("created_at", "finished_at", "prompt", "response"),
        )
