"""Faults injected one by one into a platform that a real Prometheus and Alertmanager watch: the
right alert reaches those whom it should reach, and ends when the fault does.

With the shipped rules and routes, made faster as `deployed` says. An alert that is urgent must
arrive by mail, in Slack and at the webhook, another one by mail alone; what only follows from the
fault must not be told.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx2
import psycopg
import pytest

from tests.chaos.grown import PROCESS, within
from tests.ops import deployed
from tests.ops.load import loaded
from tests.ops.sinks import Told
from tests.ops.watched import CROWD, Watched, watched
from tests.smtp_sink import Behaviour

pytestmark = pytest.mark.ops

_HURRY = deployed.Hurry(windows=30, ages=15, waits=150)
_FIRES_WITHIN_S = 60.0
_ENDS_WITHIN_S = 60.0
_QUIET_WITHIN_S = 60.0
# A job with nothing to do runs once a minute, and a worker that is gone is missed after that.
_WORKER_MISSED_WITHIN_S = 150.0
_SLOTS = 2
_LINE = len(CROWD) - _SLOTS
_WAYS = {"critical": {"webhook", "slack", "email"}, "warning": {"email"}}
_LABELS = {rule["alert"]: rule["labels"] for rule in deployed.all_alerts()}
_SEVERITY = {alert: labels["severity"] for alert, labels in _LABELS.items()}
_OF_THE_HOST = {alert for alert, labels in _LABELS.items() if labels["concern"] == "host"}
_TAKE_AWAY = "ALTER TABLE consciousness_memory RENAME TO taken_away"
_GIVE_BACK = "ALTER TABLE taken_away RENAME TO consciousness_memory"


@pytest.fixture(scope="module")
def parts() -> Iterator[Watched]:
    with watched(
        _HURRY,
        ENGINE_SLOTS=str(_SLOTS),
        QUEUE_LIMIT=str(_LINE),
        QUEUE_TIMEOUT_S="60",
        RATE_LIMIT_RESET="1000/h",
        BACKUP_DIR="backups",
        BACKUP_KEY=secrets.token_hex(32),
    ) as watching:
        yield watching


@pytest.fixture(autouse=True)
def _all_is_well(parts: Watched) -> None:
    """Each drill begins with nothing firing, but what the machine that runs the tests may be: full
    or busy."""
    within(
        _QUIET_WITHIN_S, lambda: parts.prometheus.firing() <= _OF_THE_HOST, "quiet before the fault"
    )
    parts.receivers.forget()


def check_told(
    parts: Watched,
    fault: Callable[[], None],
    healing: Callable[[], None],
    *alerts: str,
    not_told: tuple[str, ...] = (),
    within_s: float = _FIRES_WITHIN_S,
) -> None:
    """`fault` brings exactly these alerts to everybody whom they concern, `healing` ends them."""

    def is_told(state: str) -> bool:
        wanted = {
            Told(way=way, alert=alert, state=state)
            for alert in alerts
            for way in _WAYS[_SEVERITY[alert]]
        }
        return wanted <= parts.receivers.told()

    try:
        fault()
        fired_s = within(within_s, lambda: is_told("firing"), f"told of {alerts}")
    finally:
        healing()
    ended_s = within(_ENDS_WITHIN_S, lambda: is_told("resolved"), f"told that {alerts} is over")
    told = parts.receivers.told()
    print(f"\n  {', '.join(alerts)}: told after {fired_s:.0f} s, over {ended_s:.0f} s after")
    assert {each.alert for each in told}.isdisjoint(not_told), told
    for each in told:  # nobody is woken for a warning
        assert each.way in _WAYS[_SEVERITY[each.alert]], each


def test_the_web_processes_are_killed(parts: Watched) -> None:
    platform = parts.parts.platform
    check_told(parts, platform.kill, platform.start_again, "APIDown", not_told=("ScrapeFailing",))


def test_the_engine_is_killed(parts: Watched) -> None:
    engine = parts.parts.engine
    follows = ("EngineDown", "SurvivalMode")
    check_told(parts, engine.kill, engine.start, "AllEnginesDown", not_told=follows)


def test_redis_is_stopped(parts: Watched) -> None:
    redis = parts.parts.redis
    check_told(parts, redis.kill, redis.start, "RedisDown")


def test_postgresql_is_stopped(parts: Watched) -> None:
    database = parts.parts.database
    follows = ("DatabaseDown", "StoredMetricsUnreadable", "APIErrorRatio")
    check_told(parts, database.stop, database.start, "PostgreSQLDown", not_told=follows)


def test_an_exporter_is_killed(parts: Watched) -> None:
    exporter = parts.redis_exporter
    check_told(parts, exporter.kill, exporter.start, "ScrapeFailing", not_told=("RedisDown",))


def test_the_metrics_are_refused(parts: Watched) -> None:
    """The platform is up all the time, and nobody is told otherwise."""
    prometheus = parts.prometheus
    check_told(
        parts,
        lambda: prometheus.set_token("wrong"),
        lambda: prometheus.set_token(parts.token),
        "ScrapeFailing",
        not_told=("APIDown",),
    )


@contextmanager
def _crowd(parts: Watched) -> Iterator[None]:
    """So many who ask at once, and wait for their answers."""

    def ask(user: str) -> None:
        with parts.parts.client(user) as http:
            http.timeout = 120
            http.post(PROCESS, json={"prompt": "Count to 30"})

    threads = [threading.Thread(target=ask, args=(user,), daemon=True) for user in CROWD]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(120)


def test_the_line_is_full(parts: Watched) -> None:
    engine = parts.parts.engine
    with ExitStack() as crowd:

        def come() -> None:
            engine.behave("slow", token_delay_s=1.0)
            crowd.enter_context(_crowd(parts))

        def go() -> None:
            engine.ask("POST", "/_stub/reset")
            crowd.close()

        check_told(parts, come, go, "QueueSaturated")


def test_the_certificate_ends(parts: Watched) -> None:
    door = parts.front_door
    check_told(
        parts,
        lambda: door.renew(valid_days=1),
        lambda: door.renew(valid_days=90),
        "CertificateExpiresNow",
        not_told=("CertificateExpiring", "FrontDoorDown"),
    )


def test_the_mail_server_hangs_up(parts: Watched) -> None:
    mail = parts.app_mail
    name = parts.parts.platform.register("carol")

    def ask_for_a_mail() -> None:
        mail.behaviour = Behaviour.REFUSE_LOGIN
        with parts.parts.platform.client() as http:
            reply = http.post(
                "/api/v1/users/password-reset/request", json={"email": f"{name}@example.org"}
            )
        assert reply.status_code == httpx2.codes.ACCEPTED, reply.text

    def accept() -> None:
        mail.behaviour = Behaviour.ACCEPT

    check_told(parts, ask_for_a_mail, accept, "MailStuck")


def test_the_worker_is_stopped(parts: Watched) -> None:
    check_told(
        parts,
        parts.worker.stop,
        parts.worker.start,
        "WorkerNotRunning",
        not_told=("JobOverdue", "MailStuck"),
        within_s=_WORKER_MISSED_WITHIN_S,
    )


def test_a_backup_fails(parts: Watched) -> None:
    platform = parts.parts.platform

    def to_nowhere() -> None:
        assert platform.manage("backup", "--output", "/proc/nowhere").returncode != 0

    def make_one() -> None:
        made = platform.manage("backup")
        assert made.returncode == 0, made.stderr

    check_told(parts, to_nowhere, make_one, "BackupFailed", not_told=("BackupOld",))


def test_the_audit_trail_is_not_sealed(parts: Watched) -> None:
    """Somebody holds the table of seals, so that it can be read and not be written."""
    holding = ExitStack()

    def hold() -> None:
        url = parts.parts.platform.environment["DATABASE_URL"]
        connection = holding.enter_context(psycopg.connect(url))
        connection.execute("LOCK TABLE monitoring_auditseal IN SHARE MODE")
        parts.parts.platform.register("dave")  # a deed

    check_told(parts, hold, holding.close, "AuditNotSealing", not_told=("WorkerNotRunning",))


def test_requests_fail(parts: Watched) -> None:
    """Last, for a budget that was burnt is remembered longer than a drill takes."""

    def in_the_database(statement: str) -> None:
        url = parts.parts.platform.environment["DATABASE_URL"]
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement)

    with loaded(parts, callers=4):
        check_told(
            parts,
            lambda: in_the_database(_TAKE_AWAY),
            lambda: in_the_database(_GIVE_BACK),
            "APIErrorRatio",
            "AvailabilityBurn1h",
            not_told=("APIDown", "AllEnginesDown", "DatabaseDown"),
        )
