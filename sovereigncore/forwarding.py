"""Who is calling: the address behind proxies that the operator trusts, and nobody else's word.

Pure functions over strings; `ForwardedHeadersMiddleware` is the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

_NO_ADDRESS = "0.0.0.0"  # noqa: S104 - a placeholder for a socket without a peer address

# As WSGI spells them. Proxies and CDNs put these on what they pass on, some of them only one.
_BY_PROXIES = "HTTP_X_FORWARDED"  # -For, -Proto, -Host, -Port, -Server, -Ssl, …
_BY_A_PROXY = {
    *("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP", "HTTP_X_CLIENT_IP", "HTTP_CLIENT_IP"),
    *("HTTP_CF_CONNECTING_IP", "HTTP_CF_CONNECTING_IPV6", "HTTP_TRUE_CLIENT_IP", "HTTP_CDN_LOOP"),
    *("HTTP_FASTLY_CLIENT_IP", "HTTP_X_CLUSTER_CLIENT_IP", "HTTP_X_ORIGINAL_FORWARDED_FOR"),
}


def is_by_a_proxy(header: str) -> bool:
    return header in _BY_A_PROXY or header.startswith(_BY_PROXIES)


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The caller's address.

    `forwarded_for` is read from right to left while the hop that wrote it is trusted. Anything
    that is no address ends the walk at the last hop that was one: never an exception, never a
    value that the caller made up.
    """
    current = _parse(peer)
    if current is None:
        return _NO_ADDRESS
    for hop in reversed(forwarded_for.split(",")):
        if not _is_trusted(current, trusted):
            break
        address = _parse(hop.strip())
        if address is None:
            break
        current = address
    return str(current)


def is_trusted(peer: str, trusted: Sequence[Network]) -> bool:
    address = _parse(peer)
    return address is not None and _is_trusted(address, trusted)


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        # One caller must not have two names: ::ffff:192.0.2.1 is 192.0.2.1, and a zone is local.
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address.scope_id:
            return IPv6Address(str(address).partition("%")[0])
    return address
