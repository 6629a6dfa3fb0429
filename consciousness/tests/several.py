"""Several engines at once: rows as the admin site leaves them, and requests that go round them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from consciousness import engines
from consciousness.engine import Prompt
from consciousness.engine_errors import EngineError
from consciousness.engine_generation import Timeouts
from consciousness.engine_keys import seal
from consciousness.engine_member import Member
from consciousness.engine_roster import Roster
from consciousness.engines import Choice
from consciousness.models import ModelAlias, Upstream
from consciousness.tests.raw_server import RawServer
from tests.stub_engine import StubEngine

PATIENT = Timeouts(connect_s=10, first_token_s=10, silence_s=10, total_s=20)
IMPATIENT = Timeouts(connect_s=1, first_token_s=1, silence_s=1, total_s=3)


class Several:
    """Changes rows, and has them read at once by the thread of the test: other threads do not see
    what a test does inside its transaction."""

    def add(
        self, name: str, server: StubEngine | RawServer, *, is_heard: bool = True, **values: Any
    ) -> Upstream:
        """`is_heard`: as if the process had run for a while and heard of it."""
        key = server.api_key if isinstance(server, StubEngine) else ""
        values = {"url": server.url, "sealed_api_key": seal(key), **values}
        row = Upstream.objects.create(name=name, **values)
        self.read()
        if is_heard:
            engines.summary()
        return row

    def change(self, name: str, **values: Any) -> None:
        assert Upstream.objects.filter(name=name).update(**values) == 1
        self.read()

    def remove(self, name: str) -> None:
        Upstream.objects.get(name=name).delete()
        self.read()

    def alias(self, alias: str, model: str, **values: Any) -> None:
        ModelAlias.objects.create(alias=alias, model=model, **values)
        self.read()

    def read(self) -> None:
        engines.roster.expire()
        engines.roster.members()
        engines.roster._read_at_s = math.inf


def known(name: str, roster: Roster = engines.roster) -> Member:
    return next(member for member in roster.known_members() if member.name == name)


def names(model: str = "") -> list[str]:
    """Who would be tried, in order."""
    return [choice.name for choice in engines.choices(model)]


def ask_one(choice: Choice, *, timeouts: Timeouts = IMPATIENT) -> str:
    """One generation, reported as services report theirs. Raises its EngineError."""
    prompt = Prompt(
        messages=({"role": "user", "content": "Count to 3"},), temperature=0, max_tokens=50
    )
    generation = choice.engine.generate(prompt, model=choice.model, timeouts=timeouts)
    told = False
    text = ""
    try:
        for chunk in generation:
            text += chunk.text if chunk else ""
            if not told and generation.first_token_after_s is not None:
                told = True
                engines.note_first_token(choice, after_s=generation.first_token_after_s)
    except EngineError as error:
        engines.note_failure(choice, error)
        raise
    finally:
        generation.close()
    engines.note_success(choice)
    return text


def ask_any(model: str = "", *, timeouts: Timeouts = IMPATIENT) -> str:
    """Like a request: who comes first, and one retry elsewhere. The name of who answered."""
    first, *others = engines.choices(model)
    try:
        ask_one(first, timeouts=timeouts)
    except EngineError:
        if not others:
            raise
        ask_one(others[0], timeouts=timeouts)
        return others[0].name
    return first.name


def statuses() -> dict[str, str]:
    return {engine["name"]: engine["status"] for engine in engines.summary()}


def eventually(is_so: Callable[[], bool], *, within_s: float) -> float:
    """Wait until it is so; the seconds that it took."""
    began_s = time.monotonic()
    while not is_so():
        assert time.monotonic() - began_s < within_s, f"not within {within_s} s"
        time.sleep(0.01)
    return time.monotonic() - began_s
