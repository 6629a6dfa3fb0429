"""`scripts/setup_env.sh`: production settings that pass `check --deploy`, private from the first
byte, never replaced unasked, and secrets that a second run keeps."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.migrated import ROOT

pytestmark = pytest.mark.once

MAIL = "smtp+tls://platform:of-the-mailbox@mail.clinic.internal:587"
GIVEN = ("--domain", "ai.clinic.internal", "--mail-url", MAIL)
SECRETS = {
    *("SECRET_KEY", "JWT_SIGNING_KEYS", "AUDIT_KEY", "BACKUP_KEY"),
    *("METRICS_TOKEN", "ENGINE_API_KEY", "DATABASE_URL", "REDIS_URL", "EMAIL_URL"),
}
BESIDE = {"database_owner_url", "database_passwords.psql"}
OF_SERVERS = {
    *("DATABASE_OWNER_URL", "database_passwords.psql", "users.acl"),
    *("POSTGRES_PASSWORD", "POSTGRES_EXPORTER_PASSWORD"),
    *("REDIS_EXPORTER_PASSWORD", "REDIS_ADMIN_PASSWORD", "GRAFANA_ADMIN_PASSWORD"),
    *("ALERT_SMTP_PASSWORD", "ALERT_SLACK_URL", "ALERT_WEBHOOK_TOKEN"),
}
_ENVIRONMENT = {"PATH": os.environ["PATH"]}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", 'umask 000; exec sh scripts/setup_env.sh "$@"', "sh", *arguments],
        cwd=ROOT,
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def written(path: Path, *arguments: str) -> str:
    """What is told of a run that must succeed."""
    done = run("--output", str(path), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def settings_in(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def check_deploy(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={**_ENVIRONMENT, "DJANGO_SETTINGS_MODULE": "sovereigncore.settings", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_it_writes_is_fit_for_production(tmp_path: Path) -> None:
    path = tmp_path / "etc/.env"
    said = written(path, *GIVEN, "--data-dir", str(tmp_path / "data"))
    checked = check_deploy(ENV_FILE=str(path))
    assert checked.returncode == 0, checked.stderr
    assert "no issues" in checked.stdout
    assert {each.name for each in path.parent.iterdir()} == {".env", *BESIDE}
    assert {mode(each) for each in path.parent.iterdir()} == {0o600}
    found = settings_in(path)
    assert found["PUBLIC_BASE_URL"] == "https://ai.clinic.internal"
    assert found["REGISTRATION_MODE"] == "verified"
    assert found["EMAIL_URL"] == MAIL
    assert not any(found[name] in said for name in SECRETS)


def test_database_roles_get_passwords_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    server = "db.clinic.internal/sovereigncore?sslmode=verify-full"
    written(path, *GIVEN, "--database-url", f"postgres://{server}")
    passwords = (tmp_path / "database_passwords.psql").read_text()
    roles = dict(re.findall(r"^\\set (\w+) '(\w{64})'$", passwords, re.MULTILINE))
    assert set(roles) == {"owner_password", "app_password", "exporter_password"}
    assert len(set(roles.values())) == 3
    app, owner = roles["app_password"], roles["owner_password"]
    assert settings_in(path)["DATABASE_URL"] == f"postgres://sovereigncore_app:{app}@{server}"
    assert (
        tmp_path / "database_owner_url"
    ).read_text() == f"postgres://sovereigncore_owner:{owner}@{server}\n"


def test_other_choices(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    more = ("--database-url", "sqlite", "--redis", "none", "--proxy", "10.0.0.1")
    written(path, *GIVEN, *more, "--registration", "closed", "--domain", "AI.clinic.internal:8443")
    found = settings_in(path)
    assert found["PUBLIC_BASE_URL"] == "https://ai.clinic.internal:8443"
    assert found["ALLOWED_HOSTS"].startswith("ai.clinic.internal,")
    assert (found["TRUSTED_PROXIES"], found["REGISTRATION_MODE"]) == ("10.0.0.1", "closed")
    assert not {"DATABASE_URL", "REDIS_URL"} & set(found)
    assert list(tmp_path.iterdir()) == [path]
    checked = check_deploy(ENV_FILE=str(path), DATA_DIR=str(tmp_path))
    assert checked.returncode == 0, checked.stderr


def test_urls_with_users_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    database, redis = (
        "postgres://me:mine@db.clinic.internal/x",
        "rediss://me:mine@r.clinic.internal/1",
    )
    written(path, *GIVEN, "--database-url", database, "--redis", redis)
    found = settings_in(path)
    assert (found["DATABASE_URL"], found["REDIS_URL"]) == (database, redis)
    assert list(tmp_path.iterdir()) == [path]


def test_every_file_has_secrets_of_its_own(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        written(tmp_path / name / ".env", *GIVEN)
        found.append(set(re.findall(r"[0-9a-f]{64}", (tmp_path / name / ".env").read_text())))
    assert [len(each) for each in found] == [8, 8]
    assert found[0].isdisjoint(found[1])


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("SECRET_KEY=mine\n")
    for more in ((), ("--yes",)):
        refused = run("--output", str(path), *GIVEN, *more)
        assert refused.returncode == 1
        assert "--force" in refused.stderr
    assert path.read_text() == "SECRET_KEY=mine\n"
    assert list(tmp_path.iterdir()) == [path]


def test_replaced_it_keeps_secrets_and_what_somebody_added(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    written(path, *GIVEN)
    with path.open("a") as file:
        file.write("ADMIN_REQUIRE_OTP=true\n")
    before, text = settings_in(path), path.read_text()
    beside = {name: (tmp_path / name).read_text() for name in BESIDE}
    written(path, "--force", "--domain", "new.clinic.internal")
    after = settings_in(path)
    assert {name for name in after if after[name] != before.get(name)} == {
        *("PUBLIC_BASE_URL", "ALLOWED_HOSTS")
    }
    assert set(after) == set(before)
    assert {name: (tmp_path / name).read_text() for name in BESIDE} == beside
    (kept,) = tmp_path.glob(".env.before-*")
    assert kept.read_text() == text
    assert mode(kept) == mode(path) == 0o600


def test_replaced_it_is_still_readable_to_the_platforms_group(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    written(path, *GIVEN)
    group = max([os.getgid(), *os.getgroups()])  # another than new files get, if there is one
    os.chown(path, -1, group)
    path.chmod(0o640)
    written(path, "--force")
    assert (mode(path), path.stat().st_gid) == (0o640, group)
    path.chmod(0o644)
    written(path, "--force")
    assert mode(path) == 0o600


def test_of_several_at_once_one_writes(tmp_path: Path) -> None:
    """Or one would write what the database's roles do not get as their passwords."""
    path = tmp_path / ".env"
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: run("--output", str(path), *GIVEN), range(6)))
    assert sorted(each.returncode for each in done) == [0, 1, 1, 1, 1, 1]
    password = urlsplit(settings_in(path)["DATABASE_URL"]).password
    assert f"'{password}'" in (tmp_path / "database_passwords.psql").read_text()
    assert {file.name for file in tmp_path.iterdir()} == {".env", *BESIDE}


