"""What a caller asks for, and what comes back. Data only."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from consciousness.assembly import Choice
from consciousness.engine_stream import Usage
from consciousness.models import Kind, Memory
from consciousness.quota import Standing
from monitoring.awareness import SelfState

NEW_CONVERSATION = "new"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Validated. `prompt` is what history shows as the question; `messages` are the caller's own
    chat messages and take its place where there are any, and so do `inputs` to be embedded.
    `options` are further parameters of the protocol. `cache` None means: where the answer is
    deterministic."""

    kind: Kind = Kind.PROCESS
    prompt: str
    messages: tuple[Mapping[str, Any], ...] = ()
    inputs: tuple[str, ...] = ()
    temperature: float = 0.7
    max_tokens: int = 500
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    store: bool = True
    context: str = ""
    conversation: str = ""  # none, NEW_CONVERSATION or an id
    use_memory: bool = False
    cache: bool | None = None
    request_id: str = ""
    claim_id: int | None = None  # of the request's Idempotency-Key

    @property
    def is_cacheable(self) -> bool:
        wanted = self.temperature == 0 if self.cache is None else self.cache
        # Only text is kept in a form that can be served again.
        return wanted and self.store and not self.options.keys() & {"tools", "logprobs", "n"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    query_id: uuid.UUID
    request_id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    processing_time_ms: int
    state: SelfState
    standing: Standing
    cached: bool = False
    conversation: uuid.UUID | None = None
    turns_dropped: int = 0
    memories_used: tuple[Memory, ...] = ()
    memory_stored: Memory | None = None

    @property
    def response(self) -> str:
        return self.choices[0].text

    @property
    def finish_reason(self) -> str:
        return self.choices[0].finish_reason
