"""The roles of `deploy/postgresql`: a web process needs no more than `sovereigncore_app` may, and
whoever has that role's password cannot change what happened."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import psycopg
import pytest
import redis
from django.conf import settings
from psycopg import errors

from tests import environment
from tests.migrated import ROOT, manage
from tests.outbox import text_of
from tests.platform import PASSWORD, Platform, free_port, web_process
from tests.roled_postgres import APP, EXPORTER, OWNER, RoledPostgres
from tests.servers import RedisServer
from tests.smtp_sink import SMTPSink
from tests.stub_engine import MODEL, StubEngine

pytestmark = [pytest.mark.once, pytest.mark.xdist_group("database_roles")]

API = "/api/v1/"
PROCESS = f"{API}consciousness/process"
NEW_PASSWORD = "Wrong-Donkey-8-Battery"
EVENTS, SEALS, ARCHIVES = "monitoring_auditevent", "monitoring_auditseal", "monitoring_auditarchive"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A platform as the guide installs it: commands as the owner, web processes as the app."""

    server: RoledPostgres
    platform: Platform
    redis: RedisServer
    mails: SMTPSink

    def command(self, *arguments: str) -> str:
        """As the owner; what it says."""
        owners = {**self.platform.environment, "DATABASE_URL": self.server.url_of(OWNER)}
        done = manage(owners, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def housekeeping(self) -> None:
        """The worker's jobs, mails that wait for their time too."""
        with self.server.connect(OWNER) as connection:
            connection.execute("UPDATE accounts_mail SET due_at = now()")
        self.command("housekeeping", "--now")

    def mailed_token(self) -> str:
        before = len(self.mails.received)
        self.housekeeping()
        text = "".join(text_of(delivery.message) for delivery in self.mails.received[before:])
        links = set(re.findall(r"http\S+[?&]token=[\w-]+", text))
        token: str
        (token,) = {token for link in links for token in parse_qs(urlsplit(link).query)["token"]}
        return token


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    with (
        RoledPostgres() as server,
        RedisServer() as cache,
        StubEngine() as stub,
        SMTPSink() as mails,
        tempfile.TemporaryDirectory() as folder,
    ):
        server.make_roles()
        settings = {
            **os.environ,
            **environment.test_environment(folder),
            "DJANGO_SETTINGS_MODULE": "tests.live_settings",
            "PORT": str(free_port()),
            "DATABASE_URL": server.url_of(APP),
            "REDIS_URL": cache.url,
            "EMAIL_URL": f"smtp://platform:of-the-mailbox@127.0.0.1:{mails.port}",
            "ENGINE_URL": stub.url,
            "ENGINE_API_KEY": stub.api_key,
            "METRICS_TOKEN": secrets.token_hex(32),
            "BACKUP_DIR": "backups",
            "BACKUP_KEY": secrets.token_hex(32),
            **dict.fromkeys(
                ("RATE_LIMIT_AUTH", "RATE_LIMIT_REGISTER", "RATE_LIMIT_RESET"), "999/m"
            ),
            "RATE_LIMIT_DEFAULT": "10000/m",
        }
        owners = {**settings, "DATABASE_URL": server.url_of(OWNER)}
        for arguments in (("migrate", "-v0"), ("backup",)):
            done = manage(owners, *arguments)
            assert done.returncode == 0, done.stderr
        with web_process(settings, Path(folder) / "web.log") as platform:
            yield Installed(server=server, platform=platform, redis=cache, mails=mails)


def call(http: httpx2.Client, method: str, path: str, expected: int = 200, **body: Any) -> Any:
    """The JSON of the answer, or its text."""
    reply = http.request(method, path, **body)
    assert reply.status_code == expected, f"{method} {path}: {reply.status_code} {reply.text}"
    is_json = "json" in reply.headers.get("Content-Type", "")
    return reply.json() if is_json and reply.content else reply.text


def test_web_processes_need_no_more_than_the_apps_rights(installed: Installed) -> None:
    platform = installed.platform
    token = platform.register_and_log_in("alice")
    with platform.client(token) as http:
        people_ask(http)
        people_keep_their_account(installed, http)
    people_forget_their_password(installed)
    staff_administers(installed)
    with platform.client() as http:
        form = {"username": "alice", "password": NEW_PASSWORD}
        token = call(http, "POST", f"{API}auth/token", data=form)["access_token"]
    with platform.client(token) as http:
        call(http, "DELETE", f"{API}users/me", 204, json={"current_password": NEW_PASSWORD})
    with platform.client(platform.environment["METRICS_TOKEN"]) as http:
        assert call(http, "GET", "/health")["status"] == "healthy"
        metrics = call(http, "GET", "/metrics")
    readers = re.findall(r"^sovereigncore_stored_metrics_up\{.*\} (\S+)$", metrics, re.MULTILINE)
    assert len(readers) > 3
    assert set(readers) == {"1.0"}
    assert [line for line in platform.log_lines() if "permission denied" in line] == []
    with redis.Redis.from_url(installed.redis.admin_url) as admin:
        assert admin.acl_log() == []  # of what Redis refused
    assert {json.loads(line)["level"] for line in platform.log_lines()} <= {"info", "warning"}


def people_ask(http: httpx2.Client) -> None:
    asked = call(http, "POST", PROCESS, json={"prompt": "hello", "conversation": "new"})
    call(http, "POST", PROCESS, json={"prompt": "again"}, headers={"Idempotency-Key": "once-only"})
    streamed = call(http, "POST", PROCESS, json={"prompt": "hello", "stream": True})
    assert "data:" in streamed
    message = {"role": "user", "content": "hello"}
    call(http, "POST", "/v1/chat/completions", json={"model": MODEL, "messages": [message]})
    conversation = f"{API}consciousness/conversations/{asked['conversation']}"
    call(http, "PATCH", conversation, json={"title": "mine"})
    call(http, "GET", f"{conversation}/messages")
    fact = call(http, "POST", f"{API}consciousness/memories", 201, json={"text": "I like tea."})
    memory = f"{API}consciousness/memories/{fact['id']}"
    call(http, "PATCH", memory, json={"text": "I like coffee."})
    call(http, "GET", f"{API}consciousness/memories", params={"search": "coffee"})
    call(http, "DELETE", memory, 204)
    (first, *_) = call(http, "GET", f"{API}consciousness/queries")["results"]
    call(http, "DELETE", f"{API}consciousness/queries/{first['id']}", 204)
    call(http, "DELETE", conversation, 204)
    for path in ("usage", "consciousness/state", "consciousness/status"):
        call(http, "GET", API + path)
    call(http, "DELETE", f"{API}consciousness/queries", 204)


def people_keep_their_account(installed: Installed, http: httpx2.Client) -> None:
    key = call(http, "POST", f"{API}keys", 201, json={"name": "k", "scopes": ["read", "write"]})
    with installed.platform.client(key["key"]) as by_key:
        call(by_key, "GET", f"{API}auth/me")
    call(http, "DELETE", f"{API}keys/{key['id']}", 204)
    call(http, "PATCH", f"{API}users/me", json={"full_name": "Alice"})
    change = {"email": "new@example.org", "current_password": PASSWORD}
    call(http, "PATCH", f"{API}users/me", json=change)
    token = installed.mailed_token()
    call(http, "POST", f"{API}users/email-change/confirm", json={"token": token})
    archive = http.get(f"{API}users/me/export")
    assert archive.status_code == httpx2.codes.OK
    assert archive.content.startswith(b"PK")
    pair = installed.platform.log_in("alice")
    call(http, "POST", f"{API}auth/token/refresh", json={"refresh_token": pair["refresh_token"]})
    call(http, "GET", f"{API}auth/sessions")
    call(http, "POST", f"{API}auth/logout", 204)


def people_forget_their_password(installed: Installed) -> None:
    with installed.platform.client() as http:
        asked = {"email": "new@example.org"}
        call(http, "POST", f"{API}users/password-reset/request", 202, json=asked)
        change = {"token": installed.mailed_token(), "new_password": NEW_PASSWORD}
        call(http, "POST", f"{API}users/password-reset/confirm", json=change)


def staff_administers(installed: Installed) -> None:
    installed.command(
        *("shell", "-v0", "--no-imports", "-c"),
        "from accounts.models import User;"
        f"User.objects.create_superuser('grace', 'grace@example.org', '{PASSWORD}')",
    )
    platform = installed.platform
    with platform.client(platform.log_in("grace")["access_token"]) as http:
        call(http, "GET", f"{API}users", params={"search": "alice"})
        call(http, "PATCH", f"{API}users/alice", json={"daily_token_quota": 1000})
        call(http, "POST", f"{API}users/alice/disable")
        call(http, "POST", f"{API}users/alice/enable")
        call(http, "POST", f"{API}users/alice/sign-out", 204)
        invited = call(
            http, "POST", f"{API}users/invitations", 201, json={"email": "e@example.org"}
        )
        call(http, "DELETE", f"{API}users/invitations/{invited['id']}", 204)
        assert call(http, "GET", f"{API}audit")["results"]
    with platform.client() as browser:
        browser.follow_redirects = True
        form = {"username": "grace", "password": PASSWORD}
        form["csrfmiddlewaretoken"] = csrf_token(browser, "/admin/login/")
        call(browser, "POST", "/admin/login/", data=form)
        index = call(browser, "GET", "/admin/")
        lists = sorted(set(re.findall(r'href="(/admin/\w+/\w+/)"', index)))
        assert len(lists) > 8
        for path in lists:
            call(browser, "GET", path)
        add = "/admin/consciousness/modelalias/add/"
        alias = {
            "alias": "nickname",
            "model": MODEL,
            "is_enabled": "on",
            "csrfmiddlewaretoken": csrf_token(browser, add),
        }
        call(browser, "POST", add, data=alias)


def csrf_token(browser: httpx2.Client, path: str) -> str:
    page = call(browser, "GET", path)
    found: list[str] = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    return found[0]


# --- What the app may not do ------------------------------------------------------------------


@pytest.fixture
def app(installed: Installed) -> Iterator[psycopg.Connection]:
    with installed.server.connect(APP) as connection:
        yield connection


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE monitoring_auditevent SET detail = '[]'",
        "UPDATE monitoring_auditevent SET seal_id = 1",
        "DELETE FROM monitoring_auditevent",
        "TRUNCATE monitoring_auditevent",
        "SELECT 1 FROM monitoring_auditevent FOR UPDATE",
        "INSERT INTO monitoring_auditseal DEFAULT VALUES",
        "UPDATE monitoring_auditseal SET count = 0",
        "DELETE FROM monitoring_auditseal",
        "INSERT INTO monitoring_auditarchive DEFAULT VALUES",
        "UPDATE monitoring_auditarchive SET count = 0",
        "DELETE FROM monitoring_auditarchive",
        "ALTER TABLE monitoring_auditevent DISABLE TRIGGER ALL",
        "ALTER TABLE monitoring_auditevent ADD COLUMN x int",
        "DROP TRIGGER audit_no_update ON monitoring_auditevent",
        "CREATE TRIGGER x BEFORE INSERT ON monitoring_auditevent EXECUTE FUNCTION now()",
        "CREATE RULE x AS ON INSERT TO monitoring_auditevent DO INSTEAD NOTHING",
        "DROP TABLE monitoring_auditevent CASCADE",
        "CREATE OR REPLACE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE sql AS ''",
        "DROP FUNCTION audit_is_append_only() CASCADE",
        "SELECT setval('monitoring_auditevent_id_seq', 1)",
        "SET session_replication_role = replica",
        "CREATE TABLE x (y int)",
        "CREATE TEMPORARY TABLE x (y int)",
        "CREATE SCHEMA x",
        "ALTER TABLE accounts_user ADD COLUMN x int",
        "CREATE INDEX x ON accounts_user (id)",
        "TRUNCATE accounts_user CASCADE",
        "ALTER SCHEMA public RENAME TO x",
        "SET ROLE sovereigncore_owner",
        "ALTER ROLE sovereigncore_app SUPERUSER",
        "CREATE ROLE x",
        "CREATE DATABASE x",
        "DROP EXTENSION plpgsql CASCADE",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('pg_hba.conf')",
        "SELECT rolpassword FROM pg_authid",
        "ALTER SYSTEM SET fsync = off",
    ],
)
def test_the_app_cannot(app: psycopg.Connection, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        app.execute(statement)


def test_the_app_cannot_give_itself_rights(installed: Installed, app: psycopg.Connection) -> None:
    """PostgreSQL warns only, as it has rights of which it could give some, did it hold them so."""
    app.execute("GRANT ALL ON monitoring_auditevent, monitoring_auditseal TO sovereigncore_app")
    assert rights_on_the_trail(installed) == _RIGHTS


def test_the_app_cannot_delete_what_it_says_is_archived(app: psycopg.Connection) -> None:
    with app.transaction():
        app.execute("SELECT set_config('sovereigncore.audit_archived', '999999', true)")
        with pytest.raises(errors.InsufficientPrivilege):
            app.execute("DELETE FROM monitoring_auditevent")


@pytest.mark.parametrize("database", ["postgres", "template1"])
@pytest.mark.parametrize("role", [APP, OWNER, EXPORTER])
def test_no_role_enters_another_database(installed: Installed, role: str, database: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects"):
        installed.server.connect(role, database)


def test_the_exporter_reads_statistics_and_no_rows(installed: Installed) -> None:
    with installed.server.connect(EXPORTER) as exporter:
        assert exporter.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state <> ''"
        ).fetchone()
        for table in (EVENTS, "accounts_user", "consciousness_querycontent"):
            with pytest.raises(errors.InsufficientPrivilege):
                exporter.execute(f"TABLE public.{table}")


def test_each_role_has_its_times(installed: Installed) -> None:
    times = {}
    for role in (APP, OWNER):
        with installed.server.connect(role) as connection:
            times[role] = [
                connection.execute(f"SHOW {name}").fetchone()
                for name in ("statement_timeout", "lock_timeout")
            ]
    assert times == {APP: [("3s",), ("2s",)], OWNER: [("1h",), ("1500ms",)]}


def test_the_servers_log_quotes_no_row(installed: Installed, app: psycopg.Connection) -> None:
    canary = secrets.token_hex(16)
    # The value in the statement itself, as Django sends it.
    client = psycopg.ClientCursor(app)
    statement = "INSERT INTO django_session VALUES (%(it)s, %(it)s, now())"
    client.execute(statement, {"it": canary})
    with pytest.raises(errors.UniqueViolation):
        client.execute(statement, {"it": canary})
    app.execute("DELETE FROM django_session WHERE session_key = %s", [canary])
    log = (installed.server.scratch.path / "log").read_text()
    assert "duplicate key value violates unique constraint" in log
    assert canary not in log
    assert not any(password in log for password in installed.server.passwords.values())


# --- What the owner does ----------------------------------------------------------------------


def test_roles_may_be_made_again(installed: Installed) -> None:
    """Also on a trail whose rights somebody widened."""
    with installed.server.connect(OWNER) as owner:
        owner.execute(f"GRANT ALL ON {EVENTS}, {SEALS}, {ARCHIVES} TO {APP}")
    installed.server.make_roles()
    assert rights_on_the_trail(installed) == _RIGHTS


def test_what_a_restore_makes_anew_has_the_same_rights(installed: Installed) -> None:
    installed.platform.stop()
    installed.housekeeping()
    said = installed.command("backup")
    (backup,) = re.findall(r"\S+\.backup", said)
    installed.command("verify_backup", "--newest")
    installed.command("restore", backup, "--yes")
    installed.command("verify_audit")
    assert rights_on_the_trail(installed) == _RIGHTS
    installed.platform.start_again()
    token = installed.platform.register_and_log_in("after")
    with installed.platform.client(token) as http:
        call(http, "POST", PROCESS, json={"prompt": "hello"})
    installed.command("verify_audit")


_RIGHTS = {EVENTS: ["INSERT", "SELECT"], SEALS: ["SELECT"], ARCHIVES: ["SELECT"]}


def rights_on_the_trail(installed: Installed) -> dict[str, list[str]]:
    """Of the app."""
    query = (
        "SELECT privilege_type FROM information_schema.role_table_grants"
        " WHERE table_schema = 'public' AND table_name = %s AND grantee = %s ORDER BY 1"
    )
    with installed.server.connect(OWNER) as owner:
        return {
            table: [right for (right,) in owner.execute(query, [table, APP])]
            for table in (EVENTS, SEALS, ARCHIVES)
        }


def verify(environment: dict[str, str]) -> dict[str, tuple[str, str]]:
    """What `verify_deployment` finds: (verdict, why) by the check's name."""
    done = manage(environment, "verify_deployment", "--json")
    secret = [environment[name] for name in ("METRICS_TOKEN", "BACKUP_KEY", "AUDIT_KEY")]
    passwords = [urlsplit(environment[name]).password for name in ("DATABASE_URL", "REDIS_URL")]
    for word in (*secret, *passwords, "of-the-mailbox"):
        assert word is not None
        assert word not in done.stdout + done.stderr
    checks = json.loads(done.stdout)["checks"]
    return {check["name"]: (check["verdict"], check["why"]) for check in checks}


_ASK_ROLES = """
import sys, django
django.setup()
from django.db import connection
from monitoring.deployment import database
for line in sys.stdin:
    found = database.ask_roles()
    print(found.verdict, found.why, sep="\\t", flush=True)
    connection.close()
"""


@contextlib.contextmanager
def asking_roles(environment: dict[str, str]) -> Iterator[Callable[[], tuple[str, ...]]]:
    """The checklist's line about roles, as often as it is called: the whole list takes seconds."""
    with subprocess.Popen(
        [sys.executable, "-c", _ASK_ROLES],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to_it, from_it = process.stdin, process.stdout

        def ask() -> tuple[str, ...]:
            to_it.write("again\n")
            to_it.flush()
            return tuple(from_it.readline().rstrip("\n").split("\t"))

        try:
            yield ask
        finally:
            process.kill()


def test_the_operators_checklist_knows_who_may_what(installed: Installed) -> None:
    apps = installed.platform.environment
    owners = {**apps, "DATABASE_URL": installed.server.url_of(OWNER)}
    installed.housekeeping()
    with installed.platform.client() as http:
        call(http, "GET", "/ready")  # its pool has a connection from then on
    found = verify(owners)
    assert found["database roles"] == (
        "ok",
        f"web processes connect as {APP}, which cannot change the audit trail",
    )
    well = {
        *("clock", "migrations", "audit triggers", "audit trail", "redis", "worker", "mail"),
        *("engine", "web process", "metrics token"),
    }
    assert {name: found[name] for name in well if found[name][0] != "ok"} == {}
    with asking_roles(owners) as by_owner, asking_roles(apps) as by_app:
        assert by_app() == ("ok", f"{APP} can add to the audit trail and not change it")
        who_may_what(installed, by_owner, f"a web process is connected as {APP}")
        who_may_what(installed, by_app, f"the platform connects as {APP}, a superuser")
    superusers = {**apps, "DATABASE_URL": installed.server.superuser_url}
    with asking_roles(superusers) as by_superuser:
        verdict, why = by_superuser()
        assert verdict == "failed"
        assert "a superuser" in why
    installed.platform.stop()
    try:
        stopped = verify(owners)
    finally:
        installed.platform.start_again()
    assert stopped["web process"][0] == "failed"
    assert stopped["database roles"] == (
        "warning",
        f"nobody is connected as {APP}: do web processes use the owner's role?",
    )


def who_may_what(
    installed: Installed, ask: Callable[[], tuple[str, ...]], of_a_superuser: str
) -> None:
    """Whoever asks, rights that are too wide are told; `of_a_superuser` where the app is one."""
    with installed.server.connect(OWNER) as connection:
        of_web = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = %s"
        assert connection.execute(of_web, [settings.WEB_APPLICATION_NAME]).fetchall() == [(APP,)]
        # One web process of several with the owner's URL.
        connection.execute(
            "SELECT set_config('application_name', %s, false)", [settings.WEB_APPLICATION_NAME]
        )
        verdict, why = ask()
        assert verdict == "failed"
        assert f"a web process is connected as {OWNER}" in why
    with psycopg.connect(installed.server.superuser_url, autocommit=True) as superuser:
        superuser.execute(f"ALTER ROLE {APP} SUPERUSER")
        try:
            verdict, why = ask()
        finally:
            installed.server.make_roles()
    assert verdict == "failed"
    assert of_a_superuser in why
    with installed.server.connect(OWNER) as connection:
        connection.execute(f"GRANT UPDATE ON {EVENTS} TO {APP}")
    try:
        assert ask() == ("failed", f"{APP} can change the audit trail: run roles.sql again")
    finally:
        installed.server.make_roles()