@pytest.mark.parametrize(
    "domain",
    [
        *(
            "",
            "localhost",
            "192.168.1.1",
            "[::1]",
            "a b.de",
            "-a.de",
            "a-.de",
            "a..de",
            ".de",
            "a.de.",
        ),
        *("a_b.de", "http://a.de", "a.de/x", "a.de:0", "a.de:65536", "a.de:x", "ü.de", "*.a.de"),
        *("a.de\nDEBUG=true", "$(id).de", "a.de'", "a" * 64 + ".de", "a." * 127 + "de"),
    ],
)
def test_a_bad_domain_is_refused(tmp_path: Path, domain: str) -> None:
    done = run("--output", str(tmp_path / ".env"), "--mail-url", MAIL, "--domain", domain)
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        ("--mail-url", "mail.clinic.internal"),
        ("--mail-url", "smtp://a:b c@mail"),
        ("--database-url", "mysql://x/y"),
        ("--database-url", "postgres://no-database"),
        ("--redis", "127.0.0.1:6379"),
        ("--registration", "all"),
        ("--registration",),
        ("--proxy", "1.2.3.4\nDEBUG=true"),
        ("--unknown",),
        ("--compose", "--redis", "none"),
        ("--compose", "--database-url", "sqlite"),
        ("--compose", "--proxy", "10.0.0.1"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, wrong: tuple[str, ...]) -> None:
    assert run("--output", str(tmp_path / ".env"), *GIVEN, *wrong).returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_it_asks_at_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    answers = ["ai.clinic.internal", MAIL, "", "none", "invite", ""]
    said = at_a_terminal(answers, "--output", str(path))
    assert "Public host name" in said
    found = settings_in(path)
    assert found["PUBLIC_BASE_URL"] == "https://ai.clinic.internal"
    assert found["EMAIL_URL"] == MAIL
    assert found["DATABASE_URL"].endswith("@127.0.0.1:5432/sovereigncore")
    assert "REDIS_URL" not in found
    assert found["REGISTRATION_MODE"] == "invite"

    before = path.read_text()
    said = at_a_terminal([""] * 6 + ["n"], "--output", str(path))
    assert "Replace it" in said
    assert path.read_text() == before
    assert MAIL not in said  # the password in it is not shown
    at_a_terminal(["", "", "", "", "closed", "", "y"], "--output", str(path))
    assert path.read_text() == before.replace("=invite", "=closed")


