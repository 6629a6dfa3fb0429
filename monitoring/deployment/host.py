"""The settings, their file, the clock and the disks of this host."""

from __future__ import annotations

import stat
from pathlib import Path

from django.conf import settings
from django.core import checks
from django.db import connection
from django.utils import timezone

from monitoring import sensors
from monitoring.deployment.findings import Finding, failed, not_checked, ok, warning
from monitoring.models import AuditEvent

_CLOCKS_APART_S = 5.0  # tokens that one host signs must be good at the next one


def ask_settings() -> Finding:
    """`check --deploy`."""
    found = [
        message
        for message in checks.run_checks(include_deployment_checks=True)
        if not message.is_silenced() and message.level >= checks.WARNING
    ]
    if not found:
        return ok("check --deploy has nothing to say")
    said = "; ".join(f"{message.id}: {_first_sentence(message.msg)}" for message in found)
    return failed(said) if any(message.is_serious() for message in found) else warning(said)


def ask_settings_file() -> Finding:
    """Whether anybody but its owner and its group can read or change the file with the secrets."""
    path = Path(settings.DOTENV_FILE)
    if not path.is_file():
        return not_checked("there is none: every setting comes from the environment")
    path = path.resolve()
    mode = stat.S_IMODE(path.stat().st_mode)
    reaches = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
    if mode & (stat.S_IROTH | stat.S_IWOTH) and reaches:
        return failed(f"{path} has mode {mode:o}: everybody on this host reaches its secrets")
    if mode & stat.S_IWGRP:
        return failed(f"{path} has mode {mode:o}: its group can change it")
    return ok(f"{path}, mode {mode:o}")


def ask_clock() -> Finding:
    """Against the database server's clock, and against the newest event of the audit trail."""
    newest = AuditEvent.objects.order_by("-at").values_list("at", flat=True).first()
    if newest is not None:
        ahead_s = (newest - timezone.now()).total_seconds()
        if ahead_s > _CLOCKS_APART_S:
            return failed(f"the audit trail's newest event is {ahead_s:.0f} s in the future")
    if connection.vendor != "postgresql":
        return ok("not behind the audit trail's newest event")
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
        apart_s = abs(float(cursor.fetchone()[0]) - timezone.now().timestamp())
    if apart_s > _CLOCKS_APART_S:
        return failed(f"{apart_s:.0f} s from the clock of the database server")
    return ok(f"{apart_s:.1f} s from the clock of the database server")


def ask_disks() -> Finding:
    """By the governor's limits, of DATA_DIR and of BACKUP_DIR."""
    limits, used = settings.GOVERNOR, dict[str, float]()
    for name in ("DATA_DIR", "BACKUP_DIR"):
        folder = getattr(settings, name)
        if folder is None or not folder.is_dir():
            continue
        percent, _ = sensors.disk_use(folder)
        if percent is None:
            return failed(f"the disk of {name} cannot be read")
        used[name] = percent
    said = ", ".join(f"{name} {percent:.0f} % full" for name, percent in used.items())
    if not used:
        return failed(f"there is no directory {settings.DATA_DIR}")
    if max(used.values()) >= limits["disk_survive_percent"]:
        return failed(f"{said}: from {limits['disk_survive_percent']:g} % on questions are refused")
    if max(used.values()) >= limits["disk_conserve_percent"]:
        return warning(f"{said}: answers are short from {limits['disk_conserve_percent']:g} % on")
    return ok(said)


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).partition(". ")[0].rstrip(".")
