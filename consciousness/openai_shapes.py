"""The shapes of the OpenAI protocol's answers, for the API's description alone."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers


def _word(word: str) -> serializers.CharField:
    field = type("WordField", (serializers.CharField,), {})
    described: serializers.CharField = extend_schema_field({"type": "string", "const": word})(
        field
    )()
    return described


class CachedTokens(serializers.Serializer[Any]):
    cached_tokens = serializers.IntegerField()


class CompletionUsage(serializers.Serializer[Any]):
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()
    prompt_tokens_details = CachedTokens()


class AnsweredFunction(serializers.Serializer[Any]):
    name = serializers.CharField()
    arguments = serializers.CharField(help_text="JSON, as the model wrote it")


class AnsweredToolCall(serializers.Serializer[Any]):
    id = serializers.CharField()
    type = _word("function")
    function = AnsweredFunction()


class AnsweredMessage(serializers.Serializer[Any]):
    role = _word("assistant")
    content = serializers.CharField(allow_null=True)
    refusal = serializers.CharField(allow_null=True)
    tool_calls = AnsweredToolCall(many=True, required=False)
    reasoning_content = serializers.CharField(required=False)


class TopLogprob(serializers.Serializer[Any]):
    token = serializers.CharField()
    logprob = serializers.FloatField()
    bytes = serializers.ListField(child=serializers.IntegerField(), allow_null=True)


class TokenLogprob(TopLogprob):
    top_logprobs = TopLogprob(many=True)


class ChatLogprobs(serializers.Serializer[Any]):
    content = TokenLogprob(many=True)
    refusal = TokenLogprob(many=True, allow_null=True)


class ChatChoice(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    message = AnsweredMessage()
    logprobs = ChatLogprobs(allow_null=True)
    finish_reason = serializers.CharField()


class ChatCompletion(serializers.Serializer[Any]):
    id = serializers.CharField()
    object = _word("chat.completion")
    created = serializers.IntegerField()
    model = serializers.CharField()
    system_fingerprint = serializers.CharField(allow_null=True)
    choices = ChatChoice(many=True)
    usage = CompletionUsage()


class CompletionLogprobs(serializers.Serializer[Any]):
    tokens = serializers.ListField(child=serializers.CharField())
    token_logprobs = serializers.ListField(child=serializers.FloatField())
    top_logprobs = serializers.ListField(child=serializers.DictField())
    text_offset = serializers.ListField(child=serializers.IntegerField())


class CompletionChoice(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    text = serializers.CharField()
    logprobs = CompletionLogprobs(allow_null=True)
    finish_reason = serializers.CharField()


class TextCompletion(serializers.Serializer[Any]):
    id = serializers.CharField()
    object = _word("text_completion")
    created = serializers.IntegerField()
    model = serializers.CharField()
    system_fingerprint = serializers.CharField(allow_null=True)
    choices = CompletionChoice(many=True)
    usage = CompletionUsage()


class ListedModel(serializers.Serializer[Any]):
    id = serializers.CharField()
    object = _word("model")
    created = serializers.IntegerField()
    owned_by = serializers.CharField()


class ModelList(serializers.Serializer[Any]):
    object = _word("list")
    # REST framework's own `data` is no field; the class collects fields by type.
    data = ListedModel(many=True)  # type: ignore[assignment]


class Embedding(serializers.Serializer[Any]):
    object = _word("embedding")
    index = serializers.IntegerField()
    embedding = serializers.JSONField(help_text="numbers, or base64 of little-endian floats")


class EmbeddingUsage(serializers.Serializer[Any]):
    prompt_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()


class EmbeddingList(serializers.Serializer[Any]):
    object = _word("list")
    data = Embedding(many=True)  # type: ignore[assignment]
    model = serializers.CharField()
    usage = EmbeddingUsage()
