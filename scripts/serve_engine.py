"""`python scripts/serve_engine.py`: `manage.py runengine` where nothing else runs.

The settings want the secrets of accounts and audit trail wherever they are read. An engine uses
none of them, and what reads strangers' prompts had better not hold them: it gets throw-away ones
and keeps ENGINE_API_KEY alone.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

_THROW_AWAY = ("SECRET_KEY", "JWT_SIGNING_KEYS", "AUDIT_KEY")
# Secrets or addresses of what an engine never asks.
_NOT_NEEDED = (
    *("JWT_ALGORITHM", "AUDIT_SIGNING_KEY", "METRICS_TOKEN", "BACKUP_KEY", "BACKUP_DIR"),
    *("DATABASE_URL", "REDIS_URL", "EMAIL_URL"),
)


def environment_of_engine(given: Mapping[str, str]) -> dict[str, str]:
    left_out = {
        name for setting in (*_THROW_AWAY, *_NOT_NEEDED) for name in (setting, f"{setting}_FILE")
    }
    kept = {name: value for name, value in given.items() if name not in left_out}
    return {
        **kept,
        "ENV_FILE": os.devnull,  # no `.env` either
        "SECRET_KEY": secrets.token_hex(32),
        "JWT_SIGNING_KEYS": f"none:{secrets.token_hex(32)}",
        "AUDIT_KEY": secrets.token_hex(32),
    }


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    program = [sys.executable, "manage.py", "runengine"]
    os.execve(program[0], program, environment_of_engine(os.environ))  # noqa: S606
