"""What `verify_deployment` asks by HTTP: each check where all is well, and where it is not."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography.x509 import IPAddress
from pytest_django import Settings

from monitoring.deployment import Finding, Verdict, address, by_http, run
from monitoring.deployment.address import Address
from monitoring.tests.front import Front
from tests.certificates import self_signed
from tests.platform import free_port

pytestmark = pytest.mark.once

TOKEN = "of-the-scraper-f8a41c07"
NAMES = (
    *("web process", "metrics token", "public address", "certificate", "redirect to https"),
    *("HSTS", "metrics closed"),
)
HSTS = ("Strict-Transport-Security", "max-age=31536000; includeSubDomains")


def certified(folder: Path, *, valid_days: float = 90) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's, client's) contexts."""
    both = folder / "both.pem"
    pem = self_signed(IPAddress(ip_address("127.0.0.1")), both, valid_days=valid_days)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(both)
    return server, by_http.context_for(pem)


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return certified(tmp_path)


@pytest.fixture
def public(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Front]:
    with Front(contexts[0]) as front:
        front.answers = {
            "/": (200, [HSTS], "welcome"),
            "/live": (200, [], '{"status": "alive"}'),
        }
        yield front


@pytest.fixture
def plain(public: Front) -> Iterator[Front]:
    with Front() as front:
        front.answers["/login"] = (308, [("Location", f"{public.url}/login")], "")
        yield front


@pytest.fixture
def web(settings: Settings) -> Iterator[Front]:
    settings.METRICS_TOKEN = TOKEN
    with Front() as front:
        up = '{"components": {"database": {"status": "up"}, "engine": {"status": "up"}}}'
        front.answers = {"/health": (200, [], up)}
        yield front


@pytest.fixture
def asked(
    public: Front, plain: Front, web: Front, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> Address:
    return Address(
        webs=(web.url,),
        base=public.url,
        plain=plain.url,
        is_public_asked=True,
        trusting=contexts[1],
    )


def find(asked: Address, name: str) -> Finding:
    (check,) = (check for check in address.checks(asked) if check.name == name)
    finding = run(check)
    assert TOKEN not in finding.why
    return finding


def test_an_address_as_it_should_be(asked: Address) -> None:
    assert tuple(check.name for check in address.checks(asked)) == NAMES
    for name in NAMES:
        if name != "metrics token":  # has a test of its own
            assert find(asked, name).verdict is Verdict.OK, name
    assert find(asked, "metrics closed").why == f"{asked.base}/metrics answers 404"


def test_a_web_process_is_asked_under_the_public_name(asked: Address, web: Front) -> None:
    finding = find(asked, "web process")
    assert finding.why == f"{web.url} has database, engine"
    assert web.asked == [("/health", asked.base.removeprefix("https://"))]


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (503, '{"components": {"database": {"status": "timeout"}}}', "misses database"),
        (
            200,
            '{"components": {"database": {"status": "up"}, "cache": {"status": "down"}}}',
            "misses cache",
        ),
        (400, "no such host", "answers 400"),
    ],
)
def test_a_web_process_that_is_not_well(
    asked: Address, web: Front, status: int, body: str, why: str
) -> None:
    web.answers["/health"] = (status, [], body)
    finding = find(asked, "web process")
    assert finding.verdict is Verdict.FAILED
    assert why in finding.why


def test_every_web_process_is_asked(asked: Address, web: Front) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    finding = find(replace(asked, webs=(web.url, gone)), "web process")
    assert finding == Finding(verdict=Verdict.FAILED, why=f"{gone} does not answer: ConnectError")


@pytest.mark.parametrize("name", NAMES)
def test_where_nobody_answers(asked: Address, name: str) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    away = replace(
        asked, webs=(f"http://{nobody}",), base=f"https://{nobody}", plain=f"http://{nobody}"
    )
    finding = find(away, name)
    assert finding.verdict is Verdict.FAILED
    assert finding.why.startswith(("http://", "https://"))
    assert "does not answer: Connect" in finding.why


def test_the_token_opens_the_metrics_and_nothing_else_does(asked: Address, web: Front) -> None:
    web.answers["/metrics"] = (200, [], "sovereigncore_up 1\n")
    open_to_all = find(asked, "metrics token")
    assert open_to_all.verdict is Verdict.FAILED
    assert "answers 200 to who has no token" in open_to_all.why
    web.token = TOKEN
    assert find(asked, "metrics token").verdict is Verdict.OK
    web.token = "another one"
    refused = find(asked, "metrics token")
    assert refused.verdict is Verdict.FAILED
    assert "answers 401 to METRICS_TOKEN" in refused.why


