"""The password reset under attack, against real processes and the mails that they write."""

from __future__ import annotations

import json
import re
import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.outbox import deliver, recipient_of, text_of, token_in
from tests.platform import PASSWORD, Platform, until_heard

pytestmark = pytest.mark.xdist_group(__name__)

ASK = "/api/v1/users/password-reset/request"
CONFIRM = "/api/v1/users/password-reset/confirm"
NEW_PASSWORD = "Another-Horse-8-Battery"
_RACERS = 50
_RACE_TIMEOUT_S = 60.0


def someone(platform: Platform, word: str) -> str:
    return platform.register(f"{word}-{uuid.uuid4().hex[:8]}")


def ask(platform: Platform, name: str) -> None:
    with platform.client() as http:
        reply = http.post(ASK, json={"email": f"{name}@example.org"})
    assert reply.status_code == httpx2.codes.ACCEPTED, reply.text


def mailed(platform: Platform, *names: str) -> dict[str, str]:
    """The tokens of resets that these have asked for, by name."""
    for name in names:
        ask(platform, name)
    tokens = {recipient_of(mail).partition("@")[0]: mail for mail in deliver(platform)}
    return {name: token_in(tokens[name]) for name in names}


def confirm(platform: Platform, token: str, password: str = NEW_PASSWORD) -> httpx2.Response:
    with platform.client() as http:
        return http.post(CONFIRM, json={"token": token, "new_password": password})


def check_dead(platform: Platform, token: str) -> None:
    refused = confirm(platform, token)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_token")
    with platform.client() as http:
        page = http.get("/password-reset/confirm", params={"token": token})
    assert page.status_code == httpx2.codes.BAD_REQUEST


def test_of_fifty_redeems_at_once_one_succeeds(platform: Platform) -> None:
    name = someone(platform, "racer")
    token = mailed(platform, name)[name]
    start = threading.Barrier(_RACERS)

    def redeem(number: int) -> int:
        start.wait(_RACE_TIMEOUT_S)
        password = f"Racing-Horse-{number}-Battery"
        status: int = until_heard(lambda: confirm(platform, token, password)).status_code
        return status

    with ThreadPoolExecutor(_RACERS) as pool:
        statuses = list(pool.map(redeem, range(_RACERS)))
    assert statuses.count(200) == 1
    assert statuses.count(400) == _RACERS - 1
    winners = f"Racing-Horse-{statuses.index(200)}-Battery"
    with platform.client() as http:
        form = {"username": name, "password": winners}
        assert http.post("/api/v1/auth/token", data=form).status_code == httpx2.codes.OK
    told = [mail for mail in deliver(platform) if recipient_of(mail).startswith(name)]
    assert [mail["Subject"] for mail in told] == ["Your password was changed"]


def test_a_link_dies_of_use_of_a_newer_one_and_of_what_its_owner_does(platform: Platform) -> None:
    used, older, login, change, address = names = [
        someone(platform, word) for word in ("used", "older", "login", "change", "address")
    ]
    pairs = {name: platform.log_in(name) for name in names}  # before: a login ends a link
    tokens = mailed(platform, *names)

    assert confirm(platform, tokens[used]).status_code == httpx2.codes.OK
    newer = mailed(platform, older)[older]
    platform.log_in(login)
    with platform.client(pairs[change]["access_token"]) as http:
        form = {"current_password": PASSWORD, "new_password": "Third-Horse-9-Battery"}
        assert http.post("/api/v1/users/me/password", json=form).is_success
    moved = f"moved-{uuid.uuid4().hex[:8]}@example.org"
    with platform.client(pairs[address]["access_token"]) as http:
        asked = {"email": moved, "current_password": PASSWORD}
        assert http.patch("/api/v1/users/me", json=asked).is_success
        (mail,) = (mail for mail in deliver(platform) if recipient_of(mail) == moved)
        proved = {"token": token_in(mail)}
        assert http.post("/api/v1/users/email-change/confirm", json=proved).is_success

    for token in tokens.values():
        check_dead(platform, token)
    assert confirm(platform, newer).status_code == httpx2.codes.OK
    check_dead(platform, newer)
    for name in (used, older):  # and what the old password opened is closed, on every process
        for _ in range(5):
            with platform.client(pairs[name]["access_token"]) as http:
                assert http.get("/api/v1/auth/me").status_code == httpx2.codes.UNAUTHORIZED


# --- Whose address the link is on ------------------------------------------------------------

