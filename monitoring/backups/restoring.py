"""Putting a backup in the place of the database. Until it is there, whole and checked, the present
database is not touched; after that it is kept aside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from django.db import connections
from django.utils import timezone

from monitoring import audit
from monitoring.backups import afterwards, files, schema, undone
from monitoring.backups.database import Successor, as_default, kind
from monitoring.backups.errors import BackupError, BackupFailed, DatabaseInUse, OtherKeys
from monitoring.backups.failures import EXPECTED, explain
from monitoring.backups.manifest import About, Manifest
from monitoring.backups.reading import Backup, opened
from monitoring.backups.scratch import scratch_folder
from monitoring.backups.undone import Undone

Tell = Callable[[str], None]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Restored:
    """`aside` is what keeps the former database, or an empty text if there was none."""

    about: About
    manifest: Manifest
    aside: str
    undone: Undone
    changed_keys: list[str]


@dataclass(frozen=True, kw_only=True)
class WentBack:
    aside: str
    undone: Undone


def restore(path: Path, *, keep_sessions: bool, accept_other_keys: bool, tell: Tell) -> Restored:
    """Raises BackupRefused or DatabaseInUse with nothing changed, or BackupFailed."""
    try:
        with opened(path) as backup:
            if not accept_other_keys:
                _refuse_other_keys(backup.about)
            return _restore(backup, path.name, keep_sessions=keep_sessions, tell=tell)
    except BackupError:
        raise
    except EXPECTED as error:
        raise BackupFailed(explain(error)) from error


def describe(path: Path) -> About:
    """What a backup says of itself. Raises BackupRefused."""
    with opened(path) as backup:
        return backup.about


def take_out_keys(path: Path) -> Path:
    """The folder that the keys in a backup were put into; nothing else is touched."""
    try:
        with opened(path) as backup, scratch_folder() as folder:
            unpacked = files.Unpacked(folder)
            backup.unpack_keys(unpacked)
            made = unpacked.put_keys(stamp=_stamp())
    except BackupError:
        raise
    except EXPECTED as error:
        raise BackupFailed(explain(error)) from error
    return made


def _refuse_other_keys(about: About) -> None:
    """What is written from now on, the restore's own row in the audit trail first, would not fit to
    what is there."""
    if changed := files.changed_keys(about.key_prints):
        names = " and ".join(changed)
        how = "`restore FILE --only-keys` takes them out of it. " if about.has_keys else ""
        raise OtherKeys(
            f"{names}: another one than when this backup was made. Put the old one into `.env`"
            f" first. {how}If it is lost, add --other-keys: then the audit trail from before cannot"
            " be verified, and API keys of engines have to be entered again."
        )


def go_back(aside: str, *, keep_sessions: bool, tell: Tell) -> WentBack:
    """Put the database that a restore kept aside back in place. Raises BackupFailed or
    DatabaseInUse."""
    try:
        return _go_back(aside, keep_sessions=keep_sessions, tell=tell)
    except BackupError:
        raise
    except EXPECTED as error:
        raise BackupFailed(explain(error)) from error


def _go_back(aside: str, *, keep_sessions: bool, tell: Tell) -> WentBack:
    stamp, former = _stamp(), aside.rpartition("-")[2].rpartition("_")[2]
    lost = undone.by_going_back()
    _let_go()
    with kind().kept(aside) as returning:
        with as_default(returning.wrapper()):
            _prepare(keep_sessions=keep_sessions, tell=tell)
            detail: audit.Detail = {"kept_as": aside, "sessions_kept": keep_sessions}
            audit.record("backup.undone", actor_id=None, detail=detail)
        what = f"Going back to {aside}."
        kept = _exchange(returning, lost, what=what, stamp=stamp, tell=tell)
        for name in files.FOLDERS:
            files.change_folder(name, files.aside(name, former), stamp=stamp)
    log.info("backup_undone", kept_as=aside, aside=kept)
    return WentBack(aside=kept, undone=lost)


def _restore(backup: Backup, name: str, *, keep_sessions: bool, tell: Tell) -> Restored:
    about, stamp = backup.about, _stamp()
    lost = undone.by_restoring(head=about.audit_head.id if about.audit_head else 0)
    _let_go()
    with scratch_folder() as folder, kind().successor(about) as scratch:
        tell("Reading the backup into an empty database and comparing every table …")
        unpacked = files.Unpacked(folder)
        manifest = backup.unpack(scratch, unpacked)
        tell(f"All {len(manifest.tables)} tables are as they were: {manifest.rows} rows.")
        with as_default(scratch.wrapper()):
            _prepare(keep_sessions=keep_sessions, tell=tell)
            detail: audit.Detail = {
                "file": name,
                "made_at": about.created_at,
                "sessions_kept": keep_sessions,
            }
            audit.record("backup.restored", actor_id=None, detail=detail)
        what = f"Restoring {name}, made at {about.created_at}."
        aside = _exchange(scratch, lost, what=what, stamp=stamp, tell=tell)
        unpacked.put_in_place(stamp=stamp)
    log.info("backup_restored", file=name, aside=aside)
    return Restored(
        about=about,
        manifest=manifest,
        aside=aside,
        undone=lost,
        changed_keys=files.changed_keys(about.key_prints),
    )


def _prepare(*, keep_sessions: bool, tell: Tell) -> None:
    """Of the database that is the default one now and will be everybody's."""
    if schema.is_behind():
        tell("It is of an older version: bringing its tables up to date …")
        schema.catch_up()
    if not keep_sessions:
        for what, run in afterwards.steps().items():
            tell(f"{run()} {what}.")


def _exchange(successor: Successor, lost: Undone, *, what: str, stamp: str, tell: Tell) -> str:
    """Where the former database is kept. The list is there before, so that whoever is killed right
    afterwards still knows it."""
    listed: Path | None = None
    if aside := successor.aside(stamp=stamp):
        listed = undone.write_list(lost, what=what, aside=aside, stamp=stamp)
        tell(f"What is undone by this is listed in {listed}.")
    tell("Putting it in place of the present database, which is kept aside …")
    try:
        return successor.take_over(stamp=stamp)
    except DatabaseInUse:
        if listed is not None:
            listed.unlink(missing_ok=True)
        raise


def _let_go() -> None:
    """Our own connections would be others' to the database."""
    default: Any = connections["default"]
    default.close()
    if getattr(default, "pool", None) is not None:
        default.close_pool()


def _stamp() -> str:
    """Of a moment, as a part of names: also two restores in one second keep two databases."""
    return f"{timezone.now():%Y%m%dt%H%M%S%f}"
