"""`make test`: the whole suite, once on SQLite alone and once on real PostgreSQL and Redis.

The second round takes DATABASE_URL and REDIS_URL where they are set and starts the servers itself
where they are not. Arguments go to pytest in both rounds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "reports"
# What does not depend on the database or the cache runs in the first round alone.
_FIRST_ROUND = (
    # These have make targets of their own.
    "not browser and not chaos and not clients and not ops and not rehearsal"
)
_SECOND_ROUND = f"{_FIRST_ROUND} and not model and not launcher and not once"
_ROUND_TIMEOUT_S = 40 * 60


def _run(arguments: list[str], environment: dict[str, str]) -> int:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=False, timeout=_ROUND_TIMEOUT_S
    ).returncode


def _round(name: str, arguments: list[str], environment: dict[str, str]) -> bool:
    print(f"\n=== {name} ===", flush=True)
    started_s = time.monotonic()
    code = _run(arguments, environment)
    print(f"=== {name}: exit {code} after {time.monotonic() - started_s:.0f} s ===", flush=True)
    return code == 0


def main(extra: list[str]) -> int:
    plain = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL")}
    # More than there are processors: many tests wait for servers and clocks.
    pytest = ["pytest", "-n", "3", "--dist", "loadgroup", "-q"]
    # Measuring coverage doubles the time that a test takes, and the first round runs them all. What
    # was covered is judged at the end.
    coverage = ["--cov", "--cov-report=", "--cov-fail-under=0"]
    _run(["coverage", "erase"], plain)
    results = [
        _round("SQLite, in-process cache", [*pytest, *coverage, "-m", _FIRST_ROUND, *extra], plain),
        _round(
            "PostgreSQL, Redis",
            [
                *("tests.servers", "--", sys.executable, "-m"),
                *(*pytest, "-m", _SECOND_ROUND, *extra),
            ],
            dict(os.environ),
        ),
    ]
    if extra:
        return 0 if all(results) else 1  # a part of the suite covers a part of the code
    REPORTS.mkdir(exist_ok=True)
    _run(["coverage", "html", "-q", "-d", str(REPORTS / "coverage")], plain)
    _run(["coverage", "json", "-q", "-o", str(REPORTS / "coverage.json")], plain)
    results.append(_run(["coverage", "report"], plain) == 0)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
