"""Where the engine client may connect to, and that it connects there and nowhere else.

An engine on this host or in this house is the point, so loopback and private addresses are fine.
What is refused are the addresses at which a host tells secrets to whoever asks from inside: cloud
metadata and everything link-local, however it is spelled. The name is looked up once, its address
checked, and that very address connected to: a second look-up might give another one.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpx2
import structlog

from consciousness.engine_errors import EngineMisconfigured

IPAddress = IPv4Address | IPv6Address
LookUp = Callable[[str, float], Sequence[str]]

_REFUSED = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # "this" host: connects to loopback under another name
        "169.254.0.0/16",  # link-local, and where most clouds keep their metadata
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "100.100.100.200/32",  # Alibaba's metadata
        "168.63.129.16/32",  # Azure's host agent
        "192.0.0.192/32",  # Oracle's metadata
        "::/128",
        "fe80::/10",  # link-local
        "ff00::/8",  # multicast
        # Metadata in private addresses of IPv6.
        "fd00:42::42/128",  # Scaleway
        "fd00:100::100:200/128",  # Alibaba
        "fd00:a9fe:a9fe::1/128",  # Akamai (Linode)
        "fd00:c1::a9fe:a9fe/128",  # Oracle
        "fd00:ec2::/32",  # Amazon: credentials of pods, time and names besides
        "fd20:ce::254/128",  # Google
    )
)
# IPv6 prefixes whose addresses stand for an IPv4 one, and how far right its 32 bits are.
_EMBEDDING = (
    ("::ffff:0:0/96", 0),  # mapped (RFC 4291)
    ("::ffff:0:0:0/96", 0),  # translated (RFC 2765)
    ("::/96", 0),  # compatible (RFC 4291, deprecated)
    ("64:ff9b::/96", 0),  # NAT64 (RFC 6052)
    ("64:ff9b:1::/48", 0),  # NAT64 inside one network (RFC 8215)
    ("2002::/16", 80),  # 6to4 (RFC 3056)
)
_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[^\s?#@]*)?")
_MAX_PORT = 65_535
_MAX_ADDRESSES = 4  # of one name, tried in turn
_LOOK_UP_S = 2.0

log = structlog.get_logger(__name__)


class AddressRefused(EngineMisconfigured):
    """Nothing may be sent there. Callers are told what they are told of any wrong setting."""


class URLRefused(ValueError):
    """Why a URL cannot be an engine's, for whoever entered it."""


def is_refused(address: IPAddress) -> bool:
    return any(
        spelling in network
        for spelling in _spellings(address)
        for network in _REFUSED
        if spelling.version == network.version
    )


def _spellings(address: IPAddress) -> Iterator[IPAddress]:
    """The address, and the IPv4 addresses that it may be another way to write."""
    yield address
    if isinstance(address, IPv4Address) or address.is_loopback:
        return
    for prefix, shift in _EMBEDDING:
        if address in ip_network(prefix):
            yield IPv4Address(int(address) >> shift & 0xFFFFFFFF)


def check_url(url: str) -> None:
    """Raise URLRefused unless an engine may be at `url` now; each connection is checked again."""
    if not _URL.fullmatch(url):
        raise URLRefused("Expected http(s)://host[:port][/path], without a name or a password.")
    try:
        parsed = httpx2.URL(url)
        if parsed.port is not None and not 0 < parsed.port <= _MAX_PORT:
            raise URLRefused(f"A port is a number from 1 to {_MAX_PORT}.")
        addresses = look_up(parsed.host, _LOOK_UP_S)
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise URLRefused("This is no valid address.") from error
    except OSError as error:
        raise URLRefused("This host name cannot be found from here.") from error
    if not _allowed(addresses):
        raise URLRefused("Link-local, multicast and metadata addresses are refused.")


def _allowed(addresses: Sequence[str]) -> list[str]:
    """Those that may be connected to: a host may well have a link-local address besides."""
    return [address for address in addresses if not is_refused(ip_address(address))]


class PinningTransport(httpx2.BaseTransport):
    """Connects to addresses that were checked. Host header, TLS name and certificate check are
    those of the URL as it was given.

    `transport` must keep no connections: it would know them by address alone, and give one whose
    certificate was checked for another name.
    """

    def __init__(self, transport: httpx2.BaseTransport, *, look_up: LookUp | None = None) -> None:
        self._transport, self._look_up = transport, look_up
        self._told: Sequence[str] = ()  # what the log knows to be refused

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises AddressRefused, or httpx2.ConnectError and ConnectTimeout like any transport."""
        limits = dict(request.extensions.get("timeout", {}))
        connect_s: float = limits.get("connect") or _LOOK_UP_S
        until_s = time.monotonic() + connect_s
        failure: httpx2.TransportError | None = None
        for address in self._addresses(request.url, connect_s)[:_MAX_ADDRESSES]:
            # The name's addresses share the time that one would have.
            limits["connect"] = max(0.001, until_s - time.monotonic())
            try:
                return self._transport.handle_request(_pinned(request, address, limits))
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error  # nothing was sent yet
        raise failure or httpx2.ConnectError("the name has no address")

    def _addresses(self, url: httpx2.URL, timeout_s: float) -> list[str]:
        try:
            found = (self._look_up or look_up)(url.host, timeout_s)
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("the look-up takes too long") from error
        except (OSError, UnicodeError) as error:
            raise httpx2.ConnectError("the name cannot be found") from error
        allowed = _allowed(found)
        if found and not allowed:
            if found != self._told:  # one line, not one a second
                log.error("engine_address_refused", host=url.host, addresses=list(found))
            self._told = found
            raise AddressRefused
        self._told = ()
        return allowed

    def close(self) -> None:
        self._transport.close()


def _pinned(
    request: httpx2.Request, address: str, limits: dict[str, float | None]
) -> httpx2.Request:
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,  # the Host of the URL among them
        stream=request.stream,
        extensions={
            **request.extensions,
            "timeout": limits,
            "sni_hostname": request.url.raw_host.decode("ascii"),
        },
    )


class _Question:
    """One look-up in a thread of its own: the resolver knows no timeout."""

    def __init__(self, host: str) -> None:
        self.done = threading.Event()
        self.addresses: list[str] = []
        self.error: Exception | None = None
        self._host = host
        threading.Thread(target=self._run, name="engine-look-up", daemon=True).start()

    def _run(self) -> None:
        try:
            found = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
            self.addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        except (OSError, UnicodeError) as error:
            self.error = error
        with _questions_lock:
            del _questions[self._host]
        self.done.set()


_questions: dict[str, _Question] = {}  # those not answered yet, by name
_questions_lock = threading.Lock()


def look_up(host: str, timeout_s: float) -> Sequence[str]:
    """The addresses of a host name, in the resolver's order; of an address, itself.

    Raises OSError for a name without one and TimeoutError, which is an OSError too, after
    `timeout_s`. Of one name, one look-up runs at a time: a hung resolver costs one thread.
    """
    try:
        return [str(ip_address(host))]
    except ValueError:  # a name, or an unusual spelling that the resolver knows
        pass
    with _questions_lock:
        question = _questions.get(host)
        if question is None:
            question = _questions[host] = _Question(host)
    if not question.done.wait(timeout_s):
        raise TimeoutError
    if question.error:
        raise question.error
    return question.addresses
