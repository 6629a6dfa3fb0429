"""Steps that tests of mails, and of the links in them, share."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts import mailing
from accounts.tests.sessions import TOKEN
from tests.counters import forget_counts

ASK = "/api/v1/users/password-reset/request"
CONFIRM = "/api/v1/users/password-reset/confirm"
REGISTER = "/api/v1/users/register"
VERIFY = "/api/v1/users/verify-email"
CHANGE_ADDRESS = "/api/v1/users/email-change/confirm"
INVITATIONS = "/api/v1/users/invitations"
KEYS = "/api/v1/keys"
PROFILE = "/api/v1/users/me"
PASSWORD_CHANGE = "/api/v1/users/me/password"

ASK_PAGE = "/password-reset"
CONFIRM_PAGE = "/password-reset/confirm"
REGISTER_PAGE = "/register"
VERIFY_PAGE = "/verify-email"
CHANGE_ADDRESS_PAGE = "/email-change/confirm"

NEW_PASSWORD = "Another-Horse-8-Battery"
BASE = "http://127.0.0.1:8528"

client = APIClient()


def deliver() -> list[EmailMultiAlternatives]:
    """Do the worker's work: the mails that it sent."""
    before = len(mail.outbox)
    sent = mailing.send_due()
    delivered: list[Any] = mail.outbox[before:]
    assert len(delivered) == sent
    return delivered


def deliver_one() -> EmailMultiAlternatives:
    (message,) = deliver()
    return message


def html_of(message: Any) -> str:
    ((html, kind),) = message.alternatives
    assert kind == "text/html"
    return str(html)


def link_in(message: Any) -> str:
    """The one link with a token, the same in both parts."""
    (url,) = re.findall(r"\S+[?&]token=\S+", str(message.body))
    assert f'href="{escape(url)}"' in html_of(message)
    return str(url)


def token_in(message: Any) -> str:
    (token,) = parse_qs(urlsplit(link_in(message)).query)["token"]
    return token


def path_of(url: str) -> str:
    """What a browser asks our server for when somebody follows `url`."""
    assert url.startswith(f"{BASE}/")
    return url.removeprefix(BASE)


def ask_reset(address: Any = "alice@example.org", **extra: Any) -> Any:
    return client.post(ASK, {"email": address}, **extra)


def mailed_reset(address: str = "alice@example.org") -> str:
    """The token of a reset that was asked for and mailed."""
    assert ask_reset(address).status_code == 202
    return token_in(deliver_one())


def confirm_reset(token: Any, password: Any = NEW_PASSWORD) -> Any:
    return client.post(CONFIRM, {"token": token, "new_password": password})


def login_status(username: str, password: str) -> int:
    forget_counts("ratelimit")
    response = client.post(TOKEN, {"username": username, "password": password})
    status: int = response.status_code
    return status


def make_key(of: APIClient) -> str:
    response = of.post(KEYS, {"name": "job", "scopes": ["read", "write"]})
    assert response.status_code == 201, response.content
    key: str = response.json()["key"]
    return key


def check_invalid_link(response: Any) -> None:
    assert response.status_code == 400, response.content
    body = response.json()
    assert body["code"] == "invalid_token"
    assert body["detail"] == "This link is not valid any more. Ask for a new one."


def check_invalid(response: Any, field: str) -> list[str]:
    assert response.status_code == 422, response.content
    body = response.json()
    assert body["code"] == "validation_error"
    assert list(body["errors"]) == [field]
    messages: list[str] = body["errors"][field]
    return messages


def fill_in(browser: Client, path: str, **fields: str) -> Any:
    """Open the page, and send the form on it as a browser does, with its hidden fields."""
    page = browser.get(path).content.decode()
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page))
    (action,) = re.findall(r'<form method="post" action="([^"]+)"', page)
    return browser.post(action, {**hidden, **fields})


def traces(send: Callable[[], Any], hashed: list[str]) -> dict[str, Any]:
    """What a caller can tell an answer by, and what made it take its time."""
    forget_counts("default", "ratelimit")
    hashed.clear()
    with CaptureQueriesContext(connection) as queries:
        response = send()
    return {
        "status": response.status_code,
        "body": response.content,
        "headers": {**response.headers, "X-Request-ID": ""},
        # A savepoint's name is a count.
        "queries": [re.sub(r"_x\d+", "", " ".join(q["sql"].split()[:3])) for q in queries],
        "hashes": len(hashed),
    }


def dump() -> str:
    """Every row of every table as text; bytes as they are and in hexadecimal."""
    text: list[str] = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608
            for row in cursor.fetchall():
                for value in row:
                    if isinstance(value, (bytes, memoryview)):
                        text += [bytes(value).decode("latin-1"), bytes(value).hex()]
                    else:
                        text.append(str(value))
    return "\n".join(text)
