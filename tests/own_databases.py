"""A database of a test's own, which it may have replaced, and a DATA_DIR beside it."""

from __future__ import annotations

import contextlib
import copy
import os
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from monitoring.backups.database import as_default
from tests.migrated import create_database, drop_database

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
    create_database(os.environ["DATABASE_URL"], name, template=suites)
    try:
        yield name
    finally:
        drop_database(os.environ["DATABASE_URL"], name)
