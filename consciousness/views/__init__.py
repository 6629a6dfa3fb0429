"""The consciousness routes of the API."""

from consciousness.views.asking import ProcessView, QueryView
from consciousness.views.history import ConversationViewSet, QueryViewSet, UsageView
from consciousness.views.memories import MemoryViewSet
from consciousness.views.openai import (
    ChatCompletionsView,
    CompletionsView,
    EmbeddingsView,
    ModelsView,
    ModelView,
)
from consciousness.views.state import StateView, StatusView

__all__ = [
    "ChatCompletionsView",
    "CompletionsView",
    "ConversationViewSet",
    "EmbeddingsView",
    "MemoryViewSet",
    "ModelView",
    "ModelsView",
    "ProcessView",
    "QueryView",
    "QueryViewSet",
    "StateView",
    "StatusView",
    "UsageView",
]
