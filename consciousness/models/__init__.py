from consciousness.models.conversation import TITLE_LENGTH, Conversation
from consciousness.models.idempotency import KEY_LENGTH, IdempotentRequest
from consciousness.models.memory import MEMORY_LENGTH, Memory
from consciousness.models.query import (
    ACTIVE,
    MODEL_ID_LENGTH,
    ORPHANED,
    Kind,
    Query,
    QueryContent,
    Status,
)
from consciousness.models.upstream import ENGINE_NAME_LENGTH, ModelAlias, Upstream
from consciousness.models.usage import UsageDay

__all__ = [
    "ACTIVE",
    "ENGINE_NAME_LENGTH",
    "KEY_LENGTH",
    "MEMORY_LENGTH",
    "MODEL_ID_LENGTH",
    "ORPHANED",
    "TITLE_LENGTH",
    "Conversation",
    "IdempotentRequest",
    "Kind",
    "Memory",
    "ModelAlias",
    "Query",
    "QueryContent",
    "Status",
    "Upstream",
    "UsageDay",
]
