"""`check --deploy`: what an operator hears about settings that start all the same."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from pytest_django import Settings

from sovereigncore.checks import deployment


@pytest.fixture
def production(settings: Settings) -> Settings:
    """Settings with nothing to warn about."""
    settings.PUBLIC_BASE_URL = "https://ai.example.org"
    settings.SERVED_BY_TLS = True
    settings.ALLOWED_HOSTS = ["ai.example.org"]
    settings.TRUSTED_PROXIES = [ip_network("10.0.0.0/8")]
    settings.METRICS_TOKEN = "Tz4kQ9wLm2Xc7VbN1pRs8YdF3hJg6Ka0"
    settings.API_DOCS = False
    settings.EMAIL_URL = "smtp+tls://mail.example.org"
    return settings


def warnings() -> list[str]:
    return [str(message.id) for message in deployment(None)]


def test_nothing_to_warn_about(production: Settings) -> None:
    assert warnings() == []


def test_every_host_is_allowed(production: Settings) -> None:
    production.ALLOWED_HOSTS = ["*"]
    assert warnings() == ["SC.W001"]


@pytest.mark.parametrize("hosts", [[], ["example.org"], ["xai.example.org"], [".ai.example.com"]])
def test_the_own_host_is_not_allowed(production: Settings, hosts: list[str]) -> None:
    production.ALLOWED_HOSTS = hosts
    assert warnings() == ["SC.W002"]


@pytest.mark.parametrize("hosts", [["AI.example.org"], [".example.org"], [".ai.example.org"]])
def test_the_own_host_is_allowed_by_a_pattern(production: Settings, hosts: list[str]) -> None:
    production.ALLOWED_HOSTS = hosts
    assert warnings() == []


def test_an_ipv6_host_is_written_in_brackets(production: Settings) -> None:
    production.PUBLIC_BASE_URL = "https://[2001:db8::1]"
    production.ALLOWED_HOSTS = ["[2001:db8::1]"]
    assert warnings() == []


def test_passwords_would_travel_in_the_clear(production: Settings) -> None:
    production.PUBLIC_BASE_URL = "http://ai.example.org"
    production.SERVED_BY_TLS = False
    assert warnings() == ["SC.W003"]


def test_nobody_is_trusted_to_end_tls(production: Settings) -> None:
    production.TRUSTED_PROXIES = []
    assert warnings() == ["SC.W004"]


def test_metrics_have_no_token(production: Settings) -> None:
    production.METRICS_TOKEN = ""
    assert warnings() == ["SC.W005"]


def test_the_docs_are_public(production: Settings) -> None:
    production.API_DOCS = True
    assert warnings() == ["SC.W006"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_loopback_may_be_plain(production: Settings, host: str) -> None:
    production.PUBLIC_BASE_URL = f"http://{host}:8528"
    production.SERVED_BY_TLS = False
    production.ALLOWED_HOSTS = [host]
    production.TRUSTED_PROXIES = []
    production.METRICS_TOKEN = ""
    production.API_DOCS = True
    assert warnings() == []


def test_nobody_would_get_a_mail(production: Settings) -> None:
    production.EMAIL_URL = ""
    assert warnings() == ["SC.W007"]
