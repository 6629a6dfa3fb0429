"""The whole installation with the bundled model, asked by `scripts/test_deployment.sh`."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from consciousness.tests.running_engine import served_model
from tests.chaos.grown import PROCESS
from tests.migrated import ROOT, manage
from tests.platform import PASSWORD
from tests.rehearsal.topology import Topology, topology

pytestmark = pytest.mark.rehearsal

_SCRIPT = ROOT / "scripts/test_deployment.sh"
_TIMEOUT_S = 300.0
_CHECKS = 11  # without sslscan, which is optional


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    folder = tmp_path_factory.mktemp("engine")
    # The limit that is shipped.
    with topology(
        served_model(folder, ENGINE_SLOTS="2"), ENGINE_SLOTS="2", RATE_LIMIT_DEFAULT="100/m"
    ) as up:
        yield up


@pytest.fixture(scope="module")
def account(parts: Topology) -> str:
    form = {"username": "operator", "email": "operator@example.org", "password": PASSWORD}
    with parts.client() as http:
        made = http.post("/api/v1/users/register", json=form)
    assert made.status_code == 201, made.text
    return "operator"


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_SCRIPT, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


def test_the_model_knows_the_capital_of_france(parts: Topology) -> None:
    with parts.client("alice") as http:
        told = http.post(PROCESS, json={"prompt": "What is the capital of France?"})
    assert told.status_code == 200, told.text
    assert told.json()["response"] == "Paris."


def test_all_is_as_the_script_asks(parts: Topology, account: str) -> None:
    nginx = parts.nginx
    done = _run(
        *("--ca", str(nginx.authority), "--http", nginx.http_url, nginx.url),
        DEPLOYMENT_USER=account,
        DEPLOYMENT_PASSWORD=PASSWORD,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert done.stdout.count("\npassed") + done.stdout.startswith("passed") >= _CHECKS
    # Both processes counted, or nothing was said about what they share.
    logins = [entry for entry in nginx.log() if entry["path"] == "/api/v1/auth/token"]
    ports = {entry["upstream"] for entry in logins if entry["status"] == 401}
    assert ports == {f"127.0.0.1:{web.port}" for web in parts.webs}


def _verify(parts: Topology, *arguments: str) -> dict[str, tuple[str, str]]:
    """What `verify_deployment` finds: (verdict, why) by the check's name."""
    asked = ("--json", "--http", parts.nginx.http_url, "--web", parts.webs[0].url, *arguments)
    done = manage(parts.environment, "verify_deployment", *asked)
    checks = json.loads(done.stdout)["checks"]
    return {check["name"]: (check["verdict"], check["why"]) for check in checks}


def test_all_is_as_the_checklist_asks(parts: Topology) -> None:
    """The worker's first seal and backup take a moment."""
    parts.manage("bootstrap")
    authority = ("--ca", str(parts.nginx.authority))
    until_s = time.monotonic() + _TIMEOUT_S
    found = _verify(parts, *authority)
    while {found["backup"][0], found["audit trail"][0]} != {"ok"} and time.monotonic() < until_s:
        found = _verify(parts, *authority)
    print(found)
    assert {name: why for name, (verdict, why) in found.items() if verdict == "failed"} == {}
    assert {name for name, (verdict, _) in found.items() if verdict == "not checked"} == {
        *("settings file", "mail")
    }
    assert {name for name, (verdict, _) in found.items() if verdict == "warning"} == {
        *("backup place", "administrators")
    }
    stranger = _verify(parts)
    assert stranger["certificate"][0] == stranger["public address"][0] == "failed"


def test_the_script_notices_what_is_wrong(parts: Topology, account: str) -> None:
    """Without the authority, with a wrong password, at an address where nothing redirects."""
    done = _run(
        *("--http", parts.webs[0].url, parts.nginx.url),
        DEPLOYMENT_USER=account,
        DEPLOYMENT_PASSWORD="wrong",
    )
    assert done.returncode == 1
    assert "FAILED  health of every component" in done.stdout
    assert "FAILED  plain HTTP leads to TLS" in done.stdout
    assert "FAILED  TLS 1.2 and 1.3 with good ciphers only" in done.stdout
    assert "FAILED  log in" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "BASE_URL has to begin with https://"),
        (("http://127.0.0.1",), "BASE_URL has to begin with https://"),
        (("--ca",), "--ca needs a value"),
        (("--nonsense",), "unknown option"),
    ],
)
def test_the_script_says_what_it_needs(arguments: tuple[str, ...], says: str) -> None:
    done = _run(*arguments, DEPLOYMENT_USER="a", DEPLOYMENT_PASSWORD="b")
    assert done.returncode == 2
    assert says in done.stderr
