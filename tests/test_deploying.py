"""`scripts/deploy_compose.sh` with a stand-in for Docker that writes down what it is asked, and
`scripts/deploy_remote.py` with stand-ins for GitHub, Vault and ssh."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts import deploy_remote, healthcheck
from tests.migrated import ROOT

pytestmark = pytest.mark.once

_WEB = f"ghcr.io/your/sovereigncore/web@sha256:{'a' * 64}"
_ENGINE = f"ghcr.io/your/sovereigncore/engine@sha256:{'b' * 64}"
_NEWER = f"ghcr.io/your/sovereigncore/web@sha256:{'c' * 64}"
_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_TIMEOUT_S = 60.0

# Keeps the list of web containers in a file: `up --scale api=N` adds new ones, `rm` takes away.
_DOCKER = """#!/bin/sh
printf '%s\\n' "$*" >>"$LOG"
case "$*" in
*" ps "*) cat "$CONTAINERS" ;;
*"--scale api=4 "*)
    printf 'new1\\nnew2\\n' >>"$CONTAINERS"
    [ ! -e "$SICK" ] || exit 1
    ;;
"rm "*)
    for last; do :; done
    grep -vx "$last" "$CONTAINERS" >"$CONTAINERS.left" || :
    mv "$CONTAINERS.left" "$CONTAINERS"
    ;;
esac
"""
_GIT = f"""#!/bin/sh
printf 'git %s\\n' "$*" >>"$LOG"
[ "$1" != rev-parse ] || echo {_COMMIT}
"""


class Host:
    """A checkout with `.env` and programs that only write down what they are asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "scripts").mkdir()
        shutil.copy(ROOT / "scripts/deploy_compose.sh", folder / "scripts")
        (folder / ".env").write_text("PUBLIC_BASE_URL=https://ai.clinic.internal\n")
        programs = folder / "programs"
        programs.mkdir()
        for name, text in (
            ("docker", _DOCKER),
            ("git", _GIT),
            ("sleep", '#!/bin/sh\nprintf "sleep %s\\n" "$*" >>"$LOG"\n'),
        ):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.log, self.sick = folder / "log", folder / "sick"
        self.containers = folder / "containers"
        self.containers.write_text("old1\nold2\n")
        self._environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "LOG": str(self.log),
            "CONTAINERS": str(self.containers),
            "SICK": str(self.sick),
        }

    def deploy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            ["sh", "scripts/deploy_compose.sh", *arguments],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines()

    def position(self, words: str) -> int:
        """Of the only line with these words."""
        (found,) = [number for number, line in enumerate(self.asked()) if words in line]
        return found

    def deployed(self) -> dict[str, str]:
        lines = (self.folder / ".deployed").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_old_web_containers_serve_until_the_new_ones_do(host: Host) -> None:
    done = host.deploy("up", _WEB, _ENGINE, _COMMIT)
    assert done.returncode == 0, done.stderr
    order = [
        host.position(words)
        for words in (
            f"git checkout --quiet --detach {_COMMIT}",
            "pull --quiet api engine",
            "run --rm --no-TTY migrate",
            "up --detach --no-deps --no-recreate --scale api=4 --wait",
            "sleep ",
            "stop -t 40 old1",
            "stop -t 40 old2",
            "up --detach --remove-orphans --scale api=2 --wait",
        )
    ]
    assert order == sorted(order)
    assert host.containers.read_text().split() == ["new1", "new2"]
    assert host.deployed() == {"WEB_IMAGE": _WEB, "ENGINE_IMAGE": _ENGINE, "REVISION": _COMMIT}
    assert all(
        "--env-file .env --env-file .deployed" in line
        for line in host.asked()
        if line.startswith("compose ")
    )


def test_containers_that_do_not_get_well_are_taken_away_and_the_old_ones_stay(host: Host) -> None:
    host.sick.touch()
    done = host.deploy("up", _WEB, _ENGINE)
    assert done.returncode == 1
    assert "the old ones serve on" in done.stderr
    assert host.containers.read_text().split() == ["old1", "old2"]
    assert not [line for line in host.asked() if line.startswith("stop ")]


def test_going_back_is_by_image_and_leaves_the_database_alone(host: Host) -> None:
    assert host.deploy("up", _WEB, _ENGINE, _COMMIT).returncode == 0
    before = host.deployed()
    host.containers.write_text("old1\nold2\n")
    assert host.deploy("up", _NEWER, _ENGINE, "f" * 40).returncode == 0
    assert host.deployed()["WEB_IMAGE"] == _NEWER
    host.containers.write_text("old1\nold2\n")
    done = host.deploy("rollback")
    assert done.returncode == 0, done.stderr
    assert host.deployed() == before
    assert not [line for line in host.asked() if "migrate" in line]
    assert host.position(f"git checkout --quiet --detach {_COMMIT}") < host.position(
        "--scale api=4"
    )


