"""`/api/v1/keys`: shown once, kept as a digest, and never more than its user and its maker."""

from __future__ import annotations

import hashlib
import itertools
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from accounts import api_keys, holders
from accounts.authentication import KeyCredential
from accounts.models import APIKey, Session, User
from accounts.services import set_active
from accounts.tests.sessions import LOGOUT, ME, log_in, me, refresh
from monitoring.models import AuditEvent
from sovereigncore.api import Credential
from tests.log_capture import LogCapture
from tests.parallel import in_parallel

KEYS = "/api/v1/keys"
SESSIONS = "/api/v1/auth/sessions"
PROCESS = "/api/v1/consciousness/process"
VALID = {"name": "backup job", "scopes": ["read", "write"]}
MICROSECOND = timedelta(microseconds=1)


def make(client: APIClient, **changed: Any) -> Any:
    return client.post(KEYS, {**VALID, **changed})


def made(client: APIClient, **changed: Any) -> dict[str, Any]:
    response = make(client, **changed)
    assert response.status_code == 201, response.content
    body: dict[str, Any] = response.json()
    return body


def bearer(key: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    return client


def in_utc(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def add_rows(user: User, count: int, **extra: Any) -> None:
    APIKey.objects.bulk_create(
        APIKey(
            user=user, name="x", digest=uuid.uuid4().bytes * 2, hint="sk-", scope="read", **extra
        )
        for _ in range(count)
    )


def writes(queries: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in queries if not query["sql"].lstrip().startswith("SELECT")]


@pytest.fixture
def key(as_alice: APIClient) -> str:
    """A key of Alice that may do what she may do."""
    text: str = made(as_alice)["key"]
    return text


# --- Making one ------------------------------------------------------------------------------


def test_a_key_is_shown_when_it_is_made(as_alice: APIClient, frozen_time: object) -> None:
    expires_at = in_utc(timezone.now() + timedelta(days=1))
    response = make(as_alice, scopes=["write", "read"], expires_at=expires_at)
    assert response.status_code == 201
    assert response["Cache-Control"] == "no-store"
    body = response.json()
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", body["key"]), "256 bits"
    assert body == {
        "id": str(APIKey.objects.get().pk),
        "name": "backup job",
        "hint": body["key"][:10],
        "scopes": ["read", "write"],
        "created_at": in_utc(timezone.now()),
        "expires_at": expires_at,
        "last_used_at": None,
        "revoked_at": None,
        "key": body["key"],
    }
    assert me(body["key"]) == 200


def test_it_is_shown_nowhere_else(as_alice: APIClient, logs: LogCapture) -> None:
    body = made(as_alice)
    secret = body["key"].removeprefix(body["hint"])
    assert me(body["key"]) == 200
    assert me(f"{body['key']}x") == 401
    as_alice.delete(f"{KEYS}/{body['id']}")
    assert me(body["key"]) == 401
    told = {
        "list": as_alice.get(KEYS).content.decode(),
        "detail": as_alice.get(f"{KEYS}/{body['id']}").content.decode(),
        "logs": logs.text,
        "row": str(list(APIKey.objects.values())),
        "audit": str(list(AuditEvent.objects.values())),
    }
    for where, text in told.items():
        assert text, where
        assert secret not in text, where


def test_the_database_holds_its_digest(key: str) -> None:
    assert bytes(APIKey.objects.get().digest) == hashlib.sha256(key.encode()).digest()


def test_no_two_are_alike(as_alice: APIClient) -> None:
    assert len({made(as_alice)["key"][:10] for _ in range(5)}) == 5


def test_the_deed_is_on_record(as_alice: APIClient, alice: User) -> None:
    body = made(as_alice, scopes=["read"])
    event = AuditEvent.objects.get(action="key.created")
    assert (event.actor_id, event.subject_id) == (alice.pk, body["id"])
    assert event.detail == {"scopes": ["read"]}


_NO_NAMES: list[Any] = ["", "   ", "\t\n", None, 5, True, ["x"], {"a": "b"}, "x" * 101]
_NO_SCOPES: list[Any] = [
    *([], None, 5, True, "read", "read write", {"read": True}, ["read"] * 4),
    *(["root"], ["read", "root"], ["READ"], ["read "], [""], [None], [True], [["read"]], [{}]),
]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("name", value) for value in _NO_NAMES),
        *(("scopes", value) for value in _NO_SCOPES),
        ("expires_at", ""),
        ("expires_at", "tomorrow"),
        ("expires_at", 5),
        ("expires_at", True),
        ("expires_at", ["2099-01-01T00:00:00Z"]),
        ("expires_at", {"year": 2099}),
        ("expires_at", 4102444800),
        ("expires_at", "2099-01-01"),
        ("expires_at", "2099-01-01T00:00:00"),
        ("expires_at", "2000-01-01T00:00:00Z"),
        ("expires_at", "2099-02-30T00:00:00Z"),
        ("expires_at", "2099-01-01T25:00:00Z"),
        ("expires_at", "10000-01-01T00:00:00Z"),
        ("expires_at", "2099-01-01T00:00:00+24:00"),
        ("expires_at", "2099-01-01T00:00:00+99:99"),
        ("expires_at", "2099-01-01T00:00:00+999999999:00"),
        ("expires_at", "9999-12-31T23:59:59-23:59"),
        ("expires_at", "0001-01-01T00:00:00+23:59"),
        ("expires_at", "x" * 100_000),
    ],
)
def test_what_is_not_valid_makes_no_key(as_alice: APIClient, field: str, value: Any) -> None:
    response = make(as_alice, **{field: value})
    assert response.status_code == 422
    assert response.json()["code"] == "validation_error"
    assert {name.partition(".")[0] for name in response.json()["errors"]} == {field}
    assert not APIKey.objects.exists()


