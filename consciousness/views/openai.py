"""The OpenAI protocol: chat, completions, models, embeddings."""

from __future__ import annotations

import functools

from django.http import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from consciousness import engines
from consciousness import openai_answers as answers
from consciousness import openai_shapes as shapes
from consciousness.idempotency import KEY_HEADER, KeyRefused, idempotent
from consciousness.openai_requests import ChatRequest, CompletionRequest, EmbeddingRequest
from consciousness.openai_stream import (
    ChatWriter,
    CompletionWriter,
    chat_events,
    completion_events,
)
from consciousness.views.asking import answer_streamed, answer_whole
from sovereigncore.api import ServiceError

_described = functools.partial(extend_schema, tags=["openai"])


class ModelNotFound(ServiceError):
    status = 404
    code = "model_not_found"
    default_detail = "There is no such model here."


class ChatCompletionsView(APIView):
    @idempotent(events=chat_events)
    @_described(request=ChatRequest, responses=shapes.ChatCompletion)
    def post(self, request: Request) -> HttpResponseBase:
        """Answer a chat, as OpenAI's chat completions do. With `stream: true` the answer comes as
        server-sent events that end with `[DONE]`."""
        form = ChatRequest(data=request.data)
        form.is_valid(raise_exception=True)
        ask = form.ask(request_id=request.META["REQUEST_ID"])
        if form.is_stream:
            writer = functools.partial(ChatWriter, includes_usage=form.includes_usage)
            return answer_streamed(request, ask, writer)
        return answer_whole(request, ask, answers.chat_completion)


class CompletionsView(APIView):
    @idempotent(events=completion_events)
    @_described(request=CompletionRequest, responses=shapes.TextCompletion)
    def post(self, request: Request) -> HttpResponseBase:
        """Continue a text, as OpenAI's completions do; streamed with `stream: true`."""
        form = CompletionRequest(data=request.data)
        form.is_valid(raise_exception=True)
        ask = form.ask(request_id=request.META["REQUEST_ID"])
        if form.is_stream:
            writer = functools.partial(CompletionWriter, includes_usage=form.includes_usage)
            return answer_streamed(request, ask, writer)
        return answer_whole(request, ask, answers.text_completion)


class EmbeddingsView(APIView):
    @_described(request=EmbeddingRequest, responses=shapes.EmbeddingList)
    def post(self, request: Request) -> HttpResponseBase:
        """Texts as vectors, where the model has them. Neither is kept, so an `Idempotency-Key` is
        refused: there would be nothing to replay."""
        if KEY_HEADER in request.headers:
            raise KeyRefused(
                errors={KEY_HEADER: ["Nothing of an embedding is kept to be replayed."]}
            )
        form = EmbeddingRequest(data=request.data)
        form.is_valid(raise_exception=True)
        describe = functools.partial(
            answers.embedding_list,
            is_base64=form.validated_data["encoding_format"] == "base64",
        )
        return answer_whole(request, form.ask(request_id=request.META["REQUEST_ID"]), describe)


class ModelsView(APIView):
    @_described(operation_id="v1_models_list", responses=shapes.ModelList)
    def get(self, request: Request) -> Response:
        """The models that can be asked, by their names and other names."""
        models = [answers.described_model(model) for model in engines.catalogue()]
        return Response({"object": "list", "data": models})


class ModelView(APIView):
    @_described(responses=shapes.ListedModel)
    def get(self, request: Request, model: str) -> Response:
        """One of the models that can be asked. Ids may hold slashes and colons."""
        for known in engines.catalogue():
            if known.id == model:
                return Response(answers.described_model(known))
        raise ModelNotFound(errors={"model": ["There is no such model here."]})
