"""The daily token quota: set aside before, settled once, told in headers and by `/usage`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness import quota
from consciousness.engine import Prompt
from consciousness.maintenance import delete_old_usage, settle_orphans
from consciousness.models import Query, Status, UsageDay
from consciousness.tests.asking import (
    CAPITAL,
    ask,
    ask_streamed,
    assert_nothing_runs,
    chunks,
    hang_up,
    wait_until_sent,
)
from tests.metrics import value_of
from tests.parallel import in_parallel
from tests.stub_engine import Behaviour, StubEngine

USAGE = "/api/v1/usage"


def today(user: User) -> UsageDay:
    return UsageDay.objects.get(user=user, day=timezone.now().date())


def told(response: object, name: str) -> int:
    return int(response[f"x-ratelimit-{name}-tokens"].rstrip("s"))  # type: ignore[index]


def test_an_answer_is_counted_and_nothing_stays_set_aside(
    as_alice: APIClient, alice: User, stub: StubEngine
) -> None:
    for prompt in ("Count to 3", "Count to 5"):
        assert ask(as_alice, prompt).status_code == 200
    day = today(alice)
    assert day.prompt_tokens == sum(record.prompt_tokens for record in stub.ledger)
    assert day.completion_tokens == 8
    assert (day.requests, day.cache_hits, day.reserved_tokens) == (2, 0, 0)


def test_the_headers_tell_limit_rest_and_midnight(
    as_alice: APIClient, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 10_000
    with time_machine.travel(datetime(2030, 5, 1, 22, 0, tzinfo=UTC), tick=False):
        client = _logged_in_again(as_alice)
        first = ask(client, "Count to 3")
        assert told(first, "limit") == 10_000
        assert told(first, "remaining") == 10_000 - first.json()["usage"]["total_tokens"]
        assert told(first, "reset") == 2 * 3600 + 1
        second = ask(client, "Count to 3")
        assert told(first, "remaining") - told(second, "remaining") == 6


def _logged_in_again(client: APIClient) -> APIClient:
    form = {"username": "alice", "password": "Correct-Horse-7-Battery"}
    anonymous = APIClient()
    token = anonymous.post("/api/v1/auth/token", form, format="json").json()["access_token"]
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return anonymous


def test_a_stream_tells_the_rest_with_what_it_has_set_aside(
    as_alice: APIClient, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 10_000
    response = ask_streamed(as_alice, "Count to 3", max_tokens=1000)
    assert told(response, "remaining") < 9_000
    list(chunks(response))
    after = ask(as_alice, "Count to 3")
    assert told(after, "remaining") == 10_000 - 12


def test_where_there_is_no_limit_no_header_speaks_of_one(
    as_alice: APIClient, alice: User, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 0
    response = ask(as_alice, "Count to 3")
    assert not [name for name in response.headers if name.lower().endswith("-tokens")]
    assert today(alice).total_tokens == 6


def refusals() -> float:
    return value_of("sovereigncore_quota_refusals_total") or 0.0


def used(user: User, tokens: int) -> None:
    UsageDay.objects.create(user=user, day=timezone.now().date(), prompt_tokens=tokens)


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_tells_the_rest_too(
    as_alice: APIClient, alice: User, stub: StubEngine, settings: Settings, *, stream: bool
) -> None:
    settings.DAILY_TOKEN_QUOTA = 1000
    used(alice, 400)
    refused = ask(as_alice, "Count to 3", max_tokens=700, stream=stream)
    assert refused.status_code == 429
    assert (told(refused, "limit"), told(refused, "remaining")) == (1000, 600)
    assert refused["x-ratelimit-reset-tokens"] == f"{refused['Retry-After']}s"


def test_what_exceeds_the_rest_is_refused_before_any_work(
    as_alice: APIClient, alice: User, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 1000
    used(alice, 400)
    before = refusals()
    response = ask(as_alice, "Count to 3", max_tokens=700)
    assert (response.status_code, response.json()["code"]) == (429, "insufficient_quota")
    assert response["x-should-retry"] == "false"
    assert 0 < int(response["Retry-After"]) <= 24 * 3600 + 1
    assert "600 of 1000 are left until midnight UTC" in response.json()["detail"]
    assert refusals() == before + 1
    assert stub.ledger == []
    assert not Query.objects.exists()
    assert today(alice).reserved_tokens == 0
    assert ask(as_alice, "Count to 3", max_tokens=100).status_code == 200


def test_what_exceeds_a_whole_day_is_not_told_to_come_back(
    as_alice: APIClient, alice: User, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 1000
    response = ask(as_alice, "Count to 3", max_tokens=1000)
    assert (response.status_code, response.json()["code"]) == (429, "insufficient_quota")
    assert response["x-should-retry"] == "false"
    assert "Retry-After" not in response
    assert "1000 of 1000 are left and it fits into no day's" in response.json()["detail"]
    assert not UsageDay.objects.filter(user=alice).exists()


def test_what_others_of_ones_own_have_set_aside_may_come_back_soon(
    as_alice: APIClient, alice: User, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 1000
    UsageDay.objects.create(user=alice, day=timezone.now().date(), reserved_tokens=800)
    response = ask(as_alice, "Count to 3", max_tokens=500)
    assert (response.status_code, response.json()["code"]) == (429, "quota_in_use")
    assert "200 of 1000 are left, 800 set aside" in response.json()["detail"]
    assert response["Retry-After"] == "5"
    assert "x-should-retry" not in response.headers
    assert told(response, "remaining") == 200
    # What would not fit even then is told so at once, with what is left in truth.
    response = ask(as_alice, "Count to 3", max_tokens=950)
    assert response.json()["code"] == "insufficient_quota"
    assert "1000 of 1000 are left" in response.json()["detail"]
    UsageDay.objects.update(reserved_tokens=0)
    assert ask(as_alice, "Count to 3", max_tokens=500).status_code == 200


@pytest.mark.parametrize(("own", "status"), [(0, 200), (100, 429), (None, 429)])
def test_an_account_may_have_a_quota_of_its_own(
    as_alice: APIClient,
    alice: User,
    stub: StubEngine,
    settings: Settings,
    own: int | None,
    status: int,
) -> None:
    settings.DAILY_TOKEN_QUOTA = 50
    alice.daily_token_quota = own
    alice.save(update_fields=["daily_token_quota"])
    assert ask(as_alice, "Count to 3").status_code == status


def test_one_persons_use_is_not_anothers(
    as_alice: APIClient, as_bob: APIClient, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 700
    assert ask(as_alice, "Count to 200").status_code == 200
    assert ask(as_alice, "Count to 3").status_code == 429
    assert ask(as_bob, "Count to 3").status_code == 200


def test_a_new_day_begins_anew(
    as_alice: APIClient, alice: User, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 700
    yesterday = timezone.now() - timedelta(days=1)
    UsageDay.objects.create(user=alice, day=yesterday.date(), completion_tokens=700)
    assert ask(as_alice, "Count to 3").status_code == 200


def test_of_a_stream_cut_short_what_was_received_is_counted(
    as_alice: APIClient, alice: User, stub: StubEngine
) -> None:
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=4)
    response = ask_streamed(as_alice, "Count to 9")
    next(chunks(response))
    wait_until_sent(stub, 4)
    hang_up(response)
    assert_nothing_runs(stub)
    day = today(alice)
    assert (day.completion_tokens, day.reserved_tokens) == (4, 0)


def test_a_failed_one_costs_what_the_engine_sent(
    as_alice: APIClient, alice: User, stub: StubEngine
) -> None:
    stub.behave(Behaviour.DIE_MID_STREAM, after_tokens=2)
    assert ask(as_alice, "Count to 9").status_code == 502
    day = today(alice)
    assert (day.completion_tokens, day.reserved_tokens, day.requests) == (2, 0, 1)


def test_an_engine_that_is_away_costs_nothing(
    as_alice: APIClient, alice: User, stub: StubEngine
) -> None:
    stub.stop()
    assert ask(as_alice).status_code == 503
    day = today(alice)
    assert (day.total_tokens, day.reserved_tokens, day.requests) == (0, 0, 1)


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_no_more_begin_than_fit(alice: User, settings: Settings) -> None:
    settings.DAILY_TOKEN_QUOTA = 1000
    now = timezone.now()

    def reserve(_number: int) -> bool:
        try:
            quota.reserve(alice, tokens=150, at=now)
        except quota.QuotaInUse:
            return False
        return True

    assert sum(in_parallel(20, reserve)) == 6
    assert today(alice).reserved_tokens == 900


def test_an_orphan_gives_its_reservation_back_as_use(
    as_alice: APIClient, alice: User, stub: StubEngine
) -> None:
    ask(as_alice, "Count to 3")
    long_ago = timezone.now() - timedelta(minutes=5)
    UsageDay.objects.filter(user=alice).update(reserved_tokens=180)
    for status, reserved in ((Status.RUNNING, 150), (Status.QUEUED, 30)):
        Query.objects.create(
            user=alice,
            status=status,
            temperature=0,
            max_tokens=20,
            reserved_tokens=reserved,
            lease_expires_at=long_ago,
        )
    assert settle_orphans() == 2
    assert settle_orphans() == 0
    day = today(alice)
    assert day.reserved_tokens == 0
    assert (day.prompt_tokens, day.completion_tokens) == (3 + 130, 3 + 20)
    ran = Query.objects.get(reserved_tokens=150)
    assert (ran.total_tokens, ran.is_estimated) == (150, True)


def test_usage_tells_the_days_and_the_rest(
    as_alice: APIClient, alice: User, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 5000
    now = timezone.now()
    for days_ago, tokens in ((1, 7), (29, 8), (30, 9)):
        day = (now - timedelta(days=days_ago)).date()
        UsageDay.objects.create(user=alice, day=day, requests=1, prompt_tokens=tokens)
    ask(as_alice, "Count to 3")
    body = as_alice.get(USAGE).json()
    assert body["quota"].pop("reset_s") > 0
    assert body["quota"] == {"limit": 5000, "used": 6, "remaining": 4994}
    assert [day["total_tokens"] for day in body["days"]] == [6, 7, 8]
    assert body["days"][0] == {
        "day": now.date().isoformat(),
        "requests": 1,
        "cache_hits": 0,
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "total_tokens": 6,
    }
    assert len(as_alice.get(USAGE, {"days": "366"}).json()["days"]) == 4


@pytest.mark.parametrize(
    "days", ["0", "367", "x", "-1", "+5", "05", "1.5", "\u0663", "9" * 5000, ""]
)
def test_usage_of_no_sensible_number_of_days(as_alice: APIClient, days: str) -> None:
    response = as_alice.get(USAGE, {"days": days})
    assert response.status_code == 422
    assert response.json()["errors"] == {"days": ["A whole number from 1 to 366."]}


def test_usage_without_a_limit(as_alice: APIClient, settings: Settings) -> None:
    settings.DAILY_TOKEN_QUOTA = 0
    quota_told = as_alice.get(USAGE).json()["quota"]
    assert (quota_told["limit"], quota_told["remaining"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "at_least"), [("hello", 1), ("x" * 3000, 1000), ("語" * 1000, 1000)]
)
def test_an_estimate_grows_with_the_text(text: str, at_least: int) -> None:
    prompt = Prompt(messages=({"role": "user", "content": text},), temperature=0, max_tokens=1)
    empty = Prompt(messages=({"role": "user", "content": ""},), temperature=0, max_tokens=1)
    grown = quota.estimate_prompt(prompt) - quota.estimate_prompt(empty)
    assert at_least <= grown <= at_least * 2 + 1


def test_a_query_costs_few_statements(
    as_alice: APIClient, stub: StubEngine, django_assert_max_num_queries: Callable[..., object]
) -> None:
    """Who asks, facts, the reservation with its row, the slot, the settlement with its text; and
    the turn and the two ends of each of two transactions."""
    ask(as_alice, CAPITAL)
    with django_assert_max_num_queries(15):  # type: ignore[attr-defined]
        ask(as_alice, CAPITAL)


def test_old_days_are_forgotten(alice: User) -> None:
    for days_ago in (0, 400, 401):
        day = timezone.now().date() - timedelta(days=days_ago)
        UsageDay.objects.create(user=alice, day=day)
    assert delete_old_usage() == 1
    assert UsageDay.objects.count() == 2
