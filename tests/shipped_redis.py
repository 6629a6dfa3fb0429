"""`deploy/redis` as a test can run it: paths, addresses, port and digests are put in, and nothing
else is changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tests.migrated import ROOT

SHIPPED = ROOT / "deploy/redis"
USERS = ("sovereigncore", "exporter", "admin")


def write_config(folder: Path, *, port: int) -> Path:
    """redis.conf, for a users.acl beside it."""
    text = _replaced(
        (SHIPPED / "redis.conf").read_text(encoding="utf-8"),
        {
            "bind 127.0.0.1 -::1\n": "bind 127.0.0.1\n",
            "\nport 6379\n": f"\nport {port}\n",
            "aclfile /etc/sovereigncore/redis/users.acl": f"aclfile {folder}/users.acl",
            "dir /var/lib/redis": f"dir {folder}",
        },
    )
    path = folder / "redis.conf"
    path.write_text(text, encoding="utf-8")
    return path


def write_users(folder: Path, passwords: Mapping[str, str]) -> Path:
    """users.acl; `passwords` has one for each of USERS."""
    digests = {
        f"SHA256_OF_{user.upper()}_PASSWORD": hashlib.sha256(passwords[user].encode()).hexdigest()
        for user in USERS
    }
    path = folder / "users.acl"
    path.write_text(
        _replaced((SHIPPED / "users.acl").read_text(encoding="utf-8"), digests), encoding="utf-8"
    )
    return path


def _replaced(text: str, values: Mapping[str, str]) -> str:
    for shipped, ours in values.items():
        assert text.count(shipped) == 1, f"{shipped!r} is no longer shipped"
        text = text.replace(shipped, ours)
    return text
