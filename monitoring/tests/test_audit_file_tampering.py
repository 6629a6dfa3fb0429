"""A real SQLite file, copied and tampered with by the sqlite3 module, verified by the command."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests import environment

pytestmark = [pytest.mark.once, pytest.mark.xdist_group(__name__)]

# One process for all copies: starting one costs more than what it is asked.
_MAKE = """
import uuid, django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from monitoring import audit
from monitoring.audit import sealing
for count in (4, 3, 5):
    for number in range(count):
        actor = uuid.UUID("abcdefab-cdef-4abc-8def-abcdefabcdef")
        audit.record("key.created", actor_id=actor, detail={"n": number, "name": "Zo\u00eb"})
    sealing.seal_audit()
for number in range(2):
    audit.record("key.revoked", actor_id=None, detail={"n": number})
"""
_VERIFY = """
import io, json, sys, django
django.setup()
from django.core.management import CommandError, call_command
from django.db import connection
for path in json.loads(sys.argv[1]):
    connection.close()
    connection.settings_dict["NAME"] = path
    out, code = io.StringIO(), 0
    try:
        call_command("verify_audit", "--json", stdout=out)
    except CommandError as error:
        code = error.returncode
    print(json.dumps([code, json.loads(out.getvalue())]))
"""
_TRIGGERS = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'audit%'"
_EVENTS, _SEALS = "monitoring_auditevent", "monitoring_auditseal"
_SAID = "at, action, actor_id, subject_id, detail, request_id, digest"
_COPY = (
    f"INSERT INTO {_EVENTS} (id, seal_id, {_SAID})"
    f" SELECT 99, {{seal}}, {_SAID} FROM {_EVENTS} WHERE id = 9"
)

# Statements, and the kind and id of the first problem that must be told.
_TAMPERING: dict[str, tuple[list[str], tuple[str, int] | None]] = {
    "nothing": ([], None),
    "update": ([f"UPDATE {_EVENTS} SET action = 'key.revoked' WHERE id = 6"], ("row", 6)),
    "update unsealed": ([f"UPDATE {_EVENTS} SET detail = '{{}}' WHERE id = 13"], ("row", 13)),
    "delete": ([f"DELETE FROM {_EVENTS} WHERE id = 9"], ("row", 9)),
    "insert": (
        [_COPY.format(seal=3)],
        ("row", 99),
    ),
    "insert under a seal that is not there": (
        [_COPY.format(seal=77)],
        ("row", 99),
    ),
    "reorder": (
        [
            f"UPDATE {_EVENTS} SET id = -1 WHERE id = 2",
            f"UPDATE {_EVENTS} SET id = 2 WHERE id = 3",
            f"UPDATE {_EVENTS} SET id = 3 WHERE id = -1",
        ],
        ("row", 2),
    ),
    "truncate": (
        [f"DELETE FROM {_EVENTS} WHERE id > 7", f"DELETE FROM {_SEALS} WHERE id > 2"],
        ("trail", 0),
    ),
    "drop all": ([f"DELETE FROM {_EVENTS}", f"DELETE FROM {_SEALS}"], ("trail", 0)),
    "blob for text": ([f"UPDATE {_EVENTS} SET action = x'00ff' WHERE id = 6"], ("row", 6)),
    "text for blob": ([f"UPDATE {_EVENTS} SET digest = 'x' WHERE id = 6"], ("row", 6)),
    "actor in capitals": (
        [f"UPDATE {_EVENTS} SET actor_id = upper(actor_id) WHERE id = 6"],
        ("row", 6),
    ),
    "actor with dashes": (
        [
            f"UPDATE {_EVENTS} SET actor_id = 'abcdefab-cdef-4abc-8def-abcdefabcdef' WHERE id = 13",
        ],
        ("row", 13),
    ),
    "a number for the actor": ([f"UPDATE {_EVENTS} SET actor_id = 5 WHERE id = 6"], ("row", 6)),
    "a key twice": (
        [f"""UPDATE {_EVENTS} SET detail = replace(detail, '"n"', '"n": 9, "n"') WHERE id = 6"""],
        ("row", 6),
    ),
    "detail spelt otherwise": (
        [f"""UPDATE {_EVENTS} SET detail = replace(detail, ': ', ':') WHERE id = 6"""],
        ("row", 6),
    ),
    "number for moment": ([f"UPDATE {_EVENTS} SET at = 5 WHERE id = 6"], ("row", 6)),
}


def variables(data_dir: Path) -> dict[str, str]:
    own = environment.test_environment(str(data_dir), DATABASE_URL="", REDIS_URL="")
    return {**os.environ, **own, "DJANGO_SETTINGS_MODULE": "sovereigncore.settings"}


def run(data_dir: Path, program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=settings.BASE_DIR,
        env=variables(data_dir),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a trail of twelve rows under three seals is, and two without."""
    directory = tmp_path_factory.mktemp("trail")
    run(directory, _MAKE)
    return directory


@pytest.fixture(scope="module")
def verdicts(data_dir: Path) -> dict[str, tuple[int, dict[str, Any]]]:
    paths = []
    for number, (statements, _) in enumerate(_TAMPERING.values()):
        paths.append(str(data_dir / f"copy-{number}.sqlite3"))
        with sqlite3.connect(data_dir / "db.sqlite3") as whole:
            whole.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(data_dir / "db.sqlite3", paths[-1])
        with sqlite3.connect(paths[-1]) as copy:  # no foreign keys, unless asked for
            if statements:
                for (name,) in copy.execute(_TRIGGERS).fetchall():
                    copy.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                copy.execute(statement)
    lines = run(data_dir, _VERIFY, json.dumps(paths)).splitlines()
    return dict(zip(_TAMPERING, map(json.loads, lines), strict=True))


@pytest.mark.parametrize("how", list(_TAMPERING))
def test_a_copied_file_that_was_tampered_with(
    verdicts: dict[str, tuple[int, dict[str, Any]]], how: str
) -> None:
    code, said = verdicts[how]
    expected = _TAMPERING[how][1]
    if expected is None:
        assert (code, said["sealed"], said["unsealed"], said["problems"]) == (0, 12, 2, [])
    else:
        assert code == 1
        assert (said["problems"][0]["kind"], said["problems"][0]["id"]) == expected


def test_the_triggers_of_a_real_file_refuse_it(data_dir: Path) -> None:
    with sqlite3.connect(data_dir / "db.sqlite3") as database:
        for statement in (
            f"UPDATE {_EVENTS} SET action = 'x' WHERE id = 1",
            f"DELETE FROM {_EVENTS} WHERE id = 1",
            f"DELETE FROM {_SEALS}",
            f"UPDATE {_EVENTS} SET seal_id = 3 WHERE id = 1",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)
