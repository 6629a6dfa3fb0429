"""The addresses that a host is reached at, from what its network interfaces say."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import psutil
import pytest

from sovereigncore.listening import own_addresses

pytestmark = pytest.mark.once


def interface(*addresses: str) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(
            family=socket.AF_INET6 if ":" in address else socket.AF_INET, address=address
        )
        for address in addresses
    ]


@pytest.fixture(autouse=True)
def _interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(family=psutil.AF_LINK, address="02:42:ac:1e:01:82")
    found = {
        "lo": interface("127.0.0.1", "::1"),
        "eth0": [card, *interface("172.30.1.130", "fe80::42:acff:fe1e:182%eth0")],
        "eth1": interface("172.30.3.2"),
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_loopback_is_reached_by_nobody_else(bind: str) -> None:
    assert own_addresses(bind) == []


def test_one_address_is_itself() -> None:
    assert own_addresses("172.30.3.2") == ["172.30.3.2"]
    assert own_addresses("2001:db8::1") == ["[2001:db8::1]"]


def test_all_addresses_are_those_of_the_interfaces() -> None:
    assert own_addresses("0.0.0.0") == ["172.30.1.130", "172.30.3.2"]  # noqa: S104
    assert own_addresses("::") == [
        *("172.30.1.130", "172.30.3.2"),
        "[fe80::42:acff:fe1e:182]",
    ]
