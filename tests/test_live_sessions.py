"""Sessions of a running platform: keys that rotate under them, streams that end with them."""

from __future__ import annotations

import os
import signal
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import jwt
import psutil
import pytest

from accounts import signing_keys
from tests.platform import PASSWORD, Platform, running_platform, until_heard
from tests.stub_engine import Behaviour, StubEngine

pytestmark = pytest.mark.xdist_group(__name__)

ME = "/api/v1/auth/me"
_RELOAD_TIMEOUT_S = 60.0
_STREAM_ENDS_S = 5.0
_BUSY_MACHINE_S = 2.0


def everywhere(platform: Platform, token: str) -> set[int]:
    """What a token is worth on every process: each connection goes to any of them."""
    statuses = set()
    for _ in range(12):
        with platform.client(token) as http:
            statuses.add(http.get(ME).status_code)
    return statuses


# --- Keys that sign --------------------------------------------------------------------------


def reload_processes(platform: Platform) -> None:
    """SIGHUP, as the operator is told to send it; returns when no old process is left."""
    master = psutil.Process(platform.pid)
    before = {child.pid for child in master.children()}
    os.kill(platform.pid, signal.SIGHUP)
    until_s = time.monotonic() + _RELOAD_TIMEOUT_S
    while before & {child.pid for child in master.children()}:
        assert time.monotonic() < until_s, "the old processes did not leave"
        time.sleep(0.1)
    while True:
        with platform.client() as http:
            try:
                if http.get("/live").status_code == httpx2.codes.OK:
                    return
            except httpx2.TransportError:
                assert time.monotonic() < until_s, "no new process answers"
        time.sleep(0.1)


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def test_keys_rotate_and_nobody_is_logged_out(live_stub: StubEngine, tmp_path: Path) -> None:
    """One algorithm in each round; accounts/tests/test_rotate_keys.py has both in detail."""
    algorithm = "RS256" if os.environ.get("REDIS_URL") else "HS256"
    file = tmp_path / "keys"
    made = signing_keys.prepare(
        "none:yet", algorithm=algorithm, now=datetime(2026, 1, 1, tzinfo=UTC)
    )
    file.write_text(made.partition(",")[2])
    with running_platform(
        live_stub,
        JWT_ALGORITHM=algorithm,
        JWT_SIGNING_KEYS="",
        JWT_SIGNING_KEYS_FILE=str(file),
        WEB_CONCURRENCY="2" if os.environ.get("REDIS_URL") else "1",
    ) as platform:
        name = platform.register("keeper")
        first = platform.log_in(name)

        def step(*arguments: str) -> None:
            done = platform.manage("rotate_keys", *arguments)
            assert done.returncode == 0, done.stderr
            reload_processes(platform)

        step("prepare")
        assert everywhere(platform, first["access_token"]) == {200}
        step("activate")
        second = platform.log_in(name)
        assert kid_of(second["access_token"]) != kid_of(first["access_token"])
        for pair in (first, second):
            assert everywhere(platform, pair["access_token"]) == {200}
        with platform.client() as http:
            spent = {"refresh_token": first["refresh_token"]}
            renewed = http.post("/api/v1/auth/token/refresh", json=spent).json()["access_token"]
        assert kid_of(renewed) == kid_of(second["access_token"])

        assert platform.manage("rotate_keys", "retire").returncode == 1, "some may still hold"
        step("retire", "--now")
        assert everywhere(platform, first["access_token"]) == {401}
        assert everywhere(platform, renewed) == {200}


# --- Streams ---------------------------------------------------------------------------------


def end_by(deed: str, platform: Platform, name: str, token: str, staff: str) -> httpx2.Response:
    by_password = {"current_password": PASSWORD}
    with platform.client(token) as http, platform.client(staff) as admin:
        match deed:
            case "logout":
                return http.post("/api/v1/auth/logout")
            case "password":
                change = {**by_password, "new_password": "Another-Horse-8-Battery"}
                return until_heard(lambda: http.post("/api/v1/users/me/password", json=change))
            case "erase":
                return until_heard(
                    lambda: http.request("DELETE", "/api/v1/users/me", json=by_password)
                )
            case _:
                return admin.post(f"/api/v1/users/{name}/{deed}")


@pytest.mark.parametrize("deed", ["logout", "password", "erase", "disable", "sign-out"])
def test_an_open_stream_ends_with_its_session(
    platform: Platform, live_stub: StubEngine, deed: str
) -> None:
    name = platform.register(f"streamer-{uuid.uuid4().hex[:8]}")
    token = platform.log_in(name)["access_token"]
    staff = superuser_of(platform)
    live_stub.behave(Behaviour.SLOW, token_delay_s=0.2)
    question = {"prompt": "Count to 200", "stream": True}
    with (
        platform.client(token) as http,
        http.stream("POST", "/api/v1/consciousness/process", json=question) as reply,
    ):
        chunks = reply.iter_text()
        assert "event: token" in next(chunks)
        assert end_by(deed, platform, name, token, staff).is_success
        ended_s = time.monotonic()
        rest = "".join(chunks)
        took_s = time.monotonic() - ended_s
    assert "credential_revoked" in rest
    assert "event: done" not in rest
    assert took_s < _STREAM_ENDS_S + _BUSY_MACHINE_S


def superuser_of(platform: Platform) -> str:
    """The access token of a new superuser."""
    name = f"admin-{uuid.uuid4().hex[:8]}"
    code = (
        "from accounts.models import User;"
        f"User.objects.create_superuser('{name}', '{name}@example.org', '{PASSWORD}')"
    )
    made = platform.manage("shell", "--no-imports", "-c", code)
    assert made.returncode == 0, made.stderr
    return platform.log_in(name)["access_token"]
