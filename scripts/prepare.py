"""What the launcher does inside Django: read the settings, bring the database up to date, make the
first administrator.

The only part of the launcher that imports Django, and late, so that Ctrl-C is heard before. It
leaves no connection and no thread behind.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.preflight import StartError

_ADMIN = "admin"
_ADMIN_EMAIL = "admin@localhost"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the settings mean for the launcher."""

    bind: str
    port: int
    engine_port: int
    runs_engine: bool
    uses_bundled_model: bool
    engine_url: str
    public_base_url: str
    allowed_hosts: tuple[str, ...]
    data_dir: Path
    has_api_docs: bool
    may_register: bool


@dataclass(frozen=True, kw_only=True)
class Administrator:
    """`password` is known only to who has just made the account."""

    username: str
    password: str | None


def read_plan() -> Plan:
    """Set Django up. Raises StartError with everything that is wrong with the settings."""
    import django
    from django.core.exceptions import ImproperlyConfigured

    os.environ["DJANGO_SETTINGS_MODULE"] = "sovereigncore.settings"
    try:
        django.setup()
    except ImproperlyConfigured as error:
        raise StartError(str(error)) from error
    logging.disable(logging.WARNING)  # the terminal is for sentences; the programs log to files
    from django.conf import settings

    return Plan(
        bind=settings.BIND,
        port=settings.PORT,
        engine_port=settings.ENGINE_PORT,
        runs_engine=settings.ENGINE_IS_LOCAL,
        uses_bundled_model=settings.ENGINE_IS_LOCAL and settings.MODEL_PATH is None,
        engine_url=settings.ENGINE_URL,
        public_base_url=settings.PUBLIC_BASE_URL,
        allowed_hosts=tuple(settings.ALLOWED_HOSTS),
        data_dir=settings.DATA_DIR,
        has_api_docs=settings.API_DOCS,
        may_register=settings.REGISTRATION_MODE == "open",
    )


def migrate(say: Callable[[str], None]) -> None:
    """Bring the database up to date; silent when it is. Raises StartError."""
    from django.core.management import call_command
    from django.db import Error, connection
    from django.db.migrations.executor import MigrationExecutor

    try:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            say("Preparing the database …")
            call_command("migrate", interactive=False, verbosity=0)
    except Error as error:
        raise StartError(f"the database cannot be used: {error}") from error
    finally:
        _let_go_of_database()


def find_administrator() -> Administrator | None:
    """The first administrator, made now if there is none; None when the name is somebody's."""
    from django.contrib.auth import get_user_model
    from django.db import Error

    from accounts.services import IdentityTaken, bootstrap_admin

    try:
        admins = get_user_model().objects.filter(is_superuser=True, is_active=True)
        found = admins.order_by("created_at").values_list("username", flat=True).first()
        if found:  # asking first saves a second of hashing
            return Administrator(username=found, password=None)
        password = bootstrap_admin(username=_ADMIN, email=_ADMIN_EMAIL)
        return Administrator(username=_ADMIN, password=password)
    except IdentityTaken:
        return None
    except Error as error:
        raise StartError(f"the database cannot be used: {error}") from error
    finally:
        _let_go_of_database()


def _let_go_of_database() -> None:
    """The launcher lives as long as the platform and has no more use for a connection."""
    from django.db import connection

    connection.close()
    close_pool = getattr(connection, "close_pool", None)
    if close_pool is not None:
        close_pool()
