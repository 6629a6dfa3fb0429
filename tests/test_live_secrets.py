"""Secrets in real use, with everything going wrong that may quote them: none is told anywhere.

Not in the logs of web process and worker, not in metrics, not in the body of an error.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
import pytest
from django_otp.oath import TOTP

from tests.outbox import text_of
from tests.platform import Platform, running_platform
from tests.servers import RedisServer
from tests.smtp_sink import Behaviour as SMTPBehaviour
from tests.smtp_sink import SMTPSink
from tests.stub_engine import CANARY_SECRET, Behaviour, StubEngine

API = "/api/v1/"
PROCESS = f"{API}consciousness/process"
OPTIONAL = ("METRICS_TOKEN", "BACKUP_KEY")
_AT_LEAST = 50
_SOON_S = 20.0


@dataclass
class Scene:
    """The platform and what surrounds it, what is secret, and what was answered and logged."""

    platform: Platform
    stub: StubEngine
    mails: SMTPSink
    redis: RedisServer
    known: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    worker_log: list[str] = field(default_factory=list)

    def secret(self, what: str, value: str = "") -> str:
        """Note what must not be told; one is made up where none is given."""
        value = value or f"Canary-9-{secrets.token_urlsafe(24)}"
        self.known[f"{len(self.known)} {what}"] = value
        return value

    def browser(self, token: str = "") -> httpx2.Client:
        client = self.platform.client(token)
        client.event_hooks = {"response": [self._keep_error]}
        return client

    def _keep_error(self, reply: httpx2.Response) -> None:
        if reply.is_error:
            self.errors.append(reply.read().decode("utf-8", "replace"))

    def manage(self, *arguments: str, **variables: str) -> None:
        before = dict(self.platform.environment)
        self.platform.environment.update(variables)
        try:
            done = self.platform.manage(*arguments)
        finally:
            self.platform.environment.clear()
            self.platform.environment.update(before)
        self.worker_log.append(done.stdout + done.stderr)

    def shell(self, code: str, **variables: str) -> None:
        self.manage("shell", "--no-imports", "-c", code, **variables)

    def send_mails(self) -> list[str]:
        """Tokens of the links in the mails that the worker sends now."""
        before = len(self.mails.received)
        self.shell(
            "from accounts.models import Mail; from django.utils import timezone;"
            "from django.core.management import call_command;"
            "Mail.objects.update(due_at=timezone.now()); call_command('housekeeping', '--now')"
        )
        tokens = []
        for delivery in self.mails.received[before:]:
            for url in set(re.findall(r"http\S+[?&]token=[\w-]+", text_of(delivery.message))):
                (token,) = parse_qs(urlsplit(url).query)["token"]
                tokens.append(token)
        return [self.secret("token of a mailed link", token) for token in dict.fromkeys(tokens)]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = {name: f"canary{secrets.token_urlsafe(48)}" for name in ("SECRET_KEY", "AUDIT_KEY")}
    made |= {name: secrets.token_urlsafe(36) for name in (*OPTIONAL, "JWT", "SMTP")}
    with RedisServer() as server, StubEngine() as stub, SMTPSink() as mails:
        made["REDIS"] = urlsplit(server.url).password or ""
        with running_platform(
            stub,
            SECRET_KEY=made["SECRET_KEY"],
            AUDIT_KEY=made["AUDIT_KEY"],
            **{name: made[name] for name in OPTIONAL},
            BACKUP_DIR=str(tmp_path),
            JWT_SIGNING_KEYS=f"c1:{made['JWT']}",
            REDIS_URL=server.url,
            EMAIL_URL=f"smtp://sender:{made['SMTP']}@127.0.0.1:{mails.port}",
            RATE_LIMIT_DEFAULT="10000/m",
        ) as platform:
            scene = Scene(platform, stub, mails, server)
            for name, value in made.items():
                scene.secret(name, value)
            scene.secret("engine's key", stub.api_key)
            scene.secret("engine's own words", CANARY_SECRET)
            if password := urlsplit(platform.environment["DATABASE_URL"]).password:
                scene.secret("database password", password)
            yield scene


def test_fifty_secrets_are_told_nowhere(scene: Scene) -> None:
    password = scene.secret("password")
    form = {"username": "bob", "email": "bob@example.org", "password": password}
    with scene.browser() as http:
        assert http.post(f"{API}users/register", json=form).status_code == httpx2.codes.CREATED
        log_in_wrongly(scene, http)
    tokens = log_in(scene, "bob", password)
    with scene.browser(tokens["access_token"]) as http:
        keys_are_used(scene, http)
        prompts_are_asked(scene, http)
        secrets_are_sent_where_they_do_not_belong(scene, http, tokens["access_token"])
        links_are_mailed(scene, http, password)
    staff_administers(scene)
    everything_is_away(scene)

    assert len(scene.known) >= _AT_LEAST
    told = told_by(scene)
    assert len(scene.errors) > 20
    assert all(len(text) > 100 for text in told.values())
    for what, value in scene.known.items():
        for form_of in (value, quote(value, safe=""), json.dumps(value)[1:-1], encoded(value)):
            for where, text in told.items():
                assert form_of not in text, f"{what} in {where}"


def told_by(scene: Scene) -> dict[str, str]:
    with scene.platform.client(scene.platform.environment["METRICS_TOKEN"]) as http:
        metrics = http.get("/metrics")
    assert metrics.status_code == httpx2.codes.OK
    return {
        "the web process's log": scene.platform.log_path.read_text(),
        "the worker's log": "\n".join(scene.worker_log),
        "metrics": metrics.text,
        "errors": "\n".join(scene.errors),
    }


def encoded(value: str) -> str:
    return base64.b64encode(value.encode()).decode().rstrip("=")


def log_in_wrongly(scene: Scene, http: httpx2.Client) -> None:
    for name in ("bob", "nobody", scene.secret("password typed as a name")):
        form = {"username": name, "password": scene.secret("wrong password")}
        assert http.post(f"{API}auth/token", data=form).is_error


def log_in(scene: Scene, name: str, password: str) -> dict[str, str]:
    """Tokens, after one renewal and a replay of it."""
    with scene.browser() as http:
        form = {"username": name, "password": password}
        first = http.post(f"{API}auth/token", data=form).json()
        spare = http.post(f"{API}auth/token", data=form).json()
        renewal = {"refresh_token": spare["refresh_token"]}
        renewed = http.post(f"{API}auth/token/refresh", json=renewal).json()
        assert http.post(f"{API}auth/token/refresh", json=renewal).is_error
    for pair in (first, spare, renewed):
        for kind in ("access_token", "refresh_token"):
            scene.secret(kind, pair[kind])
    tokens: dict[str, str] = first
    return tokens


def keys_are_used(scene: Scene, http: httpx2.Client) -> None:
    made = http.post(f"{API}keys", json={"name": "k", "scopes": ["read", "write"]}).json()
    key = scene.secret("API key", made["key"])
    with scene.browser(key) as by_key:
        assert by_key.get(f"{API}auth/me").status_code == httpx2.codes.OK
        assert by_key.get(f"{API}keys/{key}").is_error
        assert by_key.get(f"/v1/models/{key}").is_error
    with scene.browser(key[:-1] + "x") as by_another:
        assert by_another.get(f"{API}auth/me").is_error
    assert http.delete(f"{API}keys/{made['id']}").status_code == httpx2.codes.NO_CONTENT
    with scene.browser(key) as by_key:
        assert by_key.get(f"{API}auth/me").is_error


def prompts_are_asked(scene: Scene, http: httpx2.Client) -> None:
    def ask_all() -> None:
        http.post(PROCESS, json={"prompt": scene.secret("prompt"), "conversation": "new"})
        http.post(PROCESS, json={"prompt": scene.secret("prompt"), "stream": True})
        http.post(f"{API}consciousness/query", json={"query": scene.secret("question")})
        message = {"role": "user", "content": scene.secret("message")}
        http.post("/v1/chat/completions", json={"model": "", "messages": [message]})
        http.post("/v1/completions", json={"model": "none", "prompt": scene.secret("prompt")})

    ask_all()
    failures = (
        *(Behaviour.ERROR_500_WITH_SECRET, Behaviour.ERROR_MID_STREAM, Behaviour.HTML),
        *(Behaviour.UNAUTHORIZED_401, Behaviour.DIE_MID_STREAM),
    )
    for behaviour in failures:
        scene.stub.behave(behaviour)
        ask_all()
    scene.stub.behave(Behaviour.NORMAL)
    fact = f"Remember that {scene.secret('fact')} is mine."
    http.post(f"{API}consciousness/query", json={"query": fact})
    http.post(f"{API}consciousness/memories", json={"text": scene.secret("fact")})
    key = {"Idempotency-Key": scene.secret("idempotency key")}
    for prompt in (scene.secret("prompt"), scene.secret("another prompt")):
        http.post(PROCESS, json={"prompt": prompt}, headers=key)


def secrets_are_sent_where_they_do_not_belong(
    scene: Scene, http: httpx2.Client, token: str
) -> None:
    http.get(f"{API}auth/me", params={"token": token, "api_key": scene.secret("in a query")})
    http.get("/nothing/here", params={"password": scene.secret("in a query")})
    http.get(f"/{token}")
    for name in ("User-Agent", "Referer", "Cookie", "X-Api-Key", "Accept", "X-Request-ID"):
        http.get(f"{API}nothing", headers={name: f"x={scene.secret(name)}; !"})
    basic = base64.b64encode(f"bob:{scene.secret('basic password')}".encode()).decode()
    http.get(f"{API}auth/me", headers={"Authorization": f"Basic {basic}"})
    http.get(f"{API}auth/me", headers={"Authorization": f"Bearer {scene.secret('no token')}"})
    broken = f'{{"username": "{scene.secret("in broken JSON")}", "pass'
    http.post(f"{API}users/register", content=broken, headers={"Content-Type": "application/json"})
    odd = {"username": "x", "password": [scene.secret("in a list")], "email": 5}
    http.post(f"{API}users/register", json=odd)
    raw = f"GET /live?{scene.secret('in a refused line')} HTTP/9\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", scene.platform.port), timeout=10) as connection:
        connection.sendall(raw.encode())
        scene.errors.append(connection.recv(4096).decode())


def links_are_mailed(scene: Scene, http: httpx2.Client, password: str) -> None:
    asked = {"email": "bob@example.org"}
    assert http.post(f"{API}users/password-reset/request", json=asked).status_code == 202
    scene.mails.behaviour = SMTPBehaviour.REFUSE_LOGIN
    assert scene.send_mails() == []
    assert "mail_failed" in scene.worker_log[-1]
    scene.mails.behaviour = SMTPBehaviour.ACCEPT
    (token,) = scene.send_mails()
    with scene.browser() as page:
        assert page.get("/password-reset/confirm", params={"token": token}).is_success
    change = {"email": "new@example.org", "current_password": password}
    assert http.patch(f"{API}users/me", json=change).is_success
    (change_token,) = scene.send_mails()
    assert http.post(f"{API}users/email-change/confirm", json={"token": change_token}).is_success
    for _ in range(2):  # a change of address ended the reset
        body = {"token": token, "new_password": scene.secret("new password")}
        assert http.post(f"{API}users/password-reset/confirm", json=body).is_error


def staff_administers(scene: Scene) -> None:
    password = scene.secret("staff password")
    scene.shell(
        "from accounts.models import User;"
        f"User.objects.create_superuser('grace', 'grace@example.org', '{password}')"
    )
    with scene.browser() as page:
        form = {"username": "grace", "password": password}
        form["csrfmiddlewaretoken"] = csrf_token(page, "/admin/login/")
        assert page.post("/admin/login/", data=form).status_code == httpx2.codes.FOUND
        for name, value in page.cookies.items():
            scene.secret(f"cookie {name}", value)
        (seed,) = re.findall(r"Secret: <code>([A-Z2-7 ]+)</code>", page.get(SECOND_FACTOR).text)
        seed = scene.secret("OTP seed", seed)
        totp = TOTP(base64.b32decode(seed.replace(" ", "")))
        totp.time = time.time()
        form = {"csrfmiddlewaretoken": csrf_token(page, SECOND_FACTOR)}
        shown = page.post(SECOND_FACTOR, data={**form, "code": f"{totp.token():06d}"}).text
        codes = re.findall(r"<li><code>([^<]+)</code>", shown)
        assert len(codes) == 10
        for code in codes:
            scene.secret("backup code", code)
        form = {"username": "grace", "password": password, "scope": "admin"}
        with scene.browser() as http:
            pair = http.post(f"{API}auth/token", data={**form, "otp": codes[0]}).json()
            # After a wrong one a right one has to wait a little, too.
            for code in (scene.secret("wrong code", secrets.token_hex(6)), codes[0]):
                assert http.post(f"{API}auth/token", data={**form, "otp": code}).is_error
    with scene.browser(scene.secret("staff's token", pair["access_token"])) as http:
        invited = http.post(f"{API}users/invitations", json={"email": "eve@example.org"})
        assert invited.is_success, invited.text
        assert len(scene.send_mails()) == 1


SECOND_FACTOR = "/admin/second-factor/"


def csrf_token(page: httpx2.Client, path: str) -> str:
    found: list[str] = re.findall(
        r'name="csrfmiddlewaretoken" value="([^"]+)"', page.get(path).text
    )
    return found[0]


def everything_is_away(scene: Scene) -> None:
    """Redis, the engine, and a database whose URL has a password."""
    scene.redis.kill()
    scene.stub.stop()
    with scene.browser() as http:
        form = {"username": "bob", "password": scene.secret("wrong password")}
        assert http.post(f"{API}auth/token", data=form).is_error
        assert http.get("/ready").is_error
        wrong = {"Authorization": f"Bearer {scene.secret('no metrics token')}"}
        assert http.get("/metrics", headers=wrong).is_error
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    away = f"postgres://app:{scene.secret('database password')}@127.0.0.1:{port}/app"
    one_job = (  # each waits for its connection
        "from django.core.management import call_command; from monitoring import jobs;"
        "jobs._jobs = {'flush_mails': jobs._jobs['flush_mails']}; call_command('housekeeping')"
    )
    scene.shell(one_job, DATABASE_URL=away)
    assert "OperationalError" in scene.worker_log[-1]
