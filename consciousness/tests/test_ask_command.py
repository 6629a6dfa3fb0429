"""`manage.py ask`: the answer on standard output, everything else on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import User
from consciousness.engine_stream import Chunk
from consciousness.models import Query, QueryContent, Status
from consciousness.running import RunningQuery
from consciousness.tests.asking import CAPITAL, assert_nothing_runs
from tests.stub_engine import MODEL, Behaviour, StubEngine


class Recorder(StringIO):
    """Standard output that keeps what was written at each flush."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed: list[str] = []

    def flush(self) -> None:
        self.flushed.append(self.getvalue())


def ask(*arguments: str, **options: object) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("ask", *arguments, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def test_the_answer_is_printed_and_what_it_cost(staff: User, stub: StubEngine) -> None:
    out, err = ask("Count to 5")
    assert out == "1 2 3 4 5\n"
    assert err.startswith(f"[{MODEL}: 3 + 5 tokens, ")
    assert err.endswith(" ms, stop]\n")
    query = Query.objects.get()
    assert (query.user, query.status) == (staff, Status.COMPLETED)
    assert (query.temperature, query.max_tokens) == (0.7, 500)
    assert query.content.response == "1 2 3 4 5"
    assert_nothing_runs(stub)


def test_it_is_printed_as_it_is_written(staff: User, stub: StubEngine) -> None:
    out = Recorder()
    call_command("ask", "Count to 3", stdout=out, stderr=StringIO())
    assert out.flushed[:3] == ["1", "1 2", "1 2 3"]


def test_options(staff: User, alice: User, stub: StubEngine) -> None:
    out, err = ask(
        "Count to 5",
        *("--user", "ALICE", "--temperature", "1.5", "--max-tokens", "2"),
        *("--model", MODEL, "--no-store"),
    )
    assert out == "1 2\n"
    assert "length]" in err
    (record,) = stub.ledger
    assert (record.body["temperature"], record.body["max_tokens"]) == (1.5, 2)
    assert Query.objects.get().user == alice
    assert not QueryContent.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["   "], "prompt"),
        (["x" * 10_001], "prompt"),
        (["\udcff from a terminal"], "prompt"),
        (["a", "--temperature", "2.1"], "temperature"),
        (["a", "--temperature", "nan"], "temperature"),
        (["a", "--max-tokens", "0"], "max_tokens"),
        (["a", "--max-tokens", "4097"], "max_tokens"),
        (["a", "--model", "m" * 129], "model"),
    ],
)
def test_arguments_out_of_bounds(
    staff: User, stub: StubEngine, arguments: list[str], field: str
) -> None:
    with pytest.raises(CommandError, match=rf"^{field}: "):
        ask(*arguments)
    assert stub.ledger == []
    assert not Query.objects.exists()


@pytest.mark.parametrize("arguments", [[], ["a", "--temperature", "hot"], ["a", "--top-p", "1"]])
def test_arguments_that_make_no_sense(arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        ask(*arguments)


def test_an_unknown_user(staff: User, stub: StubEngine) -> None:
    with pytest.raises(CommandError, match="there is no user 'nobody'"):
        ask(CAPITAL, "--user", "nobody")


def test_without_an_administrator(alice: User, stub: StubEngine) -> None:
    with pytest.raises(CommandError, match=r"manage\.py bootstrap"):
        ask(CAPITAL)
    assert stub.ledger == []


def test_the_first_administrator_it_is(staff: User, stub: StubEngine) -> None:
    User.objects.create_superuser("zoe", "zoe@example.org", "Correct-Horse-7-Battery")
    ask(CAPITAL)
    assert Query.objects.get().user == staff


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (Behaviour.LOADING_503, "engine_loading"),
        (Behaviour.ERROR_500_WITH_SECRET, "engine_bad_reply"),
        (Behaviour.DIE_MID_STREAM, "engine_bad_reply"),
    ],
)
def test_a_failing_engine(staff: User, stub: StubEngine, behaviour: Behaviour, code: str) -> None:
    stub.behave(behaviour, after_tokens=1)
    with pytest.raises(CommandError) as raised:
        ask("Count to 5")
    assert str(raised.value).endswith(f"({code})")
    assert "canary" not in str(raised.value)
    query = Query.objects.get()
    assert (query.status, query.error_code) == (Status.FAILED, code)
    assert_nothing_runs(stub)


def test_an_unknown_model(staff: User, stub: StubEngine) -> None:
    with pytest.raises(CommandError, match="model_not_found"):
        ask(CAPITAL, "--model", "gpt-5")


def test_ctrl_c_cancels_the_query(
    staff: User, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it strikes: here, while the command waits for the engine."""
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=2)
    received = RunningQuery._received

    def interrupted(running: RunningQuery, *arguments: Any) -> Iterator[Chunk | None]:
        for item in received(running, *arguments):
            if item is None:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(RunningQuery, "_received", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask("Count to 5")
    query = Query.objects.get()
    assert (query.status, query.error_code) == (Status.CANCELLED, "")
    assert query.completion_tokens == 2
    assert query.content.response == "1 2"
    assert_nothing_runs(stub)
