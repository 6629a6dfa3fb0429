"""`manage.py verify_deployment`: whether an installation is as it should be, by really asking."""

from __future__ import annotations

import re
import ssl
import sys
from argparse import BooleanOptionalAction
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from monitoring import deployment
from monitoring.deployment import Check, Finding, Verdict, address, by_http, own
from monitoring.deployment.address import Address

_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


class Command(BaseCommand):
    help = (
        "Ask every part of this installation whether it is as it should be, after installing or "
        "upgrading: settings, database, Redis, engine, worker, mail, audit trail, backups, and the "
        "address that users reach. Prints a line for each check and changes nothing but Redis' ACL "
        "LOG. Exit code 1 when one failed. Takes seconds; what hangs is given up."
    )
    # It asks for them itself, and tells the others when one of them fails.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--public",
            action=BooleanOptionalAction,
            default=settings.SERVED_BY_TLS,
            help="ask PUBLIC_BASE_URL through the proxy; by default where it is https",
        )
        parser.add_argument(
            "--ca",
            metavar="FILE",
            help="the authority that signed the server's certificate, if it is one of your own;"
            " - reads it from standard input",
        )
        parser.add_argument(
            "--http",
            metavar="URL",
            help="where plain HTTP is answered; PUBLIC_BASE_URL's host on port 80 by default",
        )
        parser.add_argument(
            "--web",
            metavar="URL",
            action="append",
            help="a web process itself, if it is not at BIND and PORT of this host:"
            " http://api:8528; once for each",
        )
        parser.add_argument("--json", action="store_true", help="the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        base = settings.PUBLIC_BASE_URL
        asked = Address(
            webs=tuple(_url(web, "--web") for web in options["web"] or () if web)
            or (address.default_web(),),
            base=base,
            plain=_url(options["http"], "--http") or address.default_plain(base),
            is_public_asked=options["public"],
            trusting=_trusting(options["ca"]),
        )
        findings: list[tuple[Check, Finding]] = []
        # Web processes first: those that nobody asked before connect to the database then, which
        # the check of its roles looks for.
        for check in (*address.checks(asked), *own.CHECKS, *deployment.registered()):
            findings.append((check, deployment.run(check)))
            if not options["json"]:
                self._write_line(*findings[-1])
        counts = Counter(finding.verdict for _, finding in findings)
        if options["json"]:
            self._write_json(findings, counts)
        else:
            self.stdout.write("")
            said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)
            self.stdout.write(f"{base}: {len(findings)} checks: {said}.")
        if failures := counts[Verdict.FAILED]:
            raise CommandError(f"{failures} of {len(findings)} checks failed.")

    def _write_line(self, check: Check, finding: Finding) -> None:
        self.stdout.write(f"{finding.verdict:<11}  {check.name:<17}  {_line(finding.why)}")
        self.stdout.flush()  # each when it is known: some wait

    def _write_json(self, findings: list[tuple[Check, Finding]], counts: Counter[Verdict]) -> None:
        said = {
            "address": settings.PUBLIC_BASE_URL,
            "version": settings.VERSION,
            "passed": not counts[Verdict.FAILED],
            "counts": {verdict.value: counts[verdict] for verdict in Verdict},
            "checks": [
                {"name": check.name, "verdict": finding.verdict, "why": _line(finding.why)}
                for check, finding in findings
            ],
        }
        self.stdout.write(orjson.dumps(said, option=orjson.OPT_INDENT_2).decode())


def _line(text: str) -> str:
    return " ".join(text.split())


def _url(given: str | None, option: str) -> str:
    if given and not _URL.fullmatch(given.rstrip("/")):
        raise CommandError(f"{option} takes http(s)://host[:port].")
    return (given or "").rstrip("/")


def _trusting(file: str | None) -> ssl.SSLContext:
    try:
        authority = sys.stdin.read() if file == "-" else Path(file).read_text() if file else ""
        if file and "BEGIN CERTIFICATE" not in authority:
            raise CommandError(f"There is no certificate in {file}.")
        return by_http.context_for(authority)
    except (OSError, UnicodeDecodeError) as error:  # SSLError is an OSError
        raise CommandError(f"{file} holds no certificate that can be read.") from error
