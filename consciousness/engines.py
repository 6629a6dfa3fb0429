"""Which engine a request should try, and how the engines are.

An engine that is alone is asked by the requests themselves and never left out: whoever asks gets
its own answer. Of several, requests go by what is known of them, which a background thread keeps
fresh, so that one that is dead or hung delays nobody whom another one can serve.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from consciousness.engine import Engine, Model
from consciousness.engine_breaker import Circuit
from consciousness.engine_errors import EngineError, EngineGone, EngineUnavailable, ModelUnknown
from consciousness.engine_member import Member
from consciousness.engine_roster import Roster
from monitoring.awareness import awareness

roster = Roster()
_chance = random.Random()  # noqa: S311 - shares of work are no secret
_IN_DOUBT = 100_000  # more than any priority


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An engine to try, with its own entry for the model that was asked for. Whatever slots are
    free, no `priority` is tried before a lower one."""

    member: Member
    engine: Engine
    model: Model
    slots: int
    priority: int = 0

    @property
    def name(self) -> str:
        return self.member.name


def choices(model: str = "") -> list[Choice]:
    """Who serves `model` (an id or an alias; "" is the default model), in the order to be tried:
    by priority, among equals by chance and weight, those in doubt last. Engines whose circuit is
    open are left out, unless there is no other.

    Say how it goes by `note_first_token`, and how it went by `note_success` or `note_failure`.
    Raises ModelUnknown, and the first engine's EngineError when none answers, or when one never
    did that may serve the model.
    """
    members = roster.members()
    wanted = roster.aliases.get(model, model)
    if len(members) == 1:
        return [_only_choice(members[0], wanted)]
    _hear(members, wanted)
    if not any(member.models for member in members):
        raise _why_none(members)
    wanted = wanted or _default_model(members)
    serving = [member for member in members if member.model(wanted)]
    if not serving:
        if silent := [member for member in members if member.engine and not member.models]:
            raise _why_none(silent)  # it may be one of theirs
        raise ModelUnknown
    return [_choice(member, wanted) for member in _left_in(_ordered(serving))]


def catalogue(*, fresh: bool = False) -> list[Model]:
    """Every model that can be asked for now, once, and the aliases of those.

    `fresh` asks an engine that is alone again, whatever it said a moment ago. Raises the first
    engine's EngineError when none answers.
    """
    members = roster.members()
    if len(members) == 1:
        served = members[0].models_when_alone(fresh=fresh)
    else:
        ready = [member for member in _heard(members) if member.is_ready]
        served = tuple(model for member in ready for model in member.models)
        if not served:
            raise _why_none(members)
    models: dict[str, Model] = {}
    for model in served:
        models.setdefault(model.id, model)
    listed = dict(models)
    for alias, target in sorted(roster.aliases.items()):
        # As in `choices`: an alias leads to a model, and hides one of its own name.
        if target in models:
            listed[alias] = replace(models[target], id=alias)
        else:
            listed.pop(alias, None)
    return list(listed.values())


def is_in_rotation(choice: Choice) -> bool:
    """Whether it still is, for all that is known. Does not wait."""
    member = choice.member
    return member in roster.members_without_waiting() and not member.is_out


def note_first_token(choice: Choice, *, after_s: float) -> None:
    """A request got its first token, so many seconds after it was sent."""
    if _is_still_there(choice):
        choice.member.note_first_token(after_s=after_s)


def note_success(choice: Choice) -> None:
    """A request got its whole answer."""
    if _is_still_there(choice):
        choice.member.note_success()


def note_failure(choice: Choice, error: EngineError) -> None:
    """A request failed. What its caller did wrong may be told as well."""
    if _is_still_there(choice):
        choice.member.note_failure(error)


def _is_still_there(choice: Choice) -> bool:
    """What an engine did before it was removed or changed says nothing of the one that has its
    name now. Neither waits nor reads."""
    return choice.member in roster.known_members()


def summary() -> list[dict[str, Any]]:
    """Each engine by its name: how it is and what it serves. Nothing of its address."""
    return [member.described() for member in _heard(roster.members())]


def capacity() -> int:
    """The slots of the engines in rotation; one on trial takes one request. Neither waits nor
    reads, so that it may be asked under a lock."""
    members = roster.known_members()
    in_rotation = [member for member in members if not member.is_out] or members[:1]
    return sum(map(_slots_of, in_rotation))


