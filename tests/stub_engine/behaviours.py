"""How the stub engine behaves and misbehaves: one short function for each `Behaviour`."""

import enum
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.stub_engine.exchange import JSON_TYPE, Exchange
from tests.stub_engine.protocol import CANARY_SECRET, describe_error, describe_overlong

SLOW_TOKEN_DELAY_S = 0.05
HUGE_BLOCK = b"a" * 65536
# A client without a cap has failed by then; the machine it runs on should not.
HUGE_LIMIT_BYTES = 256 * 1024 * 1024
BUSY_RETRY_AFTER_S = 7


class Behaviour(enum.StrEnum):
    """What a request meets. "Mid-stream" is after `Script.after_tokens` tokens."""

    NORMAL = "normal"
    SLOW = "slow"
    HANG_BEFORE_HEADERS = "hang_before_headers"
    HANG_BEFORE_FIRST_TOKEN = "hang_before_first_token"
    HANG_MID_STREAM = "hang_mid_stream"
    DIE_MID_STREAM = "die_mid_stream"
    ERROR_MID_STREAM = "error_mid_stream"
    HTML = "html"
    HALF_JSON = "half_json"
    ENDLESS = "endless"
    HUGE_LINE = "huge_line"
    ERROR_500_WITH_SECRET = "error_500_with_secret"
    OVERLONG_400 = "overlong_400"
    LOADING_503 = "loading_503"
    BUSY_429 = "busy_429"
    UNAUTHORIZED_401 = "unauthorized_401"


@dataclass(frozen=True, slots=True)
class Script:
    """A behaviour with its numbers: seconds before each token, tokens before it goes wrong."""

    behaviour: Behaviour = Behaviour.NORMAL
    token_delay_s: float | None = None
    after_tokens: int = 2

    @property
    def delay_s(self) -> float:
        if self.token_delay_s is not None:
            return self.token_delay_s
        return SLOW_TOKEN_DELAY_S if self.behaviour is Behaviour.SLOW else 0.0


def play_normal(exchange: Exchange, _script: Script) -> None:
    generation = exchange.generation
    if generation is None or not generation.stream:
        exchange.wait(exchange.token_delay_s * (len(generation.tokens) if generation else 1))
        exchange.send_answer()
        return
    exchange.open_stream(generation)
    exchange.send_tokens(generation, generation.tokens)
    exchange.close_stream(generation.final_events())


def play_hang_before_headers(exchange: Exchange, _script: Script) -> None:
    exchange.wait(None)


def play_hang_before_first_token(exchange: Exchange, _script: Script) -> None:
    if exchange.streams:
        exchange.send_head(200, "text/event-stream")
    else:
        exchange.send_head(200, JSON_TYPE, Content_Length=len(json.dumps(exchange.payload)))
    exchange.wait(None)


