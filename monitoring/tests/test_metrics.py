"""What is counted: by route names and never by a caller's text, streams to their end."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import django
import pytest
from django.conf import settings
from django.core.cache import caches
from django.db import DatabaseError, connection, transaction
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from accounts.models import Link, Purpose, User
from conftest import PASSWORD
from tests import environment
from tests.metrics import value_of
from tests.stub_engine import Behaviour, StubEngine

ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-text-of-a-caller"
PROCESS = "/api/v1/consciousness/process"
DURATION = "sovereigncore_http_request_duration_seconds"


@pytest.fixture(autouse=True)
def _nothing_of_earlier_tests_is_counted_here() -> None:
    """A response that one of them dropped is closed, and counted, when it is collected."""
    gc.collect()


def sample(name: str, **labels: str) -> float:
    return value_of(name, **labels) or 0.0


def requests(route: str, method: str, status_class: str) -> float:
    return sample(f"{DURATION}_count", route=route, method=method, status_class=status_class)


def seconds(route: str, method: str, status_class: str) -> float:
    return sample(f"{DURATION}_sum", route=route, method=method, status_class=status_class)


def exposition(client: APIClient) -> str:
    response = client.get("/metrics")
    assert response.status_code == 200
    return str(response.content, "utf-8")


def all_label_values(text: str) -> set[str]:
    return {
        value
        for family in text_string_to_metric_families(text)
        if family.name.startswith(("sovereigncore_", "django_"))
        for point in family.samples
        for value in point.labels.values()
    }


@pytest.mark.parametrize(
    ("method", "path", "counted_as"),
    [
        ("GET", "/live", ("live", "GET", "2xx")),
        ("HEAD", "/live/", ("live", "HEAD", "2xx")),
        ("POST", "/live", ("live", "POST", "4xx")),
        ("GET", f"/{CANARY}", ("unmatched", "GET", "4xx")),
        ("GET", f"/live?{CANARY}={CANARY}", ("live", "GET", "2xx")),
        ("GET", f"/api/v1/consciousness/queries/{CANARY}", ("unmatched", "GET", "4xx")),
        ("GET", PROCESS, ("process", "GET", "4xx")),
        (CANARY.upper(), "/live", ("live", "other", "4xx")),
        ("get", "/live", ("live", "GET", "2xx")),  # Django takes methods in capitals
    ],
)
def test_requests_are_counted_by_route_method_and_class(
    anonymous: APIClient, method: str, path: str, counted_as: tuple[str, str, str]
) -> None:
    before = requests(*counted_as)
    anonymous.generic(method, path)
    assert requests(*counted_as) == before + 1
    assert CANARY not in str(all_label_values(exposition(anonymous))).lower()


def test_rate_errors_and_durations_of_a_route(
    as_alice: APIClient, anonymous: APIClient, stub: StubEngine
) -> None:
    kinds = [("process", "POST", status_class) for status_class in ("2xx", "4xx", "5xx")]
    before = [requests(*kind) for kind in kinds]
    time_before = seconds(*kinds[0])
    as_alice.post(PROCESS, {"prompt": "Hello"})
    as_alice.post(PROCESS, {"prompt": "Hello"})
    as_alice.post(PROCESS, {"prompt": ""})
    anonymous.post(PROCESS, {"prompt": "Hello"})
    stub.behave(Behaviour.ERROR_500_WITH_SECRET)
    as_alice.post(PROCESS, {"prompt": "Hello"})
    counted = [requests(*kind) - earlier for kind, earlier in zip(kinds, before, strict=True)]
    assert counted == [2, 2, 1]
    assert 0 < seconds(*kinds[0]) - time_before < 10


def test_a_stream_is_counted_when_it_ends_with_its_full_duration(
    as_alice: APIClient, stub: StubEngine
) -> None:
    kind = ("process", "POST", "2xx")
    count, spent_s = requests(*kind), seconds(*kind)
    in_progress = sample("sovereigncore_http_requests_in_progress")
    stub.behave(Behaviour.SLOW, token_delay_s=0.03)
    response = as_alice.post(PROCESS, {"prompt": "Count to 10", "stream": True})
    assert requests(*kind) == count
    assert sample("sovereigncore_http_requests_in_progress") == in_progress + 1
    assert b"event: done" in b"".join(response.streaming_content)  # type: ignore[attr-defined]
    assert requests(*kind) == count + 1
    assert seconds(*kind) - spent_s >= 10 * 0.03
    assert sample("sovereigncore_http_requests_in_progress") == in_progress


def streams(outcome: str) -> tuple[float, float]:
    name = "sovereigncore_stream_duration_seconds"
    return sample(f"{name}_count", outcome=outcome), sample(f"{name}_sum", outcome=outcome)


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [(Behaviour.SLOW, "completed"), (Behaviour.DIE_MID_STREAM, "failed")],
)
def test_streams_are_timed_by_how_they_ended(
    as_alice: APIClient, stub: StubEngine, behaviour: Behaviour, outcome: str
) -> None:
    before = streams(outcome)
    stub.behave(behaviour, token_delay_s=0.05)
    b"".join(_stream(as_alice, "Count to 10"))
    count, spent_s = streams(outcome)
    assert count == before[0] + 1
    assert 0.02 < spent_s - before[1] < 10


@pytest.mark.parametrize("read", [0, 1])
def test_a_stream_that_its_client_leaves_is_timed_too(
    as_alice: APIClient, stub: StubEngine, read: int
) -> None:
    before = streams("cancelled")[0]
    stub.behave(Behaviour.SLOW, token_delay_s=0.05)
    response = as_alice.post(PROCESS, {"prompt": "Count to 100", "stream": True})
    chunks = iter(response.streaming_content)  # type: ignore[attr-defined]
    for _ in range(read):
        next(chunks)
    response.close()
    assert streams("cancelled")[0] == before + 1


def _stream(client: APIClient, prompt: str) -> Iterator[bytes]:
    response = client.post(PROCESS, {"prompt": prompt, "stream": True})
    chunks: Iterator[bytes] = response.streaming_content  # type: ignore[attr-defined]
    return chunks


def test_how_fast_tokens_come_is_told_whoever_reads_them(
    as_alice: APIClient, stub: StubEngine
) -> None:
    name = "sovereigncore_tokens_per_second"
    count, total = sample(f"{name}_count"), sample(f"{name}_sum")
    stub.behave(Behaviour.SLOW, token_delay_s=0.05)
    as_alice.post(PROCESS, {"prompt": "Count to 10"})
    assert sample(f"{name}_count") == count + 1
    assert 1 < sample(f"{name}_sum") - total <= 20.5, "20 a second at most: one each 0.05 s"


def logins() -> list[float]:
    outcomes = ("ok", "refused")
    return [sample("sovereigncore_logins_total", outcome=outcome) for outcome in outcomes]


def test_logins_are_counted_at_every_door(anonymous: APIClient, staff: User) -> None:
    right = {"username": staff.username, "password": PASSWORD}
    wrong = {**right, "password": "Wrong-Horse-7-Battery"}
    for path in ("/api/v1/auth/token", "/admin/login/"):
        before = logins()
        for form in (wrong, right):
            body = urlencode(form)
            anonymous.generic("POST", path, body, "application/x-www-form-urlencoded")
        assert [now - then for now, then in zip(logins(), before, strict=True)] == [1, 1], path


def resets() -> list[float]:
    outcomes = ("requested", "completed")
    return [sample("sovereigncore_password_resets_total", outcome=outcome) for outcome in outcomes]


def test_resets_are_counted_when_asked_for_and_when_done(anonymous: APIClient, alice: User) -> None:
    before = resets()
    for address in (alice.email, "nobody@example.org"):
        anonymous.post("/api/v1/users/password-reset/request", {"email": address})
    link = Link.objects.all().issue(Purpose.RESET_PASSWORD, user=alice)
    for _ in range(2):
        body = {"token": link.token, "new_password": "Another-Horse-8-Battery"}
        anonymous.post("/api/v1/users/password-reset/confirm", body)
    assert [now - then for now, then in zip(resets(), before, strict=True)] == [2, 1]


def test_what_runs_is_told(anonymous: APIClient) -> None:
    assert (
        f'sovereigncore_build_info{{django="{django.get_version()}",'
        f'python="{platform.python_version()}",version="{settings.VERSION}"}} 1.0'
    ) in exposition(anonymous).splitlines()


def test_statements_and_cache_reads_are_counted(alice: User) -> None:
    labels = {"alias": "default", "vendor": connection.vendor}
    names = ("django_db_execute_total", "django_db_query_duration_seconds_count")
    before = [sample(name, **labels) for name in names]
    User.objects.get(pk=alice.pk)
    assert [sample(name, **labels) for name in names] == [count + 1 for count in before]
    errors = sum_of("django_db_errors_total")
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT no_such_column FROM accounts_user")
    assert sum_of("django_db_errors_total") == errors + 1


@pytest.mark.parametrize("value", [0, "", "something"])
def test_what_the_cache_holds_is_a_hit_whatever_it_is(value: object) -> None:
    cache = caches["default"]
    counters = ("get", "get_hits", "get_misses")
    before = [sum_of(f"django_cache_{name}_total") for name in counters]
    assert cache.get("held", default="nothing") == "nothing"
    cache.set("held", value)
    assert cache.get("held", default="nothing") == value
    after = [sum_of(f"django_cache_{name}_total") for name in counters]
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 1, 1]


def sum_of(name: str) -> float:
    return sum(
        point.value
        for family in REGISTRY.collect()
        for point in family.samples
        if point.name == name
    )


def test_queries_and_tokens_are_counted(as_alice: APIClient, stub: StubEngine) -> None:
    def counts() -> tuple[float, ...]:
        return (
            sample("sovereigncore_queries_total", status="completed"),
            sample("sovereigncore_queries_total", status="failed"),
            sample("sovereigncore_tokens_total", kind="prompt"),
            sample("sovereigncore_tokens_total", kind="completion"),
            sample("sovereigncore_time_to_first_token_seconds_count"),
        )

    before = counts()
    as_alice.post(PROCESS, {"prompt": "Count to 7"})
    stub.behave(Behaviour.LOADING_503)
    as_alice.post(PROCESS, {"prompt": "Count to 7"})
    assert [after - earlier for after, earlier in zip(counts(), before, strict=True)] == [
        *(1, 1, 3, 7, 1)
    ]


def test_slots_and_queue_are_back_to_nothing_after_an_answer(
    as_alice: APIClient, stub: StubEngine
) -> None:
    as_alice.post(PROCESS, {"prompt": "Hello"})
    assert sample("sovereigncore_slots_busy") == 0
    assert sample("sovereigncore_queue_waiting") == 0


def test_the_exposition_brings_the_host_up_to_date(anonymous: APIClient, stub: StubEngine) -> None:
    families = {
        family.name: family for family in text_string_to_metric_families(exposition(anonymous))
    }
    readings = {
        point.labels["reading"]: point.value
        for point in families["sovereigncore_host_reading"].samples
    }
    assert 0 < readings["memory_percent"] <= 100
    (up,) = [
        point.value
        for point in families["sovereigncore_component_up"].samples
        if point.labels["component"] == "engine"
    ]
    assert up == 1
    stub.stop()


def test_the_exposition_of_several_processes_is_their_sum(tmp_path: Path) -> None:
    program = """
import os, django
django.setup()
from monitoring import metrics
for number in (1, 2):
    if (child := os.fork()) == 0:
        metrics.QUERIES.labels("completed").inc(number)
        metrics.SLOTS_BUSY.set(number)
        metrics.HOST_READING.labels("temp_c").set(float("nan") if number == 2 else 40.0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print(metrics.exposition().decode())
"""
    counted = tmp_path / "counted"
    counted.mkdir()
    variables = environment.test_environment(str(tmp_path)) | {
        "DJANGO_SETTINGS_MODULE": "sovereigncore.settings",
        "PROMETHEUS_MULTIPROC_DIR": str(counted),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert 'sovereigncore_queries_total{status="completed"} 3.0' in lines
    assert "sovereigncore_slots_busy 3.0" in lines
    # The newest reading is that there is none any more.
    assert 'sovereigncore_host_reading{reading="temp_c"} NaN' in lines
