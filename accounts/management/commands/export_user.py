"""`manage.py export_user`: everything held about a person, as a ZIP of JSON."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from accounts.services import export_user


class Command(BaseCommand):
    help = "Write everything held about a person to a new ZIP of JSON files, readable by you only."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--output", help="default: <username>.zip; must not exist yet")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.find_named(options["username"])
        if user is None:
            raise CommandError(f"There is no user {options['username']!r}.")
        path = Path(options["output"] or f"{user.username}.zip")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from error
        with os.fdopen(descriptor, "wb") as target, export_user(user, actor_id=None) as archive:
            shutil.copyfileobj(archive, target)
        self.stdout.write(f"{path}: everything held about {user.username}.")