@pytest.mark.parametrize("field", ["name", "scopes"])
def test_two_fields_are_required(as_alice: APIClient, field: str) -> None:
    body = {name: value for name, value in VALID.items() if name != field}
    response = as_alice.post(KEYS, body)
    assert response.status_code == 422
    assert response.json()["errors"] == {field: ["This field is required."]}


@pytest.mark.parametrize("body", [[], [VALID], "x", 5, True])
def test_a_body_is_an_object(as_alice: APIClient, body: Any) -> None:
    response = as_alice.post(KEYS, body)
    assert response.status_code == 422
    assert list(response.json()["errors"]) == ["request"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "a\\u0000b", "scopes": ["read"]}',
        b'{"name": "a", "scopes": ["re\\u0000ad"]}',
        b'{"name": "a\\ud800b", "scopes": ["read"]}',
        b'{"name": "a", "scopes": ["read"]',
        b'{"name": "a", "scopes": ' + b"[" * 100_000,
        b'{"name": "a\xff", "scopes": ["read"]}',
    ],
)
def test_what_is_no_json_of_ours_makes_no_key(as_alice: APIClient, body: bytes) -> None:
    response = as_alice.post(KEYS, body, content_type="application/json")
    assert response.status_code == 400
    assert response.json()["code"] == "malformed_request"
    assert not APIKey.objects.exists()


def test_only_json_is_read(as_alice: APIClient) -> None:
    form = as_alice.post(KEYS, "name=a", content_type="application/x-www-form-urlencoded")
    assert form.status_code == 415


@pytest.mark.parametrize(
    "name", ["x" * 100, "Schlüssel 🔑", "{{7*7}} %s \\u202e", "<b>'; DROP TABLE--"]
)
def test_a_name_is_text_and_nothing_more(as_alice: APIClient, logs: LogCapture, name: str) -> None:
    assert made(as_alice, name=name)["name"] == name
    (listed,) = as_alice.get(KEYS).json()["results"]
    assert listed["name"] == name
    assert len(logs.events("request")) == 2, "each line is one event"


def test_a_scope_named_twice_is_there_once(as_alice: APIClient) -> None:
    assert made(as_alice, scopes=["read", "read"])["scopes"] == ["read"]


@pytest.mark.parametrize("expires_at", [None, "9999-12-31T23:59:59Z"])
def test_a_key_may_hold_for_ever(as_alice: APIClient, expires_at: str | None) -> None:
    body = made(as_alice, expires_at=expires_at)
    assert body["expires_at"] == expires_at
    assert as_alice.get(KEYS).json()["results"][0]["expires_at"] == expires_at
    assert me(body["key"]) == 200


