"""PostgreSQL with `deploy/postgresql` as it is shipped: roles.sql run by the real psql, pg_hba.conf
at the top of the server's own, postgresql.conf at the end of it."""

from __future__ import annotations

import secrets
import subprocess

import psycopg

from tests.migrated import ROOT
from tests.servers import DATABASE, PostgresServer

SHIPPED = ROOT / "deploy/postgresql"
OWNER, APP, EXPORTER = "sovereigncore_owner", "sovereigncore_app", "exporter"
_PSQL_TIMEOUT_S = 60.0


class RoledPostgres(PostgresServer):
    """`make_roles` is what an operator does before the first migration, and may do again."""

    def __init__(self) -> None:
        super().__init__()
        self.passwords = {role: secrets.token_hex(32) for role in (OWNER, APP, EXPORTER)}

    def prepare(self) -> None:
        super().prepare()
        data = self.scratch.path / "data"
        config = data / "postgresql.conf"
        config.write_text(config.read_text() + (SHIPPED / "postgresql.conf").read_text())
        allowed = data / "pg_hba.conf"
        allowed.write_text((SHIPPED / "pg_hba.conf").read_text() + allowed.read_text())

    def url_of(self, role: str, database: str = DATABASE) -> str:
        return f"postgres://{role}:{self.passwords[role]}@127.0.0.1:{self.port}/{database}"

    def connect(self, role: str, database: str = DATABASE) -> psycopg.Connection:
        return psycopg.connect(self.url_of(role, database), autocommit=True, connect_timeout=10)

    def make_roles(self) -> str:
        """What psql says."""
        told = {
            "owner_password": self.passwords[OWNER],
            "app_password": self.passwords[APP],
            "exporter_password": self.passwords[EXPORTER],
        }
        script = [
            *(f"\\set {name} '{password}'\n" for name, password in told.items()),
            (SHIPPED / "roles.sql").read_text(encoding="utf-8"),
        ]
        done = subprocess.run(
            [self._program.with_name("psql"), "-X", self.superuser_url],
            input="".join(script),
            capture_output=True,
            text=True,
            timeout=_PSQL_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr
