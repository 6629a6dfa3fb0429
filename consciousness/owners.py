"""Whose rows are written: one writer at a time for a person.

Whoever writes or deletes rows of a person takes their turn first, at the beginning of its
transaction. So a query is accepted either before its conversation or its account is deleted, and is
deleted with it, or afterwards, and is refused; and nobody waits for a row whose holder waits for
theirs. (SQLite's transactions take turns anyway.)
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model

from sovereigncore.api import ServiceError


class OwnerGone(ServiceError):
    status = 401
    code = "invalid_credentials"
    default_detail = "The account does not exist any more."


def take_turn(user_id: Any) -> None:
    """Wait for one's turn, and hold it until the transaction ends. Raises OwnerGone."""
    if not try_turn(user_id):
        raise OwnerGone


def try_turn(user_id: Any) -> bool:
    """The same, for who has nothing left to do where the account is gone: False."""
    rows = get_user_model()._default_manager.select_for_update(no_key=True)
    return rows.filter(pk=user_id).values_list("pk").first() is not None