def test_without_a_token_there_is_nothing_to_try(asked: Address, settings: Settings) -> None:
    settings.METRICS_TOKEN = ""
    assert find(asked, "metrics token").verdict is Verdict.NOT_CHECKED


def test_a_proxy_without_a_platform(asked: Address, public: Front) -> None:
    public.answers["/live"] = (502, [], "bad gateway")
    finding = find(asked, "public address")
    assert finding.verdict is Verdict.FAILED
    assert finding.why.endswith("/live answers 502")


def test_a_certificate_that_nobody_here_trusts(asked: Address) -> None:
    stranger = replace(asked, trusting=by_http.context_for(""))
    finding = find(stranger, "certificate")
    assert finding.verdict is Verdict.FAILED
    assert finding.why == "it is not to be trusted: self-signed certificate"
    # Nor is anything else told to a server that cannot prove who it is.
    assert find(stranger, "public address").verdict is Verdict.FAILED


@pytest.mark.parametrize(("days", "verdict"), [(13, Verdict.FAILED), (15, Verdict.OK)])
def test_a_certificate_that_ends_soon(
    asked: Address, tmp_path: Path, days: int, verdict: Verdict
) -> None:
    server, client = certified(tmp_path, valid_days=days)
    with Front(server) as front:
        finding = find(replace(asked, base=front.url, trusting=client), "certificate")
    assert finding.verdict is verdict


def test_a_certificate_that_has_ended(asked: Address, tmp_path: Path) -> None:
    server, client = certified(tmp_path, valid_days=-0.5)
    with Front(server) as front:
        finding = find(replace(asked, base=front.url, trusting=client), "certificate")
    assert finding.verdict is Verdict.FAILED
    assert "expired" in finding.why


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, [], "welcome"), "answers 200 instead of leading to https"),
        ((308, [("Location", "http://127.0.0.1/login")], ""), "leads to http://127.0.0.1"),
        ((308, [("Location", "https://else.where/login")], ""), "leads to https://else.where"),
        ((308, [], ""), "leads to ://"),
    ],
)
def test_plain_http_that_does_not_lead_to_tls(
    asked: Address, plain: Front, answer: tuple[int, list[tuple[str, str]], str], why: str
) -> None:
    plain.answers["/login"] = answer
    finding = find(asked, "redirect to https")
    assert finding.verdict is Verdict.FAILED
    assert why in finding.why


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ([], "sent 0 times"),
        ([HSTS, HSTS], "sent 2 times"),
        ([(HSTS[0], "max-age=3600")], "does not last 180 days"),
        ([(HSTS[0], "includeSubDomains")], "does not last 180 days"),
    ],
)
def test_hsts_that_does_not_hold(
    asked: Address, public: Front, sent: list[tuple[str, str]], why: str
) -> None:
    public.answers["/"] = (200, sent, "welcome")
    finding = find(asked, "HSTS")
    assert finding.verdict is Verdict.FAILED
    assert why in finding.why


def test_metrics_that_everybody_reads(asked: Address, public: Front) -> None:
    public.answers["/metrics"] = (200, [], "sovereigncore_up 1\n")
    finding = find(asked, "metrics closed")
    assert finding.verdict is Verdict.FAILED
    assert finding.why == f"{asked.base}/metrics answers 200 to everybody"


def test_what_is_not_asked_says_why(asked: Address, plain: Front, settings: Settings) -> None:
    inside = replace(asked, is_public_asked=False)
    for name in NAMES[2:]:
        finding = find(inside, name)
        assert finding.verdict is Verdict.NOT_CHECKED
        assert "--public" in finding.why
    in_the_clear = replace(asked, base=plain.url)
    for name in ("certificate", "redirect to https", "HSTS"):
        assert find(in_the_clear, name) == Finding(
            verdict=Verdict.NOT_CHECKED, why="PUBLIC_BASE_URL is http"
        )
    settings.METRICS_TOKEN = ""
    assert find(in_the_clear, "metrics closed").verdict is Verdict.NOT_CHECKED


@pytest.mark.parametrize(
    ("bind", "web"),
    [
        ("127.0.0.1", "http://127.0.0.1:8999"),
        ("0.0.0.0", "http://127.0.0.1:8999"),  # noqa: S104
        ("::", "http://[::1]:8999"),
        ("10.0.0.7", "http://10.0.0.7:8999"),
    ],
)
def test_where_a_web_process_is_looked_for(settings: Settings, bind: str, web: str) -> None:
    settings.BIND, settings.PORT = bind, 8999
    assert address.default_web() == web


def test_where_plain_http_is_looked_for() -> None:
    assert address.default_plain("https://ai.your.org:8443") == "http://ai.your.org"
    assert address.default_plain("https://[::1]:8443") == "http://[::1]"
