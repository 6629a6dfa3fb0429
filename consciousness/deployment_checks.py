"""What `manage.py verify_deployment` asks about the engines."""

from __future__ import annotations

import contextlib

from consciousness import engines
from consciousness.engine import Prompt
from consciousness.engine_errors import EngineError
from consciousness.engine_generation import Timeouts
from monitoring.deployment import Finding, failed, ok, warning

# One token. It takes no slot of ours: the engine lets it wait where all are taken.
_QUESTION = Prompt(
    messages=({"role": "user", "content": "Are you there?"},), temperature=0, max_tokens=1
)
# All of it within the deadline of a check.
_PATIENCE_S = 15.0


def ask_engine() -> Finding:
    """Whether the default model really answers, and which of several engines cannot be used."""
    try:
        names = ", ".join(model.id for model in engines.catalogue(fresh=True))
        if not names:
            return failed("none has a model")
        model = _ask_default_model()
    except EngineError as error:
        return failed(f"none answers: {error.code}")
    away = [one["name"] for one in engines.summary() if one["status"] != "up"]
    if away:
        return warning(f"there is {names}, {model} answers; {', '.join(away)} cannot be used")
    return ok(f"there is {names}, and {model} answers")


def _ask_default_model() -> str:
    """Its name. Raises EngineError."""
    choice = engines.choices()[0]
    patience = Timeouts(first_token_s=_PATIENCE_S, silence_s=_PATIENCE_S, total_s=_PATIENCE_S)
    with contextlib.closing(
        choice.engine.generate(_QUESTION, model=choice.model, timeouts=patience)
    ) as generation:
        for _ in generation:
            pass
    return choice.model.id