def test_an_expiry_is_written_in_any_offset_and_kept_in_utc(as_alice: APIClient) -> None:
    body = made(as_alice, expires_at="2099-01-01T01:30:00+01:30")
    assert body["expires_at"] == "2099-01-01T00:00:00Z"
    assert APIKey.objects.get().expires_at == datetime(2099, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "expires_at",
    [
        *("\uff12\uff10\uff19\uff19-01-01T00:00:00Z", "2099-01-01T00:00:00Z\n", "20990101T000000Z"),
        *("2099-01-01x00:00:00Z", "2099-W01-1T00:00:00Z", "2099-01-01T00:00:00+00:00:01"),
    ],
)
def test_an_expiry_is_written_as_rfc_3339_has_it(as_alice: APIClient, expires_at: str) -> None:
    response = make(as_alice, expires_at=expires_at)
    assert response.status_code == 422
    assert list(response.json()["errors"]) == ["expires_at"]


def test_an_expiry_lies_ahead(as_alice: APIClient, frozen_time: object) -> None:
    now = timezone.now()
    assert make(as_alice, expires_at=in_utc(now)).status_code == 422
    assert make(as_alice, expires_at=in_utc(now + MICROSECOND)).status_code == 201


# --- Mass assignment -------------------------------------------------------------------------


def every_field() -> dict[str, Any]:
    """Every column of the model, its relations, and what the answer calls them."""
    columns = {name for field in APIKey._meta.fields for name in (field.name, field.attname)}
    return {**dict.fromkeys(columns | {"pk", "key", "scopes"}, "admin"), **VALID}


@pytest.mark.parametrize("field", sorted(every_field().keys() - {*VALID, "expires_at"}))
def test_no_other_field_is_taken(as_alice: APIClient, bob: User, field: str) -> None:
    response = make(as_alice, **{field: str(bob.pk)})
    assert response.status_code == 422
    assert response.json()["errors"] == {field: ["Unknown field."]}
    assert not APIKey.objects.exists()


@pytest.mark.parametrize("method", ["put", "patch"])
def test_a_key_is_never_changed(as_alice: APIClient, key: str, method: str) -> None:
    before = APIKey.objects.values().get()
    for path in (KEYS, f"{KEYS}/{before['id']}"):
        assert getattr(as_alice, method)(path, every_field()).status_code == 405
    assert as_alice.post(f"{KEYS}/{before['id']}", every_field()).status_code == 405
    assert APIKey.objects.values().get() == before


# --- Seeing and revoking ---------------------------------------------------------------------


def test_ones_own_are_listed_newest_first(
    as_alice: APIClient, as_bob: APIClient, frozen_time: time_machine.Traveller
) -> None:
    first = made(as_alice, name="first")
    made(as_bob)
    frozen_time.shift(1)
    second = made(as_alice, name="second")
    listed = as_alice.get(KEYS).json()["results"]
    assert listed == [
        {name: value for name, value in body.items() if name != "key"} for body in (second, first)
    ]
    for body in listed:
        assert as_alice.get(f"{KEYS}/{body['id']}").json() == body


def test_pages_neither_repeat_nor_miss_one(as_alice: APIClient, frozen_time: object) -> None:
    ids = {made(as_alice)["id"] for _ in range(5)}
    seen: list[str] = []
    url = f"{KEYS}?limit=2"
    while url:
        page = as_alice.get(url).json()
        seen += [body["id"] for body in page["results"]]
        url = page["next"]
    assert (len(seen), set(seen)) == (5, ids)


def test_a_list_costs_the_same_however_long(as_alice: APIClient, alice: User) -> None:
    for count in (1, 15):
        add_rows(alice, count)
        with CaptureQueriesContext(connection) as queries:
            as_alice.get(KEYS)
        assert len(queries) == 2