def at_a_terminal(answers: list[str], *arguments: str) -> str:
    """What is shown, with the answers typed ahead."""
    terminal, its_end = pty.openpty()
    try:
        os.write(terminal, "".join(f"{answer}\n" for answer in answers).encode())
        done = subprocess.run(
            ["sh", "scripts/setup_env.sh", *arguments],
            cwd=ROOT,
            env=_ENVIRONMENT,
            stdin=its_end,
            stderr=its_end,
            stdout=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.stdout == ""
        os.set_blocking(terminal, False)
        shown = b""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(terminal, 4096):
                shown += more
        return shown.decode()
    finally:
        os.close(terminal)
        os.close(its_end)


def test_for_compose_each_secret_is_a_file(tmp_path: Path) -> None:
    path, secrets = tmp_path / ".env", tmp_path / "secrets"
    written(path, *GIVEN, "--compose")
    assert {each.name for each in secrets.iterdir()} == SECRETS | OF_SERVERS
    assert (mode(path), mode(secrets)) == (0o600, 0o700)
    assert {mode(each) for each in secrets.iterdir()} == {0o644}  # containers' users read them
    assert set(settings_in(path)) == {"DEBUG", "PUBLIC_BASE_URL", "REGISTRATION_MODE"}
    assert not re.search(r"[0-9a-f]{32}", path.read_text())
    for name in ("DATABASE_URL", "DATABASE_OWNER_URL"):
        assert "@postgres:5432/sovereigncore" in (secrets / name).read_text()
    assert "@redis:6379/0" in (secrets / "REDIS_URL").read_text()
    checked = check_deploy(
        ENV_FILE=str(path),
        DATA_DIR=str(tmp_path),
        TRUSTED_PROXIES="172.30.1.2",
        **{f"{name}_FILE": str(secrets / name) for name in SECRETS},
    )
    assert checked.returncode == 0, checked.stderr


def test_for_compose_a_second_run_keeps_what_is_there(tmp_path: Path) -> None:
    path, secrets = tmp_path / ".env", tmp_path / "secrets"
    written(path, *GIVEN, "--compose")
    before = {each.name: each.read_text() for each in secrets.iterdir()}
    written(path, "--compose", "--force", "--registration", "closed")
    assert {each.name: each.read_text() for each in secrets.iterdir()} == before
    assert settings_in(path)["REGISTRATION_MODE"] == "closed"
