"""What an engine's refusals become, and what of them never gets out."""

from __future__ import annotations

from typing import Any

import pytest

from consciousness import engine_errors as errors
from consciousness.engine_errors import from_status
from tests.stub_engine import CANARY_SECRET


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, None, errors.EngineMisconfigured),
        (403, {"error": {"message": "context exceeded"}}, errors.EngineMisconfigured),
        (400, {"error": {"type": "exceed_context_size_error"}}, errors.PromptTooLong),
        (400, {"error": {"code": "context_length_exceeded"}}, errors.PromptTooLong),
        (400, {"error": {"message": "maximum context length is 8192"}}, errors.PromptTooLong),
        (
            400,
            {"object": "error", "message": "maximum context length is 8", "code": 400},
            errors.PromptTooLong,
        ),
        (
            400,
            {"object": "error", "message": "not supported", "code": 400},
            errors.UnsupportedByEngine,
        ),
        (413, {"error": "exceeds the context window"}, errors.PromptTooLong),
        (500, {"error": {"message": "Context size has been exceeded."}}, errors.PromptTooLong),
        (500, {"error": {"message": "context shift failed"}}, errors.EngineBadReply),
        (503, {"error": {"message": "Loading model"}}, errors.EngineLoading),
        (503, {"error": {"message": "busy"}}, errors.EngineBusy),
        (503, None, errors.EngineBusy),
        (429, [], errors.EngineBusy),
        (400, {"error": {"message": ["context", "exceed"]}}, errors.EngineBadReply),
        (404, {"error": {"message": 5}}, errors.EngineBadReply),
        (302, None, errors.EngineBadReply),
        (500, "context exceeded", errors.EngineBadReply),
        (200, {"error": None}, errors.EngineBadReply),
    ],
)
def test_statuses(status: int, body: Any, error: type[errors.EngineError]) -> None:
    assert type(from_status(status, body)) is error


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        ("", 5),
        ("0", 5),
        ("3", 5),
        ("7", 7),
        ("120", 120),
        ("999999999999", 3600),
        ("-7", 5),
        ("1.5", 5),
        ("\u0667", 5),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 5),
    ],
)
def test_a_busy_engines_patience_is_never_cut_short(retry_after: str, expected: int) -> None:
    assert from_status(429, None, retry_after=retry_after).retry_after_s == expected


@pytest.mark.parametrize("status", [400, 401, 403, 413, 429, 500, 503])
def test_the_engines_own_words_stay_inside(status: int) -> None:
    words = f"exceed context max loading {CANARY_SECRET}"
    error = from_status(status, {"error": {"message": words, "type": words, "code": words}})
    assert CANARY_SECRET not in f"{error.detail} {error} {error.headers} {error.errors}"
