"""The front page: the way in for people."""

from __future__ import annotations

import pytest
from django.test import Client
from pytest_django import Settings

BROWSER = {"Accept": "text/html"}


@pytest.mark.parametrize(
    ("mode", "may_register"),
    [("open", True), ("verified", True), ("invite", False), ("closed", False)],
)
def test_it_leads_to_registration_where_there_is_any(
    settings: Settings, mode: str, may_register: bool
) -> None:
    settings.REGISTRATION_MODE = mode
    page = Client(headers=BROWSER).get("/").content.decode()
    assert ('href="/register"' in page) is may_register


def test_it_leads_to_whom_forgot_their_password() -> None:
    page = Client(headers=BROWSER).get("/").content.decode()
    assert 'href="/password-reset"' in page


def test_the_links_end_in_no_slash_that_is_optional() -> None:
    page = Client(headers=BROWSER).get("/").content.decode()
    assert "/?" not in page


def test_programs_are_told_where_the_apis_begin(settings: Settings) -> None:
    settings.API_DOCS = False
    assert Client().get("/").json() == {
        "name": "SovereignCore",
        "version": settings.VERSION,
        "docs": None,
        "api": "/api/v1",
        "openai": "/v1",
    }
