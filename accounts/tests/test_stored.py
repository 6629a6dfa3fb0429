"""What scrapers are told of mails and accounts."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from django.utils import timezone

from accounts import mailing, stored
from accounts.models import Kind, Mail, User

pytestmark = pytest.mark.django_db


def mails() -> dict[str, float]:
    return {
        sample.labels.get("state", "oldest"): sample.value
        for family in stored.read_mails()
        for sample in family.samples
    }


def test_the_mail_queue_and_the_age_of_its_oldest(frozen_time: time_machine.Traveller) -> None:
    assert mails() == {"waiting": 0, "failed": 0, "oldest": 0}
    mailing.enqueue(Kind.PASSWORD_CHANGED, "one@example.org")
    frozen_time.shift(timedelta(seconds=40))
    mailing.enqueue(Kind.PASSWORD_CHANGED, "two@example.org")
    assert mails() == {"waiting": 2, "failed": 0, "oldest": 40}
    Mail.objects.filter(address="one@example.org").update(given_up_at=timezone.now())
    assert mails() == {"waiting": 1, "failed": 1, "oldest": 0}
    Mail.objects.filter(address="two@example.org").update(sent_at=timezone.now())
    assert mails() == {"waiting": 0, "failed": 1, "oldest": 0}


def test_accounts_by_state(alice: User, bob: User, staff: User) -> None:
    User.objects.filter(pk=bob.pk).update(is_active=False)
    (family,) = stored.read_users()
    counted = {sample.labels["state"]: sample.value for sample in family.samples}
    assert counted == {"active": 2, "disabled": 1}
