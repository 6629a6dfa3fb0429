"""What can go wrong with an engine, as callers are told it. The engine's own words stay inside."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from sovereigncore.api import ServiceError


class ModelUnknown(ServiceError):
    """The caller's mistake: no enabled engine serves the model."""

    status = 422
    code = "model_not_found"
    default_detail = "There is no such model here; GET /api/v1/consciousness/status lists them."

    def __init__(self) -> None:
        super().__init__(errors={"model": ["There is no such model here."]})


class EngineError(ServiceError):
    """Any failure of the engine or on the way to it.

    `is_fault` says whether it speaks against the engine. What a caller can provoke does not, or
    callers could take engines away from each other.
    """

    is_engines_own: ClassVar[bool] = True  # another engine might do better
    is_fault: bool = True

    def again(self) -> Self:
        """The same, to be raised where this one is kept: whatever is raised holds on to all that
        was going on, a caller's words among it."""
        same = type(self).__new__(type(self), *self.args)
        vars(same).update(vars(self))
        return same


class EngineUnavailable(EngineError):
    """`is_unreachable`: not even a connection could be made."""

    status = 503
    code = "engine_unavailable"
    default_detail = "The engine is not running or cannot be reached. Try again shortly."

    def __init__(self, *, is_unreachable: bool = False) -> None:
        super().__init__(retry_after_s=2)
        self.is_unreachable = is_unreachable


class EngineLoading(EngineError):
    is_fault = False
    status = 503
    code = "engine_loading"
    default_detail = "The engine is loading its model. Try again shortly."

    def __init__(self) -> None:
        super().__init__(retry_after_s=2)


class EngineBusy(EngineError):
    is_fault = False
    status = 503
    code = "engine_busy"
    default_detail = "The engine has no room for another request right now."

    def __init__(self, *, at_least_s: int = 0) -> None:
        super().__init__(retry_after_s=max(5, at_least_s))


class EngineNotAsked(EngineBusy):
    """Said by ourselves, so it is nothing that the engine did."""


class EngineOnTrial(EngineNotAsked):
    """After failures it gets one request at a time, and has one."""


class EngineGone(EngineNotAsked):
    """It was removed or changed while its request waited in line."""


class EngineTimeout(EngineError):
    status = 504
    code = "engine_timeout"
    default_detail = "The engine took too long to answer."

    def __init__(self, *, is_fault: bool = True) -> None:
        super().__init__()
        self.is_fault = is_fault


class EngineBadReply(EngineError):
    status = 502
    code = "engine_bad_reply"
    default_detail = "The engine sent an answer that cannot be used."

    def __init__(self, *, is_fault: bool = True) -> None:
        super().__init__()
        self.is_fault = is_fault


class EngineMisconfigured(EngineError):
    status = 502
    code = "engine_misconfigured"
    default_detail = "The engine refused this server. Its operator has to look at the settings."


class PromptTooLong(EngineError):
    is_fault = False
    status = 422
    code = "context_length_exceeded"
    # Begun in llama.cpp's words: litellm knows the error by its text and not by its code.
    default_detail = "The request exceeds the available context size of the model."
    is_engines_own = False


class UnsupportedByEngine(EngineError):
    """The caller's request asks for what this engine or its model cannot do."""

    status = 400
    code = "unsupported_parameter"
    default_detail = "The engine cannot answer a request of this kind."
    is_engines_own = False
    is_fault = False

    def __init__(self, parameter: str = "") -> None:
        message = "The engine or its model does not support this, or not like this."
        super().__init__(errors={parameter: [message]} if parameter else None)


class RefusedByEngine(UnsupportedByEngine):
    """The same in words that are not known here, so another engine might take the request."""

    is_engines_own = True


# A model's template, refusing the messages, such as two of a user in a row. llama.cpp tells that as
# a failure of its own, with 500.
_BY_TEMPLATE = ("jinja exception", "raise_exception", "roles must alternate")
# llama.cpp, vLLM and Ollama, refusing what a request asks for.
_UNSUPPORTED = (
    *("support", "requires", "must be", "cannot have", "invalid tool", "not a chat model"),
    *("schema", "grammar", "parser", "template", "max allowed", *_BY_TEMPLATE),
)
# Which parameter their words are about; the first that is found.
_PARAMETERS = {
    **dict.fromkeys(_BY_TEMPLATE, "messages"),
    "tool_choice": "tool_choice",
    "tool": "tools",
    "schema": "response_format",
    "response_format": "response_format",
    "grammar": "response_format",
    "logprobs": "logprobs",
    "field 'n'": "n",
    "assistant message": "messages",
    "template": "messages",
}


def _parameter(words: str) -> str:
    return next((parameter for word, parameter in _PARAMETERS.items() if word in words), "")


def _is_unsupported(status: int, words: str) -> bool:
    known = {400: _UNSUPPORTED, 422: _UNSUPPORTED, 500: _BY_TEMPLATE}.get(status, ())
    return status == 501 or any(word in words for word in known)


def _words(body: Any) -> str:
    if not isinstance(body, dict):
        return ""
    # Older vLLM has all of it at the top.
    error = body if body.get("object") == "error" else body.get("error")
    if isinstance(error, dict):
        parts = (error.get("type"), error.get("code"), error.get("message"))
        # Text only: writing out what else may be in there, however deeply nested, can fail.
        return " ".join(part for part in parts if isinstance(part, str))
    return error if isinstance(error, str) else ""


def from_status(status: int, body: Any, *, retry_after: str = "") -> EngineError:
    """The error for an engine's HTTP status (or error event), decoded JSON body and Retry-After."""
    words = _words(body).lower()[:500]
    if status in (401, 403):
        return EngineMisconfigured()
    # llama.cpp: exceed_context_size_error, and its own words where a text is to be embedded; OpenAI
    # and vLLM: context_length_exceeded.
    if status in (400, 500) and "too large to process" in words:
        return PromptTooLong()
    if status in (400, 413, 500) and "context" in words and ("exceed" in words or "max" in words):
        return PromptTooLong()
    if _is_unsupported(status, words):
        return UnsupportedByEngine(_parameter(words))
    if status in (400, 422) and words:
        return RefusedByEngine(_parameter(words))
    if status == 503 and "loading" in words:
        return EngineLoading()
    if status in (429, 503):
        return EngineBusy(at_least_s=_whole_seconds(retry_after))
    return EngineBadReply(is_fault=not 400 <= status < 500)


def _whole_seconds(text: str) -> int:
    """Up to an hour; 0 for anything that is no number, such as a date."""
    return min(int(text[:9]), 3600) if text.isascii() and text.isdecimal() else 0
