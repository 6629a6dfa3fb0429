"""`python3 scripts/deploy_remote.py up WEB_IMAGE ENGINE_IMAGE REVISION`, or `… rollback`: a command
of scripts/deploy_compose.sh on DEPLOY_HOST. By the standard library alone, for it is run by
.github/workflows/deploy-to.yml.

No long-lived key is used. GitHub says in a signed token who asks (OIDC); Vault's role VAULT_ROLE
takes the token and signs a key that is made here, is good for some minutes and is thrown away.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

_PLACE = "/opt/sovereigncore"
_TIMEOUT_S = 20.0
_DEPLOY_TIMEOUT_S = 20 * 60.0
_NEEDED = (
    *("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
    *("VAULT_ADDR", "VAULT_ROLE", "DEPLOY_HOST", "DEPLOY_HOST_KEY"),
)
# They pass through a shell on the other side.
_IMAGE = re.compile(r"[a-z0-9.-]+(?::\d+)?/[a-z0-9._/-]+@sha256:[0-9a-f]{64}")
_REVISION = re.compile(r"[0-9a-f]{40}")
_HOST = re.compile(r"[a-z_][a-z0-9_-]*@[A-Za-z0-9][A-Za-z0-9.-]*")


class DeployError(Exception):
    """Nothing was deployed; the message is for whoever reads the run's log, and holds no token."""


def remote_command(arguments: list[str]) -> list[str]:
    """What is run on the host. Raises DeployError for arguments that are not ours."""
    program = ["sh", f"{_PLACE}/scripts/deploy_compose.sh"]
    match arguments:
        case ["rollback"]:
            return [*program, "rollback"]
        case ["up", web, engine, revision]:
            if not (_IMAGE.fullmatch(web) and _IMAGE.fullmatch(engine)):
                raise DeployError("images are named as registry/name@sha256:digest")
            if not _REVISION.fullmatch(revision):
                raise DeployError("the revision is a whole commit id")
            return [*program, "up", web, engine, revision]
    raise DeployError("usage: deploy_remote.py up WEB_IMAGE ENGINE_IMAGE REVISION | rollback")


def _ask(url: str, *, token: str = "", body: dict[str, str] | None = None) -> dict[str, Any]:
    """The JSON that is answered. Raises DeployError, without the token."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - operators' URLs
    place = url.partition("?")[0]
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        raise DeployError(f"{place}: status {error.code}") from None
    except (OSError, ValueError) as error:
        raise DeployError(f"{place}: {type(error).__name__}") from None


def _certificate(public_key: str, settings: Mapping[str, str]) -> str:
    """The public key, signed by Vault for who this run is."""
    vault, role = settings["VAULT_ADDR"].rstrip("/"), settings["VAULT_ROLE"]
    identity = _ask(
        f"{settings['ACTIONS_ID_TOKEN_REQUEST_URL']}&audience={quote(vault, safe='')}",
        token=settings["ACTIONS_ID_TOKEN_REQUEST_TOKEN"],
    )["value"]
    login = _ask(f"{vault}/v1/auth/jwt/login", body={"role": role, "jwt": identity})
    signed = _ask(
        f"{vault}/v1/ssh-client-signer/sign/{quote(role, safe='')}",
        token=login["auth"]["client_token"],
        body={"public_key": public_key},
    )
    certificate: str = signed["data"]["signed_key"]
    return certificate


def run(arguments: list[str], settings: Mapping[str, str]) -> int:
    """The exit code of the host's command. Raises DeployError where it does not come to that."""
    command = remote_command(arguments)
    missing = [name for name in _NEEDED if not settings.get(name)]
    if missing:
        raise DeployError(f"not set: {', '.join(missing)}")
    host = settings["DEPLOY_HOST"]
    if not _HOST.fullmatch(host):
        raise DeployError("DEPLOY_HOST: expected user@host")
    with tempfile.TemporaryDirectory(prefix="deploy-") as name:  # of mode 700
        folder = Path(name)
        key = folder / "key"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "deploy", "-f", str(key)],
            check=True,
            timeout=_TIMEOUT_S,
        )
        certificate = _certificate((folder / "key.pub").read_text(encoding="utf-8"), settings)
        (folder / "key-cert.pub").write_text(certificate.strip() + "\n", encoding="utf-8")
        known = folder / "known_hosts"
        known.write_text(settings["DEPLOY_HOST_KEY"].strip() + "\n", encoding="utf-8")
        options = (
            *("BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes"),
            *(f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=none", "ConnectTimeout=15"),
            *("ServerAliveInterval=15", "ServerAliveCountMax=4", "ForwardAgent=no"),
        )
        ssh = ["ssh", "-F", "none", "-T", "-i", str(key)]
        for option in options:
            ssh += ["-o", option]
        return subprocess.run(
            [*ssh, host, "--", shlex.join(command)], check=False, timeout=_DEPLOY_TIMEOUT_S
        ).returncode


def main() -> int:
    try:
        return run(sys.argv[1:], os.environ)
    except DeployError as error:
        sys.stderr.write(f"deploy_remote: {error}\n")
    except (subprocess.SubprocessError, OSError, KeyError) as error:
        sys.stderr.write(f"deploy_remote: {type(error).__name__}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