def test_a_revoked_key_is_refused_at_once_and_stays_listed(
    as_alice: APIClient, alice: User, key: str, frozen_time: object
) -> None:
    row = APIKey.objects.get()
    assert me(key) == 200
    response = as_alice.delete(f"{KEYS}/{row.pk}")
    assert (response.status_code, response.content) == (204, b"")
    assert me(key) == 401
    (listed,) = as_alice.get(KEYS).json()["results"]
    assert listed["revoked_at"] == in_utc(timezone.now())
    event = AuditEvent.objects.get(action="key.revoked")
    assert (event.actor_id, event.subject_id) == (alice.pk, str(row.pk))


def test_revoking_twice_changes_nothing(
    as_alice: APIClient, key: str, frozen_time: time_machine.Traveller
) -> None:
    path = f"{KEYS}/{APIKey.objects.get().pk}"
    assert as_alice.delete(path).status_code == 204
    before = APIKey.objects.values().get()
    frozen_time.shift(1)
    assert as_alice.delete(path).status_code == 204
    assert APIKey.objects.values().get() == before
    assert AuditEvent.objects.filter(action="key.revoked").count() == 1


def test_revoking_ends_one_key_and_no_session(as_alice: APIClient, key: str) -> None:
    other = made(as_alice)
    as_alice.delete(f"{KEYS}/{other['id']}")
    assert [me(key), me(other["key"]), as_alice.get(ME).status_code] == [200, 401, 200]


@pytest.mark.parametrize("method", ["get", "delete"])
@pytest.mark.parametrize("stranger", ["as_bob", "as_staff"])
def test_somebody_elses_key_is_one_that_does_not_exist(
    request: pytest.FixtureRequest, key: str, method: str, stranger: str
) -> None:
    client = request.getfixturevalue(stranger)
    ids = (APIKey.objects.get().pk, uuid.uuid4())
    foreign, missing = (getattr(client, method)(f"{KEYS}/{pk}") for pk in ids)
    assert foreign.status_code == missing.status_code == 404
    bodies = [{**answer.json(), "request_id": ""} for answer in (foreign, missing)]
    assert bodies[0] == bodies[1]
    assert client.get(KEYS).json()["results"] == []
    assert me(key) == 200
    assert not AuditEvent.objects.filter(action="key.revoked").exists()


@pytest.mark.parametrize("pk", ["-" * 36, "0" * 36, "me", "1", "%00", "..%2fkeys", "' OR 1=1"])
def test_what_is_no_id_finds_nothing(as_alice: APIClient, key: str, pk: str) -> None:
    assert as_alice.get(f"{KEYS}/{pk}").status_code == 404
    assert as_alice.delete(f"{KEYS}/{pk}").status_code == 404
    assert me(key) == 200


def test_nobody_without_credentials_sees_or_makes_one(anonymous: APIClient, key: str) -> None:
    path = f"{KEYS}/{APIKey.objects.get().pk}"
    answers = [
        anonymous.get(KEYS),
        anonymous.post(KEYS, VALID),
        anonymous.get(path),
        anonymous.delete(path),
    ]
    assert [answer.status_code for answer in answers] == [401] * 4
    assert me(key) == 200
    assert APIKey.objects.count() == 1


# --- Using one -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "look", "change"),
    [(["read"], 200, 403), (["write"], 403, 422), (["read", "write"], 200, 422)],
)
def test_scopes_decide_what_a_key_may_do(
    as_alice: APIClient, scopes: list[str], look: int, change: int
) -> None:
    client = bearer(made(as_alice, scopes=scopes)["key"])
    for path in (ME, KEYS, SESSIONS):
        assert client.get(path).status_code == look
    for path in (PROCESS, KEYS):
        assert client.post(path, {}).status_code == change


def test_a_key_is_its_user_with_its_own_scopes(as_alice: APIClient) -> None:
    body = bearer(made(as_alice, scopes=["read"])["key"]).get(ME).json()
    assert (body["username"], body["scopes"]) == ("alice", ["read"])


