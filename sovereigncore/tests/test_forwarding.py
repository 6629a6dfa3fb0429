"""Whose address a request has: never an exception, never the word of somebody untrusted."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings
from rest_framework.test import APIClient

from sovereigncore.forwarding import Network, client_address, is_trusted
from tests.log_capture import LogCapture

PROXIES: Sequence[Network] = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]
NOBODY: Sequence[Network] = []
CALLER = "203.0.113.7"
UNKNOWN = "0.0.0.0"  # noqa: S104 - a socket without an address

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
anything = st.one_of(st.text(max_size=60), addresses)
headers = st.one_of(st.text(max_size=100), st.lists(anything, max_size=6).map(", ".join))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", CALLER, CALLER),
        ("10.0.0.1", f"198.51.100.1, {CALLER}", CALLER),
        ("10.0.0.1", f"198.51.100.1, {CALLER}, 10.0.0.2", CALLER),
        ("10.0.0.1", f"{CALLER}, 10.0.0.3, 10.0.0.2", CALLER),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", f"  {CALLER}  ", CALLER),
        ("10.0.0.1", f"{CALLER},", "10.0.0.1"),
        ("10.0.0.1", f"{CALLER}, unknown", "10.0.0.1"),
        ("10.0.0.1", f"{CALLER}, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", f"{CALLER}:1234", "10.0.0.1"),
        ("10.0.0.1", "\u0663.1.1.1", "10.0.0.1"),
        ("10.0.0.1", "::ffff:203.0.113.7", CALLER),
        ("10.0.0.1", "fe80::1%eth0", "fe80::1"),
        ("::ffff:10.0.0.1", CALLER, CALLER),
        ("2001:db8::1", CALLER, CALLER),
        ("2001:DB8:0:0::2", "2001:db8:0:0:0:0:0:9", "2001:db8::9"),
        ("192.0.2.1", CALLER, "192.0.2.1"),
        ("192.0.2.1", "10.0.0.1", "192.0.2.1"),
        ("", CALLER, UNKNOWN),
        ("unix:/run/socket", CALLER, UNKNOWN),
    ],
)
def test_the_address_is_the_last_that_a_trusted_hop_vouches_for(
    peer: str, forwarded_for: str, address: str
) -> None:
    assert client_address(peer, forwarded_for, PROXIES) == address


@given(anything, headers)
def test_it_is_always_an_address(peer: str, forwarded_for: str) -> None:
    assert ip_address(client_address(peer, forwarded_for, PROXIES))


@given(addresses, headers)
def test_without_trusted_proxies_it_is_the_peer(peer: str, forwarded_for: str) -> None:
    alone = client_address(peer, "", NOBODY)
    assert client_address(peer, forwarded_for, NOBODY) == alone


@given(addresses.filter(lambda text: not is_trusted(text, PROXIES)), headers)
def test_what_an_untrusted_peer_writes_changes_nothing(peer: str, forwarded_for: str) -> None:
    alone = client_address(peer, "", PROXIES)
    assert client_address(peer, forwarded_for, PROXIES) == alone


@given(headers, addresses.filter(lambda text: not is_trusted(text, PROXIES)))
def test_what_a_caller_writes_before_our_proxy_changes_nothing(prefix: str, caller: str) -> None:
    honest = client_address("10.0.0.1", caller, PROXIES)
    assert client_address("10.0.0.1", f"{prefix}, {caller}", PROXIES) == honest


@given(anything)
def test_a_peer_is_trusted_when_its_word_counts(peer: str) -> None:
    assert is_trusted(peer, NOBODY) is False
    assert is_trusted(peer, PROXIES) is (client_address(peer, CALLER, PROXIES) == CALLER)


def logged_address(logs: LogCapture) -> str:
    (access,) = logs.events("request")
    address: str = access["address"]
    return address


def test_headers_of_strangers_are_dropped(
    anonymous: APIClient, settings: Settings, logs: LogCapture, db: None
) -> None:
    settings.TRUSTED_PROXIES = PROXIES
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    response = anonymous.get(
        "/",
        REMOTE_ADDR="192.0.2.1",
        HTTP_X_FORWARDED_FOR=CALLER,
        HTTP_X_FORWARDED_PROTO="https",
        HTTP_X_FORWARDED_HOST="evil.example",
        HTTP_X_REAL_IP=CALLER,
        HTTP_FORWARDED=f"for={CALLER}",
        HTTP_VIA="1.1 proxy",
        HTTP_CF_CONNECTING_IP=CALLER,
    )
    assert response.status_code == 200
    request = response.wsgi_request
    assert logged_address(logs) == "192.0.2.1"
    assert not request.is_secure()
    of_proxies = ("FORWARDED", "REAL_IP", "VIA", "CONNECTING")
    left = [name for name in request.META if any(word in name for word in of_proxies)]
    assert left == ["WAS_FORWARDED"]
    assert request.META["WAS_FORWARDED"] is True


def test_a_trusted_proxy_is_believed(
    anonymous: APIClient, settings: Settings, logs: LogCapture, db: None
) -> None:
    settings.TRUSTED_PROXIES = PROXIES
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    response = anonymous.get(
        "/",
        REMOTE_ADDR="10.0.0.1",
        HTTP_X_FORWARDED_FOR=f"198.51.100.1, {CALLER}",
        HTTP_X_FORWARDED_PROTO="https",
        HTTP_X_FORWARDED_HOST="evil.example",
    )
    assert response.status_code == 200
    request = response.wsgi_request
    assert logged_address(logs) == CALLER
    assert request.META["PEER_ADDR"] == "10.0.0.1"
    assert request.is_secure()
    assert request.get_host().startswith("testserver")


@pytest.mark.parametrize("value", ["", "unknown", "'; DROP TABLE x", "1" * 5000, "\x80", "::::"])
def test_an_unparsable_address_is_the_peers(
    anonymous: APIClient, settings: Settings, logs: LogCapture, db: None, value: str
) -> None:
    settings.TRUSTED_PROXIES = PROXIES
    response = anonymous.get("/api/v1/auth/me", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=value)
    assert response.status_code == 401
    assert logged_address(logs) == "10.0.0.1"
