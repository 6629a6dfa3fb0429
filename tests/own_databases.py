"""A database of a test's own, which it may have replaced, and a DATA_DIR beside it."""

from __future__ import annotations

import contextlib
import copy
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.sql import SQL, Identifier

from monitoring.backups.database import as_default

KEY = "k7Qm2VxZp9LrTf4WcYb8NdHs3GjEa6Ru"  # of backups that live for one test


def wrapper_for(name: str) -> BaseDatabaseWrapper:
    its: dict[str, Any] = {**connection.settings_dict, "NAME": name}
    its["OPTIONS"] = copy.copy(its["OPTIONS"])
    wrapper: Any = type(connections["default"])(its, "default")
    wrapper._connection_pools = {}  # not the suite's own pool, which is another database's
    return wrapper  # type: ignore[no-any-return]


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """In this thread the database is that one."""
    wrapper: Any = wrapper_for(name)
    try:
        with as_default(wrapper):
            yield
    finally:
        close_all(wrapper)


def close_all(wrapper: Any) -> None:
    wrapper.close()
    getattr(wrapper, "close_pool", lambda: None)()


@contextlib.contextmanager
def new_database(folder: Path) -> Iterator[str]:
    """Its name: a copy of the suite's own, in which tests leave migrations and content types."""
    if connection.vendor == "sqlite":
        name = str(folder / "db.sqlite3")
        with (
            contextlib.closing(sqlite3.connect(connection.settings_dict["NAME"])) as source,
            contextlib.closing(sqlite3.connect(name)) as target,
        ):
            source.backup(target)
        yield name
        return
    suites = connection.settings_dict["NAME"]
    name = f"own_{uuid.uuid4().hex}"
    close_all(connections["default"])  # nobody may be connected to what is copied
    _run(SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(suites)))
    try:
        yield name
    finally:
        _run(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def _run(statement: Any) -> None:
    default: Any = connections["default"]
    with default._nodb_cursor() as cursor:
        cursor.execute(statement)
