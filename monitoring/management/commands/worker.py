"""`manage.py worker`: runs every periodic job at its interval until it is told to stop."""

from __future__ import annotations

import signal
import threading
import time
from argparse import ArgumentParser
from typing import Any

import structlog
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from monitoring import job_metrics, jobs
from monitoring.audit import sealing

_POLL_S = 1.0
_AFTER_FAILURE_S = 10.0
_STOP_WITHIN_S = 10.0

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = (
        "Run the periodic jobs (orphan settlement, retention, flushing), each in a thread of its "
        "own and under a database lease, so that several workers never run one job at once. "
        "SIGTERM or Ctrl-C ends it after the jobs in hand."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--check",
            action="store_true",
            help="run nothing: exit code 1 unless some worker has run every job when it was due",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["check"]:
            _check()
            return
        try:
            sealing.warn_if_key_changed()
        except DatabaseError:  # that is away, or empty: the jobs say so
            log.warning("audit_key_not_checked")
        finally:
            connection.close()
        stop, signals = threading.Event(), list[int]()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not `stop.set()`: a handler that interrupts `stop.wait()` could wait for its lock.
            signal.signal(number, lambda number, _frame: signals.append(number))
        threads = [
            # Daemons: a job that outlives the grace period is cut, and its lease runs out.
            threading.Thread(target=_run_until, args=(stop, job), name=job.name, daemon=True)
            for job in jobs.all_jobs()
        ]
        for thread in threads:
            thread.start()
        log.info("worker_started", jobs=[job.name for job in jobs.all_jobs()])
        while not signals:
            time.sleep(_POLL_S)
        stop.set()
        until_s = time.monotonic() + _STOP_WITHIN_S
        for thread in threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        log.info("worker_stopped")


def _check() -> None:
    """Raises CommandError where the leases say that no worker is at its jobs."""
    try:
        complaint = job_metrics.complaint()
    except DatabaseError as error:
        raise CommandError("the database does not answer, or was never migrated") from error
    if complaint:
        raise CommandError(complaint)


def _run_until(stop: threading.Event, job: jobs.Job) -> None:
    while not stop.is_set():
        pause_s = min(_POLL_S * 5, job.interval.total_seconds())
        with jobs.named_in_log(job):
            try:
                jobs.run_if_due(job)
            except Exception:  # one failing job, or a database that is away, must not end all
                log.exception("job_failed")
                pause_s = _AFTER_FAILURE_S
            finally:
                connection.close()
        stop.wait(pause_s)
