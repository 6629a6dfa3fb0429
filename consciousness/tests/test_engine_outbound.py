"""Where the engine client connects, and where it never does, whatever a name or a URL says."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import httpx2
import pytest
from cryptography.x509 import DNSName

from consciousness import engine_errors as errors
from consciousness import engine_outbound
from consciousness.engine import Engine
from consciousness.engine_outbound import (
    PinningTransport,
    URLRefused,
    check_url,
    is_refused,
    look_up,
)
from consciousness.tests.generating import a_deaf_port, takes_at_most
from consciousness.tests.raw_server import RawServer, models_reply
from tests.certificates import contexts
from tests.log_capture import LogCapture

pytestmark = pytest.mark.once

METADATA = "169.254.169.254"
REFUSED = [
    METADATA,
    "169.254.0.1",
    "169.254.170.2",  # Amazon's, for containers
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "0.0.0.0",  # noqa: S104 - nobody listens there
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "febf:ffff::1",
    "ff02::1",
    "fd00:42::42",
    "fd00:100::100:200",
    "fd00:a9fe:a9fe::1",
    "fd00:c1::a9fe:a9fe",
    "fd00:ec2::254",
    "fd00:ec2::23",  # Amazon's, for pods
    "fd20:ce::254",
    f"::ffff:{METADATA}",
    "::ffff:a9fe:a9fe",
    f"::ffff:0:{METADATA}",
    f"::{METADATA}",
    f"64:ff9b::{METADATA}",
    f"64:ff9b:1::{METADATA}",
    "2002:a9fe:a9fe::1",
    "::ffff:100.100.100.200",
    "64:ff9b::6464:64c8",
    "::ffff:0.0.0.0",
    "::ffff:224.0.0.1",
]
ALLOWED = [
    "127.0.0.1",
    "127.8.8.8",
    "::1",
    "::ffff:127.0.0.1",
    "10.0.0.3",
    "172.17.0.2",
    "192.168.1.20",
    "100.64.0.7",  # of a private overlay network
    "100.100.100.201",
    "169.253.255.255",
    "169.255.0.0",
    "203.0.113.9",
    "fd00::20",
    "fd00:42::43",
    "fd00:ec3::254",
    "2001:db8::1",
    "64:ff9b::203.0.113.9",
    "::ffff:192.168.1.20",
]


class FakeResolver:
    """Answers each look-up with the next of `answers`, the last one for ever."""

    def __init__(self, *answers: Sequence[str] | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, timeout_s: float) -> Sequence[str]:
        self.asked.append(host)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def resolve_by(monkeypatch: pytest.MonkeyPatch, resolver: FakeResolver) -> FakeResolver:
    monkeypatch.setattr(engine_outbound, "look_up", resolver)
    return resolver


def port_of(server: RawServer) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_refused(address: str) -> None:
    assert is_refused(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ALLOWED)
def test_addresses_that_are_fine(address: str) -> None:
    assert not is_refused(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host",
    [
        METADATA,
        "2852039166",
        "0xA9FEA9FE",
        "0xa9.0xfe.0xa9.0xfe",
        "169.254.43518",
        "169.16689662",
        "0251.0376.0251.0376",
        "025177524776",
        "0",
        "0x0",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[0:0:0:0:0:ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[fd00:ec2::254]",
        "[FD00:EC2:0:0::254]",
        "[fe80::1]",
        "[::]",
        "100.100.100.200",
        "0x646464c8",
        "1684301000",
    ],
)
def test_no_spelling_of_a_refused_address_is_connected_to_or_saved(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real resolver: these need no network."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it was connected to"))
    url = f"http://{host}:8000"
    with pytest.raises(URLRefused):
        check_url(url)
    with pytest.raises(errors.EngineError):
        Engine(url=url, api_key="secret").models()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "engine",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70",
        "http://127.0.0.1:0",
        "http://127.0.0.1:65536",
        "http://127.0.0.1:99999/openai",
        "http://127.0.0.1:٨٠٨٠",
        "http://",
        "http:///v1",
        "http://user:password@127.0.0.1",
        "http://127.0.0.1#@169.254.169.254",
        "http://127.0.0.1?x=1",
        "http://127.0.0.1\\@169.254.169.254",
        "http://127.0.0.1 169.254.169.254",
        "http://127.0.0.1:8000\n",
        "http://127.0.0.1:999999",
        "http://127.0.0.1:8000:1",
        "http://[::1",
        "http://[::1]x",
        "http://[zz::1]",
        "http://999.1.1.1",
        "http://.",
        "http://..",
        "http://1%32.0.0.1",
        "http://ⓛocalhost",
        "http://xn--\u0661",
    ],
)
def test_urls_that_are_none_of_an_engine(url: str) -> None:
    with pytest.raises(URLRefused):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:11434",
        "http://localhost:8000",
        "https://127.0.0.1/openai",
        "http://[::1]:8000/x/y",
        "http://2130706433:1",
    ],
)
def test_urls_of_this_host(url: str) -> None:
    check_url(url)


def test_a_url_is_judged_by_what_its_name_means(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = resolve_by(
        monkeypatch,
        FakeResolver(
            [METADATA],
            ["10.0.0.3"],
            ["fe80::1", "10.0.0.3"],
            [],
            OSError("no such name"),
            TimeoutError(),
        ),
    )
    with pytest.raises(URLRefused, match="refused"):
        check_url("http://metadata.google.internal")
    check_url("http://gpu:8000")
    check_url("http://gpu.local:8000")  # a neighbour's link-local address is passed over
    with pytest.raises(URLRefused, match="refused"):
        check_url("http://nothing:8000")
    for _ in range(2):
        with pytest.raises(URLRefused, match="cannot be found"):
            check_url("http://typo:8000")
    assert resolver.asked[:3] == ["metadata.google.internal", "gpu", "gpu.local"]


def test_the_address_that_was_checked_is_the_one_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that means this host when it is checked, and the metadata service when it is asked
    again, as a rebinding attacker has it."""
    with RawServer(lambda _request: models_reply("m")) as server:
        resolver = resolve_by(monkeypatch, FakeResolver(["127.0.0.1"], [METADATA]))
        engine = Engine(url=f"http://engine.test:{port_of(server)}", api_key="key")
        assert engine.models()[0].id == "m"
        assert resolver.asked == ["engine.test"]
        (request,) = server.requests
        assert request.headers["host"] == f"engine.test:{port_of(server)}"
        with pytest.raises(errors.EngineMisconfigured):  # each connection is checked
            engine.models(fresh=True)
        assert server.connections == 1