def test_the_log_tells_whose_key_it_was(alice: User, key: str, logs: LogCapture) -> None:
    me(key)
    (line,) = logs.events("request")
    assert (line["user_id"], line["status"]) == (str(alice.pk), 200)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_has_no_case(key: str, scheme: str) -> None:
    assert APIClient().get(ME, HTTP_AUTHORIZATION=f"{scheme} {key}").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        *("{key}", " Bearer {key}", "Bearer  {key}", "Bearer\t{key}", "Bearer:{key}"),
        *("Bearer {key} ", "Bearer {key}\n", "Bearer {key}\x00", "Bearer {key} x", "Bearer {key},"),
        *("Bearer {key}, Bearer {key}", 'Bearer "{key}"', "Bearer {key}=", "Bearer {key}\xe9"),
        *("Basic {key}", "Token {key}", "ApiKey {key}", "Key {key}", "JWT {key}", "Bearer sk-"),
        *("Bearer sk-sk-{key}", "Bearer SK-{secret}", "Bearer {secret}", "Bearer {upper}"),
    ],
)
def test_one_way_to_write_the_header(key: str, header: str) -> None:
    forms = {"key": key, "secret": key.removeprefix("sk-"), "upper": f"sk-{key[3:].swapcase()}"}
    response = APIClient().get(ME, HTTP_AUTHORIZATION=header.format(**forms))
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert response.json()["code"] == "invalid_credentials"


def test_a_key_anywhere_else_is_not_looked_at(key: str) -> None:
    client = APIClient()
    for name in ("api_key", "key", "access_token", "Authorization", "sessionid"):
        client.cookies[name] = key
    response = client.get(
        f"{ME}?api_key={key}&key={key}&access_token={key}",
        HTTP_X_API_KEY=key,
        HTTP_API_KEY=key,
        HTTP_X_AUTHORIZATION=f"Bearer {key}",
        HTTP_PROXY_AUTHORIZATION=f"Bearer {key}",
    )
    assert response.status_code == 401
    assert response.json()["code"] == "not_authenticated"


