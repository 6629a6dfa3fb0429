"""`manage.py rotate_keys`: new keys to sign tokens, without logging anybody out."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts import signing_keys
from monitoring import audit
from monitoring.models import AuditEvent


class Command(BaseCommand):
    help = (
        "Rotate the keys that sign tokens, in three steps; reload every web process after each "
        "(with `make run`: start it again). `prepare` makes a key that is accepted, `activate` "
        "lets it sign, and `retire` drops the older ones once no token of theirs can hold. Writes "
        "to `.env`, or to the file that JWT_SIGNING_KEYS_FILE names."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("step", choices=["prepare", "activate", "retire"])
        parser.add_argument(
            "--now",
            action="store_true",
            help="retire at once, for a key that was stolen: its tokens' holders are logged out",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        path = settings.JWT_KEYS_FILE
        if path is None:
            raise CommandError(
                "JWT_SIGNING_KEYS comes from the process environment, which no command can change."
                " Move it to `.env`, or to a file that JWT_SIGNING_KEYS_FILE names."
            )
        try:
            text = self._next(options["step"], is_hurried=options["now"])
            audit.record("keys.rotated", actor_id=None, detail={"step": options["step"]})
            _write(path, text)
        except signing_keys.CannotRotate as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from error
        first, *others = signing_keys.ids(text)
        self.stdout.write(f"Signs: {first}. Accepted too: {', '.join(others) or 'none'}.")
        self.stdout.write("Reload every web process for this to take effect.")

    def _next(self, step: str, *, is_hurried: bool) -> str:
        text, now = settings.JWT_KEYS_TEXT, timezone.now()
        if step == "prepare":
            return signing_keys.prepare(text, algorithm=settings.JWT_ALGORITHM, now=now)
        if step == "activate":
            return signing_keys.activate(text)
        lifetime = timedelta(0) if is_hurried else timedelta(days=settings.REFRESH_TOKEN_DAYS)
        return signing_keys.retire(
            text, lifetime=lifetime, now=now, activated_at=_last_activation()
        )


def _last_activation() -> datetime | None:
    """A key may have been prepared long before the others stopped signing."""
    activations = AuditEvent.objects.filter(action="keys.rotated", detail={"step": "activate"})
    return activations.order_by("-id").values_list("at", flat=True).first()


def _write(path: Path, text: str) -> None:
    """Replace the file whole or not at all. Whoever it belongs to keeps it, and the group that
    could read it still can, for the web process may be another user than the operator."""
    content = text + "\n"
    before = path.stat()
    if path == settings.DOTENV_FILE:
        content = signing_keys.replaced_in_dotenv(path.read_text(encoding="utf-8"), text)
    descriptor, unfinished = tempfile.mkstemp(prefix=f"{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if os.geteuid() == 0:
                os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fchmod(descriptor, before.st_mode & 0o640)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
