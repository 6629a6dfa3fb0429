"""Which engine a request should try: who serves what, in which order, and who is left out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pytest_django import Settings

from consciousness import engine_errors as errors
from consciousness import engines
from consciousness.engine import Prompt
from consciousness.engine_keys import seal
from consciousness.models import ModelAlias
from consciousness.tests.generating import takes_at_most, wait_for_request
from consciousness.tests.raw_server import RawServer, models_reply
from consciousness.tests.several import Several, ask_one, known, names, statuses
from tests.stub_engine import MODEL, Behaviour, StubEngine

AT_ONCE_S = 0.9  # less than the second that asking a hung engine takes
HELLO = Prompt(messages=({"role": "user", "content": "Hello"},), temperature=0, max_tokens=9)


@pytest.fixture(autouse=True)
def _nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test says when an engine is asked how it is."""
    monkeypatch.setattr(engines.roster._watch, "start", lambda: None)


@pytest.fixture
def other() -> Iterator[RawServer]:
    """An engine that serves other models than the stubs."""
    with RawServer(lambda _request: models_reply("llama", "qwen")) as server:
        yield server


def asked(name: str) -> None:
    """What the watching thread does."""
    known(name).ask()


def summary_of(name: str) -> dict[str, object]:
    return next(engine for engine in engines.summary() if engine["name"] == name)


# --- alone ---------------------------------------------------------------------------------


def test_alone_the_default_engine_is_the_choice(stub: StubEngine, settings: Settings) -> None:
    for wanted in ("", MODEL):
        (choice,) = engines.choices(wanted)
        assert (choice.name, choice.model.id) == ("default", MODEL)
        assert choice.slots == settings.ENGINE_SLOTS
        assert ask_one(choice) == "1 2 3"
    with pytest.raises(errors.ModelUnknown):
        engines.choices("no-such-model")


def test_alone_it_is_never_left_out(stub: StubEngine) -> None:
    assert statuses() == {"default": "up"}
    for _ in range(5):
        known("default").note_failure(errors.EngineUnavailable(is_unreachable=True))
        assert names() == ["default"]
    assert statuses() == {"default": "open"}
    engines.ask_engines()  # which finds it well: it has nothing else to prove
    assert statuses() == {"default": "up"}


def test_alone_its_caller_gets_its_own_answer(stub: StubEngine, settings: Settings) -> None:
    settings.ENGINE_API_KEY = "not-the-key"
    with pytest.raises(errors.EngineMisconfigured):
        engines.choices()
    stub.stop()
    settings.ENGINE_API_KEY = "another"
    with pytest.raises(errors.EngineUnavailable):
        engines.choices()
    settings.ENGINE_URL = "http://999.1.1.1"
    with pytest.raises(errors.EngineMisconfigured):
        engines.choices()


# --- order ---------------------------------------------------------------------------------


def test_the_lowest_priority_first(stub: StubEngine, second: StubEngine, several: Several) -> None:
    several.add("spare", second, priority=2)
    with StubEngine() as third:
        several.add("better", third, priority=1)
        assert names(MODEL) == ["default", "better", "spare"]
        several.change("spare", priority=1)
        several.change("better", priority=2)
        assert names(MODEL) == ["default", "spare", "better"]
        found = engines.choices(MODEL)
        assert [(choice.slots, choice.priority) for choice in found] == [(4, 0), (4, 1), (4, 2)]


