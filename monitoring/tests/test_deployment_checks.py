"""What `verify_deployment` asks of this host, the database, Redis and the worker: each check where
all is well, and where it is not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
import time_machine
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from pytest_django import Settings

from monitoring import jobs
from monitoring.audit import append_only
from monitoring.deployment import Finding, Verdict, cache, database, host, work
from monitoring.jobs import Job, run_if_due
from monitoring.models import AuditEvent
from monitoring.tests import trail
from tests.platform import free_port
from tests.servers import RedisServer

pytestmark = pytest.mark.django_db


def failure(finding: Finding) -> str:
    assert finding.verdict is Verdict.FAILED, finding
    return finding.why


def warned(finding: Finding) -> str:
    assert finding.verdict is Verdict.WARNING, finding
    return finding.why


def well(finding: Finding) -> str:
    assert finding.verdict is Verdict.OK, finding
    return finding.why


@pytest.fixture
def served_by_tls(settings: Settings) -> None:
    """As `settings.py` has it where PUBLIC_BASE_URL is https."""
    settings.PUBLIC_BASE_URL, settings.ALLOWED_HOSTS = "https://ai.your.org", ["ai.your.org"]
    settings.SERVED_BY_TLS, settings.TRUSTED_PROXIES = True, ["127.0.0.1"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://ai.your.org"]
    settings.SECURE_HSTS_SECONDS, settings.SECURE_SSL_REDIRECT = 31536000, True
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    settings.METRICS_TOKEN, settings.API_DOCS = "x" * 64, False
    settings.EMAIL_URL = "smtp+tls://mail.your.org"


@pytest.mark.usefixtures("served_by_tls")
def test_settings(settings: Settings) -> None:
    assert well(host.ask_settings()) == "check --deploy has nothing to say"
    settings.ALLOWED_HOSTS = ["*"]
    assert warned(host.ask_settings()) == "SC.W001: ALLOWED_HOSTS accepts every host name"
    settings.CSRF_TRUSTED_ORIGINS = ["ai.your.org"]
    assert "4_0.E001" in failure(host.ask_settings())


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Where everybody on this host may look, unlike in pytest's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@pytest.mark.parametrize(
    ("mode", "verdict"),
    [
        (0o600, Verdict.OK),
        (0o640, Verdict.OK),
        (0o644, Verdict.FAILED),
        (0o602, Verdict.FAILED),
        (0o660, Verdict.FAILED),
    ],
)
def test_who_reaches_the_settings_file(
    settings: Settings, public_folder: Path, mode: int, verdict: Verdict
) -> None:
    settings.DOTENV_FILE = public_folder / "sovereigncore.env"
    settings.DOTENV_FILE.write_text("SECRET_KEY=of-this-test-alone\n")
    settings.DOTENV_FILE.chmod(mode)
    finding = host.ask_settings_file()
    assert finding.verdict is verdict
    assert f"mode {mode:o}" in finding.why
    assert "of-this-test-alone" not in finding.why


def test_a_directory_may_keep_others_from_the_settings_file(
    settings: Settings, public_folder: Path
) -> None:
    settings.DOTENV_FILE = public_folder / ".env"
    settings.DOTENV_FILE.touch(0o644)
    public_folder.chmod(0o700)
    well(host.ask_settings_file())


def test_without_a_settings_file(settings: Settings, tmp_path: Path) -> None:
    settings.DOTENV_FILE = tmp_path / "none"
    assert host.ask_settings_file().verdict is Verdict.NOT_CHECKED


def test_the_clock() -> None:
    trail.record(1)
    well(host.ask_clock())
    newest = AuditEvent.objects.get().at
    with time_machine.travel(newest - timedelta(seconds=30), tick=False):
        assert failure(host.ask_clock()) == "the audit trail's newest event is 30 s in the future"


def test_a_clock_apart_from_the_database_servers() -> None:
    """SQLite has none of its own."""
    expected = {"postgresql": Verdict.FAILED, "sqlite": Verdict.OK}[connection.vendor]
    with time_machine.travel(timedelta(minutes=10)):
        assert host.ask_clock().verdict is expected


def test_disks(settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR, settings.BACKUP_DIR = tmp_path, tmp_path
    limits = settings.GOVERNOR
    settings.GOVERNOR = {**limits, "disk_conserve_percent": 101, "disk_survive_percent": 101}
    assert "BACKUP_DIR" in well(host.ask_disks())
    settings.GOVERNOR = {**limits, "disk_conserve_percent": 0, "disk_survive_percent": 101}
    assert "answers are short" in warned(host.ask_disks())
    settings.GOVERNOR = {**limits, "disk_conserve_percent": 0, "disk_survive_percent": 0}
    assert "questions are refused" in failure(host.ask_disks())
    settings.DATA_DIR = settings.BACKUP_DIR = tmp_path / "gone"
    assert "there is no directory" in failure(host.ask_disks())


def test_migrations() -> None:
    assert well(database.ask_migrations()).endswith("are applied")
    MigrationRecorder(connection).record_unapplied("monitoring", "0008_backups")
    assert failure(database.ask_migrations()) == (
        "1 are not applied, the first is monitoring.0008_backups: run `migrate`"
    )


def test_the_owner_alone_in_the_database() -> None:
    """As the suite has it; `tests/test_database_roles.py` asks where there are roles."""
    expected = {
        "sqlite": (Verdict.NOT_CHECKED, "SQLite has no roles"),
        "postgresql": (Verdict.WARNING, "web processes have no role but the owner's"),
    }
    finding = database.ask_roles()
    verdict, why = expected[connection.vendor]
    assert finding.verdict is verdict
    assert finding.why.startswith(why)


def test_triggers() -> None:
    assert well(database.ask_triggers()) == "the audit trail is append-only"
    append_only.permit_changes(connection)
    assert "audit_no_update" in failure(database.ask_triggers())


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def test_the_platforms_user_of_redis(server: RedisServer, settings: Settings) -> None:
    settings.REDIS_URL = server.url
    assert well(cache.ask_redis()) == "answers; the platform's user cannot configure it"
    settings.REDIS_URL = server.admin_url
    assert "can configure Redis" in failure(cache.ask_redis())


def test_the_default_user_of_redis(server: RedisServer, settings: Settings) -> None:
    settings.REDIS_URL = f"redis://127.0.0.1:{server.port}/0"
    assert "does not know" in failure(cache.ask_redis())
    with redis.Redis.from_url(server.admin_url) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "on", "nopass", "+ping")
        assert "Redis' user `default`" in failure(cache.ask_redis())
        admin.execute_command("ACL", "SETUSER", "default", "reset")


def test_a_redis_that_is_away(settings: Settings) -> None:
    settings.REDIS_URL = f"redis://sovereigncore:not-to-be-told@127.0.0.1:{free_port()}/0"
    assert failure(cache.ask_redis()) == "Redis does not answer: ConnectionError"


def test_without_redis(settings: Settings) -> None:
    settings.REDIS_URL = ""
    assert cache.ask_redis().verdict is Verdict.NOT_CHECKED


def test_the_worker(monkeypatch: pytest.MonkeyPatch, frozen_time: time_machine.Traveller) -> None:
    def sweep() -> int:
        if is_broken:
            raise ValueError
        return 1

    is_broken = False
    minutes = timedelta(minutes=5)
    job = Job(name="sweep", interval=minutes, lease=timedelta(minutes=10), run=sweep)
    monkeypatch.setattr(jobs, "_jobs", {"sweep": job})
    assert failure(work.ask_worker()) == "sweep was never run"
    run_if_due(job)
    assert well(work.ask_worker()) == "a worker runs all 1 jobs when they are due"
    frozen_time.shift(minutes + timedelta(seconds=121))
    assert failure(work.ask_worker()) == "sweep has waited for a worker for 121 s"
    is_broken = True
    with pytest.raises(ValueError):
        run_if_due(job)
    assert "sweep (ValueError)" in warned(work.ask_worker())
