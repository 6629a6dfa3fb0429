"""A thread that waits for its next request keeps nothing of the last one's failure."""

from __future__ import annotations

import gc
import weakref

import pytest
from django.core.signals import request_finished
from django.db import IntegrityError, connection, transaction

from tests.backing_up import add_user

pytestmark = pytest.mark.django_db(transaction=True)


class Secret:
    """What a frame of the request held."""


def kept_error() -> BaseException | None:
    error: BaseException | None = connection.rollback_exc  # type: ignore[attr-defined]
    return error


def fail() -> weakref.ref[Secret]:
    """Hold a secret while a transaction fails."""
    secret = Secret()
    with transaction.atomic():
        add_user("dave")
        with pytest.raises(IntegrityError), transaction.atomic():
            add_user("dave")
    return weakref.ref(secret)


def test_a_failure_is_forgotten_with_its_request() -> None:
    secret = fail()
    gc.collect()
    assert secret() is not None, "Django keeps the error"
    request_finished.send(sender=None)
    gc.collect()
    assert secret() is None
    assert kept_error() is None


def test_not_inside_a_transaction() -> None:
    """Whoever asks on after an error is told what it was."""
    with transaction.atomic():
        fail()
        connection.close_if_unusable_or_obsolete()
        assert isinstance(kept_error(), IntegrityError)