@pytest.mark.parametrize(
    "text",
    [
        *("sk-' OR '1'='1", "sk-' OR 1=1 --", "sk-'; DROP TABLE accounts_apikey; --", "sk-%"),
        *("sk-" + "_" * 43, "sk-*", "sk-\\", 'sk-"', "sk-%s", "sk-{}", "sk-" + "x" * 5000, "sk-.."),
    ],
)
def test_sql_and_wildcards_find_nothing(key: str, text: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert me(text) == 401
    assert len(queries) == 1
    assert me(key) == 200


def test_keys_that_begin_alike_are_different_keys(as_alice: APIClient, key: str) -> None:
    last = "A" if key[-1] != "A" else "B"
    for text in (key[:10], key[:-1], key[:-1] + last, key + "A", key[:3] + key[3:][::-1]):
        assert me(text) == 401, text
    digest = bytes(APIKey.objects.get().digest)
    for text in (digest.hex(), f"sk-{digest.hex()}"):
        assert me(text) == 401, "what a thief of the database holds"


def test_a_token_dressed_as_a_key_is_none(as_alice: APIClient, key: str) -> None:
    token = log_in()["access_token"]
    for text in (f"sk-{token}", f"{key}.{token}", f"sk-eyJ{token}", f"{token}sk-"):
        assert me(text) == 401
    assert [me(token), me(key)] == [200, 200]


def test_a_key_is_no_refresh_token(key: str) -> None:
    assert refresh(key).status_code == 401
    assert me(key) == 200


# --- Who it is, in one query, and when it was used -------------------------------------------


def test_one_query_tells_who_asks(key: str, frozen_time: object) -> None:
    client = bearer(key)
    client.get(ME)
    with CaptureQueriesContext(connection) as queries:
        assert client.get(ME).status_code == 200
    assert len(queries) == 1


def test_its_use_is_noted_once_a_minute(key: str, frozen_time: time_machine.Traveller) -> None:
    client = bearer(key)
    noted = []
    for wait_s in (0, 0, 59, 1, MICROSECOND, 30):
        frozen_time.shift(wait_s)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(ME).status_code == 200
        noted.append(len(writes(queries)))
        if noted[-1]:
            assert APIKey.objects.get().last_used_at == timezone.now()
    assert noted == [1, 0, 0, 0, 1, 0]


def test_its_last_use_is_shown(as_alice: APIClient, key: str, frozen_time: object) -> None:
    me(key)
    (listed,) = as_alice.get(KEYS).json()["results"]
    assert listed["last_used_at"] == in_utc(timezone.now())


def test_a_refused_use_is_not_noted(as_alice: APIClient, key: str) -> None:
    as_alice.delete(f"{KEYS}/{APIKey.objects.get().pk}")
    with CaptureQueriesContext(connection) as queries:
        assert me(key) == 401
    assert writes(queries) == []
    assert APIKey.objects.get().last_used_at is None


def test_every_key_and_token_of_a_user_share_one_limit(
    as_alice: APIClient, as_bob: APIClient, key: str, settings: Any, frozen_time: object
) -> None:
    clients = [as_alice, bearer(key), bearer(made(as_alice)["key"])]
    settings.RATE_LIMIT_DEFAULT = "3/m"
    assert [client.get(ME).status_code for client in clients] == [200, 200, 200]
    for client in clients:
        refused = client.get(ME)
        assert refused.status_code == 429
        assert int(refused["Retry-After"]) > 0
    assert as_bob.get(ME).status_code == 200


# --- When it ends ----------------------------------------------------------------------------


def test_an_expired_key_is_refused(
    as_alice: APIClient, frozen_time: time_machine.Traveller
) -> None:
    key = made(as_alice, expires_at=in_utc(timezone.now() + timedelta(seconds=10)))["key"]
    frozen_time.shift(timedelta(seconds=10) - MICROSECOND)
    assert me(key) == 200
    frozen_time.shift(MICROSECOND)
    assert me(key) == 401


def test_a_disabled_users_keys_rest_until_it_is_enabled(alice: User, key: str) -> None:
    set_active(alice, is_active=False)
    assert me(key) == 401
    set_active(alice, is_active=True)
    assert me(key) == 200


def test_a_revoked_key_does_not_come_back_with_its_user(
    as_alice: APIClient, alice: User, key: str
) -> None:
    as_alice.delete(f"{KEYS}/{APIKey.objects.get().pk}")
    set_active(alice, is_active=False)
    set_active(alice, is_active=True)
    assert me(key) == 401


def test_a_deleted_users_key_is_refused(alice: User, key: str) -> None:
    alice.delete()
    assert me(key) == 401


def test_keys_outlive_sessions_and_passwords(as_alice: APIClient, alice: User, key: str) -> None:
    assert as_alice.delete(SESSIONS).status_code == 204
    assert [as_alice.get(ME).status_code, me(key)] == [401, 200]
    alice.refresh_from_db()
    alice.set_password("Another-Horse-8-Battery")
    alice.save()
    assert me(key) == 200


def test_a_role_taken_away_takes_admin_from_the_key(as_staff: APIClient, staff: User) -> None:
    client = bearer(made(as_staff, scopes=["read", "write", "admin"])["key"])
    assert client.get(ME).json()["scopes"] == ["admin", "read", "write"]
    User.objects.filter(pk=staff.pk).update(is_staff=False)
    assert client.get(ME).json()["scopes"] == ["read", "write"]
    refused = make(client, scopes=["admin"])
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_not_held")


def test_a_role_given_later_is_not_in_the_key(alice: User, key: str) -> None:
    User.objects.filter(pk=alice.pk).update(is_staff=True)
    assert bearer(key).get(ME).json()["scopes"] == ["read", "write"]


@pytest.mark.parametrize("scopes", [["read"], ["write"]])
def test_logging_out_with_a_key_revokes_it(
    as_alice: APIClient, alice: User, key: str, scopes: list[str]
) -> None:
    body = made(as_alice, scopes=scopes)
    response = bearer(body["key"]).post(LOGOUT)
    assert (response.status_code, response.content) == (204, b"")
    assert [me(body["key"]), me(key)] == [401, 200]
    assert as_alice.get(ME).status_code == 200
    assert Session.objects.get().revoked_at is None
    event = AuditEvent.objects.get(action="key.revoked")
    assert (event.actor_id, event.subject_id) == (alice.pk, body["id"])
    assert bearer(body["key"]).post(LOGOUT).status_code == 401


def test_ended_keys_are_forgotten_after_ninety_days(alice: User) -> None:
    now = timezone.now()
    old, recent = now - timedelta(days=91), now - timedelta(days=89)
    add_rows(alice, 1, revoked_at=old)
    add_rows(alice, 1, expires_at=old)
    for kept in ({"revoked_at": recent}, {"expires_at": recent}, {}, {"created_at": old}):
        add_rows(alice, 1, **kept)
    assert APIKey.objects.all().delete_ended() == 2
    assert APIKey.objects.count() == 4


_STATES = list(
    itertools.product(
        [None, timedelta(), -timedelta(days=1)],
        [None, -MICROSECOND, timedelta(), MICROSECOND],
        [True, False],
        [0, 1],
    )
)


@pytest.mark.parametrize(("revoked", "expires", "is_active", "epoch"), _STATES)
def test_every_way_to_ask_gives_one_answer(
    alice: User,
    frozen_time: object,
    revoked: timedelta | None,
    expires: timedelta | None,
    is_active: bool,
    epoch: int,
) -> None:
    """The query written by hand, the QuerySet, an open stream's question, and HTTP."""
    now = timezone.now()
    key = api_keys.generate()
    row = APIKey.objects.create(
        user=alice,
        name="x",
        digest=api_keys.digest(key),
        hint="sk-",
        scope="read",
        revoked_at=None if revoked is None else now + revoked,
        expires_at=None if expires is None else now + expires,
    )
    User.objects.filter(pk=alice.pk).update(is_active=is_active, token_epoch=epoch)
    holds = revoked is None and is_active and (expires is None or expires == MICROSECOND)
    assert APIKey.objects.all().live().exists() is holds
    holder = holders.of_key(api_keys.digest(key))
    assert (holder is not None) is holds
    credential = KeyCredential(key_id=row.pk, scopes=frozenset({"read"}))
    assert isinstance(credential, Credential)
    assert credential.is_live() is holds
    assert me(key) == (200 if holds else 401)
    if holder is not None:
        assert (holder.user, holder.credential_id) == (alice, row.pk)
        assert (holder.user.token_epoch, holder.scopes) == (epoch, frozenset({"read"}))


# --- A key that makes a key ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "wanted", "status"),
    [
        (["write"], ["write"], 201),
        (["write"], ["read"], 403),
        (["write"], ["read", "write"], 403),
        (["read", "write"], ["read"], 201),
        (["read", "write"], ["admin"], 403),
        (["read", "write", "admin"], ["admin"], 201),
    ],
)
def test_a_key_makes_no_key_with_more_scopes_than_itself(
    as_staff: APIClient, mine: list[str], wanted: list[str], status: int
) -> None:
    client = bearer(made(as_staff, scopes=mine)["key"])
    response = make(client, scopes=wanted)
    assert response.status_code == status
    assert APIKey.objects.count() == (2 if status == 201 else 1)
    if status == 403:
        assert response.json()["code"] == "scope_not_held"


