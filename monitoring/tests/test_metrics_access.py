"""Who may scrape: a token where one is set, else callers on this very host."""

from __future__ import annotations

import hmac
from ipaddress import ip_network
from types import SimpleNamespace

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from monitoring import views
from tests.stub_engine import StubEngine

pytestmark = [pytest.mark.usefixtures("stub"), pytest.mark.once]
TOKEN = "scrape-me-7Jw2xKq9Lm4Zt6Vb1Nc8Rd3Fg5Hs0Pa"


def scrape(client: APIClient, *, peer: str = "127.0.0.1", **headers: str) -> int:
    status: int = client.get("/metrics", headers=headers, REMOTE_ADDR=peer).status_code
    return status


@pytest.fixture
def token(settings: Settings) -> str:
    settings.METRICS_TOKEN = TOKEN
    return TOKEN


def test_the_token_opens_from_anywhere(anonymous: APIClient, token: str) -> None:
    for peer in ("127.0.0.1", "203.0.113.9"):
        assert scrape(anonymous, peer=peer, Authorization=f"Bearer {token}") == 200
    proxied = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "203.0.113.9"}
    assert scrape(anonymous, **proxied) == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer " + TOKEN[:-1],
        "Bearer " + TOKEN + "x",
        "bearer " + TOKEN,
        TOKEN,
        "Basic " + TOKEN,
        "Bearer \xe9" + TOKEN,
        "Bearer " + "x" * 4000,
    ],
)
def test_with_a_token_set_nothing_else_opens(
    anonymous: APIClient, token: str, authorization: str
) -> None:
    response = anonymous.get("/metrics", headers={"Authorization": authorization})
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert b"sovereigncore_" not in response.content


def test_with_a_token_set_loopback_alone_does_not_open(anonymous: APIClient, token: str) -> None:
    assert scrape(anonymous) == 401


def test_the_token_is_compared_in_constant_time(
    anonymous: APIClient, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, expected: bytes) -> bool:
        compared.append((given, expected))
        return hmac.compare_digest(given, expected)

    monkeypatch.setattr(views, "hmac", SimpleNamespace(compare_digest=compare))
    assert scrape(anonymous, Authorization="Bearer wrong") == 401
    assert compared == [(b"Bearer wrong", f"Bearer {token}".encode())]


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1"])
def test_without_a_token_this_host_may(anonymous: APIClient, peer: str) -> None:
    assert scrape(anonymous, peer=peer) == 200


@pytest.mark.parametrize("peer", ["192.168.1.20", "203.0.113.9", "fe80::1", "", "localhost"])
def test_without_a_token_nobody_else_may(anonymous: APIClient, peer: str) -> None:
    assert scrape(anonymous, peer=peer) == 401


@pytest.mark.parametrize(
    "header",
    [
        *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port"),
        *("X-Forwarded-Server", "X-Real-IP", "Forwarded", "Via", "CF-Connecting-IP"),
        *("True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "CDN-Loop"),
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", "for=127.0.0.1", ""])
def test_a_proxy_on_this_host_is_not_this_host(
    anonymous: APIClient, settings: Settings, header: str, value: str
) -> None:
    assert scrape(anonymous, **{header: value}) == 401
    settings.TRUSTED_PROXIES = [ip_network("127.0.0.0/8")]
    assert scrape(anonymous, **{header: value}) == 401


def test_slash_and_head_and_type(anonymous: APIClient, stub: StubEngine) -> None:
    response = anonymous.get("/metrics/")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=")
    assert anonymous.head("/metrics").status_code == 200
    assert anonymous.post("/metrics").status_code == 405
