"""`/api/v1/auth/sessions`: where one is logged in, and how to end that, one or all."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from accounts import holders
from accounts.authentication import SessionCredential
from accounts.models import Session, User
from accounts.tests.sessions import ME, TOKEN, log_in, me, refresh
from conftest import PASSWORD
from monitoring.models import AuditEvent
from tests.log_capture import LogCapture
from tests.parallel import in_parallel

SESSIONS = "/api/v1/auth/sessions"
KEYS = "/api/v1/keys"
NO_ADDRESS = "0.0.0.0"  # noqa: S104 - what a socket without a peer has
MICROSECOND = timedelta(microseconds=1)
LIFETIME = timedelta(days=settings.REFRESH_TOKEN_DAYS)


def bearer(credential: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {credential}")
    return client


def log_in_from(**headers: Any) -> APIClient:
    """A client of Alice's new session, begun with these headers."""
    response = APIClient().post(TOKEN, {"username": "alice", "password": PASSWORD}, **headers)
    assert response.status_code == 200, response.content
    return bearer(response.json()["access_token"])


def listed(client: APIClient) -> list[dict[str, Any]]:
    response = client.get(SESSIONS)
    assert response.status_code == 200
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def in_utc(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def id_of(client: APIClient) -> str:
    (current,) = (session["id"] for session in listed(client) if session["current"])
    return str(current)


# --- The list --------------------------------------------------------------------------------


def test_a_session_tells_where_and_when(alice: User, frozen_time: object) -> None:
    client = log_in_from(HTTP_USER_AGENT="curl/8.0", REMOTE_ADDR="203.0.113.9")
    response = client.get(SESSIONS)
    assert response["Cache-Control"] == "no-store"
    assert response.json() == {
        "next": None,
        "previous": None,
        "results": [
            {
                "id": str(Session.objects.get().pk),
                "created_at": in_utc(timezone.now()),
                "last_used_at": in_utc(timezone.now()),
                "expires_at": in_utc(timezone.now() + LIFETIME),
                "address": "203.0.113.9",
                "agent": "curl/8.0",
                "scopes": ["read", "write"],
                "current": True,
            }
        ],
    }


def test_the_one_that_asks_is_the_current_one(
    alice: User, frozen_time: time_machine.Traveller
) -> None:
    first = bearer(log_in()["access_token"])
    frozen_time.shift(1)
    second = bearer(log_in(scope="read")["access_token"])
    assert [session["current"] for session in listed(first)] == [False, True], "newest first"
    assert [session["current"] for session in listed(second)] == [True, False]
    assert [session["scopes"] for session in listed(first)] == [["read"], ["read", "write"]]
    assert {session["id"] for session in listed(first)} == {id_of(first), id_of(second)}


def test_it_is_still_the_current_one_after_a_refresh(alice: User) -> None:
    pair = log_in()
    before = id_of(bearer(pair["access_token"]))
    renewed = refresh(pair["refresh_token"]).json()
    assert id_of(bearer(renewed["access_token"])) == before


def test_a_key_sees_sessions_and_is_none(as_alice: APIClient) -> None:
    key = as_alice.post(KEYS, {"name": "x", "scopes": ["read"]}).json()["key"]
    assert [session["current"] for session in listed(bearer(key))] == [False]


def test_no_token_or_digest_is_in_it(alice: User) -> None:
    pair = log_in()
    content = bearer(pair["access_token"]).get(SESSIONS).content.decode()
    digest = bytes(Session.objects.get().refresh_digest)
    for secret in (pair["access_token"], pair["refresh_token"], digest.hex(), "digest", "epoch"):
        assert secret not in content


@pytest.mark.parametrize("ended", ["expired", "revoked", "epoch"])
def test_only_live_ones_are_listed(as_alice: APIClient, ended: str) -> None:
    current = id_of(as_alice)
    log_in()
    changes: dict[str, dict[str, Any]] = {
        "expired": {"expires_at": timezone.now()},
        "revoked": {"revoked_at": timezone.now()},
        "epoch": {"epoch": 7},
    }
    assert len(listed(as_alice)) == 2
    Session.objects.exclude(pk=current).update(**changes[ended])
    assert [session["id"] for session in listed(as_alice)] == [current]


def test_only_ones_own_are_listed(as_alice: APIClient, as_bob: APIClient, staff: User) -> None:
    as_staff = bearer(log_in("grace")["access_token"])
    ids = [[session["id"] for session in listed(client)] for client in (as_alice, as_bob, as_staff)]
    assert ids == [[id_of(as_alice)], [id_of(as_bob)], [id_of(as_staff)]]
    assert len({pk for (pk,) in ids}) == 3


@pytest.mark.parametrize("name", ["user", "user_id", "username"])
def test_nobody_names_another_user_in_the_query(
    as_alice: APIClient, as_bob: APIClient, name: str
) -> None:
    reply = as_alice.get(f"{SESSIONS}?{name}={User.objects.get(username='bob').pk}")
    assert reply.status_code == 422
    assert list(reply.json()["errors"]) == [name]


def test_pages_neither_repeat_nor_miss_one(
    as_alice: APIClient, alice: User, frozen_time: object
) -> None:
    now = timezone.now()
    more = [
        Session(user=alice, refresh_digest=b"", scope="read", epoch=0, expires_at=now + LIFETIME)
        for _ in range(4)
    ]
    Session.objects.bulk_create(more)
    expected = {id_of(as_alice), *(str(session.pk) for session in more)}
    seen: list[str] = []
    url = f"{SESSIONS}?limit=2"
    while url:
        page = as_alice.get(url).json()
        assert len(page["results"]) <= 2
        seen += [session["id"] for session in page["results"]]
        url = page["next"]
    assert (len(seen), set(seen)) == (5, expected)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=!!!!", "cursor=%00"]
)
def test_a_page_that_does_not_exist_is_refused(as_alice: APIClient, query: str) -> None:
    response = as_alice.get(f"{SESSIONS}?{query}")
    assert response.status_code == 422
    assert list(response.json()["errors"]) == [query.partition("=")[0]]