def test_a_refused_address_is_the_operators_affair_and_in_the_log(
    monkeypatch: pytest.MonkeyPatch, logs: LogCapture
) -> None:
    resolve_by(monkeypatch, FakeResolver([METADATA, "fe80::1"]))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it was connected to"))
    engine = Engine(url="http://engine.test", api_key="key")
    for _ in range(3):
        with pytest.raises(errors.EngineMisconfigured) as raised:
            engine.models()
    assert METADATA not in f"{raised.value} {raised.value.detail}"
    (event,) = logs.events("engine_address_refused")
    assert event["host"] == "engine.test"
    assert event["addresses"] == [METADATA, "fe80::1"]


@pytest.mark.parametrize(
    ("answer", "is_unreachable"),
    [(OSError("no such name"), True), ([], True), (TimeoutError(), False)],
)
def test_a_name_that_means_nothing_is_an_engine_that_is_away(
    monkeypatch: pytest.MonkeyPatch, answer: Exception | list[str], is_unreachable: bool
) -> None:
    resolve_by(monkeypatch, FakeResolver(answer))
    with pytest.raises(errors.EngineUnavailable) as raised:
        Engine(url="http://engine.test", api_key="").models()
    assert raised.value.is_unreachable is is_unreachable


def test_the_next_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(lambda _request: models_reply("m")) as server:
        resolve_by(monkeypatch, FakeResolver([METADATA, "127.0.0.2", "127.0.0.1"]))
        engine = Engine(url=f"http://engine.test:{port_of(server)}", api_key="")
        assert engine.models()[0].id == "m"  # nothing listens on 127.0.0.2


