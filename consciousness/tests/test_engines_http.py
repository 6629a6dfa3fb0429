"""Engines as callers, probes and scrapers see them: over HTTP, and by name alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from consciousness import engine_errors as errors
from consciousness import engines
from consciousness.models import Query
from consciousness.tests.asking import (
    STATE,
    STATUS,
    ask,
    ask_streamed,
    assert_nothing_runs,
    chunks,
    event_of,
)
from consciousness.tests.raw_server import RawRequest, RawServer, json_reply, models_reply
from consciousness.tests.several import Several, ask_any, known, statuses
from monitoring.awareness import awareness
from tests import environment
from tests.metrics import value_of
from tests.stub_engine import CANARY_SECRET, MODEL, Behaviour, StubEngine

ROOT = Path(__file__).resolve().parents[2]
READY = "/ready"


@pytest.fixture(autouse=True)
def _nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.roster._watch, "start", lambda: None)


def ask_all_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the watching thread does in a round, and a second passes."""
    for member in engines.roster.known_members():
        member.ask()
    monkeypatch.setattr(awareness, "_newest", None)


def state(client: APIClient) -> dict[str, Any]:
    response = client.get(STATE)
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    return body


def test_the_state_tells_of_each_engine(
    as_alice: APIClient, stub: StubEngine, several: Several
) -> None:
    with RawServer(lambda _request: models_reply("llama")) as other:
        several.add("gpu", other, slots=9, priority=1)
        several.alias("gpt-4o", "llama")
        response = as_alice.get(STATE)
        body = response.json()
        assert [(engine["name"], engine["status"]) for engine in body["engines"]] == [
            ("default", "up"),
            ("gpu", "up"),
        ]
        assert body["engines"][1]["models"] == ["llama"]
        assert body["engines"][1]["slots"] == 9
        assert body["engine"] == {"status": "up", "models": [MODEL, "llama", "gpt-4o"]}
        assert other.url.removeprefix("http://") not in response.content.decode()
        assert as_alice.get(STATUS).json()["engine"] == body["engine"]


