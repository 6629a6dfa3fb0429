"""Shim until merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings

from consciousness import engine_errors
from consciousness.engine import Engine, Model, default_engine
from monitoring.awareness import awareness
from sovereigncore.api import ServiceError


class ModelUnknown(ServiceError):
    status = 422
    code = "model_not_found"
    default_detail = "There is no such model here; GET /api/v1/consciousness/status lists them."


@dataclass(frozen=True, kw_only=True)
class Choice:
    name: str
    engine: Engine
    model: Model
    slots: int
    priority: int = 0


def choices(model: str) -> list[Choice]:
    engine = default_engine()
    models = engine.models()
    found = [m for m in models if not model or m.id == model]
    if not found:
        raise ModelUnknown(errors={"model": ["There is no such model here."]})
    return [Choice(name="default", engine=engine, model=found[0], slots=settings.ENGINE_SLOTS)]


def catalogue() -> list[Model]:
    return list(default_engine().models())


def note_failure(name: str, error: Exception) -> None: ...
def note_success(name: str, *, first_token_s: float) -> None: ...
def capacity() -> int:
    return settings.ENGINE_SLOTS


def engine_summary() -> dict[str, Any]:
    try:
        models = default_engine().models(fresh=not awareness.current().is_engine_up)
    except engine_errors.EngineError as error:
        return {"status": "down", "code": error.code, "models": []}
    return {"status": "up", "models": [model.id for model in models]}
