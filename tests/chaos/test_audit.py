"""A million rows of the audit trail are verified in under a minute, in little memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import environment
from tests.migrated import ROOT
from tests.servers import postgres_server

pytestmark = pytest.mark.chaos

ROWS = int(os.environ.get("AUDIT_ROWS", "1000000"))
WITHIN_S = 60.0
MAX_RESIDENT_MB = 250
_TIMEOUT_S = 1800


@contextlib.contextmanager
def database(kind: str) -> Iterator[str]:
    if kind == "sqlite":
        yield ""
        return
    with postgres_server() as url:
        yield url


def run(variables: dict[str, str], *arguments: str) -> tuple[str, float, float]:
    """What a program said, its seconds, and the most memory that it had, in MB."""
    began_s = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said
    return said, time.monotonic() - began_s, usage.ru_maxrss / 1024


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_million_rows_are_verified_within_a_minute(kind: str, tmp_path: Path) -> None:
    with database(kind) as url:
        variables = {
            **os.environ,
            **environment.test_environment(str(tmp_path)),
            "DJANGO_SETTINGS_MODULE": "sovereigncore.settings",
            "DATABASE_URL": url,
        }
        run(variables, "manage.py", "migrate", "--verbosity=0")
        print(kind, run(variables, "-m", "tests.chaos.audit_trail", str(ROWS))[0].split("\n"))
        said, took_s, resident_mb = run(variables, "manage.py", "verify_audit", "--json")
    result = json.loads(said)
    assert result["sound"]
    assert result["sealed"] == ROWS
    print(f"{kind}: verified in {took_s:.1f} s with {resident_mb:.0f} MB")
    assert took_s < WITHIN_S
    assert resident_mb < MAX_RESIDENT_MB