def test_a_list_costs_the_same_however_long(as_alice: APIClient) -> None:
    for count in (1, 4):
        with CaptureQueriesContext(connection) as queries:
            assert len(listed(as_alice)) == count
        assert len(queries) == 2
        if count == 1:
            for _ in range(3):
                log_in()


# --- Ending one ------------------------------------------------------------------------------


def test_an_ended_session_is_refused_at_its_next_request(as_alice: APIClient, alice: User) -> None:
    pair, other = log_in(), log_in()
    ended = id_of(bearer(pair["access_token"]))
    response = as_alice.delete(f"{SESSIONS}/{ended}")
    assert (response.status_code, response.content) == (204, b"")
    assert [me(pair["access_token"]), me(other["access_token"])] == [401, 200]
    assert refresh(pair["refresh_token"]).status_code == 401
    assert refresh(other["refresh_token"]).status_code == 200
    assert as_alice.get(ME).status_code == 200
    assert ended not in {session["id"] for session in listed(as_alice)}
    event = AuditEvent.objects.get(action="session.ended")
    assert (event.actor_id, event.subject_id) == (alice.pk, ended)


def test_one_may_end_the_session_that_asks(alice: User) -> None:
    pair = log_in()
    client = bearer(pair["access_token"])
    assert client.delete(f"{SESSIONS}/{id_of(client)}").status_code == 204
    assert client.get(SESSIONS).status_code == 401
    assert refresh(pair["refresh_token"]).status_code == 401


def test_an_ended_one_cannot_be_ended_again(
    as_alice: APIClient, frozen_time: time_machine.Traveller
) -> None:
    ended = id_of(bearer(log_in()["access_token"]))
    assert as_alice.delete(f"{SESSIONS}/{ended}").status_code == 204
    before = Session.objects.values().get(pk=ended)
    frozen_time.shift(1)
    assert as_alice.delete(f"{SESSIONS}/{ended}").status_code == 404
    assert Session.objects.values().get(pk=ended) == before
    assert AuditEvent.objects.filter(action="session.ended").count() == 1


@pytest.mark.parametrize("stranger", ["as_bob", "as_staff"])
def test_somebody_elses_session_is_one_that_does_not_exist(
    request: pytest.FixtureRequest, alice: User, stranger: str
) -> None:
    pair = log_in()
    ids = (Session.objects.get().pk, uuid.uuid4())
    client = request.getfixturevalue(stranger)
    foreign, missing = (client.delete(f"{SESSIONS}/{pk}") for pk in ids)
    assert foreign.status_code == missing.status_code == 404
    bodies = [{**answer.json(), "request_id": ""} for answer in (foreign, missing)]
    assert bodies[0] == bodies[1]
    assert me(pair["access_token"]) == 200
    assert not AuditEvent.objects.filter(action="session.ended").exists()


