"""`manage.py housekeeping --now`: runs every periodic job once."""

from __future__ import annotations

from typing import Any

import structlog
from django.core.management.base import BaseCommand, CommandError, CommandParser

from monitoring import jobs

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = "Run every periodic job once; those that a worker holds this moment are left to it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--now", action="store_true", help="also run jobs that are not due")

    def handle(self, *args: Any, **options: Any) -> None:
        failed = []
        for job in jobs.all_jobs():
            with jobs.named_in_log(job):
                try:
                    dealt_with = jobs.run_if_due(job, even_if_not_due=options["now"])
                except Exception as error:  # the other jobs must still have their turn
                    log.exception("job_failed")
                    failed.append(f"{job.name} ({type(error).__name__})")
                    continue
            outcome = "not due, or in a worker's hands" if dealt_with is None else dealt_with
            self.stdout.write(f"{job.name}: {outcome}")
        if failed:
            raise CommandError("failed: " + ", ".join(failed))
