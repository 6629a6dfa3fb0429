"""Processes killed in the middle of a backup or a restore, at points that a test chooses."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from accounts.models import User
from accounts.services import erase_user
from tests import environment
from tests.backing_up import add_user, back_up, folder, leftovers, names, restore
from tests.own_databases import close_all

pytestmark = pytest.mark.usefixtures("own_database")

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 90
_KILLED = """
import os, signal, sys
import django
django.setup()
from django.core.management import call_command

def kill(*_args, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

from {module} import {owner}
setattr({owner}, {name!r}, kill)
call_command(*sys.argv[1:])
"""


def killed(module: str, owner: str, name: str, *command: str) -> None:
    """Run `command` in a process of its own that is killed when it calls `owner.name`."""
    database = connection.settings_dict["NAME"]
    if connection.vendor == "postgresql":
        url = os.environ["DATABASE_URL"].rpartition("/")[0] + f"/{database}"
    else:
        url = f"sqlite:///{database}"
    close_all(connection)
    variables = environment.test_environment(
        str(settings.DATA_DIR),
        DATABASE_URL=url,
        BACKUP_DIR=str(settings.BACKUP_DIR),
        BACKUP_KEY=settings.BACKUP_KEY,
        DJANGO_SETTINGS_MODULE="sovereigncore.settings",
    )
    done = subprocess.run(
        [sys.executable, "-c", _KILLED.format(module=module, owner=owner, name=name), *command],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


@pytest.mark.parametrize(
    "where",
    [
        ("monitoring.backups.archive", "ArchiveWriter", "finish"),
        ("pathlib", "Path", "rename"),
    ],
)
def test_a_killed_backup_looks_like_none(where: tuple[str, str, str]) -> None:
    killed(*where, "backup")
    found = list(folder().iterdir())
    assert len(found) == 1
    assert found[0].name.endswith(".partial")
    assert [path.suffix for path in folder().glob("*")] == [".partial"]
    path = back_up()
    assert list(folder().iterdir()) == [path]
    assert leftovers() == []


RESTORE_POINTS = {
    "before it is compared": ("monitoring.backups.archive", "ArchiveReader", "_expect_end"),
    "before it takes over": ("monitoring.backups.restoring", "audit", "record"),
}
LAST_POINTS = {
    "sqlite": ("pathlib", "Path", "replace"),
    "postgresql": ("monitoring.backups", "postgresql_place", "_move"),
}


@pytest.mark.parametrize("point", ["before it is compared", "before it takes over", "last"])
def test_a_killed_restore_leaves_the_database_as_it_was(point: str) -> None:
    add_user("alice")
    path = back_up()
    add_user("bob")
    where = RESTORE_POINTS.get(point) or LAST_POINTS[connection.vendor]
    killed(*where, "restore", str(path), "--yes")
    assert names() == ["alice", "bob"]
    add_user("carol")  # it works as before
    restore(path)
    assert names() == ["alice"]
    assert leftovers() == []


def test_killed_after_the_exchange_what_it_undid_is_still_known(staff: User) -> None:
    alice = add_user("alice")
    path = back_up()
    erase_user(alice, by=staff)
    add_user("bob")
    killed("monitoring.backups.files", "Unpacked", "put_in_place", "restore", str(path), "--yes")
    assert "bob" not in names()
    (listed,) = (settings.DATA_DIR / "restores").iterdir()
    told = listed.read_text()
    assert f"Erase these accounts again: {alice.id}" in told
    assert "alice" not in told
    assert stat.S_IMODE(listed.stat().st_mode) == 0o600
    aside = told.partition("kept as ")[2].partition(". If")[0]
    call_command("restore", undo=aside, yes=True)
    assert "bob" in names()
    assert "alice" not in names()
