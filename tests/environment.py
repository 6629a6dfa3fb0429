"""A complete environment for a SovereignCore process under test, production-shaped."""

from __future__ import annotations

import os

# Generated once for tests; they guard nothing.
_SECRET = "Qm7fX2pL9sVb4TzRk8WnYc3HgJd6EaUo1iMq5Nx0Br2SvZtGfPwKyLhC"


def test_environment(data_dir: str, **overrides: str) -> dict[str, str]:
    """Variables for one process or suite. `ENV_FILE` names no file: a developer's own `.env`
    must not change what is tested."""
    return {
        "ENV_FILE": os.devnull,
        "DEBUG": "false",
        "SECRET_KEY": _SECRET,
        "JWT_SIGNING_KEYS": f"t1:{_SECRET}",
        "AUDIT_KEY": _SECRET[:48],
        "ENGINE_API_KEY": _SECRET[:40],
        "DATA_DIR": data_dir,
        "REGISTRATION_MODE": "open",
        "API_DOCS": "true",
        "LOG_LEVEL": "INFO",
        # The machine that runs the tests may be full or busy; what such a one does has tests of its
        # own.
        "GOVERNOR_CPU_CONSERVE_PERCENT": "101",
        "GOVERNOR_MEMORY_CONSERVE_PERCENT": "100",
        "GOVERNOR_DISK_CONSERVE_PERCENT": "100",
        "GOVERNOR_TEMP_CONSERVE_C": "92",
        "GOVERNOR_MEMORY_SURVIVE_PERCENT": "100",
        "GOVERNOR_DISK_SURVIVE_PERCENT": "100",
        "GOVERNOR_TEMP_SURVIVE_C": "150",
        **overrides,
    }