@pytest.mark.parametrize(
    ("scope", "wanted"),
    [("write", ["read"]), ("read write", ["admin"]), ("write", ["admin", "write"])],
)
def test_nor_does_a_session(
    staff: User, client_of: Callable[..., APIClient], scope: str, wanted: list[str]
) -> None:
    response = make(client_of(staff, scope=scope), scopes=wanted)
    assert (response.status_code, response.json()["code"]) == (403, "scope_not_held")
    assert not APIKey.objects.exists()


def test_nobody_makes_an_admin_key_without_the_role(as_alice: APIClient) -> None:
    response = make(as_alice, scopes=["read", "admin"])
    assert (response.status_code, response.json()["code"]) == (403, "scope_not_held")
    assert not APIKey.objects.exists()


@pytest.mark.parametrize(
    ("later", "status"),
    [(-MICROSECOND, 201), (timedelta(), 201), (MICROSECOND, 403), (timedelta(days=9), 403)],
)
def test_a_key_makes_no_key_that_outlives_it(
    as_alice: APIClient, frozen_time: object, later: timedelta, status: int
) -> None:
    end = timezone.now() + timedelta(hours=1)
    client = bearer(made(as_alice, expires_at=in_utc(end))["key"])
    response = make(client, expires_at=in_utc(end + later))
    assert response.status_code == status
    assert APIKey.objects.count() == (2 if status == 201 else 1)


