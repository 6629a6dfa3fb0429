"""`manage.py verify_audit`: whether the audit trail is what was written."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from monitoring.audit import checkpoints, signing, sources
from monitoring.audit.checkpoints import Checkpoint
from monitoring.audit.verification import Report, Verification
from monitoring.models import AuditSeal
from monitoring.progress import Progress

_UNPROVABLE = (
    "What this cannot tell: whether what happened was recorded at all; what was cut off after the "
    "newest checkpoint; and anything against somebody who has AUDIT_KEY and can write checkpoints "
    "too. See docs/explanation/audit.md."
)


class Command(BaseCommand):
    help = (
        "Verify the audit trail, archives included: finds changed, missing, added and reordered "
        "rows by their digests and seals, and a trail that was cut off by the signed checkpoints. "
        "Needs the database and AUDIT_KEY and no running platform, and changes nothing. Exit code "
        "1 when anything is wrong; the first bad row or seal is named."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        against = parser.add_mutually_exclusive_group()
        against.add_argument(
            "--checkpoints",
            type=Path,
            metavar="FILE",
            help="default: DATA_DIR/audit/checkpoints.jsonl; better a copy kept elsewhere",
        )
        against.add_argument(
            "--without-checkpoints",
            action="store_true",
            help="do without: then a trail that was cut off at its end is not found",
        )
        parser.add_argument(
            "--public-key",
            action="append",
            default=[],
            metavar="HEX",
            help="trust checkpoints by this key; may be repeated. Default: this machine's own",
        )
        parser.add_argument(
            "--print-public-key", action="store_true", help="print this machine's own and stop"
        )
        parser.add_argument(
            "--file", type=Path, help="verify an archive or an export instead of the database"
        )
        parser.add_argument(
            "--without-key",
            action="store_true",
            help="check nothing that needs AUDIT_KEY: for a file of another platform. Rows that no "
            "checkpoint speaks for are then not verified, and the trail is not called sound",
        )
        parser.add_argument(
            "--skip-archives", action="store_true", help="verify what is in the database only"
        )
        parser.add_argument("--json", action="store_true", help="the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["print_public_key"]:
                self.stdout.write(signing.public_key())
            else:
                self._handle(options)
        except DatabaseError as error:
            why = str(error).partition("\n")[0]
            raise CommandError(f"The trail cannot be read from the database: {why}.") from error
        except OSError as error:
            raise CommandError(f"{error.filename} cannot be read: {error.strerror}.") from error
        except signing.UnreadableKey as error:
            raise CommandError(str(error)) from error

    def _handle(self, options: dict[str, Any]) -> None:
        if options["file"] and not options["file"].exists():
            raise CommandError(f"There is no file {options['file']}.")
        trusted, wrong = self._checkpoints(options)

        def begin() -> Verification:
            return Verification(with_key=not options["without_key"], checkpoints=trusted)

        report = self._verify(begin, options)
        for why in wrong:
            report.add("checkpoint", 0, why)
        if options["json"]:
            self._write_json(report, count=len(trusted))
        else:
            self._write(report, count=len(trusted), without_key=options["without_key"])
        if not report.is_sound:
            raise CommandError(f"The audit trail is NOT sound. First: {report.problems[0]}")

    def _verify(self, begin: Any, options: dict[str, Any]) -> Report:
        file, with_archives = options["file"], not options["skip_archives"]
        total = 0 if file else sources.count_of_rows(with_archives=with_archives)
        progress = Progress(sys.stderr, total=total, what="rows")
        try:
            if file:
                return sources.verify_file(begin(), file, counted=progress.counted)
            return sources.verify_database(
                begin, with_archives=with_archives, counted=progress.counted
            )
        finally:
            progress.close()

    def _checkpoints(self, options: dict[str, Any]) -> tuple[dict[int, Checkpoint], list[str]]:
        if options["without_checkpoints"]:
            return {}, []
        keys = {key.strip().lower() for key in options["public_key"]}
        if not all(signing.is_public_key(key) for key in keys):
            raise CommandError("--public-key takes 64 hexadecimal digits.")
        file: Path = options["checkpoints"] or checkpoints.path()
        is_any = file.exists() or checkpoints.older_path(file).exists()
        if not is_any and options["checkpoints"]:
            raise CommandError(f"There is no file {file}.")
        if not any(checkpoints.lines(file)):  # an emptied file is as good as none
            is_wanted = options["checkpoints"] or (
                options["file"] is None and AuditSeal.objects.exists()
            )
            missing = (
                f"There are no checkpoints at {file}: a trail that was cut off would not show."
            )
            return {}, [missing] if is_wanted else []
        if not keys and not signing.has_key():
            raise CommandError("Name the key of the checkpoints with --public-key.")
        return checkpoints.trusted(file, keys or {signing.public_key()})

    def _write_json(self, report: Report, *, count: int) -> None:
        said = {
            "sound": report.is_sound,
            "seals": report.seals,
            "sealed": report.sealed,
            "unsealed": report.unsealed,
            "unverified": report.unverified,
            "last_seal": report.last_seal,
            "last_id": report.last_id,
            "checkpoints": count,
            "newest_checkpoint": report.checkpoint and asdict(report.checkpoint),
            "problem_count": report.problem_count,
            "problems": [asdict(problem) for problem in report.problems],
            "notes": report.notes,
        }
        self.stdout.write(orjson.dumps(said, option=orjson.OPT_INDENT_2).decode())

    def _write(self, report: Report, *, count: int, without_key: bool) -> None:
        self.stdout.write(
            f"{report.sealed:,} sealed rows under {report.seals:,} seals; the newest is row"
            f" {report.last_id} under seal {report.last_seal}."
        )
        by_itself = "could not be verified" if without_key else "was verified by its own digest"
        self.stdout.write(f"{report.unsealed:,} rows have no seal yet; each {by_itself}.")
        if report.checkpoint:
            behind = report.last_seal - report.checkpoint.seal
            self.stdout.write(
                f"{count:,} signed checkpoints; the newest that agrees is of seal"
                f" {report.checkpoint.seal}, written at {report.checkpoint.at};"
                f" {behind or 'no'} seals are newer."
            )
        else:
            self.stdout.write("No checkpoint speaks for it.")
        for note in report.notes:
            self.stdout.write(note)
        self.stdout.write(_UNPROVABLE)
        for problem in report.problems:
            self.stdout.write(f"PROBLEM ({problem.kind}): {problem}")
        if report.problem_count > len(report.problems):
            self.stdout.write(f"… and {report.problem_count - len(report.problems):,} more.")
        if report.is_sound:
            self.stdout.write("The audit trail is sound.")
