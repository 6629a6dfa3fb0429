"""What an exchange of databases undoes, and the list of it, which is on the disk before that.

Afterwards nobody could tell any more: the trail that knows is the one that was put aside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import Error
from django.db.models import Count, QuerySet

from monitoring.backups import afterwards
from monitoring.backups.database import is_there
from monitoring.backups.scratch import sync_folder
from monitoring.models import AuditEvent

_EXCHANGES = ("backup.restored", "backup.undone")
_LISTS = "restores"  # in DATA_DIR


@dataclass(frozen=True, kw_only=True)
class Undone:
    """What was done `after` something: how many of each action, and whom those to be minded were
    about, by id, each once."""

    after: str
    deeds: dict[str, int] = field(default_factory=dict)
    subjects: dict[str, list[str]] = field(default_factory=dict)

    def lines(self, *, at_most: int | None = None) -> Iterator[str]:
        """Sentences for the operator, with `at_most` ids in each."""
        if self.deeds:
            told = ", ".join(f"{count} {action}" for action, count in self.deeds.items())
            yield f"Done after {self.after}, and undone now: {told}."
        for action, advice in afterwards.to_mind().items():
            if subjects := self.subjects.get(action):
                shown = subjects[:at_most]
                left = len(subjects) - len(shown)
                more = f", and {left} more in the list" if left else ""
                yield f"{advice}: {', '.join(shown)}{more}"


def by_restoring(*, head: int) -> Undone:
    """What the present database's trail has after the event `head`, the backup's last; nothing
    where there is no database, or none that can be read."""
    return _found("the backup was made", lambda: head)


def by_going_back() -> Undone:
    """What was done in the present database since it came into its place."""
    return _found("the last restore", _last_exchange)


def _last_exchange() -> int:
    exchanges = AuditEvent.objects.filter(action__in=_EXCHANGES)
    return exchanges.order_by("-id").values_list("id", flat=True).first() or 0


def _found(after: str, head: Callable[[], int]) -> Undone:
    if not is_there():
        return Undone(after=after)
    try:
        later = AuditEvent.objects.filter(id__gt=head())
        counted: Any = later.order_by().values_list("action").annotate(Count("id"))
        return Undone(
            after=after,
            deeds=dict(sorted(counted)),
            subjects={action: _subjects(later, action) for action in afterwards.to_mind()},
        )
    except Error:
        return Undone(after=after)


def _subjects(events: QuerySet[AuditEvent], action: str) -> list[str]:
    ids = events.filter(action=action).order_by("id").values_list("subject_id", flat=True)
    return list(dict.fromkeys(ids))


def write_list(undone: Undone, *, what: str, aside: str, stamp: str) -> Path:
    """On the disk when this returns. It holds ids and no names. Raises OSError."""
    path: Path = settings.DATA_DIR / _LISTS / f"{stamp}.txt"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = (
        f"The database before is kept as {aside}. If there is none of that name, nothing was"
        " exchanged, and the rest of this does not count."
    )
    text = "\n".join([what, kept, how_to_go_back(aside), *undone.lines(), ""])
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
    return path


def how_to_go_back(aside: str) -> str:
    return f"To go back to it: manage.py restore --undo {aside} --yes"
