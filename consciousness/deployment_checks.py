"""What `manage.py verify_deployment` asks about the engines."""

from __future__ import annotations

from consciousness import engines
from consciousness.engine_errors import EngineError
from monitoring.deployment import Finding, failed, ok, warning


def ask_engine() -> Finding:
    """Whether one answers and has a model, and which of several does not."""
    try:
        models = engines.catalogue(fresh=True)
    except EngineError as error:
        return failed(f"none answers: {error.code}")
    if not models:
        return failed("none has a model")
    names = ", ".join(model.id for model in models)
    away = [one["name"] for one in engines.summary() if one["status"] != "up"]
    if away:
        return warning(f"there is {names}; {', '.join(away)} cannot be used")
    return ok(f"there is {names}")
