"""Where mails go while no mail server is set: one file each, for the operator to read.

Unlike Django's own file backend, which puts what one connection sends into one file: a person's
mails can be erased and everybody else's stay. A file appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.message import sanitize_address

SUFFIX = ".eml"
_UNFINISHED = ".mail-"


class EmailBackend(BaseEmailBackend):
    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Raises OSError where nothing can be written, like a mail server that is away."""
        directory = Path(settings.OUTBOX)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for message in email_messages:
            _write(directory, message.message().as_bytes())
        return len(email_messages)


def _write(directory: Path, content: bytes) -> None:
    # mkstemp: links are as good as passwords, so nobody else may read it.
    descriptor, unfinished = tempfile.mkstemp(prefix=_UNFINISHED, dir=directory)
    path = Path(unfinished)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        now = datetime.now(UTC)
        path.rename(directory / f"{now:%Y%m%d-%H%M%S-%f}{path.name.removeprefix('.mail')}{SUFFIX}")
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def files() -> list[Path]:
    """What lies there, oldest first."""
    return sorted(Path(settings.OUTBOX).glob(f"*{SUFFIX}"))


def delete_mentioning(addresses: set[str]) -> int:
    """Delete the mails that are to or about one of the addresses."""
    wanted = {
        spelling.lower().encode()
        for address in addresses
        for spelling in (address, sanitize_address(address, "utf-8"))  # as a header has it
    }
    texts = {path: path.read_bytes().lower() for path in files()}
    found = [path for path, text in texts.items() if any(address in text for address in wanted)]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def delete_older_than(limit: datetime) -> int:
    """Those that a killed worker left unfinished too. Another worker may do the same now."""
    deleted = 0
    for path in (*files(), *Path(settings.OUTBOX).glob(f"{_UNFINISHED}*")):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < limit.timestamp():
                path.unlink()
                deleted += 1
    return deleted
