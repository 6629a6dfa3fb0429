"""The web console's files, under an address that changes with their content.

Modules import each other by relative names, which a version in a query would not reach; so the
version is a folder. A browser may keep what is in it for good, and never runs a release with pieces
of another one.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from whitenoise.middleware import WhiteNoiseMiddleware

FILES = Path(__file__).resolve().parent / "static/sovereigncore/console"
_DIGEST_LENGTH = 12


@cache
def modules() -> tuple[str, ...]:
    """The scripts by name, for browsers to fetch all at once instead of import by import."""
    return tuple(sorted(path.name for path in FILES.glob("*.js")))


@cache
def address() -> str:
    """Where the files are, `/static/console/0123456789ab/`. Read once: a release is a restart."""
    digest = hashlib.sha256()
    for path in sorted(FILES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{settings.STATIC_URL}console/{digest.hexdigest()[:_DIGEST_LENGTH]}/"


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]
    """WhiteNoise, and the console's files there too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_files(FILES, prefix=address())
