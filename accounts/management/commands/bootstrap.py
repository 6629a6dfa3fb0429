"""`manage.py bootstrap`: the first administrator."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.services import IdentityTaken, bootstrap_admin
from accounts.validators import validate_address, validate_name


class Command(BaseCommand):
    help = (
        "Create the first administrator with a random password, printed once and kept nowhere. "
        "Does nothing when there is an administrator already, however many run at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--username", default="admin", help="default: admin")
        parser.add_argument("--email", default="admin@localhost", help="default: admin@localhost")

    def handle(self, *args: Any, **options: Any) -> None:
        for name, validate in (("username", validate_name), ("email", validate_address)):
            try:
                validate(options[name])
            except ValidationError as error:
                raise CommandError(f"{options[name]!r}: {error.message}") from error
        try:
            password = bootstrap_admin(username=options["username"], email=options["email"])
        except IdentityTaken as error:
            raise CommandError(f"{error.detail} {dict(error.errors or {})}") from error
        if password is None:
            self.stdout.write("There is an administrator already; nothing was changed.")
            return
        self.stdout.write(f"Administrator {options['username']} created.")
        self.stdout.write(f"Password (shown once): {password}")