@pytest.mark.parametrize("pk", ["-" * 36, "0" * 36, "me", "all", "%00", "..%2fsessions", "' OR 1"])
def test_what_is_no_id_ends_nothing(as_alice: APIClient, pk: str) -> None:
    assert as_alice.delete(f"{SESSIONS}/{pk}").status_code == 404
    assert as_alice.get(ME).status_code == 200


@pytest.mark.parametrize("method", ["post", "put", "patch"])
def test_a_session_is_never_written(as_alice: APIClient, method: str) -> None:
    before = Session.objects.values().get()
    every_field = {field.attname: "admin" for field in Session._meta.fields}
    for path in (SESSIONS, f"{SESSIONS}/{before['id']}"):
        assert getattr(as_alice, method)(path, every_field).status_code == 405
    assert Session.objects.values().get() == before


def test_a_login_takes_no_field_of_the_session(alice: User) -> None:
    """RFC 6749 has unknown parameters ignored; what they name must not be set."""
    attack = {"epoch": 9, "address": "192.0.2.1", "agent": "x", "expires_at": "9999-01-01"}
    body = {"username": "alice", "password": PASSWORD, **attack}
    assert APIClient().post(TOKEN, body, REMOTE_ADDR="203.0.113.9").status_code == 200
    session = Session.objects.get()
    assert (session.epoch, session.address, session.agent) == (0, "203.0.113.9", "")
    assert session.expires_at == session.created_at + LIFETIME


# --- Ending all ------------------------------------------------------------------------------


def test_all_are_ended_at_once(as_alice: APIClient, as_bob: APIClient, alice: User) -> None:
    pairs = [log_in(), log_in()]
    key = as_alice.post(KEYS, {"name": "x", "scopes": ["read"]}).json()["key"]
    response = as_alice.delete(SESSIONS)
    assert (response.status_code, response.content) == (204, b"")
    assert as_alice.get(ME).status_code == 401, "the one that asked too"
    assert [me(pair["access_token"]) for pair in pairs] == [401, 401]
    assert [refresh(pair["refresh_token"]).status_code for pair in pairs] == [401, 401]
    assert [as_bob.get(ME).status_code, me(key)] == [200, 200]
    assert not Session.objects.for_user(alice).filter(revoked_at=None).exists()
    alice.refresh_from_db()
    assert alice.token_epoch == 1, "a login that was under way is over too"
    event = AuditEvent.objects.get(action="user.signed_out")
    assert (event.actor_id, event.subject_id) == (alice.pk, str(alice.pk))


def test_one_can_log_in_again_after(as_alice: APIClient) -> None:
    as_alice.delete(SESSIONS)
    pair = log_in()
    assert len(listed(bearer(pair["access_token"]))) == 1
    assert refresh(pair["refresh_token"]).status_code == 200


def test_a_trailing_slash_ends_one_and_not_all(as_alice: APIClient) -> None:
    ended = id_of(bearer(log_in()["access_token"]))
    assert as_alice.delete(f"{SESSIONS}/{ended}/").status_code == 204
    assert as_alice.get(ME).status_code == 200


# --- Who may ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "look", "end"), [("read", 200, 403), ("write", 403, 204), ("read write", 200, 204)]
)
@pytest.mark.parametrize("is_key", [False, True])
def test_scopes_decide(
    alice: User,
    client_of: Callable[..., APIClient],
    scope: str,
    look: int,
    end: int,
    is_key: bool,
) -> None:
    client = client_of(alice) if is_key else client_of(alice, scope=scope)
    if is_key:
        body = {"name": "x", "scopes": scope.split()}
        client = bearer(client.post(KEYS, body).json()["key"])
    other = log_in()
    target = Session.objects.latest("created_at")
    assert client.get(SESSIONS).status_code == look
    assert client.delete(f"{SESSIONS}/{target.pk}").status_code == end
    assert me(other["access_token"]) == (401 if end == 204 else 200)
    another = log_in()
    assert client.delete(SESSIONS).status_code == end
    assert me(another["access_token"]) == (401 if end == 204 else 200)


def test_nobody_without_credentials(anonymous: APIClient, as_alice: APIClient) -> None:
    path = f"{SESSIONS}/{id_of(as_alice)}"
    answers = [anonymous.get(SESSIONS), anonymous.delete(SESSIONS), anonymous.delete(path)]
    assert [answer.status_code for answer in answers] == [401] * 3
    assert as_alice.get(ME).status_code == 200


# --- When it was used ------------------------------------------------------------------------


