"""`python -m scripts.write_env`: write `.env` with fresh secrets, unless there is one.

An existing file is never touched, not even when it lacks something: it holds what an operator
decided and secrets that sessions and data depend on.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# Hexadecimal: no random word in it can look like an example, which the settings refuse.
_TEMPLATE = """\
# Written once, with secrets of its own; nothing overwrites it. Keep it private and back it up:
# whoever reads it can act as this server. `.env.example` describes these and all other settings.
# A variable in the environment wins over this file.
DEBUG=false
API_DOCS=true
REGISTRATION_MODE=open

# Reachable from this machine only. To serve others, put a proxy that speaks TLS in front, set
# PUBLIC_BASE_URL and TRUSTED_PROXIES, and add the public host name to ALLOWED_HOSTS.
BIND=127.0.0.1
ALLOWED_HOSTS=127.0.0.1,localhost,[::1]

SECRET_KEY={secret_key}
JWT_SIGNING_KEYS=k1:{signing_key}
AUDIT_KEY={audit_key}
ENGINE_API_KEY={engine_key}

# Backups, daily and beside the data: they help against mistakes and not against a dead disk. Name
# another disk, and keep a copy of the key elsewhere: without it no backup can be read.
BACKUP_DIR=backups
BACKUP_KEY={backup_key}
"""


def env_path() -> Path:
    """Where the settings look for `.env`."""
    return Path(os.environ.get("ENV_FILE") or BASE_DIR / ".env")


def write_env(path: Path) -> bool:
    """Write a new `.env` of mode 600 at `path`; False when something is there already.

    It appears whole or not at all, and of several writers at once the first one wins.
    Raises OSError where it cannot be written.
    """
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _TEMPLATE.format(
        secret_key=secrets.token_hex(32),
        signing_key=secrets.token_hex(32),
        audit_key=secrets.token_hex(32),
        engine_key=secrets.token_hex(24),
        backup_key=secrets.token_hex(32),
    )
    # mkstemp gives mode 600 whatever the umask.
    descriptor, unfinished = tempfile.mkstemp(prefix=".env-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(unfinished, path)  # unlike a rename, it fails when `path` exists by now
    except FileExistsError:
        return False
    finally:
        Path(unfinished).unlink()
    return True


def main() -> int:
    path = env_path()
    try:
        written = write_env(path)
    except OSError as error:
        sys.stderr.write(f"cannot write {path}: {error.strerror}\n")
        return 1
    print(f"{path}: {'written, with fresh secrets' if written else 'there already, left alone'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
