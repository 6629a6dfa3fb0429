"""The programs that a rehearsal needs: Debian's, found or asked for together, never skipped."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.ops.programs import PACKAGES as OPERATIONS

PACKAGES = {**OPERATIONS, "nginx": "nginx", "openssl": "openssl", "curl": "curl"}
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def check(*names: str) -> None:
    """Fails with one command that installs whatever of these is missing."""
    missing = [name for name in names if shutil.which(name, path=_PATH) is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[name] for name in missing))
        pytest.fail(
            f"missing: {', '.join(missing)}. As root: "
            f"RUNLEVEL=1 apt-get install --no-install-recommends {packages}\n"
            "(the services that they bring need not run: the rehearsal starts its own)",
            pytrace=False,
        )


def find_program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    assert found is not None, name
    return found
