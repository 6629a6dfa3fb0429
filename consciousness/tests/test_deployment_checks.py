"""What `verify_deployment` asks about the engines."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from consciousness import deployment_checks
from consciousness.deployment_checks import ask_engine
from consciousness.tests.several import Several
from monitoring.deployment import Verdict
from tests.platform import free_port
from tests.stub_engine import MODEL, Behaviour, StubEngine


def test_an_engine_that_has_a_model(db: None, stub: StubEngine) -> None:
    finding = ask_engine()
    assert finding.verdict is Verdict.OK
    assert finding.why == f"there is {MODEL}, and {MODEL} answers"


def test_an_engine_with_another_key(db: None, stub: StubEngine, settings: Settings) -> None:
    settings.ENGINE_API_KEY = "another-one-than-the-engines"
    finding = ask_engine()
    assert finding.verdict is Verdict.FAILED
    assert finding.why == "none answers: engine_misconfigured"


@pytest.mark.parametrize("behaviour", [Behaviour.ERROR_500_WITH_SECRET, Behaviour.DIE_MID_STREAM])
def test_an_engine_that_lists_models_and_answers_nothing(
    db: None, stub: StubEngine, behaviour: Behaviour
) -> None:
    stub.behave(behaviour, after_tokens=0)
    finding = ask_engine()
    assert finding.verdict is Verdict.FAILED
    assert finding.why == "none answers: engine_bad_reply"


def test_an_engine_that_hangs(db: None, stub: StubEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment_checks, "_PATIENCE_S", 0.5)
    stub.behave(Behaviour.HANG_BEFORE_FIRST_TOKEN)
    finding = ask_engine()
    assert finding.verdict is Verdict.FAILED
    assert finding.why == "none answers: engine_timeout"


def test_an_engine_that_is_away(db: None, settings: Settings) -> None:
    settings.ENGINE_URL = f"http://127.0.0.1:{free_port()}"
    finding = ask_engine()
    assert finding.verdict is Verdict.FAILED
    assert finding.why == "none answers: engine_unavailable"


@pytest.mark.django_db
def test_one_of_several_that_is_away(stub: StubEngine, several: Several) -> None:
    several.add("here", stub)
    with StubEngine() as gone:
        several.add("there", gone, is_heard=False)
    finding = ask_engine()
    assert finding.verdict is Verdict.WARNING
    assert "there cannot be used" in finding.why
