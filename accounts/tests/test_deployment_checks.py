"""What `verify_deployment` asks about mail and administrators."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django_otp.plugins.otp_totp.models import TOTPDevice
from pytest_django import Settings

from accounts import deployment_checks
from accounts.deployment_checks import ask_administrators, ask_mail
from accounts.models import User
from monitoring.deployment import Verdict
from tests.platform import free_port
from tests.smtp_sink import Behaviour, SMTPSink

MAILBOX_PASSWORD = "of-the-mailbox-5512"


@pytest.fixture
def sink(settings: Settings) -> Iterator[SMTPSink]:
    with SMTPSink() as sink:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_URL = f"smtp://platform:{MAILBOX_PASSWORD}@127.0.0.1:{sink.port}"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", sink.port
        settings.EMAIL_HOST_USER = "platform"
        settings.EMAIL_HOST_PASSWORD = MAILBOX_PASSWORD
        yield sink


def test_a_mail_server_that_lets_us_in(sink: SMTPSink) -> None:
    finding = ask_mail()
    assert finding.verdict is Verdict.OK
    assert finding.why == f"127.0.0.1:{sink.port} takes the connection and the login"
    assert sink.connections == 1
    assert sink.received == []


def test_a_mail_server_that_refuses_the_login(sink: SMTPSink) -> None:
    """And repeats the password, which the finding does not."""
    sink.behaviour = Behaviour.REFUSE_LOGIN
    finding = ask_mail()
    assert finding.verdict is Verdict.FAILED
    assert finding.why == f"127.0.0.1:{sink.port} refuses the login (535)"


def test_a_mail_server_that_says_nothing(sink: SMTPSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment_checks, "_TIMEOUT_S", 0.2)
    sink.behaviour = Behaviour.HANG_AT_GREETING
    finding = ask_mail()
    assert finding.verdict is Verdict.FAILED
    assert finding.why == f"127.0.0.1:{sink.port} takes no connection: SMTPServerDisconnected"


def test_a_mail_server_that_is_away(sink: SMTPSink, settings: Settings) -> None:
    settings.EMAIL_PORT = free_port()
    finding = ask_mail()
    assert finding.verdict is Verdict.FAILED
    assert finding.why.endswith("takes no connection: ConnectionRefusedError")


def test_mail_in_the_clear_to_another_host(sink: SMTPSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment_checks, "_LOOPBACK", ())
    finding = ask_mail()
    assert finding.verdict is Verdict.WARNING
    assert "in the clear" in finding.why


def test_without_a_mail_server(settings: Settings) -> None:
    settings.EMAIL_URL = ""
    assert ask_mail().verdict is Verdict.NOT_CHECKED


def test_without_an_administrator(alice: User) -> None:
    finding = ask_administrators()
    assert finding.verdict is Verdict.FAILED
    assert finding.why == "there is none: run `bootstrap`"


def test_an_administrator_who_is_disabled_is_none(staff: User) -> None:
    User.objects.filter(pk=staff.pk).update(is_active=False)
    assert ask_administrators().verdict is Verdict.FAILED


@pytest.mark.parametrize(("is_required", "verdict"), [(False, "warning"), (True, "failed")])
def test_staff_without_a_second_factor(
    staff: User, settings: Settings, is_required: bool, verdict: str
) -> None:
    settings.ADMIN_REQUIRE_OTP = is_required
    TOTPDevice.objects.create(user=staff, name="authenticator", confirmed=False)  # half-way
    finding = ask_administrators()
    assert finding.verdict is Verdict(verdict)
    assert finding.why.startswith("1 of 1 in the staff have no second factor")
    assert "grace" not in finding.why


def test_staff_with_a_second_factor(staff: User, settings: Settings) -> None:
    settings.ADMIN_REQUIRE_OTP = True
    TOTPDevice.objects.create(user=staff, name="authenticator", confirmed=True)
    finding = ask_administrators()
    assert finding.verdict is Verdict.OK
    assert finding.why == "1 in the staff, all with a second factor"
