"""What is kept of a query's text, and where it stands: as a turn of its conversation, or alone.

All of it in the transaction that settles the query, while its owner's turn is held.
"""

from __future__ import annotations

import uuid
from typing import Any

from consciousness import conversations
from consciousness.assembly import Assembly
from consciousness.models import Query, QueryContent, Status
from consciousness.prompting import Plan


def keep_text(
    query_id: uuid.UUID,
    plan: Plan,
    assembly: Assembly,
    status: Status,
    *,
    user_id: Any,
    is_turn: bool,
) -> None:
    ask = plan.ask
    if not ask.store:
        return
    if plan.conversation is not None and not conversations.hold_conversation(plan.conversation):
        return  # it was deleted meanwhile, with all that was said in it
    if not is_turn:
        _keep_out(query_id, plan)
    elif assembly.text or status == Status.COMPLETED:
        _keep_turn(query_id, plan, user_id=user_id)
    # Log probabilities are many times the text, and nobody asks for them again.
    beyond_text = {name: said for name, said in assembly.extra.items() if name != "logprobs"}
    QueryContent.objects.create(
        query_id=query_id,
        prompt=ask.prompt,
        response=assembly.text,
        messages=list(ask.messages) or None,
        message=beyond_text or None,
        memory_ids=[str(fact.id) for fact in plan.facts],
    )


def _keep_turn(query_id: uuid.UUID, plan: Plan, *, user_id: Any) -> None:
    if plan.new_conversation is not None:
        conversations.begin_conversation(
            plan.new_conversation, user_id=user_id, prompt=plan.ask.prompt
        )
        Query.objects.filter(id=query_id).update(conversation=plan.new_conversation)
    elif plan.conversation is not None:
        conversations.note_activity(plan.conversation, prompt=plan.ask.prompt)


def _keep_out(query_id: uuid.UUID, plan: Plan) -> None:
    """Its key is free and it may be sent again, or was: then that is the turn, and this is none."""
    Query.objects.filter(id=query_id).update(conversation=None)
    if plan.conversation is not None:
        conversations.drop_if_empty(plan.conversation)
