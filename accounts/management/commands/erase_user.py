"""`manage.py erase_user`: erase a person."""

from __future__ import annotations

import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from accounts.services import erase_user
from sovereigncore.api import ServiceError


class Command(BaseCommand):
    help = (
        "Erase a person: the account and everything held about it. The audit trail keeps what "
        "happened, by id and without a name. Backups made before still hold the person."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "username", metavar="NAME", help="or the id, by which `restore` and the trail tell"
        )
        parser.add_argument("--yes", action="store_true", help="really; there is no way back")

    def handle(self, *args: Any, **options: Any) -> None:
        user = _find(options["username"])
        if user is None:
            raise CommandError(f"There is no user {options['username']!r}.")
        if not options["yes"]:
            raise CommandError(f"This erases {user.username} for good. Add --yes to do it.")
        try:
            erased = erase_user(user, by=None)
        except ServiceError as error:
            raise CommandError(error.detail) from error
        self.stdout.write(f"{user.username} is erased; rows: {sum(erased.values())}.")


def _find(told: str) -> User | None:
    """By the name, which may look like an id, or else by the id."""
    if (named := User.objects.find_named(told)) is not None:
        return named
    try:
        return User.objects.filter(pk=uuid.UUID(told)).first()
    except ValueError:
        return None