def send_part(exchange: Exchange, script: Script) -> None:
    """Exactly `after_tokens` tokens of a stream, or half the body of an answer in one piece."""
    if exchange.generation is not None and exchange.streams:
        exchange.open_stream(exchange.generation)
        endless = itertools.chain(exchange.generation.tokens, itertools.repeat(" more"))
        exchange.send_tokens(exchange.generation, itertools.islice(endless, script.after_tokens))
        return
    body = json.dumps(exchange.payload).encode()
    exchange.send_head(200, JSON_TYPE, Content_Length=len(body))
    exchange.send(body[: len(body) // 2])


def play_hang_mid_stream(exchange: Exchange, script: Script) -> None:
    send_part(exchange, script)
    exchange.wait(None)


def play_die_mid_stream(exchange: Exchange, script: Script) -> None:
    send_part(exchange, script)
    exchange.reset()


def play_error_mid_stream(exchange: Exchange, script: Script) -> None:
    """llama.cpp's error inside a stream whose status was 200, without `[DONE]`."""
    error = describe_error(500, "server_error", f"compute error {CANARY_SECRET}")
    if not exchange.streams:
        exchange.send_json(500, error)
        return
    send_part(exchange, script)
    exchange.close_stream([b"data: " + json.dumps(error).encode() + b"\n\n"])


def play_html(exchange: Exchange, _script: Script) -> None:
    page = b"<!doctype html><html><title>Welcome</title><body>It works!</body></html>"
    exchange.send_body(200, "text/html; charset=utf-8", page)


def play_half_json(exchange: Exchange, script: Script) -> None:
    """JSON cut off in the middle, in a response that is itself complete."""
    if exchange.generation is not None and exchange.streams:
        send_part(exchange, script)
        event = exchange.generation.token_event(" never", exchange.predicted + 1)
        exchange.close_stream([event[: len(event) // 2] + b"\n\n"])
        return
    body = json.dumps(exchange.payload).encode()
    exchange.send_body(200, JSON_TYPE, body[: len(body) // 2])


def play_endless(exchange: Exchange, _script: Script) -> None:
    """Tokens without end, whatever max_tokens says; not streamed, no answer ever comes."""
    if exchange.generation is not None and exchange.streams:
        exchange.open_stream(exchange.generation)
        exchange.send_tokens(exchange.generation, itertools.repeat(" more"))
    exchange.wait(None)


def play_huge_line(exchange: Exchange, _script: Script) -> None:
    if exchange.generation is not None and exchange.streams:
        exchange.open_stream(exchange.generation)
        exchange.send_chunk(b'data: {"choices":[{"index":0,"delta":{"content":"')
    else:
        exchange.send_head(200, JSON_TYPE)
        exchange.send_chunk(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"')
    for _ in range(HUGE_LIMIT_BYTES // len(HUGE_BLOCK)):
        exchange.wait(exchange.token_delay_s)
        exchange.send_chunk(HUGE_BLOCK)
    exchange.wait(None)


def play_error_500_with_secret(exchange: Exchange, _script: Script) -> None:
    exchange.send_json(
        500, describe_error(500, "server_error", f"cannot open /models/{CANARY_SECRET}.gguf")
    )


def play_overlong_400(exchange: Exchange, _script: Script) -> None:
    prompt_tokens = exchange.generation.prompt_tokens if exchange.generation else 0
    overlong = describe_overlong(max(prompt_tokens, exchange.n_ctx + 1), exchange.n_ctx)
    exchange.send_json(400, overlong)


def play_loading_503(exchange: Exchange, _script: Script) -> None:
    exchange.send_json(503, describe_error(503, "unavailable_error", "Loading model"))


def play_busy_429(exchange: Exchange, _script: Script) -> None:
    busy = describe_error(429, "rate_limit_error", "All slots are busy")
    exchange.send_json(429, busy, Retry_After=BUSY_RETRY_AFTER_S)


def play_unauthorized_401(exchange: Exchange, _script: Script) -> None:
    exchange.send_json(401, describe_error(401, "authentication_error", "Invalid API Key"))


PLAYS: dict[Behaviour, Callable[[Exchange, Script], None]] = {
    Behaviour.NORMAL: play_normal,
    Behaviour.SLOW: play_normal,
    Behaviour.HANG_BEFORE_HEADERS: play_hang_before_headers,
    Behaviour.HANG_BEFORE_FIRST_TOKEN: play_hang_before_first_token,
    Behaviour.HANG_MID_STREAM: play_hang_mid_stream,
    Behaviour.DIE_MID_STREAM: play_die_mid_stream,
    Behaviour.ERROR_MID_STREAM: play_error_mid_stream,
    Behaviour.HTML: play_html,
    Behaviour.HALF_JSON: play_half_json,
    Behaviour.ENDLESS: play_endless,
    Behaviour.HUGE_LINE: play_huge_line,
    Behaviour.ERROR_500_WITH_SECRET: play_error_500_with_secret,
    Behaviour.OVERLONG_400: play_overlong_400,
    Behaviour.LOADING_503: play_loading_503,
    Behaviour.BUSY_429: play_busy_429,
    Behaviour.UNAUTHORIZED_401: play_unauthorized_401,
}