def test_alone_the_state_tells_of_the_default_engine(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (engine,) = state(as_alice)["engines"]
    assert (engine["name"], engine["status"], engine["models"]) == ("default", "up", [MODEL])
    stub.stop()
    monkeypatch.setattr(awareness, "_newest", None)
    (engine,) = state(as_alice)["engines"]
    assert (engine["status"], engine["code"]) == ("open", "engine_unavailable")
    stub.start()
    monkeypatch.setattr(awareness, "_newest", None)
    (engine,) = state(as_alice)["engines"]
    assert engine["status"] == "up"
    assert "code" not in engine


def test_ready_while_any_engine_is(
    anonymous: APIClient,
    as_alice: APIClient,
    stub: StubEngine,
    second: StubEngine,
    several: Several,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several.add("spare", second)
    for dead in (stub, second):
        dead.stop()
        ask_all_now(monkeypatch)
        is_any_left = dead is stub
        assert anonymous.get(READY).status_code == (200 if is_any_left else 503)
        body = state(as_alice)
        assert body["engine"]["status"] == ("up" if is_any_left else "down")
        assert ("engine down" in body["reasons"]) is not is_any_left
    assert state(as_alice)["engine"] == {
        "status": "down",
        "code": "engine_unavailable",
        "models": [],
    }
    second.start()
    ask_all_now(monkeypatch)
    assert anonymous.get(READY).status_code == 200
    assert state(as_alice)["engine"]["status"] == "up"


def test_what_is_wrong_with_an_engine_is_told_in_our_own_words(
    as_alice: APIClient,
    stub: StubEngine,
    second: StubEngine,
    several: Several,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several.add("spare", second)
    second.behave_probes(Behaviour.ERROR_500_WITH_SECRET)
    ask_all_now(monkeypatch)
    response = as_alice.get(STATE)
    spare = response.json()["engines"][1]
    assert (spare["status"], spare["code"]) == ("down", "engine_bad_reply")
    assert b"canary" not in response.content


# --- questions -----------------------------------------------------------------------------


def engine_of(response: Any) -> str:
    assert response.status_code == 200, response.content
    return Query.objects.get(id=response.json()["query_id"]).engine


def test_a_question_goes_to_another_engine_when_one_dies(
    as_alice: APIClient, stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, priority=1)
    assert engine_of(ask(as_alice)) == "default"
    stub.stop()
    for _ in range(3):
        assert engine_of(ask(as_alice)) == "spare"
    received = list(chunks(ask_streamed(as_alice)))
    assert event_of(received[-1])[0] == "done"
    second.stop()
    response = ask(as_alice)
    assert (response.status_code, response.json()["code"]) == (503, "engine_unavailable")
    assert response["Retry-After"] == "2"
    stub.start()
    assert engine_of(ask(as_alice)) == "default"  # the least bad, and that is the proof it needs
    assert engine_of(ask(as_alice)) == "default"
    assert_nothing_runs(stub)


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour.BUSY_429,
        Behaviour.LOADING_503,
        Behaviour.HTML,
        Behaviour.ERROR_500_WITH_SECRET,
        Behaviour.UNAUTHORIZED_401,
        Behaviour.HANG_BEFORE_FIRST_TOKEN,
    ],
)
@pytest.mark.usefixtures("impatient")
def test_what_fails_before_the_first_byte_is_tried_once_elsewhere(
    as_alice: APIClient,
    stub: StubEngine,
    second: StubEngine,
    several: Several,
    behaviour: Behaviour,
) -> None:
    several.add("spare", second, priority=1)
    with StubEngine() as third:
        several.add("third", third, priority=2)
        stub.behave(behaviour)
        assert engine_of(ask(as_alice)) == "spare"
        second.behave(Behaviour.BUSY_429)
        assert ask(as_alice).status_code == 503
        assert [len(one.ledger) for one in (stub, second, third)] == [2, 2, 0]


def test_what_fails_in_the_middle_is_not_tried_again(
    as_alice: APIClient, stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, priority=1)
    stub.behave(Behaviour.DIE_MID_STREAM, after_tokens=2)
    response = ask(as_alice, "Count to 50")
    assert (response.status_code, response.json()["code"]) == (502, "engine_bad_reply")
    assert second.ledger == []


def test_what_the_caller_did_wrong_is_nobodys_fault(
    as_alice: APIClient, stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, priority=1)
    stub.behave(Behaviour.OVERLONG_400)
    for _ in range(4):
        response = ask(as_alice)
        assert (response.status_code, response.json()["code"]) == (422, "context_length_exceeded")
    assert second.ledger == []
    stub.behave(Behaviour.NORMAL)
    assert engine_of(ask(as_alice)) == "default"


@pytest.mark.parametrize(
    ("status", "words", "goes_elsewhere"),
    [
        ("500 Internal Server Error", "Jinja Exception: roles must alternate", False),
        ("400 Bad Request", f"no such luck {CANARY_SECRET}", True),
    ],
)
def test_a_request_that_is_refused_is_told_to_be_wrong_and_no_engine_is_blamed(
    as_alice: APIClient,
    stub: StubEngine,
    several: Several,
    status: str,
    words: str,
    goes_elsewhere: bool,
) -> None:
    """Clients of OpenAI's ask again after 5xx."""

    def reply(request: RawRequest) -> bytes:
        if request.line.startswith("GET"):
            return models_reply("m")
        return json_reply({"error": {"message": words}}, status=status)

    with RawServer(reply) as one, RawServer(reply) as other:
        several.add("one", one)
        several.add("other", other, priority=1)
        for _ in range(4):
            response = ask(as_alice, model="m")
            assert (response.status_code, response.json()["code"]) == (400, "unsupported_parameter")
            assert CANARY_SECRET not in response.content.decode()
        assert bool([r for r in other.requests if r.line.startswith("POST")]) is goes_elsewhere
        assert (statuses()["one"], statuses()["other"]) == ("up", "up")


def test_an_engine_that_dies_in_the_middle_of_each_answer_is_left_out(
    as_alice: APIClient, stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, priority=1)
    stub.behave(Behaviour.DIE_MID_STREAM, after_tokens=2)
    assert [ask(as_alice, "Count to 9").status_code for _ in range(5)] == [502, 502, 502, 200, 200]
    assert statuses() == {"default": "open", "spare": "up"}


@pytest.fixture
def on_trial(stub: StubEngine, second: StubEngine, several: Several) -> StubEngine:
    """It failed, says that it is well, and has to prove it; another one may be asked."""
    several.add("spare", second, priority=1)
    known("default").note_failure(errors.EngineUnavailable(is_unreachable=True))
    known("default").ask()
    assert statuses() == {"default": "half_open", "spare": "up"}
    return stub


def test_a_trial_that_the_caller_spoiled_makes_room_for_the_next(
    as_alice: APIClient, on_trial: StubEngine
) -> None:
    on_trial.behave(Behaviour.OVERLONG_400)
    for _ in range(2):
        assert ask(as_alice).json()["code"] == "context_length_exceeded"
    assert len(on_trial.ledger) == 2
    on_trial.behave(Behaviour.NORMAL)
    assert engine_of(ask(as_alice)) == "default"
    assert statuses()["default"] == "up"


def test_an_answer_without_a_word_is_a_success(as_alice: APIClient, on_trial: StubEngine) -> None:
    assert ask(as_alice, "Count to 0").json()["response"] == ""
    assert statuses()["default"] == "up"


def test_a_conversation_that_is_shortened_is_still_the_same_trial(
    as_alice: APIClient, stub: StubEngine, second: StubEngine, several: Several
) -> None:
    conversation = ask(as_alice, "Count to 1", conversation="new").json()["conversation"]
    ask(as_alice, "Count to 2", conversation=conversation)
    several.add("spare", second, priority=1)
    known("default").note_failure(errors.EngineUnavailable(is_unreachable=True))
    known("default").ask()
    stub.enqueue(Behaviour.OVERLONG_400)
    response = ask(as_alice, "Count to 3", conversation=conversation)
    assert engine_of(response) == "default"
    assert response.json()["turns_dropped"] == 1
    assert statuses()["default"] == "up"
    assert second.ledger == []


def test_models_and_aliases_are_asked_for_by_name(
    as_alice: APIClient, stub: StubEngine, several: Several
) -> None:
    several.alias("gpt-4o", MODEL)
    response = ask(as_alice, model="gpt-4o")
    assert (response.status_code, response.json()["model"]) == (200, MODEL)
    unknown = ask(as_alice, model="gpt-5")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "model_not_found")
    assert list(unknown.json()["errors"]) == ["model"]


