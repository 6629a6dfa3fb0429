"""`make test`: the whole suite, once on SQLite alone and once on real PostgreSQL and Redis.

The second round takes DATABASE_URL and REDIS_URL where they are set and starts the servers itself
where they are not. Arguments go to pytest in both rounds.

`make coverage` (`--coverage`) is the first round again, which runs every test, and judges what it
reached. Measuring doubles the time that a test takes, so those who wait for `make test` are spared.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "reports"
_OWN_TARGETS = ("browser", "chaos", "clients", "load", "ops", "rehearsal", "soak")
_FIRST_ROUND = " and ".join(f"not {marker}" for marker in _OWN_TARGETS)
# What does not depend on the database or the cache runs in the first round alone.
_SECOND_ROUND = f"{_FIRST_ROUND} and not model and not launcher and not once"
# More workers than there are processors: many tests wait for servers and clocks.
_PYTEST = ("pytest", "-n", "3", "--dist", "loadgroup", "-q")
_ROUND_TIMEOUT_S = 40 * 60


def _run(arguments: list[str], environment: dict[str, str]) -> bool:
    command = [sys.executable, "-m", *arguments]
    # Without bytecode every worker would compile all tests, and every process under test all code.
    environment = {k: v for k, v in environment.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=_ROUND_TIMEOUT_S)
    return done.returncode == 0


def _round(name: str, arguments: list[str], environment: dict[str, str]) -> bool:
    print(f"\n=== {name} ===", flush=True)
    started_s = time.monotonic()
    passed = _run(arguments, environment)
    verdict = "passed" if passed else "failed"
    print(f"=== {name}: {verdict} after {time.monotonic() - started_s:.0f} s ===", flush=True)
    return passed


def _without_servers() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL")}


def test(extra: list[str]) -> bool:
    """Both rounds, also when the first one failed."""
    first = [*_PYTEST, "-m", _FIRST_ROUND, *extra]
    second = [*_PYTEST, "-m", _SECOND_ROUND, *extra]
    results = [
        _round("SQLite, in-process cache", first, _without_servers()),
        _round(
            "PostgreSQL, Redis",
            ["tests.servers", "--", sys.executable, "-m", *second],
            dict(os.environ),
        ),
    ]
    return all(results)


def cover(extra: list[str]) -> bool:
    """The first round and its coverage: in `reports/` as HTML and JSON, and on the terminal."""
    environment = _without_servers()
    measured = [*_PYTEST, "-m", _FIRST_ROUND, "--cov", "--cov-report=", "--cov-fail-under=0"]
    _run(["coverage", "erase"], environment)
    passed = _round("SQLite, measured", [*measured, *extra], environment)
    REPORTS.mkdir(exist_ok=True)
    _run(["coverage", "html", "-q", "-d", str(REPORTS / "coverage")], environment)
    _run(["coverage", "json", "-q", "-o", str(REPORTS / "coverage.json")], environment)
    return _run(["coverage", "report"], environment) and passed


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--coverage"]:
        return 0 if cover(arguments[1:]) else 1
    return 0 if test(arguments) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
