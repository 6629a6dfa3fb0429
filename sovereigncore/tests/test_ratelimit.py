"""Who is counted, where the count ends, and that callers are told the truth about it."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
import time_machine
from django.core.cache import caches
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from conftest import PASSWORD
from sovereigncore.ratelimit import window_s
from tests.parallel import in_parallel

ME = "/api/v1/auth/me"
TOKEN = "/api/v1/auth/token"
REFRESH = "/api/v1/auth/token/refresh"
JWKS = "/.well-known/jwks.json"

pytestmark = pytest.mark.usefixtures("frozen_time")


def statuses(count: int, send: Callable[[], Any]) -> list[int]:
    return [send().status_code for _ in range(count)]


def log_in(client: Any, password: str = "wrong", **extra: Any) -> Any:
    return client.post(TOKEN, {"username": "alice", "password": password}, format="json", **extra)


@pytest.mark.parametrize(
    ("rate", "seconds"),
    [("1/s", 1), ("100/m", 60), ("5/h", 3600), ("5/d", 86_400), ("5/10m", 600), ("1/9999s", 9999)],
)
def test_the_window_of_a_rate(rate: str, seconds: int) -> None:
    assert window_s(rate) == seconds


def test_a_hundred_a_minute_by_default(as_alice: APIClient) -> None:
    assert statuses(100, lambda: as_alice.get(ME)) == [200] * 100
    refused = as_alice.get(ME)
    assert refused.status_code == 429
    assert refused.json()["code"] == "rate_limited"


def test_the_headers_tell_exactly_where_one_stands(
    as_alice: APIClient, frozen_time: time_machine.Traveller
) -> None:
    first, second = as_alice.get(ME), as_alice.get(ME)
    reset_s = int(first["x-ratelimit-reset-requests"].removesuffix("s"))
    assert 1 <= reset_s <= 60
    for response, remaining in ((first, 99), (second, 98)):
        assert response["RateLimit-Policy"] == '"default";q=100;w=60'
        assert response["RateLimit"] == f'"default";r={remaining};t={reset_s}'
        assert response["x-ratelimit-limit-requests"] == "100"
        assert response["x-ratelimit-remaining-requests"] == str(remaining)
        assert response["x-ratelimit-reset-requests"] == f"{reset_s}s"
        assert "Retry-After" not in response
    statuses(98, lambda: as_alice.get(ME))
    refused = as_alice.get(ME)
    assert refused["RateLimit"] == f'"default";r=0;t={reset_s}'
    assert refused["Retry-After"] == str(reset_s)


def test_after_retry_after_the_next_one_passes_and_not_before(
    as_alice: APIClient, frozen_time: time_machine.Traveller
) -> None:
    statuses(100, lambda: as_alice.get(ME))
    wait_s = int(as_alice.get(ME)["Retry-After"])
    frozen_time.shift(wait_s - 1)
    assert as_alice.get(ME).status_code == 429
    frozen_time.shift(1)
    assert as_alice.get(ME).status_code == 200


def test_an_account_is_counted_whatever_address_and_credential_it_uses(
    alice: User, client_of: Callable[..., APIClient]
) -> None:
    clients = [client_of(alice), client_of(alice, scope="read")]
    passed = [
        clients[number % 2].get(ME, REMOTE_ADDR=f"192.0.2.{number}").status_code
        for number in range(101)
    ]
    assert passed == [200] * 100 + [429]


def test_two_accounts_at_one_address_do_not_share(as_alice: APIClient, as_bob: APIClient) -> None:
    assert statuses(101, lambda: as_alice.get(ME))[-1] == 429
    assert as_bob.get(ME).status_code == 200


def test_anonymous_callers_are_counted_by_address(anonymous: APIClient) -> None:
    assert statuses(101, lambda: anonymous.get(JWKS)) == [200] * 100 + [429]
    assert anonymous.get(JWKS, REMOTE_ADDR="192.0.2.2").status_code == 200


def test_an_ipv6_caller_is_its_network(anonymous: APIClient) -> None:
    passed = [
        anonymous.get(JWKS, REMOTE_ADDR=f"2001:db8:0:1:{number:x}::1").status_code
        for number in range(101)
    ]
    assert passed == [200] * 100 + [429]
    assert anonymous.get(JWKS, REMOTE_ADDR="2001:db8:0:2::1").status_code == 200


def test_a_mapped_address_is_the_same_caller(anonymous: APIClient) -> None:
    statuses(100, lambda: anonymous.get(JWKS, REMOTE_ADDR="192.0.2.1"))
    assert anonymous.get(JWKS, REMOTE_ADDR="::ffff:192.0.2.1").status_code == 429


def test_a_spoofed_address_gives_nothing_extra(anonymous: APIClient) -> None:
    passed = [
        anonymous.get(JWKS, HTTP_X_FORWARDED_FOR=f"192.0.2.{number}").status_code
        for number in range(101)
    ]
    assert passed == [200] * 100 + [429]


def test_behind_a_trusted_proxy_each_caller_has_its_own_count(
    anonymous: APIClient, settings: Settings
) -> None:
    settings.TRUSTED_PROXIES = [ip_network("127.0.0.1/32")]
    spoofed = [
        anonymous.get(JWKS, HTTP_X_FORWARDED_FOR=f"198.51.100.{number}, 192.0.2.1").status_code
        for number in range(101)
    ]
    assert spoofed == [200] * 100 + [429]
    assert anonymous.get(JWKS, HTTP_X_FORWARDED_FOR="192.0.2.2").status_code == 200


def test_a_caller_without_an_address_is_limited_too(anonymous: APIClient) -> None:
    assert statuses(101, lambda: anonymous.get(JWKS, REMOTE_ADDR=""))[-1] == 429


def test_five_logins_a_minute_and_no_hash_after_that(
    alice: User, anonymous: APIClient, hashed: list[str]
) -> None:
    hashed.clear()
    assert statuses(5, lambda: log_in(anonymous)) == [401] * 5
    assert len(hashed) == 5
    for password in ("wrong", PASSWORD):
        refused = log_in(anonymous, password)
        assert refused.status_code == 429
        assert refused.json()["error"] == "rate_limited"
        assert refused["RateLimit-Policy"] == '"auth";q=5;w=60'
        assert refused["Retry-After"] == refused["x-ratelimit-reset-requests"].removesuffix("s")
    assert len(hashed) == 5
    assert log_in(anonymous, PASSWORD, REMOTE_ADDR="192.0.2.2").status_code == 200


def test_a_refused_login_tells_the_limit_that_is_near(alice: User, anonymous: APIClient) -> None:
    assert log_in(anonymous)["RateLimit"].startswith('"auth";r=4;')
    assert log_in(anonymous)["RateLimit"].startswith('"auth";r=3;')


def test_the_admin_shares_the_login_limit(alice: User, anonymous: APIClient) -> None:
    form = {"username": "alice", "password": "wrong"}
    page = Client(headers={"Accept": "text/html"})
    assert statuses(3, lambda: page.post("/admin/login/", form)) == [200] * 3
    assert statuses(2, lambda: log_in(anonymous)) == [401] * 2
    refused = page.post("/admin/login/", {**form, "password": PASSWORD})
    assert refused.status_code == 429
    assert b"<h1>Too Many Requests</h1>" in refused.content
    assert int(refused["Retry-After"]) >= 1
    assert page.get("/admin/login/").status_code == 200


def test_refreshing_is_no_login(alice: User, anonymous: APIClient) -> None:
    token = log_in(anonymous, PASSWORD).json()["refresh_token"]
    for _ in range(20):
        response = anonymous.post(REFRESH, {"refresh_token": token})
        assert response.status_code == 200
        assert response["RateLimit-Policy"] == '"default";q=100;w=60'
        token = response.json()["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": token}
    assert anonymous.post(TOKEN, form).status_code == 200
    assert log_in(anonymous).status_code == 401


@pytest.mark.parametrize("header", ["Bearer nonsense", "Basic YTpi", "Bearer", ""])
def test_guessing_credentials_is_limited(alice: User, header: str) -> None:
    client = APIClient()
    passed = statuses(101, lambda: client.get(ME, HTTP_AUTHORIZATION=header))
    assert passed == [401] * 100 + [429]


def test_a_valid_credential_passes_where_guesses_are_refused(
    as_alice: APIClient, anonymous: APIClient
) -> None:
    statuses(101, lambda: anonymous.get(ME))
    assert as_alice.get(ME).status_code == 200


def test_knocking_on_closed_doors_is_limited(
    alice: User, client_of: Callable[..., APIClient]
) -> None:
    reader = client_of(alice, scope="read")
    passed = statuses(101, lambda: reader.post("/api/v1/consciousness/process", {"prompt": "hi"}))
    assert passed == [403] * 100 + [429]


def test_public_probes_are_not_limited(anonymous: APIClient) -> None:
    assert statuses(150, lambda: anonymous.get("/live")) == [200] * 150


@pytest.mark.django_db(transaction=True)
def test_two_hundred_at_once_are_a_hundred(client_of: Callable[..., APIClient]) -> None:
    alice = User.objects.create_user("alice", "alice@example.org", PASSWORD)
    client = client_of(alice)

    def send(number: int) -> int:
        status: int = client.get(ME, HTTP_X_FORWARDED_FOR=f"192.0.2.{number}").status_code
        return status

    passed = in_parallel(200, send)
    assert passed.count(200) == 100
    assert passed.count(429) == 100


def test_counters_have_a_cache_of_their_own(as_alice: APIClient) -> None:
    """A flood of other entries must not push them out, nor clearing a cache reset them."""
    statuses(100, lambda: as_alice.get(ME))
    for number in range(100):
        caches["default"].set(f"entry-{number}", "x")
    assert as_alice.get(ME).status_code == 429
