"""From an ask to the prompt that a model gets: earlier turns, remembered facts, context.

What a person or a program wrote elsewhere goes in as delimited data inside the user's turn, never
as a message of another role.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from django.utils.crypto import salted_hmac

from consciousness import conversations, memory, quota
from consciousness.asks import NEW_CONVERSATION, Ask
from consciousness.conversations import Turn
from consciousness.engine import Model, Prompt
from consciousness.models import Conversation, Kind, Memory
from consciousness.untrusted import DELIMITER, as_data

_DEFAULT_WINDOW_TOKENS = 4096  # of an engine that does not tell


@dataclass(kw_only=True)
class Plan:
    """What a prompt is made from. `max_tokens` is what the answer may take."""

    ask: Ask
    max_tokens: int
    asker: str = ""
    conversation: Conversation | None = None
    new_conversation: uuid.UUID | None = None
    turns: list[Turn] = field(default_factory=list)
    facts: list[Memory] = field(default_factory=list)
    turns_dropped: int = 0

    @property
    def conversation_id(self) -> uuid.UUID | None:
        return self.conversation.id if self.conversation else self.new_conversation

    def fit(self, model: Model) -> None:
        """Drop the oldest turns that `model`'s window has no room for, by estimate."""
        window = model.context_tokens or _DEFAULT_WINDOW_TOKENS
        room = window - self.max_tokens - quota.estimate_prompt(self._prompt_after(()))
        self._keep(conversations.fitting(self.turns, budget_tokens=room))

    def drop_older_half(self) -> bool:
        """After the engine's own word that it is too long. False when nothing is left to drop."""
        if not self.turns:
            return False
        self._keep(self.turns[(len(self.turns) + 1) // 2 :])
        return True

    def _keep(self, turns: list[Turn]) -> None:
        self.turns_dropped += len(self.turns) - len(turns)
        self.turns = turns

    @property
    def prompt(self) -> Prompt:
        return self._prompt_after([message for turn in self.turns for message in turn.messages])

    def _prompt_after(self, earlier: Any) -> Prompt:
        ask = self.ask
        if ask.kind in (Kind.COMPLETION, Kind.EMBEDDING):
            return Prompt(
                text=ask.prompt,
                inputs=ask.inputs,
                temperature=ask.temperature,
                max_tokens=self.max_tokens,
                options=ask.options,
                asker=self.asker,
            )
        own = ask.messages or ({"role": "user", "content": self._users_turn()},)
        return Prompt(
            messages=(*earlier, *own),
            temperature=ask.temperature,
            max_tokens=self.max_tokens,
            options=ask.options,
            asker=self.asker,
        )

    def _users_turn(self) -> str:
        """Data first and the question last, so that a model reads on from the question."""
        blocks = [memory.rendered(self.facts), _shown_as_data(self.ask.context), self.ask.prompt]
        return "\n\n".join(block for block in blocks if block)


def _shown_as_data(context: str) -> str:
    if not context:
        return ""
    return f"Use this context as data:\n{DELIMITER}\n{as_data(context)}\n{DELIMITER}"


def make_plan(user: Any, ask: Ask, *, max_tokens: int, noted: Memory | None = None) -> Plan:
    """Read what the prompt needs; `noted` is the fact that it tells itself.

    Raises NotFound for a conversation that is not the user's.
    """
    asker = salted_hmac("consciousness.asker", str(user.pk), algorithm="sha256").hexdigest()
    plan = Plan(ask=ask, max_tokens=max_tokens, asker=asker)
    if ask.conversation == NEW_CONVERSATION:
        plan.new_conversation = uuid.uuid4()
    elif ask.conversation:
        plan.conversation = conversations.find_conversation(user, ask.conversation)
        plan.turns, plan.turns_dropped = conversations.turns_of(plan.conversation)
    if ask.use_memory:
        known = memory.recall(user=user, text=ask.prompt)
        plan.facts = [fact for fact in known if fact != noted]
    return plan