def slots_now() -> dict[str, int]:
    """The slots that requests may take of each engine: none of one that is out of rotation, one of
    one on trial, half while the host conserves. Neither waits nor reads."""
    halved = awareness.current().is_host_conserving
    return {
        member.name: 0 if member.is_out else usable(_slots_of(member), is_halved=halved)
        for member in roster.known_members()
    }


def usable(slots: int, *, is_halved: bool) -> int:
    return max(1, slots // 2) if is_halved else slots


def _slots_of(member: Member) -> int:
    return 1 if member.breaker.circuit is Circuit.HALF_OPEN else member.slots


def ask_engines() -> None:
    """The health probe: up when any engine is; raises the first one's EngineError otherwise.

    An engine that is alone is really asked now; each of several was within the last seconds.
    """
    members = roster.members_without_waiting()
    if len(members) == 1:
        members[0].ask(is_alone=True)
    if not any(member.is_ready for member in _heard(members)):
        raise _why_none(members)


def engine_summary() -> dict[str, Any]:
    """All engines as one, for `/state` and `/status`. One that failed its health probe is asked
    again, whatever it said ten seconds ago."""
    try:
        models = catalogue(fresh=not awareness.current().is_engine_up)
    except EngineError as error:
        return {"status": "down", "code": error.code, "models": []}
    return {"status": "up", "models": [model.id for model in models]}


def _heard(members: Sequence[Member]) -> Sequence[Member]:
    """The same, each asked at least once."""
    for member in members:
        member.ask_once(is_alone=len(members) == 1)
    return members


def _hear(members: Sequence[Member], wanted: str) -> None:
    """Ask engines that were never asked, until one is known that will do."""
    for member in members:
        if wanted and any(known.is_ready and known.model(wanted) for known in members):
            return
        member.ask_once()
        if not wanted and member.is_ready:
            return


def _why_none(members: Sequence[Member]) -> EngineError:
    error = members[0].error
    return error.again() if error else EngineUnavailable()


def _default_model(members: Sequence[Member]) -> str:
    """The first model of the first engine in rotation; what an engine that is out serves is the
    default only where that leaves none."""
    known = [member for member in members if member.models]
    return min(known, key=lambda member: not member.is_ready).models[0].id


def _place(member: Member) -> int:
    """Its priority; who failed to answer last comes after all that did answer."""
    return member.priority if member.is_ready else member.priority + _IN_DOUBT


def _ordered(members: Sequence[Member]) -> list[Member]:
    """By place, and by weighted chance where that is the same: first places are shared by weight
    (Efraimidis and Spirakis, 2006)."""
    return sorted(members, key=lambda m: (_place(m), -(_chance.random() ** (1 / m.weight))))


def _left_in(ordered: Sequence[Member]) -> list[Member]:
    """Those whose circuits let requests pass; if none, the one that is least bad."""
    left = [member for member in ordered if member.breaker.has_room]
    return left or [min(ordered, key=lambda member: member.is_out)]


def _choice(member: Member, wanted: str) -> Choice:
    engine, model = member.engine, member.model(wanted)
    assert engine is not None
    assert model is not None
    is_trial = member.breaker.circuit is Circuit.HALF_OPEN and member.breaker.has_room
    return Choice(
        member=member,
        engine=engine.behind(_Admission(member, is_trial=is_trial)),
        model=model,
        slots=member.slots,
        priority=_place(member),
    )


class _Admission:
    """Of one request, each time that it is sent there: it may have waited for a slot since it was
    to go there, and be shortened and sent again, which is still the same trial."""

    def __init__(self, member: Member, *, is_trial: bool) -> None:
        self._member, self._needs_trial = member, is_trial

    def __call__(self) -> None:
        if self._member not in roster.members():
            raise EngineGone
        if self._needs_trial:
            self._member.begin_trial()
            self._needs_trial = False


def _only_choice(member: Member, wanted: str) -> Choice:
    try:
        models = member.models_when_alone()
    except EngineError as error:
        member.note_failure(error)
        raise
    assert member.engine is not None
    for model in models:
        if model.id == wanted or not wanted:
            return Choice(member=member, engine=member.engine, model=model, slots=member.slots)
    raise ModelUnknown
