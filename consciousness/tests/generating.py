"""Generations without a request around them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from consciousness.engine import Engine, Prompt
from consciousness.engine_generation import Generation, Timeouts
from tests.stub_engine import StubEngine

SHORT_S, LONG_S, BOUND_S = 0.2, 30.0, 10.0


def timeouts(
    *,
    connect_s: float = 2,
    first_s: float = LONG_S,
    silence_s: float = LONG_S,
    total_s: float = LONG_S,
) -> Timeouts:
    return Timeouts(
        connect_s=connect_s, first_token_s=first_s, silence_s=silence_s, total_s=total_s
    )


def started(stub: StubEngine, *, limits: Timeouts | None = None) -> Generation:
    engine = Engine(url=stub.url, api_key=stub.api_key)
    (model,) = engine.models()
    messages = ({"role": "user", "content": "Count to 9"},)
    prompt = Prompt(messages=messages, temperature=0, max_tokens=4096)
    return engine.generate(prompt, model=model, timeouts=limits or timeouts())


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "engine-reader"]


def wait_for_request(stub: StubEngine) -> None:
    until_s = time.monotonic() + BOUND_S
    while not stub.active:
        assert time.monotonic() < until_s
        time.sleep(0.005)


@contextlib.contextmanager
def takes_at_most(seconds: float) -> Iterator[None]:
    started_s = time.monotonic()
    yield
    assert time.monotonic() - started_s < seconds


@contextlib.contextmanager
def a_deaf_port() -> Iterator[int]:
    """A port whose backlog is full, so that connecting to it takes for ever."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(8):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port
