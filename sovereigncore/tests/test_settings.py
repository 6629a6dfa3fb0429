"""Settings refuse to start on what would go wrong later: one clear message, never a traceback."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from tests import environment
from tests.rsa_keys import pem_of, rsa_key

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "sovereigncore/settings.py"
TIMEOUT_S = 30
TOKEN = "Tz4kQ9wLm2Xc7VbN1pRs8YdF3hJg6Ka0"
HTTPS = {
    "PUBLIC_BASE_URL": "https://ai.example.org",
    "TRUSTED_PROXIES": "10.0.0.0/8",
    "METRICS_TOKEN": TOKEN,
    "API_DOCS": "false",
    "EMAIL_URL": "smtp+tls://mail.example.org",
}


def environment_of(data_dir: Path, changed: dict[str, str | None]) -> dict[str, str]:
    """The whole environment of a process; a value of None is a variable that is not set."""
    full: dict[str, str | None] = {**environment.test_environment(str(data_dir)), **changed}
    return {name: value for name, value in full.items() if value is not None}


def manage(
    data_dir: Path, *arguments: str, **changed: str | None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment_of(data_dir, changed)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


class Loader:
    """Runs the settings file as a process with that environment would."""

    def __init__(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._data_dir, self._monkeypatch = data_dir, monkeypatch

    def load(self, **changed: str | None) -> dict[str, Any]:
        for name in list(os.environ):
            self._monkeypatch.delenv(name)
        for name, value in environment_of(self._data_dir, changed).items():
            self._monkeypatch.setenv(name, value)
        return runpy.run_path(str(SETTINGS))

    def problem(self, **changed: str | None) -> str:
        with pytest.raises(ImproperlyConfigured) as caught:
            self.load(**changed)
        return str(caught.value)


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    return Loader(tmp_path, monkeypatch)


def test_a_refused_start_is_one_message_and_no_traceback(tmp_path: Path) -> None:
    refused = manage(tmp_path, "check", SECRET_KEY=None, PORT="x", WEB_CONCURRENCY="2")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.splitlines() == [
        "SovereignCore cannot start: ",
        "  - PORT: expected a whole number from 1 to 65535, got 'x'",
        "  - WEB_CONCURRENCY: more than one web process needs REDIS_URL, or limits would multiply",
        "  - SECRET_KEY: required (or SECRET_KEY_FILE); it has no default",
    ]


def test_a_command_of_ours_is_refused_in_the_same_way(tmp_path: Path) -> None:
    refused = manage(tmp_path, "bootstrap", JWT_SIGNING_KEYS="t1:short")
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        "SovereignCore cannot start: ",
        "  - JWT_SIGNING_KEYS: the key 't1': too short: 32 characters at least",
    ]


@pytest.mark.parametrize("algorithm", ["HS256", "RS256"])
def test_the_deployment_check_is_clean_in_production(tmp_path: Path, algorithm: str) -> None:
    keys = {"RS256": "r1:" + pem_of(rsa_key("r1")).replace("\n", "\\n"), "HS256": f"h1:{TOKEN}"}
    checked = manage(
        tmp_path,
        *("check", "--deploy", "--fail-level", "WARNING"),
        **HTTPS,
        JWT_ALGORITHM=algorithm,
        JWT_SIGNING_KEYS=keys[algorithm],
    )
    assert checked.returncode == 0, checked.stderr
    assert "identified no issues" in checked.stdout


def test_the_deployment_check_tells_what_production_lacks(tmp_path: Path) -> None:
    checked = manage(
        tmp_path,
        *("check", "--deploy", "--fail-level", "WARNING"),
        PUBLIC_BASE_URL="http://ai.example.org",
    )
    assert checked.returncode == 1
    for number in ("SC.W003", "SC.W005", "SC.W006"):
        assert number in checked.stderr


@pytest.mark.parametrize("name", ["SECRET_KEY", "JWT_SIGNING_KEYS", "ENGINE_API_KEY"])
@pytest.mark.parametrize(
    "value", [None, "", "t1:short", "t1:" + "abc" * 30, "t1:change-me-" + TOKEN * 2]
)
def test_a_secret_that_is_missing_short_uniform_or_an_example_is_refused(
    settings_file: Loader, name: str, value: str | None
) -> None:
    problem = settings_file.problem(**{name: value})
    assert problem.count("\n  - ") == 1
    assert problem.startswith(f"\n  - {name}: ")
    assert value is None or value == "" or value not in problem


def test_each_signing_key_of_several_has_to_be_good(settings_file: Loader) -> None:
    problem = settings_file.problem(JWT_SIGNING_KEYS=f"good:{TOKEN},bad:{'ab' * 20}")
    assert (
        problem
        == "\n  - JWT_SIGNING_KEYS: the key 'bad': too uniform: it looks typed, not generated"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEBUG", "maybe"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "85 28"),
        ("BIND", "300.0.0.1"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_CONCURRENCY", "1.5"),
        ("WEB_THREADS", "1e2"),
        ("ENGINE_SLOTS", "\u0664"),
        ("ACCESS_TOKEN_MINUTES", "1_0"),
        ("REFRESH_TOKEN_DAYS", "91"),
        ("QUEUE_TIMEOUT_S", "nan"),
        ("ENGINE_TOTAL_TIMEOUT_S", "inf"),
        ("GOVERNOR_TEMP_SURVIVE_C", "-1"),
        ("RATE_LIMIT_AUTH", "5"),
        ("RATE_LIMIT_AUTH", "5/w"),
        ("RATE_LIMIT_AUTH", "0/m"),
        ("RATE_LIMIT_AUTH", "5/0m"),
        ("RATE_LIMIT_DEFAULT", "100 / m"),
        ("RATE_LIMIT_REGISTER", "-5/h"),
        ("DAILY_TOKEN_QUOTA", "-1"),
        ("DAILY_TOKEN_QUOTA", "1000000000001"),
        ("DAILY_TOKEN_QUOTA", "1_000"),
        ("TRUSTED_PROXIES", "10.0.0.1, proxy.local"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("PUBLIC_BASE_URL", "ai.example.org"),
        ("PUBLIC_BASE_URL", "https://ai.example.org/"),
        ("PUBLIC_BASE_URL", "https://ai.example.org/chat"),
        ("PUBLIC_BASE_URL", "https://u:p@ai.example.org"),
        ("PUBLIC_BASE_URL", "http://[::::]"),
        ("PUBLIC_BASE_URL", "http://localhost:99999"),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "mysql://u:p@h/d"),
        ("DATABASE_URL", "postgres://u:p@h:port/d"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://localhost"),
        ("ENGINE_URL", "localhost:11434"),
        ("ENGINE_URL", "http://["),
        ("ENGINE_URL", "http://localhost:99999"),
        ("JWT_ALGORITHM", "none"),
        ("REGISTRATION_MODE", "Open"),
        ("LOG_LEVEL", "LOUD"),
        ("ENV_FILE", "/no/such/file"),
        ("METRICS_TOKEN", "short"),
        ("AUDIT_SIGNING_KEY", "0123456789abcdef"),
        ("AUDIT_SIGNING_KEY", "0123456789ABCDEF" * 4),
        ("AUDIT_SIGNING_KEY", "0123456789abcdef" * 4 + "0"),
        ("AUDIT_SIGNING_KEY", "ghijklmnopqrstuv" * 4),
        ("AUDIT_RETENTION_DAYS", "-1"),
        ("BACKUP_KEY", "short"),
        ("BACKUP_KEY", "an example of a key that is long enough 0123456789"),
        ("BACKUP_INTERVAL_HOURS", "0"),
        ("BACKUP_KEEP", "0"),
    ],
)
def test_a_malformed_value_is_refused_by_name(settings_file: Loader, name: str, value: str) -> None:
    problem = settings_file.problem(**{name: value})
    assert problem.count("\n  - ") == 1
    assert problem.startswith(f"\n  - {name}: ")


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "ENGINE_URL", "PUBLIC_BASE_URL"])
def test_a_password_in_a_malformed_url_is_not_repeated(settings_file: Loader, name: str) -> None:
    assert TOKEN not in settings_file.problem(**{name: f"htp://user:{TOKEN}@host:1/x y"})


@pytest.mark.parametrize("bind", ["0.0.0.0", "192.0.2.1", "::", "127.0.0.2"])  # noqa: S104
def test_debug_is_refused_where_others_can_reach_it(settings_file: Loader, bind: str) -> None:
    problem = settings_file.problem(DEBUG="true", BIND=bind)
    assert problem.startswith("\n  - DEBUG: true only with BIND on loopback")


@pytest.mark.parametrize("bind", ["127.0.0.1", "localhost", "::1"])
def test_debug_on_loopback_needs_no_secrets(settings_file: Loader, bind: str) -> None:
    loaded = settings_file.load(
        DEBUG="true", BIND=bind, SECRET_KEY=None, JWT_SIGNING_KEYS=None, ENGINE_API_KEY=None
    )
    assert loaded["DEBUG"] is True


def test_the_secrets_of_debug_are_refused_without_it(settings_file: Loader) -> None:
    debug = settings_file.load(DEBUG="true", SECRET_KEY=None, JWT_SIGNING_KEYS=None)
    (jwt_key,) = debug["JWT_KEYS"].values()
    problem = settings_file.problem(
        SECRET_KEY=debug["SECRET_KEY"], JWT_SIGNING_KEYS=f"debug:{jwt_key.private}"
    )
    assert problem.count("\n  - ") == 2


def test_an_engine_beyond_loopback_needs_a_key_of_its_own(settings_file: Loader) -> None:
    """With DEBUG one stands in that everybody knows."""
    beyond = {"DEBUG": "true", "ENGINE_BIND": "0.0.0.0"}  # noqa: S104
    assert "ENGINE_BIND: beyond loopback only" in settings_file.problem(
        **beyond, ENGINE_API_KEY=None
    )
    assert "ENGINE_API_KEY: too short" in settings_file.problem(**beyond, ENGINE_API_KEY="short")
    assert settings_file.load(**beyond, ENGINE_API_KEY=TOKEN)["ENGINE_BIND"] == "0.0.0.0"  # noqa: S104
    # Elsewhere there is an engine already, and none is served here.
    elsewhere = {"ENGINE_URL": "http://127.0.0.1:11434", "ENGINE_API_KEY": None}
    assert settings_file.load(**beyond, **elsewhere)["ENGINE_IS_LOCAL"] is False


def test_scheduled_backups_need_a_key(settings_file: Loader) -> None:
    assert "BACKUP_KEY: required" in settings_file.problem(BACKUP_DIR="backups")
    loaded = settings_file.load(BACKUP_DIR="backups", BACKUP_KEY=TOKEN)
    assert loaded["BACKUP_DIR"] == loaded["DATA_DIR"] / "backups"
    assert settings_file.load(BACKUP_DIR="/b", BACKUP_KEY=TOKEN)["BACKUP_DIR"] == Path("/b")
    assert settings_file.load()["BACKUP_DIR"] is None


def test_several_processes_need_redis(settings_file: Loader) -> None:
    assert "WEB_CONCURRENCY: " in settings_file.problem(WEB_CONCURRENCY="2", REDIS_URL=None)
    loaded = settings_file.load(WEB_CONCURRENCY="2", REDIS_URL="redis://:pw@127.0.0.1:1/0")
    assert loaded["CACHES"]["ratelimit"]["BACKEND"] == "sovereigncore.ratelimit.FailoverRedisCache"


def test_threads_have_to_be_enough_for_all_who_wait(settings_file: Loader) -> None:
    few = {"QUEUE_LIMIT": "10", "ENGINE_SLOTS": "2"}
    problem = settings_file.problem(**few, WEB_THREADS="43")
    assert "WEB_THREADS: 43 is too few" in problem
    assert "= 44" in problem
    assert settings_file.load(**few, WEB_THREADS="44")["WEB_THREADS"] == 44


def test_what_the_base_url_decides(settings_file: Loader) -> None:
    plain = settings_file.load(PUBLIC_BASE_URL="http://[2001:db8::1]:8528")
    assert "[2001:db8::1]" in plain["ALLOWED_HOSTS"]
    assert plain["SESSION_COOKIE_SECURE"] is plain["SECURE_SSL_REDIRECT"] is False
    assert plain["SECURE_HSTS_SECONDS"] == 0
    assert plain["SECURE_PROXY_SSL_HEADER"] is None
    tls = settings_file.load(**HTTPS)
    assert "ai.example.org" in tls["ALLOWED_HOSTS"]
    assert tls["SESSION_COOKIE_SECURE"] is tls["CSRF_COOKIE_SECURE"] is True
    assert tls["SECURE_HSTS_SECONDS"] == 31_536_000
    assert tls["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")


def test_a_host_that_others_reach_answers_to_its_addresses(settings_file: Loader) -> None:
    """So that a scraper may ask each of several web processes by its own."""
    usual = settings_file.load(BIND="127.0.0.1")["ALLOWED_HOSTS"]
    assert usual == ["127.0.0.1", "localhost", "[::1]", "127.0.0.1"]
    assert settings_file.load(BIND="192.0.2.1")["ALLOWED_HOSTS"] == [*usual, "192.0.2.1"]
    assert settings_file.load(BIND="2001:db8::1")["ALLOWED_HOSTS"] == [*usual, "[2001:db8::1]"]
    named = settings_file.load(BIND="192.0.2.1", ALLOWED_HOSTS="ai.example.org")
    assert named["ALLOWED_HOSTS"] == ["ai.example.org"]


def test_what_is_safe_is_the_default(settings_file: Loader) -> None:
    loaded = settings_file.load(DEBUG=None, API_DOCS=None, REGISTRATION_MODE=None)
    assert loaded["DEBUG"] is loaded["API_DOCS"] is False
    assert loaded["REGISTRATION_MODE"] == "verified"
    assert loaded["BIND"] == "127.0.0.1"
    assert loaded["RATE_LIMIT_DEFAULT"] == "100/m"
    assert loaded["RATE_LIMIT_AUTH"] == "5/m"
    assert loaded["CORS_ALLOWED_ORIGINS"] == []
    assert loaded["TRUSTED_PROXIES"] == []


def test_options_of_the_database_url_are_kept(settings_file: Loader) -> None:
    url = "postgres://u:p%40@db:5432/d?sslmode=require"
    database = settings_file.load(DATABASE_URL=url)["DATABASES"]["default"]
    assert database["PASSWORD"] == "p@"
    assert database["OPTIONS"]["sslmode"] == "require"
    assert database["OPTIONS"]["pool"]["timeout"] == 2


def test_the_data_directory_may_have_any_name(settings_file: Loader, tmp_path: Path) -> None:
    directory = tmp_path / "a b#c?d+e%41"
    database = settings_file.load(DATA_DIR=str(directory))["DATABASES"]["default"]
    assert database["NAME"] == str(directory / "db.sqlite3")


def test_settings_show_no_key(settings_file: Loader) -> None:
    assert TOKEN not in repr(settings_file.load(JWT_SIGNING_KEYS=f"t1:{TOKEN}")["JWT_KEYS"])