@pytest.mark.parametrize("body", [{}, {"expires_at": None}])
def test_a_key_that_ends_makes_none_that_does_not(
    as_alice: APIClient, body: dict[str, None]
) -> None:
    client = bearer(made(as_alice, expires_at="2099-01-01T00:00:00Z")["key"])
    response = make(client, **body)
    assert (response.status_code, response.json()["code"]) == (403, "expiry_too_late")
    assert APIKey.objects.count() == 1


def test_another_offset_is_no_way_round_the_expiry(as_alice: APIClient) -> None:
    client = bearer(made(as_alice, expires_at="2099-01-01T12:00:00Z")["key"])
    assert make(client, expires_at="2099-01-01T11:59:59-23:00").status_code == 403
    assert make(client, expires_at="2099-01-02T11:00:00+23:30").status_code == 201


@pytest.mark.parametrize("meanwhile", ["deleted", "disabled", "revoked"])
def test_a_credential_that_ends_meanwhile_makes_no_key(
    alice: User, key: str, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """After the request was let in and before the row is written."""
    generate = api_keys.generate

    def end_and_generate() -> str:
        if meanwhile == "deleted":
            User.objects.filter(pk=alice.pk).delete()
        elif meanwhile == "disabled":
            set_active(alice, is_active=False)
        else:
            APIKey.objects.all().revoke()
        return generate()

    monkeypatch.setattr(api_keys, "generate", end_and_generate)
    client = bearer(key)
    client.raise_request_exception = False
    assert make(client, name="late").status_code == 401
    assert not APIKey.objects.filter(name="late").exists()


# --- How many --------------------------------------------------------------------------------


def test_an_account_has_fifty_at_most(as_alice: APIClient, as_bob: APIClient, alice: User) -> None:
    add_rows(alice, 49)
    last = made(as_alice)
    refused = make(as_alice)
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_keys")
    assert make(bearer(last["key"])).status_code == 409, "nor by a key"
    assert APIKey.objects.count() == 50
    assert make(as_bob).status_code == 201
    as_alice.delete(f"{KEYS}/{last['id']}")
    assert make(as_alice).status_code == 201


def test_keys_that_ended_do_not_count(as_alice: APIClient, alice: User) -> None:
    now = timezone.now()
    add_rows(alice, 30, revoked_at=now)
    add_rows(alice, 30, expires_at=now)
    assert make(as_alice).status_code == 201


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_only_fifty_are_made(
    as_alice: APIClient, alice: User, settings: Any
) -> None:
    settings.RATE_LIMIT_DEFAULT = "1000/m"
    add_rows(alice, 45)
    assert as_alice.get("/live").status_code == 200  # its handler is built before the race
    statuses = in_parallel(20, lambda _number: make(as_alice).status_code)
    assert (statuses.count(201), statuses.count(409)) == (5, 15)
    assert APIKey.objects.count() == 50
    assert AuditEvent.objects.filter(action="key.created").count() == 5


@pytest.mark.django_db(transaction=True)
def test_of_many_that_revoke_one_key_one_is_on_record(as_alice: APIClient, settings: Any) -> None:
    settings.RATE_LIMIT_DEFAULT = "1000/m"
    path = f"{KEYS}/{made(as_alice)['id']}"
    statuses = in_parallel(10, lambda _number: as_alice.delete(path).status_code)
    assert statuses == [204] * 10
    assert AuditEvent.objects.filter(action="key.revoked").count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_first_uses_one_is_noted(as_alice: APIClient, settings: Any) -> None:
    settings.RATE_LIMIT_DEFAULT = "1000/m"
    client = bearer(made(as_alice)["key"])
    assert client.get("/live").status_code == 200
    assert in_parallel(10, lambda _number: client.get(ME).status_code) == [200] * 10
    assert APIKey.objects.get().last_used_at is not None
