"""`manage.py verify_deployment`: what it prints, how it ends, and that it always ends."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import DNSName
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from pytest_django import Settings

from monitoring import deployment
from monitoring.deployment import Check, Verdict, address, asking, own, run
from tests.certificates import self_signed
from tests.platform import free_port

GOOD = Check(name="good", ask=lambda: deployment.ok("as it\nshould be"))
ODD = Check(name="odd", ask=lambda: deployment.warning("look at it"))
BAD = Check(name="bad", ask=lambda: deployment.failed("it does not work"))
UNASKED = Check(name="unasked", ask=lambda: deployment.not_checked("it is not here"))


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """All that is asked in the test."""
    mine: list[Check] = []
    monkeypatch.setattr(own, "CHECKS", mine)
    monkeypatch.setattr(asking, "_checks", {})
    monkeypatch.setattr(address, "checks", lambda _asked: [])
    return mine


def verify(*arguments: str) -> str:
    output = io.StringIO()
    call_command("verify_deployment", *arguments, stdout=output)
    return output.getvalue()


def test_a_line_for_each_check_and_a_count(checks: list[Check], settings: Settings) -> None:
    settings.PUBLIC_BASE_URL = "https://ai.your.org"
    checks += [GOOD, ODD, UNASKED]
    assert verify().splitlines() == [
        "ok           good               as it should be",
        "warning      odd                look at it",
        "not checked  unasked            it is not here",
        "",
        "https://ai.your.org: 3 checks: 1 ok, 1 warning, 0 failed, 1 not checked.",
    ]


def test_a_failure_is_told_by_the_exit_code(checks: list[Check]) -> None:
    checks += [BAD, GOOD]
    output = io.StringIO()
    with pytest.raises(CommandError, match=r"1 of 2 checks failed\.") as raised:
        call_command("verify_deployment", stdout=output)
    assert raised.value.returncode == 1
    assert "failed       bad                it does not work\nok " in output.getvalue()


def test_as_json(checks: list[Check], settings: Settings) -> None:
    checks += [GOOD, UNASKED, BAD]
    output = io.StringIO()
    with pytest.raises(CommandError):
        call_command("verify_deployment", "--json", stdout=output)
    assert json.loads(output.getvalue()) == {
        "address": settings.PUBLIC_BASE_URL,
        "version": settings.VERSION,
        "passed": False,
        "counts": {"ok": 1, "warning": 0, "failed": 1, "not checked": 1},
        "checks": [
            {"name": "good", "verdict": "ok", "why": "as it should be"},
            {"name": "unasked", "verdict": "not checked", "why": "it is not here"},
            {"name": "bad", "verdict": "failed", "why": "it does not work"},
        ],
    }
    del checks[-1]
    assert json.loads(verify("--json"))["passed"] is True


@pytest.mark.parametrize("asks_elsewhere", [True, False])
def test_what_a_check_does_not_expect_is_a_failure(asks_elsewhere: bool) -> None:
    def explode() -> deployment.Finding:
        raise ConnectionResetError("postgres://owner:not-to-be-told@127.0.0.1")

    finding = run(Check(name="loud", ask=explode, asks_elsewhere=asks_elsewhere))
    assert finding == deployment.failed("could not be asked: ConnectionResetError")


@pytest.mark.django_db
def test_without_a_database_every_check_that_needs_one_says_so() -> None:
    def fail(*_: Any) -> None:
        raise DatabaseError("no such role: owner")

    needing = ("clock", "migrations", "audit triggers", "audit trail", "worker", "administrators")
    checks = {check.name: check for check in (*own.CHECKS, *deployment.registered())}
    with connection.execute_wrapper(fail):
        for name in needing:
            assert run(checks[name]) == deployment.failed(
                "the database does not answer, or was never migrated: DatabaseError"
            )


def test_what_hangs_is_given_up() -> None:
    over = threading.Event()

    def hang() -> deployment.Finding:
        over.wait(30)
        return deployment.ok("at last")

    try:
        finding = run(Check(name="silent", ask=hang, asks_elsewhere=True), deadline_s=0.05)
    finally:
        over.set()
    assert finding == deployment.failed("no answer within 0.05 s")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, checks: list[Check]) -> list[address.Address]:
    """What the options made of the address."""
    found: list[address.Address] = []

    def note(given: address.Address) -> list[Check]:
        found.append(given)
        return []

    monkeypatch.setattr(address, "checks", note)
    return found


def test_options(asked: list[address.Address], settings: Settings) -> None:
    settings.PUBLIC_BASE_URL, settings.SERVED_BY_TLS = "https://ai.your.org:8443", True
    settings.BIND, settings.PORT = "127.0.0.1", 8528
    verify()
    verify(
        "--no-public",
        "--http",
        "http://10.0.0.1:81",
        "--web",
        "http://api:8528/",
        "--web",
        "http://b:1",
    )
    settings.SERVED_BY_TLS = False
    verify()
    first, second, _ = asked
    assert (first.base, first.plain) == ("https://ai.your.org:8443", "http://ai.your.org")
    assert first.webs == ("http://127.0.0.1:8528",)
    assert second.plain == "http://10.0.0.1:81"
    assert second.webs == ("http://api:8528", "http://b:1")
    assert [given.is_public_asked for given in asked] == [True, False, False]


@pytest.mark.parametrize("content", [None, "no certificate", "-----BEGIN CERTIFICATE-----\nx"])
@pytest.mark.usefixtures("checks")
def test_an_authority_that_is_none(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CommandError, match=str(file)):
        verify("--ca", str(file))


def test_an_authority_from_standard_input(
    asked: list[address.Address], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = self_signed(DNSName("ai.your.org"), tmp_path / "both.pem")
    monkeypatch.setattr("sys.stdin", io.StringIO(pem))
    verify("--ca", "-")
    # That one, and not the system's besides.
    assert asked[0].trusting.cert_store_stats()["x509"] == 1


@pytest.mark.parametrize("url", ["api:8528", "ftp://api", "http://user:word@api", "http://api/x"])
@pytest.mark.usefixtures("checks")
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(CommandError, match="--web takes http"):
        verify("--web", url)


@pytest.mark.django_db
def test_all_of_them_where_nothing_is_set_up(settings: Settings) -> None:
    """A database, and nothing else: no worker, no engine, no administrator, no web process."""
    settings.ENGINE_URL = f"http://127.0.0.1:{free_port()}"
    settings.PORT = free_port()
    output = io.StringIO()
    with pytest.raises(CommandError, match="checks failed"):
        call_command("verify_deployment", "--json", stdout=output)
    said: dict[str, Any] = json.loads(output.getvalue())
    verdicts = {check["name"]: check["verdict"] for check in said["checks"]}
    assert len(verdicts) == len(said["checks"]) == 22
    failed = {name for name, verdict in verdicts.items() if verdict == Verdict.FAILED}
    assert failed == {"worker", "engine", "administrators", "web process"}
    assert {verdicts[name] for name in ("migrations", "audit triggers", "clock")} == {Verdict.OK}
    secrets = [secret for secret in settings.LOGGING["secrets"] if secret]
    assert len(secrets) > 3
    assert [secret for secret in secrets if secret in output.getvalue()] == []
