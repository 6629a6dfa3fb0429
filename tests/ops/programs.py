"""The operations programs that tests start: Debian's, found or asked for, never skipped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "prometheus-redis-exporter": "prometheus-redis-exporter",
    "prometheus-postgres-exporter": "prometheus-postgres-exporter",
    "prometheus-blackbox-exporter": "prometheus-blackbox-exporter",
    "systemd-analyze": "systemd",
}
_CHECK_TIMEOUT_S = 120.0


def find_program(name: str) -> str:
    """Its path. Fails, saying what to install, where it is missing."""
    found = shutil.which(name)
    if found is None:
        packages = " ".join(dict.fromkeys(PACKAGES.values()))
        pytest.fail(
            f"{name} is missing. As root: apt-get install --no-install-recommends {packages}\n"
            "(the services that they bring need not run: tests start their own on free ports)",
            pytrace=False,
        )
    return found


def check(name: str, *arguments: str | Path) -> str:
    """What a checking program says, both streams. Fails with it when the program does."""
    done = subprocess.run(
        [find_program(name), *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        timeout=_CHECK_TIMEOUT_S,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said