def test_while_an_engine_has_never_answered_no_model_is_unknown(
    as_alice: APIClient, stub: StubEngine, second: StubEngine, several: Several
) -> None:
    """As in a process that was started while that engine was down."""
    second.stop()
    several.add("gpu", second)
    response = ask(as_alice, model="llama")
    assert (response.status_code, response.json()["code"]) == (503, "engine_unavailable")
    assert ask(as_alice, model=MODEL).status_code == 200
    second.start()
    known("gpu").ask()
    assert ask(as_alice, model="llama").status_code == 422
    second.stop()
    known("gpu").ask()
    assert ask(as_alice, model="llama").status_code == 422  # it has said what it serves


def test_an_engine_that_cannot_be_used_makes_no_model_possible(
    as_alice: APIClient, stub: StubEngine, several: Several
) -> None:
    several.add("gpu", stub, sealed_api_key=b"sealed with another SECRET_KEY")
    response = ask(as_alice, model="llama")
    assert (response.status_code, response.json()["code"]) == (422, "model_not_found")


def test_an_engines_failure_keeps_none_of_the_requests_that_it_answers(
    as_alice: APIClient, stub: StubEngine, second: StubEngine, several: Several
) -> None:
    second.stop()
    several.add("gpu", second)
    for _ in range(2):
        assert ask(as_alice, model="llama").json()["code"] == "engine_unavailable"
    kept = known("gpu").error
    assert isinstance(kept, errors.EngineUnavailable)
    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)
    assert kept.is_unreachable


# --- metrics -------------------------------------------------------------------------------


def sample(name: str, **labels: str) -> float | None:
    return value_of(f"sovereigncore_engine_{name}", **labels)


def failures(engine: str, reason: str) -> float:
    return sample("failures_total", engine=engine, reason=reason) or 0.0


def test_metrics_of_an_engine_that_dies_returns_and_is_removed(
    anonymous: APIClient,
    stub: StubEngine,
    second: StubEngine,
    several: Several,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several.add("metered", second)
    label = {"engine": "metered"}
    assert (sample("up", **label), sample("breaker_open", **label)) == (1, 0)
    before = failures("metered", "engine_unavailable")
    known("metered").note_failure(errors.EngineUnavailable(is_unreachable=True))
    assert (sample("up", **label), sample("breaker_open", **label)) == (0, 1)
    assert failures("metered", "engine_unavailable") == before + 1
    ask_all_now(monkeypatch)
    assert (sample("up", **label), sample("breaker_open", **label)) == (1, 0)
    several.remove("metered")
    assert sample("up", **label) != sample("up", **label)  # NaN
    assert sample("breaker_open", **label) == 0
    text = anonymous.get("/metrics").content.decode()
    assert 'sovereigncore_engine_up{engine="default"} 1.0' in text
    assert 'sovereigncore_engine_up{engine="metered"} NaN' in text


def test_failures_are_counted_by_reason_and_callers_mistakes_are_not(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, priority=1)
    reasons = ("engine_bad_reply", "engine_busy", "context_length_exceeded")
    before = [failures("default", reason) for reason in reasons]
    stub.enqueue(Behaviour.HTML)
    stub.enqueue(Behaviour.BUSY_429)
    stub.enqueue(Behaviour.OVERLONG_400)
    assert [ask_any(MODEL) for _ in range(3)] == ["spare"] * 3
    after = [failures("default", reason) for reason in reasons]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 0]


def test_several_processes_count_each_circuit_for_themselves(tmp_path: Path) -> None:
    program = """
import os, django
django.setup()
from consciousness.engine_errors import EngineTimeout, EngineUnavailable
from consciousness.engine_member import Member
from consciousness.engine import Engine
from monitoring import metrics
def child(deed):
    if (pid := os.fork()) == 0:
        deed(Member(name="gpu", engine=Engine(url="http://127.0.0.1:9", api_key="")))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
for _ in range(2):
    child(lambda gpu: gpu.note_failure(EngineUnavailable(is_unreachable=True)))
child(lambda gpu: gpu.note_failure(EngineTimeout()))
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
    assert 'sovereigncore_engine_breaker_open{engine="gpu"} 2.0' in lines
    assert 'sovereigncore_engine_up{engine="gpu"} 0.0' in lines
    total = "sovereigncore_engine_failures_total"
    assert f'{total}{{engine="gpu",reason="engine_unavailable"}} 2.0' in lines
    assert f'{total}{{engine="gpu",reason="engine_timeout"}} 1.0' in lines