def test_a_first_start_has_nobody_to_replace(host: Host) -> None:
    host.containers.write_text("")
    assert host.deploy("roll").returncode == 0
    assert not [line for line in host.asked() if line.startswith(("stop ", "rm ", "sleep "))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rollback"], "there is nothing to go back to"),
        (["up", _WEB], "usage: up WEB_IMAGE ENGINE_IMAGE"),
        (["down"], "usage: up WEB_IMAGE ENGINE_IMAGE"),
    ],
)
def test_a_mistake_changes_nothing(host: Host, arguments: list[str], message: str) -> None:
    done = host.deploy(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert host.asked() == []


def test_without_settings_it_says_what_writes_them(host: Host) -> None:
    (host.folder / ".env").unlink()
    assert "setup_env.sh --compose" in host.deploy("roll").stderr


# --- From CI ----------------------------------------------------------------------------------

_REQUEST_TOKEN, _IDENTITY, _VAULT_TOKEN = "github-asks", "github-vouches", "vault-lets-in"
_SIGNED = "ssh-ed25519-cert-v01@openssh.com AAAAsigned"


class _Authorities(BaseHTTPRequestHandler):
    """GitHub's issuer and Vault, as far as a deployment asks them."""

    def do_GET(self) -> None:
        assert self.headers["Authorization"] == f"Bearer {_REQUEST_TOKEN}"
        audience = self.path.partition("audience=")[2]
        self._answer(200, {"value": f"{_IDENTITY} for {audience}"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/auth/jwt/login":
            known = body["jwt"].startswith(_IDENTITY) and body["role"] == "staging"
            if known:
                self._answer(200, {"auth": {"client_token": _VAULT_TOKEN}})
            else:
                self._answer(403, {"errors": ["no"]})
        else:
            assert self.path == "/v1/ssh-client-signer/sign/staging"
            assert self.headers["Authorization"] == f"Bearer {_VAULT_TOKEN}"
            assert body["public_key"].startswith("ssh-ed25519 ")
            self._answer(200, {"data": {"signed_key": _SIGNED}})

    def _answer(self, status: int, body: dict[str, object]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def authorities() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Authorities) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


# ssh-keygen makes a key's files, ssh writes down what it is asked and with which certificate.
_KEYGEN = """#!/bin/sh
for last; do :; done
echo private >"$last" && echo "ssh-ed25519 AAAAnew deploy" >"$last.pub"
"""
_SSH = """#!/bin/sh
printf '%s\\n' "$@" >"$LOG"
while [ "$1" != -i ]; do shift; done
cat "$2-cert.pub" "$(dirname "$2")/known_hosts" >>"$LOG"
stat -c %a "$(dirname "$2")" >>"$LOG"
exit 7
"""


@pytest.fixture
def run_environment(authorities: str, tmp_path: Path) -> dict[str, str]:
    for name, text in (("ssh-keygen", _KEYGEN), ("ssh", _SSH)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{authorities}/token?api-version=2",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": _REQUEST_TOKEN,
        "VAULT_ADDR": authorities,
        "VAULT_ROLE": "staging",
        "DEPLOY_HOST": "deploy@staging.clinic.internal",
        "DEPLOY_HOST_KEY": "staging.clinic.internal ssh-ed25519 AAAAhost",
    }


def _remote(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/deploy_remote.py", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


def test_it_logs_in_with_a_key_that_was_just_signed(run_environment: dict[str, str]) -> None:
    done = _remote(run_environment, "up", _WEB, _ENGINE, _COMMIT)
    assert done.returncode == 7, done.stderr  # the host's own
    asked = Path(run_environment["LOG"]).read_text().splitlines()
    command = f"sh /opt/sovereigncore/scripts/deploy_compose.sh up {_WEB} {_ENGINE} {_COMMIT}"
    assert asked[-6:] == [
        *("deploy@staging.clinic.internal", "--", command),
        *(_SIGNED, run_environment["DEPLOY_HOST_KEY"], "700"),
    ]
    assert {"StrictHostKeyChecking=yes", "BatchMode=yes", "IdentitiesOnly=yes"} <= set(asked)
    key = Path(asked[asked.index("-i") + 1])
    assert not key.parent.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"VAULT_ROLE": "production"}, "/v1/auth/jwt/login: status 403"),
        ({"VAULT_ADDR": ""}, "not set: VAULT_ADDR"),
        ({"DEPLOY_HOST": "-oProxyCommand=x@host"}, "DEPLOY_HOST: expected user@host"),
    ],
)
def test_a_run_that_may_not_is_one_line_without_a_token(
    run_environment: dict[str, str], changed: dict[str, str], message: str
) -> None:
    done = _remote({**run_environment, **changed}, "rollback")
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    for token in (_REQUEST_TOKEN, _IDENTITY, _VAULT_TOKEN):
        assert token not in done.stderr
    assert not Path(run_environment["LOG"]).exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["down"],
        ["up", "ghcr.io/your/web:latest", _ENGINE, _COMMIT],
        ["up", _WEB, f"{_ENGINE}; rm -rf /", _COMMIT],
        ["up", _WEB, _ENGINE, "main"],
        ["rollback", "now"],
    ],
)
def test_nothing_else_reaches_the_host(arguments: list[str]) -> None:
    with pytest.raises(deploy_remote.DeployError):
        deploy_remote.remote_command(arguments)


# --- The health check of the images -----------------------------------------------------------


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/live" else 503)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def test_a_container_is_well_when_it_answers_200() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert healthcheck.problem(f"{url}/live") == ""
        assert healthcheck.problem(f"{url}/ready") == f"{url}/ready: status 503"
        server.shutdown()
    assert healthcheck.problem(f"{url}/live") == f"{url}/live: ConnectionRefusedError"
