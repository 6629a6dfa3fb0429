"""A query under way: the slot, the engine, the chunks as they come, and the end that settles it.

No database connection is held while the model thinks.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any, Self

from django.conf import settings

from consciousness import engines, settlement
from consciousness.admission import CallerGone, Candidate, Slot, admission
from consciousness.asks import Answer
from consciousness.assembly import Assembly
from consciousness.engine_errors import EngineError, PromptTooLong
from consciousness.engine_generation import Generation
from consciousness.engine_stream import Chunk, Usage
from consciousness.engines import Choice
from consciousness.models import Memory, Query, Status
from consciousness.own_prompts import Reading
from consciousness.prompting import Plan
from consciousness.quota import Standing
from consciousness.settlement import Outcome
from monitoring import metrics
from monitoring.awareness import SelfState
from sovereigncore.api import ServiceError
from sovereigncore.connections import release_connection

Events = Generator["Chunk | Answer | None", None, None]
_MAX_ATTEMPTS = 2  # on different engines, and only before the first byte
_ENDING_S = 5.0  # what the end of an attempt may take


class RunningQuery:
    """One accepted query: iterate for chunks as they come, None now and then while nothing comes,
    and the Answer last.

    Iterating raises a ServiceError where the query fails. Closing cancels it: the engine stops,
    the slot is free, and what was received is settled.
    """

    def __init__(
        self,
        *,
        user: Any,
        plan: Plan,
        state: SelfState,
        stored: Memory | None,
        is_abandoned: Callable[[], bool],
    ) -> None:
        self._user, self._plan, self._state, self._stored = user, plan, state, stored
        self._is_abandoned = is_abandoned
        self._started_s = time.monotonic()
        self._assembly = Assembly()
        self._generations: list[Generation] = []
        self._model = ""
        self._reading: Reading
        self._usage = Usage(is_estimated=False)
        self._events: Events

    # --- how it begins ---------------------------------------------------------------------

    def serve(self, earlier: Query) -> bool:
        """The answer of an earlier query, again, with what it said beyond text. False where that
        was deleted since it was found."""
        said = earlier.content
        chunk = Chunk(
            text=said.response, extra=said.message or {}, finish_reason=earlier.finish_reason
        )
        served = Assembly()
        served.add(chunk)
        accepted = settlement.record_hit(self._user, self._plan, earlier, served)
        release_connection()
        if accepted is None:
            return False
        self._accepted, self._assembly, self._model = accepted, served, earlier.model
        self._events = self._served(chunk)
        self._is_settled = True
        return True

    def accept(self, choices: list[Choice], request_digest: bytes | None) -> None:
        self._accepted = settlement.accept(
            self._user,
            self._plan,
            model=choices[0].model.id,
            request_digest=request_digest,
            answers=self._plan.prompt.choices,
        )
        self._model = choices[0].model.id
        self._events = self._generated(choices)
        self._is_settled = False

    # --- what callers do with it -----------------------------------------------------------

    @property
    def query_id(self) -> uuid.UUID:
        return self._accepted.query_id

    @property
    def model(self) -> str:
        """The id of the one that answers, as far as it is known."""
        return self._model

    @property
    def standing(self) -> Standing:
        """The caller's quota, with what this query has set aside."""
        return self._accepted.standing

    def __iter__(self) -> Iterator[Chunk | Answer | None]:
        return self._events

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._events.close()
        if not self._is_settled:  # nobody began to iterate, so no `finally` ran
            self._settle(Outcome(status=Status.CANCELLED))

    # --- how it goes -----------------------------------------------------------------------

    def _served(self, chunk: Chunk) -> Events:
        yield chunk
        yield self._answer(self._accepted.standing, cached=True)

    def _generated(self, choices: list[Choice]) -> Events:
        status, error_code = Status.CANCELLED, ""
        try:
            yield from self._try_engines(choices)
            status = Status.COMPLETED
        except ServiceError as error:
            status, error_code = Status.FAILED, error.code
            raise
        except (GeneratorExit, CallerGone, KeyboardInterrupt):
            raise
        except BaseException:
            status, error_code = Status.FAILED, ServiceError.code
            raise
        finally:
            standing = self._settle(Outcome(status=status, error_code=error_code))
        yield self._answer(standing, cached=False)

    def _try_engines(self, choices: list[Choice]) -> Iterator[Chunk | None]:
        """On one engine, and before the first byte once more on another one."""
        left = list(choices)
        for attempts_left in reversed(range(_MAX_ATTEMPTS)):
            with self._slot(left) as slot:
                choice = next(choice for choice in left if choice.name == slot.engine)
                left.remove(choice)
                may_try_again = bool(attempts_left) and any(map(engines.is_in_rotation, left))
                if (yield from self._is_answered_by(choice, slot, may_try_again=may_try_again)):
                    return

    def _is_answered_by(
        self, choice: Choice, slot: Slot, *, may_try_again: bool
    ) -> Generator[Chunk | None, None, bool]:
        # An engine that reads a long prompt may take the time of a whole answer, and no proxy waits
        # for another one after that.
        until_s = time.monotonic() + settings.ENGINE_FIRST_TOKEN_TIMEOUT_S + _ENDING_S
        try:
            yield from self._generate(choice, slot)
        except EngineError as error:
            engines.note_failure(choice, error)
            may_try_again = may_try_again and error.is_engines_own and time.monotonic() < until_s
            if self._assembly.has_begun or not may_try_again:
                raise
            return False
        engines.note_success(choice)
        return True

    def _slot(self, left: list[Choice]) -> Any:
        return admission.slot(
            caller=str(self._accepted.user_id),
            candidates=functools.partial(self._candidates, left),
            is_abandoned=self._is_waiting_over,
        )

    def _candidates(self, left: list[Choice]) -> list[Candidate]:
        """Those of the lowest priority that are in rotation now. Where none is, all count: then
        whoever asks gets their own error."""
        there = [choice for choice in left if engines.is_in_rotation(choice)] or left
        halved = self._state.is_host_conserving
        best = min(choice.priority for choice in there)
        return [
            Candidate(name=choice.name, capacity=engines.usable(choice.slots, is_halved=halved))
            for choice in there
            if choice.priority == best
        ]

    def _is_waiting_over(self) -> bool:
        self._accepted.renew_if_due()
        return self._is_abandoned()

    def _generate(self, choice: Choice, slot: Slot) -> Iterator[Chunk | None]:
        self._model = choice.model.id
        self._plan.fit(choice.model)
        is_answered = is_noted = False
        while not is_answered:
            prompt = self._plan.prompt
            self._reading = Reading(
                prompt,
                user_id=self._accepted.user_id,
                engine=choice.name,
                model=choice.model.id,
                is_apart=choice.engine.keeps_people_apart(choice.model),
            )
            generation = choice.engine.generate(prompt, model=choice.model)
            self._generations.append(generation)
            try:
                if not is_noted:
                    # While the engine reads the prompt: before that it would delay every answer.
                    settlement.begin(self._accepted, engine=choice.name)
                    is_noted = True
                yield from self._received(choice, generation, slot)
                is_answered = True
            except PromptTooLong:
                if self._assembly.has_begun or not self._plan.drop_older_half():
                    raise
            finally:
                generation.close()  # inside the slot: the engine's own is free first
                if (rate := generation.tokens_per_second) is not None:
                    metrics.TOKENS_PER_SECOND.observe(rate)

    def _received(
        self, choice: Choice, generation: Generation, slot: Slot
    ) -> Iterator[Chunk | None]:
        for chunk in generation:
            # Where the lease was lost all the same, to a caller who read nothing for half a minute,
            # the answer goes on: one more than its slots is the engine's own line's business.
            slot.renew()
            self._accepted.renew_if_due()
            if chunk is not None:
                if not self._assembly.has_begun and generation.first_token_after_s is not None:
                    metrics.TIME_TO_FIRST_TOKEN.observe(generation.first_token_after_s)
                    engines.note_first_token(choice, after_s=generation.first_token_after_s)
                    self._reading.note_read()
                self._assembly.add(chunk)
            yield chunk

    # --- how it ends -----------------------------------------------------------------------

    def _used(self) -> Usage:
        """Of all attempts: what an engine read before it failed was read."""
        total = Usage(is_estimated=False)
        for generation in self._generations:
            total = total.plus(generation.usage)
        if self._generations:
            known = self._reading.cached_tokens(self._generations[-1].usage)
            total = replace(total, cached_tokens=known)
        return total

    @property
    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._started_s) * 1000)

    def _settle(self, outcome: Outcome) -> Standing:
        self._is_settled = True
        self._usage = self._used()
        return settlement.settle(
            self._accepted,
            self._plan,
            Outcome(
                status=outcome.status,
                error_code=outcome.error_code,
                finish_reason=self._generations[-1].finish_reason if self._generations else "",
                model=self._model,
                usage=self._usage,
                elapsed_ms=self._elapsed_ms,
            ),
            self._assembly,
        )

    def _answer(self, standing: Standing, *, cached: bool) -> Answer:
        plan = self._plan
        return Answer(
            query_id=self._accepted.query_id,
            request_id=plan.ask.request_id,
            model=self._model,
            choices=self._assembly.choices(),
            usage=self._usage,
            processing_time_ms=self._elapsed_ms,
            state=self._state,
            standing=standing,
            cached=cached,
            conversation=plan.conversation_id,
            turns_dropped=plan.turns_dropped,
            memories_used=tuple(plan.facts),
            memory_stored=self._stored,
        )
