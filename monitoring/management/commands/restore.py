"""`manage.py restore`: puts a backup in the place of the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from monitoring.backups import restoring
from monitoring.backups.errors import BackupError
from monitoring.backups.undone import Undone, how_to_go_back

_SHOWN = 50  # ids of each kind; more would not be read, and the list has them


class Command(BaseCommand):
    help = (
        "Put a backup in the place of the database, which is kept aside. Everything that uses the "
        "database must be stopped before. Nothing is changed unless the backup is whole and all "
        "that was saved has come out of it. Sessions end; people log in again."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("file", nargs="?", metavar="FILE")
        which.add_argument(
            "--undo", metavar="NAME", help="put a database that a restore kept aside back"
        )
        parser.add_argument("--yes", action="store_true", help="really")
        parser.add_argument(
            "--keep-sessions",
            action="store_true",
            help="leave logins as they are in what comes back, those revoked since then included",
        )

        parser.add_argument(
            "--only-keys",
            action="store_true",
            help="take the keys out of the backup, and touch nothing else",
        )
        parser.add_argument(
            "--other-keys",
            action="store_true",
            help="also with other secrets than the data was written with, which are lost",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["undo"]:
                self._undo(options["undo"], options)
            elif options["only_keys"]:
                folder = restoring.take_out_keys(Path(options["file"]))
                self.stdout.write(f"The keys of the backup are in {folder}; nothing uses them yet.")
            else:
                self._restore(Path(options["file"]), options)
        except BackupError as error:
            raise CommandError(str(error)) from error

    def _undo(self, aside: str, options: dict[str, Any]) -> None:
        if not options["yes"]:
            raise CommandError(f"This puts {aside} in the place of the database. Add --yes.")
        done = restoring.go_back(
            aside, keep_sessions=options["keep_sessions"], tell=self.stdout.write
        )
        self.stdout.write(self.style.SUCCESS(f"{aside} is the database again."))
        if done.aside:
            self.stdout.write(
                f"The one before is kept as {done.aside}. {how_to_go_back(done.aside)}"
            )
        self._tell_undone(done.undone)

    def _restore(self, path: Path, options: dict[str, Any]) -> None:
        if not options["yes"]:
            about = restoring.describe(path)
            raise CommandError(
                f"This puts everything back to {about.created_at}, when version {about.version}"
                " made this backup. What came later is kept aside. Add --yes to do it."
            )
        done = restoring.restore(
            path,
            keep_sessions=options["keep_sessions"],
            accept_other_keys=options["other_keys"],
            tell=self.stdout.write,
        )
        self.stdout.write(self.style.SUCCESS(f"Restored to {done.about.created_at}."))
        if done.aside:
            self.stdout.write(
                f"The database before is kept as {done.aside}. {how_to_go_back(done.aside)}"
            )
        for name in done.changed_keys:
            self.stdout.write(
                self.style.WARNING(
                    f"{name} is another one than when the backup was made: what was written with"
                    " the old one cannot be checked or opened until it is set again."
                )
            )
        self._tell_undone(done.undone)

    def _tell_undone(self, undone: Undone) -> None:
        for line in undone.lines(at_most=_SHOWN):
            self.stdout.write(self.style.WARNING(line))