EVIL = "evil.example"
_OURS = "Host: 127.0.0.1:{port}\r\n"
_FURTHER = (
    *(f"X-Host: {EVIL}", f"X-Forwarded-Server: {EVIL}", f"X-Original-Host: {EVIL}"),
    *(f"X-HTTP-Host-Override: {EVIL}", "X-Forwarded-Port: 666", "X-Forwarded-Proto: https"),
    *(f"X-Original-URL: http://{EVIL}/", f"X-Rewrite-URL: http://{EVIL}/"),
    *(f"Origin: https://{EVIL}", f"Referer: https://{EVIL}/"),
)
POISONED: dict[str, tuple[str, str, int]] = {  # request target, headers, status
    "host": (ASK, f"Host: {EVIL}\r\n", 400),
    "host with our port": (ASK, f"Host: {EVIL}:{{port}}\r\n", 400),
    "host as user": (ASK, f"Host: 127.0.0.1:{{port}}@{EVIL}\r\n", 400),
    "two hosts": (ASK, f"{_OURS}Host: {EVIL}\r\n", 400),
    "two hosts, ours last": (ASK, f"Host: {EVIL}\r\n{_OURS}", 400),
    "host beside": (ASK, f"{_OURS} Host: {EVIL}\r\n", 400),
    "absolute target": (f"http://{EVIL}{ASK}", _OURS, 202),
    "forwarded host": (ASK, f"{_OURS}X-Forwarded-Host: {EVIL}\r\n", 202),
    "forwarded hosts": (ASK, f"{_OURS}X-Forwarded-Host: 127.0.0.1, {EVIL}\r\n", 202),
    "underscores": (ASK, f"{_OURS}X_Forwarded_Host: {EVIL}\r\n", 202),
    "forwarded": (ASK, f"{_OURS}Forwarded: host={EVIL};proto=https\r\n", 202),
    "further ones": (ASK, _OURS + "".join(f"{line}\r\n" for line in _FURTHER), 202),
}


def ask_raw(platform: Platform, name: str, target: str, headers: str) -> int:
    body = json.dumps({"email": f"{name}@example.org"}).encode()
    request = (
        f"POST {target} HTTP/1.1\r\n{headers.format(port=platform.port)}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", platform.port), 30) as connection:
        connection.sendall(request.encode() + body)
        return int(connection.makefile("rb").readline().split()[1])


def test_links_are_on_the_configured_base_whatever_a_request_says(platform: Platform) -> None:
    victims = {kind: someone(platform, "victim") for kind in POISONED}
    for kind, (target, headers, expected) in POISONED.items():
        assert ask_raw(platform, victims[kind], target, headers) == expected, kind
    with platform.client() as http:  # a browser's form too
        page = http.get("/password-reset")
        (token,) = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        form = {"csrfmiddlewaretoken": token, "email": f"{victims['host']}@example.org"}
        poison = {"X-Forwarded-Host": EVIL, "Referer": f"{platform.url}/password-reset"}
        assert http.post("/password-reset", data=form, headers=poison).is_success
    mails = {recipient_of(mail).partition("@")[0]: mail for mail in deliver(platform)}
    mailed_to = {victims[kind] for kind, (_, _, status) in POISONED.items() if status == 202}
    assert {name for name in mails if name.startswith("victim-")} == mailed_to | {victims["host"]}
    for mail in mails.values():
        text = text_of(mail)
        bases = {url.rstrip(".") for url in re.findall(r"https?://[^/\s\"<]+", text)}
        assert bases == {platform.url}
        assert EVIL not in mail.as_string()


def test_one_address_is_asked_for_and_mailed(platform: Platform) -> None:
    victim, thief = f"{someone(platform, 'owner')}@example.org", "thief@evil.example"
    arrays: list[Any] = [
        [victim, thief],
        [thief, victim],
        [victim],
        {"0": victim, "1": thief},
        {"email": victim},
        [[victim]],
    ]
    texts = [
        *(
            f"{victim},{thief}",
            f"{victim};{thief}",
            f"{victim} {thief}",
            f"{victim}\r\nBcc: {thief}",
        ),
        *(
            f"{victim}\ncc: {thief}",
            f"{thief}<{victim}>",
            f"{victim}%0abcc:{thief}",
            f"{victim}|{thief}",
        ),
    ]
    with platform.client() as http:
        for value in (*arrays, *texts):
            refused = http.post(ASK, json={"email": value})
            assert refused.status_code == httpx2.codes.UNPROCESSABLE_CONTENT, value
            assert list(refused.json()["errors"]) == ["email"]
        for body in (
            {"email": victim, "emails": [thief]},
            {"email": victim, "cc": thief},
            {"email": victim, "email[]": thief},
            {"email": victim, "to": thief},
        ):
            assert http.post(ASK, json=body).status_code == httpx2.codes.UNPROCESSABLE_CONTENT
        twice = f'{{"email": "{thief}", "email": "{victim}"}}'
        headers = {"Content-Type": "application/json"}
        assert http.post(ASK, content=twice, headers=headers).status_code == httpx2.codes.ACCEPTED
    recipients = [recipient_of(mail) for mail in deliver(platform)]
    assert recipients.count(victim) == 1
    assert not [address for address in recipients if "evil" in address]