def test_among_equals_first_places_go_by_weight(
    stub: StubEngine, second: StubEngine, several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_chance", random.Random(20260114))
    with StubEngine() as third:
        several.add("three", second, weight=3)
        several.add("six", third, weight=6)
        orders = Counter(tuple(names(MODEL)) for _ in range(4000))
    first = Counter[str]()
    for order, count in orders.items():
        first[order[0]] += count
        assert sorted(order) == ["default", "six", "three"]
    # Within five standard deviations of what weights of 1, 3 and 6 promise.
    assert abs(first["default"] / 4000 - 0.1) < 0.024
    assert abs(first["three"] / 4000 - 0.3) < 0.037
    assert abs(first["six"] / 4000 - 0.6) < 0.039


def test_each_choice_has_its_own_engine_and_model(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, priority=1, slots=7)
    first, spare = engines.choices(MODEL)
    assert spare.slots == 7
    ask_one(spare)
    assert (len(stub.ledger), len(second.ledger)) == (0, 1)
    ask_one(first)
    assert (len(stub.ledger), len(second.ledger)) == (1, 1)


def test_one_that_failed_to_answer_last_comes_last(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, priority=1)
    assert names(MODEL) == ["default", "spare"]
    stub.behave_probes(Behaviour.LOADING_503)
    asked("default")
    spare, default = engines.choices(MODEL)
    assert (spare.name, default.name) == ("spare", "default")
    assert spare.priority < default.priority
    assert statuses() == {"default": "down", "spare": "up"}


# --- models and aliases --------------------------------------------------------------------


def test_a_model_is_asked_of_those_that_serve_it(
    stub: StubEngine, other: RawServer, several: Several
) -> None:
    several.add("other", other, priority=1)
    assert names("qwen") == ["other"]
    assert names(MODEL) == ["default"]
    assert [choice.model.id for choice in engines.choices("qwen")] == ["qwen"]
    with pytest.raises(errors.ModelUnknown) as raised:
        engines.choices("no-such-model")
    assert (raised.value.status, raised.value.code) == (422, "model_not_found")


def test_the_default_model_is_the_first_engines_first(
    stub: StubEngine, other: RawServer, several: Several
) -> None:
    several.add("other", other, priority=1)
    assert [choice.model.id for choice in engines.choices("")] == [MODEL]
    known("default").note_failure(errors.EngineUnavailable(is_unreachable=True))
    assert [choice.model.id for choice in engines.choices("")] == ["llama"]
    known("other").note_failure(errors.EngineUnavailable(is_unreachable=True))
    assert [choice.model.id for choice in engines.choices("")] == [MODEL]  # the least bad


@pytest.mark.parametrize("is_alone", [True, False])
def test_an_alias_is_another_name(
    stub: StubEngine, other: RawServer, several: Several, is_alone: bool
) -> None:
    if not is_alone:
        several.add("other", other, priority=1)
    several.alias("gpt-4o", MODEL)
    several.alias("gpt-5", "no-such-model")
    several.alias("gpt-3", MODEL, is_enabled=False)
    (choice,) = engines.choices("gpt-4o")
    assert (choice.name, choice.model.id) == ("default", MODEL)
    for unknown in ("gpt-5", "gpt-3"):
        with pytest.raises(errors.ModelUnknown):
            engines.choices(unknown)


def test_an_alias_may_hide_a_model(stub: StubEngine, other: RawServer, several: Several) -> None:
    several.add("other", other, priority=1)
    several.alias(MODEL, "qwen")
    assert [choice.model.id for choice in engines.choices(MODEL)] == ["qwen"]


@pytest.mark.parametrize("is_alone", [True, False])
def test_what_the_catalogue_names_can_be_asked_whatever_aliases_there_are(
    stub: StubEngine, other: RawServer, several: Several, is_alone: bool
) -> None:
    several.alias("right", MODEL)
    several.alias("of-an-alias", "right")
    several.alias("to-an-alias", "right")  # after "right" by its name
    several.alias("loop-a", "loop-b")
    several.alias("loop-b", "loop-a")
    expected = [MODEL, "right"]
    if not is_alone:
        several.add("other", other, priority=1)
        several.alias("llama", "no-such-model")  # hides a model
        several.alias("qwen", MODEL)  # the same
        several.alias("hidden", "qwen")
        expected = [MODEL, "qwen", "hidden", "right"]
    listed = engines.catalogue()
    assert [model.id for model in listed] == expected
    for model in listed:
        (choice,) = engines.choices(model.id)
        assert replace(choice.model, id=model.id) == model
    for row in ModelAlias.objects.exclude(alias__in=expected):
        with pytest.raises(errors.ModelUnknown):
            engines.choices(row.alias)


def test_the_catalogue_names_each_model_once_and_aliases_of_what_there_is(
    stub: StubEngine, second: StubEngine, other: RawServer, several: Several
) -> None:
    several.alias("gpt-4o", "qwen")
    assert [model.id for model in engines.catalogue()] == [MODEL]
    several.add("other", other, priority=2)
    several.add("same", second, priority=1)
    several.alias("gpt-3", MODEL, is_enabled=False)
    listed = engines.catalogue()
    assert [model.id for model in listed] == [MODEL, "llama", "qwen", "gpt-4o"]
    assert {model.id: model.owned_by for model in listed}["gpt-4o"] == "llamacpp"
    known("other").note_failure(errors.EngineUnavailable(is_unreachable=True))
    assert [model.id for model in engines.catalogue()] == [MODEL]


def test_a_model_that_two_serve_is_there_while_one_of_them_is(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("same", second)
    known("default").note_failure(errors.EngineUnavailable(is_unreachable=True))
    assert [model.id for model in engines.catalogue()] == [MODEL]
    assert names(MODEL) == ["same"]
    known("same").note_failure(errors.EngineUnavailable(is_unreachable=True))
    with pytest.raises(errors.EngineUnavailable):
        engines.catalogue()


# --- who is left out -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "leaves_out_after"),
    [
        (errors.EngineUnavailable(is_unreachable=True), 1),
        (errors.EngineUnavailable(), 3),
        (errors.EngineTimeout(), 3),
        (errors.EngineBadReply(), 3),
        (errors.EngineMisconfigured(), 3),
        (errors.from_status(500, None), 3),
        (errors.from_status(400, None), None),
        (errors.from_status(404, None), None),
        (errors.from_status(422, None), None),
        (errors.PromptTooLong(), None),
        (errors.EngineBusy(), None),
        (errors.EngineLoading(), None),
    ],
)
def test_what_counts_against_an_engine(
    stub: StubEngine,
    second: StubEngine,
    several: Several,
    error: errors.EngineError,
    leaves_out_after: int | None,
) -> None:
    several.add("spare", second, priority=1)
    for failures in range(1, 8):
        known("default").note_failure(error)
        is_out = leaves_out_after is not None and failures >= leaves_out_after
        assert (names(MODEL) == ["spare"]) is is_out


def test_a_success_in_between_is_forgiveness(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, priority=1)
    for _ in range(5):
        known("default").note_failure(errors.EngineTimeout())
        known("default").note_failure(errors.EngineTimeout())
        known("default").note_success()
    assert names(MODEL) == ["default", "spare"]


def test_an_answer_that_only_began_is_none(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, priority=1)
    for _ in range(3):
        assert names(MODEL) == ["default", "spare"]
        known("default").note_first_token(after_s=0.1)
        known("default").note_failure(errors.EngineBadReply())
    assert names(MODEL) == ["spare"]


def test_if_all_are_out_the_caller_gets_the_real_error(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, priority=1)
    for name in ("default", "spare"):
        known(name).note_failure(errors.EngineUnavailable(is_unreachable=True))
    assert names(MODEL) == ["default"]
    stub.stop()
    with pytest.raises(errors.EngineUnavailable):
        ask_one(engines.choices(MODEL)[0])


@pytest.fixture
def half_open(stub: StubEngine, second: StubEngine, several: Several) -> None:
    """The default engine failed, and has just said that it is well; another one may be asked."""
    several.add("spare", second, priority=1)
    known("default").note_failure(errors.EngineUnavailable(is_unreachable=True))
    asked("default")
    assert statuses() == {"default": "half_open", "spare": "up"}


@pytest.mark.usefixtures("half_open")
def test_half_open_one_request_at_a_time_tries(stub: StubEngine) -> None:
    early, late = engines.choices(MODEL)[0], engines.choices(MODEL)[0]
    assert (early.name, late.name) == ("default", "default")  # neither has begun
    stub.behave(Behaviour.HANG_BEFORE_FIRST_TOKEN)
    trial = early.engine.generate(HELLO, model=early.model)
    try:
        assert names(MODEL) == ["spare"]
        with pytest.raises(errors.EngineOnTrial) as raised:
            late.engine.generate(HELLO, model=late.model)
        engines.note_failure(late, raised.value)
        assert names(MODEL) == ["spare"]  # which is no news of the one that tries
        assert (raised.value.status, raised.value.code) == (503, "engine_busy")
        assert raised.value.is_engines_own  # so it goes elsewhere
        wait_for_request(stub)
    finally:
        trial.close()
    assert stub.wait_idle()
    assert len(stub.ledger) == 1


@pytest.mark.usefixtures("half_open")
def test_a_trial_that_succeeds_lets_everybody_in(stub: StubEngine) -> None:
    ask_one(engines.choices(MODEL)[0])
    assert statuses() == {"default": "up", "spare": "up"}
    assert names(MODEL) == ["default", "spare"]


@pytest.mark.usefixtures("half_open")
def test_a_trial_that_fails_lets_nobody_in(stub: StubEngine) -> None:
    stub.behave(Behaviour.ERROR_500_WITH_SECRET)
    with pytest.raises(errors.EngineBadReply):
        ask_one(engines.choices(MODEL)[0])
    assert names(MODEL) == ["spare"]
    assert statuses()["default"] == "open"


@pytest.mark.usefixtures("half_open")
def test_a_busy_engine_that_was_tried_may_be_tried_again(stub: StubEngine) -> None:
    stub.behave(Behaviour.BUSY_429)
    for _ in range(3):
        assert names(MODEL) == ["default", "spare"]
        with pytest.raises(errors.EngineBusy):
            ask_one(engines.choices(MODEL)[0])
    assert len(stub.ledger) == 3


@pytest.mark.usefixtures("half_open")
def test_a_choice_that_is_not_used_takes_no_trial() -> None:
    assert [names(MODEL) for _ in range(5)] == [["default", "spare"]] * 5


@pytest.mark.parametrize("deed", ["remove", "change"])
def test_reports_about_an_engine_that_is_gone_are_ignored(
    stub: StubEngine, second: StubEngine, several: Several, deed: str
) -> None:
    """As when requests hang at a wrong URL, and fail after an operator has corrected it."""
    several.add("gpu", second, url=stub.url, sealed_api_key=seal(stub.api_key))
    (former,) = [choice for choice in engines.choices(MODEL) if choice.name == "gpu"]
    if deed == "change":
        several.change("gpu", url=second.url, sealed_api_key=seal(second.api_key))
    else:
        several.remove("gpu")
        several.add("gpu", second)
    assert statuses()["gpu"] == "up"
    engines.note_first_token(former, after_s=1)
    assert summary_of("gpu")["first_token_ms"] is None
    engines.note_failure(former, errors.EngineUnavailable(is_unreachable=True))
    assert statuses()["gpu"] == "up"


# --- engines that do not answer ------------------------------------------------------------


def test_in_a_new_process_a_hung_engine_costs_its_second_once(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    stub.behave_probes(Behaviour.HANG_BEFORE_HEADERS)
    several.add("spare", second, priority=1, is_heard=False)
    with takes_at_most(1.0 + AT_ONCE_S):
        assert names("") == ["spare"]
    with takes_at_most(AT_ONCE_S):
        assert names(MODEL) == ["spare"]


def test_none_that_answers(stub: StubEngine, second: StubEngine, several: Several) -> None:
    stub.stop()
    second.stop()
    several.add("spare", second)
    for wanted in ("", MODEL, "no-such-model"):
        with takes_at_most(AT_ONCE_S), pytest.raises(errors.EngineUnavailable):
            engines.choices(wanted)
    with pytest.raises(errors.EngineUnavailable):
        engines.catalogue()
    with pytest.raises(errors.EngineUnavailable):
        engines.ask_engines()
    stub.start()


def test_the_first_engines_error_stands_for_all(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    stub.behave_probes(Behaviour.LOADING_503)
    second.stop()
    several.add("spare", second)
    with pytest.raises(errors.EngineLoading):
        engines.choices()


# --- rows that cannot be used --------------------------------------------------------------


def test_a_key_that_cannot_be_opened_is_a_misconfigured_engine(
    stub: StubEngine, second: StubEngine, several: Several, settings: Settings
) -> None:
    row = several.add("spare", second)
    assert sorted(names(MODEL)) == ["default", "spare"]
    several.change("spare", sealed_api_key=bytes(row.sealed_api_key)[:-1] + b"x")
    assert names(MODEL) == ["default"]
    misconfigured = summary_of("spare")
    assert (misconfigured["status"], misconfigured["code"]) == ("down", "engine_misconfigured")
    several.change("spare", sealed_api_key=seal(second.api_key))
    settings.SECRET_KEY = "another-secret-key-of-fifty-characters-0123456789-abc"
    engines.roster.reset()
    several.read()
    engines.summary()
    assert names(MODEL) == ["default"]
    assert summary_of("spare")["code"] == "engine_misconfigured"


def test_a_url_that_is_none_is_a_misconfigured_engine(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, url="http://999.1.1.1:x")
    several.add("metadata", second, url="http://169.254.169.254")
    assert names(MODEL) == ["default"]
    for name in ("spare", "metadata"):
        assert summary_of(name)["code"] == "engine_misconfigured"


def test_a_wrong_key_is_a_misconfigured_engine(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, sealed_api_key=seal("not-the-key"))
    assert names(MODEL) == ["default"]
    assert summary_of("spare")["code"] == "engine_misconfigured"


def test_a_name_that_the_line_of_requests_does_not_know_is_no_engine(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("GPU", second)
    assert names(MODEL) == ["default"]


def test_no_row_takes_the_place_of_the_default_engine(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("default", second, priority=0)
    assert names(MODEL) == ["default"]
    ask_one(engines.choices(MODEL)[0])
    assert (len(stub.ledger), len(second.ledger)) == (1, 0)


# --- numbers -------------------------------------------------------------------------------


def test_the_capacity_is_that_of_the_engines_in_rotation(
    stub: StubEngine, second: StubEngine, several: Several, settings: Settings
) -> None:
    settings.ENGINE_SLOTS = 3
    assert engines.capacity() == 3
    several.add("spare", second, slots=10)
    assert engines.capacity() == 13
    several.change("spare", slots=8)
    assert engines.capacity() == 11
    known("spare").note_failure(errors.EngineUnavailable(is_unreachable=True))
    assert engines.capacity() == 3
    asked("spare")
    assert engines.capacity() == 3 + 1  # one may try
    known("spare").note_success()
    assert engines.capacity() == 11
    for name in ("spare", "default"):
        known(name).note_failure(errors.EngineUnavailable(is_unreachable=True))
    assert engines.capacity() == 3  # who is tried when all are out
    several.change("spare", is_enabled=False)
    assert engines.capacity() == 3


def test_the_summary_tells_names_and_numbers_and_no_address(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, slots=2, priority=1)
    known("spare").note_first_token(after_s=0.2)
    known("spare").note_first_token(after_s=0.4)
    default, spare = engines.summary()
    assert set(default) == {"name", "status", "models", "slots", "latency_ms", "first_token_ms"}
    assert (default["name"], default["status"], default["first_token_ms"]) == (
        "default",
        "up",
        None,
    )
    assert 0 < default["latency_ms"] < 1000
    assert (spare["name"], spare["models"], spare["slots"]) == ("spare", [MODEL], 2)
    assert 200 < spare["first_token_ms"] < 300  # the newest counts, and not alone
    assert "127.0.0.1" not in str(engines.summary())
    assert "http" not in str(engines.summary())