def test_all_addresses_share_the_time_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_deaf_port() as port:
        resolve_by(monkeypatch, FakeResolver(["127.0.0.1"] * 100))
        engine = Engine(url=f"http://engine.test:{port}", api_key="")
        with takes_at_most(5.0), pytest.raises(errors.EngineUnavailable) as raised:
            engine.models(timeout_s=0.2)
        assert not raised.value.is_unreachable


def test_a_connection_has_the_headers_body_and_deadlines_of_its_request() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200)

    resolver = FakeResolver(["10.0.0.3"])
    transport = PinningTransport(httpx2.MockTransport(answer), look_up=resolver)
    with httpx2.Client(base_url="https://engine.test/openai", transport=transport) as client:
        timeout = httpx2.Timeout(7, connect=3)
        client.post("/v1/x?y=1", content=b"body", headers={"X-A": "b"}, timeout=timeout)
    (request,) = seen
    assert str(request.url) == "https://10.0.0.3/openai/v1/x?y=1"
    assert request.headers["host"] == "engine.test"
    assert request.headers["x-a"] == "b"
    assert request.read() == b"body"
    assert request.extensions["sni_hostname"] == "engine.test"
    assert request.extensions["timeout"]["read"] == 7
    assert 2.5 < request.extensions["timeout"]["connect"] <= 3


def test_tls_asks_for_the_name_and_checks_the_certificate_against_it(tmp_path: Path) -> None:
    server_tls, client_tls = contexts(DNSName("engine.test"), tmp_path)
    names: list[str | None] = []
    server_tls.sni_callback = lambda _socket, name, _context: names.append(name)
    resolver = FakeResolver(["127.0.0.1"])
    connections = httpx2.HTTPTransport(
        verify=client_tls, limits=httpx2.Limits(max_keepalive_connections=0)
    )
    transport = PinningTransport(connections, look_up=resolver)
    with (
        RawServer(lambda _request: models_reply("m"), tls=server_tls) as server,
        httpx2.Client(transport=transport) as client,
    ):
        assert client.get(f"https://engine.test:{port_of(server)}/v1/models").status_code == 200
        assert names == ["engine.test"]
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            client.get(f"https://other.test:{port_of(server)}/v1/models")
        assert len(server.requests) == 1


def test_looking_up_an_address_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it was looked up"))
    assert look_up("10.0.0.3", 1) == ["10.0.0.3"]
    assert look_up("fd00::20", 1) == ["fd00::20"]


def test_a_look_up_gives_each_address_once() -> None:
    assert set(look_up("localhost", 5)) <= {"127.0.0.1", "::1"}
    assert len(set(look_up("localhost", 5))) == len(look_up("localhost", 5)) > 0


def test_a_hung_resolver_holds_one_thread_and_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hung, asked = threading.Event(), []

    def getaddrinfo(host: str, *_: object, **__: object) -> object:
        asked.append(host)
        assert hung.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.3", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for _ in range(3):
        with takes_at_most(5.0), pytest.raises(TimeoutError):
            look_up("engine.test", 0.05)
    assert asked == ["engine.test"]
    hung.set()
    until_s = time.monotonic() + 5
    while engine_outbound._questions:
        assert time.monotonic() < until_s
        time.sleep(0.005)
    assert look_up("engine.test", 5) == ["10.0.0.3"]
    assert len(asked) == 2


def test_a_name_without_an_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(socket.gaierror):
        look_up("engine.test", 5)
    assert engine_outbound._questions == {}
