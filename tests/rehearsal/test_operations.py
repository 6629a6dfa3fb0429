"""The installation is watched through its front door, and comes back from a backup."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.grown import within
from tests.ops import deployed
from tests.ops.daemons import (
    Alertmanager,
    BlackboxExporter,
    PostgresExporter,
    Prometheus,
    RedisExporter,
)
from tests.ops.sinks import HTTPSink, Receivers, Told
from tests.ops.watched import write_for
from tests.rehearsal.topology import Topology
from tests.roled_postgres import EXPORTER
from tests.smtp_sink import SMTPSink

pytestmark = pytest.mark.rehearsal

_HURRY = deployed.Hurry(windows=30, ages=15, waits=150)
_WITHIN_S = 60.0
_MEMORIES = "/api/v1/consciousness/memories"


@dataclass(frozen=True, kw_only=True)
class _Watch:
    prometheus: Prometheus
    receivers: Receivers


@contextmanager
def _watching(parts: Topology) -> Iterator[_Watch]:
    with ExitStack() as stack:
        sink, mail = stack.enter_context(HTTPSink()), stack.enter_context(SMTPSink())
        alertmanager = stack.enter_context(Alertmanager(write_for(sink, mail, _HURRY)))
        places = deployed.Places(
            platforms=tuple(f"127.0.0.1:{web.port}" for web in parts.webs),
            redis=stack.enter_context(RedisExporter(parts.redis)).address,
            postgres=stack.enter_context(PostgresExporter(parts.database.url_of(EXPORTER))).address,
            blackbox=stack.enter_context(BlackboxExporter()).address,
            alertmanager=alertmanager.address,
            front_door=f"{parts.nginx.url}/live",
        )
        token = parts.environment["METRICS_TOKEN"]
        prometheus = stack.enter_context(Prometheus(places, token=token, hurry=_HURRY))
        yield _Watch(prometheus=prometheus, receivers=Receivers(sink, mail))


@pytest.fixture(scope="module")
def watch(parts: Topology) -> Iterator[_Watch]:
    with _watching(parts) as watching:
        yield watching


def _values(watch: _Watch, expression: str) -> list[float]:
    return sorted(float(series["value"][1]) for series in watch.prometheus.query(expression))


def test_both_web_processes_are_scraped(parts: Topology, watch: _Watch) -> None:
    with parts.client() as http:
        for _ in range(10):
            assert http.get("/live").status_code == 200

    def are_up() -> bool:
        return _values(watch, 'up{job="sovereigncore"}') == [1, 1]

    within(_WITHIN_S, are_up, "both scraped")
    # As operators see it: what both answered, told apart by process.
    answered = 'sum by (instance) (sovereigncore_http_request_duration_seconds_count{route="live"})'
    within(_WITHIN_S, lambda: len(_values(watch, answered)) == 2, "both counted")
    within(
        _WITHIN_S, lambda: _values(watch, 'probe_success{job="tls"}') == [1], "asked through nginx"
    )
    (ends_s,) = _values(watch, "(probe_ssl_earliest_cert_expiry - time()) / 86400")
    assert 390 < ends_s < 398


def test_an_alert_reaches_the_webhook(parts: Topology, watch: _Watch) -> None:
    def is_told(state: str) -> bool:
        wanted = Told(way="webhook", alert="FrontDoorDown", state=state)
        return wanted in watch.receivers.told()

    parts.nginx.stop()
    try:
        within(_WITHIN_S, lambda: is_told("firing"), "told that the front door is down")
    finally:
        parts.nginx.start()
    within(_WITHIN_S, lambda: is_told("resolved"), "told that it is up again")


def _memories(parts: Topology) -> set[str]:
    with parts.client("bob") as http:
        listed = http.get(_MEMORIES)
    assert listed.status_code == 200, listed.text
    return {memory["text"] for memory in listed.json()["results"]}


def _remember(parts: Topology, text: str) -> None:
    with parts.client("bob") as http:
        assert http.post(_MEMORIES, json={"text": text}).status_code == 201


def test_a_backup_brings_back_what_was_there(parts: Topology, watch: _Watch) -> None:
    """While exporters look on, as nobody stops them for a restore."""
    before, after = f"Before {secrets.token_hex(4)}", f"After {secrets.token_hex(4)}"
    _remember(parts, before)
    parts.manage("backup")
    newest = max(
        (Path(parts.environment["DATA_DIR"]) / "backups").glob("*.backup"),
        key=lambda path: path.stat().st_mtime,
    )
    parts.manage("verify_backup", str(newest))
    _remember(parts, after)
    assert {before, after} <= _memories(parts)
    parts.worker.stop()
    for web in parts.webs:
        assert web.stop() == 0
    parts.manage("restore", str(newest), "--yes")
    for web in parts.webs:
        web.start_again()
    parts.worker.start()
    assert before in _memories(parts)
    assert after not in _memories(parts)
