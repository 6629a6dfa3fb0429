"""One engine among others, as this process knows it: its client, its circuit, what it said last."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from consciousness.engine import Engine, Model
from consciousness.engine_breaker import Breaker, Circuit
from consciousness.engine_errors import (
    EngineBusy,
    EngineError,
    EngineLoading,
    EngineMisconfigured,
    EngineNotAsked,
    EngineOnTrial,
    EngineUnavailable,
)
from monitoring import metrics

_ASK_AGAIN_S = 2.0  # an engine that is well; one that is not is asked in every round
_SMOOTHING = 0.3  # how much the newest time to a first token counts

log = structlog.get_logger(__name__)


class Member:
    """Safe to share between threads. `engine` is None when its settings cannot be used.

    What `models`, `error` and the times say is what is known; only `ask` and `ask_once` wait for
    the engine.
    """

    def __init__(
        self,
        *,
        name: str,
        engine: Engine | None,
        slots: int = 1,
        weight: int = 1,
        priority: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.engine = name, engine
        self.slots, self.weight, self.priority = slots, weight, priority
        self.models: tuple[Model, ...] = ()
        self.error: EngineError | None = None if engine else EngineMisconfigured()
        self.latency_ms: float | None = None
        self.first_token_ms: float | None = None
        self.breaker = Breaker(clock=clock)
        self._clock = clock
        self._asked_at_s: float | None = None
        self._asking = threading.Lock()
        self._show(was=Circuit.CLOSED)

    @property
    def is_ready(self) -> bool:
        """Whether requests may be sent there, for all that is known."""
        return bool(self.models) and self.error is None and not self.is_out

    @property
    def is_out(self) -> bool:
        """Whether it is out of rotation."""
        return self.engine is None or self.breaker.circuit is Circuit.OPEN

    @property
    def is_due(self) -> bool:
        """Whether it should be asked how it is."""
        if self.engine is None:
            return False
        if not self.is_ready or self.breaker.circuit is not Circuit.CLOSED:
            return True
        return self._clock() - (self._asked_at_s or 0.0) >= _ASK_AGAIN_S

    def model(self, model_id: str) -> Model | None:
        return next((model for model in self.models if model.id == model_id), None)

    def ask_once(self, *, is_alone: bool = False) -> None:
        """Ask unless it has been asked before. Takes a second at most."""
        if self._asked_at_s is None:
            with self._asking:
                if self._asked_at_s is None:  # nobody else did meanwhile
                    self._ask(is_alone=is_alone)

    def ask(self, *, timeout_s: float | None = None, is_alone: bool = False) -> None:
        """Ask for its models, which tells how it is. Never raises: see `error`.

        An engine that is alone is never left out, so an answer is all the proof it has to give.
        """
        with self._asking:
            self._ask(timeout_s=timeout_s, is_alone=is_alone)

    def _ask(self, *, timeout_s: float | None = None, is_alone: bool = False) -> None:
        if self.engine is None:
            return
        was, started_s = self.breaker.circuit, time.monotonic()
        try:
            self.models = self.engine.models(fresh=True, timeout_s=timeout_s)
        except EngineError as error:
            self.error = error.again()
            if error.is_fault:
                self.breaker.record_silence(at_once=_is_unreachable(error))
        else:
            self.error = None
            self.latency_ms = round((time.monotonic() - started_s) * 1000, 1)
            if is_alone:
                self.breaker.record_success()
            else:
                self.breaker.record_answer()
        self._asked_at_s = self._clock()
        self._show(was=was)

    def models_when_alone(self, *, fresh: bool = False) -> tuple[Model, ...]:
        """The models of an engine beside which there is none: it is asked by whoever needs it,
        when what it said is over ten seconds old. Raises the EngineError that it answers with."""
        if self.engine is None:
            raise EngineMisconfigured
        return self.engine.models(fresh=fresh)

    def note_first_token(self, *, after_s: float) -> None:
        was, newest_ms = self.breaker.circuit, after_s * 1000
        before_ms = newest_ms if self.first_token_ms is None else self.first_token_ms
        self.first_token_ms = round(before_ms + _SMOOTHING * (newest_ms - before_ms), 1)
        self.breaker.record_first_token()
        self._show(was=was)

    def note_success(self) -> None:
        """A request got its whole answer."""
        was = self.breaker.circuit
        self.breaker.record_success()
        self._show(was=was)

    def begin_trial(self) -> None:
        """Raises EngineOnTrial when another request tries it already."""
        if not self.breaker.admits():
            raise EngineOnTrial

    def note_failure(self, error: EngineError) -> None:
        """A request failed. What its caller did wrong does not count."""
        if isinstance(error, EngineNotAsked):
            return
        was = self.breaker.circuit
        if error.is_fault:
            self.breaker.record_failure(at_once=_is_unreachable(error))
        else:
            self.breaker.record_no_verdict()
        if error.is_fault or isinstance(error, EngineBusy | EngineLoading):
            metrics.ENGINE_FAILURES.labels(self.name, error.code).inc()
        self._show(was=was)

    def retire(self) -> None:
        """It is no engine of ours any more. Labels cannot be taken back where several processes
        count, so they say that there is nothing to say."""
        metrics.ENGINE_UP.labels(self.name).set(math.nan)
        metrics.ENGINE_BREAKER_OPEN.labels(self.name).set(0)

    def described(self) -> dict[str, Any]:
        """For whoever may see `/state`: names and numbers, nothing of its address."""
        described: dict[str, Any] = {
            "name": self.name,
            "status": self.status,
            "models": [model.id for model in self.models],
            "slots": self.slots,
            "latency_ms": self.latency_ms,
            "first_token_ms": self.first_token_ms,
        }
        if self.error is not None:
            described["code"] = self.error.code
        return described

    @property
    def status(self) -> str:
        if self.breaker.circuit is not Circuit.CLOSED:
            return self.breaker.circuit.value
        return "up" if self.is_ready else "down"

    def _show(self, *, was: Circuit) -> None:
        circuit = self.breaker.circuit
        metrics.ENGINE_UP.labels(self.name).set(self.is_ready)
        metrics.ENGINE_BREAKER_OPEN.labels(self.name).set(circuit is Circuit.OPEN)
        if circuit is not was:
            log.warning("engine_circuit_changed", engine=self.name, before=was, now=circuit)


def _is_unreachable(error: EngineError) -> bool:
    return isinstance(error, EngineUnavailable) and error.is_unreachable
