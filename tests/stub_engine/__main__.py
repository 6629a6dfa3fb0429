"""The stub engine as a program, for benchmarks and for tests of several processes.

Scripted from outside, with the same API key: POST /_stub/behaviour takes
{"behaviour", "token_delay_s"?, "after_tokens"?, "times"?, "probes"?} (`times` queues it for so many
requests, `probes` is for /health and /v1/models), POST /_stub/reset, GET /_stub/ledger.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

from tests.stub_engine.behaviours import Behaviour
from tests.stub_engine.engine import StubEngine


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.stub_engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="0 (the default): a free one, printed")
    parser.add_argument("--api-key", help="the key to ask for; the default is random, printed")
    parser.add_argument(
        "--behaviour", type=Behaviour, choices=list(Behaviour), default=Behaviour.NORMAL
    )
    parser.add_argument("--token-delay-ms", type=float, help="before each token")
    parser.add_argument(
        "--after-tokens", type=int, default=2, help="where mid-stream behaviours strike"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: ended.set())
    delay_s = None if options.token_delay_ms is None else options.token_delay_ms / 1000
    with StubEngine(
        options.behaviour,
        token_delay_s=delay_s,
        after_tokens=options.after_tokens,
        api_key=options.api_key,
        port=options.port,
    ) as engine:
        shown_key = "" if options.api_key else f" with API key {engine.api_key}"
        sys.stdout.write(f"stub engine listening on {engine.url}{shown_key}\n")
        sys.stdout.flush()
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