def test_its_use_is_noted_once_a_minute(
    as_alice: APIClient, frozen_time: time_machine.Traveller
) -> None:
    began = timezone.now()
    Session.objects.update(last_used_at=began)
    noted = []
    for wait_s in (0, 59, 1, MICROSECOND, 30, 31):
        frozen_time.shift(wait_s)
        with CaptureQueriesContext(connection) as queries:
            assert as_alice.get(ME).status_code == 200
        noted.append(len(queries) - 1)
        if noted[-1]:
            assert Session.objects.get().last_used_at == timezone.now()
    assert noted == [0, 0, 0, 1, 0, 1]
    assert listed(as_alice)[0]["last_used_at"] == in_utc(timezone.now())


def test_a_refused_use_is_not_noted(alice: User, frozen_time: time_machine.Traveller) -> None:
    began = timezone.now()
    pair = log_in()
    frozen_time.shift(timedelta(minutes=5))
    Session.objects.update(revoked_at=timezone.now())
    assert me(pair["access_token"]) == 401
    assert Session.objects.get().last_used_at == began


def test_a_refresh_is_a_use(alice: User, frozen_time: time_machine.Traveller) -> None:
    pair = log_in()
    frozen_time.shift(5)
    assert refresh(pair["refresh_token"]).status_code == 200
    assert Session.objects.get().last_used_at == timezone.now()


# --- Whatever the agent and the address are --------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "kept"),
    [
        ("x" * 5000, "x" * 200),
        ("\x00" * 5000 + "y", "y"),
        ("a\x00b", "ab"),
        ("a\r\nb\x1b[31m\x7f\x85", "a\r\nb\x1b[31m\x7f\x85"),
        ("\xe9" * 300, "\xe9" * 200),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("%s {0} ${jndi:ldap://x}", "%s {0} ${jndi:ldap://x}"),
        ("", ""),
    ],
)
def test_an_agent_is_cut_and_harmless(
    alice: User, staff: User, logs: LogCapture, agent: str, kept: str
) -> None:
    client = log_in_from(HTTP_USER_AGENT=agent)
    (session,) = listed(client)
    assert session["agent"] == kept
    assert len(logs.events("request")) == 2, "each line is one event"
    browser = Client()
    browser.force_login(staff)
    page = browser.get("/admin/accounts/session/")
    assert page.status_code == 200
    assert b"<script>alert" not in page.content


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("", NO_ADDRESS),
        ("nonsense", NO_ADDRESS),
    ],
)
def test_an_address_is_one(alice: User, address: str, kept: str) -> None:
    (session,) = listed(log_in_from(REMOTE_ADDR=address))
    assert session["address"] == kept


# --- One answer, however it is asked ---------------------------------------------------------

_STATES = list(
    itertools.product(
        [None, timedelta(), -timedelta(days=1)],
        [-MICROSECOND, timedelta(), MICROSECOND],
        [True, False],
        [-1, 0, 1],
    )
)


@pytest.mark.parametrize(("revoked", "expires", "is_active", "epoch_ahead"), _STATES)
def test_every_way_to_ask_gives_one_answer(
    alice: User,
    frozen_time: object,
    revoked: timedelta | None,
    expires: timedelta,
    is_active: bool,
    epoch_ahead: int,
) -> None:
    """The query written by hand, the QuerySet, and an open stream's question."""
    now = timezone.now()
    session = Session.objects.create(
        user=alice,
        refresh_digest=b"",
        scope="read",
        epoch=1 + epoch_ahead,
        expires_at=now + expires,
        revoked_at=None if revoked is None else now + revoked,
    )
    User.objects.filter(pk=alice.pk).update(is_active=is_active, token_epoch=1)
    holds = revoked is None and expires > timedelta() and is_active and epoch_ahead == 0
    assert Session.objects.all().live().exists() is holds
    assert (Session.objects.all().find_live(session.pk) is not None) is holds
    credential = SessionCredential(session_id=session.pk, scopes=frozenset({"read"}))
    assert credential.is_live() is holds
    holder = holders.of_session(session.pk)
    assert (holder is not None) is holds
    if holder is not None:
        assert (holder.user, holder.credential_id) == (alice, session.pk)
        assert (holder.user.token_epoch, holder.scopes) == (1, frozenset({"read"}))


@pytest.mark.django_db(transaction=True)
def test_of_many_that_end_one_session_one_is_on_record(as_alice: APIClient, settings: Any) -> None:
    settings.RATE_LIMIT_DEFAULT = "1000/m"
    token = log_in()["access_token"]
    path = f"{SESSIONS}/{id_of(bearer(token))}"
    in_parallel(10, lambda _number: as_alice.delete(path))
    assert me(token) == 401
    assert AuditEvent.objects.filter(action="session.ended").count() == 1
