"""Databases for processes under test, copied from one that was migrated once: migrating takes
seconds, and dozens of tests start a platform of their own.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from tests.environment import test_environment

ROOT = Path(__file__).resolve().parent.parent
_DROP_TIMEOUT_S = 45.0


@contextlib.contextmanager
def own_database(folder: str, *, server: str | None = None) -> Iterator[dict[str, str]]:
    """A migrated SQLite file in `folder`, or a new database in the server at that URL, which is
    DATABASE_URL unless given: the variables that name it."""
    if server is None:
        server = os.environ.get("DATABASE_URL", "")
    if not server:
        shutil.copy(_sqlite_template(), Path(folder) / "db.sqlite3")
        yield {"DATABASE_URL": ""}
        return
    name = f"live_{uuid.uuid4().hex}"
    create_database(server, name, template=_postgresql_template(server))
    try:
        yield {"DATABASE_URL": _url_of(server, name)}
    finally:
        drop_database(server, name)


def manage(
    environment: dict[str, str], *arguments: str, root: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@functools.cache
def _sqlite_template() -> Path:
    folder = tempfile.mkdtemp(prefix="sovereigncore-migrated-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _migrate(folder, database="")
    return Path(folder) / "db.sqlite3"


@functools.cache
def _postgresql_template(server: str) -> str:
    name = f"migrated_{uuid.uuid4().hex}"
    create_database(server, name)
    atexit.register(_drop_if_there, server, name)
    with tempfile.TemporaryDirectory() as folder:
        _migrate(folder, database=_url_of(server, name))
    return name


def _migrate(folder: str, *, database: str) -> None:
    environment = {
        **os.environ,
        **test_environment(folder),
        "DJANGO_SETTINGS_MODULE": "sovereigncore.settings",
        "DATABASE_URL": database,
    }
    done = manage(environment, "migrate", "--verbosity=0")
    assert done.returncode == 0, done.stderr


def _url_of(server: str, name: str) -> str:
    return server.rpartition("/")[0] + "/" + name


def create_database(server: str, name: str, *, template: str = "template1") -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')


def drop_database(server: str, name: str) -> None:
    """Drop a database with whoever is connected; an autovacuum worker, which only a superuser may
    end, is waited for."""
    with psycopg.connect(server, autocommit=True) as connection:
        until_s = time.monotonic() + _DROP_TIMEOUT_S
        while not _is_dropped(connection, name):
            assert time.monotonic() < until_s, f"somebody holds the database {name}"
            time.sleep(0.5)


def _is_dropped(connection: psycopg.Connection[Any], name: str) -> bool:
    try:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def _drop_if_there(server: str, name: str) -> None:
    with contextlib.suppress(psycopg.OperationalError):  # a server of the suite's own is gone
        drop_database(server, name)
