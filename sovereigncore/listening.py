"""At which addresses this host is reached. Needs no settings, so that settings can use it."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address

import psutil


def own_addresses(bind: str) -> list[str]:
    """Where a server that listens on `bind` is reached, as Host headers write it. Loopback is left
    out, so the list is empty for a server that only this host reaches.

    Scrapers and load balancers ask each process by its address. A Host that is a number is no
    danger: no name leads a browser to it, and links are never built on it.
    """
    if bind == "localhost" or ip_address(bind).is_loopback:
        return []
    addresses = {bind}
    if ip_address(bind).is_unspecified:
        # `::` takes IPv4 as well.
        families = {socket.AF_INET} if bind == "0.0.0.0" else {socket.AF_INET, socket.AF_INET6}  # noqa: S104
        addresses = {
            entry.address.partition("%")[0]
            for entries in psutil.net_if_addrs().values()
            for entry in entries
            if entry.family in families
        }
    parsed = sorted(
        (ip_address(address) for address in addresses), key=lambda each: (each.version, int(each))
    )
    return [
        f"[{each}]" if isinstance(each, IPv6Address) else str(each)
        for each in parsed
        if not each.is_loopback
    ]
