"""What was ended since a backup was made does not hold again once it is restored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import Link, Purpose, User
from accounts.services import end_all_sessions
from accounts.tests.sessions import log_in, me
from conftest import PASSWORD
from tests.backing_up import back_up, restore

pytestmark = pytest.mark.usefixtures("own_database")
ME = "/api/v1/auth/me"


@pytest.fixture
def carol(own_database: str) -> User:
    return User.objects.create_user("carol", "carol@example.org", PASSWORD)


def test_sessions_end(carol: User, client_of: Callable[..., APIClient], client: Client) -> None:
    api = client_of(carol)
    client.force_login(carol)
    path = back_up()
    assert api.get(ME).status_code == 200
    end_all_sessions(carol, actor_id=carol.id)
    restore(path)
    assert api.get(ME).status_code == 401
    assert "_auth_user_id" not in client.session
    # The account itself is there, with its password.
    assert me(log_in("carol")["access_token"]) == 200


def test_sessions_can_be_kept(carol: User, client_of: Callable[..., APIClient]) -> None:
    api = client_of(carol)
    path = back_up()
    restore(path, keep_sessions=True)
    assert api.get(ME).status_code == 200


def test_links_in_mails_end(carol: User) -> None:
    link = Link.objects.issue(Purpose.RESET_PASSWORD, user=carol)
    path = back_up()
    Link.objects.redeem(link)
    restore(path)
    assert Link.objects.find_live(Purpose.RESET_PASSWORD, link.token) is None
